"""On a GPU: steps per second of ``mnist:example``, 64 models in one sweep against one, and IWAE-5000 of the MNIST test set.

Each round trains every side once, in an order that turns from round to round; the figure is the median over the epochs of all rounds but
each process's first. JAX trains a whole epoch as one jitted scan on the same card, pythae by its own trainer (its script asks for the
processor: ``no_cuda`` is taken out here). A side whose interpreter is not given is left out, and the record says which sides there are.
The sides "replay" start `GROUP` steps as one CUDA graph; where vaekit takes them one by one all the same, nothing is recorded and the
reason is said.

No record of this exists yet: it has not been run on a GPU. Nothing here was measured on a processor instead.

Run: python -m benchmarks.gpu --jax-python jax/bin/python --peer-python peers/bin/python
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
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.epoch_speed import BATCH, HERE, STEPS, spread
from benchmarks.record import write
from vaekit import fit
from vaekit.data import mnist_grey
from vaekit.evaluate import log_likelihood
from vaekit.recipes.mnist import example
from vaekit.train import Fitted, Logger
from vaekit.train.stack import Cell
from vaekit.train.together import fit_together

MODELS, SAMPLES, GROUP = 64, 5000, 36  # 13 groups are an epoch's 468 full batches
WAYS: dict[str, dict[str, Any]] = {
    "vaekit": {},
    "vaekit_compiled": {"compile": True},
    "vaekit_float32": {"precision": "32-true"},
    "vaekit_replay": {"replay": GROUP},
    "vaekit_replay_compiled": {"replay": GROUP, "compile": True},
}


class Heard(Logger):
    """Keeps the remarks on a run: one that fell back to plain steps would be measured under a wrong name."""

    def __init__(self) -> None:
        self.remarks: list[str] = []

    def begin(self, step: int) -> None: ...

    def log(self, row: Mapping[str, float]) -> None: ...

    def note(self, text: str) -> None:
        self.remarks.append(text)

    def close(self) -> None: ...


def one(way: str, epochs: int, seed: int) -> list[float]:
    """Seconds of each epoch after the first."""
    torch.manual_seed(seed)
    recipe = example(epochs=epochs)
    training = replace(recipe.training, device="cuda", seed=seed, **WAYS[way])
    heard = Heard()
    history = fit(recipe.model, recipe.data().train, objective=recipe.objective, training=training, progress=False, loggers=[heard]).history
    if fallen := [text for text in heard.remarks if "one by one" in text or "was not compiled" in text]:
        raise RuntimeError(f"{way}: {fallen[0]}")
    return [b["seconds"] - a["seconds"] for a, b in pairwise(history)]


def many(epochs: int) -> list[float]:
    """The same of `MODELS` models at once."""
    cells = []
    for seed in range(MODELS):
        torch.manual_seed(seed)
        recipe = example(epochs=epochs)
        cells.append(Cell(recipe.model, recipe.objective, replace(recipe.training, device="cuda", seed=seed)))
    end = next(iter(fit_together(cells, recipe.data().train, progress=False).values()))
    if not isinstance(end, Fitted):
        raise end
    return [b["seconds"] - a["seconds"] for a, b in pairwise(end.history)]


def likelihood() -> tuple[float, float]:
    """Seconds and GiB of IWAE-5000 over the test set, once everything is warm."""
    torch.manual_seed(0)
    recipe = example(epochs=1)
    data = recipe.data()
    model = fit(recipe.model, data.train, training=replace(recipe.training, device="cuda", epochs=1), progress=False).model
    log_likelihood(model, data.test.head(500), samples=SAMPLES)
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.synchronize()
    start = time.perf_counter()
    log_likelihood(model, data.test, samples=SAMPLES)
    torch.cuda.synchronize()
    return time.perf_counter() - start, torch.cuda.max_memory_allocated() / 2**30


def peer(name: str, python: str, path: Path, epochs: int, seed: int) -> list[float]:
    """The same of another library's script."""
    script = HERE / "peers" / {"jax": "jax_scan.py", "pythae": "pythae_trainer.py"}[name]
    own = path.with_name(script.name)
    own.write_text(script.read_text().replace("no_cuda=True", "no_cuda=False"))
    environment = {key: value for key, value in os.environ.items() if key != "JAX_PLATFORMS"} | {"PYTHONPATH": str(script.parent)}
    command = [python, str(own), str(path), str(epochs), str(seed)]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    seconds: list[float] = json.loads(done.stdout.splitlines()[-1])["seconds"]
    return seconds[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jax-python", help="the interpreter of an environment with jax for this GPU, and optax")
    parser.add_argument("--peer-python", help="the interpreter of one with torch for this GPU, and pythae")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=6)
    given = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("torch sees no GPU here, and this measures nothing else")
    others = {"jax": given.jax_python, "pythae": given.peer_python}
    sides = [*WAYS, "sweep", *(name for name, python in others.items() if python)]
    found: dict[str, list[float]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as folder:
        path, data = Path(folder) / "mnist.npz", mnist_grey()
        arrays = {
            name: split.batch(torch.arange(len(split))).x.flatten(1).numpy() for name, split in (("train", data.train), ("test", data.test))
        }
        np.savez(path, allow_pickle=False, **arrays)
        for number in range(given.rounds):
            for side in sides if number % 2 == 0 else sides[::-1]:
                if side in WAYS:
                    seconds = one(side, given.epochs, number + 1)
                elif side == "sweep":
                    seconds = many(given.epochs)
                else:
                    seconds = peer(side, others[side], path, given.epochs, number + 1)
                found[side] += seconds
                print(number, side, [round(s, 4) for s in seconds], flush=True)
    duration, memory = likelihood()
    figures: dict[str, dict[str, Any]] = {
        f"{side}_steps": spread([STEPS / s for s in values]) | {"unit": "steps per second"} for side, values in found.items()
    }
    middle = {side: statistics.median(values) for side, values in found.items()}
    for side in others:
        if side in middle:
            for way, name in (("vaekit", f"to_{side}"), ("vaekit_replay", f"replay_to_{side}")):
                figures[name] = {"value": middle[side] / middle[way], "error": None, "unit": "times its steps"}
    figures["replay"] = {"value": middle["vaekit"] / middle["vaekit_replay"], "error": None, "unit": "times the steps without"}
    figures["models"] = {"value": middle["sweep"] / middle["vaekit"], "error": None, "unit": f"of one model's time, for {MODELS}"}
    figures["iwae"] = {"value": duration, "error": None, "unit": "s"}
    figures["iwae_memory"] = {"value": memory, "error": None, "unit": "GiB"}
    goal = "the goal of this comparison"
    goals = {
        **{f"{way}_steps": (15_000.0, "at_least") for way in ("vaekit", "vaekit_replay", "vaekit_replay_compiled")},
        "to_jax": (2.0, "at_least"),
        "replay_to_jax": (2.0, "at_least"),
        "models": (4.0, "at_most"),
        "iwae": (5.0, "at_most"),
    }
    write(
        "gpu/mnist-example",
        command="python -m benchmarks.gpu --jax-python PYTHON --peer-python PYTHON",
        seed=1,
        settings={
            "rounds": given.rounds,
            "epochs": given.epochs,
            "batch": BATCH,
            "models": MODELS,
            "samples": SAMPLES,
            "group": GROUP,
            "sides": sides,
        },
        figures=figures,
        published={
            name: {"value": value, "tolerance": 0.0, "direction": direction, "source": goal}
            for name, (value, direction) in goals.items()
            if name in figures
        },
    )


if __name__ == "__main__":
    main()
