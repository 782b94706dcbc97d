"""ResNet-18 VAE on CIFAR-10: that it learns at full width in bounded time, and that the learned sigma becomes the residual's spread.

At full width one pass over the data is made with the recipe's Adam at 1e-4, in bfloat16 (networks; densities stay float32). Adam moves
log sigma by at most its learning rate a step, which one pass is too short for: that sigma converges is shown by a network of a
quarter of the width with a learning rate ten times as high, over several passes over a quarter of the images, and by both numbers after
every pass.

Run: python -m benchmarks.gallery.resnet
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch

from benchmarks.gallery.common import once, picture, quick, run, series, trained, write
from vaekit import Batch
from vaekit.data.core import DataSet
from vaekit.evaluate import evaluate, residuals
from vaekit.models import LatentModel
from vaekit.objectives import ELBO
from vaekit.recipes import cifar10
from vaekit.recipes.core import Recipe
from vaekit.viz import pairs, sheet
from vaekit.viz.figure import BLUE, ORANGE, blank, put_title, styled

NARROW_EPOCHS, NARROW_ROWS = (2, 256) if quick else (15, 12_800)
SHOWN = 128 if quick else 1000  # images of each split that are scored


def parts(data: DataSet, n: int) -> DataSet:
    """All of it; under --quick n rows of each split."""
    return replace(data, train=data.train.take(torch.arange(n)), test=data.test.take(torch.arange(n))) if quick else data


def full() -> Recipe:
    plan = cifar10.resnet(scale=0.25, batch_size=32, epochs=1, width=8 if quick else 64)
    return replace(plan, data=lambda: parts(plan.data(), 256), training=replace(plan.training, precision="bf16-mixed"))


def narrow(epochs: int) -> Recipe:
    plan = cifar10.resnet(scale=0.25, batch_size=64, epochs=epochs, width=4 if quick else 16, lr=1e-3)
    training = replace(plan.training, precision="bf16-mixed")

    def rows() -> DataSet:
        data = plan.data()
        return replace(data, train=data.train.head(NARROW_ROWS))

    return replace(plan, data=rows, training=training)


def measured(model: LatentModel, data: DataSet) -> dict[str, Any]:
    found = evaluate(model, data.test.head(SHOWN), samples=2 if quick else 5)
    fit, test = residuals(model, data.train.head(SHOWN)), residuals(model, data.test.head(SHOWN))
    if fit is None or test is None:
        raise SystemExit("the likelihood is no Gaussian")
    return {
        "elbo": found.elbo,
        "se": found.elbo_se,
        "rate": sum(found.rates),
        "sigma": fit.sigma,
        "train": fit.residual,
        "test": test.residual,
    }


def larger() -> dict[str, float]:
    """Two steps on 64 x 64 images: the bound before and after, finite."""
    torch.manual_seed(0)
    model = cifar10.network(size=64, latent=32, width=8, scale=0.25)
    x = torch.nn.functional.interpolate(torch.rand(16, 3, 8, 8), size=64, mode="bilinear")
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    values = []
    for step in range(20):
        loss = ELBO(closed_form=False)(model, Batch(x), step)
        optimiser.zero_grad()
        loss.surrogate.mean().backward()
        optimiser.step()
        values.append(float(loss.bound.mean()))
    return {"first": values[0], "last": values[-1]}


def main() -> None:
    data = parts(cifar10.resnet(width=4).data(), 256)
    one = trained("resnet", full)
    wide = once("resnet-measured", partial(measured, one.model, data))
    spreads = []
    for epoch in range(1, NARROW_EPOCHS + 1):  # the same run, prolonged pass by pass: resuming is exact
        narrowed = trained("resnet-narrow", partial(narrow, epoch))
        spreads.append(once(f"resnet-narrow-{epoch}", partial(measured, narrowed.model, data)))
    big = once("resnet-64", larger)

    test = data.test.batch(torch.arange(10))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        shown = one.model.reconstruct(test).clamp(0, 1)
        picture("resnet-reconstructions", pairs(test.x, shown, title="test images, reconstructions after one pass at full width"))
        small = narrowed.model.reconstruct(test).clamp(0, 1)
        picture("resnet-narrow-reconstructions", pairs(test.x, small, title="the narrow network after its passes"))
        picture(
            "resnet-samples",
            sheet(narrowed.model.sample(40).clamp(0, 1), columns=10, title="samples from the prior, narrow network"),
        )
    canvas = blank(900, 330, constrained=True)
    with styled():
        left, right = canvas.subplots(1, 2)
        epochs = list(range(1, NARROW_EPOCHS + 1))
        left.plot(epochs, [row["train/bound"] for row in narrowed.history], "o-", color=BLUE, ms=4, label="training")
        left.plot(epochs, [s["elbo"] for s in spreads], "o-", color=ORANGE, ms=4, label="test")
        left.set(xlabel="passes over the images", ylabel="bound (nats)", title="narrow network: the bound")
        left.legend()
        right.plot(epochs, [s["sigma"] for s in spreads], "o-", color=BLUE, ms=4, label="learned sigma")
        right.plot(epochs, [s["train"] for s in spreads], "o-", color=ORANGE, ms=4, label="spread of the residual")
        right.set(xlabel="passes over the images", ylabel="in units of [0, 1]", title="narrow network: the learned scale")
        right.legend()
    put_title(canvas, "ResNet VAE on CIFAR-10")
    picture("resnet", canvas)
    series("resnet-narrow", {"pass": epochs, **{key: [s[key] for s in spreads] for key in ("elbo", "sigma", "train", "test")}})
    last = spreads[-1]
    write(
        "gallery/resnet",
        command="python -m benchmarks.gallery.resnet",
        seed=0,
        settings={
            "wide": {"width": 64, "batch": 32, "lr": 1e-4, "passes": 1, "precision": "bf16-mixed", "scale at the start": 0.25},
            "narrow": {"width": 16, "batch": 64, "lr": 1e-3, "passes": NARROW_EPOCHS, "precision": "bf16-mixed"}
            | {"scale at the start": 0.25, "training images": NARROW_ROWS},
            "latent": 256,
            "images scored per split": SHOWN,
        },
        figures={
            "wide_bound": {"value": wide["elbo"], "error": wide["se"], "unit": "nats"},
            "wide_training_bound": {"value": one.history[-1]["train/bound"], "error": None, "unit": "nats"},
            "wide_sigma": {"value": wide["sigma"], "error": None, "unit": "of [0, 1]"},
            "wide_residual": {"value": wide["train"], "error": None, "unit": "of [0, 1]"},
            "wide_minutes": {"value": one.seconds / 60, "error": None, "unit": "min"},
            "narrow_first_bound": {"value": spreads[0]["elbo"], "error": spreads[0]["se"], "unit": "nats"},
            "narrow_bound": {"value": last["elbo"], "error": last["se"], "unit": "nats"},
            "narrow_sigma": {"value": last["sigma"], "error": None, "unit": "of [0, 1]"},
            "narrow_residual": {"value": last["train"], "error": None, "unit": "of [0, 1]"},
            "narrow_ratio": {"value": last["sigma"] / last["train"], "error": None, "unit": "ratio"},
            "narrow_first_ratio": {"value": spreads[0]["sigma"] / spreads[0]["train"], "error": None, "unit": "ratio"},
            "narrow_test_residual": {"value": last["test"], "error": None, "unit": "of [0, 1]"},
            "narrow_minutes": {"value": narrowed.seconds / 60, "error": None, "unit": "min"},
            "large_first": {"value": big["first"], "error": None, "unit": "nats"},
            "large_last": {"value": big["last"], "error": None, "unit": "nats"},
        },
    )


if __name__ == "__main__":
    run(main)
