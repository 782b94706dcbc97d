"""The first VAE paper: its network on MNIST and Frey faces after 1e6 and 1e7 training samples.

The step size is chosen as in the paper: the best of .01, .02 and .1 on the training bound after the first training samples.

Run: python -m benchmarks.gallery.aevb
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from benchmarks.gallery.common import once, picture, quick, run, series, trained, write
from vaekit.data import frey_faces
from vaekit.data.core import DataSet
from vaekit.errors import NonFiniteError
from vaekit.evaluate import evaluate
from vaekit.recipes import aevb
from vaekit.recipes.core import Recipe
from vaekit.train import Fitted, fit
from vaekit.viz import sheet
from vaekit.viz.figure import BLUE, GREY, ORANGE, blank, put_title, styled

RATES = (0.01, 0.02, 0.1)
FIRST = 100_000  # samples after which the step size is chosen
SOURCE = "Kingma and Welling (2014), fig. 2, read off the vector figure (MNIST +- 0.2, Frey +- 5 nats)"
PUBLISHED = {("mnist", 10**6): -124.2, ("mnist", 10**7): -104.8, ("freyfaces", 10**6): 792.0, ("freyfaces", 10**7): 1171.0}
TOLERANCE = {"mnist": 1.0, "freyfaces": 40.0}
ROWS = {"mnist": aevb.MNIST, "freyfaces": aevb.FREY, "contaminated": aevb.FREY}
COPIES = {
    "mnist": 1,
    "freyfaces": 16,
    "contaminated": 16,
}  # copies of the faces in an epoch: each ends with a checkpoint
PLANS: dict[str, Callable[..., Recipe]] = {
    "mnist": aevb.mnist,
    "freyfaces": aevb.freyfaces,
    "contaminated": partial(aevb.freyfaces, decoder="contaminated"),
}
SEEDS = {"mnist": [0], "freyfaces": [0, 1, 2, 3, 4]}  # of weights, order and noise, and of the split where there is none published


def epochs(name: str, samples: float) -> int:
    return max(1, round(samples / ROWS[name] / (100 if quick else 1)))


def choose(name: str, samples: int = FIRST) -> float:
    """The step size of the best training bound after the first samples."""

    def bound(lr: float) -> float:
        torch.manual_seed(0)
        plan = PLANS[name](lr=lr, epochs=epochs(name, samples))
        try:
            fitted = fit(plan.model, plan.data().train, objective=plan.objective, training=plan.training, progress=False)
        except NonFiniteError:
            return -1e30  # diverged
        return fitted.history[-1]["train/bound"]

    found = once(f"aevb-{name}-rates", lambda: {str(lr): bound(lr) for lr in RATES})
    return float(max(found, key=found.get))


def data(name: str, seed: int) -> DataSet:
    return aevb.mnist().data() if name == "mnist" else frey_faces(seed)


def tested(name: str, fitted: Fitted, seed: int) -> dict[str, float]:
    scores = evaluate(fitted.model, data(name, seed).test, samples=5 if quick else 100)
    return {"bound": scores.elbo, "se": scores.elbo_se, "log_px": -scores.nll, "train": fitted.history[-1]["train/bound"]}


def curve(name: str, lr: float, samples: int, seed: int) -> tuple[Fitted, list[tuple[float, float, float]]]:
    """A whole run, its validation bound along the way: the validation split is the test split, which nothing is chosen by."""

    def recipe() -> Recipe:
        plan = PLANS[name](lr=lr, epochs=epochs(name, samples / COPIES[name]))
        full = data(name, seed)
        train = full.train.take(torch.arange(len(full.train)).repeat(COPIES[name]))
        shown = replace(full, train=train if COPIES[name] > 1 else full.train, valid=full.test)
        return replace(plan, data=lambda: shown)

    fitted = trained(f"aevb-{name}-{samples:.0e}-{seed}", recipe, seed)
    rows = [(row["epoch"] * ROWS[name] * COPIES[name], row["train/bound"], row["valid/bound"]) for row in fitted.history]
    return fitted, rows


def main() -> None:
    figures: dict[str, dict[str, object]] = {}
    published: dict[str, dict[str, object]] = {}
    rates: dict[str, float] = {}
    canvas = blank(900, 330, constrained=True)
    with styled():
        panels = canvas.subplots(1, 2)
    for panel, name in zip(panels, ("mnist", "freyfaces"), strict=True):
        rates[name] = choose(name)
        finals, rows = [], []
        for seed in SEEDS[name][: 1 if quick else None]:
            fitted, points = curve(name, rates[name], 10**7, seed)
            finals.append(once(f"aevb-{name}-tested-{seed}", partial(tested, name, fitted, seed)))
            rows.append(points)
        early = [min(points, key=lambda row: abs(row[0] - 10**6))[2] for points in rows]
        for samples, values in ((10**6, early), (10**7, [final["bound"] for final in finals])):
            t = torch.tensor(values, dtype=torch.float64)
            spread = float(t.std() / len(t) ** 0.5) if len(t) > 1 else finals[0]["se"]
            figures[f"{name}_{samples:.0e}".replace("+0", "")] = {"value": float(t.mean()), "error": spread, "unit": "nats"}
        figures[f"{name}_train"] = {"value": sum(f["train"] for f in finals) / len(finals), "error": None, "unit": "nats"}
        figures[f"{name}_log_px"] = {"value": sum(f["log_px"] for f in finals) / len(finals), "error": None, "unit": "nats"}
        key = f"{name}_1e7"
        published[key] = {"value": PUBLISHED[name, 10**7], "tolerance": TOLERANCE[name], "direction": "within", "source": SOURCE}
        stride = max(1, len(rows[0]) // 200)
        series(f"aevb-{name}", dict(zip(("samples", "train", "test"), map(list, zip(*rows[0][::stride], strict=True)), strict=True)))
        with styled():
            x, train, test = zip(*rows[0], strict=True)
            panel.semilogx(x, train, color=BLUE, lw=1, label="training")
            panel.semilogx(x, test, color=ORANGE, label="test")
            at = [s for n, s in PUBLISHED if n == name]
            panel.plot(at, [PUBLISHED[name, s] for s in at], "o", color=GREY, label="published, test")
            panel.set(
                xlabel="training samples",
                ylabel="bound (nats)",
                xlim=(1e5, 1.5e7),
                title={"mnist": "MNIST", "freyfaces": "Frey faces"}[name],
            )
            low = min(v for s, v in zip(x, test, strict=True) if s >= 1e5 or quick)
            panel.set_ylim(low, None)
            panel.legend(loc="lower right")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            picture(f"aevb-{name}", sheet(fitted.model.sample(40), columns=10, title="decoder means of samples from the prior"))
    put_title(canvas, "AEVB: the bound during training")
    picture("aevb", canvas)
    write(
        "gallery/aevb",
        command="python -m benchmarks.gallery.aevb",
        seed=0,
        settings={
            "seeds": SEEDS,
            "samples": 10**7,
            "step sizes": rates,
            "step size chosen after": FIRST,
            "latent": {"mnist": 20, "freyfaces": 10},
            "initial scale": 0.01,
            "importance samples of log p(x)": 100,
        },
        figures=figures,
        published=published,
    )


if __name__ == "__main__":
    run(main)
