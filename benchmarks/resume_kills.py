"""Is resuming exact? A run that is killed (SIGKILL) again and again must end as the one that was left alone, bit for bit.

The model has everything that could remember something: dropout, batch normalisation, an average of the weights, clipping, a learning-rate
schedule, dynamic binarisation, early stopping, and a checkpoint after every step, so that many kills fall into the writing of one.

    python -m benchmarks.resume_kills --kills 20

prints one JSON object and fails where anything differs.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import random
import signal
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.record import write
from vaekit import VAE, Conditional, Training, fit, heads, priors
from vaekit.data.binarise import binarise
from vaekit.data.core import DataSet, Split
from vaekit.objectives import Cosine
from vaekit.train.checkpoint import Checkpoints
from vaekit.train.files import read

__all__ = ["check", "train"]


def train(folder: str, epochs: int) -> None:
    """The run, from wherever the folder's newest checkpoint stands."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    grey = torch.rand(3, 90, 12, generator=torch.Generator().manual_seed(0)).mul(255).to(torch.uint8)
    data = binarise(DataSet("noise", train=Split(grey[0]), test=Split(grey[1]), valid=Split(grey[2])))
    model = VAE(
        priors.StandardNormal(2),
        Conditional(nn.Sequential(nn.Linear(12, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 4)), heads.Gaussian(2)),
        Conditional(nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 12)), heads.Bernoulli(12)),
    )
    training = Training(
        epochs=epochs,
        batch_size=20,
        optimiser=partial(torch.optim.Adam, lr=3e-3),
        schedule=Cosine(1, 0.1, 5 * epochs),
        clip=1.0,
        ema=0.95,
        patience=epochs,
        device="cpu",
        checkpoint_minutes=0,
    )
    fit(model, data, training=training, out=folder, resume=True, progress=False)


def check(folder: Path, *, kills: int, epochs: int, seed: int = 0) -> dict[str, Any]:
    """Run once in peace and once with kills at random moments, as many as are asked for; what was found, for JSON.

    Raises:
        RuntimeError: the run ended before it was killed often enough, or failed.
    """
    context = multiprocessing.get_context("forkserver")  # imports once, then forks: a start takes milliseconds
    context.set_forkserver_preload(["lightning.fabric", "vaekit.data.binarise", "vaekit.heads", "vaekit.train"])
    whole, broken = folder / "whole", folder / "broken"
    _finish(context, whole, epochs)
    rng = random.Random(seed)
    steps: list[int] = []
    writing = 0
    for target in sorted(rng.choices(range(int(0.9 * 5 * epochs)), k=kills)):
        process = context.Process(target=train, args=(str(broken), epochs))
        process.start()
        # At a random step or, where an earlier kill came late, while starting; and then at a random moment of the step.
        while _newest(broken) < target and process.is_alive():
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.02))
        process.kill()
        process.join()
        if process.exitcode != -signal.SIGKILL:
            raise RuntimeError(f"the run ended (exit code {process.exitcode}) before kill {len(steps) + 1} of {kills}: ask for more epochs")
        writing += any((broken / "checkpoints").glob(".step-*.tmp"))
        steps.append(_newest(broken))
    _finish(context, broken, epochs)
    return {
        "kills": kills,
        "kills_while_writing": writing,
        "steps_at_kills": steps,
        "steps": 5 * epochs,
        "weights_identical": _same(whole / "model.safetensors", broken / "model.safetensors"),
        "state_identical": _same(*(Checkpoints(path / "checkpoints", 1).paths()[-1] for path in (whole, broken))),
        "metrics_identical": _rows(whole) == _rows(broken),
    }


def _newest(folder: Path) -> int:
    """The step of the newest checkpoint; -1 where there is none."""
    return max((int(path.stem[5:]) for path in Checkpoints(folder / "checkpoints", 1).paths()), default=-1)


def _finish(context: Any, folder: Path, epochs: int) -> None:
    process = context.Process(target=train, args=(str(folder), epochs))
    process.start()
    process.join()
    if process.exitcode != 0:
        raise RuntimeError(f"the run into {folder} failed with exit code {process.exitcode}")


def _same(one: Path, other: Path) -> bool:
    """Whether all tensors are equal, bit for bit."""
    (a, _), (b, _) = read(one), read(other)
    return one.name == other.name and a.keys() == b.keys() and all(_bytes(a[name]) == _bytes(b[name]) for name in a)


def _bytes(t: torch.Tensor) -> bytes:
    return bytes(t.contiguous().reshape(-1).view(torch.uint8).numpy())


def _rows(folder: Path) -> list[dict[str, str]]:
    """The metrics as text, without the time."""
    with open(folder / "metrics.csv", newline="", encoding="utf-8") as file:
        return [{name: cell for name, cell in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = check(Path(folder), kills=options.kills, epochs=options.epochs, seed=options.seed)
    print(json.dumps(found))
    differing = [key for key, value in found.items() if key.endswith("_identical") and not value]
    write(
        "resume/everything",
        command="python -m benchmarks.resume_kills",
        seed=options.seed,
        settings={"kills": found["kills"], "steps": found["steps"], "kills_while_writing": found["kills_while_writing"]},
        figures={"differences": {"value": len(differing), "error": None, "unit": "of weights, state and metrics"}},
        published={"differences": {"value": 0, "tolerance": 0, "direction": "at_most", "source": "the project's own requirement"}},
    )
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
