"""Rows in a file: the numbers that rows in memory give, in bounded memory, and one line where the file is not what it was."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vaekit import ELBO, VAE, Conditional, NonFiniteError, Training, fit, heads, priors
from vaekit.data import DataSet, FileRows, Split, arrays, binarise, on_disk
from vaekit.data.disk import _resident
from vaekit.errors import InputError
from vaekit.evaluate import evaluate
from vaekit.train import Interrupted
from vaekit.train.identity import checksum

N, D = 70, 6
quiet: Callable[..., Any] = partial(fit, progress=False)


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files as small as these would be read between the steps."""
    monkeypatch.setattr("vaekit.data.ahead.WORTH", 0.0)


def saved(folder: Path, x: np.ndarray, name: str = "x.npy") -> Path:
    np.save(folder / name, x)
    return folder / name


def grey() -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (N, D)).astype(np.uint8)


def model(px: nn.Module | None = None) -> VAE:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(D, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 4))
    return VAE(priors.StandardNormal(2), Conditional(encoder, heads.Gaussian(2)), Conditional(nn.Linear(2, D), px or heads.Bernoulli(D)))


def gaussian() -> VAE:
    vae = model()
    vae.likelihood = Conditional(nn.Linear(2, 2 * D), heads.Gaussian(D))
    return vae


def same(a: nn.Module, b: nn.Module) -> bool:
    one, other = a.state_dict(), b.state_dict()
    return all(torch.equal(one[name], other[name]) for name in one | other)


def settings(**changes: Any) -> Training:
    return Training(**({"epochs": 3, "batch_size": 16, "seed": 5} | changes))


# --- what is read ------------------------------------------------------------------------------------------------------------------------

DTYPES = ["u1", "?", "i2", "<f4", ">f4", "f8", "f2", "u2", "i8"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_are_those_that_arrays_would_hold(dtype: str, tmp_path: Path) -> None:
    x = (1000 * np.random.RandomState(1).rand(11, 2, 3)).astype(dtype)
    expected = arrays(x, valid=0, test=x).train.x
    rows = FileRows(saved(tmp_path, x))
    assert (rows.dtype, rows.shape, rows.numel(), rows.dim()) == (expected.dtype, expected.shape, expected.numel(), 3)
    for index in ([3], [0, 1, 2, 3], [10, 0, 0, 5, 6, 7], list(range(11)), []):
        found = rows.read(torch.tensor(index, dtype=torch.int64))
        assert found.dtype == expected.dtype and torch.equal(found, expected[torch.tensor(index, dtype=torch.int64)])
    view = rows.take(torch.tensor([9, 2, 4, 4])).take(torch.tensor([3, 0])).head(1)
    assert torch.equal(view.read(torch.tensor([0, 0])), expected[[4, 4]]) and len(view) == 1
    assert torch.equal(pickle.loads(pickle.dumps(view)).read(torch.tensor([0])), expected[[4]])
    with pytest.raises(IndexError, match="rows 0 to 11 of 11"):
        rows.read(torch.tensor([11, 0]))
    with pytest.raises(IndexError):
        rows.read(torch.tensor([-1]))


def test_a_cold_file_is_asked_for_all_rows_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, asked = grey(), []
    rows = FileRows(saved(tmp_path, x))
    monkeypatch.setattr("vaekit.data.disk.SLOW", -1.0)
    monkeypatch.setattr(os, "posix_fadvise", lambda file, start, size, advice: asked.append((start, size)))
    index = torch.tensor([7, 8, 2])
    for _ in range(2):
        assert torch.equal(rows.read(index), torch.from_numpy(x)[index])
    assert asked == [(rows.file.offset + 7 * D, 2 * D), (rows.file.offset + 2 * D, D)]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say how much of a file is in memory")
def test_pages_are_handed_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sparse.npy"
    np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(100_000, 1000))
    monkeypatch.setattr("vaekit.data.disk.RESIDENT", 2**24)
    rows = FileRows(path)
    before, most = _resident(), 0
    for index in torch.arange(100_000).split(1000):
        assert not rows.read(index).any()
        most = max(most, _resident() - before)
    assert 2**23 < most < 2**24 + 2**23


