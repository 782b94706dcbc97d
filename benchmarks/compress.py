"""Lossless compression of the MNIST test images: `vaekit compress` beside the model's own bound and beside general coders.

Binarised (static binarisation, BB-ANS's network 784-100-40, 50 passes instead of 20) and grey (``mnist:grey``), all 10,000 test images.
Both models are trained first, unless a run is given. The file is decompressed and compared with the images byte for byte; its bits per
pixel count everything, header and checksum too. The bound is the mean of log w over ``--samples`` draws of z an image. Files are damaged
50 times, and each must be refused. Times are taken in turn: the bound with one sample, compression, decompression.

General coders: gzip, bz2 and xz of all images as one stream at their highest levels, binary images packed 8 pixels a byte; PNG and WebP
image by image.

Run: python -m benchmarks.compress
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import io
import lzma
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from benchmarks.record import write
from vaekit import commands
from vaekit.apps.compress import compress, decompress
from vaekit.errors import InputError
from vaekit.evaluate.passes import batches, observing
from vaekit.models.core import LatentModel

Array = npt.NDArray[Any]
RECIPES: dict[str, tuple[str, dict[str, Any]]] = {"binarised": ("mnist:bbans", {"epochs": 50}), "grey": ("mnist:grey", {})}
TARGETS = {"binarised": 0.196, "grey": 1.38}
SOURCES = {
    "binarised": "the goal of this comparison; Townsend et al., ICLR 2019, have .194 by the same network",
    "grey": "xz on the same images, the best of the general coders; Bit-Swap (Kingma et al., ICML 2019) has 1.27, BB-ANS 1.39 to 1.41",
}


def general(x: Array) -> dict[str, float]:
    """Bits per pixel by general coders."""
    raw = np.packbits(x.reshape(len(x), -1), axis=1).tobytes() if x.dtype == bool else x.tobytes()
    sizes = {
        "gzip": len(gzip.compress(raw, 9)),
        "bz2": len(bz2.compress(raw, 9)),
        "xz": len(lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME)),
    }
    if x.dtype == np.uint8:
        sizes["png"] = sum(picture(image[0], "PNG") for image in x)
        sizes["webp"] = sum(picture(image[0], "WEBP", lossless=True) for image in x)
    return {name: 8 * size / x.size for name, size in sizes.items()}


def picture(image: Array, kind: str, **options: Any) -> int:
    """Bytes of one image file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return file.tell()


def timed(act: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    found = act()
    return found, time.perf_counter() - start


def refused(model: LatentModel, data: bytes, n: int = 50) -> int:
    """How many of n damaged copies are: cut off, or one bit changed."""
    rng = np.random.default_rng(0)
    count = 0
    for i in range(n):
        at = int(rng.integers(len(data)))
        bad = data[:at] if i % 2 else data[:at] + bytes([data[at] ^ (1 << int(rng.integers(8)))]) + data[at + 1 :]
        try:
            decompress(model, bad)
        except InputError:
            count += 1
    return count


def bound(model: LatentModel, split: Any, k: int) -> float:
    """Mean of log w in nats, k samples an example."""
    with observing(model, 0):
        found = [model.infer(batch, k).log_w.double().mean(0) for batch in batches(split, 100, torch.device("cpu"), dtype=torch.float32)]
    return float(torch.cat(found).mean())


def measured(name: str, run: str | None, given: argparse.Namespace) -> None:
    recipe, flags = RECIPES[name]
    if given.epochs is not None:
        flags = flags | {"epochs": given.epochs}
    with tempfile.TemporaryDirectory() as folder:
        trained = commands.train(recipe, flags, out=Path(folder) / "run", device="cpu") if run is None else run
        opened, found = commands.load(trained, device="cpu")
    model, split = found.model, found.data().test
    if given.examples is not None:  # rows are sorted by class: a pilot draws its own at random
        split = split.take(torch.randperm(len(split), generator=torch.Generator().manual_seed(0))[: given.examples])
    x = split.pick(torch.arange(len(split))).x.numpy()
    nats = -bound(model, split, given.samples)
    bits = nats / math.log(2) / x[0].size
    times: dict[str, list[float]] = {"bound": [], "compress": [], "decompress": []}
    data = b""
    for _ in range(given.rounds):
        _, seconds = timed(lambda: bound(model, split, 1))
        times["bound"].append(seconds)
        data, seconds = timed(lambda: compress(model, x, verify=False))
        times["compress"].append(seconds)
        back, seconds = timed(partial(decompress, model, data))
        times["decompress"].append(seconds)
        if back.dtype != x.dtype or not np.array_equal(back, x):
            raise SystemExit(f"{name}: what came back is not what was compressed")
    rate = 8 * len(data) / x.size
    figures: dict[str, dict[str, Any]] = {
        "bits_per_pixel": {"value": rate, "error": None, "unit": "bits per pixel"},
        "bound": {"value": bits, "error": None, "unit": "bits per pixel"},
        "nelbo": {"value": nats, "error": None, "unit": "nats"},
        "over_bound": {"value": 100 * (rate / bits - 1), "error": None, "unit": "%"},
        "examples": {"value": len(x), "error": None, "unit": "images, each byte the same"},
        "damaged_refused": {"value": refused(model, data), "error": None, "unit": "of 50"},
        "bytes": {"value": len(data), "error": None, "unit": "bytes"},
    }
    for kind in ("compress", "decompress"):
        speeds = [x.size / 1e6 / s for s in times[kind]]
        figures[f"{kind}_speed"] = {"value": statistics.median(speeds), "error": spread(speeds), "unit": "MB/s, a byte a pixel"}
        ratios = [a / b for a, b in zip(times[kind], times["bound"], strict=True)]
        figures[f"{kind}_time"] = {"value": statistics.median(ratios), "error": spread(ratios), "unit": "times that of the bound"}
    figures |= {coder: {"value": value, "error": None, "unit": "bits per pixel"} for coder, value in general(x).items()}
    for key, figure in figures.items():
        print(f"{name} {key}: {figure['value']:.4f} {figure['unit']}", flush=True)
    if given.examples is not None or given.epochs is not None:
        return  # a pilot
    write(
        f"compress/{name}",
        command="python -m benchmarks.compress",
        seed=opened.config.seed,
        settings={"recipe": recipe, "arguments": dict(opened.config.arguments)}
        | {key: getattr(given, key) for key in ("samples", "rounds", "threads")},
        figures=figures,
        published={
            "bits_per_pixel": {"value": TARGETS[name], "tolerance": 0.0, "direction": "at_most", "source": SOURCES[name]},
            "over_bound": {"value": 1.0, "tolerance": 0.0, "direction": "at_most", "source": "the goal of this comparison"},
            "damaged_refused": {"value": 50, "tolerance": 0.0, "direction": "at_least", "source": "the goal of this comparison"},
        },
    )


def spread(values: list[float]) -> float:
    """Half of the range."""
    return (max(values) - min(values)) / 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binarised", help="a run of mnist:bbans, instead of training one")
    parser.add_argument("--grey", help="a run of mnist:grey, instead of training one")
    parser.add_argument("--only", choices=list(RECIPES))
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--examples", type=int, help="a pilot on so many; no record is written")
    parser.add_argument("--epochs", type=int, help="a pilot trained for so many; no record is written")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    for name in RECIPES:
        if given.only in (None, name):
            measured(name, getattr(given, name), given)


if __name__ == "__main__":
    main()
