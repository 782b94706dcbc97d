"""What a run is fed: the batches of each epoch in their order, read ahead where they do not lie in memory."""

from __future__ import annotations

import abc
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from functools import partial
from itertools import chain, islice, pairwise

import torch
from torch import Tensor

from vaekit.data.ahead import ahead_where_slow
from vaekit.data.core import Prepare, Split
from vaekit.data.stored import StoredRows
from vaekit.data.stream import Stream
from vaekit.errors import InputError
from vaekit.train.checks import splits_of
from vaekit.train.identity import checksum
from vaekit.train.ranks import Rows
from vaekit.train.run import permutation
from vaekit.train.settings import Training
from vaekit.types import Batch

__all__ = ["Feed", "SplitFeed", "StreamFeed", "feeds_of", "grouped", "in_order"]

DEPTH = 8
"""Batches read ahead from a file."""


class Feed(abc.ABC):
    """Where batches come from. Implementing a Feed: set the attributes, and write `visits`, `batch` and `identity`.

    Attributes:
        shown: rows to look at before training and between epochs.
        size: rows of a full batch.
        rows: in an epoch, None where that is not known beforehand.
        batches: steps of an epoch, None where that is not known beforehand.
        prepare: stored rows -> model input.
    """

    shown: Split
    size: int
    rows: int | None
    batches: int | None
    prepare: Prepare
    _begun: Generator[Rows] | None = None

    @abc.abstractmethod
    def visits(self, epoch: int, start: int) -> Generator[Rows]:
        """The rows of each step of an epoch, from step ``start`` on."""

    @abc.abstractmethod
    def batch(self, rows: Rows) -> Batch:
        """Model input of these rows. May draw noise."""

    @abc.abstractmethod
    def identity(self) -> str:
        """What the data are."""

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[Rows, bool]]:
        """The rows of each step of epoch ``number`` from ``start`` on, and whether it is the epoch's last. Ends an epoch that was begun
        before."""
        self.close()
        self._begun = self.visits(number, start)
        return _with_last(self._begun)

    def close(self) -> None:
        """End the epoch that was begun, and with it the thread that reads."""
        if self._begun is not None:
            self._begun.close()
            self._begun = None


class SplitFeed(Feed):
    """The rows of a split.

    Args:
        split: rows in memory, which are brought to the device when the first epoch begins, or in a file.
        device: of the model.
        size: rows of a batch.
        order: number of the epoch -> the rows in their order, ``[N]``.
        repeat: visits of each batch.
    """

    def __init__(self, split: Split, device: torch.device, size: int, order: Callable[[int], Tensor], repeat: int = 1) -> None:
        self.shown, self.device, self.size, self.order, self.repeat = split, device, size, order, repeat
        self.rows, self.prepare = len(split), split.prepare
        self.batches = -(-len(split) // size) * repeat
        self.moved = False
        self.on_disk = isinstance(split.x, StoredRows) or isinstance(split.mask, StoredRows)

    def visits(self, epoch: int, start: int) -> Generator[Rows]:
        if not self.moved:
            self.shown, self.moved = self.shown.to(self.device), True
        order = self.order(epoch)
        if not self.on_disk:
            yield from [index for index in order.to(self.device).split(self.size) for _ in range(self.repeat)][start:]
            return
        # one after the other: a list of all takes half as much memory again as the order of millions of rows
        steps = (order[n : n + self.size] for n in range(0, len(order), self.size) for _ in range(self.repeat))
        yield from ahead_where_slow(self.shown.pick, islice(steps, start, None), depth=DEPTH)

    def batch(self, rows: Rows) -> Batch:
        return self.shown.prepared(rows) if isinstance(rows, Batch) else self.shown.batch(rows)

    def identity(self) -> str:
        return checksum(self.shown)


class StreamFeed(Feed):
    """The batches of a stream.

    Args:
        stream: where they come from.
        device: where they go.
        seed: of the run.
        repeat: visits of each batch.
    """

    def __init__(self, stream: Stream, device: torch.device, seed: int, repeat: int = 1) -> None:
        self.stream, self.device, self.seed, self.repeat = stream, device, seed, repeat
        self.shown, self.size = stream.first(seed)
        self.prepare, self.rows = stream.prepare, None
        self.batches = None if stream.batches is None else stream.batches * repeat

    def visits(self, epoch: int, start: int) -> Generator[Rows]:
        past, visited = divmod(start, self.repeat)
        with closing(self.stream.epoch(epoch, self.seed, start=past, device=self.device)) as batches:
            for rows in batches:
                for _ in range(visited, self.repeat):
                    yield rows
                visited = 0

    def batch(self, rows: Rows) -> Batch:
        """The batch itself, prepared.

        Raises:
            TypeError: numbers of rows, which a stream does not have.
        """
        if not isinstance(rows, Batch):
            raise TypeError("the rows of a stream have no numbers")
        return rows._replace(x=self.prepare(rows.x))

    def identity(self) -> str:
        return self.stream.describe()


def feeds_of(data: object, training: Training, device: torch.device) -> dict[str, Feed]:
    """A feed for each part of the data, by the names of `splits_of`: training in the order of the seed, the others in theirs.

    Raises:
        InputError: this is neither a data set nor a split nor a stream; a stream for several processes.
    """
    streamed = {"training": data, "validation": data.valid} if isinstance(data, Stream) else splits_of(data)
    found: dict[str, Feed] = {}
    for name, part in streamed.items():
        learns = name == "training"
        repeat = training.repeat if learns else 1
        if isinstance(part, Stream) and training.devices > 1:
            raise InputError(
                f"devices={training.devices}: each process would draw a stream of its own; give rows that have numbers, a Split"
            )
        if isinstance(part, Stream):
            found[name] = StreamFeed(part, device, training.seed, repeat)
        elif part is not None:
            own, size = partial(permutation, len(part), training.seed), training.batch_size
            found[name] = SplitFeed(part, device, size, own, repeat) if learns else in_order(part, device, size)
    return found


def in_order(split: Split, device: torch.device, size: int) -> SplitFeed:
    """The rows as they stand, ``size`` at a time."""
    return SplitFeed(split, device, size, lambda epoch: torch.arange(len(split)))


def grouped(visits: Iterator[tuple[Rows, bool]], many: Callable[[], int]) -> Iterator[tuple[list[Rows], bool]]:
    """The steps of an epoch (``visits``, as `Feed.epoch` gives them) in groups; ``many`` is asked before each how many belong to it.

    >>> import itertools
    >>> steps, sizes = [(torch.tensor([n]), n == 4) for n in range(5)], itertools.count(1)
    >>> [(len(rows), last) for rows, last in grouped(iter(steps), lambda: next(sizes))]
    [(1, False), (2, False), (2, True)]
    """
    while group := list(islice(visits, many())):
        yield [rows for rows, _ in group], group[-1][1]


def _with_last(items: Iterator[Rows]) -> Iterator[tuple[Rows, bool]]:
    for before, after in pairwise(chain(items, [None])):
        if before is not None:
            yield before, after is None
