"""What was found in data, without the data: all that a model of them is built from, kept with the run that trains it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vaekit.data.core import DataSet, Split
from vaekit.data.sparse import SparseRows
from vaekit.data.tables.counts import Counts
from vaekit.data.tables.found import Description, Found, described
from vaekit.data.tables.schema import Schema
from vaekit.errors import InputError

__all__ = ["Known", "sized", "with_sizes"]

LEAST = 2.0**-7  # of a column's scale: the smallest standard deviation, where no rounding asks for a larger one
MOST = 0.5
QUANTILES = 201
ROWS = 4096


@dataclass(frozen=True)
class Known:
    """What a run knows of its data.

    Attributes:
        name: of the data set.
        rows: numbers of training, validation and test rows.
        schema: what they are.
        notes: of how they were read.
        floors: of a table, the smallest standard deviation of each modelled column, in its encoded unit: half a rounding step where values
            are rounded, so that no density grows without bound on values that are alike.
        start: where rates begin. Of a table, the logarithm of the mean of each modelled column that holds counts, 0 for others; of counts,
            that of each column's share of all, half a count added to each.
        sizes: of counts, quantiles of the logarithm of the rows' totals, from the smallest to the largest: the sizes that samples have.
        given: of data with columns that are conditioned on, these in some training rows (4096 at most, of counts with the logarithm of the
            total): the contexts that samples have, and that `Context.chosen` chooses from.
    """

    name: str
    rows: tuple[int, int, int]
    schema: Description
    notes: tuple[str, ...] = ()
    floors: tuple[float, ...] = ()
    start: tuple[float, ...] = ()
    sizes: tuple[float, ...] = ()
    given: tuple[tuple[float, ...], ...] = ()

    @staticmethod
    def of(found: Found) -> Known:
        """Of what `vaekit.data.tables.inspect` found."""
        data = found.data
        rows = (len(data.train), 0 if data.valid is None else len(data.valid), len(data.test))
        floors: tuple[float, ...] = ()
        start: tuple[float, ...] = ()
        sizes: tuple[float, ...] = ()
        if isinstance(found.schema, Schema) and isinstance(data.train.x, Tensor):
            floors = tuple(_floor(column) for column in data.train.x.numpy().T)
            means = data.train.x.nanmean(0).nan_to_num(0.0).clamp(min=1e-3).log().tolist()
            start = tuple(mean if c.kind == "count" else 0.0 for c, mean in zip(found.schema.modelled, means, strict=True))
        if isinstance(found.schema, Counts) and isinstance(data.train.x, SparseRows):
            columns = data.train.x.column_totals() + 0.5
            start = tuple(round(share, 4) for share in (columns / columns.sum()).log().tolist())
            sizes = tuple(np.quantile(_log_totals(data.train).numpy(), np.linspace(0, 1, QUANTILES)).tolist())
        return Known(data.name, rows, found.schema, found.notes, floors, start, sizes, _given(found))

    def contexts(self, where: Sequence[str] = ()) -> Tensor | None:
        """Contexts ``[M, C]`` to draw from, those of training rows, or those ``where`` columns have values: see `Context.chosen`. None of
        data without a context.

        Raises:
            InputError: a column that is not conditioned on, or a value that it does not have.
        """
        context = self.schema.context
        if context is None:
            if where:
                raise InputError(f"--where {where[0]}: this model is not conditioned on any column; train one with --condition")
            return torch.tensor(self.sizes).unsqueeze(1) if self.sizes else None
        rows = context.chosen(torch.tensor(self.given), where)
        return torch.cat([context.expand(rows[:, : len(context.columns)]), rows[:, len(context.columns) :]], 1)

    def describe(self) -> str:
        """What was found and why, and the notes."""
        counts = zip(self.rows, ("training", "validation", "test"), strict=True)
        rows = ", ".join(f"{n} {name}" for n, name in counts if n)
        return "\n".join([f"{self.name}: {rows} rows", self.schema.describe(), *(f"note: {note}" for note in self.notes)])

    def to_json(self) -> dict[str, Any]:
        """Plain values, for a JSON file; `from_json` reads them."""
        return {
            "name": self.name,
            "rows": list(self.rows),
            "schema": self.schema.to_json(),
            "notes": list(self.notes),
            "floors": list(self.floors),
            "start": list(self.start),
            "sizes": list(self.sizes),
            **({"given": [list(row) for row in self.given]} if self.given else {}),
        }

    @staticmethod
    def from_json(stored: Mapping[str, Any]) -> Known:
        """What `to_json` gave.

        Raises:
            InputError: another format, or damaged.
        """
        try:
            train, valid, test = map(int, stored["rows"])
            floors, start, sizes = (tuple(map(float, stored[key])) for key in ("floors", "start", "sizes"))
            schema = described(stored["schema"])
            if isinstance(schema, Schema) and not len(floors) == len(start) == len(schema.modelled):
                raise ValueError(f"{len(floors)} floors of {len(schema.modelled)} columns")
            if isinstance(schema, Counts) and len(start) != schema.width:
                raise ValueError(f"{len(start)} starts of {schema.width} columns")
            given = tuple(tuple(map(float, row)) for row in stored.get("given", ()))
            width = 0 if schema.context is None else len(schema.context.columns) + isinstance(schema, Counts)
            if {len(row) for row in given} != ({width} if width else set()):
                raise ValueError(f"contexts of {len(given)} rows are not of {width} columns")
            return Known(str(stored["name"]), (train, valid, test), schema, tuple(stored["notes"]), floors, start, sizes, given)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"the description is damaged ({type(error).__name__}: {error}): restore it, or train again") from error


def with_sizes(data: DataSet) -> DataSet:
    """`sized`, of each split."""
    valid = None if data.valid is None else sized(data.valid)
    return DataSet(data.name, train=sized(data.train), test=sized(data.test), valid=valid, label_names=data.label_names)


def sized(split: Split) -> Split:
    """Counts with the logarithm of each row's total as the last number of their context c, ``[N, C + 1]``; of a row of zeros, that of 1."""
    sizes = _log_totals(split).unsqueeze(1)
    c = sizes if split.c is None else torch.cat([split.c, sizes], 1)
    return Split(split.x, label=split.label, prepare=split.prepare, mask=split.mask, c=c)


