"""The cells of one column as a numpy array, whatever kind of array or Series they came in.

This and `vaekit.data.tables.back` are the only places that know of pandas' dtypes. What a column is of is one of four sorts: whole or
broken **numbers**, **truths**, **texts**, and **dates** (datetime64, in UTC).
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vaekit.data.tables.needs import is_series, pandas
from vaekit.errors import InputError

__all__ = ["Cells", "Name", "Value", "cells_of", "first_row", "holed", "made", "several", "shown", "unit_of"]

Name = str | int
Value = str | int | float | bool

NUMBER, TRUTH, TEXT, DATE = "numbers", "truths", "texts", "dates"
KNOWN = "give numbers, text, booleans, categories or dates"
HINTS = {
    "timedelta64": "convert it with .dt.total_seconds()",
    "period": "convert it with .dt.to_timestamp()",
    "interval": "name the intervals, with .astype(str)",
    "complex": "give its real and imaginary parts as two columns",
    "datetime64": "convert it with .astype('datetime64[ns]')",
    "timestamp": "convert it with .astype('datetime64[ns]')",
    "Decimal": "convert it with .astype(float)",
    "datetime": "convert it with pandas.to_datetime",
    "Sparse": "convert it with .sparse.to_dense()",
}


@dataclass(frozen=True, eq=False)
class Cells:
    """N cells of one sort.

    Attributes:
        sort: "numbers", "truths", "texts" or "dates".
        values: ``[N]``: float64, an integer dtype, bool, object (of str), or datetime64. A missing cell may hold anything.
        missing: bool ``[N]``.
        dtype: the dtype they came in, as `series_of` understands it.
        categories: of a pandas categorical, all of them, also those that no cell has; else empty.
        ordered: whether these have an order.
    """

    sort: str
    values: npt.NDArray[Any]
    missing: npt.NDArray[np.bool_]
    dtype: str
    categories: tuple[Value, ...] = ()
    ordered: bool = False

    def __len__(self) -> int:
        return len(self.values)

    @property
    def present(self) -> npt.NDArray[Any]:
        """The values that are not missing."""
        return self.values[~self.missing]


def shown(name: Name) -> str:
    """A column's name in a message.

    >>> shown("age"), shown(3)
    ('column "age"', 'column 3')
    """
    return f'column "{name}"' if isinstance(name, str) else f"column {name}"


def several(names: Name | Sequence[Name]) -> tuple[Name, ...]:
    """Names of columns, or the one.

    >>> several("city"), several(["city", "age"])
    (('city',), ('city', 'age'))
    """
    return (names,) if isinstance(names, str | int) else tuple(names)


def first_row(bad: npt.NDArray[np.bool_]) -> str:
    """The first row that is bad, and how many more are.

    >>> first_row(np.array([False, True, True]))
    'row 1 (and 1 more)'
    """
    rows = np.flatnonzero(bad)
    return f"row {rows[0]}" + (f" (and {len(rows) - 1} more)" if len(rows) > 1 else "")


def cells_of(column: Any, name: Name) -> Cells:
    """The cells of a pandas Series or of a one-dimensional array, a column called ``name``.

    Raises:
        InputError: a dtype that has no kind of column, several types in one column, or infinite values; the column and the row are named.
    """
    if is_series(column):
        cells = _of_series(column, name)
    else:
        array = np.asarray(column)
        cells = _of_array(array, name, str(array.dtype))
        if isinstance(column, np.ma.MaskedArray):
            cells = Cells(cells.sort, cells.values, cells.missing | np.ma.getmaskarray(column), cells.dtype)
    if cells.values.dtype.kind == "f":
        infinite = np.isinf(cells.values) & ~cells.missing
        if infinite.any():
            raise InputError(f"{shown(name)} is infinite in {first_row(infinite)}: correct it, or mark it missing with NaN")
    return cells


def _of_array(values: npt.NDArray[Any], name: Name, dtype: str) -> Cells:
    if values.ndim != 1:
        raise InputError(f"{shown(name)} has shape {list(values.shape)}: a column has one value a row")
    none = np.zeros(len(values), dtype=np.bool_)
    kind = values.dtype.kind
    if kind == "b":
        return Cells(TRUTH, values, none, dtype)
    if kind in "iu":
        return Cells(NUMBER, values, none, dtype)
    if kind == "f":
        wide = values.astype(np.float64)
        return Cells(NUMBER, wide, np.isnan(wide), dtype)
    if kind == "M":
        return _of_dates(values, name)
    if kind in "OU":
        return _of_objects(values.astype(object), name)
    raise _unknown(name, dtype)


def _of_dates(values: npt.NDArray[Any], name: Name) -> Cells:
    """Months and years become their first day, and steps of several of a unit single ones."""
    unit, many = np.datetime_data(values.dtype)
    if unit in ("ps", "fs", "as"):
        raise _unknown(name, str(values.dtype))
    coarse = unit in ("Y", "M", "W", "generic")
    if many != 1 or coarse or not values.dtype.isnative:
        values = values.astype("datetime64[D]" if coarse else f"datetime64[{unit}]")
    return Cells(DATE, values, np.isnat(values), str(values.dtype))


def _of_series(series: Any, name: Name) -> Cells:
    pd = pandas()
    dtype = series.dtype
    missing = series.isna().to_numpy(dtype=np.bool_)
    if isinstance(dtype, pd.CategoricalDtype):
        inner = cells_of(pd.Series(dtype.categories), name)
        categories = tuple(inner.values.tolist())
        values = inner.values[series.cat.codes.to_numpy().clip(0)] if len(inner) else np.zeros(len(series))
        if inner.sort == DATE:
            raise InputError(f"{shown(name)} has dates for categories: convert them to text with .cat.rename_categories(str), or to dates")
        return Cells(inner.sort, values, missing, f"category[{inner.dtype}]", categories, bool(dtype.ordered))
    spec = _spec(dtype, name)
    kind = getattr(dtype, "kind", "O")  # every numpy and pandas dtype has one
    if isinstance(dtype, pd.DatetimeTZDtype):
        return Cells(DATE, series.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy(), missing, spec)
    if isinstance(dtype, np.dtype) and kind != "O":
        return _of_array(series.to_numpy(), name, spec)
    if isinstance(dtype, pd.StringDtype) or spec == "ArrowDtype:string":
        return Cells(TEXT, series.to_numpy(dtype=object), missing, spec)
    if kind == "b":
        return Cells(TRUTH, series.to_numpy(dtype=np.bool_, na_value=False), missing, spec)
    if kind in "iu":
        return Cells(NUMBER, series.to_numpy(dtype=np.uint64 if kind == "u" else np.int64, na_value=0), missing, spec)
    if kind == "f":
        values = series.to_numpy(dtype=np.float64, na_value=np.nan)
        return Cells(NUMBER, values, missing | np.isnan(values), spec)
    if kind == "O" and spec == "object":
        return _of_objects(series.to_numpy(dtype=object), name)
    raise _unknown(name, str(dtype))


def _of_objects(values: npt.NDArray[Any], name: Name) -> Cells:
    """Python objects: all text, all truths, all numbers, or all dates; None, NaN and pandas' marks of missing values aside."""
    missing = np.fromiter((_absent(value) for value in values), dtype=np.bool_, count=len(values))
    present = values[~missing]
    if not len(present):
        return Cells(TEXT, values, missing, "object")
    sort = _sort(present[0])
    if any(_sort_of(kind) != sort for kind in set(map(type, present))):
        rows = np.flatnonzero(~missing)
        other = next(i for i, value in enumerate(present) if _sort(value) != sort)
        raise InputError(
            f"{shown(name)} mixes {sort} and {_sort(present[other])}: row {rows[0]} holds {present[0]!r}, row {rows[other]} "
            f"{present[other]!r}; make it one of them"
        )
    if sort == TEXT:
        return Cells(TEXT, values, missing, "object")
    if sort == TRUTH:
        return Cells(TRUTH, np.where(missing, False, values).astype(np.bool_), missing, "object:truths")
    if sort == NUMBER:
        filled = np.where(missing, 0, values)
        whole = all(isinstance(value, int | np.integer) for value in filled)
        if whole:
            return _of_whole(filled, missing, name)
        return Cells(NUMBER, np.where(missing, np.nan, filled.astype(np.float64)), missing, "object:numbers")
    if sort == DATE:
        days = holed(values, missing).astype("datetime64[D]")
        return Cells(DATE, days, missing, "object:days")
    raise InputError(f"{shown(name)} holds {sort} values, such as {present[0]!r}: {HINTS.get(sort, KNOWN)}")


