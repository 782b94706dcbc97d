"""Sprites drawn here and dSprites: the pixels, the factors, the file with its pickled member, and what is wrong with other files."""

from __future__ import annotations

import functools
import hashlib
import importlib
import io
import math
import pickle
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from vaekit import data
from vaekit.data import DataSet, Factor, Split, fetch
from vaekit.data.sprites import HEART, _drawn
from vaekit.errors import InputError
from vaekit.recipes.core import find

module = importlib.import_module("vaekit.data.sprites")  # the package has a function of that name
AREAS = (2.0, math.pi / 2, (0.5 + math.pi / 8) / HEART**2)  # of a square, an ellipse and a heart of circumradius 1


def test_every_combination_is_there_once_and_no_two_images_are_the_same():
    made = data.sprites()
    splits = [made.train, made.valid, made.test]
    labels = torch.cat([split.label for split in splits])
    x = torch.cat([split.x for split in splits])
    assert [factor.size for factor in made.factors] == [3, 4, 8, 8, 8]
    assert labels.sort().values.tolist() == list(range(3 * 4 * 8 * 64)) and len(made.train) == 4916
    assert x.shape[1:] == (1, 32, 32) and len(x.flatten(1).unique(dim=0)) == len(x)
    area = x[labels.argsort()].flatten(1).sum(1).double().view(3, 4, 8, 64)[:, -1]
    assert float((area.amax(-1) / area.amin(-1)).max()) < 1.03  # the largest are cut off nowhere
    again = data.sprites()
    assert torch.equal(again.train.x, made.train.x) and torch.equal(again.test.label, made.test.label)


def test_shapes_have_their_areas_at_every_angle():
    """The sum of the coverage of a shape of radius 16 pixels, to 0.6%, and a quarter of it at half the radius, to 1.5%."""
    x = _drawn(64, 2, 5, 1)[:, :, :, 0, 0].double().sum((-1, -2))
    for shape, area in enumerate(AREAS):
        torch.testing.assert_close(x[shape, 1], torch.full((5,), area * 256).double(), rtol=6e-3, atol=0)
        torch.testing.assert_close(x[shape, 0], torch.full((5,), area * 64).double(), rtol=1.5e-2, atol=0)


def test_pixels_against_an_independent_drawing():
    """Each shape by its vertices and circles, 16 x 16 points a pixel, at an odd angle and place: pixels differ by 0.02 on average."""
    size, angle, r, cx, cy = 32, 0.5 * math.pi * 2 / 5, 8.0, 0.25 * 32 + 16 / 3, 0.25 * 32 + 2 * 16 / 3
    got = _drawn(size, 1, 5, 4)[:, 0, 2, 1, 2].double()
    fine = (torch.arange(size * 16).double() + 0.5) / 16
    x, y = fine[None, :] - cx, fine[:, None] - cy
    u = (x * math.cos(angle) + y * math.sin(angle)) / r
    v = (-x * math.sin(angle) + y * math.cos(angle)) / r
    half = math.sqrt(0.5)
    hu, hv = HEART * u.abs(), HEART * (1 - v)
    inside = (
        (u.abs() <= half) & (v.abs() <= half),
        u.square() + (2 * v).square() <= 1,
        ((hu + (hv - 0.5).abs()) <= 0.5) | ((hu - 0.25).square() + (hv - 0.75).square() <= 0.125),
    )
    for shape, points in enumerate(inside):
        want = points.double().reshape(size, 16, size, 16).mean((1, 3))
        edge = (want > 0) & (want < 1)
        assert float((got[shape] - want)[edge].abs().mean()) < 0.05 and float((got[shape] - want).abs().mean()) < 0.01
        assert float((got[shape] - want).abs().max()) < 0.3


