"""Vector quantisation on CIFAR-10: the published training curve, finite scalar quantisation, revival, and a learned prior over the codes.

The train figures are means over the 100 steps that end at the step, as Sonnet's example prints them: an epoch here is 100 steps, whose
images are drawn from the 50,000 with replacement.

Run: python -m benchmarks.gallery.vq
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.optim import Adam

from benchmarks.gallery.common import once, picture, quick, run, series, trained, write
from vaekit import data, heads, viz
from vaekit.conditional import Conditional
from vaekit.data import DataSet, Split
from vaekit.dist import DiscretisedLogistic
from vaekit.evaluate import codes, evaluate
from vaekit.models import VAE, code_model
from vaekit.objectives import ELBO, Cosine
from vaekit.quantise import AutoregressiveCodes, Quantiser
from vaekit.recipes.core import Recipe
from vaekit.recipes.vq import SHAPE, VARIANCE, cifar10, fsq
from vaekit.train import Training
from vaekit.types import Batch
from vaekit.viz.figure import BLUE, GREEN, GREY, ORANGE, Figure, blank, put_legend, put_title, styled

GRID = (8, 8)
SIZE = math.prod(SHAPE)
EVERY = 5 if quick else 100
STEPS = 10 if quick else 5000
SHORT = 10 if quick else 2000
PRIOR_EPOCHS, PRIOR_BATCH = (1, 16) if quick else (1, 64)
TEST, FITTED = (20, 40) if quick else (10_000, 10_000)
PUBLISHED = {1000: (0.105, 71.8), 2000: (0.081, 154.0), 5000: (0.061, 327.0)}
SOURCE = "Sonnet's VQ-VAE example, EMA, printed every 100 iterations"

Curve = dict[str, list[float]]


class Draw:
    """Images drawn at random, whatever the rows."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __call__(self, rows: Tensor) -> Tensor:
        return self.images[torch.randint(len(self.images), (len(rows),))].float() / 255


def images() -> DataSet:
    """CIFAR-10; small under --quick."""
    full = data.cifar10()
    return DataSet(full.name, train=full.train.head(64), test=full.test.head(TEST)) if quick else full


