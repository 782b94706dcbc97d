"""The fully connected VAE with two latent dimensions: what each term of its loss does to the latent plane.

Run: python -m benchmarks.gallery.dense
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from benchmarks.gallery.common import once, picture, quick, run, trained, write
from vaekit.data import mnist_grey
from vaekit.data.core import DataSet, Split
from vaekit.dist import centre
from vaekit.evaluate import embed, evaluate, reconstruction, scorable
from vaekit.models import LatentModel, given
from vaekit.models.core import require_kl
from vaekit.objectives import Loss, Objective, Reconstruction, terms
from vaekit.recipes import tutorials
from vaekit.recipes.core import Recipe
from vaekit.types import Batch
from vaekit.viz import manifold, scatter

EPOCHS, SAMPLES, REFERENCES = (1, 2, 500) if quick else (15, 20, 10_000)
NEIGHBOURS = 10
TITLES = {
    "reconstruction": "The reconstruction term alone",
    "kl": "The KL alone",
    "both": "Both: the VAE",
    "autoencoder": "The autoencoder",
}
Row = dict[str, Any]


class RateAlone(Objective):
    """The KL without the reconstruction term: a user's own objective."""

    def forward(self, model: LatentModel, batch: Batch, step: int = 0) -> Loss:
        t = model.infer(batch)
        rate = require_kl(t)
        return Loss(rate.sum(-1).mean(0), (t.log_px - rate.sum(-1)).mean(0).detach(), terms(t.log_px, rate))


def small() -> DataSet:
    data = mnist_grey()
    return DataSet(data.name, train=data.train.head(1500), test=data.test.head(400), label_names=data.label_names) if quick else data


def recipe(name: str) -> Recipe:
    if name == "autoencoder":
        return replace(tutorials.autoencoder(epochs=EPOCHS), data=small)
    plan = replace(tutorials.dense(epochs=EPOCHS), data=small)
    own: dict[str, Objective] = {"reconstruction": Reconstruction(), "kl": RateAlone()}
    return replace(plan, objective=own.get(name, plan.objective))


def neighbours(train: Split, test: Split, z_train: torch.Tensor, z_test: torch.Tensor) -> float:
    """Share of test codes whose class is the most frequent one among their nearest training codes."""
    if train.label is None or test.label is None:
        raise ValueError("labels are needed")
    right = 0
    for rows in torch.arange(len(z_test)).split(500):
        near = torch.cdist(z_test[rows], z_train).topk(NEIGHBOURS, largest=False).indices
        right += int((train.label[near].mode(1).values == test.label[rows]).sum())
    return right / len(z_test)


def measured(model: LatentModel) -> Row:
    data = small()
    train = data.train.head(REFERENCES)
    found = reconstruction(model, data.test)
    z = embed(model, data.test)
    row: Row = {
        "squared_error": (found.squared_error, found.squared_error_se),
        "neighbours": neighbours(train, data.test, embed(model, train), z),
        "spread": float(z.std(0).square().mean().sqrt()),
    }
    if scorable(model, data.test):
        scores = evaluate(model, data.test, samples=SAMPLES)
        row |= {"bound": (scores.elbo, scores.elbo_se), "kl": (scores.rates[0], scores.rates_se[0])}
    return row


def plane(model: LatentModel, n: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    """The decoder over [-2, 2] x [-2, 2]."""
    values = torch.linspace(-2, 2, n)
    with torch.no_grad():
        x = centre(model.trace(given(torch.cartesian_prod(values, values).unsqueeze(0))).px)[0]
    return x.unflatten(0, (n, n)), values


def figures(name: str, row: Row, n: int) -> Row:
    share = row["neighbours"]
    made: Row = {
        f"{name}_squared_error": (*row["squared_error"], "squared grey levels"),
        f"{name}_neighbours": (100 * share, 100 * math.sqrt(share * (1 - share) / n), "%"),
        f"{name}_spread": (row["spread"], None, "units of z"),
    }
    if "bound" in row:
        made |= {f"{name}_bound": (*row["bound"], "nats"), f"{name}_kl": (*row["kl"], "nats")}
    return {key: dict(zip(("value", "error", "unit"), figure, strict=True)) for key, figure in made.items()}


def main() -> None:
    test = small().test
    found: Row = {}
    for name, title in TITLES.items():
        model = trained(f"dense-{name}", partial(recipe, name)).model
        found |= figures(name, once(f"dense-{name}-measured", partial(measured, model)), len(test))
        label = None if test.label is None else test.label[:4000]
        picture(f"dense-{name}", scatter(embed(model, test)[:4000], label=label, title=f"{title}: test images in the latent plane"))
        if name in ("both", "autoencoder"):
            frames, values = plane(model)
            picture(f"dense-{name}-plane", manifold(frames, quantiles=values, title=f"{title}: the decoder over [-2, 2] x [-2, 2]"))
    write(
        "gallery/dense",
        command="python -m benchmarks.gallery.dense",
        seed=0,
        settings={
            "recipes": ["tutorials:dense", "tutorials:autoencoder"],
            "epochs": EPOCHS,
            "samples": SAMPLES,
            "weight": 1.0,
            "neighbours": NEIGHBOURS,
            "references": REFERENCES,
        },
        figures=found,
    )


if __name__ == "__main__":
    run(main)
