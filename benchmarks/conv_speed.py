"""Seconds per epoch and peak memory of the convolutional and the ResNet recipes, beside a plain PyTorch loop on the same network.

The plain loop is float32: the same model and objective on the same rows, `torch.optim.Adam` as it comes, backward, step, and the loss read
at each step. vaekit trains with its defaults for the recipe's full length (precision, compiling), with checkpoints and logs into a folder.
Each round trains both sides once, in a process of its own, A B then B A; a figure is the median over the epochs of all rounds but each
process's first, which compiles. Epochs are over the first rows of the training set; the ResNet is the narrow one of its page.

Memory is resident memory (VmRSS, and VmHWM for the most since the start), and both sides start alike: torch, vaekit, its recipes and
torch's optimisers imported, model and data made, and the peak of making them forgotten. "memory" is the most that the process then held,
all in all, and "above" that less what it held at the start, so that all that training brings in counts. A process of its own compiles the
step, for some ten seconds of the first round (later ones find it in the cache); the most that it or one that it starts (g++) held is apart,
as "compiling".

Run: python -m benchmarks.conv_speed; its memory alone, in a short run: --only RECIPE --rounds 1 --epochs 2 --rows 1280
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
import warnings
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from benchmarks.epoch_speed import spread
from benchmarks.record import write
from vaekit import fit
from vaekit.recipes import cifar10, sprites, vq
from vaekit.recipes.core import Recipe
from vaekit.train.engine import worth_compiling
from vaekit.train.run import permutation
from vaekit.train.step import Step

RECIPES: dict[str, tuple[Callable[[], Recipe], int]] = {
    "sprites:beta_tc": (sprites.beta_tc, 4916),
    "vq:cifar10": (vq.cifar10, 1024),
    "cifar10:resnet": (lambda: cifar10.resnet(width=16), 1024),
}
"""Recipe and rows of an epoch."""


def held(name: str = "VmRSS") -> float:
    """The memory that this process holds, MiB; ``VmHWM``: the most that it has held."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:")]
    return int(line.split()[1]) / 1024


