"""How time and memory of a training step grow with the batch, the width, the latent dimensions, the samples K and the number of models.

One thing changes at a time from the network of ``mnist:example`` (784-400-20, batch 128, one sample, one model; precision "auto",
compiled). Each point is a process of its own that trains 60 steps an epoch; a point's time is the median over all epochs but the first,
which compiles, its error half the distance between their quartiles; its memory is the most that the process has held, of which,
with the data and one such network, ``memory_empty`` MiB were there before training. Several models are the seeds of one sweep.

Run: python -m benchmarks.growth
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch

from benchmarks.conv_speed import held
from benchmarks.epoch_speed import spread
from benchmarks.gallery.common import picture, series, write
from vaekit import IWAE, VAE, Conditional, Training, fit, heads, priors
from vaekit.data import mnist_grey
from vaekit.nn import Layer, mlp
from vaekit.objectives import ELBO
from vaekit.train import Fitted
from vaekit.train.stack import Cell
from vaekit.train.together import fit_together
from vaekit.viz.figure import BLUE, GREY, ORANGE, blank, put_title, styled

BASE = {"batch": 128, "width": 400, "latent": 20, "k": 1, "models": 1}
AXES: dict[str, tuple[int, ...]] = {
    "batch": (16, 32, 64, 128, 256, 512, 1024),
    "width": (50, 100, 200, 400, 800, 1600, 3200),
    "latent": (2, 5, 20, 80, 320, 1280),
    "k": (1, 2, 5, 10, 20, 50),
    "models": (1, 2, 4, 8, 16),
}
NAMES = {
    "batch": "batch size",
    "width": "width of the hidden layers",
    "latent": "latent dimensions",
    "k": "samples K of the IWAE bound",
    "models": "models of a sweep",
}
STEPS = 60


def vae(width: int, latent: int) -> VAE:
    shape = (1, 28, 28)
    q, px = heads.Gaussian(latent), heads.Bernoulli(shape)
    return VAE(
        priors.StandardNormal(latent),
        Conditional(mlp(shape, [Layer(width, torch.nn.ReLU)], q.features), q, event_dim=3),
        Conditional(mlp(latent, [Layer(width, torch.nn.ReLU)], px.features), px),
    )


def point(at: Mapping[str, int], epochs: int) -> dict[str, Any]:
    """Seconds of a step, one number an epoch, and memory, MiB."""
    torch.set_flush_denormal(True)  # as `vaekit train` does
    torch.manual_seed(0)
    train = mnist_grey().train
    rows = train.take(torch.arange(at["batch"] * STEPS) % len(train))
    models, empty = [vae(at["width"], at["latent"]) for _ in range(at["models"])], held("VmHWM")
    training = Training(epochs, at["batch"], precision="auto", compile=True)
    objective = ELBO() if at["k"] == 1 else IWAE(at["k"])
    if len(models) == 1:
        histories = [fit(models[0], rows, objective=objective, training=training, progress=False).history]
    else:
        cells = [Cell(model, ELBO(), replace(training, seed=seed)) for seed, model in enumerate(models)]
        how: list[str] = []
        ends = fit_together(cells, rows, note=how.append, progress=False).values()
        histories = [end.history for end in ends if isinstance(end, Fitted)]
        histories = histories if "one after another" in how[0] else histories[:1]  # at once, all have the same seconds
    epochs_of = [[b["seconds"] - a["seconds"] for a, b in pairwise(history)] for history in histories]
    return {"seconds": [sum(parts) / STEPS for parts in zip(*epochs_of, strict=True)], "memory": held("VmHWM"), "empty": empty}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--point", help=argparse.SUPPRESS)  # the settings of one, as JSON
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.point:
        print(json.dumps(point(json.loads(given.point), given.epochs)))
        return
    load = os.getloadavg()[0]
    figures: dict[str, dict[str, Any]] = {}
    for axis, values in AXES.items():
        times, memory = [], []
        for value in values:
            command = [sys.executable, "-m", "benchmarks.growth", "--epochs", str(given.epochs), "--threads", str(given.threads)]
            done = subprocess.run(
                [*command, "--point", json.dumps(BASE | {axis: value})],
                env=os.environ | {"OMP_NUM_THREADS": str(given.threads)},
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
            found = json.loads(done.stdout.splitlines()[-1])
            times.append(spread([1e3 * s for s in found["seconds"]]))
            memory.append(found["memory"])
            figures[f"{axis}_{value}_step"] = times[-1] | {"unit": "ms"}
            figures[f"{axis}_{value}_memory"] = {"value": found["memory"], "error": None, "unit": "MiB"}
            if BASE[axis] == value:
                figures["memory_empty"] = {"value": found["empty"], "error": None, "unit": "MiB"}
            print(axis, value, times[-1], round(memory[-1]), flush=True)
        series(f"growth-{axis}", {axis: values, "ms": [t["value"] for t in times], "mib": memory})
        picture(f"growth-{axis}", drawn(axis, values, times, memory))
    write(
        "growth/mnist-example",
        command="python -m benchmarks.growth",
        seed=0,
        settings={"base": BASE, "axes": AXES, "epochs": given.epochs, "threads": given.threads, "load_before": load},
        figures=figures,
        published=None,
    )


def drawn(axis: str, values: tuple[int, ...], times: list[dict[str, float]], memory: list[float]) -> Any:
    """Both against the axis, in logarithms; a grey line grows as the axis does."""
    canvas = blank(760, 300, constrained=True)
    with styled():
        panels = canvas.subplots(1, 2)
        panels[0].errorbar(values, [t["value"] for t in times], yerr=[t["error"] for t in times], color=BLUE, marker="o", capsize=2)
        last = times[-1]["value"]
        panels[0].plot(values, [last * v / values[-1] for v in values], color=GREY, lw=1, ls="--", label="in proportion")
        panels[0].set(xscale="log", yscale="log", xlabel=NAMES[axis], ylabel="ms per step")
        panels[0].set_ylim(0.5 * min(t["value"] for t in times), None)
        panels[0].legend(loc="upper left")
        panels[1].plot(values, memory, color=ORANGE, marker="o")
        panels[1].set(xscale="log", xlabel=NAMES[axis], ylabel="MiB at most", ylim=(0, 1.1 * max(memory)))
    put_title(canvas, f"Cost of a step against {NAMES[axis]}")
    return canvas


if __name__ == "__main__":
    main()
