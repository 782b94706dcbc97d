"""What `benchmarks.counts` does in processes of their own: reading, training, scoring, an epoch; and the seconds of a step.

Memory is the most that a process has held above what it held when all was imported.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from benchmarks.conv_speed import begin, held
from vaekit import commands
from vaekit.data.tables import inspect
from vaekit.dist import counts
from vaekit.evaluate import embed, log_likelihood
from vaekit.recipes import own
from vaekit.train.logs import read_csv
from vaekit.train.step import Step

MAPPED: Literal["NegativeBinomial"] = "NegativeBinomial"
"""The likelihood of which the latents are looked at."""


def reading(path: str) -> dict[str, float]:
    """Memory, MiB: the most held above the start in looking at the file, and what its rows take afterwards."""
    import scipy.sparse  # noqa: F401  (what is imported is not what is read)

    start = begin()
    data = inspect(path).data
    return {"peak": held("VmHWM") - start, "after": held() - start, "rows": len(data.train)}


def training(path: str, likelihood: str, seed: int, samples: int, arguments: dict[str, Any], out: Path) -> dict[str, float]:
    """Train and score one model; log p(x) of the test cells, and what the map needs, go to ``out``."""
    start = begin()
    run = commands.train("own:counts", {"path": path, "likelihood": likelihood, **arguments}, out=out, seed=seed, device="cpu")
    peak = held("VmHWM")
    _, recipe = commands.load(run, device="cpu")
    data = recipe.data()
    found = log_likelihood(recipe.model, data.test, samples=samples)
    np.save(out / "log_px.npy", found.log_px.numpy())
    if likelihood == MAPPED:
        for name in ("train", "valid", "test"):
            np.save(out / f"z-{name}.npy", embed(recipe.model, data.split(name)).numpy())
    ends = [0.0] + [row["seconds"] for row in read_csv(out / "metrics.csv")]
    weights = sum(p.numel() for p in recipe.model.parameters())
    return {
        "seconds": statistics.median(b - a for a, b in pairwise(ends)),
        "epochs": len(ends) - 1,
        "memory": peak - start,
        "weights": weights * 4 / 2**20,
        "mc_error": found.mc_error,
    }


def scoring(run: str, samples: int) -> dict[str, float]:
    """Memory, MiB: the most held above the start in opening a run and scoring its test cells by so many samples."""
    start = begin()
    commands.evaluate(run, samples=samples)
    return {"peak": held("VmHWM") - start}


def one_epoch(path: str) -> dict[str, float]:
    """Memory, MiB: the most held above the start in training for an epoch."""
    start = begin()
    with tempfile.TemporaryDirectory() as folder:
        flags = {"path": path, "likelihood": "Poisson", "epochs": 1}
        commands.train("own:counts", flags, out=f"{folder}/run", device="cpu")
    return {"peak": held("VmHWM") - start}


def steps(path: str, rounds: int) -> dict[str, list[float]]:
    """Seconds of a step, zeros set apart and not, in turn."""
    torch.manual_seed(0)
    recipe = own.counts(path, likelihood=MAPPED)
    data = recipe.data().train
    step, optimiser = Step(recipe.model, recipe.objective), recipe.training.build(recipe.model.parameters())
    found: dict[str, list[float]] = {"apart": [], "dense": []}
    many = counts.MANY
    for number in range(rounds + 1):
        for kind in found:
            counts.MANY = many if kind == "apart" else sys.maxsize
            before = time.perf_counter()
            step(data.batch(torch.arange(128) + number), 0).surrogate.mean().backward()
            optimiser.step()
            optimiser.zero_grad()
            if number:
                found[kind].append(time.perf_counter() - before)
    counts.MANY = many
    return found
