"""Rate against distortion over a sweep of beta, each model diagnosed on all test images.

The network of ``mnist:example`` (784-400-20, Bernoulli, grey MNIST), trained by log p(x | z) - beta KL for each beta. The record has rate,
distortion, I(x; z) by the exact mixture of all test posteriors and by minibatches, KL(q(z) || p(z)), active units and overlap of each.

Run: python -m benchmarks.rate_distortion
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

from benchmarks.gallery.common import once, quick, run, trained, write
from vaekit.data import mnist_grey
from vaekit.data.core import DataSet
from vaekit.evaluate import diagnose
from vaekit.models import LatentModel
from vaekit.objectives import ELBO, Beta
from vaekit.recipes import mnist
from vaekit.recipes.core import Recipe
from vaekit.viz import png, rate_distortion

BETAS = (1.0, 50.0) if quick else (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 50.0)
EPOCHS, SAMPLES = (2, 2) if quick else (10, 5)
RECORD = "diagnosis/rate_distortion"
Row = dict[str, Any]


def images() -> DataSet:
    data = mnist_grey()
    return DataSet(data.name, train=data.train.head(3000), test=data.test.head(500)) if quick else data


def recipe(beta: float) -> Recipe:
    return replace(mnist.example(epochs=EPOCHS), data=images, objective=ELBO(penalty=Beta(beta)))


def measured(model: LatentModel) -> Row:
    data = images()
    found = diagnose(model, data.test, train=data.train, samples=SAMPLES)
    test, a = found.test, found.aggregate
    if test is None or a is None:
        raise ValueError(f"no figures: {found.findings}")
    return {
        "rate": (test.rates[0], test.rates_se[0], "nats"),
        "distortion": (-test.log_px, test.log_px_se, "nats"),
        "bound": (test.elbo, test.elbo_se, "nats"),
        "information": (a.mutual_information, a.mutual_information_se, "nats"),
        "stratified": (a.stratified, None, "nats"),
        "weighted": (a.weighted, None, "nats"),
        "gap": (a.gap, a.gap_se, "nats"),
        "active": (test.active_units, None, "dimensions"),
        "overlap": (a.overlap, None, "0 to 1"),
        "nearest": (a.nearest, None, "0 to 1"),
        "findings": [f.sentence for f in found.findings],
    }


def main() -> None:
    found: dict[str, Row] = {}
    for beta in BETAS:
        name = f"rate-distortion-{beta:g}"
        found[f"{beta:g}"] = once(f"{name}-measured", partial(measured, trained(name, partial(recipe, beta)).model))
    figures = {
        f"beta{beta}_{key}": dict(zip(("value", "error", "unit"), row[key], strict=True))
        for beta, row in found.items()
        for key in row
        if key != "findings"
    }
    path = write(
        RECORD,
        command="python -m benchmarks.rate_distortion",
        seed=0,
        settings={"recipe": "mnist:example", "betas": list(BETAS), "epochs": EPOCHS, "samples": SAMPLES, "examples": len(images().test)},
        figures=figures,
    )
    figure = rate_distortion(
        [row["rate"][0] for row in found.values()],
        [row["distortion"][0] for row in found.values()],
        names=[f"β = {beta}" for beta in found],
        information=[row["information"][0] for row in found.values()],
        ceiling=math.log(len(images().test)),
        title="784-400-20 on MNIST, trained with β: rate, distortion and mutual information of the test images",
    )
    path.with_suffix(".png").write_bytes(png(figure))
    for name, row in found.items():
        print(f"beta {name}: " + ", ".join(f"{key} {row[key][0]:.4g}" for key in row if key != "findings"))
        print("\n".join(f"  {sentence}" for sentence in row["findings"]))


if __name__ == "__main__":
    run(main)
