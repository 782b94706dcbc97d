"""Time of an IWAE training step at K = 50 beside that of its matrix products alone, and its peak memory.

``mnist:iwae`` (784-200-200-50, batch 20, dynamic binarisation) in float32 as `fit` trains it, compiled as in a full run. Each
round is a process of its own: epochs of 100 steps, the first of which compiles and is left out, and between each two of them the products
of a step, forwards and backwards, as `fit` takes them: by oneDNN where that is exact (`vaekit.matmul`), the fastest products of the machine
that are exact to float32. An epoch's ratio is to the mean of the products before and after it, a round's is the median over its epochs. At
the end the same products are timed by torch's default library.

Run: python -m benchmarks.iwae_training
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch

from benchmarks.conv_speed import held
from benchmarks.epoch_speed import spread
from benchmarks.record import write
from vaekit import fit
from vaekit.recipes import mnist
from vaekit.train.logs import Logger

K, BATCH, STEPS = 50, 20, 100
ENCODER, DECODER = [(784, 200), (200, 200), (200, 100)], [(50, 200), (200, 200), (200, 784)]


def floor() -> float:
    """Seconds of one step's matrix products, as torch is set."""
    layers = []
    for shapes, rows in ((ENCODER, BATCH), (DECODER, BATCH * K)):
        layers += [(torch.randn(rows, n), torch.randn(m, n), torch.randn(rows, m), (n, m) != ENCODER[0]) for n, m in shapes]
    times = []
    for _ in range(STEPS):
        start = time.perf_counter()
        for x, w, grad, passes_on in layers:
            x @ w.mT
            grad.mT @ x
            if passes_on:
                grad @ w
        times.append(time.perf_counter() - start)
    return statistics.median(times)


class Turns(Logger):
    """Takes the seconds of each epoch and, before the next one begins, those of the products. Noise goes on as if it had not been there."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.floors: list[float] = []

    def begin(self, step: int) -> None:
        self.start = time.perf_counter()

    def log(self, row: Mapping[str, float]) -> None:
        self.steps.append((time.perf_counter() - self.start) / STEPS)
        with torch.random.fork_rng(devices=[]):
            self.floors.append(floor())
        self.start = time.perf_counter()

    def close(self) -> None:
        """Nothing is open."""


def measured(seed: int, epochs: int) -> dict[str, float]:
    torch.set_flush_denormal(True)  # as `vaekit train` does
    torch.manual_seed(seed)
    recipe, turns = mnist.iwae(k=K, batch_size=BATCH), Turns()
    rows = recipe.data().train.head(BATCH * STEPS)
    training = replace(recipe.training, epochs=epochs, seed=seed, compile=True)
    with tempfile.TemporaryDirectory() as out:
        fit(recipe.model, rows, objective=recipe.objective, training=training, out=out, progress=False, loggers=[turns])
    memory = held("VmHWM")
    ratios = [2 * step / (a + b) for step, (a, b) in zip(turns.steps[1:], pairwise(turns.floors), strict=True)]
    medians = {"step": turns.steps[1:], "floor": turns.floors, "ratio": ratios}
    return {name: statistics.median(values) for name, values in medians.items()} | {"memory": memory, "floor_default": floor()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)  # one round, in a process of its own
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.seed is not None:
        print(json.dumps(measured(given.seed, given.epochs)))
        return
    load, answers = os.getloadavg()[0], []
    for number in range(given.rounds):
        command = [sys.executable, "-m", "benchmarks.iwae_training", "--epochs", str(given.epochs), "--threads", str(given.threads)]
        environment = os.environ | {"OMP_NUM_THREADS": str(given.threads)}
        done = subprocess.run([*command, "--seed", str(number)], env=environment, check=True, stdout=subprocess.PIPE, text=True)
        answers.append(json.loads(done.stdout.splitlines()[-1]))
        print(answers[-1], flush=True)
    figures: dict[str, dict[str, Any]] = {
        "step": spread([1e3 * a["step"] for a in answers]) | {"unit": "ms"},
        "floor": spread([1e3 * a["floor"] for a in answers]) | {"unit": "ms"},
        "floor_default": spread([1e3 * a["floor_default"] for a in answers]) | {"unit": "ms"},
        "ratio": spread([a["ratio"] for a in answers]) | {"unit": "of the products' time"},
        "memory": spread([a["memory"] for a in answers]) | {"unit": "MiB"},
    }
    print(json.dumps(figures, indent=2))
    write(
        "iwae_speed/training",
        command="python -m benchmarks.iwae_training",
        seed=list(range(given.rounds)),
        settings={"k": K, "batch": BATCH, "load_before": load} | {name: getattr(given, name) for name in ("rounds", "epochs", "threads")},
        figures=figures,
        published={"ratio": {"value": 1.5, "tolerance": 0.0, "direction": "at_most", "source": "the goal of this comparison"}},
    )


if __name__ == "__main__":
    main()
