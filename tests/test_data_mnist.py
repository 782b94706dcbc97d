"""MNIST four times over and Fashion-MNIST: sizes, labels, pixel sums, draws, every container, and a whole download.

The sets in ``$VAEKIT_DATA`` are tested when they are there; a stand-in of the official layout is tested always.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import os
import struct
import threading
from collections.abc import Callable
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from vaekit import data
from vaekit.data import DataSet, Split, fetch, mnist
from vaekit.data.sources import FASHION_MNIST, STATIC_MNIST
from vaekit.errors import InputError

HERE = os.environ.get("VAEKIT_DATA", "")
IDX = [f"{split}-{kind}-ubyte.gz" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


def needs(*files: str) -> pytest.MarkDecorator:
    missing = [file for file in files if not (HERE and (Path(HERE) / file).exists())]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)} in $VAEKIT_DATA")


needs_mnist = needs(*(f"mnist/{file}" for file in IDX))
needs_static = needs("binarized-mnist/binarized_mnist.npz")


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of these tests alone, and a network that is not there."""
    monkeypatch.setenv("VAEKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VAEKIT_MIRROR", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(fetch, "PAUSES", (0.0,))


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of data to fill."""
    folder = tmp_path / "mine"
    folder.mkdir()
    monkeypatch.setenv("VAEKIT_DATA", str(folder))
    return folder


def put(folder: Path, file: str, content: bytes) -> Path:
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def total(split: Split | None) -> int:
    assert split is not None
    return int(split.x.sum(dtype=torch.int64))


def counts(split: Split) -> list[int]:
    assert split.label is not None and split.label.dtype == torch.int64
    return split.label.bincount().tolist()


def same(a: Split | None, b: Split | None) -> bool:
    if a is None or b is None or a.label is None or b.label is None:
        return a is b or (a is not None and b is not None and a.label is b.label is None and torch.equal(a.x, b.x))
    return torch.equal(a.x, b.x) and torch.equal(a.label, b.label)


@needs_mnist
def test_mnist_grey() -> None:
    grey = data.mnist_grey()
    assert (len(grey.train), len(grey.test), grey.valid) == (60000, 10000, None)
    assert (total(grey.train), total(grey.test)) == (1567298545, 264923200)
    assert counts(grey.train) == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert counts(grey.test) == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    x = grey.train.batch(torch.arange(60000)).x
    assert x.shape == (60000, 1, 28, 28) and x.dtype == torch.float32 and x.min() == 0 and x.max() == 1
    assert round(float(x.mean()), 4) == 0.1307  # the constants that everyone normalises with
    assert round(float(x.std()), 4) == 0.3081
    assert grey.train.label is not None and grey.train.label[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert grey.test.label is not None and grey.test.label[:5].tolist() == [7, 2, 1, 0, 4]


@needs_mnist
@pytest.mark.parametrize("reader", [data.mnist_grey, data.mnist_dynamic, data.mnist_rounded])
def test_the_last_training_images_are_held_out(reader: Callable[[int], DataSet]) -> None:
    whole, held = reader(0), reader(10000)
    assert held.valid is not None and held.train.label is not None and held.valid.label is not None and whole.train.label is not None
    assert torch.equal(torch.cat([held.train.label, held.valid.label]), whole.train.label)
    assert torch.equal(held.train.x, whole.train.x[:50000])
    if reader is not data.mnist_dynamic:
        assert torch.equal(held.valid.x, whole.train.x[50000:])
    assert same(held.test, whole.test)
    assert held.name == reader.__name__
    for valid in (-1, 60000):
        with pytest.raises(InputError, match=f"valid={valid} cannot be held out of 60000 training rows"):
            reader(valid)


@needs_mnist
def test_mnist_dynamic_is_drawn_for_training_and_fixed_for_evaluation() -> None:
    grey, dynamic = data.mnist_grey(1000), data.mnist_dynamic(1000)
    assert dynamic.valid is not None and grey.valid is not None
    torch.manual_seed(0)
    index = torch.arange(2000)
    first, second = dynamic.train.batch(index).x, dynamic.train.batch(index).x
    p = grey.train.batch(index).x.double()
    for x in (first, second):
        assert abs(float((x - p).sum() / (p * (1 - p)).sum().sqrt())) < 4  # z-score of the sum of 1.6 million pixels
    assert not torch.equal(first, second)
    for split, means, seed in ((dynamic.test, grey.test, 0), (dynamic.valid, grey.valid, 1)):
        index = torch.arange(len(split))
        x, p = split.batch(index).x, means.batch(index).x.double()
        assert abs(float((x - p).sum() / (p * (1 - p)).sum().sqrt())) < 4
        u = np.random.RandomState(seed).random_sample(tuple(x.shape))
        assert np.array_equal(x.numpy(), u < means.x.numpy() / 255)
    # written down: other bits would be another test set, with other likelihoods
    assert (
        hashlib.sha256(dynamic.test.x.numpy().tobytes()).hexdigest() == "16ad3251d6198cbc5a56df3ff067c2064c3dea26f871e47b3beff881ee8a6638"
    )


@needs_mnist
def test_mnist_rounded() -> None:
    grey, rounded = data.mnist_grey(), data.mnist_rounded()
    for split, source in ((rounded.train, grey.train), (rounded.test, grey.test)):
        index = torch.arange(len(source))
        assert torch.equal(split.batch(index).x, (source.batch(index).x > 0.5).float())
        assert split.label is not None and source.label is not None and torch.equal(split.label, source.label)


# Static MNIST: pixel sums of the published text files


@needs_static
def test_mnist_static() -> None:
    static = data.mnist_static()
    splits = [static.split(name) for name in ("train", "valid", "test")]
    assert [len(split) for split in splits] == [50000, 10000, 10000]
    for split in splits:
        x = split.batch(torch.arange(len(split))).x
        assert x.shape[1:] == (1, 28, 28) and set(x.unique().tolist()) == {0.0, 1.0}
        assert split.label is None
    # the same bits as the published text files: "0 1 ... 0", a line for each image
    for name, split in zip(("train", "valid", "test"), splits, strict=True):
        text = np.full((len(split), 2 * 784), ord(" "), dtype=np.uint8)
        text[:, ::2] = split.x.flatten(1).numpy() + ord("0")
        text[:, -1] = ord("\n")
        assert f"sha256:{hashlib.sha256(text.tobytes()).hexdigest()}" == STATIC_MNIST.files[f"binarized_mnist_{name}.amat"]


@needs_static
def test_mnist_static_from_the_published_text_files(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAEKIT_DATA", HERE)
    packed = data.mnist_static()
    monkeypatch.setenv("VAEKIT_DATA", str(mine))
    (mine / "binarized-mnist").mkdir()
    for name in ("train", "valid", "test"):
        bits = packed.split(name).x.flatten(1).numpy()
        text = np.stack([bits + np.uint8(ord("0")), np.full(bits.shape, ord(" "), dtype=np.uint8)], axis=2)
        text[:, -1, 1] = ord("\n")
        text.tofile(mine / "binarized-mnist" / f"binarized_mnist_{name}.amat")
    unpacked = data.mnist_static()
    assert all(same(unpacked.split(name), packed.split(name)) for name in ("train", "valid", "test"))


# Fashion-MNIST


def idx(values: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


def test_fashion_mnist_is_read_in_the_official_layout(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On stand-ins of the official size, each row of one grey value that tells its number, since the real training set may not be here."""
    content = {}
    for split, n in (("train", 60000), ("t10k", 10000)):
        level = (np.arange(n) % 251).astype(np.uint8)
        for kind, values in (("images-idx3", np.broadcast_to(level[:, None, None], (n, 28, 28))), ("labels-idx1", level % 10)):
            raw = idx(np.ascontiguousarray(values, dtype=np.uint8))
            content[f"{split}-{kind}-ubyte.gz"] = f"md5:{hashlib.md5(raw).hexdigest()}"
            put(mine, f"fashion-mnist/{split}-{kind}-ubyte.gz", gzip.compress(raw, compresslevel=1))
    monkeypatch.setattr(mnist, "FASHION_MNIST", replace(FASHION_MNIST, content=content))
    fashion = data.fashion_mnist(valid=100)
    assert (len(fashion.train), len(fashion.test)) == (59900, 10000)
    assert fashion.valid is not None and fashion.valid.label is not None
    numbers = torch.arange(59900, 60000) % 251
    assert torch.equal(fashion.valid.batch(torch.arange(100)).x, (numbers / 255).view(-1, 1, 1, 1).expand(-1, 1, 28, 28))
    assert torch.equal(fashion.valid.label, numbers % 10)
    assert fashion.label_names is not None and fashion.label_names[9] == "Ankle boot"


@needs("fashion-mnist/t10k-images-idx3-ubyte.gz", "fashion-mnist/t10k-labels-idx1-ubyte.gz")
def test_the_test_images_of_fashion_mnist() -> None:
    test = mnist._idx(FASHION_MNIST, "t10k", 10000)
    assert total(test) == 573469082
    assert counts(test) == [1000] * 10
    assert test.label is not None and test.label[:5].tolist() == [9, 2, 1, 1, 6]


@needs(*(f"fashion-mnist/{file}" for file in IDX))
def test_fashion_mnist() -> None:
    fashion = data.fashion_mnist()
    assert counts(fashion.train) == [6000] * 10
    assert round(float(fashion.train.batch(torch.arange(60000)).x.mean(dtype=torch.float64)), 4) == 0.2860


# A whole download


@needs_mnist
def test_mnist_is_downloaded_checked_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = data.mnist_grey()
    asked: list[str] = []

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            asked.append(self.path)

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=HERE)) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.delenv("VAEKIT_DATA")
        monkeypatch.setenv("VAEKIT_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("VAEKIT_MIRROR", f"http://127.0.0.1:{server.server_port}")
        for _ in range(2):
            read = data.mnist_grey()
            assert same(read.train, expected.train) and same(read.test, expected.test)
        server.shutdown()
    assert sorted(asked) == sorted(f"/mnist/{file}" for file in IDX)
    assert sorted(path.name for path in (tmp_path / "cache" / "mnist").iterdir()) == sorted(IDX)
