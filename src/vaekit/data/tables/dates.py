"""Dates and times, standardised, and rounded to their resolution when they are decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
import numpy.typing as npt

from vaekit.data.tables.cells import Cells, unit_of
from vaekit.data.tables.columns import Column, Floats, every
from vaekit.data.tables.numbers import minus, whole

__all__ = ["NANOSECONDS", "RESOLUTIONS", "Date", "resolution_of"]

RESOLUTIONS = {"D": "day", "h": "hour", "m": "minute", "s": "second", "ms": "millisecond", "us": "microsecond", "ns": "nanosecond"}
NANOSECONDS = {"D": 86400 * 10**9, "h": 3600 * 10**9, "m": 60 * 10**9, "s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


def resolution_of(stamps: npt.NDArray[Any]) -> str:
    """The coarsest unit of which all times are whole numbers.

    >>> (
    ...     resolution_of(np.array(["2020-01-01T00", "2020-01-02T00"], "datetime64[ns]")),
    ...     resolution_of(np.array(["2020-01-01T10"], "datetime64[ns]")),
    ... )
    ('D', 'h')
    """
    unit = np.datetime_data(stamps.dtype)[0]
    return next(found for found in RESOLUTIONS if found == unit or bool((_rounded(stamps, found) == stamps).all()))


def _rounded(stamps: npt.NDArray[Any], resolution: str) -> npt.NDArray[Any]:
    """Times down to a coarser unit, in their own."""
    return stamps.astype(f"datetime64[{resolution}]").astype(stamps.dtype)


@final
@dataclass(frozen=True, kw_only=True)
class Date(Column):
    """Dates, standardised. ``loc`` and ``scale`` count its ``resolution`` since 1970 in UTC, so that nats are of a density per day, say.

    float32 tells some 10^7 times from another: to the day that is 40,000 years, to the second half a year. Where a column's times are
    finer than that, ``because`` says what is kept.
    """

    kind: ClassVar[str] = "date"
    likelihood: str = "Gaussian"
    resolution: str = "ns"

    def _numbers(self, values: npt.NDArray[Any]) -> Floats:
        return minus(values.astype(f"datetime64[{self.resolution}]").astype(np.int64), self.loc) / self.scale

    def _values(self, u: Floats) -> npt.NDArray[Any]:
        unit = unit_of(self.dtype)
        most = (2**63 - 1) // (NANOSECONDS[self.resolution] // NANOSECONDS[unit])
        return whole(self.scale * u, self.loc, -most, most).astype(f"datetime64[{self.resolution}]").astype(f"datetime64[{unit}]")

    def _wrong(self, cells: Cells) -> tuple[npt.NDArray[np.bool_], str]:
        other = every(cells, "dates", "dates")
        if other is not None:
            return other
        if ("," in cells.dtype) != ("," in self.dtype):
            return np.ones(
                len(cells), dtype=np.bool_
            ), f"it was {self.dtype} when the schema was made, and this is {cells.dtype}: convert it"
        finer = cells.values != _rounded(cells.values, self.resolution)
        return finer, f"its times were all whole {RESOLUTIONS[self.resolution]}s when the schema was made: round it"
