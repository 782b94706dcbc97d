r"""One process, or several that train one model: who has which rows, which noise, and how sums come together.

.. math:: \nabla \frac1B \sum_{i=1}^{B} \ell_i = \frac1N \sum_{r=1}^{N} \nabla \left( \frac{N}{B} \sum_{i \in r} \ell_i \right)

Each of N processes takes its piece of every batch; torch averages the gradients over the processes, so that the factor N / B makes them
those of the whole batch's mean, whatever the sizes of the pieces. The noise of samples is drawn by every process for the whole batch, from
generators that stand alike in all of them, and each takes its rows of it; batch normalisation asks all of them for its statistics
(`normalise`). So the steps are those of one process, up to rounding.
"""

from __future__ import annotations

import abc
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from vaekit import noise
from vaekit.errors import LostRankError
from vaekit.tensors import seed_noise
from vaekit.train.normalise import over_all
from vaekit.types import Batch

__all__ = ["Alone", "Part", "Ranks", "Several", "Rows", "SharedNoise", "count", "in_contact", "restore_noise"]

Rows = Tensor | Batch
"""The rows of a step: their numbers, of a split in memory, or the stored rows themselves."""


@dataclass(frozen=True)
class Part:
    """The rows of a batch that are this process's.

    Attributes:
        own: their numbers in the data, or the rows themselves.
        rows: B, those of the whole batch.
        size: the number of processes.
        weight: 1; 0 for a process that has none of the rows and repeats another's, for a network wants at least one.
    """

    own: Rows
    rows: int
    size: int = 1
    weight: float = 1.0

    def mean(self, values: Tensor) -> Tensor:
        """What to differentiate for the gradient of the whole batch's mean, from these rows' values ``[b]``."""
        return values.mean() if self.size == 1 else values.sum() * (self.weight * self.size / self.rows)

    def total(self, sums: Tensor) -> Tensor:
        """These rows' sums ``[n]`` added over the processes."""
        if self.size > 1:
            sums = sums * self.weight
            torch.distributed.all_reduce(sums)
        return sums


class Ranks(abc.ABC):
    """The processes of a training, seen from one of them: `Alone` or `Several`.

    What says that it waits must be called by all processes.
    """

    number: int
    size: int

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.number == 0

    @abc.abstractmethod
    def share(self, rows: Rows, step: int | None = None, *, everything: bool = False) -> AbstractContextManager[Part]:
        """This process's part of a batch; inside, noise is that of its rows.

        Args:
            rows: the batch's rows.
            step: the optimiser step; noise that no source is asked for (dropout's) is then a function of seed, process and step.
            everything: all rows, on each process, with all of their noise.
        """

    @abc.abstractmethod
    def agree(self, asked: bool, due: bool, *, look: bool) -> tuple[bool, bool]:
        """Whether any process has been asked to stop, and whether any finds a checkpoint due. Several know it only where they ``look``,
        which waits."""

    @abc.abstractmethod
    def tell(self, value: int) -> int:
        """The first process's whole number; waits."""

    @abc.abstractmethod
    def seed(self, seed: int) -> None:
        """Start all noise anew."""

    @abc.abstractmethod
    def noise(self) -> dict[str, Tensor]:
        """The generators' states, as a checkpoint keeps them: alike for one process and several."""

    @abc.abstractmethod
    def restore(self, noise: dict[str, Tensor]) -> None:
        """Go to `noise`."""

    @abc.abstractmethod
    def apart(self, seed: int) -> AbstractContextManager[None]:
        """Noise from a seed of its own, and afterwards as if nothing had been."""

    @abc.abstractmethod
    def entered(self) -> AbstractContextManager[None]:
        """For as long as training lasts."""

    @abc.abstractmethod
    def normalising(self, module: nn.Module) -> AbstractContextManager[None]:
        """Batch normalisation by the whole batch, for as long as training lasts."""

    @abc.abstractmethod
    def gathered(self, module: nn.Module) -> AbstractContextManager[None]:
        """All weights of a sharded module on every process, for what does not go through its forward; waits."""


class Alone(Ranks):
    """One process: everything as it is."""

    number, size = 0, 1

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def share(self, rows: Rows, step: int | None = None, *, everything: bool = False) -> AbstractContextManager[Part]:
        return nullcontext(Part(rows, count(rows)))

    def agree(self, asked: bool, due: bool, *, look: bool) -> tuple[bool, bool]:
        return asked, due

    def tell(self, value: int) -> int:
        return value

    def seed(self, seed: int) -> None:
        seed_noise(seed, self.device)

    def noise(self) -> dict[str, Tensor]:
        cpu = {"cpu": torch.get_rng_state()}
        return cpu if self.device.type == "cpu" else cpu | {"cuda": torch.cuda.get_rng_state(self.device)}

    def restore(self, noise: dict[str, Tensor]) -> None:
        restore_noise(noise, self.device)

    @contextmanager
    def apart(self, seed: int) -> Iterator[None]:
        with _forked(self.device):
            seed_noise(seed, self.device)
            yield

    def entered(self) -> AbstractContextManager[None]:
        return nullcontext()

    def normalising(self, module: nn.Module) -> AbstractContextManager[None]:
        return nullcontext()

    def gathered(self, module: nn.Module) -> AbstractContextManager[None]:
        return nullcontext()