def test_factors_say_what_the_image_shows():
    """Centre of mass along x and y, area with the scale: each in the order of its factor, at all values of the others."""
    made = data.sprites(24, scales=3, orientations=3, positions=4, valid=0, test=2)
    f, x = data.factor_values(made, made.train), made.train.x[:, 0].double() / 255
    area = x.sum((1, 2))
    along_x = (x.sum(1) * torch.arange(24)).sum(1) / area
    along_y = (x.sum(2) * torch.arange(24)).sum(1) / area
    heart = f[:, 0] == 2  # whose centre of mass is not its centre
    for values, factor, only in ((area, 1, None), (along_x, 3, ~heart), (along_y, 4, ~heart)):
        for shape in range(3):
            rows = (f[:, 0] == shape) if only is None else (f[:, 0] == shape) & only
            if not rows.any():
                continue
            low, high = zip(*[values[rows & (f[:, factor] == k)].aminmax() for k in range(made.factors[factor].size)], strict=True)
            assert all(a < b for a, b in zip(high, low[1:], strict=False)), (factor, shape)
    assert not made.factors[0].ordered and made.factors[1].ordered


def test_binary_sprites_are_the_rounded_ones():
    grey, black = (data.sprites(16, scales=2, orientations=2, positions=3, binary=flag) for flag in (False, True))
    assert black.train.x.dtype == torch.bool and torch.equal(black.train.x, grey.train.x >= 128)
    assert black.train.batch(torch.arange(3)).x.unique().tolist() == [0, 1]


def test_factors_must_have_the_labels_of_all_splits():
    x = torch.zeros(6, 2)
    with pytest.raises(InputError, match="2 factors have 6 combinations, and the test rows need labels from 0 to 5"):
        factors = (Factor("a", 2), Factor("b", 3))
        DataSet("wrong", train=Split(x, label=torch.arange(6)), test=Split(x, label=torch.arange(1, 7)), factors=factors)
    with pytest.raises(InputError, match="train rows need labels"):
        DataSet("wrong", train=Split(x), test=Split(x), factors=factors)
    grey = data.sprites(8, scales=1, orientations=1, positions=2, valid=0, test=2)
    assert data.binarise(grey).factors == grey.factors
    plain = data.arrays(np.zeros((10, 2)))
    with pytest.raises(InputError, match='"arrays" has no known factors'):
        data.factor_values(plain, plain.test)


@pytest.mark.parametrize("name", ["scales", "orientations", "positions"])
def test_sprites_that_cannot_be_drawn(name):
    with pytest.raises(InputError, match=f"sprites\\({name}=0\\)"):
        data.sprites(**{name: 0})
    with pytest.raises(InputError, match="8 or more"):
        data.sprites(7)


# --- dSprites ---------------------------------------------------------------------------------------------------------------------------

SMALL = (Factor("shape", 3, ordered=False), Factor("scale", 2), Factor("orientation", 2), Factor("x", 5), Factor("y", 7))
N = 3 * 2 * 2 * 5 * 7


class Trap:
    """Unpickling this is the end of the test."""

    def __reduce__(self) -> tuple[object, ...]:
        return (pytest.fail, ("the metadata were unpickled",))


def archive(change: str = "") -> bytes:
    """A small file in the published format: images that are bits of their own number, and a pickled member."""
    classes = np.stack(np.unravel_index(np.arange(N), (1, *(factor.size for factor in SMALL))), 1).astype(np.int64)
    imgs = (np.arange(N)[:, None, None] >> np.arange(16).reshape(4, 4) & 1).astype(np.uint8)
    if change == "order":
        classes = classes[::-1]
    if change == "shape":
        imgs = imgs[:, :3]
    if change == "dtype":
        imgs = imgs.astype(np.float32)
    metadata = np.empty((), dtype=object)
    metadata[()] = Trap()
    arrays = {"imgs": imgs, "latents_classes": classes, "latents_values": classes.astype(np.float64), "metadata": metadata}
    if change == "missing":
        del arrays["imgs"]
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Small dSprites, no folder of data, an empty cache, and a network that is not there; the folder of a server to come."""
    monkeypatch.delenv("VAEKIT_DATA", raising=False)
    monkeypatch.setenv("VAEKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("VAEKIT_MIRROR", "http://127.0.0.1:9")
    monkeypatch.setattr(fetch, "PAUSES", (0.0,))
    monkeypatch.setattr(module, "DSPRITES_FACTORS", SMALL)
    monkeypatch.setattr(module, "DSPRITES_SIDE", 4)
    monkeypatch.setattr(module, "BLOCK", 100)
    publish(archive(), monkeypatch)
    return tmp_path


def publish(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this were the published file."""
    known = {module.DSPRITES_FILE: f"md5:{hashlib.md5(content, usedforsecurity=False).hexdigest()}"}
    monkeypatch.setattr(module, "DSPRITES", replace(module.DSPRITES, files=known, content=known))


