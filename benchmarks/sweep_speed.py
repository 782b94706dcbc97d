"""Ten seeds of ``mnist:example`` as one sweep, beside ten runs in turn: both through the command line, as a person runs them.

Each round runs both sides, in an order that turns from round to round: A B, then B A. A side's figure is the wall time from its first
process's start to its last one's end, compiling, checkpoints, logs and reading the data included; programs come from torch's cache on disk
in all processes but the very first. Besides: the processor time of each side, which other work on the machine disturbs less; the seconds of
an epoch of one model once everything is compiled, from the runs' own metrics; and the largest difference between a cell's last training
bound and its run's, which is what rounding has made of equal noise after so many steps (for float error as such see the tests, over a few
steps).

Run: python -m benchmarks.sweep_speed
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.epoch_speed import spread
from benchmarks.record import write
from vaekit.train import read_csv

CODE = "import sys; from vaekit.cli import main; sys.exit(main())"
QUICK = """
from dataclasses import replace
from vaekit import Recipe, data
from vaekit.data.core import DataSet
from vaekit.recipes.mnist import example

def rows() -> DataSet:
    full = data.mnist_grey()
    return DataSet("mnist", train=full.train.head(12_800), test=full.test.head(1000))

def quick(epochs: int = 6) -> Recipe:
    recipe = example(epochs=epochs)
    return Recipe(recipe.model, rows, recipe.objective, replace(recipe.training, compile=True))
"""


def vaekit(*words: str, environment: dict[str, str]) -> None:
    subprocess.run([sys.executable, "-c", CODE, *words], check=True, capture_output=True, env=environment)


def in_turn(recipe: str, epochs: int, seeds: int, out: Path, environment: dict[str, str]) -> tuple[float, list[Path]]:
    runs = [out / f"seed-{seed}" for seed in range(seeds)]
    start = time.perf_counter()
    for seed, run in enumerate(runs):
        vaekit("train", recipe, "--epochs", str(epochs), "--seed", str(seed), "--out", str(run), environment=environment)
    return time.perf_counter() - start, runs


def as_sweep(recipe: str, epochs: int, seeds: int, out: Path, environment: dict[str, str]) -> tuple[float, list[Path]]:
    start = time.perf_counter()
    vaekit("sweep", recipe, "--epochs", str(epochs), "--seed", f"0..{seeds - 1}", "--out", str(out), environment=environment)
    return time.perf_counter() - start, [out / f"seed-{seed}" for seed in range(seeds)]


def processor_seconds() -> float:
    """Of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def epoch_seconds(runs: list[Path]) -> list[float]:
    """Of each run's epochs but its first, in which the program may be made."""
    ends = [[row["seconds"] for row in read_csv(run / "metrics.csv")] for run in runs]
    return [b - a for times in ends for a, b in pairwise(times)]


def bound_difference(runs: list[Path], others: list[Path]) -> float:
    """The largest of the last epoch's training bounds."""
    ends = [[read_csv(run / "metrics.csv")[-1]["train/bound"] for run in side] for side in (runs, others)]
    return max(abs(a - b) for a, b in zip(*ends, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=5)  # of fewer, single runs do not compile
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a few rows and seeds, one round, no record")
    given = parser.parse_args()
    environment = os.environ | {"OMP_NUM_THREADS": str(given.threads)}
    sides: dict[str, Any] = {"turn": in_turn, "sweep": as_sweep}
    total: dict[str, list[float]] = {side: [] for side in sides}
    epoch: dict[str, list[float]] = {side: [] for side in sides}
    processor: dict[str, list[float]] = {side: [] for side in sides}
    apart: list[float] = []
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        recipe, rounds, epochs, seeds = "mnist:example", given.rounds, given.epochs, given.seeds
        if given.quick:
            file = Path(folder) / "quick.py"
            file.write_text(QUICK)
            recipe, rounds, epochs, seeds = str(file), 1, 6, 3
        for number in range(rounds):
            runs = {}
            for side in sides if number % 2 == 0 else list(sides)[::-1]:
                before = processor_seconds()
                seconds, runs[side] = sides[side](recipe, epochs, seeds, Path(folder) / f"{side}-{number}", environment)
                total[side].append(seconds)
                processor[side].append(processor_seconds() - before)
                epoch[side].append(statistics.median(epoch_seconds(runs[side])))
                print(
                    number,
                    side,
                    f"{seconds:.1f} s, {processor[side][-1]:.1f} s of processors, {epoch[side][-1]:.3f} s an epoch",
                    flush=True,
                )
            apart.append(bound_difference(runs["sweep"], runs["turn"]))
    figures: dict[str, dict[str, Any]] = {f"{side}_seconds": spread(values) | {"unit": "s"} for side, values in total.items()}
    figures |= {f"{side}_processor": spread(values) | {"unit": "s of processors"} for side, values in processor.items()}
    figures |= {f"{side}_epoch": spread(values) | {"unit": "s per epoch of a model"} for side, values in epoch.items()}
    for name, of in (("ratio", total), ("processor_ratio", processor), ("epoch_ratio", epoch)):
        figures[name] = spread([a / b for a, b in zip(of["sweep"], of["turn"], strict=True)]) | {"unit": "of its time"}
    figures["bound_difference"] = {"value": max(apart), "error": None, "unit": "nats"}
    print(json.dumps(figures, indent=2))
    if given.quick:
        return
    write(
        "sweep_speed/mnist-example",
        command=f"python -m benchmarks.sweep_speed --rounds {given.rounds} --epochs {given.epochs}",
        seed=list(range(given.seeds)),
        settings={name: getattr(given, name) for name in ("rounds", "epochs", "seeds", "threads")} | {"load_before": load},
        figures=figures,
        published={
            "ratio": {"value": 1.0, "tolerance": 0.0, "direction": "at_most", "source": "the goal of this comparison"},
        },
    )


if __name__ == "__main__":
    main()
