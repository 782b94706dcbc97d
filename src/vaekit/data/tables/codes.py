"""Columns of a few values: two, categories, levels in an order. Encoded are the codes 0..C-1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
import numpy.typing as npt

from vaekit.data.tables.cells import Cells
from vaekit.data.tables.columns import Column, Floats

__all__ = ["Binary", "Categorical", "Ordinal"]


@dataclass(frozen=True, kw_only=True)
class _Coded(Column):
    """One of the values of ``categories``."""

    @final
    def _numbers(self, values: npt.NDArray[Any]) -> Floats:
        return self._codes(values)

    @final
    def _values(self, u: Floats) -> npt.NDArray[Any]:
        codes = np.rint(np.nan_to_num(u, posinf=self.size, neginf=0.0)).clip(0, self.size - 1).astype(np.int64)
        return self._array().take(codes)

    @final
    def _wrong(self, cells: Cells) -> tuple[npt.NDArray[np.bool_], str]:
        some = ", ".join(repr(value) for value in self.categories[:8]) + (f", ... ({self.size} in all)" if self.size > 8 else "")
        return self._codes(
            np.where(cells.missing, self._array()[:1], cells.values)
        ) < 0, f"it is one of {some}; a new one has no probability"

    def _codes(self, values: npt.NDArray[Any]) -> Floats:
        """Codes as float64; -1 for a value that is none."""
        code = {(type(value) is str, value): float(i) for i, value in enumerate(self.categories)}
        return np.array([code.get((type(value) is str, value), -1.0) for value in values.tolist()], dtype=np.float64)

    def _array(self) -> npt.NDArray[Any]:
        return np.array(self.categories, dtype=object if isinstance(self.categories[0], str) else None)


@final
@dataclass(frozen=True, kw_only=True)
class Binary(_Coded):
    """One of two values: codes 0 and 1.

    >>> column = Binary(name="sex", dtype="object", categories=("f", "m"))
    >>> column.encode(np.array(["m", "f", None], dtype=object))
    array([ 1.,  0., nan], dtype=float32)
    """

    kind: ClassVar[str] = "binary"
    likelihood: str = "Bernoulli"


@final
@dataclass(frozen=True, kw_only=True)
class Categorical(_Coded):
    """One of C categories without an order."""

    kind: ClassVar[str] = "categorical"
    likelihood: str = "Categorical"


@final
@dataclass(frozen=True, kw_only=True)
class Ordinal(_Coded):
    """One of C levels in the order of ``categories``."""

    kind: ClassVar[str] = "ordinal"
    likelihood: str = "Ordinal"
