"""Fig. 3 of the first VAE paper: AEVB, wake-sleep and Monte Carlo EM by log p(x), with 100 hidden units and 3 latent dimensions.

Training samples are counted as evaluated: each gradient of log p(x, z) for one image is one, an update of the weights and a leapfrog step
alike. A move of ten leapfrog steps and its five updates on a batch of 100 are 1500, of which 500 are visits of weight updates; for the
other methods the two counts are one. With 1000 images every step size runs to the end. With 3 latent dimensions log p(x) needs no chain:
adaptive importance sampling estimates it to about a hundredth of a nat, for the first 1000 training and the first 1000 test images.

Before that, probabilistic PCA, where the chains' moments and the order of the integrator are known.

Run: python -m benchmarks.gallery.mcem
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from benchmarks.gallery import chains
from benchmarks.gallery.common import once, picture, quick, run, trained, work, write
from benchmarks.gallery.hmc_estimator import hmc_log_evidence
from vaekit.data import mnist_grey
from vaekit.data.core import DataSet, Split
from vaekit.errors import NonFiniteError
from vaekit.models import VAE, LatentModel, from_p
from vaekit.objectives import ELBO
from vaekit.recipes import posterior
from vaekit.recipes.core import Recipe
from vaekit.train import fit, load_weights
from vaekit.viz.figure import BLUE, GREEN, ORANGE, Figure, blank, put_title, styled

RATES = (0.01, 0.02, 0.1)
FIRST = 1_000_000  # samples after which the step size is chosen
COUNTS = {"aevb": (5,), "mcem": (5, 15), "wake_sleep": (5,)}  # million samples; 15 of MCEM have 5 of weight updates
ROWS = (1000, 50_000)
METHODS = ("aevb", "mcem", "wake_sleep")
NAMES = {"aevb": "AEVB", "mcem": "MCEM", "wake_sleep": "wake-sleep"}
COLOURS = {"aevb": BLUE, "mcem": ORANGE, "wake_sleep": GREEN}
UPDATES, LEAPFROGS = 5, 10
SIZES = {1000: 100, 50_000: 500} if quick else {rows: rows for rows in ROWS}
SHOWN = 20 if quick else 1000  # images of each split that are scored
SOURCE = "Kingma and Welling (2014), fig. 3, read off the vector figure (+- 0.2 nat)"
TRAIN_TEST = {
    (1000, "aevb", 5): (-118.0, -143.2),
    (1000, "mcem", 5): (-123.6, -143.9),
    (1000, "wake_sleep", 5): (-130.0, -147.5),
    (50_000, "aevb", 5): (-137.7, -144.0),
    (50_000, "wake_sleep", 5): (-144.4, -146.2),
}


# --- log p(x) ---------------------------------------------------------------------------------------------------------------------------


def log_evidence(model: VAE, x: Tensor, *, first: int, k: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """log p(x) ``[B]`` and its standard error by importance sampling, for a flat model with few latent dimensions and a N(0, I) prior.

    ``first`` shared draws, half of them from N(0, I) and half from N(0, 4 I), for some posteriors lie far out, find the modes; three rounds
    then sample each image from Gaussians around 50 of its weighted draws, with a tenth of the prior mixed in. The estimate of p(x) is
    unbiased given the proposal; only the last round's k draws enter it.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        prior = model.trace(from_p(1, 1)).levels[0].p
        wide = 1.0 + (torch.arange(first) % 2).reshape(first, 1, 1)  # standard deviations 1 and 2
        z = wide * prior.sample((first, 1))
        u = -0.5 * z.square().sum(-1)
        log_proposal = torch.logaddexp(u, u / 4 - z.shape[-1] * math.log(2)) - math.log(2)
        log_w = _log_px(model, x, z) + u - log_proposal
        for size in (k // 4, k // 2, k):
            z, log_w = _round(model, x, z, log_w, prior, size)
    w = log_w.softmax(0)
    ess = 1 / w.square().sum(0)
    return log_w.logsumexp(0) - math.log(k), (1 / ess - 1 / k).clamp(min=0).sqrt()


def _log_px(model: VAE, x: Tensor, z: Tensor) -> Tensor:
    """log p(x | z) ``[S, B]`` for z ``[S, 1 or B, D]``, in chunks; shared z go through the decoder once."""
    found = []
    flat = x.flatten(1)
    for part in z.split(max(1, 4000 // z.shape[1])):
        px = model.likelihood(part)
        if z.shape[1] == 1:
            h = px.logits.flatten(1)
            found.append(h @ flat.mT - nn.functional.softplus(h).sum(-1, keepdim=True))
        else:
            found.append(px.log_prob(x))
    return torch.cat(found)


def _round(model: VAE, x: Tensor, z: Tensor, log_w: Tensor, prior: Distribution, k: int) -> tuple[Tensor, Tensor]:
    """k new draws for each image around its weighted draws so far, and their log-weights ``[k, B]``."""
    b, d, m = len(x), z.shape[-1], 50
    log_w, best = log_w.topk(min(200, len(log_w)), 0)  # the others have no weight to speak of
    z = z.expand(-1, b, -1).gather(0, best.unsqueeze(-1).expand(-1, -1, d))
    w = log_w.softmax(0)  # [S, B]
    mean = torch.einsum("sb,sbd->bd", w, z)
    cov = torch.einsum("sb,sbd,sbe->bde", w, z - mean, z - mean)
    tril = torch.linalg.cholesky(0.5 * cov + 1e-3 * torch.eye(d))
    centres = torch.gather(z, 0, torch.multinomial(w.mT, m, replacement=True).mT.unsqueeze(-1).expand(-1, -1, d))  # [m, B, D]
    chosen = torch.gather(centres, 0, torch.randint(m, (k, b, 1)).expand(-1, -1, d))
    new = chosen + torch.einsum("bde,kbe->kbd", tril, torch.randn(k, b, d))
    new = torch.where(torch.rand(k, b, 1) < 0.1, torch.randn(k, b, d), new)
    inverse = torch.linalg.inv(tril)
    mixture = []
    for part in new.split(50):
        u = torch.einsum("bde,kmbe->kmbd", inverse, part.unsqueeze(1) - centres)
        mixture.append((-0.5 * u.square().sum(-1)).logsumexp(1) - math.log(m))
    log_q = torch.cat(mixture) - tril.diagonal(dim1=-2, dim2=-1).log().sum(-1) - 0.5 * d * math.log(2 * math.pi)
    log_p = prior.log_prob(new)
    log_q = torch.logaddexp(log_q + math.log(0.9), log_p + math.log(0.1))
    return new, _log_px(model, x, new) + log_p - log_q


def scores(model: LatentModel, data: DataSet, n: int = SHOWN) -> dict[str, float]:
    """Means over the first n images of each split, with the estimator's own standard error."""
    found: dict[str, float] = {}
    for split, rows in (("train", data.train), ("test", data.test)):
        value, se = log_evidence(cast(VAE, model), rows.batch(torch.arange(n)).x, first=500 if quick else 40_000, k=100 if quick else 600)
        found |= {split: float(value.mean()), f"{split}_se": float(se.square().sum().sqrt() / n)}
    return found


def doubled(model: LatentModel, data: DataSet) -> float:
    """How far the test estimate moves with twice the samples and another seed."""
    x, model = data.test.batch(torch.arange(SHOWN)).x, cast(VAE, model)
    small = log_evidence(model, x, first=500 if quick else 40_000, k=100 if quick else 600)[0]
    large = log_evidence(model, x, first=1000 if quick else 100_000, k=400 if quick else 1200, seed=1)[0]
    return float((large - small).mean())


# --- training ---------------------------------------------------------------------------------------------------------------------------


def data(rows: int, times: int) -> DataSet:
    """The first rows, repeated ``times`` so that an epoch is not ten steps."""
    full = mnist_grey()
    return replace(full, train=Split(full.train.pick(torch.arange(rows)).x.repeat(times, 1, 1, 1)))


def recipe(method: str, rows: int, lr: float, samples: float) -> Recipe:
    times = 5 if rows <= 1000 else 1
    rows = SIZES[rows]
    if quick:
        samples = 3000
    if method == "mcem":
        epochs = max(1, round(samples / rows / (UPDATES + LEAPFROGS)))
        plan = posterior.mcem(rows=rows, lr=lr, updates=UPDATES, leapfrogs=LEAPFROGS, epochs=epochs)
        return replace(plan, data=partial(data, rows, 1))
    plan = posterior.wake_sleep(latent=3, hidden=100, rows=rows, lr=lr, epochs=max(1, round(samples / rows / times)))
    plan = replace(plan, data=partial(data, rows, times))
    return plan if method == "wake_sleep" else replace(plan, objective=ELBO())


def choose(method: str, rows: int) -> float:
    """The step size with the best log p(x) of training images after the first samples."""

    def value(lr: float) -> float:
        torch.manual_seed(0)
        plan = recipe(method, rows, lr, FIRST)
        full = plan.data()
        try:
            fit(plan.model, full.train, objective=plan.objective, training=plan.training, progress=False)
        except NonFiniteError:
            return -1e30  # diverged
        return scores(plan.model, full, 20 if quick else 200)["train"]

    found = once(f"mcem-{rows}-{method}-rates", lambda: {str(lr): value(lr) for lr in RATES})
    return float(max(found, key=found.get))


def cell(method: str, rows: int, lr: float, millions: int) -> dict[str, float]:
    plan = partial(recipe, method, rows, lr, millions * 1e6)

    def measured() -> dict[str, float]:
        fitted = trained(f"mcem-{rows}-{method}-{lr:g}", plan)  # goes on from the count before
        found = scores(fitted.model, plan().data()) | {"seconds": fitted.seconds}
        if method == "mcem":
            found |= {"accept": fitted.history[-1]["train/accept"], "epsilon": fitted.history[-1]["train/epsilon"]}
        if (method, rows, lr) == ("aevb", ROWS[0], RATES[-1]):
            found["doubled"] = doubled(fitted.model, plan().data())
        return found

    return once(f"mcem-{rows}-{method}-{lr:g}-{millions}", measured)


def by_hmc(method: str, rows: int, lr: float) -> dict[str, float]:
    """Means of the authors' own estimate, of the weights at the end."""

    def measured() -> dict[str, float]:
        plan = recipe(method, rows, lr, FIRST)
        load_weights(plan.model, work(f"mcem-{rows}-{method}-{lr:g}") / "model.safetensors")
        found: dict[str, float] = {}
        for name, split in (("train", plan.data().train), ("test", plan.data().test)):
            value = hmc_log_evidence(cast(VAE, plan.model.eval()), split.batch(torch.arange(SHOWN)).x)
            found |= {name: float(value.mean()), f"{name}_se": float(value.std() / math.sqrt(SHOWN))}
        return found

    return once(f"mcem-{rows}-{method}-{lr:g}-hmc", measured)


# --- pictures and the record ------------------------------------------------------------------------------------------------------------


def comparison(cells: dict[tuple[int, str, int], dict[str, float]]) -> Figure:
    figure = blank(900, 380, constrained=True)
    with styled():
        for panel, rows in zip(figure.subplots(1, 2), ROWS, strict=True):
            for method in METHODS:
                for split, style in ((0, "-"), (1, "--")):
                    name = ("train", "test")[split]
                    counts = COUNTS[method]
                    values = [cells[rows, method, m][name] for m in counts]
                    face = COLOURS[method] if split == 0 else "white"
                    label = f"{NAMES[method]}, {name}"
                    panel.semilogx(counts, values, style, marker="o", ms=5, color=COLOURS[method], markerfacecolor=face, label=label)
                    seen = [m for m in counts if (rows, method, m) in TRAIN_TEST]
                    published = [TRAIN_TEST[rows, method, m][split] for m in seen]
                    panel.plot(seen, published, "x+"[split], ms=8, color=COLOURS[method])
            panel.set(xlabel="training samples evaluated (millions)", ylabel="log p(x) (nats)", title=f"N = {rows:,}")
            panel.set_xticks([5, 15], ["5", "15"])
            panel.set_xticks([], minor=True)
            panel.margins(x=0.1)
        panel.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    put_title(figure, "Three ways to train one decoder: marginal likelihood (x, +: published)")
    return figure


def figures_of(cells: dict[tuple[int, str, int], dict[str, float]]) -> tuple[dict[str, dict[str, object]], dict[str, dict[str, object]]]:
    figures: dict[str, dict[str, object]] = {}
    published: dict[str, dict[str, object]] = {}
    for (rows, method, millions), found in cells.items():
        for split in (0, 1):
            name = ("train", "test")[split]
            key = f"n{rows}_{method}_{millions}m_{name}"
            figures[key] = {"value": found[name], "error": found[f"{name}_se"], "unit": "nats"}
            if (rows, method, millions) in TRAIN_TEST:
                value = TRAIN_TEST[rows, method, millions][split]
                published[key] = {"value": value, "tolerance": 1.5, "direction": "within", "source": SOURCE}
        if method == "mcem":
            figures[f"n{rows}_{method}_{millions}m_accept"] = {"value": found["accept"], "error": None, "unit": "share"}
        figures[f"n{rows}_{method}_{millions}m_seconds"] = {"value": found["seconds"], "error": None, "unit": "s"}
    orders = {1000: ("aevb", "mcem", "wake_sleep"), 50_000: ("aevb", "wake_sleep", "mcem")}
    for rows, order in orders.items():
        values = [cells[rows, method, 5]["train"] for method in order]
        key = f"n{rows}_5m_train_order"
        figures[key] = {"value": float(values == sorted(values, reverse=True)), "error": None, "unit": "1 = as published"}
        published[key] = {"value": 1.0, "tolerance": 0.0, "direction": "within", "source": SOURCE}
        for name in ("train", "test"):
            a, b = cells[rows, "mcem", 15], cells[rows, "aevb", 5]
            error = math.hypot(a[f"{name}_se"], b[f"{name}_se"])
            figures[f"n{rows}_equal_updates_{name}"] = {"value": a[name] - b[name], "error": error, "unit": "nats"}
    return figures, published


def main() -> None:
    figures = chains.measured()
    for method, lr in itertools.product(METHODS, RATES):
        found = cell(method, ROWS[0], lr, 5)
        for name in ("train", "test"):
            figures[f"n{ROWS[0]}_{method}_{lr:g}_{name}"] = {"value": found[name], "error": found[f"{name}_se"], "unit": "nats"}
    rates: dict[str, float] = {}
    cells: dict[tuple[int, str, int], dict[str, float]] = {}
    for rows in ROWS:
        for method in METHODS:
            rates[f"{method}, N = {rows}"] = lr = choose(method, rows)
            for millions in COUNTS[method]:
                cells[rows, method, millions] = cell(method, rows, lr, millions)
    for rows, method in itertools.product(ROWS, ("aevb", "wake_sleep")):
        found = by_hmc(method, rows, rates[f"{method}, N = {rows}"])
        for name in ("train", "test"):
            figures[f"n{rows}_{method}_hmc_{name}"] = {"value": found[name], "error": found[f"{name}_se"], "unit": "nats"}
    cells = {key: cells[key] for key in sorted(cells)}
    more, published = figures_of(cells)
    figures |= more
    figures["estimator_check"] = {"value": cell("aevb", ROWS[0], RATES[-1], 5)["doubled"], "error": None, "unit": "nats"}
    picture("mcem", comparison(cells))
    write(
        "gallery/mcem",
        command="python -m benchmarks.gallery.mcem",
        seed=0,
        settings={
            "million samples evaluated": {method: list(counts) for method, counts in COUNTS.items()},
            "step sizes": rates,
            "step size chosen after": FIRST,
            "updates per transition": UPDATES,
            "leapfrog steps": LEAPFROGS,
            "images scored per split": SHOWN,
        },
        figures=figures,
        published=published,
    )


if __name__ == "__main__":
    run(main)