def _of_whole(values: npt.NDArray[Any], missing: npt.NDArray[np.bool_], name: Name) -> Cells:
    """Python's whole numbers, 0 where they are missing: floats would make one of several."""
    low, high = int(min(values)), int(max(values))
    if low >= -(2**63) and high < 2**63:
        return Cells(NUMBER, values.astype(np.int64), missing, "object:whole")
    if low >= 0 and high < 2**64:
        return Cells(NUMBER, values.astype(np.uint64), missing, "object:unsigned")
    beyond = np.array([not -(2**63) <= int(value) < 2**63 for value in values], dtype=np.bool_)
    raise InputError(
        f"{shown(name)} holds {str(values[beyond][0])[:40]} in {first_row(beyond)}, a whole number beyond 64 bits: give them as text, or "
        "as floats"
    )


def _absent(value: object) -> bool:
    if type(value) is str:  # most are
        return False
    return (
        value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float | np.floating) and bool(np.isnan(value)))
    )


def _sort(value: object) -> str:
    return _sort_of(type(value))


def _sort_of(kind: type) -> str:
    if issubclass(kind, str):
        return TEXT
    if issubclass(kind, bool | np.bool_):
        return TRUTH
    if issubclass(kind, int | float | np.integer | np.floating):
        return NUMBER
    if issubclass(kind, datetime.date) and not issubclass(kind, datetime.datetime):
        return DATE
    return kind.__name__


