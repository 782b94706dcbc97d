"""Weights that change with the training step, without state: a schedule is a pure function of the step, so that resuming is exact."""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass

from vaekit.errors import InputError

__all__ = ["Constant", "Cosine", "Cyclical", "Exponential", "Linear", "Schedule", "Stages", "as_schedule"]


class Schedule(abc.ABC):
    """step -> weight. Implementing a Schedule: write ``__call__`` and ``settled``, the first step from which it no longer changes."""

    @abc.abstractmethod
    def __call__(self, step: int) -> float:
        """The weight at a step, counted from 0."""

    @property
    @abc.abstractmethod
    def settled(self) -> int | None:
        """The first step at which the final value holds; None where there is no final value."""


@dataclass(frozen=True)
class Constant(Schedule):
    """Always ``value``."""

    value: float

    def __call__(self, step: int) -> float:
        return self.value

    @property
    def settled(self) -> int:
        return 0


@dataclass(frozen=True)
class Linear(Schedule):
    """From ``start`` to ``end`` in a straight line over ``steps`` steps, then ``end`` (KL warm-up: Sonderby et al., 2016).

    Raises:
        InputError: ``steps`` is not positive.

    >>> [Linear(0, 1, 4)(s) for s in (0, 1, 4, 100)]
    [0.0, 0.25, 1.0, 1.0]
    """

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        _positive("Linear", steps=self.steps)

    def __call__(self, step: int) -> float:
        return self.start + (self.end - self.start) * min(step / self.steps, 1.0)

    @property
    def settled(self) -> int:
        return self.steps


@dataclass(frozen=True)
class Cyclical(Schedule):
    """``cycles`` ramps from ``start`` to ``end`` within ``steps`` steps, each rising for ``ramp`` of its length and then holding; ``end``
    afterwards (Fu et al., "Cyclical Annealing Schedule", NAACL 2019).

    Raises:
        InputError: ``steps``, ``cycles`` or ``ramp`` not positive, or ``ramp`` above 1.

    >>> [Cyclical(0, 1, 8, cycles=2)(s) for s in (0, 1, 2, 3, 4, 5, 8)]
    [0.0, 0.5, 1.0, 1.0, 0.0, 0.5, 1.0]
    """

    start: float
    end: float
    steps: int
    cycles: int = 4
    ramp: float = 0.5

    def __post_init__(self) -> None:
        _positive("Cyclical", steps=self.steps, cycles=self.cycles, ramp=self.ramp)
        if not self.ramp <= 1:
            raise InputError(f"Cyclical(ramp={self.ramp}): a ramp of more than a whole cycle never reaches end; take one in (0, 1]")

    def __call__(self, step: int) -> float:
        if step >= self.steps:
            return float(self.end)
        phase = (step * self.cycles / self.steps) % 1.0
        return self.start + (self.end - self.start) * min(phase / self.ramp, 1.0)

    @property
    def settled(self) -> int:
        return self.steps


@dataclass(frozen=True)
class Cosine(Schedule):
    """From ``start`` to ``end`` along half a cosine over ``steps`` steps, then ``end``.

    Raises:
        InputError: ``steps`` is not positive.

    >>> [round(Cosine(1, 0, 4)(s), 3) for s in (0, 2, 4, 9)]
    [1.0, 0.5, 0.0, 0.0]
    """

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        _positive("Cosine", steps=self.steps)

    def __call__(self, step: int) -> float:
        return self.end + (self.start - self.end) * 0.5 * (1 + math.cos(math.pi * min(step / self.steps, 1.0)))

    @property
    def settled(self) -> int:
        return self.steps


@dataclass(frozen=True)
class Exponential(Schedule):
    """From ``start`` to ``end`` by the same factor at each of ``steps`` steps, then ``end``: max(end, start e^(-r step)) with
    r = log(start / end) / steps, as temperatures are annealed (Jang et al., 2017).

    Raises:
        InputError: ``start``, ``end`` or ``steps`` is not positive.

    >>> [round(Exponential(1, 0.25, 4)(s), 3) for s in (0, 2, 4, 9)]
    [1.0, 0.5, 0.25, 0.25]
    """

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        _positive("Exponential", start=self.start, end=self.end, steps=self.steps)

    def __call__(self, step: int) -> float:
        return float(self.start * (self.end / self.start) ** min(step / self.steps, 1.0))

    @property
    def settled(self) -> int:
        return self.steps


@dataclass(frozen=True)
class Stages(Schedule):
    """``values[i]`` until step ``ends[i]``, the last value from ``ends[-1]`` on.

    Raises:
        InputError: ``ends`` do not rise, or ``values`` are not one more than they.

    >>> schedule = Stages(ends=(10, 30), values=(1.0, 0.5, 0.1))
    >>> [schedule(s) for s in (0, 9, 10, 30)]
    [1.0, 1.0, 0.5, 0.1]
    """

    ends: tuple[int, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.values) != len(self.ends) + 1 or list(self.ends) != sorted(self.ends):
            raise InputError(f"Stages needs rising ends and one more value than ends: got ends {self.ends} and values {self.values}")

    def __call__(self, step: int) -> float:
        return self.values[sum(step >= end for end in self.ends)]

    @property
    def settled(self) -> int:
        return self.ends[-1] if self.ends else 0


def as_schedule(value: float | Schedule) -> Schedule:
    """A number is a `Constant`."""
    return value if isinstance(value, Schedule) else Constant(float(value))


def _positive(name: str, **values: float) -> None:
    for key, value in values.items():
        if value <= 0:
            raise InputError(f"{name}({key}={value}): {key} must be positive")
