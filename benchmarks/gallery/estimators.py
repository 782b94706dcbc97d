"""Gradient estimators at equal cost on MNIST, at the start and at the end of a training, and each against an exact gradient.

Equal cost means: variance of one draw times the seconds of one draw, which is the variance of the mean of as many draws as one second
allows. Seconds are measured in this process, the estimators taking turns.

Run: python -m benchmarks.gallery.estimators
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
from matplotlib.artist import Artist
from torch import Tensor, nn

from benchmarks.gallery import common
from vaekit import bounds, data, heads, priors
from vaekit.conditional import Conditional
from vaekit.data import DataSet
from vaekit.evaluate import gradient_moments
from vaekit.models import VAE
from vaekit.nn import Layer, mlp
from vaekit.objectives import ELBO, IWAE, NVIL, REINFORCE, STL, VIMCO, DReG, LeaveOneOut, Objective, RunningMean
from vaekit.recipes.core import Recipe
from vaekit.train import Training
from vaekit.types import Batch
from vaekit.viz.figure import BLUE, GREY, ORANGE, Figure, blank, put_legend, put_note, put_title, styled

SHAPE = (1, 28, 28)
LATENT, HIDDEN, EPOCHS, ROWS = 20, 200, 5, 100
DRAWS, SWEEP, ROUNDS, EXACT_DRAWS, FIT = (20, 20, 3, 20, 5) if common.quick else (400, 100, 30, 1000, 500)
SAMPLES = (1, 4) if common.quick else (1, 2, 4, 8, 16, 32, 64)


ESTIMATORS: dict[str, tuple[str, Callable[[nn.Module], Objective]]] = {
    "sgvb_mc_1": ("ELBO: all Monte Carlo, L = 1", lambda net: ELBO(closed_form=False)),
    "sgvb_mc_10": ("ELBO: all Monte Carlo, L = 10", lambda net: ELBO(10, closed_form=False)),
    "sgvb_kl_1": ("ELBO: closed-form KL, L = 1", lambda net: ELBO(closed_form=True)),
    "sgvb_kl_10": ("ELBO: closed-form KL, L = 10", lambda net: ELBO(10, closed_form=True)),
    "stl_1": ("ELBO: STL, L = 1", lambda net: STL()),
    "reinforce_1": ("ELBO: REINFORCE", lambda net: REINFORCE()),
    "reinforce_mean_1": ("ELBO: REINFORCE, running mean", lambda net: REINFORCE(baseline=RunningMean())),
    "nvil_1": ("ELBO: NVIL", lambda net: NVIL(net, normalise=False)),
    "reinforce_loo_10": ("ELBO: REINFORCE, leave one out, K = 10", lambda net: REINFORCE(10, baseline=LeaveOneOut())),
    "iwae_10": ("IWAE, K = 10", lambda net: IWAE(10)),
    "dreg_10": ("IWAE: DReG, K = 10", lambda net: DReG(10)),
    "vimco_10": ("IWAE: VIMCO, K = 10", lambda net: VIMCO(10)),
}
"""key -> (name, baseline network -> objective). NVIL's division by max(1, sigma) is left out: it changes the unit of its gradient."""


def recipe() -> Recipe:
    """784-200-20, tanh, Bernoulli on dynamic MNIST."""
    q, px = heads.Gaussian(LATENT), heads.Bernoulli(SHAPE)
    layers = [Layer(HIDDEN, nn.Tanh)]
    model = VAE(
        priors.StandardNormal(LATENT),
        Conditional(mlp(SHAPE, layers, q.features), q, event_dim=3),
        Conditional(mlp(LATENT, layers, px.features), px),
    )
    return Recipe(model, dataset, ELBO(closed_form=True), Training(epochs=1 if common.quick else EPOCHS, batch_size=128))


def dataset() -> DataSet:
    mnist = data.mnist_dynamic()
    return DataSet(mnist.name, mnist.train.head(512), mnist.test.head(200)) if common.quick else mnist


