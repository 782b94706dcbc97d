"""Training on rows in memory, on the same rows in a file, and on the same batches from a loader; and on a file of 20 GB.

The network and settings of ``mnist:example``, binarised anew at every read, on random bytes: what is learnt does not matter here. Each
round trains each side once, in a process of its own and in an order that turns from round to round; the figure is the median over all
epochs but each process's first, ratios are those of the medians of one round. The three must end with the same training bound. The loader
gives the rows of memory in the order of `fit`, gathered in its thread. Memory is VmHWM of each process.

With ``--large FOLDER`` a file of 20 GB of random bytes is written there, trained on for ``--minutes``, and removed.

Run: python -m benchmarks.disk_speed [--large FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.epoch_speed import spread
from benchmarks.record import write
from vaekit import fit
from vaekit.data import Split, Stream, arrays, bernoulli, binarise, on_disk
from vaekit.recipes.mnist import example
from vaekit.train import Interrupted
from vaekit.train.run import permutation

SHAPE, HELD, BLOCK = (1, 28, 28), 1000, 100_000
SIDES = ("memory", "file", "loader")
LARGE = 20_000_000_000


def rows_file(path: Path, rows: int) -> None:
    """Random bytes, written block by block."""
    draw = np.random.Generator(np.random.SFC64(0))
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (rows, *SHAPE)})
        for start in range(0, rows, BLOCK):
            file.write(draw.bytes(min(BLOCK, rows - start) * 784))


def memory() -> dict[str, float]:
    """Peak and present resident memory of this process, MB."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return {name: int(text.split(f"{name}:")[1].split()[0]) * 1024 / 1e6 for name in ("VmHWM", "VmRSS")}


def train(side: str, path: Path, epochs: int, minutes: float | None) -> dict[str, Any]:
    """One run: seconds of each epoch or steps done in so many minutes, memory, the last training bound."""
    torch.set_flush_denormal(True)  # as the command line does
    torch.manual_seed(0)
    warnings.simplefilter("ignore")  # of latents that collapse: random bytes have none
    recipe = example()
    training = replace(recipe.training, epochs=epochs)
    data = binarise(arrays(np.load(path), valid=0, test=HELD) if side != "file" else on_disk(path, valid=0, test=HELD))
    given: Split | Stream = data.train
    if side == "loader":
        x = data.train.pick(torch.arange(len(data.train))).x

        def batches(epoch: int) -> Iterator[Tensor]:
            return (x[index] for index in permutation(len(x), training.seed, epoch).split(training.batch_size))

        given = Stream(batches, batches=-(-len(x) // training.batch_size), prepare=bernoulli)
    if minutes is not None:
        threading.Timer(60 * minutes, os.kill, (os.getpid(), signal.SIGINT)).start()
    start = time.perf_counter()
    try:
        history = fit(recipe.model, given, objective=recipe.objective, training=training, progress=False).history
    except Interrupted as stop:
        return memory() | {"steps": stop.step, "seconds": time.perf_counter() - start}
    ends = [row["seconds"] for row in history]
    return memory() | {"seconds": [b - a for a, b in zip([0.0, *ends], ends, strict=False)], "bound": history[-1]["train/bound"]}


def apart(side: str, path: Path, epochs: int, threads: int, minutes: float | None = None) -> dict[str, Any]:
    """`train` in a fresh process, whose peak of memory is its own."""
    words = [side, str(path), str(epochs), *([] if minutes is None else [str(minutes)])]
    command = [sys.executable, "-m", "benchmarks.disk_speed", "--child", *words]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": str(threads)}, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def large(folder: Path, minutes: float, threads: int) -> dict[str, Any]:
    """Memory and steps of a run on 20 GB."""
    free = shutil.disk_usage(folder).free
    if free < 1.1 * LARGE:
        raise SystemExit(f"{folder} has {free / 1e9:.0f} GB left and {1.1 * LARGE / 1e9:.0f} are needed: choose another folder")
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        path = Path(scratch) / "large.npy"
        rows_file(path, LARGE // 784 + 1)
        return apart("file", path, 1, threads, minutes) | {"bytes": path.stat().st_size}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=3.0, help="of training on 20 GB")
    parser.add_argument("--large", type=Path, help="a folder with 22 GB to spare; by default only the rates are measured, without a record")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        side, path, epochs, *minutes = given.child
        print(json.dumps(train(side, Path(path), int(epochs), float(minutes[0]) if minutes else None)))
        return
    load = os.getloadavg()[0]
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.npy"
        rows_file(path, given.rows)
        for number in range(given.rounds):
            for side in SIDES if number % 2 == 0 else SIDES[::-1]:
                answer = apart(side, path, given.epochs, given.threads)
                found[side].append(answer)
                print(number, side, [round(s, 3) for s in answer["seconds"]], answer["bound"], round(answer["VmHWM"]), flush=True)
    if len({answer["bound"] for answers in found.values() for answer in answers}) != 1:
        raise SystemExit("the sides have not trained alike: their last training bounds differ")
    middle = {side: [statistics.median(a["seconds"][1:]) for a in answers] for side, answers in found.items()}
    figures: dict[str, dict[str, Any]] = {}
    for side, answers in found.items():
        figures[f"{side}_seconds"] = spread([s for a in answers for s in a["seconds"][1:]]) | {"unit": "s per epoch"}
        figures[f"{side}_memory"] = spread([a["VmHWM"] for a in answers]) | {"unit": "MB"}
        if side != "memory":
            rates = [a / b for a, b in zip(middle["memory"], middle[side], strict=True)]
            figures[f"{side}_rate"] = spread(rates) | {"unit": "of the rate in memory"}
    if given.large is None:
        print(json.dumps(figures, indent=2))
        return
    big = large(given.large, given.minutes, given.threads)
    figures["large_memory"] = {"value": big["VmHWM"], "error": None, "unit": "MB"}
    figures["large_steps"] = {"value": big["steps"], "error": None, "unit": "steps"}
    figures["large_bytes"] = {"value": big["bytes"], "error": None, "unit": "bytes"}
    print(json.dumps(figures, indent=2))
    goal = "the goal of this comparison"
    rate, small = ({"value": v, "tolerance": 0.0, "direction": d, "source": goal} for v, d in ((0.9, "at_least"), (2000, "at_most")))
    write(
        "disk_speed/mnist-example",
        command="python -m benchmarks.disk_speed --large FOLDER",
        seed=0,
        settings={name: getattr(given, name) for name in ("rounds", "epochs", "rows", "threads", "minutes")} | {"load_before": load},
        figures=figures,
        published={"file_rate": rate, "loader_rate": rate, "large_memory": small},
    )


if __name__ == "__main__":
    main()
