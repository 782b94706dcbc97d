r"""A column of a table as one number a row, and back: x -> u = (f(x) - loc) / scale, f the logarithm or nothing.

Encoded are numbers in float64, and cast to float32 at the end, so that a column far from 0 loses nothing by it. Categories are their
codes 0..C-1, counts themselves. The log-density of the data follows from that of the numbers by the change of variables,

    log p(x) = log p(u) + log |du/dx|,    log |du/dx| = -log scale - [f = log] log x,

which `Column.log_volume` gives; for codes and counts, which have probabilities and no density, it is 0.
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
import numpy.typing as npt

from vaekit.data.tables.back import series_of
from vaekit.data.tables.cells import Cells, Name, Value, cells_of, first_row, shown, unit_of
from vaekit.errors import InputError

__all__ = ["Column", "Constant", "Floats", "every"]

Floats = npt.NDArray[np.float64]
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, kw_only=True)
class Column(abc.ABC):
    """What one column holds, and how it becomes numbers.

    Attributes:
        name: as in the table: text, or the number of a column without a name.
        dtype: of the data, given back by `decode`.
        because: why this kind and this likelihood, in a sentence.
        missing: the share of the rows without a value, where the schema was inferred.
        likelihood: the distribution of the encoded numbers.
        loc, scale: of u = (f(x) - loc) / scale.
        categories: the values that codes stand for, in their order; of a categorical dtype also those of a constant.
        ordered: whether a categorical dtype is ordered.

    Implementing a column:
        1. a frozen, keyword-only dataclass with ``kind``, and ``log = True`` where f is the logarithm;
        2. ``_numbers``: values that are present, as `Cells` has them -> float64 u; ``_values``: back;
        3. ``_wrong``: which of the values this kind cannot hold, and what to say of them;
        4. a row in `vaekit.data.tables.kinds.KINDS`.
    """

    name: Name
    dtype: str
    because: str = ""
    missing: float = 0.0
    likelihood: str = ""
    loc: float = 0.0
    scale: float = 1.0
    categories: tuple[Value, ...] = ()
    ordered: bool = False

    kind: ClassVar[str]
    log: ClassVar[bool] = False

    @final
    @property
    def size(self) -> int:
        """The number of categories or levels; 0 where the column is a number."""
        return len(self.categories)

    @final
    def encode(self, values: Any) -> npt.NDArray[np.float32]:
        """float32 ``[N]`` of a Series or array ``[N]``, NaN where a value is missing.

        Raises:
            InputError: values that this column cannot hold; the column and the row are named.
        """
        cells = values if isinstance(values, Cells) else cells_of(values, self.name)
        self.check(cells)
        numbers = np.full(len(cells), np.nan)
        numbers[~cells.missing] = self._numbers(cells.present)
        beyond = np.abs(numbers) > LARGEST
        if beyond.any():
            row = int(np.argmax(beyond))
            raise InputError(
                f"{shown(self.name)} holds {cells.values[row]} in {first_row(beyond)}, {numbers[row]:.3g} standard scales from the rest, "
                "which is beyond float32: correct it, or mark it missing with NaN"
            )
        return numbers.astype(np.float32)

    @final
    def decode(self, numbers: npt.ArrayLike) -> Any:
        """A Series ``[N]`` of the original dtype from encoded numbers ``[N]``, a missing value where they are NaN.

        Numbers that were sampled are brought to the nearest value that the column can hold: codes and counts to whole ones.

        Raises:
            InputError: numbers of another shape.
        """
        u = np.asarray(numbers, dtype=np.float64)
        if u.ndim != 1:
            raise InputError(f"{shown(self.name)} is decoded from numbers of shape {list(u.shape)}: give one a row, [N]")
        missing = np.isnan(u)
        values = self._values(np.where(missing, 0.0, u))
        return series_of(values, missing, self.dtype, self.name, self.categories, self.ordered)

    @final
    def check(self, values: Any) -> None:
        """Whether this column can hold the values of a Series or array, and an InputError naming the column and the row where not."""
        cells = values if isinstance(values, Cells) else cells_of(values, self.name)
        if cells.missing.all():
            return
        wrong, why = self._wrong(cells)
        wrong = wrong & ~cells.missing
        if wrong.any():
            row = int(np.argmax(wrong))
            value = cells.values[row]
            held = repr(value.item() if isinstance(value, np.generic) else value)
            raise InputError(f"{shown(self.name)} holds {held if len(held) < 60 else held[:57] + '...'} in {first_row(wrong)}: {why}")

    @final
    def plain_values(self, u: npt.ArrayLike) -> npt.NDArray[Any]:
        """The values of encoded numbers ``[N]`` that are not NaN: a numpy array, without the dtype they came in."""
        return self._values(np.asarray(u, dtype=np.float64))

    @final
    def round_trip(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Values that are present, as `Cells` has them, through float32 and back."""
        return self._values(self._numbers(values).astype(np.float32).astype(np.float64))

    @final
    def log_volume(self, numbers: npt.ArrayLike) -> Floats:
        """log |du/dx| at encoded numbers, in nats, of their shape: add it to log p(u) for the log-density of the data in their own unit."""
        u = np.asarray(numbers, dtype=np.float64)
        return -math.log(self.scale) - (self.loc + self.scale * u if self.log else np.zeros_like(u))

    @abc.abstractmethod
    def _numbers(self, values: npt.NDArray[Any]) -> Floats:
        """Values that are present and right, as u."""

    @abc.abstractmethod
    def _values(self, u: Floats) -> npt.NDArray[Any]:
        """u, finite or infinite, as values of `Cells`."""

    @abc.abstractmethod
    def _wrong(self, cells: Cells) -> tuple[npt.NDArray[np.bool_], str]:
        """bool ``[N]`` of the cells that this column cannot hold (what is said of missing ones does not matter), and what to say."""