def test_data_on_disk_are_those_in_memory(tmp_path: Path) -> None:
    x, label = grey(), np.arange(N)
    there, here = (make(source, label=label, valid=0.2, test=9, seed=3) for make, source in ((on_disk, saved(tmp_path, x)), (arrays, x)))
    assert there.name == "x" and isinstance(there.train.x, FileRows) and repr(there.train).endswith("labelled, in a file)")
    for name in ("train", "valid", "test"):
        a, b = there.split(name), here.split(name)
        index = torch.tensor([0, 3, 2, len(a) - 1])
        assert torch.equal(a.batch(index).x, b.batch(index).x) and torch.equal(a.batch(index).index, index)
        assert a.label is not None and b.label is not None and torch.equal(a.label, b.label)
        assert checksum(a) == checksum(b)  # of so few rows all are looked at
    given = on_disk(tmp_path / "x.npy", valid=0, test=saved(tmp_path, x[:4], "test.npy"))
    assert (
        given.valid is None
        and len(given.train) == N
        and torch.equal(given.test.batch(torch.arange(4)).x, here.train.prepare(torch.from_numpy(x[:4])))
    )


def test_missing_entries(tmp_path: Path) -> None:
    x = np.random.RandomState(0).randn(N, D)
    x[::7, 2] = np.nan
    path = saved(tmp_path, x)
    here, there = arrays(x, seed=1), on_disk(path, missing=True, seed=1)
    masked = on_disk(path, mask=saved(tmp_path, ~np.isnan(x), "mask.npy"), seed=1)
    index = torch.arange(len(here.train)).flip(0)
    for data in (there, masked):
        batch, expected = data.train.batch(index), here.train.batch(index)
        assert batch.mask is not None and expected.mask is not None and torch.equal(batch.mask, expected.mask)
        assert torch.equal(batch.input, expected.input)
        assert checksum(data.train) == checksum(here.train)
    with pytest.raises(InputError, match="10 values are not finite in float32, the first in row 0"):
        on_disk(path)
    with pytest.raises(InputError, match="give one of them"):
        on_disk(path, missing=True, mask=path)
    assert on_disk(saved(tmp_path, grey(), "bytes.npy"), missing=True).train.mask is None


# --- training ----------------------------------------------------------------------------------------------------------------------------


def kinds(folder: Path) -> dict[str, tuple[Callable[[], VAE], Callable[[], DataSet], Callable[[], DataSet]]]:
    x, label, holes = grey(), np.arange(N) % 3, np.random.RandomState(0).randn(N, D)
    holes[::5, 1] = np.nan
    path, rough = saved(folder, x), saved(folder, holes, "holes.npy")
    return {
        "binarised, labelled": (
            model,
            lambda: binarise(arrays(x, label=label, valid=10)),
            lambda: binarise(on_disk(path, label=label, valid=10)),
        ),
        "with missing entries": (gaussian, lambda: arrays(holes, valid=10), lambda: on_disk(rough, missing=True, valid=10)),
    }


@pytest.mark.parametrize("kind", ["binarised, labelled", "with missing entries"])
def test_weights_are_those_of_data_in_memory(kind: str, tmp_path: Path) -> None:
    """Bit for bit, with every row of the history; the held-out splits are read from the file too. (Compiled: in test_data_stream.)"""
    build, here, there = kinds(tmp_path)[kind]
    options = settings(compile=False, repeat=2, ema=0.9)
    one, other = (quiet(build(), make(), training=options) for make in (here, there))
    assert same(one.model, other.model) and one.step == other.step == 3 * 4 * 2
    for a, b in zip(one.history, other.history, strict=True):
        assert {k: v for k, v in a.items() if k != "seconds"} == {k: v for k, v in b.items() if k != "seconds"}
    test = (here().test, there().test)
    assert evaluate(one.model, test[0], samples=3) == evaluate(other.model, test[1], samples=3)


class Stopped(ELBO):
    """Ctrl-C at a step."""

    def __init__(self, at: int | None) -> None:
        super().__init__()
        self._at = at

    def forward(self, model: Any, batch: Any, step: int = 0) -> Any:
        if self.training and step == self._at:
            os.kill(os.getpid(), 2)
        return super().forward(model, batch, step)


def test_a_resumed_run_is_the_run_and_may_change_its_place(tmp_path: Path) -> None:
    build, here, there = kinds(tmp_path)["binarised, labelled"]
    whole = quiet(build(), here(), objective=Stopped(None), training=settings())
    for at, make in ((2, there), (9, here)):
        with pytest.raises(Interrupted):
            quiet(build(), make(), objective=Stopped(at), training=settings(), out=tmp_path / "run", resume=True)
        assert not reading()
    assert same(whole.model, quiet(build(), there(), objective=Stopped(None), training=settings(), out=tmp_path / "run", resume=True).model)


