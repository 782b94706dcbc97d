"""Annealed importance sampling beside importance sampling on MNIST: estimate, error and time against K and against the temperatures.

The network 784-200-200-50 of Burda et al. (2016), trained by the ELBO for 40 passes over dynamically binarised MNIST; the first 100 test
images, binarised once. The sandwich of bidirectional Monte Carlo is that of 100 images which the model makes. Times are of one thread.

Run: python -m benchmarks.gallery.likelihood
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from benchmarks.gallery.common import once, picture, quick, run, trained, write
from vaekit.data.core import Split
from vaekit.evaluate import Annealing, annealed_log_likelihood, bdmc, log_likelihood
from vaekit.evaluate.estimates import LogLikelihood
from vaekit.models import LatentModel
from vaekit.recipes import mnist
from vaekit.recipes.core import Recipe
from vaekit.viz.figure import BLUE, GREEN, ORANGE, Figure, blank, put_title, styled

IMAGES = 10 if quick else 100
CHAINS = 4 if quick else 8
LEAPFROGS = 5
TEMPERATURES = (5, 10) if quick else (50, 200, 800)
SAMPLES = (10, 100) if quick else (50, 500, 5000, 50_000, 200_000)
STAGES = 1 if quick else 4


def recipe() -> Recipe:
    return mnist.iwae(k=1, batch_size=100, stages=STAGES)


def images(plan: Recipe) -> Split:
    """The first test images, binarised once: every estimate is of the same x."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Split(plan.data().test.batch(torch.arange(IMAGES)).x)


def timed(estimate: Callable[[], LogLikelihood]) -> dict[str, float]:
    start = time.perf_counter()
    found = estimate()
    share = float((found.k_hat > 0.7).double().mean())
    return {"mean": found.mean, "mc": found.mc_error, "se": found.se, "heavy": share, "seconds": time.perf_counter() - start}


def sandwich(model: LatentModel, annealing: Annealing) -> dict[str, float]:
    start = time.perf_counter()
    found = bdmc(model, IMAGES, samples=CHAINS, annealing=annealing)
    return {
        "lower": found.lower.mean,
        "upper": found.upper.mean,
        "width": found.width,
        "width_se": found.width_se,
        "seconds": time.perf_counter() - start,
    }


def figure(iwae: dict[int, dict[str, float]], ais: dict[int, dict[str, float]], widths: dict[int, dict[str, float]]) -> Figure:
    canvas = blank(820, 340, constrained=True)
    with styled():
        left, right = canvas.subplots(1, 2)
        for found, colour, name in ((iwae, BLUE, "importance sampling, by K"), (ais, ORANGE, "annealing, by temperatures")):
            seconds = [cell["seconds"] for cell in found.values()]
            left.errorbar(
                seconds,
                [cell["mean"] for cell in found.values()],
                [1.96 * cell["mc"] for cell in found.values()],
                fmt="o-",
                color=colour,
                label=name,
            )
        left.set_xscale("log")
        left.set(xlabel="seconds", ylabel="log p(x) of test images (nats)")
        left.legend(loc="upper left")
        low, high = left.get_ylim()
        left.set_ylim(low, high + 0.35 * (high - low))
        right.errorbar(
            list(widths),
            [cell["width"] for cell in widths.values()],
            [1.96 * cell["width_se"] for cell in widths.values()],
            fmt="o-",
            color=GREEN,
        )
        right.set_xscale("log")
        right.set_yscale("log")
        right.set_xticks(list(widths), [str(t) for t in widths])
        right.set_xticks([], minor=True)
        right.set(xlabel="temperatures", ylabel="width of the sandwich (nats)")
    put_title(canvas, f"log p(x) of {IMAGES} MNIST images, 784-200-200-50")
    return canvas


def main() -> None:
    torch.set_num_threads(1)
    model = trained("likelihood", recipe).model
    x = images(recipe())
    iwae, ais, widths = {}, {}, {}
    for k in SAMPLES:
        iwae[k] = once(f"likelihood-iwae-{k}", partial(timed, partial(log_likelihood, model, x, samples=k)))
    for t in TEMPERATURES:
        annealing = Annealing(t, leapfrogs=LEAPFROGS)
        estimate = partial(annealed_log_likelihood, model, x, samples=CHAINS, annealing=annealing)
        ais[t] = once(f"likelihood-ais-{t}", partial(timed, estimate))
        widths[t] = once(f"likelihood-bdmc-{t}", partial(sandwich, model, annealing))
    figures: dict[str, dict[str, Any]] = {}
    for name, found in (("iwae", iwae), ("ais", ais)):
        for n, cell in found.items():
            figures[f"{name}_{n}"] = {"value": cell["mean"], "error": cell["mc"], "unit": "nats; Monte Carlo error"}
            figures[f"{name}_{n}_heavy"] = {"value": cell["heavy"], "error": None, "unit": "share of images with k-hat above .7"}
            figures[f"{name}_{n}_seconds"] = {"value": cell["seconds"], "error": None, "unit": "s"}
    for n, cell in widths.items():
        figures[f"bdmc_{n}_width"] = {"value": cell["width"], "error": cell["width_se"], "unit": "nats"}
        figures[f"bdmc_{n}_lower"] = {"value": cell["lower"], "error": None, "unit": "nats"}
        figures[f"bdmc_{n}_upper"] = {"value": cell["upper"], "error": None, "unit": "nats"}
        figures[f"bdmc_{n}_seconds"] = {"value": cell["seconds"], "error": None, "unit": "s"}
    figures["images_se"] = {"value": ais[TEMPERATURES[-1]]["se"], "error": None, "unit": "nats; standard error over images"}
    write(
        "gallery/likelihood",
        command="python -m benchmarks.gallery.likelihood",
        seed=0,
        settings={
            "recipe": f"mnist:iwae --k 1 --batch_size 100 --stages {STAGES}",
            "images": IMAGES,
            "chains": CHAINS,
            "leapfrogs": LEAPFROGS,
            "threads": 1,
        },
        figures=figures,
    )
    picture("likelihood", figure(iwae, ais, widths))


if __name__ == "__main__":
    run(main)
