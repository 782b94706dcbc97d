"""Seconds per epoch of ``mnist:example``, through the command line, beside the same network trained by other libraries.

Each round trains every side once, in a process of its own, in an order that turns from round to round: A B C, then C B A. The figure is the
median over all epochs of all rounds but each process's first, which compiles; ratios are those of the medians of one round, and their
median over rounds. vaekit runs with checkpoints, logs and progress as its users have them. Test bounds are with one sample per image;
whether bfloat16 changes them takes more seeds than rounds (`benchmarks.precision`).
Besides: the float32 and bfloat16 matrix products of an epoch alone, in the same rounds.

The peers live in environments of their own: one with JAX and optax, one with torch, pyro-ppl, lightning and pythae.

Run: python -m benchmarks.epoch_speed --jax-python jax/bin/python --peer-python peers/bin/python
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.record import write
from vaekit import commands
from vaekit.data import mnist_grey
from vaekit.matmul import matching_matmul

HERE = Path(__file__).parent
PEERS = {
    "jax": "jax_scan.py",
    "examples": "examples_loop.py",
    "lightning": "lightning_module.py",
    "pyro": "pyro_svi.py",
    "pythae": "pythae_trainer.py",
}
OURS = {"vaekit": (), "vaekit_float32": ("--precision", "32-true")}
STEPS, BATCH = 469, 128
FLOORS = {"default": (torch.float32, False), "onednn": (torch.float32, True), "bfloat16": (torch.bfloat16, False)}
"""By torch's default library; in float32 by oneDNN where that is exact, as `fit` takes them; in bfloat16."""


def floor(dtype: torch.dtype, fastest: bool) -> float:
    """Seconds of one epoch's matrix products, forwards and backwards."""
    shapes = [(784, 400), (400, 40), (20, 400), (400, 784)]
    layers = [(torch.randn(BATCH, n, dtype=dtype), torch.randn(m, n, dtype=dtype), torch.randn(BATCH, m, dtype=dtype)) for n, m in shapes]
    with matching_matmul(torch.device("cpu")) if fastest else nullcontext():
        start = time.perf_counter()
        for _ in range(STEPS):
            for number, (x, w, grad) in enumerate(layers):
                x @ w.mT
                grad.mT @ x
                if number > 0:
                    grad @ w
        return time.perf_counter() - start


def by_command(words: tuple[str, ...], epochs: int, seed: int, out: Path, environment: dict[str, str]) -> dict[str, Any]:
    """One run of ``vaekit train``; the epochs' seconds are those of its own metrics."""
    command = [str(Path(sys.executable).with_name("vaekit")), "train", "mnist:example", "--epochs", str(epochs), "--seed", str(seed)]
    subprocess.run([*command, *words, "--out", str(out)], env=environment, check=True, capture_output=True)
    with (out / "metrics.csv").open(encoding="utf-8") as file:
        ends = [float(row["seconds"]) for row in csv.DictReader(file)]
    seconds = [b - a for a, b in zip([0.0, *ends], ends, strict=False)]
    return {"seconds": seconds, "bound": commands.evaluate(out, samples=1).elbo, "version": f"torch {torch.__version__}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jax-python", required=True, help="the interpreter of an environment with jax and optax")
    parser.add_argument("--peer-python", required=True, help="the interpreter of one with torch, pyro-ppl, lightning and pythae")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="sides to run, with commas between; by default all, and only then a record is written")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    environment = os.environ | {"OMP_NUM_THREADS": str(given.threads), "JAX_PLATFORMS": "cpu"}
    sides = given.only.split(",") if given.only else [*OURS, *PEERS]
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    floors: dict[str, list[float]] = {name: [] for name in FLOORS}
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        path, data = Path(folder) / "mnist.npz", mnist_grey()
        splits = {"train": data.train, "test": data.test}
        arrays = {name: split.batch(torch.arange(len(split))).x.flatten(1).numpy() for name, split in splits.items()}
        np.savez(path, allow_pickle=False, **arrays)
        for number in range(given.rounds):
            for side in sides if number % 2 == 0 else sides[::-1]:
                if side in OURS:
                    answer = by_command(OURS[side], given.epochs, number + 1, Path(folder) / f"{side}-{number}", environment)
                else:
                    python = given.jax_python if side == "jax" else given.peer_python
                    command = [python, str(HERE / "peers" / PEERS[side]), str(path), str(given.epochs), str(number + 1)]
                    done = subprocess.run(
                        command, env=environment, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
                    )
                    answer = json.loads(done.stdout.splitlines()[-1])
                found[side].append(answer)
                print(number, side, [round(s, 3) for s in answer["seconds"]], round(answer["bound"], 2), flush=True)
            for name, (dtype, fastest) in FLOORS.items():
                floors[name].append(floor(dtype, fastest))
    figures: dict[str, dict[str, Any]] = {}
    middle = {side: [statistics.median(a["seconds"][1:]) for a in answers] for side, answers in found.items()}
    for side, answers in found.items():
        every = [s for a in answers for s in a["seconds"][1:]]
        figures[f"{side}_seconds"] = spread(every) | {"unit": "s per epoch"}
        first = statistics.median(a["seconds"][0] for a in answers) - statistics.median(every)
        figures[f"{side}_first"] = {"value": first, "error": None, "unit": "s more in the first epoch"}
        figures[f"{side}_bound"] = spread([a["bound"] for a in answers]) | {"unit": "nats"}
    for name, values in floors.items():
        figures[f"floor_{name}_seconds"] = spread(values) | {"unit": "s per epoch"}
    for side in sides:
        for ours in OURS:
            if ours in middle and side != ours:
                ratios = [a / b for a, b in zip(middle[ours], middle[side], strict=True)]
                figures[f"{ours}_to_{side}"] = spread(ratios) | {"unit": "of its time"}
    print(json.dumps(figures, indent=2))
    if given.only:
        return
    mean = {side: statistics.fmean(a["bound"] for a in found[side]) for side in ("vaekit", "examples")}
    errors = [statistics.stdev(a["bound"] for a in found[side]) / given.rounds**0.5 for side in ("vaekit", "examples")]
    figures["bound_difference"] = {"value": mean["vaekit"] - mean["examples"], "error": sum(e**2 for e in errors) ** 0.5, "unit": "nats"}
    goal = "the goal of this comparison"
    write(
        "epoch_speed/mnist-example",
        command="python -m benchmarks.epoch_speed --jax-python PYTHON --peer-python PYTHON",
        seed=1,
        settings={
            **{name: getattr(given, name) for name in ("rounds", "epochs", "threads")},
            **{side: answers[0]["version"] for side, answers in found.items()},
            "load_before": load,
        },
        figures=figures,
        published={
            "vaekit_to_pythae": {"value": 0.25, "tolerance": 0.0, "direction": "at_most", "source": goal},
            "vaekit_to_pyro": {"value": 0.25, "tolerance": 0.0, "direction": "at_most", "source": goal},
            "vaekit_to_jax": {"value": 0.9, "tolerance": 0.0, "direction": "at_most", "source": goal},
        },
    )


def spread(values: list[float]) -> dict[str, float]:
    """Median, and half the distance between the quartiles as its error."""
    low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else (values[0],) * 3
    return {"value": statistics.median(values), "error": (high - low) / 2}


if __name__ == "__main__":
    main()
