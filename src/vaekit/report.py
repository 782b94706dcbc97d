"""The report of a run: its figures, its numbers with their errors, and a sentence on each thing that looks wrong, in one HTML file."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaekit import viz
from vaekit.data.core import DataSet, Split
from vaekit.dist import DiagGaussian, centre
from vaekit.errors import InputError
from vaekit.evaluate import (
    ACTIVE,
    Diagnosis,
    Evaluation,
    Finding,
    Latents,
    advise,
    continuous,
    diagnose,
    evaluate,
    interpolate,
    latents,
    measure,
    reconstruction,
    scorable,
)
from vaekit.evaluate.passes import batches, device_of, dtype_of, observing
from vaekit.files import explained, write_bytes
from vaekit.models.core import LatentModel
from vaekit.models.picks import from_p, given
from vaekit.recipes.core import Recipe, outside
from vaekit.runs import Run
from vaekit.train.logs import read_csv
from vaekit.viz import Findings, Number, Picture, Section, Table
from vaekit.viz.figure import Figure

__all__ = ["UNTRAINED", "logged", "write_report"]

UNTRAINED = (
    "MCEM trains the decoder alone and leaves the encoder q(z | x) as it was drawn: what is read off it (reconstructions, codes, KL) says "
    "nothing, and the bounds made with its samples are true but loose; draw z from p(z | x) with vaekit.infer.sample(log_posterior(model, "
    "batch), ...)"
)
"""What is to be known of a run whose encoder nobody trained."""

QUICK = 16
"""Importance samples of the estimate that a report makes where nobody has evaluated yet."""
EXAMPLES = 1000
"""Examples, at most, behind the diagnosis and its comparison with the training data."""
POINTS = 5000
"""Examples, at most, in the latent map."""

Drawing = tuple[str, Figure, str, str]
"""Name of the file, figure, caption, and words for those who cannot see it."""


def write_report(run: Run, recipe: Recipe, evaluations: Mapping[str, Mapping[str, Any]]) -> Path:
    """Figures to ``figures/``, all of it to ``report.html``; the path of the page. ``recipe`` is the run's, and ``evaluations`` what was
    measured so far, by split."""
    model, data = recipe.model, recipe.data()
    shown = _some(data.test, POINTS)
    with explained(run.figures):
        run.figures.mkdir(exist_ok=True)
    map_: Latents | None = latents(model, shown)
    parts: list[Section] = []
    if not scorable(model, shown):
        findings, numbers = _reconstruction(model, data)
        parts.append(numbers)
    else:
        found = diagnose(model, _some(data.test, EXAMPLES), train=_some(data.train, EXAMPLES), samples=1)
        findings = found.findings
        if found.test is None or found.train is None:
            map_ = None  # no number can be trusted, and no picture
        else:
            findings, numbers = _likelihood(run, model, data, found, found.train, evaluations.get("test"))
            parts += [numbers, *([_diagnosis(run, found)] if recipe.objective.trains_q else [])]
    if not recipe.objective.trains_q:
        # the others would blame the model for what its encoder is
        findings = [Finding("warning", f"{UNTRAINED}."), *(f for f in findings if f.severity == "error")]
    pictures = []
    for name, figure, caption, alt in _drawings(run, recipe, data, shown, map_):
        if not recipe.objective.trains_q and name in ("reconstructions", "interpolations", "latents", "kl"):
            continue
        write_bytes(run.figures / f"{name}.png", viz.png(figure))
        pictures.append(Picture(figure, caption, alt))
    sections = [
        Section("What stands out", items=[Findings(findings)] if findings else ["Nothing looks wrong."]),
        *parts,
        Section("Pictures", items=pictures),
        Section("Settings", f"Made by: {run.config.command}", list(_settings(run, recipe))),
    ]
    page = viz.page(f"{run.config.recipe} · {run.name}", sections=sections, command=f"vaekit report {_words(run)}")
    path = run.path / "report.html"
    write_bytes(path, page.encode())
    return path


def _likelihood(
    run: Run, model: LatentModel, data: DataSet, found: Diagnosis, train: Evaluation, kept: Mapping[str, Any] | None
) -> tuple[list[Finding], Section]:
    """What stands out, and the numbers, of a model with a bound."""
    test = evaluate(model, data.test, samples=QUICK) if kept is None else _evaluation(kept)
    findings = advise(
        test,
        train=train,
        latents=found.latents,
        residuals=found.residuals,
        measure=measure(model, _some(data.test, EXAMPLES)),
        aggregate=found.aggregate,
        calibration=found.calibration,
        codes=found.codes,
    )
    how = f"{test.samples} importance samples for each of {test.examples} test examples" + (
        f"; a quick look, run: vaekit evaluate {_words(run)}" if kept is None else ""
    )
    return findings, Section("Numbers", f"Nats per example, from {how}. ± is the standard error over examples.", [_numbers(test, train)])


def _diagnosis(run: Run, found: Diagnosis) -> Section:
    """The figures behind the findings."""
    items: list[Table | Picture | Findings | str] = [
        Table(
            ["quantity", "value"],
            [[e.name, e.value if isinstance(e.value, str) else Number(e.value, e.error, e.unit)] for e in found.entries()],
        )
    ]
    a, c = found.aggregate, found.calibration
    drawn: list[Drawing] = []
    if a is not None:
        caption = "The rate is what z tells of which example it was, and how far all posteriors together lie from the prior"
        alt = "A bar of two parts, the mutual information and the gap, and a line at log N."
        drawn.append(("information", viz.information(a.mutual_information, a.gap, ceiling=a.ceiling), caption, alt))
    if c is not None:
        alt = "A histogram of the data's places in p(x | z), and the coverage of its central intervals."
        figure = viz.intervals(c.places, nominal=c.nominal, coverage=c.coverage)
        drawn.append(("intervals", figure, "Calibration of the decoder's distribution", alt))
    for name, figure, caption, alt in drawn:
        write_bytes(run.figures / f"{name}.png", viz.png(figure))
        items.append(Picture(figure, caption, alt))
    items += [f"{reason[0].upper()}{reason[1:]}." for reason in found.left_out]
    examples = found.test.examples if found.test is not None else 0
    text = f"A quick look at {examples} test examples, one z each; all of them: vaekit evaluate {_words(run)} --diagnose"
    return Section("Diagnosis", text, items)


def _reconstruction(model: LatentModel, data: DataSet) -> tuple[list[Finding], Section]:
    """The same of a model whose posterior is a point."""
    test, train = reconstruction(model, data.test), reconstruction(model, _some(data.train, EXAMPLES))
    finding = Finding(
        "info",
        "q(z | x) is a point: a plain autoencoder, which has no bound and no likelihood. Its codes were never made to match the prior, so "
        "that samples decode latents it may not have met; a Gaussian posterior and the ELBO make a generative model of it.",
    )
    rows: list[list[Any]] = []
    for found, where in ((test, f"{test.examples} test examples"), (train, f"{train.examples} training examples")):
        rows.append([f"squared error |x - x̂|² of {where}", Number(found.squared_error, found.squared_error_se, "")])
        rows.append([f"reconstruction term log p(x | z) of {where}", Number(found.log_px, found.log_px_se, "nats")])
    return [finding], Section("Numbers", "Per example, ± the standard error over examples.", [Table(["quantity", "value"], rows)])


def _numbers(test: Evaluation, train: Evaluation) -> Table:
    rows: list[list[Any]] = [
        ["negative log-likelihood, at most", Number(test.nll, test.nll_se, "nats")],
        ["evidence lower bound", Number(test.elbo, test.elbo_se, "nats")],
        [
            f"evidence lower bound on {train.examples} training examples, samples for each: {train.samples}",
            Number(train.elbo, train.elbo_se, "nats"),
        ],
        ["reconstruction term E log p(x | z)", Number(test.log_px, test.log_px_se, "nats")],
    ]
    one = len(test.rates) == 1
    for n, (rate, se) in enumerate(zip(test.rates, test.rates_se, strict=True)):
        rows.append(["KL(q(z | x) ‖ p(z))" if one else f"KL of level {n}, from the top", Number(rate, se, "nats")])
    rows += [
        ["bits per dimension, at most", Number(test.bits_per_dim, None, "bits")],
        ["effective sample size", f"{test.ess:.1f} of {test.samples}"],
        ["active latent dimensions", f"{test.active_units} of {test.latent_dim}"],
    ]
    return Table(["quantity", "value"], rows)


def _words(run: Run) -> str:
    """What follows a command that is to open this run."""
    return shlex.quote(str(run.path)) + (" --trust" if outside(run.config.recipe) else "")


def _epochs(planned: int, end: Mapping[str, Any] | None) -> str:
    if end is None:
        return f"{planned} planned"
    best = "" if end["best"] is None else f", the best validation bound after {end['best']}"
    return f"{end['epochs']} of {planned}{best}"


def _settings(run: Run, recipe: Recipe) -> Iterator[Table]:
    t, config = recipe.training, run.config
    rows = [[name, str(value)] for name, value in config.arguments.items()]
    yield Table(["recipe", config.recipe], [*rows, ["seed", config.seed], ["precision", config.precision]])
    parameters = sum(p.numel() for p in recipe.model.parameters())
    yield Table(
        ["training", ""],
        [
            ["objective", type(recipe.objective).__name__],
            ["epochs", _epochs(t.epochs, config.end)],
            ["batch size", t.batch_size],
            ["parameters", f"{parameters:,}"],
            ["state", config.state],
            ["made", config.created],
            *[[name, version] for name, version in (config.versions or {}).items()],
        ],
    )


def _drawings(run: Run, recipe: Recipe, data: DataSet, shown: Split, map_: Latents | None) -> Iterator[Drawing]:
    """All of them; without a map only what has been logged."""
    if map_ is not None:
        if len(data.shape) == 3 and data.shape[0] in (1, 3):
            yield from _image_drawings(recipe.model, shown, recipe.contexts)
        yield from _latent_drawings(data, shown, map_)
    columns = logged(run)
    if columns:
        yield "curves", viz.curves(columns), "Every term of the bound while training", "Curves of each term over the steps of training."


def logged(run: Run) -> dict[str, list[float]]:
    """The columns of the run's ``metrics.csv``, NaN where a term was not logged."""
    rows = read_csv(run.path / "metrics.csv")
    return {name: [row.get(name, math.nan) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}


def _latent_drawings(data: DataSet, shown: Split, map_: Latents) -> Iterator[Drawing]:
    caption = f"Posterior means of {len(map_.z):,} test examples" + (", first two principal components" if map_.z.shape[1] > 2 else "")
    yield (
        "latents",
        viz.scatter(map_.z, label=shown.label, label_names=data.label_names),
        caption,
        "Scatter plot of the test set in latent space.",
    )
    if map_.kl is not None:
        yield (
            "kl",
            viz.kl_bars(map_.kl, threshold=ACTIVE),
            f"KL of each latent dimension, over {len(map_.z):,} test examples",
            "Bars of the KL of each latent dimension.",
        )


def _image_drawings(model: LatentModel, test: Split, contexts: Tensor | None) -> Iterator[Drawing]:
    """Of a model with a context, samples under those of training rows, and no pictures of latents alone."""
    device = device_of(model)
    gap = viz.gap_for(test.shape[-1])
    with observing(model, 0):
        batch = next(batches(test, 16, device, dtype=dtype_of(model)))
        pairs = viz.pairs(batch.x.cpu(), model.reconstruct(batch).cpu(), gap=gap)
        yield "reconstructions", pairs, "Test examples and their reconstructions", "Originals and below each its reconstruction."
        c = None if contexts is None else contexts[torch.randint(len(contexts), (64,))].to(device)
        sheet = viz.sheet(model.sample(64, context=c).cpu(), gap=gap, title="64 samples: means of p(x | z), z from the prior")
        yield "samples", sheet, "Latents drawn from the prior, decoded", "Sheet of 64 generated images."
        if contexts is not None:
            return
        if len(test) > 1 and continuous(model):
            strips = viz.strips(_interpolations(model, test, device))
            yield "interpolations", strips, "Straight lines in latent space between pairs of test examples", "Rows of images that change."
        grid = _manifold(model, device)
        if grid is not None:
            manifold = viz.manifold(grid[0], quantiles=grid[1], gap=gap)
            yield "manifold", manifold, "The decoder over the prior's quantiles, 2% to 98%", "Grid of images over two latent dimensions."


def _interpolations(model: LatentModel, split: Split, device: torch.device, rows: int = 5) -> Tensor:
    """Pairs of examples with the decoded line between their latents, ``[rows, 9 + 2, C, H, W]``."""
    order = torch.arange(2 * min(rows, len(split) // 2))
    a, b = (next(batches(split.take(half), rows, device, dtype=dtype_of(model))) for half in (order[0::2], order[1::2]))
    return torch.cat([a.x.unsqueeze(1), interpolate(model, a, b).x, b.x.unsqueeze(1)], 1).cpu()


def _manifold(model: LatentModel, device: torch.device, n: int = 15) -> tuple[Tensor, Tensor] | None:
    """The decoder on a grid of the prior's quantiles, ``[n, n, C, H, W]``, where that is a standard normal in two dimensions."""
    levels = model.trace(from_p(1, 1)).levels
    p = levels[0].p
    if len(levels) != 1 or not isinstance(p, DiagGaussian) or p.event_shape != (2,) or p.mean.any() or p.log_scale.any():
        return None
    quantiles = torch.special.ndtri(torch.linspace(0.02, 0.98, n, dtype=p.mean.dtype, device=device))
    z = torch.cartesian_prod(quantiles, quantiles).unsqueeze(0)
    return centre(model.trace(given(z)).px)[0].unflatten(0, (n, n)).cpu(), quantiles.cpu()


def _some(split: Split, n: int) -> Split:
    """At most n rows, the same at every call, in a random order: data sets may be sorted by class."""
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))
    return split.take(order[:n])


def _evaluation(kept: Mapping[str, Any]) -> Evaluation:
    """What ``evaluation.json`` holds, as the numbers that were written: JSON has no NaN and no tuples."""

    def back(value: Any) -> Any:
        return tuple(map(back, value)) if isinstance(value, list) else math.nan if value is None else value

    try:
        return Evaluation(**{key: back(value) for key, value in kept.items()})
    except TypeError as error:
        raise InputError(f"evaluation.json is damaged ({error}): remove it and run vaekit evaluate again") from error
