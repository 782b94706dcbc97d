"""IWAE with 5000 samples of the 784-400-20 network on MNIST: vaekit's call against a JAX-jitted streamed loop.

Two processes with the same weights and images take turns (A B B A ...); the figure is the median over rounds of the ratio of their times.
A part of the test images is timed and extrapolated to 10,000. Besides: the float32 matrix products alone, by which both are bound, and
the peak memory of each process. The first pass of each, which compiles, is not counted.

JAX lives in an environment of its own: ``python -m venv jax && jax/bin/pip install "jax[cpu]"``.

Run: python -m benchmarks.iwae_speed --jax-python jax/bin/python
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
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import nn

from benchmarks.record import write
from vaekit import fit
from vaekit.data.core import Split
from vaekit.evaluate import log_likelihood
from vaekit.matmul import matching_matmul
from vaekit.models import LatentModel
from vaekit.recipes.mnist import example

TEST, SAMPLES, BLOCK, JAX_CHUNK = 10_000, 5000, 100, 50
WAIT = "passive"
"""OpenMP's threads sleep while they wait for one another. Where other programs want the cores, spinning threads would take the time that
the one they wait for needs: a fourfold loss, which JAX's pool of threads does not know."""
LAYERS = ("e1", "e2", "d1", "d2")


def layers(model: LatentModel) -> dict[str, nn.Linear]:
    """The four layers of ``mnist:example``, in order."""
    return dict(zip(LAYERS, (m for m in model.modules() if isinstance(m, nn.Linear)), strict=True))


def network() -> LatentModel:
    torch.manual_seed(0)
    model = example().model
    assert isinstance(model, LatentModel)
    return model


def save(model: LatentModel, x: torch.Tensor, path: Path) -> None:
    """Weights ``[in, out]`` and images ``[N, 784]`` for both sides."""
    arrays = {"x": x.flatten(1).numpy()}
    for name, layer in layers(model).items():
        arrays |= {name: layer.weight.detach().mT.contiguous().numpy(), f"{name}b": layer.bias.detach().numpy()}
    np.savez(path, allow_pickle=False, **arrays)


def load(path: str) -> tuple[LatentModel, Split]:
    arrays, model = np.load(path), network()
    with torch.no_grad():
        for name, layer in layers(model).items():
            layer.weight.copy_(torch.from_numpy(arrays[name]).mT)
            layer.bias.copy_(torch.from_numpy(arrays[f"{name}b"]))
    return model, Split(torch.from_numpy(arrays["x"]).view(-1, 1, 28, 28))


def work(path: str, samples: int) -> None:
    """The vaekit side: each line on the standard input is one timed pass."""
    model, split = load(path)
    for number, line in enumerate(sys.stdin):
        start, busy = time.perf_counter(), time.process_time()
        mean = (
            products(model, len(split) * samples)
            if line.strip() == "floor"
            else log_likelihood(model, split, samples=samples, seed=number, compile=True).mean
        )
        seconds, cpu = time.perf_counter() - start, time.process_time() - busy
        # not getrusage, which counts the parent's peak too
        memory = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
        print(json.dumps({"seconds": seconds, "cpu": cpu, "mean": mean, "memory": memory}), flush=True)


