"""Samples, interpolations and traversals of every image recipe, trained for short, with the test bounds of the very models shown.

The CIFAR-10 model is the narrow network of ``benchmarks.gallery.resnet``, which measures it: run that first, or it is trained here.

Run: python -m benchmarks.gallery.generation
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.gallery.common import once, picture, quick, run, trained, write
from benchmarks.gallery.resnet import NARROW_EPOCHS, narrow
from vaekit import viz
from vaekit.data.core import DataSet, Split
from vaekit.evaluate import evaluate, interpolate, latents, leading, quantiles, spherical, straight, traverse
from vaekit.models import LatentModel
from vaekit.recipes import aevb, mnist
from vaekit.recipes.core import Recipe
from vaekit.recipes.digits import digits

SAMPLES = 5 if quick else 100
ROWS, STEPS, DIMENSIONS = 5, 9, 8
PAIRS = 50 if quick else 500  # of test images, for the radius of the middle of a path

RECIPES: dict[str, Callable[[], Recipe]] = {
    "digits": lambda: digits(epochs=3 if quick else 200),
    "example": lambda: mnist.example(epochs=1 if quick else 10),
    "ladder": lambda: mnist.ladder(epochs=1 if quick else 10, warmup=0 if quick else 3),
    "iwae": lambda: mnist.iwae(k=5, stages=1 if quick else 2),
    "freyfaces": lambda: aevb.freyfaces(epochs=3 if quick else 640),
}


def built(recipe: Callable[[], Recipe]) -> Recipe:
    """The recipe, its data read once; under --quick on a few rows."""
    plan = recipe()
    data = plan.data()
    if quick:
        data = replace(data, train=some(data.train, 512), test=some(data.test, 200), valid=data.valid and some(data.valid, 200))
    return replace(plan, data=lambda: data)


def some(split: Split, n: int) -> Split:
    """At most n rows at random: data sets may be sorted by class."""
    return split.take(torch.randperm(len(split), generator=torch.Generator().manual_seed(0))[:n])


def measured(model: LatentModel, data: DataSet) -> dict[str, float]:
    found = evaluate(model, data.test, samples=SAMPLES)
    return {"bound": found.elbo, "bound_se": found.elbo_se, "nll": found.nll, "nll_se": found.nll_se, "examples": found.examples}


def radii(model: LatentModel, data: DataSet) -> dict[str, list[float]]:
    """|z| / sqrt(D) at the ends and in the middle of paths between pairs of test images, and its standard error over the pairs."""
    rows = some(data.test, 2 * PAIRS)
    x0, x1 = rows.batch(torch.arange(0, 2 * PAIRS, 2)), rows.batch(torch.arange(1, 2 * PAIRS, 2))
    line, arc = (interpolate(model, x0, x1, steps=3, along=along).z[0] for along in (straight, spherical))

    def with_error(z: Tensor) -> list[float]:
        r = z.norm(dim=-1) / z.shape[-1] ** 0.5
        return [float(r.mean()), float(r.std() / len(r) ** 0.5)]

    return {"ends": with_error(line[:, 0]), "line": with_error(line[:, 1]), "arc": with_error(arc[:, 1])}


def draw(name: str, model: LatentModel, data: DataSet) -> None:
    """The three pictures of one model. A Gaussian's mean may leave [0, 1]; it is clipped, which the figure would otherwise say below."""
    gap = viz.gap_for(data.shape[-1])
    title = f"{name}: means of p(x | z), z from the prior"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        picture(f"generation-{name}-samples", viz.sheet(model.sample(40).clamp(0, 1), columns=10, gap=gap, title=title))
    rows = some(data.test, 2 * ROWS)
    a, b = rows.batch(torch.arange(0, 2 * ROWS, 2)), rows.batch(torch.arange(1, 2 * ROWS, 2))
    frames = torch.cat([a.x.unsqueeze(1), interpolate(model, a, b, steps=STEPS).x.clamp(0, 1), b.x.unsqueeze(1)], 1)
    picture(f"generation-{name}-interpolations", viz.strips(frames, title=f"{name}: between two test images"))
    found = latents(model, some(data.test, 1000))
    which, values = leading(found, DIMENSIONS), quantiles(STEPS)
    moved = traverse(model, dimensions=which, values=values).x.clamp(0, 1)
    labels = [f"z[{d}]" if found.kl is None else f"z[{d}], {found.kl[d]:.2f} nats" for d in which]
    title = f"{name}: one latent dimension at a time, the largest KL first"
    picture(f"generation-{name}-traversals", viz.traversals(moved, values=values, names=labels, title=title))


def main() -> None:
    figures: dict[str, dict[str, Any]] = {}
    for name, recipe in RECIPES.items():
        plan = partial(built, recipe)
        data = plan().data()
        model = trained(f"generation-{name}", plan).model
        found = once(f"generation-{name}-measured", partial(measured, model, data))
        figures[f"{name}_bound"] = {"value": found["bound"], "error": found["bound_se"], "unit": "nats"}
        figures[f"{name}_nll"] = {"value": found["nll"], "error": found["nll_se"], "unit": "nats"}
        draw(name, model, data)
        if name == "iwae":
            for place, (value, error) in once("generation-radii", partial(radii, model, data)).items():
                figures[f"radius_{place}"] = {"value": value, "error": error, "unit": "of sqrt(D)"}
    coloured = trained("resnet-narrow", partial(narrow, NARROW_EPOCHS)).model
    draw("resnet", coloured, narrow(NARROW_EPOCHS).data())
    write(
        "gallery/generation",
        command="python -m benchmarks.gallery.generation",
        seed=0,
        settings={
            "importance samples": SAMPLES,
            "digits": {"epochs": "at most 200"},
            "example": {"epochs": 10},
            "ladder": {"epochs": 10, "warmup": 3},
            "iwae": {"k": 5, "stages": 2},
            "freyfaces": {"latent": 10, "epochs": 640},
            "pairs": PAIRS,
        },
        figures=figures,
    )


if __name__ == "__main__":
    run(main)
