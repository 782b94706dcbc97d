"""What a table holds: its columns in their order, each of a kind, and between tables and numbers both ways."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vaekit.data.tables.cells import Name, cells_of, shown
from vaekit.data.tables.columns import Column, Floats
from vaekit.data.tables.dates import RESOLUTIONS
from vaekit.data.tables.infer import Kind, column_of
from vaekit.data.tables.kinds import KINDS
from vaekit.data.tables.needs import is_frame, pandas
from vaekit.errors import InputError, nearest

__all__ = ["FORMAT", "Schema", "columns_in"]

FORMAT = 1
CODED = ("binary", "categorical", "ordinal")


@dataclass(frozen=True)
class Schema:
    """The columns of a table, in its order.

    Constant columns are no part of the numbers: x has one number a row for each of `modelled`, D in all.

    >>> x = np.random.default_rng(0).normal(20, 5, (100, 2))
    >>> schema = Schema.infer(x)
    >>> [(column.name, column.kind, column.likelihood) for column in schema.columns]
    [('x0', 'continuous', 'Gaussian'), ('x1', 'continuous', 'Gaussian')]
    >>> numbers, mask = schema.encode(x)
    >>> numbers.shape, bool(mask.all()), float(abs(schema.decode_array(numbers) - x).max()) < 1e-5
    (torch.Size([100, 2]), True, True)
    """

    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        if not self.modelled:
            held = "no columns" if not self.columns else f"{len(self.columns)} columns, each the same in every row or without a value"
            raise InputError(f"a table of {held}, has nothing to model: give one with a column that varies")

    @staticmethod
    def infer(data: Any, *, overrides: Mapping[Name, Kind] | None = None, drop: Sequence[Name] = ()) -> Schema:
        """The schema of a DataFrame, or of an array ``[N, D]``, whose columns are called x0, x1, ...

        Args:
            data: a NaN, None, NA or NaT is a missing value.
            overrides: kinds by the names of columns, where the rules are not to decide: "continuous", "heavy-tailed", "positive", "unit",
                "count", "binary", "categorical", "ordinal", "date", or a likelihood ("NegativeBinomial"); for levels in an order that
                sorting does not give them, the levels from the lowest to the highest.
            drop: names of columns to leave out.

        Raises:
            InputError: no rows or columns, two columns of a name, an infinite value, several types in a column, free text or identifiers,
                a kind that a column is not of, an unknown name; the column is named, and the row where there is one.
        """
        found = columns_in(data)
        overrides = overrides or {}
        for name in (*overrides, *drop):
            if name not in found:
                raise InputError(f"the table has no {shown(name)}; {nearest(str(name), map(str, found))}")
        kept = {name: values for name, values in found.items() if name not in set(drop)}
        return Schema(tuple(column_of(name, cells_of(values, name), overrides.get(name)) for name, values in kept.items()))

    @property
    def modelled(self) -> tuple[Column, ...]:
        """The columns that are in the numbers, in their order: all but the constant ones."""
        return tuple(column for column in self.columns if column.kind != "constant")

    def encode(self, data: Any) -> tuple[Tensor, Tensor]:
        """(x float32 ``[N, D]``, NaN where a value is missing; mask bool ``[N, D]``, True where there is one) of a table.

        Columns are found by their names, in whatever order; ones that the schema does not have are left out (`check` names them).

        Raises:
            InputError: a column is not there, or holds what it cannot; the column and the row are named.
        """
        found, _ = self._matched(data)
        x = np.empty((_rows(found), len(self.modelled)), dtype=np.float32)
        place = 0
        for column, values in zip(self.columns, found, strict=True):
            numbers = column.encode(values)  # of constant columns too, which looks at them
            if column.kind != "constant":
                x[:, place] = numbers
                place += 1
        rows = torch.from_numpy(x)
        return rows, ~rows.isnan()

    def decode(self, x: npt.ArrayLike | Tensor) -> Any:
        """A DataFrame of the original columns and dtypes from encoded numbers ``[N, D]``, a missing value where x is NaN.

        A dtype of numpy that has no mark for what is missing becomes pandas' nullable one: int64 Int64, bool boolean.
        """
        numbers = self._of_shape(x)
        found, place = [], 0
        for column in self.columns:
            constant = column.kind == "constant"
            empty = np.full(len(numbers), np.nan if column.missing == 1 else 0.0)
            found.append(column.decode(empty if constant else numbers[:, place]))
            place += not constant
        frame = pandas("decoding").concat(found, axis=1)
        frame.columns = [column.name for column in self.columns]
        return frame

    def decode_array(self, x: npt.ArrayLike | Tensor) -> npt.NDArray[np.float64]:
        """float64 ``[N, number of columns]`` of a table whose columns are all numbers, as `infer` took it for an array; NaN is missing.

        Raises:
            InputError: a column of text or dates.
        """
        numbers = self._of_shape(x).astype(np.float64)
        out, place = np.full((len(numbers), len(self.columns)), np.nan), 0
        for i, column in enumerate(self.columns):
            if column.kind == "constant":
                u = np.full(len(numbers), np.nan if column.missing == 1 else 0.0)
            else:
                u, place = numbers[:, place], place + 1
            values = column.plain_values(np.nan_to_num(u, nan=0.0))
            if values.dtype.kind not in "biuf":
                raise InputError(f"{shown(column.name)} holds no numbers, and cannot be part of an array: decode to a DataFrame")
            out[:, i] = np.where(np.isnan(u), np.nan, values)
        return out

    def log_volume(self, x: npt.ArrayLike | Tensor) -> Floats:
        """log |du/dx| ``[N, D]`` at encoded numbers, in nats: what is added to log p(u) for densities of the data in their own units."""
        numbers = self._of_shape(x)
        return np.stack([column.log_volume(numbers[:, i]) for i, column in enumerate(self.modelled)], axis=1)

    def check(self, data: Any) -> tuple[str, ...]:
        """Whether another table fits; a line for each column that it has besides, which are left out.

        Raises:
            InputError: as `encode`.
        """
        found, besides = self._matched(data)
        for column, values in zip(self.columns, found, strict=True):
            column.encode(values)
        return tuple(f"{shown(name)} is not in the schema, and left out" for name in besides)

    def describe(self) -> str:
        """A line a column: its name, kind, likelihood, share of missing values, and why."""
        head = ("column", "kind", "likelihood", "missing", "because")
        rows = [(str(c.name), c.kind, c.likelihood or "-", f"{c.missing:.1%}" if c.missing else "-", c.because) for c in self.columns]
        widths = [max(len(row[i]) for row in (head, *rows)) for i in range(4)]
        lines = ["  ".join([*(part.ljust(width) for part, width in zip(row, widths, strict=False)), row[4]]) for row in (head, *rows)]
        return "\n".join(line.rstrip() for line in lines)

    def to_json(self) -> dict[str, Any]:
        """Plain values, for a JSON file; `from_json` reads them."""
        return {"format": FORMAT, "what": "table", "columns": [_stored(column) for column in self.columns]}

    @staticmethod
    def from_json(stored: Mapping[str, Any]) -> Schema:
        """The schema of `to_json`.

        Raises:
            InputError: another format, or damaged.
        """
        if stored.get("format") != FORMAT or stored.get("what") != "table":
            raise InputError(
                f"a schema of format {stored.get('format')!r} of {stored.get('what')!r}: this version reads format {FORMAT} of 'table'"
            )
        try:
            return Schema(tuple(_restored(one) for one in stored["columns"]))
        except InputError:  # says what is wrong itself
            raise
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise InputError(f"the schema is damaged ({type(error).__name__}: {error}): restore it, or train again") from error

    def _matched(self, data: Any) -> tuple[list[Any], list[Name]]:
        """The values of each column, and the names of those that are not in the schema."""
        given = columns_in(data)
        gone = [column.name for column in self.columns if column.name not in given]
        if gone:
            more = f" (and {len(gone) - 1} more)" if len(gone) > 1 else ""
            raise InputError(
                f"{shown(gone[0])}{more} is missing from the table, which has {len(given)} columns; "
                f"{nearest(str(gone[0]), map(str, given))}"
            )
        known = {column.name for column in self.columns}
        return [given[column.name] for column in self.columns], [name for name in given if name not in known]

    def _of_shape(self, x: npt.ArrayLike | Tensor) -> npt.NDArray[Any]:
        numbers = x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)
        if numbers.ndim != 2 or numbers.shape[1] != len(self.modelled):
            raise InputError(f"numbers of shape {list(numbers.shape)} are no rows of this table: give [N, {len(self.modelled)}]")
        return numbers


def columns_in(data: Any) -> dict[Name, Any]:
    """The columns of a DataFrame, array or tensor ``[N, D]`` by their names.

    Raises:
        InputError: no table, no rows, no columns, or two columns of a name.
    """
    if is_frame(data):
        names = list(data.columns)
        odd = next((name for name in names if not isinstance(name, str | int | np.integer) or isinstance(name, bool)), None)
        if odd is not None:
            raise InputError(f"a column is called {odd!r}: give columns names that are text or whole numbers")
        twice = next((name for i, name in enumerate(names) if name in names[:i]), None) if len(set(names)) < len(names) else None
        if twice is not None:
            places = [i for i, name in enumerate(names) if name == twice]
            raise InputError(f"columns {' and '.join(map(str, places))} (from 0) are both called {twice!r}: rename one")
        found = {name if isinstance(name, str) else int(name): data.iloc[:, i] for i, name in enumerate(names)}
    else:
        array = data.detach().cpu().numpy() if isinstance(data, Tensor) else data
        if not isinstance(array, np.ndarray) or array.ndim != 2:
            held = f"an array of shape {list(array.shape)}" if isinstance(array, np.ndarray) else f"a {type(data).__name__}"
            raise InputError(f"{held} is no table: give a pandas DataFrame or an array [N, D]")
        found = {f"x{i}": array[:, i] for i in range(array.shape[1])}
    if not found or not len(data):
        raise InputError(f"the table is empty: it has {len(data)} rows and {len(found)} columns, and needs at least one of each")
    return found


def _rows(found: Sequence[Any]) -> int:
    return len(found[0])


def _stored(column: Column) -> dict[str, Any]:
    """What differs from the kind's defaults."""
    held = {field.name: getattr(column, field.name) for field in fields(column)}
    plain = {field.name: field.default for field in fields(column)}
    kept = {name: value for name, value in held.items() if plain[name] is MISSING or value != plain[name]}
    return {"kind": column.kind, **{name: list(value) if isinstance(value, tuple) else value for name, value in kept.items()}}


def _restored(stored: Mapping[str, Any]) -> Column:
    given = dict(stored)
    kind = given.pop("kind")
    if kind not in KINDS:
        raise InputError(f'the schema has a column of kind "{kind}"; {nearest(str(kind), KINDS)}')
    fields_of: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    column = KINDS[kind](**fields_of)
    for field in fields(column):
        value = getattr(column, field.name)
        if not _right(field.name, field.default, value) or (kind in CODED and field.name == "categories" and not value):
            raise InputError(
                f"the schema is damaged: {field.name} of {shown(column.name)} is {str(value)[:40]!r}: restore it, or train again"
            )
    return column


def _right(name: str, default: Any, value: Any) -> bool:
    """Whether a field of a column may have this value, by the type of its default."""
    if name == "name":
        return isinstance(value, str | int) and not isinstance(value, bool)
    if name == "value":
        return value is None or isinstance(value, str | int | float)
    if name == "resolution":
        return value in tuple(RESOLUTIONS)
    if name == "categories":
        return isinstance(value, tuple) and all(isinstance(one, str | int | float) for one in value)
    if isinstance(default, float):
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        return number and (name != "scale" or value > 0)
    return isinstance(value, bool if isinstance(default, bool) else str)