def products(model: LatentModel, rows: int) -> float:
    """The decoder's two matrix products for so many rows, 5000 at a time, and nothing else."""
    first, second = layers(model)["d1"], layers(model)["d2"]
    z, h = torch.randn(5000, first.in_features), torch.randn(5000, second.in_features)
    with torch.no_grad(), matching_matmul(torch.device("cpu")):
        for _ in range(rows // 5000):
            z @ first.weight.mT
            h @ second.weight.mT
    return 0.0


class Worker:
    """A process that answers each line by a line of JSON."""

    def __init__(self, command: list[str], threads: int) -> None:
        environment = {"OMP_WAIT_POLICY": WAIT, "GOMP_SPINCOUNT": "0"} | os.environ
        environment |= {"OMP_NUM_THREADS": str(threads), "JAX_PLATFORMS": "cpu"}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def ask(self, line: str = "go") -> dict[str, Any]:
        _stream(self.process.stdin).write(line + "\n")
        _stream(self.process.stdin).flush()
        answer = _stream(self.process.stdout).readline()
        if not answer:
            raise RuntimeError("a worker has ended: its own words are above")
        found: dict[str, Any] = json.loads(answer)
        return found

    def close(self) -> None:
        _stream(self.process.stdin).close()
        self.process.wait()


def _stream(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


def _spread(values: list[float]) -> dict[str, float]:
    """Median, and half the distance between the quartiles as its error."""
    low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else (values[0],) * 3
    return {"value": statistics.median(values), "error": (high - low) / 2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jax-python", required=True, help="the interpreter of an environment with JAX")
    parser.add_argument("--images", type=int, default=200, help="a multiple of 100")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="a multiple of 50")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=1, help="of training beforehand")
    parser.add_argument("--quick", action="store_true", help="a tenth of the images and samples, two rounds; writes nothing")
    given = parser.parse_args()
    if given.quick:
        given.images, given.samples, given.rounds, given.epochs = 100, 500, 2, 0
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    recipe = example(epochs=max(1, given.epochs))
    data = recipe.data()
    if given.epochs:
        fit(recipe.model, data, objective=recipe.objective, training=recipe.training)
    times: dict[str, list[float]] = {which: [] for which in ("vaekit", "vaekit_cpu", "jax", "jax_cpu", "floor")}
    means: dict[str, float] = {}
    memory: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.npz"
        save(recipe.model, data.test.batch(torch.arange(given.images)).x, path)
        ours = Worker([sys.executable, "-m", "benchmarks.iwae_speed", "--work", str(path), str(given.samples)], given.threads)
        sizes = [str(given.samples), str(JAX_CHUNK), str(BLOCK)]
        jax = Worker([given.jax_python, str(Path(__file__).with_name("iwae_speed_jax.py")), str(path), *sizes], given.threads)
        for number in range(given.rounds + 1):
            for which in ("vaekit", "jax") if number % 2 else ("jax", "vaekit"):
                answer = (ours if which == "vaekit" else jax).ask()
                means[which], memory[which] = answer["mean"], answer["memory"]
                version = answer.get("version", "")
                times[which].append(answer["seconds"])
                times[f"{which}_cpu"].append(answer["cpu"])
            times["floor"].append(ours.ask("floor")["seconds"])
            print({which: round(values[-1], 2) for which, values in times.items()}, flush=True)
        ours.close()
        jax.close()
    whole = TEST / given.images * SAMPLES / given.samples
    kept = {which: values[1:] for which, values in times.items()}
    ratios = [a / b for a, b in zip(kept["vaekit"], kept["jax"], strict=True)]
    cpu = [a / b for a, b in zip(kept["vaekit_cpu"], kept["jax_cpu"], strict=True)]
    figures: dict[str, dict[str, Any]] = {"ratio": _spread(ratios) | {"unit": "of JAX's time"}}
    figures["cpu_ratio"] = _spread(cpu) | {"unit": "of JAX's processor time"}
    figures |= {f"{which}_seconds": _spread([whole * t for t in values]) | {"unit": "s"} for which, values in kept.items()}
    for which in ("vaekit", "jax"):
        compiling = times[which][0] - statistics.median(kept[which])
        figures[f"{which}_compiling"] = {"value": compiling, "error": None, "unit": "s, once, not counted"}
    figures |= {f"{which}_memory": {"value": memory[which] / 2**30, "error": None, "unit": "GiB"} for which in memory}
    figures |= {f"{which}_mean": {"value": means[which], "error": None, "unit": "nats"} for which in means}
    print(json.dumps(figures, indent=2), version)
    if abs(means["vaekit"] - means["jax"]) > 0.1:
        raise SystemExit(f"the two sides do not agree: {means}")
    if not given.quick:
        write(
            "iwae_speed/mnist-example",
            command="python -m benchmarks.iwae_speed --jax-python PYTHON",
            seed=0,
            settings={
                **{name: getattr(given, name) for name in ("images", "samples", "rounds", "threads", "epochs")},
                "extrapolated_to_images": TEST,
                "jax": version,
                "jax_chunk": JAX_CHUNK,
                "jax_block": BLOCK,
                "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", WAIT),
                "load_before": os.getloadavg()[0],
            },
            figures=figures,
            published={
                "ratio": {"value": 0.8, "tolerance": 0.0, "direction": "at_most", "source": "the goal of this comparison"},
                "vaekit_memory": {"value": 2.0, "tolerance": 0.0, "direction": "at_most", "source": "the goal of this comparison"},
            },
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2], int(sys.argv[3]))
    else:
        main()