def start() -> VAE:
    """The model before its first step, as `common.trained` makes it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = recipe().model
    assert isinstance(model, VAE)
    return model.eval()


def fitted(objective: Objective, model: VAE) -> Objective:
    """What an objective remembers or learns, brought to where this model is: its own parameters are trained with the model frozen."""
    torch.manual_seed(1)
    split = dataset().train
    learned = list(objective.parameters())
    optimiser = torch.optim.Adam(learned, 1e-3) if learned else None
    if optimiser is None and not list(objective.buffers()):
        return objective
    objective.train()
    for _ in range(FIT):
        loss = objective(model, split.batch(torch.randint(len(split), (ROWS,))))
        if optimiser is not None:
            gradients = torch.autograd.grad(loss.surrogate.mean(), learned)
            for p, g in zip(learned, gradients, strict=True):
                p.grad = g
            optimiser.step()
    return objective.eval()


def batch() -> Batch:
    """The same images for all: drawn at random from the test set."""
    split = dataset().test
    return split.batch(torch.randperm(len(split), generator=torch.Generator().manual_seed(0))[:ROWS])


def objectives(model: VAE) -> dict[str, Objective]:
    torch.manual_seed(2)
    return {key: fitted(make(mlp(SHAPE, [Layer(100, nn.Tanh)], 1)), model) for key, (_, make) in ESTIMATORS.items()}


def moments(model: VAE, objective: Objective, draws: int = DRAWS) -> dict[str, dict[str, float]]:
    groups = {"encoder": model.posterior.parameters(), "decoder": model.likelihood.parameters()}
    found = gradient_moments(model, batch(), objective, draws=draws, parameters=groups, seed=3)
    fields = ("norm", "norm_se", "variance", "variance_se", "snr", "snr_se", "snr_floor")
    return {name: {field: getattr(m, field) for field in fields} for name, m in found.items()}


def seconds(model: VAE, made: Mapping[str, Objective]) -> dict[str, list[float]]:
    """One draw of each, forward and backward, in turns; the first round warms up and is not counted."""
    x, parameters = batch(), list(model.parameters())
    found: dict[str, list[float]] = {key: [] for key in made}
    keys = list(made)
    for n in range(ROUNDS + 1):
        for key in keys[n % len(keys) :] + keys[: n % len(keys)]:
            began = time.perf_counter()
            torch.autograd.grad(made[key](model, x).surrogate.mean(), parameters)
            if n:
                found[key].append(time.perf_counter() - began)
    return found


# --- each against an exact gradient ---------------------------------------------------------------------------------------------------


class Bits(nn.Module):
    """Independent Bernoulli variables with logits W c + b, or b alone."""

    def __init__(self, n: int, d: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(d, n, dtype=torch.float64) * 0.7) if n else None
        self.bias = nn.Parameter(torch.randn(d, dtype=torch.float64) * 0.7)
        self.head = heads.Bernoulli(d)

    def forward(self, c: Tensor | None = None) -> torch.distributions.Distribution:
        return self.head(self.bias if c is None or self.weight is None else c @ self.weight.mT + self.bias)


def gaussian() -> tuple[VAE, Batch, Tensor, Tensor]:
    """One latent dimension, linear; all z of a Gauss-Hermite rule for q, ``[S, 1, 1]``, and their masses ``[S]``."""
    torch.manual_seed(4)

    def linear(n: int, d: int) -> Conditional:
        head = heads.Gaussian(d)
        return Conditional(nn.Linear(n, head.features), head).double()

    model = VAE(priors.StandardNormal(1).double(), linear(2, 1), linear(1, 2))
    x = Batch(torch.randn(1, 2, dtype=torch.float64))
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    q = model.posterior(x.x)
    z = (q.loc + torch.tensor(nodes)[:, None] * q.scale).unsqueeze(1)
    return model, x, z, torch.tensor(weights / weights.sum())


def bernoulli() -> tuple[VAE, Batch, Tensor, Tensor]:
    """Three bits; all 8 z and the masses q(z | x)."""
    torch.manual_seed(5)
    model = VAE(Bits(0, 3), Bits(5, 3), Bits(3, 5))
    x = Batch(torch.ones(1, 5, dtype=torch.float64))
    z = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)), dtype=torch.float64).unsqueeze(1)
    return model, x, z, model.score(x, z).log_qz[:, 0].exp()


def exact(model: VAE, x: Batch, z: Tensor, mass: Tensor, k: int) -> Tensor:
    """The gradient of E log (1/K) sum_k w_k for K = 1 or 2, by summing over all z or all pairs of z."""
    log_w = model.score(x, z).log_w[:, 0]
    if k == 1:
        bound = (mass * log_w).sum()
    else:
        pairs = torch.stack(torch.broadcast_tensors(log_w[:, None], log_w[None, :]))
        bound = (mass[:, None] * mass[None, :] * bounds.iwae(pairs)).sum()
    return torch.cat([g.flatten() for g in torch.autograd.grad(bound, list(model.parameters()))])


def largest_z(key: str, oracle: Callable[[], tuple[VAE, Batch, Tensor, Tensor]]) -> dict[str, float]:
    """The largest |z| of a mean gradient's entries against the exact gradient; samples are 2 where the estimator takes 10."""
    model, x, z, mass = oracle()
    with_two: dict[str, Callable[[], Objective]] = {
        "sgvb_mc_10": partial(ELBO, 2, closed_form=False),
        "sgvb_kl_10": partial(ELBO, 2, closed_form=True),
        "reinforce_loo_10": partial(REINFORCE, 2, baseline=LeaveOneOut()),
        "iwae_10": partial(IWAE, 2),
        "dreg_10": partial(DReG, 2),
        "vimco_10": partial(VIMCO, 2),
    }
    baseline = nn.Linear(x.x.shape[1], 1, dtype=torch.float64)
    objective = with_two[key]() if key in with_two else ESTIMATORS[key][1](baseline)
    many = Batch(x.x.repeat(100, 1))
    objective.train()(model, many)  # so that a baseline has something to remember
    want = exact(model, x, z, mass, 2 if key in ("iwae_10", "dreg_10", "vimco_10") else 1)
    m = gradient_moments(
        model, many, objective, draws=EXACT_DRAWS, parameters={"all": model.parameters()}, seed=list(ESTIMATORS).index(key)
    )["all"]
    se = m.sd / math.sqrt(m.draws)
    off = (m.mean + want).abs()  # the surrogate is minimised
    noisy = se > 1e-12  # an entry without noise must be exact
    if bool((off[~noisy] > 1e-9).any()):
        raise SystemExit(f"{key}: an entry without noise is off by {float(off[~noisy].max()):.3g}")
    return {"z": float((off[noisy] / se[noisy]).max()), "entries": int(noisy.sum())}