def test_other_data_are_not_gone_on_with(tmp_path: Path) -> None:
    x = grey()
    x[0] ^= 1
    build, _, there = kinds(tmp_path)["binarised, labelled"]
    quiet(build(), there(), training=settings(epochs=1), out=tmp_path / "run")
    saved(tmp_path, x)
    with pytest.raises(InputError, match=r"training data [0-9a-f]{8}, prepared by bernoulli and is to go on with"):
        quiet(build(), there(), training=settings(), out=tmp_path / "run", resume=True)


def reading() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "vaekit-ahead"]


class Late(ELBO):
    """Does something to the file in the middle of an epoch."""

    def __init__(self, act: Callable[[], object], at: int) -> None:
        super().__init__()
        self._act, self._at = act, at

    def forward(self, model: Any, batch: Any, step: int = 0) -> Any:
        if self.training and step == self._at:
            self._act()
        return super().forward(model, batch, step)


def cut(path: Path) -> None:
    with open(path, "r+b") as file:
        file.truncate(200)


CHANGES: dict[str, Callable[[Path], object]] = {
    "cut short": cut,
    "written to": lambda path: path.write_bytes(path.read_bytes()[::-1]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_while_it_is_read(change: str, tmp_path: Path) -> None:
    path = saved(tmp_path, np.random.RandomState(0).randn(400, D).astype(np.float32))

    def act() -> None:
        time.sleep(0.05)  # until nobody reads: under a copy that is being made the system would end this process
        CHANGES[change](path)

    objective = Late(act, 6)
    with pytest.raises(InputError, match=r"x\.npy was changed while it was in use: put back what was there and resume"):
        quiet(gaussian(), on_disk(path), objective=objective, training=settings(batch_size=8), out=tmp_path / "run")
    assert not reading()


def test_a_file_that_is_replaced_or_removed_is_read_to_its_end(tmp_path: Path) -> None:
    x = np.random.RandomState(0).randn(400, D).astype(np.float32)
    path = saved(tmp_path, x)
    expected = quiet(gaussian(), arrays(x), training=settings())
    found = quiet(gaussian(), on_disk(path), objective=Late(path.unlink, 6), training=settings())
    assert same(expected.model, found.model)


def test_no_thread_is_left_by_an_error(tmp_path: Path) -> None:
    def fail() -> None:
        raise RuntimeError("of the objective")

    path = saved(tmp_path, np.random.RandomState(0).randn(400, D).astype(np.float32))
    try:
        quiet(gaussian(), on_disk(path), objective=Late(fail, 3), training=settings())
    except RuntimeError as error:
        assert str(error) == "of the objective" and not reading()  # while the traceback still holds the loop's frame
    else:
        pytest.fail("nothing was raised")


def test_a_nan_outside_of_the_sample_stops_the_step_that_meets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaekit.data.disk.RUNS", 4)
    monkeypatch.setattr("vaekit.data.disk.RUN", 2 * 4 * D)
    x = np.random.RandomState(0).randn(400, D).astype(np.float32)
    rows = FileRows(saved(tmp_path, x))
    assert rows.sample().tolist() == [0, 1, 132, 133, 265, 266, 398, 399]
    x[77] = np.nan
    split = Split(FileRows(saved(tmp_path, x)))
    assert " of a sample of 400 rows" in checksum(split)
    with pytest.raises(NonFiniteError, match=r"x is NaN for 1 of 16 examples \(row 77\)"):
        quiet(gaussian(), split, training=settings())
    x[77], x[133] = 0, np.inf
    with pytest.raises(InputError, match="6 values are not finite in float32, the first in row 133"):
        Split(FileRows(saved(tmp_path, x)))


@pytest.mark.parametrize("n", [1, 2, 9, 50, 8192, 8193, 20_000])
def test_a_sample_has_the_first_row_and_the_last(n: int, tmp_path: Path) -> None:
    path = tmp_path / "sparse.npy"
    np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(n, 2500))
    whole = FileRows(path)
    for rows in (whole, whole.take(torch.randperm(n))):
        sample = rows.sample()
        assert sample[0] == 0 and sample[-1] == n - 1 and bool((sample.diff() > 0).all())
        assert len(sample) * 10_000 <= 2**26 + 2 * 2**16


# --- memory ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of one program is read from /proc")
def test_memory_is_bounded(tmp_path: Path) -> None:
    """What is looked at of 400 MB, a pass in random order and one in theirs take under 200 MB."""
    code = """if True:
        import sys, torch
        from vaekit import Training
        from vaekit.data import disk, on_disk
        from vaekit.train.feed import feeds_of

        peak = lambda: int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) // 1024
        before = peak()
        disk.RESIDENT = 2**25
        data, bytes_ = on_disk(sys.argv[1], missing=True, valid=0.5, test=10), 0
        feeds = feeds_of(data, Training(batch_size=512), torch.device("cpu"))
        for name in ("training", "validation"):
            assert "of a sample of" in feeds[name].identity()
            for rows, last in feeds[name].epoch(0):
                bytes_ += feeds[name].batch(rows).mask.numel()
        print(bytes_, peak() - before)
    """
    path = tmp_path / "large.npy"
    np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(100_000, 1000))  # sparse: no block of the disk is taken
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, env=os.environ, check=True)
    seen, taken = map(int, done.stdout.split())
    assert seen == 99_990 * 1000 and 2 < taken < 200


