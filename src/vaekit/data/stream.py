"""Batches from a pipeline of your own: a ``torch.utils.data.DataLoader``, or anything that can be run through."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from itertools import count, islice
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaekit.data.ahead import Ahead, Pace
from vaekit.data.core import DTYPES, Prepare, Split, to_float
from vaekit.errors import InputError
from vaekit.types import Batch

__all__ = ["Stream"]

END: Any = object()


class Stream:
    """Batches for `vaekit.fit` from a loader: what it gives is the training data, in its order and its batches.

    A batch is a tensor or array of rows x ``[B, *]``, a tuple (x, ...) of which only x is used, a dict with "x" and perhaps "mask", or a
    `Batch`. Rows are as a `Split` holds them: bytes become x / 255. All batches have the same shape but for B, one dtype, and a mask all or
    none. ``Training.batch_size`` is the loader's business.

    An epoch is one pass: the loader is run through, in a thread ``ahead`` batches ahead of the steps where it is slow
    (`vaekit.data.ahead.WORTH`). Noise comes from torch's global generator, so nothing in that thread may draw from it. A loader may when it
    begins and for its first batch, as a DataLoader does that shuffles: these are made between the steps, with the generator seeded by the
    run's seed and the epoch. One that draws for a batch after the first too (augmentation without worker processes) is run between the
    steps to its end, with a state of its own.

    What is exact: the noise, the weights for the same batches, and a resumed run where the loader gives the same batches again in the
    same epoch: it begins at the epoch's start and passes over the batches that were done. That is so for a DataLoader that shuffles with
    torch's generators, and for a function of the epoch that draws from ``torch.Generator().manual_seed(epoch)``; it is not for one that
    draws from elsewhere. The run's identity holds name, shape, dtype, number of batches and preparation, not the data themselves. And
    what `fit` looks at in all rows of a `Split` (the likelihood's support) is looked at in the first `SHOWN` here.

    Args:
        loader: an iterable that can be run through again and again, or a function: number of the epoch, from 0 -> iterable.
        batches: an epoch's, for a loader without end; by default as many as it gives.
        prepare: stored rows ``[B, *]`` -> float32 model input, as in `Split`.
        valid: a split or another stream to validate on after each epoch.
        ahead: how many batches at most wait for their step; 0 to run the loader between the steps, without a thread.
        name: of the data, part of the run's identity.

    Raises:
        InputError: settings out of range; later, a batch that is none.

    >>> rows = torch.arange(12.0).view(6, 2)
    >>> stream = Stream(torch.utils.data.DataLoader(torch.utils.data.TensorDataset(rows), batch_size=4))
    >>> [batch.x.shape for batch in stream.epoch(0, seed=0)], stream.batches
    ([torch.Size([4, 2]), torch.Size([2, 2])], 2)
    """

    SHOWN = 1000

    def __init__(
        self,
        loader: Iterable[Any] | Callable[[int], Iterable[Any]],
        *,
        batches: int | None = None,
        prepare: Prepare = to_float,
        valid: Split | Stream | None = None,
        ahead: int = 4,
        name: str = "stream",
    ) -> None:
        if not isinstance(loader, Iterable) and not callable(loader):
            raise InputError(f"a stream of a {type(loader).__name__}: give an iterable of batches, or a function: epoch -> iterable")
        if batches is not None and batches < 1:
            raise InputError(f"batches={batches}: an epoch has at least 1; None for as many as the loader gives")
        if ahead < 0:
            raise InputError(f"ahead={ahead}: at least 0, for a loader that is run between the steps")
        if valid is not None and not isinstance(valid, Split | Stream):
            raise InputError(f"valid is a {type(valid).__name__}: give a Split or a Stream")
        self.loader, self.prepare, self.valid, self.ahead, self.name = loader, prepare, valid, ahead, name
        self._limit = batches
        self._like = ""  # what all batches must be like

    @property
    def batches(self) -> int | None:
        """How many an epoch has; None where the loader does not say."""
        try:
            known: int | None = len(self.loader)  # type: ignore[arg-type]  # not every iterable has a length
        except (TypeError, NotImplementedError):
            known = None
        both = [n for n in (known, self._limit) if n is not None]
        return min(both) if both else None

    def epoch(self, number: int, seed: int, *, start: int = 0, device: torch.device | str = "cpu") -> Generator[Batch]:
        """An epoch's batches as they are stored, from the one with number ``start`` on. To be closed where it is not run to its end.

        Raises:
            InputError: the loader can be run through once only, gives nothing, or something that is no batch.
        """
        words = np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)
        apart = _Apart(torch.Generator().manual_seed(int(words[0])).get_state())
        done = 0
        with closing(self._batches(apart(lambda: self._begin(number)), apart, torch.device(device))) as batches:
            for done, batch in enumerate(islice(batches, self._limit), 1):
                if done > start:
                    yield batch
        if done <= start:
            raise InputError(
                f"{self.name} gave {done} batches in epoch {number + 1}"
                + (f" and the run is to go on after {start}: give what it was begun with" if start else ": it needs at least one")
            )

    def _begin(self, number: int) -> Iterator[Any]:
        loader: Any = self.loader if isinstance(self.loader, Iterable) else self.loader(number)
        begun = iter(loader)
        if begun is self.loader:
            raise InputError(
                f"{self.name} is a {type(begun).__name__}, which can be run through only once: give a function that begins it anew, "
                "Stream(lambda epoch: ...)"
            )
        return begun

    def _batches(self, loader: Iterator[Any], apart: _Apart, device: torch.device) -> Generator[Batch]:
        def stored(item: tuple[int, Any]) -> Batch:
            return _brought(self._stored(item[1], item[0]), device)

        pace = Pace()
        for number in count():
            if number == 1:
                apart.moved = False  # it may draw when it begins; whoever draws for a later batch stays between the steps to the end
            begun = perf_counter()
            given = apart(lambda: next(loader, END))
            if given is END:
                return
            if number > 0:  # for the first workers start
                pace.took(perf_counter() - begun)
            yield stored((number, given))
            if pace.slow and self.ahead > 0 and not apart.moved:
                break
        with closing(Ahead(stored, enumerate(loader, number + 1), depth=self.ahead)) as rest:
            yield from rest

    def first(self, seed: int) -> tuple[Split, int]:
        """The first rows of the first epoch, at most `SHOWN`, as a split in memory, and how many rows the first batch has."""
        kept: list[Batch] = []
        with closing(self.epoch(0, seed)) as batches:
            for batch in batches:
                kept.append(batch)
                if sum(b.size for b in kept) >= self.SHOWN:
                    break
        x, masks = torch.cat([b.x for b in kept]), [b.mask for b in kept if b.mask is not None]
        return Split(x[: self.SHOWN], prepare=self.prepare, mask=torch.cat(masks)[: self.SHOWN] if masks else None), kept[0].size

    def _stored(self, given: Any, number: int) -> Batch:
        """What the loader gave, as a `Batch` of stored rows like the first one."""
        where = f"batch {number} of {self.name}"
        mask: Any = None
        if isinstance(given, Batch):
            if given.c is not None:
                raise InputError(f"{where} has a context c, which fit does not pass on: train with vaekit.train.lightning.LightningVAE")
            x, mask = given.x, given.mask
        elif isinstance(given, dict):
            if "x" not in given:
                raise InputError(f'{where} is a dict without "x": its keys are {", ".join(map(repr, given)) or "none"}')
            x, mask = given["x"], given.get("mask")
        else:
            x = given[0] if isinstance(given, tuple | list) and given else given
        x, mask = (torch.from_numpy(part) if isinstance(part, np.ndarray) and part.dtype.kind in "buif" else part for part in (x, mask))
        if not isinstance(x, Tensor) or not (mask is None or isinstance(mask, Tensor)):
            raise InputError(
                f"{where} is a {type(given).__name__}"
                + ("" if given is x else f" of a {type(x).__name__}")
                + ': give a tensor x [B, *], a tuple (x, ...), a dict with "x", or a Batch'
            )
        if x.dtype not in DTYPES or x.dim() < 2 or x.numel() == 0:
            raise InputError(f"{where} is {str(x.dtype)[6:]} {list(x.shape)}: give rows [B, *] of bytes, bools, floats or signed integers")
        if mask is not None and (mask.dtype != torch.bool or mask.shape != x.shape):
            raise InputError(f"the mask of {where} is {str(mask.dtype)[6:]} {list(mask.shape)}: it must be bool {list(x.shape)}, as x")
        # copies, for a loader may fill the same memory again; and what is made in the default dtype may be float64 while such a run is on
        x = x.detach().to(torch.float32 if x.dtype == torch.float64 else x.dtype, memory_format=torch.contiguous_format, copy=True)
        batch = Batch(x, mask=None if mask is None else mask.clone(memory_format=torch.contiguous_format))
        self._like = self._like or _like(batch)
        if _like(batch) != self._like:
            raise InputError(f"{where} has {_like(batch)} and the first one had {self._like}: all must be alike")
        return batch

    def describe(self) -> str:
        """The part of a run's identity: name, what a row is, batches an epoch, and what prepares them. Known after `first`."""
        prepare = getattr(self.prepare, "__qualname__", type(self.prepare).__name__)
        return f"{self.name}, {self._like}, {self.batches or 'any number of'} batches, prepared by {prepare}"


class _Apart:
    """Calls with a state of torch's global generator that is theirs alone."""

    def __init__(self, state: Tensor) -> None:
        self.state, self.moved = state, False

    def __call__(self, call: Callable[[], Any]) -> Any:
        others = torch.get_rng_state()
        torch.set_rng_state(self.state)
        try:
            return call()
        finally:
            state = torch.get_rng_state()
            self.moved = self.moved or not torch.equal(state, self.state)
            self.state = state
            torch.set_rng_state(others)


def _brought(batch: Batch, device: torch.device) -> Batch:
    """The batch on a device: to a GPU by way of page-locked memory, without waiting for it."""
    if device.type == "cpu":
        return batch.to(device)
    x, mask = (None if t is None else t if t.is_cuda else t.pin_memory().to(device, non_blocking=True) for t in (batch.x, batch.mask))
    return batch._replace(x=batch.x if x is None else x, mask=mask)


def _like(batch: Batch) -> str:
    """dtype and shape of a row."""
    return f"{str(batch.x.dtype)[6:]} rows of {list(batch.x.shape[1:])}" + ("" if batch.mask is None else " with a mask")
