"""The same VAE in Pyro: the network of Pyro's tutorial trained by `pyro.infer.SVI` through the adapter and by `vaekit.fit`.

Run: python -m benchmarks.gallery.pyro
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import pyro
import torch
from pyro import infer, poutine
from pyro.ops.stats import effective_sample_size
from pyro.optim import PyroOptim
from torch import Tensor, nn
from torch.distributions import Distribution

from benchmarks.gallery.common import once, picture, quick, run, series, trained, write
from vaekit import data, heads, priors
from vaekit.apps.pyro import pyro_pair
from vaekit.conditional import Conditional
from vaekit.data import DataSet, Split
from vaekit.dist import DiagGaussian
from vaekit.evaluate import evaluate
from vaekit.models import VAE, LatentModel
from vaekit.nn import Layer, mlp
from vaekit.objectives import ELBO
from vaekit.recipes.core import Recipe
from vaekit.train import Training
from vaekit.types import Batch
from vaekit.viz.figure import BLUE, GREY, ORANGE, Figure, blank, put_legend, put_title, styled

SEEDS = [0] if quick else [0, 1, 2]
EPOCHS, BATCH, RATE = 2 if quick else 11, 256, 1e-3
SAMPLES = 2 if quick else 50
PUBLISHED = {6: -113.3, 11: -107.8}  # printed as epochs 5 and 10, which the tutorial counts from 0
SHAPE = (1, 28, 28)
WAYS = {"vaekit": ("vaekit.fit", BLUE), "svi": ("pyro.infer.SVI", ORANGE)}


class LogScale(heads.Head):
    """N(mu, sigma^2) from (mu, log sigma), as in the tutorial; vaekit's own head takes (mu, log sigma^2)."""

    def __init__(self, dimensions: int) -> None:
        super().__init__(dimensions, parts=2)

    def distribution(self, h: Tensor) -> Distribution:
        loc, log_scale = self.split(h, 2)
        return DiagGaussian(loc, log_scale)


def model() -> VAE:
    layers = [Layer(400, nn.Softplus)]
    q, px = LogScale(50), heads.Bernoulli(SHAPE)
    return VAE(
        priors.StandardNormal(50),
        Conditional(mlp(SHAPE, layers, q.features), q, event_dim=3),
        Conditional(mlp(50, layers, px.features), px),
    )


def images() -> DataSet:
    """Grey MNIST. The validation split, evaluated after every epoch, is the test split: nothing is chosen by it."""
    grey = data.mnist_grey()
    train, test = (grey.train.head(512), grey.test.head(256)) if quick else (grey.train, grey.test)
    return replace(grey, train=train, test=test, valid=test)


def recipe() -> Recipe:
    training = Training(epochs=EPOCHS, batch_size=BATCH, optimiser=partial(torch.optim.Adam, lr=RATE), device="cpu")
    return Recipe(model(), images, ELBO(closed_form=False), training)


def by_fit(seed: int) -> dict[str, Any]:
    fitted = trained(f"pyro/fit-{seed}", recipe, seed)
    return {"curve": [row["valid/bound"] for row in fitted.history], "seconds": fitted.seconds} | scores(fitted.model)


def by_svi(seed: int) -> dict[str, Any]:
    """The tutorial's loop: Trace_ELBO with one sample, Adam, a new order at every epoch. Same starting weights as `by_fit`."""
    torch.manual_seed(seed)
    vae, sets = model(), images()
    pyro.clear_param_store()
    pair = pyro_pair(vae)
    svi = infer.SVI(pair.model, pair.guide, PyroOptim(torch.optim.Adam, {"lr": RATE}), infer.Trace_ELBO())
    curve, start = [], time.monotonic()
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(sets.train)).split(BATCH):
            svi.step(sets.train.batch(rows))
        losses = [svi.evaluate_loss(sets.test.batch(rows)) for rows in torch.arange(len(sets.test)).split(BATCH)]
        curve.append(-sum(losses) / len(sets.test))
    return {"curve": curve, "seconds": time.monotonic() - start} | scores(vae) | agreement(vae, sets.test)


def scores(vae: LatentModel) -> dict[str, float]:
    found = evaluate(vae, images().test, samples=SAMPLES)
    return {"elbo": found.elbo, "elbo_se": found.elbo_se, "nll": found.nll}


def agreement(vae: VAE, test: Split) -> dict[str, float]:
    """|difference| of the bounds per image given Pyro's own latents, the largest over the test set's batches, in both precisions."""
    found = {}
    for name, dtype in (("float32", torch.float32), ("float64", torch.float64)):
        vae = vae.to(dtype).requires_grad_(False).eval()  # nothing is registered: the store keeps the trained tensors
        worst = 0.0
        for rows in torch.arange(len(test)).split(BATCH):
            batch = Batch(test.batch(rows).x.to(dtype))
            pair = pyro_pair(vae)
            q = poutine.trace(pair.guide).get_trace(batch)
            p = poutine.trace(poutine.replay(pair.model, q)).get_trace(batch)
            z: Tensor = q.nodes["z"]["value"]  # type: ignore[assignment]
            ours = vae.score(batch, z.unsqueeze(0)).log_w.sum()
            worst = max(worst, abs(float(p.log_prob_sum() - q.log_prob_sum() - ours)) / batch.size)
        found[name] = worst
    vae.float()
    return found


