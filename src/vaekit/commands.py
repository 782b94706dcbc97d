"""What the command line does, each command a function.

>>> import tempfile
>>> from vaekit import commands
>>> folder = tempfile.TemporaryDirectory()
>>> run = commands.train("digits", {"epochs": 1, "hidden": 8}, out=f"{folder.name}/run")
>>> commands.evaluate(run, samples=10).examples
300
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vaekit import data as data_sets
from vaekit import viz
from vaekit.data.core import Split
from vaekit.data.tables import Pixels
from vaekit.errors import InputError
from vaekit.evaluate import Diagnosis, Evaluation, Finding, latents, leading, quantiles, spherical, straight
from vaekit.evaluate import diagnose as diagnose_split
from vaekit.evaluate import embed as embed_split
from vaekit.evaluate import evaluate as evaluate_split
from vaekit.evaluate import interpolate as interpolate_model
from vaekit.evaluate import traverse as traverse_model
from vaekit.evaluate.passes import batches, device_of, dtype_of
from vaekit.files import write_bytes, write_json
from vaekit.launch import load, train
from vaekit.models.core import LatentModel
from vaekit.outputs import check_suffix, default_path, save, suffixes
from vaekit.recipes.contexts import contexts_where
from vaekit.recipes.core import Recipe, names, summary
from vaekit.report import UNTRAINED, write_report
from vaekit.runs import PathLike, Run, read_results
from vaekit.scoring import given
from vaekit.sweeps import sweep
from vaekit.types import Batch

__all__ = [
    "list_all",
    "train",
    "sweep",
    "load",
    "evaluate",
    "diagnose",
    "sample",
    "reconstruct",
    "interpolate",
    "traverse",
    "embed",
    "report",
]

FEW = 1000
"""Examples, at most, over which the latent dimensions are ranked."""


def list_all() -> dict[str, dict[str, str]]:
    """Recipes and data sets, each name with a one-line summary."""
    return {
        "recipes": {name: summary(function) for name, function in names().items()},
        "data sets": {name: summary(function) for name, function in data_sets.catalogue().items()},
    }


def evaluate(
    run: PathLike | Run,
    *,
    samples: int = 5000,
    split: str | None = None,
    data: PathLike | None = None,
    seed: int = 0,
    device: str = "auto",
    trust: bool = False,
    watch: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """`vaekit.evaluate.evaluate` on a split of the run's data, by default "test"; kept in ``evaluation.json``. Or on all rows of ``data``,
    a file or folder like the one that the run was trained on, which is checked against what the run knows of its own; that is not kept.

    Raises:
        InputError: as `load`; ``samples`` below 1; an unknown split; data that do not fit; both a split and data.
    """
    split = _one(split, data)
    run, recipe = load(run, trust=trust, device=device)
    kept = read_results(run, "evaluation.json", "vaekit evaluate")
    _writable(run, "evaluation.json")
    if not recipe.objective.trains_q:
        warnings.warn(f"{UNTRAINED}.", stacklevel=2)
    if data is not None:
        return evaluate_split(recipe.model, given(run, recipe, Path(data)), samples=samples, seed=seed, watch=watch)
    result = evaluate_split(recipe.model, recipe.data().split(split), samples=samples, seed=seed, watch=watch)
    write_json(run.path / "evaluation.json", kept | {split: result.as_dict()})
    return result


def diagnose(
    run: PathLike | Run,
    *,
    samples: int = 5,
    split: str = "test",
    seed: int = 0,
    device: str = "auto",
    trust: bool = False,
    watch: Callable[[int, int], None] | None = None,
) -> Diagnosis:
    """`vaekit.evaluate.diagnose` on a split of the run's data, beside as much of its training data; kept in ``diagnosis.json``.

    Raises:
        InputError: as `load`; ``samples`` below 1; an unknown split; a plain autoencoder, which has no bound.
    """
    run, recipe = load(run, trust=trust, device=device)
    kept = read_results(run, "diagnosis.json", "vaekit evaluate --diagnose")
    _writable(run, "diagnosis.json")
    data = recipe.data()
    rows = data.split(split)
    train = None if split == "train" else data.train
    found = diagnose_split(recipe.model, rows, train=train, samples=samples, seed=seed, watch=watch)
    if not recipe.objective.trains_q:  # the others would blame the model for what its encoder is
        found = replace(found, findings=[Finding("warning", f"{UNTRAINED}."), *(f for f in found.findings if f.severity == "error")])
    write_json(run.path / "diagnosis.json", kept | {split: found.as_dict()})
    return found


def sample(
    run: PathLike | Run,
    *,
    n: int = 64,
    temperature: float = 1.0,
    seed: int = 0,
    mean: bool | None = None,
    where: Sequence[str] = (),
    out: PathLike | None = None,
    trust: bool = False,
) -> tuple[Tensor, Path]:
    """n new examples ``[n, *]``, the means of p(x | z) for z ~ p(z), or with ``mean=False`` draws x ~ p(x | z); and the file they went to.

    By default means of images, and draws of a table or of counts. ``out`` is a .png or .npy file, of a table a .csv, .parquet or .npy file;
    by default one in the run's figures, a .npy where the examples are no images, or of a table ``samples.csv`` in the run: the original
    columns, dtypes and categories. Columns that the model is conditioned on are those of training rows, or with ``where`` ("column=value",
    one a column) of those training rows that have these values.

    Raises:
        InputError: as `load`; n < 1; a negative temperature; another kind of file; a column or a value that there is not.
    """
    run, recipe = load(run, trust=trust)
    known = recipe.known
    if out is not None:
        check_suffix(Path(out), *suffixes(known))
    mean = (known is None or isinstance(known.schema, Pixels)) if mean is None else mean
    contexts = contexts_where(recipe, where)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        c = None if contexts is None else contexts[torch.randint(len(contexts), (max(n, 0),))]
        context = None if c is None else c.to(device_of(recipe.model))
        x = recipe.model.sample(n, temperature=temperature, mean=mean, context=context).cpu()
    target = default_path(run, "samples", x, known) if out is None else Path(out)
    save(x, target, known=known, c=c)
    return x, target


def reconstruct(
    run: PathLike | Run,
    *,
    n: int | None = None,
    split: str = "test",
    seed: int | None = None,
    out: PathLike | None = None,
    trust: bool = False,
) -> tuple[Tensor, Path]:
    """n examples (by default up to 16) ``[n, *]`` decoded from the centre of their posterior, and the file they went to.

    The first n of the split, or with a ``seed`` n at random. ``out`` is a .png file, each reconstruction below its original, or a .npy
    file; by default one in the run's figures, a .npy where the examples are no images. Of a table it is a .csv, .parquet or .npy file.

    Raises:
        InputError: as `load`; an unknown split; n < 1 or above the number of its examples; another kind of file; data that are no images.
    """
    run, recipe = load(run, trust=trust)
    if out is not None:
        check_suffix(Path(out), *suffixes(recipe.known))
    _encoder(run, recipe)
    found = recipe.data().split(split)
    if seed is not None:
        found = found.take(torch.randperm(len(found), generator=torch.Generator().manual_seed(seed)))
    batch = _batch(recipe.model, found.head(min(16, len(found)) if n is None else n), 0 if seed is None else seed)
    x_hat = recipe.model.reconstruct(batch).cpu()
    target = default_path(run, "reconstructions", x_hat, recipe.known) if out is None else Path(out)
    save(x_hat, target, lambda: viz.pairs(batch.x.cpu(), x_hat, gap=viz.gap_for(x_hat.shape[-1])), known=recipe.known, c=batch.c)
    return x_hat, target


def interpolate(
    run: PathLike | Run,
    *,
    rows: Sequence[int] | None = None,
    steps: int = 9,
    arc: bool = False,
    split: str = "test",
    out: PathLike | None = None,
    trust: bool = False,
) -> tuple[Tensor, Path]:
    """The decoded line between the latents of pairs of examples ``[pairs, steps, *]``, and the file it went to.

    ``rows`` of the split, two a pair: the first ten by default. ``arc`` takes `spherical` lines instead of `straight` ones. ``out`` is
    a .png file, each line between its two examples, or a .npy file; by default one in the run's figures, a .npy where the examples are
    no images.

    Raises:
        InputError: as `load`; an odd number of rows, or one that there is not; and as `vaekit.evaluate.interpolate`.
    """
    run, recipe = load(run, trust=trust)
    if out is not None:
        check_suffix(Path(out), *suffixes(recipe.known))
    _encoder(run, recipe)
    _free(run, recipe)
    found = recipe.data().split(split)
    rows = list(range(min(10, len(found) // 2 * 2)) if rows is None else rows)
    if not rows or len(rows) % 2:
        raise InputError(f"interpolations lie between two examples each: give an even number of rows, not {len(rows)}")
    a, b = (_batch(recipe.model, _rows(found, rows[i::2], split)) for i in (0, 1))
    x = interpolate_model(recipe.model, a, b, steps=steps, along=spherical if arc else straight).x.cpu()
    target = default_path(run, "interpolations", x[0], recipe.known) if out is None else Path(out)
    save(x, target, lambda: viz.strips(torch.cat([a.x.cpu().unsqueeze(1), x, b.x.cpu().unsqueeze(1)], 1)), rows=True, known=recipe.known)
    return x, target


def traverse(
    run: PathLike | Run,
    *,
    dimensions: int | None = None,
    steps: int = 9,
    row: int | None = None,
    split: str = "test",
    out: PathLike | None = None,
    trust: bool = False,
) -> tuple[Tensor, Path]:
    """Latent dimensions, those that carry most (by default up to 8), each moved alone: ``[dimensions, steps, *]``, and the file.

    From the 2% to the 98% quantile of p(z_d), the others at the centre of the prior or, with ``row``, of that example's posterior. They
    are ranked by their KL over at most 1000 examples of the split. ``out`` is as in `interpolate`.

    Raises:
        InputError: as `load`; a row that there is not; more dimensions than the model has; and as `vaekit.evaluate.traverse`.
    """
    run, recipe = load(run, trust=trust)
    if out is not None:
        check_suffix(Path(out), *suffixes(recipe.known))
    _free(run, recipe)
    values = quantiles(steps)
    if row is not None:
        _encoder(run, recipe)
    found = recipe.data().split(split)
    start = None if row is None else _batch(recipe.model, _rows(found, [row], split))
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(0))[:FEW]  # data sets may be sorted by class
    ranked = latents(recipe.model, found.take(order))
    if not recipe.objective.trains_q:
        ranked = replace(ranked, kl=None)  # that of an encoder which nobody trained
    which = leading(ranked, min(8, ranked.z.shape[1]) if dimensions is None else dimensions)
    x = traverse_model(recipe.model, start, dimensions=which, values=values).x.cpu()
    target = default_path(run, "traversals", x[0], recipe.known) if out is None else Path(out)
    labels = [f"z[{d}]" if ranked.kl is None else f"z[{d}], {ranked.kl[d]:.2f} nats" for d in which]
    title = f"Latent dimensions moved alone, largest {'variance' if ranked.kl is None else 'KL'} first"
    save(x, target, lambda: viz.traversals(x, values=values, names=labels, title=title), rows=True, known=recipe.known)
    return x, target


def embed(
    run: PathLike | Run,
    *,
    split: str | None = None,
    data: PathLike | None = None,
    out: PathLike | None = None,
    device: str = "auto",
    trust: bool = False,
) -> tuple[Tensor, Path]:
    """The centre of q(z | x) of every example of a split, by default "test", ``[N, D]``, and their file (.npz: ``z``, and ``label`` if
    there is one). ``data`` as in `evaluate`, in the order of the file.

    Raises:
        InputError: as `load`; an unknown split; another kind of file; data that do not fit; both a split and data.
    """
    split = _one(split, data)
    run, recipe = load(run, trust=trust, device=device)
    name = split if data is None else Path(data).resolve().name.partition(".")[0]
    target = run.path / f"embedding-{name}.npz" if out is None else Path(out)
    check_suffix(target, ".npz")
    _encoder(run, recipe)
    rows = recipe.data().split(split) if data is None else given(run, recipe, Path(data))
    z = embed_split(recipe.model, rows)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **({"z": z.numpy()} | ({} if rows.label is None else {"label": rows.label.numpy()})))
    write_bytes(target, buffer.getvalue())
    return z, target


def report(run: PathLike | Run, *, trust: bool = False) -> Path:
    """Draw every figure and write ``report.html``, one file with the pictures inside; its path.

    Numbers come from ``evaluation.json``; where ``vaekit evaluate`` has not run yet a quick estimate is made and named as such.

    Raises:
        InputError: as `load`.
    """
    run, recipe = load(run, trust=trust)
    return write_report(run, recipe, read_results(run, "evaluation.json", "vaekit evaluate"))


def _one(split: str | None, data: PathLike | None) -> str:
    """The split that is meant where no data are given."""
    if split is not None and data is not None:
        raise InputError(
            f"--split {split} is of the run's own data, and {data} are other ones, of which all rows are taken: give one of them"
        )
    return "test" if split is None else split


def _writable(run: Run, name: str) -> None:
    """Said before the work, not after it."""
    if not os.access(run.path, os.W_OK):
        raise InputError(f"no permission to write {run.path / name}: evaluate a copy of the run folder")


def _encoder(run: Run, recipe: Recipe) -> None:
    """Refuse to read codes off an encoder that nobody trained."""
    if not recipe.objective.trains_q:
        raise InputError(f"{run.path}: {UNTRAINED}")


def _free(run: Run, recipe: Recipe) -> None:
    """Refuse to decode latents alone where p(x | z, c) needs a context too."""
    if recipe.contexts is not None:
        raise InputError(f"{run.path}: its p(x | z, c) has a context, and latents alone are not decoded: use sample, reconstruct or embed")


def _rows(found: Split, rows: Sequence[int], name: str) -> Split:
    for row in rows:
        if not 0 <= row < len(found):
            raise InputError(f"there is no {name} row {row}; they are 0 to {len(found) - 1}")
    return found.take(torch.tensor(list(rows)))


def _batch(model: LatentModel, rows: Split, seed: int = 0) -> Batch:
    """All of them as one batch; data that are drawn anew at each read are drawn under ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return next(batches(rows, len(rows), device_of(model), dtype=dtype_of(model)))
