"""What a table holds: its columns in their order, each of a kind, and between tables and numbers both ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vaekit.data.tables.cells import Name, cells_of, several, shown
from vaekit.data.tables.columns import Column, Floats
from vaekit.data.tables.context import Context
from vaekit.data.tables.infer import Kind, column_of, given_of
from vaekit.data.tables.needs import is_frame, pandas
from vaekit.data.tables.stored import restored, stored
from vaekit.errors import InputError, nearest

__all__ = ["FORMAT", "Schema", "columns_in"]

FORMAT = 2


@dataclass(frozen=True)
class Schema:
    """The columns of a table, in its order.

    Constant columns are no part of the numbers: x has one number a row for each of `modelled`, D in all. Nor are those of ``condition``,
    the names of the columns that p(x | z, c) is conditioned on: they are c (`context`).

    Raises:
        InputError: no column that varies; a condition that cannot be one.

    >>> x = np.random.default_rng(0).normal(20, 5, (100, 2))
    >>> schema = Schema.infer(x)
    >>> [(column.name, column.kind, column.likelihood) for column in schema.columns]
    [('x0', 'continuous', 'Gaussian'), ('x1', 'continuous', 'Gaussian')]
    >>> numbers, mask = schema.encode(x)
    >>> numbers.shape, bool(mask.all()), float(abs(schema.decode_array(numbers) - x).max()) < 1e-5
    (torch.Size([100, 2]), True, True)
    """

    columns: tuple[Column, ...]
    condition: tuple[Name, ...] = ()

    def __post_init__(self) -> None:
        _ = self.context
        if not self.modelled:
            held = "no columns" if not self.columns else f"{len(self.columns)} columns, each the same in every row or without a value"
            held += ", or conditioned on" if self.condition else ""
            raise InputError(f"a table of {held}, has nothing to model: give one with a column that varies")

    @staticmethod
    def infer(
        data: Any, *, overrides: Mapping[Name, Kind] | None = None, drop: Name | Sequence[Name] = (), condition: Name | Sequence[Name] = ()
    ) -> Schema:
        """The schema of a DataFrame, or of an array ``[N, D]``, whose columns are called x0, x1, ...

        Args:
            data: a NaN, None, NA or NaT is a missing value.
            overrides: kinds by the names of columns, where the rules are not to decide: "continuous", "heavy-tailed", "positive", "unit",
                "count", "binary", "categorical", "ordinal", "date", or a likelihood ("NegativeBinomial"); for levels in an order that
                sorting does not give them, the levels from the lowest to the highest.
            drop: names of columns to leave out.
            condition: names of columns that are given and not modelled. Whole numbers of up to 50 different values are categories there,
                where no override says otherwise.

        Raises:
            InputError: no rows or columns, two columns of a name, an infinite value, several types in a column, free text or identifiers,
                a kind that a column is not of, an unknown name; the column is named, and the row where there is one.
        """
        found = columns_in(data)
        overrides, drop, condition = overrides or {}, several(drop), several(condition)
        for name in (*overrides, *drop, *condition):
            if name not in found:
                raise InputError(f"the table has no {shown(name)}; {nearest(str(name), map(str, found))}")
        both = next((name for name in condition if name in set(drop)), None)
        if both is not None:
            raise InputError(f"{shown(both)} is to be dropped and to be conditioned on: choose one")
        kept = {name: values for name, values in found.items() if name not in set(drop)}
        columns = tuple(
            (given_of if name in condition else column_of)(name, cells_of(values, name), overrides.get(name))
            for name, values in kept.items()
        )
        return Schema(columns, tuple(name for name in kept if name in set(condition)))

    @property
    def modelled(self) -> tuple[Column, ...]:
        """The columns that are in the numbers, in their order: all but the constant ones and those conditioned on."""
        return tuple(column for column in self.columns if self._modelled(column))

    @property
    def context(self) -> Context | None:
        """The columns that are conditioned on; None where there are none."""
        given = tuple(column for column in self.columns if column.name in self.condition)
        return Context(given) if given else None

    def encode_context(self, data: Any) -> Tensor | None:
        """c float32 ``[N, C]`` of a table, None for a schema without.

        Raises:
            InputError: a column is not there, holds what it cannot, or has no value; the column and the row are named.
        """
        if self.context is None:
            return None
        found = dict(zip([column.name for column in self.columns], self._matched(data)[0], strict=True))
        return self.context.expand(self.context.numbers([found[column.name] for column in self.context.columns]))

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
            numbers = column.encode(values)  # of the others too, which looks at them
            if self._modelled(column):
                x[:, place] = numbers
                place += 1
        rows = torch.from_numpy(x)
        return rows, ~rows.isnan()

    def decode(self, x: npt.ArrayLike | Tensor, c: Tensor | None = None) -> Any:
        """A DataFrame of the original columns and dtypes from encoded numbers ``[N, D]``, a missing value where x is NaN, and the context
        c ``[N, C]`` of a schema with one.

        A dtype of numpy that has no mark for what is missing becomes pandas' nullable one: int64 Int64, bool boolean.

        Raises:
            InputError: numbers or a context of another shape.
        """
        numbers = self._of_shape(x)
        given = iter(self._given(c, len(numbers)))
        found, place = [], 0
        for column in self.columns:
            if column.name in self.condition:
                found.append(next(given))
            elif column.kind == "constant":
                found.append(column.decode(np.full(len(numbers), np.nan if column.missing == 1 else 0.0)))
            else:
                found.append(column.decode(numbers[:, place]))
                place += 1
        frame = pandas("decoding").concat(found, axis=1)
        frame.columns = [column.name for column in self.columns]
        return frame

    def decode_array(self, x: npt.ArrayLike | Tensor) -> npt.NDArray[np.float64]:
        """float64 ``[N, number of columns]`` of a table whose columns are all numbers, as `infer` took it for an array; NaN is missing.

        Raises:
            InputError: a column of text or dates, or one that is conditioned on.
        """
        if self.condition:
            raise InputError(f"{shown(self.condition[0])} is conditioned on and not in these numbers: decode to a DataFrame, with c")
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
        self.encode_context(data)
        return tuple(f"{shown(name)} is not in the schema, and left out" for name in besides)

    def describe(self) -> str:
        """A line a column: its name, kind, likelihood, share of missing values, and why."""
        head = ("column", "kind", "likelihood", "missing", "because")
        given = set(self.condition)
        model = ["(given)" if c.name in given else c.likelihood or "-" for c in self.columns]
        rows = [
            (str(c.name), c.kind, p, f"{c.missing:.1%}" if c.missing else "-", c.because) for c, p in zip(self.columns, model, strict=True)
        ]
        widths = [max(len(row[i]) for row in (head, *rows)) for i in range(4)]
        lines = ["  ".join([*(part.ljust(width) for part, width in zip(row, widths, strict=False)), row[4]]) for row in (head, *rows)]
        return "\n".join(line.rstrip() for line in lines)

    def to_json(self) -> dict[str, Any]:
        """Plain values, for a JSON file; `from_json` reads them."""
        condition = {"condition": list(self.condition)} if self.condition else {}
        return {"format": FORMAT, "what": "table", "columns": [stored(column) for column in self.columns]} | condition

    @staticmethod
    def from_json(given: Mapping[str, Any]) -> Schema:
        """The schema of `to_json`.

        Raises:
            InputError: another format, or damaged.
        """
        if given.get("format") != FORMAT or given.get("what") != "table":
            raise InputError(
                f"a schema of format {given.get('format')!r} of {given.get('what')!r}: this version reads format {FORMAT} of 'table'"
            )
        try:
            schema = Schema(tuple(restored(one) for one in given["columns"]), tuple(given.get("condition", ())))
            if not set(schema.condition) <= {column.name for column in schema.columns}:
                raise ValueError(f"conditioned on {schema.condition}, which are no columns")
            return schema
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

    def _modelled(self, column: Column) -> bool:
        return column.kind != "constant" and column.name not in self.condition

    def _given(self, c: Tensor | None, n: int) -> list[Any]:
        """A Series of each column that is conditioned on."""
        context = self.context
        width = 0 if context is None else context.width
        if (0 if c is None else c.shape[-1]) != width or (c is not None and c.shape != (n, width)):
            held = "no context" if c is None else f"a context {list(c.shape)}"
            raise InputError(f"{held} was given for {n} rows, and this table has one of {width} numbers a row: give c [{n}, {width}]")
        return [] if context is None or c is None else context.decode(c)

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