def put(folder: Path, content: bytes) -> Path:
    path = folder / "dsprites" / module.DSPRITES_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def served(small: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    put(small / "www", archive())

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(small / "www"))) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("VAEKIT_MIRROR", f"http://127.0.0.1:{server.server_port}")
        yield small
        server.shutdown()


def test_dsprites_are_downloaded_and_split(served: Path) -> None:
    made = data.dsprites(valid=20, test=50, seed=3)
    order = torch.from_numpy(np.random.RandomState(3).permutation(N))
    assert (served / "cache" / "dsprites" / module.DSPRITES_FILE).is_file() and made.name == "dsprites"
    for split, rows in ((made.test, order[:50]), (made.valid, order[50:70]), (made.train, order[70:])):
        assert torch.equal(split.label, rows) and split.x.dtype == torch.bool
        bits = (split.x.flatten(1).long() << torch.arange(16)).sum(1)
        assert torch.equal(bits, rows)  # each image is where its label says
        want = torch.stack(torch.unravel_index(rows, (3, 2, 2, 5, 7)), 1)
        assert torch.equal(data.factor_values(made, split), want)
    part = data.dsprites(rows=100, test=30)
    assert (len(part.train), len(part.test), part.valid) == (70, 30, None)


def test_dsprites_of_your_own_folder_are_checked(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="cannot download dsprites/dsprites_ndarray") as error:
        data.dsprites(test=5)
    assert "\n" not in str(error.value)
    monkeypatch.setenv("VAEKIT_DATA", str(small / "mine"))
    put(small / "mine", archive())
    assert len(data.dsprites(test=5).train) == N - 5
    for change in ("order", "missing"):
        put(small / "mine", archive(change))
        with pytest.raises(InputError, match="does not hold the published data"):
            data.dsprites(test=5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("order", "does not list all combinations of its factors in their order"),
        ("missing", 'has no array "imgs"'),
        ("shape", r'"imgs" in .* is uint8 \[420, 3, 4\], expected uint8 \[420, 4, 4\]'),
        ("dtype", r'"imgs" in .* is float32'),
    ],
)
def test_a_file_of_another_form_is_one_line(change: str, words: str, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = archive(change)
    publish(content, monkeypatch)
    monkeypatch.setenv("VAEKIT_DATA", str(small))
    put(small, content)
    with pytest.raises(InputError, match=words) as error:
        data.dsprites(test=5)
    assert "\n" not in str(error.value)


def test_a_damaged_archive_is_one_line(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte changed within the images: the archive's own checksum says so at their end."""
    content = bytearray(archive())
    content[content.index(b"imgs.npy") + 60] ^= 0xFF
    publish(bytes(content), monkeypatch)
    monkeypatch.setenv("VAEKIT_DATA", str(small))
    put(small, bytes(content))
    with pytest.raises(InputError, match="damaged or of another format|truncated") as error:
        data.dsprites(test=5)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("request_", [{"rows": 0}, {"rows": 421}, {"test": 0}, {"test": 420}, {"rows": 10, "test": 5, "valid": 5}])
def test_splits_of_dsprites_that_are_empty(small: Path, request_: dict[str, int]) -> None:
    with pytest.raises(InputError, match="420 images are there, and each split needs at least one"):
        data.dsprites(**({"test": 5} | request_))


def test_the_trap_is_one() -> None:
    with pytest.raises(pytest.fail.Exception):
        pickle.loads(pickle.dumps(Trap()))


@pytest.mark.parametrize("name", ["sprites:beta_tc", "sprites:factor"])
def test_the_recipes_know_their_data(name: str) -> None:
    """The dataset size of beta-TC is the number of training rows, and the pixels are those a Bernoulli scores."""
    recipe = find(name)(width=2)
    made = recipe.data()
    assert made.train.x.dtype == torch.bool and made.shape == (1, 32, 32) and len(made.factors) == 5
    assert getattr(recipe.objective, "dataset_size", len(made.train)) == len(made.train)
