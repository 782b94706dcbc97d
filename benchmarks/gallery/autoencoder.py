"""A plain autoencoder and a VAE of the same network: continuity and completeness of their latent spaces, three seeds each.

Run: python -m benchmarks.gallery.autoencoder
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch

from benchmarks.gallery.common import once, picture, quick, run, trained, write
from vaekit.data import mnist_grey
from vaekit.data.core import DataSet
from vaekit.evaluate import classifier, completeness, continuity, embed, gaussian_fit, interpolate, reconstruction
from vaekit.models import LatentModel
from vaekit.recipes import tutorials
from vaekit.recipes.core import Recipe
from vaekit.types import Batch
from vaekit.viz import sheet, strips

SEEDS = [0, 1, 2]
LATENTS = (2, 16)
KINDS: dict[str, Callable[..., Recipe]] = {"autoencoder": tutorials.autoencoder, "vae": tutorials.dense}
EPOCHS, SAMPLES, SEGMENTS = (1, 500, 20) if quick else (5, 10_000, 500)
SHOWN = 16  # latent dimensions of the pictures
Row = dict[str, Any]


def small() -> DataSet:
    data = mnist_grey()
    return DataSet(data.name, train=data.train.head(1500), test=data.test.head(400), label_names=data.label_names) if quick else data


def recipe(kind: str, latent: int) -> Recipe:
    return replace(KINDS[kind](latent=latent, epochs=EPOCHS), data=small)


def measured(model: LatentModel, judge: Any, seed: int) -> Row:
    data = small()
    codes = embed(model, data.test)
    samples = partial(completeness, model, judge, samples=SAMPLES, seed=seed)
    prior, fitted = samples(), samples(latents=gaussian_fit(embed(model, data.train)))
    return {
        "prior": (prior.share, prior.variety),
        "fitted": (fitted.share, fitted.variety),
        "path": asdict(continuity(model, segments=SEGMENTS, ends=codes, seed=seed)),
        "prior_path": asdict(continuity(model, segments=SEGMENTS, seed=seed)),
        "squared_error": reconstruction(model, data.test).squared_error,
        "spread": float(codes.std(0).square().mean().sqrt()),
    }


def over_seeds(values: list[float], unit: str) -> Row:
    return {"value": statistics.mean(values), "error": statistics.stdev(values) / len(values) ** 0.5, "unit": unit}


def figures(name: str, rows: list[Row]) -> Row:
    step = "pixel distance per unit of z"
    return {
        f"{name}_complete": over_seeds([100 * row["prior"][0] for row in rows], "% of samples"),
        f"{name}_variety": over_seeds([row["prior"][1] for row in rows], "classes"),
        f"{name}_complete_fitted": over_seeds([100 * row["fitted"][0] for row in rows], "% of samples"),
        f"{name}_variety_fitted": over_seeds([row["fitted"][1] for row in rows], "classes"),
        f"{name}_mean": over_seeds([row["path"]["mean"] for row in rows], step),
        f"{name}_median": over_seeds([row["path"]["quantiles"][0] for row in rows], step),
        f"{name}_99": over_seeds([row["path"]["quantiles"][2] for row in rows], step),
        f"{name}_largest": over_seeds([row["path"]["largest"] for row in rows], step),
        f"{name}_peak": over_seeds([row["path"]["peak"] for row in rows], "times the mean step"),
        f"{name}_scaled": over_seeds([row["path"]["largest"] * row["spread"] for row in rows], "pixel distance per spread of the codes"),
        f"{name}_prior_largest": over_seeds([row["prior_path"]["largest"] for row in rows], step),
        f"{name}_prior_peak": over_seeds([row["prior_path"]["peak"] for row in rows], "times the mean step"),
        f"{name}_squared_error": over_seeds([row["squared_error"] for row in rows], "squared grey levels"),
        f"{name}_spread": over_seeds([row["spread"] for row in rows], "units of z"),
    }


def pictures(kind: str, model: LatentModel) -> None:
    test = small().test
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        name = "the autoencoder" if kind == "autoencoder" else "the VAE"
        picture(f"autoencoder-{kind}-samples", sheet(model.sample(48), columns=12, title=f"Decoded z ~ N(0, I) by {name}"))
    a, b = (test.batch(torch.arange(start, 10, 2)) for start in (0, 1))
    frames = torch.cat([a.x.unsqueeze(1), interpolate(model, Batch(a.x), Batch(b.x)).x, b.x.unsqueeze(1)], 1)
    picture(f"autoencoder-{kind}-lines", strips(frames, title=f"Straight lines between codes of {name}"))


def main() -> None:
    judge = classifier(small(), epochs=1 if quick else 3)
    print(
        f"classifier: {judge.accuracy:.4f} right, calibration error {judge.calibration:.4f}, T = {float(judge.temperature):.3f}", flush=True
    )
    found: Row = {}
    for latent in LATENTS:
        for kind in KINDS:
            rows = []
            for seed in SEEDS:
                name = f"autoencoder-{kind}-{latent}-{seed}"
                model = trained(name, partial(recipe, kind, latent), seed).model
                rows.append(once(f"{name}-measured", partial(measured, model, judge, seed)))
                if latent == SHOWN and seed == SEEDS[0]:
                    pictures(kind, model)
            found |= figures(f"{kind}_{latent}", rows)
    write(
        "gallery/autoencoder",
        command="python -m benchmarks.gallery.autoencoder",
        seed=SEEDS,
        settings={
            "recipes": ["tutorials:autoencoder", "tutorials:dense"],
            "epochs": EPOCHS,
            "samples": SAMPLES,
            "segments": SEGMENTS,
            "steps": 100,
            "level": 0.95,
        },
        figures=found
        | {
            "accuracy": {"value": 100 * judge.accuracy, "error": 100 * judge.accuracy_se, "unit": "%"},
            "calibration": {"value": 100 * judge.calibration, "error": None, "unit": "%"},
            "uncalibrated": {"value": 100 * judge.uncalibrated, "error": None, "unit": "%"},
            "temperature": {"value": float(judge.temperature), "error": None, "unit": "T"},
            "threshold": {"value": judge.threshold(0.95), "error": None, "unit": "confidence"},
        },
    )


if __name__ == "__main__":
    run(main)