def _given(found: Found) -> tuple[tuple[float, ...], ...]:
    context, train = found.schema.context, found.data.train
    if context is None or train.c is None:
        return ()
    some = train.head(min(ROWS, len(train)))  # the rows are in a random order
    rows = context.collapse(train.c[: len(some)])
    if isinstance(found.schema, Counts):
        rows = torch.cat([rows, _log_totals(some).unsqueeze(1)], 1)
    return tuple(map(tuple, rows.tolist()))


def _log_totals(split: Split) -> Tensor:
    if isinstance(split.x, SparseRows):
        totals = split.x.totals()
    else:
        totals = torch.cat([split.batch(index).x.flatten(1).sum(1) for index in torch.arange(len(split)).split(1024)])
    return totals.clamp(min=1).log()


def _floor(u: npt.NDArray[Any]) -> float:
    """The smallest standard deviation of a column of encoded numbers: half the usual step between values where they repeat.

    A power of two, so that columns of like floors share a head.

    >>> _floor(np.round(np.random.default_rng(0).normal(size=1000), 1)), _floor(np.random.default_rng(0).normal(size=1000))
    (0.0625, 0.0078125)
    """
    present = u[~np.isnan(u)]
    values = np.unique(present)
    if len(values) < 2 or len(values) > 0.9 * len(present):
        return LEAST
    half = float(np.median(np.diff(values))) / 2
    return min(MOST, max(LEAST, 2.0 ** math.ceil(math.log2(half))))