# --- what is refused ---------------------------------------------------------------------------------------------------------------------


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(InputError) as error:
        on_disk(path, **options)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300
    return str(error.value)


def test_files_that_cannot_be_read_row_by_row(tmp_path: Path) -> None:
    x = grey()
    assert "no such file" in refused(tmp_path / "none.npy")
    assert "is a directory" in refused(tmp_path)
    assert "Fortran order" in refused(saved(tmp_path, np.asfortranarray(x.astype(np.float32))))
    np.savez(tmp_path / "x.npz", x=x)
    assert "archive" in refused(tmp_path / "x.npz")
    (tmp_path / "text.npy").write_text("1,2,3\n")
    assert "no whole .npy file" in refused(tmp_path / "text.npy")
    (tmp_path / "empty.npy").write_bytes(b"")
    assert "no whole .npy file" in refused(tmp_path / "empty.npy")
    short = saved(tmp_path, x, "short.npy")
    cut(short)
    assert "no whole .npy file" in refused(short)
    assert "give numbers or booleans" in refused(saved(tmp_path, x.astype("U3"), "words.npy"))
    assert "no whole .npy file" in refused(saved(tmp_path, np.array([[1], [None]], dtype=object), "objects.npy"))
    assert "no event axis" in refused(saved(tmp_path, x[:, 0], "line.npy"))
    assert "give rows [N, *]" in refused(saved(tmp_path, np.array(3.0), "point.npy"))
    assert refused(saved(tmp_path, x[:0], "none.npy"))
    path = saved(tmp_path, x)
    assert "leave none of 70 for training" in refused(path, valid=35, test=35)
    assert "no amount of rows" in refused(path, valid=-1)
    assert "one label a row" in refused(path, label=np.arange(3))
    assert "the mask is" in refused(path, mask=path)
    assert "no such file" in refused(path, valid=tmp_path / "nothing.npy")


def test_a_file_that_may_only_be_read(tmp_path: Path) -> None:
    path = saved(tmp_path, grey())
    path.chmod(0o444)
    assert len(on_disk(path, valid=0).train) == 63


def test_what_fit_looks_at_in_a_file_too(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the training data lie in \[0, 2\] and p\(x \| z\), .*, scores "):
        quiet(model(), on_disk(saved(tmp_path, np.linspace(0, 2, N * D).reshape(N, D)), valid=0, test=1), training=settings())
    with pytest.raises(InputError, match="scale the images first"):
        binarise(on_disk(saved(tmp_path, np.full((9, D), 2.0))))


def test_binarised_splits_are_drawn_alike_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = grey()
    expected = binarise(arrays(x, valid=20))
    monkeypatch.setattr(sys.modules["vaekit.data.binarise"], "CHUNK", 5 * D)
    found = binarise(on_disk(saved(tmp_path, x), valid=20))
    for a, b in ((found.test, expected.test), (found.valid, expected.valid)):
        assert a is not None and b is not None and isinstance(a.x, Tensor) and isinstance(b.x, Tensor) and torch.equal(a.x, b.x)