# --- the figures ----------------------------------------------------------------------------------------------------------------------


def cost_figure(costs: Mapping[str, Mapping[str, float]], snrs: Mapping[str, Mapping[str, float]]) -> Figure:
    with styled():
        canvas = blank(880, 430, constrained=True)
        left, right = canvas.subplots(1, 2, sharey=True)
        for axes, values, label in ((left, costs, "variance x seconds per draw"), (right, snrs, "signal-to-noise ratio of one draw")):
            for n, key in enumerate(ESTIMATORS):
                axes.plot([values["start"][key], values["end"][key]], [n, n], color=GREY, linewidth=0.8, zorder=1)
            handles = [
                axes.scatter([values[at][key] for key in ESTIMATORS], range(len(ESTIMATORS)), color=colour, s=26, zorder=2)
                for at, colour in (("start", ORANGE), ("end", BLUE))
            ]
            axes.set_xscale("log")
            axes.set_xlabel(label)
            axes.grid(axis="x")
        left.set_yticks(range(len(ESTIMATORS)), [name for name, _ in ESTIMATORS.values()])
        left.invert_yaxis()
        put_legend(right, handles, ["start of training", "end of training"], beside=False)
        put_title(canvas, "Gradient of the encoder on 100 MNIST images: noise at equal cost (less is better), and signal to noise")
        put_note(canvas, "IWAE's rows estimate the gradient of another bound than ELBO's: compare their ratios, not their variances.")
    return canvas


def snr_figure(snr: Mapping[str, list[float]], errors: Mapping[str, list[float]], floor: float) -> Figure:
    with styled():
        canvas = blank(460, 330, constrained=True)
        axes = canvas.subplots()
        handles: list[Artist] = []
        for name, colour in (("IWAE", ORANGE), ("DReG", BLUE)):
            handles += axes.errorbar(SAMPLES, snr[name], yerr=errors[name], color=colour, marker="o", markersize=4)[:1]
        axes.axhline(floor, color=GREY, linewidth=0.8, linestyle=":")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel("samples K")
        axes.set_ylabel("signal-to-noise ratio")
        axes.grid()
        put_legend(axes, handles, ["IWAE", "DReG"], beside=False)
        put_title(canvas, "Encoder gradient after training")
        put_note(canvas, "Dotted: what a gradient of pure noise would show with as many draws.")
    return canvas


