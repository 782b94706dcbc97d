"""Columns of numbers: standardised, on a logarithmic scale, within [0, 1], or counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
import numpy.typing as npt

from vaekit.data.tables.cells import Cells
from vaekit.data.tables.columns import Column, Floats, every

__all__ = ["Continuous", "Count", "HeavyTailed", "Positive", "UnitInterval", "decimals_of", "minus", "whole"]

EXACT = 2**24  # whole numbers up to here are float32 numbers
FAR = 2.0**66  # beyond the distance of any two whole numbers of 64 bits
MOST = 8  # places after the point that are looked for: a measured number has fewer, a computed one more


def minus(values: npt.NDArray[Any], loc: float) -> Floats:
    """values - loc in float64, of whole numbers without rounding them first."""
    if values.dtype.kind == "f" or len(values) == 0:
        return values.astype(np.float64) - loc
    low, high, base = int(values.min()), int(values.max()), int(loc)
    if max(abs(low), abs(high)) < 2**53:
        return values.astype(np.float64) - loc
    if base == loc and high < 2**63 and max(abs(low - base), abs(high - base)) < 2**63:
        return (values.astype(np.int64) - base).astype(np.float64)
    return np.array([int(value) - base for value in values], dtype=np.float64) - (loc - base)


def whole(u: Floats, loc: float, low: int, high: int) -> npt.NDArray[Any]:
    """loc + u rounded to whole numbers from low to high, without rounding a large loc with them."""
    base = int(loc)
    steps = np.rint(np.nan_to_num(u + (loc - base), posinf=FAR, neginf=-FAR)).clip(-FAR, FAR)
    if abs(base) < 2**62 and high < 2**63 and bool((np.abs(steps) < 2**62).all()):  # their sum is an int64
        return (steps.astype(np.int64) + base).clip(low, high)
    return np.array([min(max(base + int(step), low), high) for step in steps], dtype=np.uint64 if high >= 2**63 else np.int64)


def to_places(x: Floats, decimals: int | None) -> Floats:
    """x rounded to so many places after the point: the very numbers that are read from text of so many; None leaves them."""
    if decimals is None:
        return x
    step = 10.0**decimals
    near = np.abs(x) < 2**52 / step  # beyond, doubles are that far apart
    return np.where(near, np.rint(np.where(near, x, 0.0) * step) / step, x)


def decimals_of(values: npt.NDArray[Any]) -> int | None:
    """The fewest places after the point that hold every one of these floats, 0 to 8; None where more are needed.

    >>> decimals_of(np.array([20.0, 17.25])), decimals_of(np.array([3.0])), decimals_of(np.array([1 / 3]))
    (2, 0, None)
    """
    if values.dtype.kind != "f":
        return None
    x = values.astype(np.float64)
    single = x.astype(np.float32)
    short = bool((single == x).all())  # of float32, in which 0.1 is another number
    for decimals in range(MOST + 1):
        rounded = to_places(x, decimals)
        if (rounded == x).all() or (short and (rounded.astype(np.float32) == single).all()):
            return decimals
    return None


def limits(dtype: str) -> tuple[int, int] | None:
    """The least and the largest value of an integer dtype; None for another."""
    if dtype in ("object:whole", "object:unsigned"):
        return (-(2**63), 2**63 - 1) if dtype == "object:whole" else (0, 2**64 - 1)
    name = dtype.lower().removesuffix("[pyarrow]")
    try:
        found = np.iinfo(name)
    except (ValueError, TypeError):
        return None
    return int(found.min), int(found.max)


@dataclass(frozen=True, kw_only=True)
class _Number(Column):
    """A number. Decoded ones are rounded where the dtype is one of whole numbers, and floats to the places after the point that all of
    them had: 0 of whole numbers, which missing values make floats."""

    decimals: int | None = None

    @final
    def _numbers(self, values: npt.NDArray[Any]) -> Floats:
        if self.log:
            return (np.log(values.astype(np.float64)) - self.loc) / self.scale
        return minus(values, self.loc) / self.scale

    @final
    def _values(self, u: Floats) -> npt.NDArray[Any]:
        bounds = limits(self.dtype)
        with np.errstate(over="ignore"):
            if bounds is not None and self.log:
                return whole(np.exp(self.loc + self.scale * u), 0.0, max(1, bounds[0]), bounds[1])
            if bounds is not None:
                return whole(self.scale * u, self.loc, *bounds)
            x = to_places(np.exp(self.loc + self.scale * u) if self.log else self.loc + self.scale * u, self.decimals)
            return x if self.decimals is None or not self.log else x.clip(10.0**-self.decimals)

    @final
    def _wrong(self, cells: Cells) -> tuple[npt.NDArray[np.bool_], str]:
        other = every(cells, "numbers", "numbers")
        if other is not None:
            return other
        if self.log:
            return cells.values <= 0, "its logarithm is modelled, and it has to be greater than 0"
        return np.zeros(len(cells), dtype=np.bool_), ""


@final
@dataclass(frozen=True, kw_only=True)
class Continuous(_Number):
    """Numbers, standardised by their mean and standard deviation.

    >>> column = Continuous(name="t", dtype="float64", loc=20.0, scale=5.0)
    >>> column.encode(np.array([20.0, 30.0, np.nan])), column.log_volume([0.0])
    (array([ 0.,  2., nan], dtype=float32), array([-1.60943791]))
    """

    kind: ClassVar[str] = "continuous"
    likelihood: str = "Gaussian"


@final
@dataclass(frozen=True, kw_only=True)
class HeavyTailed(_Number):
    """Numbers with outliers, standardised by their median and their interquartile range / 1.349, which outliers do not move."""

    kind: ClassVar[str] = "heavy-tailed"
    likelihood: str = "StudentT"


@final
@dataclass(frozen=True, kw_only=True)
class Positive(_Number):
    """Numbers greater than 0 on a logarithmic scale: u = (log x - loc) / scale."""

    kind: ClassVar[str] = "positive"
    log: ClassVar[bool] = True
    likelihood: str = "LogNormal"


@final
@dataclass(frozen=True, kw_only=True)
class UnitInterval(Column):
    """Proportions: numbers from 0 to 1, as they are; decoded ones are rounded to ``decimals``, as other numbers."""

    kind: ClassVar[str] = "unit"
    likelihood: str = "ContinuousBernoulli"
    decimals: int | None = None

    def _numbers(self, values: npt.NDArray[Any]) -> Floats:
        return values.astype(np.float64)

    def _values(self, u: Floats) -> npt.NDArray[Any]:
        return to_places(u.clip(0, 1), self.decimals)

    def _wrong(self, cells: Cells) -> tuple[npt.NDArray[np.bool_], str]:
        return every(cells, "numbers", "proportions") or ((cells.values < 0) | (cells.values > 1), "it is a proportion, from 0 to 1")


@final
@dataclass(frozen=True, kw_only=True)
class Count(Column):
    """Whole numbers from 0 on, as they are: up to 2^24, which float32 holds exactly."""

    kind: ClassVar[str] = "count"
    likelihood: str = "Poisson"

    def _numbers(self, values: npt.NDArray[Any]) -> Floats:
        return values.astype(np.float64)

    def _values(self, u: Floats) -> npt.NDArray[Any]:
        bounds = limits(self.dtype)
        return np.rint(u).clip(0, None) if bounds is None else whole(u, 0.0, 0, bounds[1])

    def _wrong(self, cells: Cells) -> tuple[npt.NDArray[np.bool_], str]:
        other = every(cells, "numbers", "counts")
        if other is not None:
            return other
        if (cells.present > EXACT).any():
            return (
                cells.values > EXACT,
                f"counts beyond {EXACT} are not exact in float32: model it as a number, kind continuous or positive",
            )
        broken = cells.values != np.rint(cells.values) if cells.values.dtype.kind == "f" else np.zeros(len(cells), dtype=np.bool_)
        return (cells.values < 0) | broken, "it is a count, 0, 1, 2, ..."