def endless(recipe: Recipe, steps: int) -> Recipe:
    """The recipe for that many steps, 100 to an epoch."""

    def drawn() -> DataSet:
        found = images()
        rows = torch.zeros(1, *SHAPE, dtype=torch.uint8).expand(EVERY * recipe.training.batch_size, *SHAPE)
        return DataSet(found.name, train=Split(rows, prepare=Draw(found.train.pick(torch.arange(len(found.train))).x)), test=found.test)

    return replace(recipe, data=drawn, training=replace(recipe.training, epochs=steps // EVERY))


def error(log_px: float) -> float:
    """Squared error / (entries x variance of the data), from log N(x; x_hat, variance / 2)."""
    return -log_px / SIZE - 0.5 * math.log(math.pi * VARIANCE)


def first_stage(name: str, recipe: Callable[[], Recipe], steps: int) -> tuple[VAE, Curve]:
    """Train; the model, and its curve over the steps."""
    fitted = trained(f"vq-{name}", lambda: endless(recipe(), steps))
    rows = fitted.history
    curve = {
        "step": [row["step"] for row in rows],
        "normalised_error": [error(row["train/log_px"]) for row in rows],
        "perplexity": [row["train/perplexity"] for row in rows],
        "codes_in_a_batch": [row["train/codes"] for row in rows],
        "seconds": [row["seconds"] for row in rows],
    }
    series(f"vq-{name}", curve)
    if not isinstance(fitted.model, VAE):
        raise TypeError("a VQ-VAE is a VAE")
    return fitted.model, curve


def quantiser_of(model: VAE) -> Quantiser:
    head = model.posterior.head
    if not isinstance(head, heads.Quantised):
        raise TypeError("the posterior has no codes")
    return head.quantiser


def scale_of(model: VAE, split: Split) -> float:
    """The standard deviation of the training residuals: the best shared scale of a Gaussian on these means."""
    total = 0.0
    for index in torch.arange(len(split)).split(500):
        batch = split.batch(index)
        total += float((batch.x - model.reconstruct(batch)).square().sum(dtype=torch.float64))
    return math.sqrt(total / (len(split) * SIZE))


class Shared(nn.Module):
    """Discretised logistics around another likelihood's means, all with one scale."""

    def __init__(self, likelihood: nn.Module, log_scale: float) -> None:
        super().__init__()
        self.likelihood = likelihood
        self.log_scale = log_scale

    def forward(self, z: Tensor) -> Distribution:
        mean = self.likelihood(z).mean
        return DiscretisedLogistic(mean, torch.full_like(mean, self.log_scale), len(SHAPE))


def log_scale_of(model: VAE, split: Split) -> float:
    """The log-scale of `Shared` that is most probable for training images, by golden section."""
    batch = split.batch(torch.arange(min(len(split), 200)))
    mean = model.reconstruct(batch)

    def cost(s: float) -> float:
        return -float(DiscretisedLogistic(mean, torch.full_like(mean, s), len(SHAPE)).log_prob(batch.x).mean())

    low, high, ratio = -6.0, 0.0, (math.sqrt(5) - 1) / 2
    while high - low > 1e-3:
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, b) if cost(a) < cost(b) else (a, high)
    return 0.5 * (low + high)


def second_stage(model: VAE) -> AutoregressiveCodes:
    """The prior, trained on the codes of the training images."""
    quantiser, found = quantiser_of(model), images()
    kept: list[AutoregressiveCodes] = []

    def recipe() -> Recipe:
        prior = AutoregressiveCodes(quantiser, GRID, width=16 if quick else 128, layers=1 if quick else 4)
        kept.append(prior)
        schedule = Cosine(1.0, 0.0, PRIOR_EPOCHS * -(-len(found.train) // PRIOR_BATCH))
        training = Training(PRIOR_EPOCHS, PRIOR_BATCH, optimiser=partial(Adam, lr=1e-3), schedule=schedule, clip=1.0)
        return Recipe(
            code_model(prior),
            lambda: DataSet("codes", train=codes(model, found.train), test=codes(model, found.test)),
            ELBO(),
            training,
        )

    trained("vq-prior", recipe)
    return kept[-1]


def figures_of_curve(name: str, curve: Curve, steps: Sequence[int]) -> dict[str, dict[str, object]]:
    at = {int(step): n for n, step in enumerate(curve["step"])}
    made: dict[str, dict[str, object]] = {}
    for step in steps:
        n = at.get(step, len(at) - 1)
        made[f"{name}_error_{step}"] = {"value": curve["normalised_error"][n], "error": None, "unit": "of the variance"}
        made[f"{name}_perplexity_{step}"] = {"value": curve["perplexity"][n], "error": None, "unit": "codes"}
    return made


def drawn_curves(curves: dict[str, Curve]) -> Figure:
    colours = {"averages": BLUE, "averages, revived": ORANGE, "scalar": GREEN}
    with styled():
        figure = blank(820, 330, constrained=True)
        put_title(figure, "VQ-VAE on CIFAR-10 while training: means over 100 steps; crosses are the published values")
        left, right = figure.subplots(1, 2)
        lines = []
        for name, curve in curves.items():
            (line,) = left.plot(curve["step"], curve["normalised_error"], color=colours[name], linewidth=1.4)
            right.plot(curve["step"], curve["perplexity"], color=colours[name], linewidth=1.4)
            lines.append(line)
        for step, (nmse, perplexity) in PUBLISHED.items():
            if step <= STEPS:
                left.plot(step, nmse, "x", color=GREY)
                right.plot(step, perplexity, "x", color=GREY)
        left.set_ylim(0, 0.2)
        right.set_ylim(bottom=0)
        for axes, label in ((left, "squared error / variance"), (right, "perplexity of a batch's codes")):
            axes.set_xlabel("step")
            axes.set_ylabel(label)
            axes.grid(visible=True)
        put_legend(left, lines, list(curves), beside=False)
    return figure


def nats(value: float, se: float) -> dict[str, object]:
    return {"value": value, "error": se, "unit": "nats"}


def held_out(model: VAE, prior: AutoregressiveCodes) -> dict[str, dict[str, object]]:
    """-log p(x) of the test images, the codes paid for, under both priors and both likelihoods."""
    found = images()
    log_scale = log_scale_of(model, found.train)
    sigma = scale_of(model, found.train.head(min(len(found.train), FITTED)))
    decoder = model.likelihood.net
    if not isinstance(decoder, nn.Module):
        raise TypeError("the likelihood has no network")
    gaussian = Conditional(decoder, heads.GaussianFixed(SHAPE, sigma), event_dim=3)
    made: dict[str, dict[str, object]] = {
        "sigma": {"value": sigma, "error": None, "unit": "of the range of x"},
        "logistic_scale": {"value": math.exp(log_scale), "error": None, "unit": "of the range of x"},
    }
    uniform = math.prod(GRID) * math.log(quantiser_of(model).size)
    for name, likelihood in (("gaussian", gaussian), ("logistic", Shared(gaussian, log_scale))):
        e = evaluate(VAE(prior, model.posterior, likelihood), found.test, samples=1)
        made[f"{name}_nll"] = nats(e.nll, e.nll_se)
        made[f"{name}_nll_uniform"] = nats(uniform - e.log_px, e.log_px_se)
        made["code_cost"] = nats(e.rates[0], e.rates_se[0])
        made["code_cost_uniform"] = {"value": uniform, "error": None, "unit": "nats"}
        if name == "logistic":
            bit = SIZE * math.log(2)
            for key in ("nll", "nll_uniform"):
                value, se = made[f"logistic_{key}"]["value"], made[f"logistic_{key}"]["error"]
                made[f"bits_{key}"] = {"value": float(str(value)) / bit, "error": float(str(se)) / bit, "unit": "bits per dimension"}
            made["bits_codes"] = {"value": e.rates[0] / bit, "error": e.rates_se[0] / bit, "unit": "bits per dimension"}
    made["test_error"] = {"value": scale_of(model, found.test) ** 2 / VARIANCE, "error": None, "unit": "of the variance"}
    return made


def pictures(model: VAE, prior: AutoregressiveCodes) -> None:
    batch = images().test.batch(torch.arange(16))
    picture("vq-reconstructions", viz.pairs(batch.x, model.reconstruct(Batch(batch.x)), gap=1))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        n = 8 if quick else 40
        title = "p(x | z) at codes from the learned prior"
        picture("vq-samples", viz.sheet(VAE(prior, model.posterior, model.likelihood).sample(n), columns=8, title=title))
        picture("vq-uniform", viz.sheet(model.sample(16), columns=8, title="The same at codes from the uniform prior"))


def main() -> None:
    small = {"codes": 16, "dimensions": 4, "hidden": 8} if quick else {}
    model, averages = first_stage("ema", lambda: cifar10(**small), STEPS)  # type: ignore[arg-type]
    prior = second_stage(model)
    measured = once("vq-test", lambda: held_out(model, prior))
    pictures(model, prior)
    _, revived = first_stage("revive", lambda: cifar10(revive=0.1, **small), SHORT)  # type: ignore[arg-type]
    _, scalar = first_stage("fsq", lambda: fsq(hidden=8) if quick else fsq(), SHORT)
    picture("vq-curves", drawn_curves({"averages": averages, "averages, revived": revived, "scalar": scalar}))

    steps = [10] if quick else list(PUBLISHED)
    short = [10] if quick else [1000, 2000]
    figures = figures_of_curve("ema", averages, steps) | figures_of_curve("revive", revived, short)
    figures |= figures_of_curve("fsq", scalar, short) | measured
    figures["milliseconds_a_step"] = {"value": 1000 * averages["seconds"][-1] / STEPS, "error": None, "unit": "ms"}
    published: dict[str, dict[str, object]] = {}
    for step in () if quick else steps:
        nmse, perplexity = PUBLISHED[step]
        entry = {"source": f"{SOURCE}, step {step}"}
        published[f"ema_error_{step}"] = {"value": nmse, "tolerance": 0.004, "direction": "at_most"} | entry
        published[f"ema_perplexity_{step}"] = {"value": perplexity, "tolerance": 0.1 * perplexity, "direction": "at_least"} | entry
    write(
        "gallery/vq",
        command="python -m benchmarks.gallery.vq",
        seed=0,
        settings={
            "recipe": "vq:cifar10",
            "steps": STEPS,
            "steps_of_the_others": SHORT,
            "revive": 0.1,
            "batch": 32,
            "prior": "transformer of width 128, 4 layers, 4 heads",
            "prior_epochs": PRIOR_EPOCHS,
            "prior_batch": PRIOR_BATCH,
            "images": "drawn with replacement from the 50,000",
        },
        figures=figures,
        published=published or None,
    )


if __name__ == "__main__":
    run(main)