class SharedNoise:
    """A `noise.Source` that draws for all rows of a batch and hands out some of them.

    Its generator stands alike in all processes. What is asked for other than those rows (what lies along no axis of examples, or as many
    as a model finds fit) comes from torch's global generators, which stand differently in each.

    >>> index = torch.arange(5)
    >>> source = SharedNoise(torch.device("cpu"))
    >>> _ = source.generator.manual_seed(0), torch.manual_seed(0)
    >>> source.rows = (5, 3, 5)  # the last two of five
    >>> with noise.along(1):
    ...     torch.equal(source("normal", (4, 2, 6), 1, torch.zeros(())), torch.randn(4, 5, 6)[:, 3:])
    True
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.generator = torch.Generator(device)
        self.rows: tuple[int, int, int] | None = None  # of so many, from, to

    def __call__(self, kind: noise.Kind, shape: tuple[int, ...], event_dim: int, like: Tensor) -> Tensor:
        one = torch.randn if kind == "normal" else torch.rand
        axis = noise.axis_of(shape, event_dim)
        if self.rows is None or axis is None or shape[axis] != self.rows[2] - self.rows[1] or like.device != self.device:
            return one(shape, dtype=like.dtype, device=like.device)
        of, start, stop = self.rows
        drawn = one((*shape[:axis], of, *shape[axis + 1 :]), generator=self.generator, dtype=like.dtype, device=like.device)
        return drawn.narrow(axis, start, stop - start).contiguous()


class Several(Ranks):
    """One of several processes, connected by ``fabric``, Fabric."""

    def __init__(self, fabric: Any, device: torch.device, seed: int) -> None:
        self.number, self.size = int(fabric.global_rank), int(fabric.world_size)
        self.device, self.source, self._seed = device, SharedNoise(device), seed
        self.weight: float | None = None  # of this process's part, where there is one

    @contextmanager
    def share(self, rows: Rows, step: int | None = None, *, everything: bool = False) -> Iterator[Part]:
        n = count(rows)
        start, stop = (0, n) if everything else (n * self.number // self.size, n * (self.number + 1) // self.size)
        weight = float(stop > start)
        if not weight:
            start, stop = 0, 1
        if step is not None:
            self._own(step)
        self.source.rows, self.weight = (n, start, stop), None if everything else weight
        try:
            yield Part(_cut(rows, start, stop), n, self.size, weight)
        finally:
            self.source.rows = self.weight = None

    def agree(self, asked: bool, due: bool, *, look: bool) -> tuple[bool, bool]:
        if not look:
            return False, False
        flags = torch.tensor([asked, due], dtype=torch.int32, device=self.device)
        torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
        asked, due = flags.bool().tolist()
        return asked, due

    def tell(self, value: int) -> int:
        told = torch.tensor(value, device=self.device)
        torch.distributed.broadcast(told, 0)
        return int(told)

    def seed(self, seed: int) -> None:
        self.source.generator.manual_seed(seed)
        self._own()

    def noise(self) -> dict[str, Tensor]:
        cpu = {"cpu": torch.get_rng_state()}
        return cpu | {self.device.type: self.source.generator.get_state()}

    def restore(self, noise: dict[str, Tensor]) -> None:
        if self.device.type in noise:
            self.source.generator.set_state(noise[self.device.type].cpu())

    @contextmanager
    def apart(self, seed: int) -> Iterator[None]:
        kept = self.source.generator.get_state()
        try:
            with _forked(self.device):
                self.seed(seed)
                yield
        finally:
            self.source.generator.set_state(kept)

    @contextmanager
    def entered(self) -> Iterator[None]:
        with warnings.catch_warnings(), noise.drawn_by(self.source), in_contact(self.number):
            # a convolution of one pixel has weights of two layouts at once, of which DDP takes the one and oneDNN the other
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
            yield

    def normalising(self, module: nn.Module) -> AbstractContextManager[None]:
        return over_all(module, lambda: self.weight)

    @contextmanager
    def gathered(self, module: nn.Module) -> Iterator[None]:
        if not isinstance(module, FSDPModule):
            yield
            return
        module.unshard()
        try:
            yield
        finally:
            module.reshard()

    def _own(self, *key: int) -> None:
        """Seed torch's global generators by process and key, so that they are never the same on two processes, and need no keeping."""
        words = np.random.SeedSequence((self._seed, self.number, *key)).generate_state(1, np.uint64)
        seed_noise(int(words[0]), self.device)


def count(rows: Rows) -> int:
    """How many they are."""
    return rows.size if isinstance(rows, Batch) else len(rows)


def _cut(rows: Rows, start: int, stop: int) -> Rows:
    if isinstance(rows, Tensor):
        return rows[start:stop]
    c, mask, index = (None if t is None else t[start:stop] for t in rows[1:])
    return Batch(rows.x[start:stop], c, mask, index)


def restore_noise(noise: dict[str, Tensor], device: torch.device) -> None:
    """Set torch's global random generators to ``noise``, states by the name of the device."""
    torch.set_rng_state(noise["cpu"].cpu())
    if device.type == "cuda" and "cuda" in noise:
        torch.cuda.set_rng_state(noise["cuda"].cpu(), device)


def _forked(device: torch.device) -> AbstractContextManager[None]:
    """The global generators are afterwards as they were."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


@contextmanager
def in_contact(number: int) -> Iterator[None]:
    """Turn the errors of a connection to a process that is no more into one of their own.

    Raises:
        LostRankError: another process has ended; other errors are raised as they were.
    """
    try:
        yield
    except RuntimeError as error:
        # gloo's have no class of their own
        if isinstance(error, torch.distributed.DistError) or "gloo" in str(error) or "Connection closed by peer" in str(error):
            raise LostRankError(f"rank {number} lost contact with another process, which has ended") from error
        raise
