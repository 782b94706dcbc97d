"""Wake-sleep on MNIST with 20 latent dimensions: the test bound after 1e6 and 1e7 training samples, as in fig. 2 of the first VAE paper.

The step size is chosen as there: the best of .01, .02 and .1 on the training bound after the first training samples.

Run: python -m benchmarks.gallery.wake_sleep
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch

from benchmarks.gallery.common import once, picture, quick, run, series, trained, write
from vaekit.errors import NonFiniteError
from vaekit.evaluate import evaluate
from vaekit.recipes import posterior
from vaekit.recipes.core import Recipe
from vaekit.train import Fitted, fit
from vaekit.viz.figure import BLUE, GREY, ORANGE, blank, put_title, styled

RATES = (0.01, 0.02, 0.1)
FIRST = 200_000  # samples after which the step size is chosen
SOURCE = "Kingma and Welling (2014), fig. 2, read off the vector figure (+- 0.2 nat)"
PUBLISHED = {10**6: -130.9, 10**7: -108.3}
ROWS = 500 if quick else posterior.ROWS


def epochs(samples: int) -> int:
    return 2 if quick else samples // ROWS


def choose() -> float:
    """The step size with the best training bound after the first samples."""

    def bound(lr: float) -> float:
        torch.manual_seed(0)
        plan = posterior.wake_sleep(lr=lr, rows=ROWS, epochs=epochs(FIRST))
        try:
            fitted = fit(plan.model, plan.data().train, objective=plan.objective, training=plan.training, progress=False)
        except NonFiniteError:
            return -1e30  # diverged
        return fitted.history[-1]["train/bound"]

    found = once("wake-sleep-rates", lambda: {str(lr): bound(lr) for lr in RATES})
    return float(max(found, key=found.get))


def recipe(lr: float) -> Recipe:
    """The whole run, with the test images as its validation split: nothing is chosen by them."""
    plan = posterior.wake_sleep(lr=lr, rows=ROWS, epochs=epochs(10**7))
    data = plan.data()
    test = data.test.head(200) if quick else data.test
    shown = replace(data, valid=test, test=test)
    return replace(plan, data=lambda: shown)


def tested(plan: Recipe, fitted: Fitted) -> dict[str, float]:
    found = evaluate(fitted.model, plan.data().test, samples=2 if quick else 100)
    return {"bound": found.elbo, "se": found.elbo_se, "log_px": -found.nll, "log_px_se": found.nll_se, "seconds": fitted.seconds}


def main() -> None:
    lr = choose()
    fitted = trained("wake-sleep", partial(recipe, lr))
    last = once("wake-sleep-tested", lambda: tested(recipe(lr), fitted))
    rows = [(float(row["epoch"] * ROWS), row["train/bound"], row["valid/bound"]) for row in fitted.history]
    early = min(rows, key=lambda row: abs(row[0] - 1e6))
    series("wake-sleep", dict(zip(("samples", "train", "test"), map(list, zip(*rows, strict=True)), strict=True)))

    figure = blank(560, 330, constrained=True)
    with styled():
        axes = figure.subplots()
        x, train, test = zip(*rows, strict=True)
        axes.semilogx(x, train, color=BLUE, lw=1, label="training")
        axes.semilogx(x, test, color=ORANGE, label="test")
        axes.plot(list(PUBLISHED), list(PUBLISHED.values()), "o", color=GREY, label="published, test")
        axes.set(xlabel="training samples", ylabel="bound (nats)")
        if not quick:
            axes.set_ylim(-160, -100)
        axes.legend(loc="lower right")
    put_title(figure, "Wake-sleep: the bound during training")
    picture("wake_sleep", figure)

    figures = {
        "test_1e6": {"value": early[2], "error": last["se"], "unit": "nats"},
        "test_1e7": {"value": last["bound"], "error": last["se"], "unit": "nats"},
        "train_1e7": {"value": rows[-1][1], "error": None, "unit": "nats"},
        "log_px_1e7": {"value": last["log_px"], "error": last["log_px_se"], "unit": "nats"},
        "seconds": {"value": last["seconds"], "error": None, "unit": "s"},
    }
    write(
        "gallery/wake_sleep",
        command="python -m benchmarks.gallery.wake_sleep",
        seed=0,
        settings={
            "latent": 20,
            "hidden": 500,
            "samples": 10**7,
            "step size": lr,
            "step size chosen after": FIRST,
            "initial standard deviation": 0.01,
            "importance samples of log p(x)": 100,
        },
        figures=figures,
        published={"test_1e7": {"value": PUBLISHED[10**7], "tolerance": 1.0, "direction": "within", "source": SOURCE}},
    )


if __name__ == "__main__":
    run(main)