def begin() -> float:
    """What this process holds where both sides begin, MiB; the most that it has held is counted from here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an optimiser that has no gradients
        torch.optim.Adam([torch.zeros(1, requires_grad=True)]).step()  # brings in what every optimiser of torch does at its first step
    Path("/proc/self/clear_refs").write_text("5")
    return held()


def ours(name: str, rows: int, epochs: int, seed: int) -> tuple[list[float], float]:
    """Seconds of each epoch of ``fit``, and MiB at its start."""
    torch.manual_seed(seed)
    recipe = RECIPES[name][0]()
    data = recipe.data()
    steps = recipe.training.epochs * -(-len(data.train) // recipe.training.batch_size)
    training = recipe.training.resolved()
    compiled = worth_compiling(training, Step(recipe.model, recipe.objective), torch.device("cpu"), steps)
    training = replace(training, epochs=epochs, seed=seed, compile=compiled)
    split, start = data.train.head(rows), begin()
    with tempfile.TemporaryDirectory() as out:
        history = fit(recipe.model, split, objective=recipe.objective, training=training, out=out, progress=False).history
    ends = [0.0] + [row["seconds"] for row in history]
    return [b - a for a, b in pairwise(ends)], start


def plain(name: str, rows: int, epochs: int, seed: int) -> tuple[list[float], float]:
    """The same of a loop as one writes it."""
    torch.manual_seed(seed)
    recipe = RECIPES[name][0]()
    data, model, objective = recipe.data(), recipe.model, recipe.objective
    split, begun = data.train.head(rows), begin()
    model.train()
    lr = recipe.training.build(recipe.model.parameters()).param_groups[0]["lr"]
    optimiser = torch.optim.Adam(model.parameters(), lr=lr)
    seconds = []
    for epoch in range(epochs):
        before, total = time.perf_counter(), 0.0
        for index in permutation(rows, seed, epoch).split(recipe.training.batch_size):
            optimiser.zero_grad()
            loss = objective(model, split.batch(index)).surrogate.mean()
            loss.backward()
            optimiser.step()
            total += loss.item()
        seconds.append(time.perf_counter() - before)
    return seconds, begun


SIDES: dict[str, Callable[[str, int, int, int], tuple[list[float], float]]] = {"vaekit": ours, "plain": plain}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="one recipe; no record is written")
    parser.add_argument("--rows", type=int, help="of an epoch, where not as many as usual")
    parser.add_argument("--side", nargs=3, help=argparse.SUPPRESS)  # side, recipe, seed: what a process of a round does
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.side:
        side, name, seed = given.side
        seconds, start = SIDES[side](name, given.rows or RECIPES[name][1], given.epochs, int(seed))
        peak = held("VmHWM")
        compiling = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(json.dumps({"seconds": seconds, "peak": peak, "above": peak - start, "compiling": compiling}))
        return
    environment = os.environ | {"OMP_NUM_THREADS": str(given.threads)}
    names = [given.only] if given.only else list(RECIPES)
    load = os.getloadavg()[0]
    figures: dict[str, dict[str, Any]] = {}
    for name in names:
        found: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
        for number in range(given.rounds):
            for side in list(SIDES)[:: 1 if number % 2 == 0 else -1]:
                command = [sys.executable, "-m", "benchmarks.conv_speed", "--epochs", str(given.epochs), "--threads", str(given.threads)]
                command += ["--rows", str(given.rows)] if given.rows else []
                done = subprocess.run(
                    [*command, "--side", side, name, str(number + 1)], env=environment, check=True, stdout=subprocess.PIPE, text=True
                )
                answer = json.loads(done.stdout.splitlines()[-1])
                found[side].append(answer)
                print(
                    number, name, side, [round(s, 2) for s in answer["seconds"]], round(answer["peak"]), round(answer["above"]), flush=True
                )
        short = name.replace(":", "_")
        for side, answers in found.items():
            figures[f"{short}_{side}_seconds"] = spread([s for a in answers for s in a["seconds"][1:]]) | {"unit": "s per epoch"}
            figures[f"{short}_{side}_memory"] = spread([a["peak"] for a in answers]) | {"unit": "MiB"}
            figures[f"{short}_{side}_above"] = spread([a["above"] for a in answers]) | {"unit": "MiB above the start"}
        compiling = max(a["compiling"] for a in found["vaekit"])
        figures[f"{short}_vaekit_compiling"] = {"value": compiling, "error": None, "unit": "MiB of another process, while it compiles"}
        middle = {side: [statistics.median(a["seconds"][1:]) for a in answers] for side, answers in found.items()}
        ratios = [a / b for a, b in zip(middle["vaekit"], middle["plain"], strict=True)]
        figures[f"{short}_ratio"] = spread(ratios) | {"unit": "of its time"}
        memory = [a["above"] / b["above"] for a, b in zip(found["vaekit"], found["plain"], strict=True)]
        figures[f"{short}_memory_ratio"] = spread(memory) | {"unit": "of its memory, above the start"}
        processes = [a["peak"] / b["peak"] for a, b in zip(found["vaekit"], found["plain"], strict=True)]
        figures[f"{short}_process_ratio"] = spread(processes) | {"unit": "of its process"}
    print(json.dumps({name: value for name, value in figures.items() if "ratio" in name}, indent=2))
    if given.only or given.rows:
        return
    goal = "the goal of this comparison"
    published = {}
    for name in names:
        short = name.replace(":", "_")
        published[f"{short}_ratio"] = {"value": 0.8, "tolerance": 0.0, "direction": "at_most", "source": goal}
        published[f"{short}_memory_ratio"] = {"value": 1.0, "tolerance": 0.02, "direction": "at_most", "source": goal}
    write(
        "conv_speed/recipes",
        command="python -m benchmarks.conv_speed",
        seed=1,
        settings={**{name: getattr(given, name) for name in ("rounds", "epochs", "threads")}, "load_before": load},
        figures=figures,
        published=published,
    )


if __name__ == "__main__":
    main()
