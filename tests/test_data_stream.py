"""Batches from somebody else's loader: what is exact, what is refused, and no thread left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from test_data_disk import D, N, Stopped, gaussian, grey, model, quiet, reading, same, settings
from vaekit import Batch, NonFiniteError, Training
from vaekit.data import DataSet, FileRows, Split, Stream, bernoulli
from vaekit.data.ahead import Ahead, ahead_where_slow
from vaekit.errors import InputError
from vaekit.train import Interrupted
from vaekit.train.feed import feeds_of
from vaekit.train.run import permutation

ROWS = torch.from_numpy(grey())
HELD = Split((ROWS[:20] > 99).float())


def shuffled(rows: Tensor = ROWS, **options: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(rows), batch_size=16, shuffle=True, **options)


def as_fit(epoch: int) -> Iterator[Tensor]:
    """The batches of `fit` with seed 5."""
    return (ROWS[index] for index in permutation(N, 5, epoch).split(16))


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loaders as fast as these would be run between the steps."""
    monkeypatch.setattr("vaekit.data.ahead.WORTH", 0.0)


# --- ahead -------------------------------------------------------------------------------------------------------------------------------


def test_ahead_is_map_and_only_so_far_ahead() -> None:
    done: list[int] = []

    def square(n: int) -> int:
        done.append(n)
        return n * n

    ahead = Ahead(square, range(100), depth=3)
    assert not done and not reading()
    assert next(ahead) == 0
    time.sleep(0.05)
    assert done == [0, 1, 2, 3]
    assert [*ahead] == [n * n for n in range(1, 100)] and not [*ahead]
    ahead.close()
    assert not reading()


