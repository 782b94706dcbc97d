"""Wake-sleep on MNIST with 20 latent dimensions: the test bound after 1e6 and 1e7 training samples, as in fig. 2 of the first VAE paper.

Of the paper's step sizes .01, .02 and .1 the two with the better training bound after the first samples go on to the end, and the one with
the better training bound there is compared with the paper: the first samples alone prefer the smaller one, whose start is the calmer.

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
FIRST = 200_000  # samples after which two step sizes are chosen
SOURCE = "Kingma and Welling (2014), fig. 2, read off the vector figure (+- 0.2 nat)"
PUBLISHED = {10**6: -130.9, 10**7: -108.3}
ROWS = 500 if quick else posterior.ROWS


def epochs(samples: int) -> int:
    return 2 if quick else samples // ROWS


def choose() -> list[float]:
    """The two step sizes with the best training bounds after the first samples, in order."""

    def bound(lr: float) -> float:
        torch.manual_seed(0)
        plan = posterior.wake_sleep(lr=lr, rows=ROWS, epochs=epochs(FIRST))
        try:
            fitted = fit(plan.model, plan.data().train, objective=plan.objective, training=plan.training, progress=False)
        except NonFiniteError:
            return -1e30  # diverged
        return fitted.history[-1]["train/bound"]

    found = once("wake-sleep-rates", lambda: {str(lr): bound(lr) for lr in RATES})
    return sorted(sorted(map(float, found), key=lambda lr: -found[str(lr)])[:2])


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


def at(fitted: Fitted, samples: float) -> dict[str, float]:
    """The epoch that ended nearest to so many samples."""
    return min(fitted.history, key=lambda row: abs(row["epoch"] * ROWS - samples))


def main() -> None:
    rates = choose()
    runs = {lr: trained(f"wake-sleep-{lr:g}", partial(recipe, lr)) for lr in rates}
    figures: dict[str, dict[str, object]] = {}
    lr = max(rates, key=lambda rate: runs[rate].history[-1]["train/bound"])
    fitted = runs[lr]
    found = {rate: once(f"wake-sleep-{rate:g}-tested", partial(tested, recipe(rate), run_)) for rate, run_ in runs.items()}
    last = found[lr]
    for name, rate in zip(("chosen", "other"), (lr, next(rate for rate in rates if rate != lr)), strict=True):
        figures[f"{name}_lr"] = {"value": rate, "error": None, "unit": "step size"}
        figures[f"{name}_train"] = {"value": runs[rate].history[-1]["train/bound"], "error": None, "unit": "nats"}
        figures[f"{name}_1e6"] = {"value": at(runs[rate], 1e6)["valid/bound"], "error": found[rate]["se"], "unit": "nats"}
        figures[f"{name}_1e7"] = {"value": found[rate]["bound"], "error": found[rate]["se"], "unit": "nats"}
    rows = [(float(row["epoch"] * ROWS), row["train/bound"], row["valid/bound"]) for row in fitted.history]
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

    figures |= {
        "test_1e6": {"value": at(fitted, 1e6)["valid/bound"], "error": last["se"], "unit": "nats"},
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
            "step sizes run to the end": rates,
            "chosen after": FIRST,
            "initial standard deviation": 0.01,
            "importance samples of log p(x)": 100,
        },
        figures=figures,
        published={"test_1e7": {"value": PUBLISHED[10**7], "tolerance": 1.0, "direction": "within", "source": SOURCE}},
    )


if __name__ == "__main__":
    run(main)
