"""The Frey faces of `benchmarks.gallery.aevb` with the decoder of the authors' code: a variance for each pixel beside a uniform density.

Run: python -m benchmarks.gallery.aevb_contaminated
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from benchmarks.gallery.aevb import PUBLISHED, SOURCE, TOLERANCE, choose, curve, tested
from benchmarks.gallery.common import once, quick, run, series, write

NAME = "contaminated"
FIRST = 1_000_000  # after fewer, the largest step size leads: it is the first to reach the plateau that it never leaves
SEEDS = range(1 if quick else 5)


def mean(values: list[float]) -> dict[str, Any]:
    """Their mean with its standard error over the splits."""
    t = torch.tensor(values, dtype=torch.float64)
    return {"value": float(t.mean()), "error": float(t.std() / len(t) ** 0.5) if len(t) > 1 else None, "unit": "nats"}


def main() -> None:
    lr = choose(NAME, FIRST)
    finals, curves = [], []
    for seed in SEEDS:
        fitted, points = curve(NAME, lr, 10**7, seed)
        finals.append(once(f"aevb-{NAME}-tested-{seed}", partial(tested, NAME, fitted, seed)))
        curves.append(points)
    early = [min(points, key=lambda row: abs(row[0] - 10**6))[2] for points in curves]
    stride = max(1, len(curves[0]) // 200)
    series(f"aevb-{NAME}", dict(zip(("samples", "train", "test"), map(list, zip(*curves[0][::stride], strict=True)), strict=True)))
    goal = {"value": PUBLISHED["freyfaces", 10**7], "tolerance": TOLERANCE["freyfaces"], "direction": "within", "source": SOURCE}
    write(
        "gallery/aevb_contaminated",
        command="python -m benchmarks.gallery.aevb_contaminated",
        seed=list(SEEDS),
        settings={"samples": 10**7, "step size": lr, "step size chosen after": FIRST, "latent": 10, "initial scale": 0.01},
        figures={
            "freyfaces_1e6": mean(early),
            "freyfaces_1e7": mean([final["bound"] for final in finals]),
            "freyfaces_train": mean([final["train"] for final in finals]),
            "freyfaces_log_px": mean([final["log_px"] for final in finals]),
        },
        published={"freyfaces_1e7": goal},
    )


if __name__ == "__main__":
    run(main)