def test_ahead_raises_what_the_function_raised_in_its_place() -> None:
    ahead = Ahead(lambda n: 1 // (2 - n), range(9), depth=5)
    assert [next(ahead), next(ahead)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(ahead)
    assert not [*ahead]
    ahead.close()
    assert not reading()


def test_ahead_that_is_closed_does_no_more() -> None:
    for taken in (0, 1, 5):
        ahead = Ahead(str, iter(int, 1), depth=2)
        for _ in range(taken):
            next(ahead)
        ahead.close()
        assert not reading() and not [*ahead]


# --- what is exact -----------------------------------------------------------------------------------------------------------------------


def test_only_slow_work_is_done_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(n: int) -> int:
        time.sleep(0.06)
        return n * n

    monkeypatch.setattr("vaekit.data.ahead.WORTH", 0.05)
    for work, threads in ((lambda n: n * n, 0), (slowly, 1)):
        found = ahead_where_slow(work, range(8), depth=1)
        first = [next(found) for _ in range(4)]
        assert len(reading()) == threads
        assert [*first, *found] == [n * n for n in range(8)] and not reading()
        left = ahead_where_slow(work, range(8), depth=1)
        _ = [next(left) for _ in range(4)]
        left.close()
        assert not reading()


@pytest.mark.parametrize("ahead", [0, 2])
def test_the_same_batches_give_the_same_weights(ahead: int) -> None:
    """A stream of the batches that `fit` would make: bit for bit its run, dynamic binarisation and validation included."""
    options = settings(compile=False, repeat=2)
    stream = Stream(as_fit, prepare=bernoulli, valid=HELD, ahead=ahead)
    found = quiet(model(), stream, training=options)
    expected = quiet(model(), Split(ROWS, prepare=bernoulli), training=options)
    assert same(found.model, expected.model) and found.step == expected.step
    train = [{k: v for k, v in row.items() if k.startswith("train")} for row in expected.history]
    assert [{k: v for k, v in row.items() if k.startswith("train")} for row in found.history] == train
    assert all("valid/bound" in row and "valid/active" in row for row in found.history)


def test_compiled_rows_in_memory_in_a_file_and_of_a_stream_are_one(tmp_path: Path) -> None:
    """Bit for bit, with every row of the history. One program gathers its rows itself, the other two are given them."""
    np.save(tmp_path / "x.npy", grey())
    rows = [Split(x, prepare=bernoulli) for x in (ROWS, FileRows(tmp_path / "x.npy"))]
    kinds = [*(DataSet("rows", train=split, test=HELD, valid=HELD) for split in rows), Stream(as_fit, prepare=bernoulli, valid=HELD)]
    options = settings(compile=True, repeat=2, ema=0.9)
    want, *others = (quiet(model(), kind, training=options, out=tmp_path / str(n)) for n, kind in enumerate(kinds))
    for n, found in enumerate(others, 1):
        assert same(found.model, want.model) and found.step == want.step == 3 * 5 * 2
        histories = ([{k: v for k, v in row.items() if k != "seconds"} for row in fitted.history] for fitted in (found, want))
        assert next(histories) == next(histories)
        assert "compiled into one program" in (log := (tmp_path / str(n) / "log.txt").read_text()) and "was not compiled" not in log
    torch._dynamo.reset()


def test_an_epoch_says_which_step_is_its_last(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", grey())
    for data in (Split(ROWS), Split(FileRows(tmp_path / "x.npy")), Stream(shuffled()), Stream(lambda epoch: as_fit(epoch))):
        feed = feeds_of(data, Training(batch_size=16, repeat=2), torch.device("cpu"))["training"]
        assert (feed.size, feed.rows in (N, None), feed.batches in (10, None)) == (16, True, True)
        for start in (0, 3, 9):
            assert [last for _, last in feed.epoch(1, start)] == [False] * (9 - start) + [True]
        firsts = [feed.batch(next(feed.epoch(1, start))[0]).x for start in (2, 3)]
        assert torch.equal(*firsts)
        feed.close()
        assert not reading()


class Noisy(Dataset[Tensor]):
    """Augmented in this very process, by torch's global generator."""

    def __len__(self) -> int:
        return N

    def __getitem__(self, row: int) -> Tensor:
        return ROWS[row].float() / 255 + 0.01 * torch.randn(D)


class Endless(IterableDataset[Tensor]):
    def __iter__(self) -> Iterator[Tensor]:
        n = 0
        while True:
            yield torch.full((D,), float(n % 7))
            n += 1


LOADERS: dict[str, tuple[Callable[[], Stream], int | None]] = {
    "shuffled": (lambda: Stream(shuffled(ROWS / 255)), 5),
    "workers": (lambda: Stream(shuffled(ROWS / 255, num_workers=1)), 5),
    "augmented": (lambda: Stream(DataLoader(Noisy(), batch_size=16, shuffle=True)), 5),
    "without end": (lambda: Stream(DataLoader(Endless(), batch_size=16), batches=5), 5),
    "of unknown length": (lambda: Stream(lambda epoch: (b / 255 for b in as_fit(epoch))), None),
}


@pytest.mark.parametrize("name", LOADERS)
def test_a_resumed_run_is_the_run(name: str, tmp_path: Path) -> None:
    """Also with dropout and reparametrised noise going on, and stops in the middle of an epoch and of a batch's visits."""
    make, batches = LOADERS[name]
    assert make().batches == batches
    options = settings(repeat=2, epochs=2)
    whole = quiet(gaussian(), make(), objective=Stopped(None), training=options)
    again = quiet(gaussian(), make(), objective=Stopped(None), training=options)
    assert same(whole.model, again.model) and whole.step == 20
    for at in (2, 13):
        with pytest.raises(Interrupted):
            quiet(gaussian(), make(), objective=Stopped(at), training=options, out=tmp_path, resume=True)
        assert not reading()
    resumed = quiet(gaussian(), make(), objective=Stopped(None), training=options, out=tmp_path, resume=True)
    assert same(whole.model, resumed.model)


def test_epochs_are_shuffled_anew_and_validation_is_not() -> None:
    stream = Stream(shuffled())
    first, second, again = ([b.x for b in stream.epoch(epoch, 3)] for epoch in (0, 1, 0))
    assert not torch.equal(first[0], second[0]) and all(map(torch.equal, first, again))
    assert sorted(torch.cat(first).tolist()) == sorted(torch.cat(second).tolist()) == sorted(ROWS.tolist())
    rows = shuffled(ROWS / 255)
    fitted = quiet(gaussian(), Stream(rows, valid=Stream(rows)), training=Training(epochs=2, optimiser=partial(torch.optim.SGD, lr=0.0)))
    a, b = fitted.history
    assert a["valid/bound"] == b["valid/bound"] and a["valid/active"] == b["valid/active"]
    assert a["train/bound"] != b["train/bound"]


def test_the_loader_draws_nothing_of_the_noise() -> None:
    for loader in (shuffled(), DataLoader(Noisy(), batch_size=16, shuffle=True)):
        before = torch.get_rng_state()
        for _ in Stream(loader).epoch(0, 0):
            assert torch.equal(torch.get_rng_state(), before)


def test_a_loader_that_draws_is_not_run_in_a_thread() -> None:
    small = DataLoader(TensorDataset(ROWS), batch_size=8, shuffle=True)
    for loader, threads in ((small, 1), (DataLoader(Noisy(), batch_size=8), 0)):
        batches = Stream(loader, ahead=1).epoch(0, 0)
        _ = [next(batches) for _ in range(5)]
        assert len(reading()) == threads
        batches.close()
        assert not reading()


def test_a_loader_that_draws_now_and_then_stays_between_the_steps() -> None:
    def batches() -> Iterator[Tensor]:
        for number in range(12):
            yield torch.rand(2, 3) if number % 2 else torch.zeros(2, 3)

    found = Stream(lambda epoch: batches(), ahead=1).epoch(0, 0)
    first = [next(found).x for _ in range(8)]
    assert not reading()
    again = Stream(lambda epoch: batches(), ahead=1).epoch(0, 0)
    assert torch.equal(torch.cat(first), torch.cat([next(again).x for _ in range(8)]))
    found.close(), again.close()


def test_only_a_slow_loader_is_run_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def batches(seconds: float) -> Iterator[Tensor]:
        for batch in ROWS.split(8):
            time.sleep(seconds)
            yield batch

    monkeypatch.setattr("vaekit.data.ahead.WORTH", 0.05)
    for seconds, threads in ((0.0, 0), (0.06, 1)):
        found = Stream(lambda epoch, seconds=seconds: batches(seconds), ahead=1).epoch(0, 0)
        first = [next(found) for _ in range(5)]
        assert len(reading()) == threads
        assert torch.equal(torch.cat([b.x for b in [*first, *found]]), ROWS)


def test_other_data_are_not_gone_on_with(tmp_path: Path) -> None:
    quiet(gaussian(), Stream(shuffled(ROWS / 255)), training=settings(epochs=1), out=tmp_path)
    with pytest.raises(InputError, match=r"training data stream, float32 rows of \[6\], 5 batches, .* go on with stream, .*, 3 batches,"):
        quiet(gaussian(), Stream(shuffled(ROWS / 255), batches=3), training=settings(), out=tmp_path, resume=True)


def test_a_loader_that_gives_less_than_was_done(tmp_path: Path) -> None:
    given = [ROWS / 255] * 5
    with pytest.raises(Interrupted):
        quiet(gaussian(), Stream(lambda epoch: iter(given)), objective=Stopped(3), training=settings(), out=tmp_path)
    with pytest.raises(InputError, match="stream gave 2 batches in epoch 1 and the run is to go on after 4: give what it was begun with"):
        quiet(gaussian(), Stream(lambda epoch: iter(given[:2])), objective=Stopped(None), training=settings(), out=tmp_path, resume=True)


# --- what a batch is ---------------------------------------------------------------------------------------------------------------------


def test_forms_of_a_batch() -> None:
    x, mask = ROWS[:4], ROWS[:4] > 9
    forms: list[Any] = [x, x.numpy(), (x, torch.arange(4)), [x], {"x": x, "label": 3}, Batch(x)]
    masked: list[Any] = [{"x": x, "mask": mask}, Batch(x, mask=mask), {"x": x.numpy(), "mask": mask.numpy()}]
    for batch in Stream(forms).epoch(0, 0):
        assert torch.equal(batch.x, x) and batch.mask is None
    for batch in Stream(masked).epoch(0, 0):
        assert torch.equal(batch.x, x) and batch.mask is not None and torch.equal(batch.mask, mask)
    shown, size = Stream([ROWS.repeat(9, 1), x]).first(0)
    assert (len(shown), size) == (9 * N + 4, 9 * N)
    assert len(Stream([ROWS] * 20).first(0)[0]) == 1000


GARBAGE: dict[str, tuple[list[Any], str]] = {
    "text": (["rows"], "batch 0 of stream is a str: give a tensor"),
    "nothing": ([], "stream gave 0 batches in epoch 1: it needs at least one"),
    "None": ([ROWS, None], "batch 1 of stream is a NoneType: give a tensor"),
    "an empty tuple": ([()], "batch 0 of stream is a tuple: give a tensor"),
    "a list of rows": ([["a", "b"]], "batch 0 of stream is a list of a str: give a tensor"),
    "a dict without x": ([{"image": ROWS}], "batch 0 of stream is a dict without \"x\": its keys are 'image'"),
    "no event axis": ([ROWS[:, 0]], r"batch 0 of stream is uint8 \[70\]: give rows"),
    "no rows": ([ROWS, ROWS, ROWS[:0]], r"batch 2 of stream is uint8 \[0, 6\]: give rows"),
    "complex": ([ROWS.to(torch.complex64)], "batch 0 of stream is complex64"),
    "another shape": ([ROWS, ROWS, ROWS[:, :5]], r"batch 2 of stream has uint8 rows of \[5\] and the first one had uint8 rows of \[6\]"),
    "another dtype": ([ROWS, ROWS.float()], "batch 1 of stream has float32 rows"),
    "a mask now and then": ([ROWS, {"x": ROWS, "mask": ROWS > 3}], r"batch 1 of stream has uint8 rows of \[6\] with a mask"),
    "a mask of numbers": ([{"x": ROWS, "mask": ROWS}], "the mask of batch 0 of stream is uint8"),
    "a context": ([Batch(ROWS, c=ROWS)], "has a context c"),
    "outside of the support": ([3.0 * ROWS], r"the training data lie in \[0, 765\] and p\(x \| z\)"),
    "another event": ([torch.zeros(4, 5)], r"training rows of shape \[5\]|training rows have shape \[5\]"),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_one_line(name: str) -> None:
    batches, message = GARBAGE[name]
    with pytest.raises(InputError, match=message) as error:
        quiet(model(), Stream(batches, prepare=to_unit if name not in ("outside of the support", "another event") else torch.Tensor.float))
    assert "\n" not in str(error.value)
    assert not reading()


def to_unit(x: Tensor) -> Tensor:
    return (x > 99).float()


def test_what_a_stream_is_not() -> None:
    for make, message in (
        (lambda: Stream(3), "a stream of a int"),  # type: ignore[arg-type]
        (lambda: Stream([], batches=0), "batches=0"),
        (lambda: Stream([], ahead=-1), "ahead=-1"),
        (lambda: Stream([], valid=[ROWS]), "valid is a list"),  # type: ignore[arg-type]
        (lambda: quiet(model(), [ROWS]), r"data is a list: .* or a vaekit\.data\.Stream of a loader"),
        (lambda: quiet(gaussian(), Stream(iter([ROWS]))), "stream is a list_iterator, which can be run through only once"),
    ):
        with pytest.raises(InputError, match=message):
            make()


def failing(epoch: int) -> Iterator[Tensor]:
    yield from [ROWS / 255] * 4
    raise OSError("the disk is gone")


def test_what_the_loader_raises_reaches_the_user() -> None:
    with pytest.raises(OSError, match="the disk is gone"):
        quiet(gaussian(), Stream(failing, batches=9), training=settings())
    assert not reading()


def test_a_nan_is_found_in_its_batch() -> None:
    rows = (ROWS / 255).repeat(2, 1)
    rows[100, 3] = torch.nan

    def batches(epoch: int) -> Iterator[Tensor]:
        return iter([ROWS / 255] * 20 + [rows])

    with pytest.raises(NonFiniteError, match=r"step 20, epoch 1: x is NaN for 1 of 140 examples \(row 100\)"):
        quiet(gaussian(), Stream(batches), training=settings())
    assert not reading() and threading.active_count() >= 1


def test_unknown_lengths_are_shown_as_such(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaekit.train.progress.Lines.interval", 0.0)
    quiet(gaussian(), Stream(lambda epoch: iter([ROWS / 255] * 3)), training=settings(epochs=1), progress=True)
    assert "step 1/?" in capsys.readouterr().err


def test_batch_normalisation_and_one_row_alone() -> None:
    vae = gaussian()
    vae.posterior = type(vae.posterior)(nn.Sequential(nn.Linear(D, 4), nn.BatchNorm1d(4)), vae.posterior.head)
    rows = np.asarray(ROWS / 255)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        quiet(vae, Stream([rows, rows[:1]]), training=settings())
    assert not reading()


def test_a_loader_may_fill_the_same_memory_again() -> None:
    def batches(epoch: int) -> Iterator[np.ndarray]:
        rows = np.zeros((4, 2), "f4")
        for number in range(9):
            rows[:] = number
            yield rows

    stream = Stream(batches)
    assert [float(batch.x[0, 0]) for batch in list(stream.epoch(0, 0))] == list(range(9))