def figure(value: float, error: float | None, unit: str) -> dict[str, object]:
    return {"value": value, "error": error, "unit": unit}


def main() -> None:
    models = {"start": start(), "end": common.trained("estimators/model", recipe).model}
    figures: dict[str, dict[str, object]] = {}
    costs: dict[str, dict[str, float]] = {}
    snrs: dict[str, dict[str, float]] = {}
    for at, model in models.items():
        assert isinstance(model, VAE)
        made = objectives(model)
        found = {key: common.once(f"estimators/{at}-{key}", partial(moments, model, objective)) for key, objective in made.items()}
        clock = common.once(f"estimators/{at}-seconds", partial(seconds, model, made))
        costs[at], snrs[at] = {}, {}
        for key, groups in found.items():
            m, took = groups["encoder"], statistics.median(clock[key])
            took_se = 1.2533 * statistics.stdev(clock[key]) / math.sqrt(len(clock[key]))
            cost = m["variance"] * took
            relative = math.hypot(m["variance_se"] / m["variance"], took_se / took)
            costs[at][key], snrs[at][key] = cost, m["snr"]
            rows = {
                "variance": (m["variance"], m["variance_se"], "nats^2"),
                "decoder_variance": (groups["decoder"]["variance"], groups["decoder"]["variance_se"], "nats^2"),
                "snr": (m["snr"], m["snr_se"], "ratio"),
                "milliseconds": (1000 * took, 1000 * took_se, "ms"),
                "cost": (cost, cost * relative, "nats^2 s"),
            }
            figures |= {f"{at}_{key}_{row}": figure(*values) for row, values in rows.items()}
    for oracle, keys in ((gaussian, list(ESTIMATORS)), (bernoulli, [k for k in ESTIMATORS if k.startswith(("rein", "nvil", "vimco"))])):
        name = oracle.__name__
        checks = {key: common.once(f"estimators/exact-{name}-{key}", partial(largest_z, key, oracle)) for key in keys}
        for key, check in checks.items():
            figures[f"exact_{name}_{key}_z"] = figure(check["z"], None, "standard errors")
        entries = sum(check["entries"] for check in checks.values())
        figures[f"exact_{name}_entries"] = figure(entries, None, "gradient entries")
        limit = statistics.NormalDist().inv_cdf(1 - 0.005 / entries)  # 1 in 100 for the largest of all
        figures[f"exact_{name}_limit"] = figure(limit, None, "standard errors")

    trained = models["end"]
    assert isinstance(trained, VAE)
    ks: dict[str, list[dict[str, float]]] = {
        name: [common.once(f"estimators/snr-{name}-{k}", partial(moments, trained, make(k), SWEEP))["encoder"] for k in SAMPLES]
        for name, make in (("IWAE", IWAE), ("DReG", DReG))
    }
    for name, sweep in ks.items():
        for k, m in zip(SAMPLES, sweep, strict=True):
            figures[f"snr_{name.lower()}_{k}"] = figure(m["snr"], m["snr_se"], "ratio")
    figures["snr_floor"] = figure(math.sqrt(2 / (math.pi * DRAWS)), None, "ratio")
    common.picture("estimators-cost", cost_figure(costs, snrs))
    by_k = {name: [m["snr"] for m in rows] for name, rows in ks.items()}
    errors = {name: [m["snr_se"] for m in rows] for name, rows in ks.items()}
    common.picture("estimators-snr", snr_figure(by_k, errors, ks["IWAE"][0]["snr_floor"]))
    common.write(
        "gallery/estimators",
        command="python -m benchmarks.gallery.estimators",
        seed=0,
        settings={
            "model": f"784-{HIDDEN}-{LATENT}, tanh, Gaussian latents, Bernoulli on dynamic MNIST",
            "training": f"{EPOCHS} epochs of ELBO with closed-form KL, Adam 1e-3, batch 128",
            "images": ROWS,
            "draws": DRAWS,
            "draws_over_k": SWEEP,
            "rounds": ROUNDS,
            "exact_draws": EXACT_DRAWS,
            "baseline_steps": FIT,
        },
        figures=figures,
    )


if __name__ == "__main__":
    common.run(main)
