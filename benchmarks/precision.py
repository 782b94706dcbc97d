"""Does bfloat16 in the networks change what ``mnist:example`` learns? Its test bound after a compiled run in bf16-mixed, and after a plain
float32 loop that is not compiled, for the same seeds; the bounds themselves are float32 in both. Runs of two seeds differ by a quarter of a
nat, so it takes many to see a tenth.

Run: python -m benchmarks.precision
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch

from benchmarks.gallery.common import once, quick, run, write
from vaekit import fit
from vaekit.evaluate import evaluate
from vaekit.recipes.mnist import example

SEEDS = range(1, 3 if quick else 17)
EPOCHS = 1 if quick else 10
WAYS: dict[str, dict[str, Any]] = {
    "bfloat16": {"precision": "bf16-mixed", "compile": True},
    "float32": {"precision": "32-true", "compile": False},
}


def bound(way: str, seed: int) -> float:
    torch.manual_seed(seed)
    recipe = example(epochs=EPOCHS)
    data = recipe.data()
    fit(recipe.model, data.train, training=replace(recipe.training, seed=seed, **WAYS[way]), progress=False)
    return evaluate(recipe.model, data.test, samples=10).elbo


def main() -> None:
    torch.set_flush_denormal(True)  # as `vaekit train` does
    bounds = {way: [once(f"precision-{way}-{seed}", partial(bound, way, seed)) for seed in SEEDS] for way in WAYS}
    values = {way: torch.tensor(found, dtype=torch.float64) for way, found in bounds.items()}
    values["difference"] = values["bfloat16"] - values["float32"]
    figures: dict[str, dict[str, Any]] = {
        name: {"value": float(t.mean()), "error": float(t.std() / len(t) ** 0.5), "unit": "nats"} for name, t in values.items()
    }
    figures["spread"] = {"value": float(values["float32"].std()), "error": None, "unit": "nats, of single runs"}
    write(
        "precision/mnist-example",
        command="python -m benchmarks.precision",
        seed=list(SEEDS),
        settings={"epochs": EPOCHS, "samples": 10},
        figures=figures,
        published={"difference": {"value": 0.0, "tolerance": 0.1, "direction": "within", "source": "the goal of this comparison"}},
    )


if __name__ == "__main__":
    run(main)