def _spec(dtype: Any, name: Name) -> str:
    """A dtype as text from which it can be made again."""
    pd = pandas()
    spec = str(dtype)
    if isinstance(dtype, pd.ArrowDtype):
        spec = "ArrowDtype:string" if spec == "string[pyarrow]" else spec
    elif isinstance(dtype, pd.StringDtype):
        spec = spec if spec == "str" else f"string[{dtype.storage}]"
    try:
        if made(spec) == dtype:
            return spec
    except (TypeError, ValueError, NotImplementedError):
        pass
    raise _unknown(name, str(dtype))


def made(spec: str) -> Any:
    """The dtype of a `_spec`."""
    pd = pandas()
    if spec == "ArrowDtype:string":
        from pyarrow import string

        return pd.ArrowDtype(string())
    return pd.api.types.pandas_dtype(spec)


def _unknown(name: Name, dtype: str) -> InputError:
    hint = next((hint for start, hint in HINTS.items() if dtype.startswith(start)), KNOWN)
    return InputError(f"{shown(name)} is of dtype {dtype}, which no kind of column holds: {hint}")


def holed(values: npt.NDArray[Any], missing: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """``values`` ``[N]`` as Python objects, None where they are missing."""
    found = values.astype(object)
    found[missing] = None
    return found


def unit_of(dtype: str) -> str:
    """The unit that dates of this dtype are counted in.

    >>> unit_of("datetime64[us, Europe/Berlin]"), unit_of("object:days")
    ('us', 'D')
    """
    return "D" if dtype == "object:days" else dtype[len("datetime64[") : -1].partition(",")[0]