def every(cells: Cells, wanted: str, asked: str) -> tuple[npt.NDArray[np.bool_], str] | None:
    """All cells as wrong where they are of another sort than wanted, in words that say what was ``asked``; None where they are of that
    sort."""
    if cells.sort == wanted:
        return None
    return np.ones(len(cells), dtype=np.bool_), f"it held {asked} when the schema was made, and these are {cells.sort}"


@final
@dataclass(frozen=True, kw_only=True)
class Constant(Column):
    """One value in every row, or none in any: no part of the numbers and of the likelihood, put back by decoding."""

    kind: ClassVar[str] = "constant"
    value: Value | None = None

    def _numbers(self, values: npt.NDArray[Any]) -> Floats:
        return np.zeros(len(values))

    def _values(self, u: Floats) -> npt.NDArray[Any]:
        if self._dates():
            return np.full(len(u), self.value).astype(f"datetime64[{unit_of(self.dtype)}]")
        return np.full(len(u), 0 if self.value is None else self.value, dtype=object if isinstance(self.value, str) else None)

    def _wrong(self, cells: Cells) -> tuple[npt.NDArray[np.bool_], str]:
        if self.value is None:
            return np.ones(len(cells), dtype=np.bool_), "it was empty when the schema was made: drop it, or infer the schema again"
        if self._dates() and cells.sort == "dates":
            return cells.values != np.datetime64(
                str(self.value)
            ), f"it was {self.value} in every row when the schema was made: infer it again"
        pairs = zip(cells.values.tolist(), cells.missing.tolist(), strict=True)  # a missing cell may be pandas' NA, which equals nothing
        differs = np.array([not gone and value != self.value for value, gone in pairs], dtype=np.bool_)
        return differs, f"it was {self.value!r} in every row when the schema was made: infer the schema again"

    def _dates(self) -> bool:
        return self.value is not None and self.dtype.startswith(("datetime64", "object:days"))