def nuts() -> dict[str, float]:
    """Pyro's NUTS on p(z | x) of probabilistic PCA, 5 examples, 2 latents: z-scores of means, variances and covariances."""
    torch.manual_seed(0)
    pyro.set_rng_seed(0)
    scale, net = 0.7, nn.Linear(2, 4).double()
    linear = VAE(
        priors.StandardNormal(2).double(),
        Conditional(nn.Linear(4, 4), heads.Gaussian(2)).double(),
        Conditional(net, heads.GaussianFixed(4, scale)),
    ).requires_grad_(False)
    batch = Batch(torch.randn(5, 4, dtype=torch.float64))
    draws, warmup = (100, 50) if quick else (4000, 500)
    chain = infer.MCMC(infer.NUTS(pyro_pair(linear).model), num_samples=draws, warmup_steps=warmup, disable_progbar=True)
    chain.run(batch)
    z = chain.get_samples()["z"]
    cov = torch.linalg.inv(torch.eye(2, dtype=torch.float64) + net.weight.mT @ net.weight / scale**2)
    mean = (batch.x - net.bias) @ net.weight @ cov / scale**2
    centred = z - mean
    moments = torch.cat([centred, centred.square() - cov.diagonal(), centred.prod(-1, keepdim=True) - cov[0, 1]], -1)  # expectation 0
    ess = effective_sample_size(moments[None], chain_dim=0, sample_dim=1)
    z_scores = moments.mean(0) / (moments.std(0) / ess.sqrt())
    return {
        "largest_z": float(z_scores.abs().max()),
        "comparisons": z_scores.numel(),
        "rms_z": float(z_scores.square().mean().sqrt()),
        "least_ess": float(ess.min()),
        "draws": draws,
    }


def drawn(curves: Mapping[str, list[list[float]]]) -> Figure:
    with styled():
        figure = blank(720, 380, constrained=True)
        axes = figure.subplots()
        handles: list[Any] = []
        for way, (_, colour) in WAYS.items():
            for values in curves[way]:
                (line,) = axes.plot(range(1, EPOCHS + 1), values, color=colour, linewidth=1.3, alpha=0.8)
            handles.append(line)
        handles += axes.plot(list(PUBLISHED), list(PUBLISHED.values()), "o", color=GREY, markersize=5)
        axes.set_xlabel("epoch")
        axes.set_ylabel("test ELBO, nats")
        axes.set_ylim(-130, -100)
        put_legend(axes, handles, [*(name for name, _ in WAYS.values()), "Pyro's tutorial"], beside=False)
        put_title(figure, f"One network, trained twice ({len(SEEDS)} seeds each)")
    return figure


def summary(values: list[float], unit: str = "nats") -> dict[str, Any]:
    v = torch.tensor(values, dtype=torch.float64)
    return {"value": float(v.mean()), "error": float(v.std() / len(values) ** 0.5) if len(values) > 1 else None, "unit": unit}


def main() -> None:
    ways: dict[str, Callable[[int], dict[str, Any]]] = {"vaekit": by_fit, "svi": by_svi}
    found = {way: [once(f"pyro/{way}-{seed}", partial(train, seed)) for seed in SEEDS] for way, train in ways.items()}
    chain = once("pyro/nuts", nuts)
    curves = {way: [one["curve"] for one in cells] for way, cells in found.items()}
    picture("pyro", drawn(curves))
    columns = {f"{way}_{seed}": curve for way, cells in curves.items() for seed, curve in zip(SEEDS, cells, strict=True)}
    series("pyro", {"epoch": range(1, EPOCHS + 1), **columns})

    figures: dict[str, dict[str, Any]] = {}
    for way, cells in found.items():
        for epoch in PUBLISHED:
            if epoch <= EPOCHS:
                figures[f"{way}_{epoch}"] = summary([cell["curve"][epoch - 1] for cell in cells])
        figures[f"{way}_elbo"] = summary([cell["elbo"] for cell in cells])
        figures[f"{way}_nll"] = summary([cell["nll"] for cell in cells])
        figures[f"{way}_seconds"] = summary([cell["seconds"] / EPOCHS for cell in cells], "s/epoch")
    figures["difference"] = summary([a["elbo"] - b["elbo"] for a, b in zip(found["vaekit"], found["svi"], strict=True)])
    figures["standard_error_over_images"] = {"value": found["svi"][0]["elbo_se"], "error": None, "unit": "nats"}
    for precision in ("float32", "float64"):
        worst = max(cell[precision] for cell in found["svi"])
        figures[f"agreement_{precision}"] = {"value": worst, "error": None, "unit": "nats"}
    units = {"largest_z": "standard errors", "rms_z": "standard errors", "comparisons": "moments", "least_ess": "draws", "draws": "draws"}
    figures |= {f"nuts_{key}": {"value": chain[key], "error": None, "unit": unit} for key, unit in units.items()}
    published = {
        "difference": (0.0, 0.5, "the same model, trained both ways"),
        "agreement_float32": (0.0, 1e-4, "the same bound given the same latents"),
        "agreement_float64": (0.0, 1e-9, "the same bound given the same latents"),
        "nuts_largest_z": (0.0, 4.0, "exact posterior moments of probabilistic PCA"),
    }
    source = "Pyro's VAE tutorial, test ELBO (Bingham et al., 2019), +- 0.2"
    published |= {f"svi_{epoch}": (value, 0.5, source) for epoch, value in PUBLISHED.items() if epoch <= EPOCHS}
    write(
        "gallery/pyro",
        command="python -m benchmarks.gallery.pyro",
        seed=SEEDS,
        settings={"epochs": EPOCHS, "batch_size": BATCH, "lr": RATE, "samples": SAMPLES, "pyro": pyro.__version__},
        figures=figures,
        published={
            key: {"value": value, "tolerance": tolerance, "direction": "within", "source": source}
            for key, (value, tolerance, source) in published.items()
        },
    )


if __name__ == "__main__":
    run(main)
