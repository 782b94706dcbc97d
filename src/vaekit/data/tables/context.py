r"""What a model is conditioned on: columns that the user names, as the context c of p(x | z, c) and q(z | x, c), and back.

======================  ==================================================================
Column                  its numbers in c
======================  ==================================================================
categorical             one for each category, 1 for its own (one-hot)
binary                  0 or 1
ordinal                 level / (levels - 1)
count                   log(1 + k): above some 500,000, k comes back to six digits
other numbers, dates    as the schema standardises them
======================  ==================================================================

A missing category was met in training or it was not. Where it was, it is a category of its own (one number more, 1 where it is missing):
those rows have something in common, that nobody told. Where it was not, and where a number is missing, nothing can be given, and that
is refused: filling in a value would condition on what is not known.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaekit.data.tables.cells import Cells, cells_of, first_row, made, shown
from vaekit.data.tables.codes import Binary, Categorical, Ordinal
from vaekit.data.tables.columns import Column
from vaekit.data.tables.dates import Date
from vaekit.data.tables.fields import ZONE
from vaekit.data.tables.needs import pandas
from vaekit.data.tables.numbers import Count, limits
from vaekit.errors import InputError

__all__ = ["Context"]

CATEGORIES = 1000  # of a column, at most: each is an input of the networks
GONE = -1.0  # stands for a missing category


@dataclass(frozen=True)
class Context:
    """The columns that are given, in the table's order, and between them and c ``[N, C]``.

    Rows of *numbers* ``[N, G]`` have one a column: a code, -1 for a missing category, or the standardised number.

    Raises:
        InputError: a column that is the same everywhere, one of more than 1000 categories, or one of numbers that misses some.

    >>> column = Categorical(name="city", dtype="object", categories=("Bonn", "Ulm"), missing=0.1)
    >>> context = Context((column,))
    >>> context.expand(context.numbers([np.array(["Ulm", None], dtype=object)]))
    tensor([[0., 1., 0.],
            [0., 0., 1.]])
    """

    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        for column in self.columns:
            who = shown(column.name)
            if column.kind == "constant" or (_coded(column) and column.size < 2):
                raise InputError(f"{who} is the same in every row, and nothing depends on it: leave it out of what is conditioned on")
            if column.size > CATEGORIES:
                raise InputError(
                    f"{who} has {column.size} categories, and one that is conditioned on may have {CATEGORIES}: group them, or drop it"
                )
            if column.missing and not _coded(column):
                raise InputError(
                    f"{who} misses {column.missing:.1%} of its values, and what is conditioned on must be known: leave those rows out, "
                    "make categories of it, or let it be modelled"
                )

    @property
    def width(self) -> int:
        """C, the numbers of c."""
        return sum(map(_width, self.columns))

    def numbers(self, values: Sequence[Any]) -> Tensor:
        """float32 ``[N, G]`` of a Series or array for each column.

        Raises:
            InputError: a value that is none of a column's categories, or a missing one where none was missing in training.
        """
        found = []
        for column, given in zip(self.columns, values, strict=True):
            cells = given if isinstance(given, Cells) else cells_of(given, column.name)
            if cells.missing.any() and not _open(column):
                raise InputError(
                    f"{shown(column.name)} has no value in {first_row(cells.missing)}, and what is conditioned on must be known: "
                    "leave such rows out"
                )
            found.append(np.nan_to_num(column.encode(cells), nan=GONE))
        return torch.from_numpy(np.stack(found, 1))

    def expand(self, numbers: Tensor) -> Tensor:
        """c ``[N, C]`` of numbers ``[N, G]``."""
        found = []
        for column, u in zip(self.columns, numbers.T, strict=True):
            there = u.clamp(min=0) if _coded(column) else u
            if isinstance(column, Categorical):
                found.append((there.unsqueeze(1) == torch.arange(column.size)).float() * (u >= 0).unsqueeze(1))
            else:
                found.append((there / _unit(column) if _coded(column) else u.log1p() if isinstance(column, Count) else u).unsqueeze(1))
            if _open(column):
                found.append((u < 0).float().unsqueeze(1))
        return torch.cat(found, 1)

    def collapse(self, c: Tensor) -> Tensor:
        """The numbers ``[N, G]`` of c ``[N, C]``."""
        found = []
        for column, part in zip(self.columns, c[:, : self.width].split([_width(column) for column in self.columns], 1), strict=True):
            own = part[:, :-1] if _open(column) else part
            u = own.argmax(1).float() if isinstance(column, Categorical) else own[:, 0]
            if _coded(column) and not isinstance(column, Categorical):
                u = (u * _unit(column)).round()
            elif isinstance(column, Count):
                u = u.expm1().round()
            found.append(torch.where(part[:, -1] > 0.5, torch.full_like(u, GONE), u) if _open(column) else u)
        return torch.stack(found, 1)

    def decode(self, c: Tensor) -> list[Any]:
        """A Series of each column of c ``[N, C]``, of the dtype that it came in; numbers to as many digits as float32 tells apart."""
        numbers = self.collapse(c.detach().cpu()).double().numpy()
        return [
            _digits(column, np.where(u < 0, np.nan, u) if _open(column) else u) for column, u in zip(self.columns, numbers.T, strict=True)
        ]

    def chosen(self, rows: Tensor, words: Sequence[str]) -> Tensor:
        """``rows`` of numbers ``[M, G + any more]`` to draw contexts from, where ``words`` say ``column=value``: those that have the value,
        for what else is given depends on it, or all of them with the value put in, where none has.

        Raises:
            InputError: no such column or value, a column that is there twice.
        """
        named: set[int] = set()
        for word in words:
            place = next((g for g, column in enumerate(self.columns) if word.startswith(f"{column.name}=")), None)
            if place is None:
                asked = word.partition("=")[0]
                held = ", ".join(str(column.name) for column in self.columns)
                hint = "write column=value" if "=" not in word else f"it is conditioned on: {held}"
                raise InputError(f'--where {word}: this model is not conditioned on "{asked}"; {hint}')
            if place in named:
                raise InputError(f"--where {word}: {shown(self.columns[place].name)} is given twice")
            named.add(place)
            u, alone = self._read(self.columns[place], word), Context((self.columns[place],))
            same = rows[:, place] == alone.collapse(alone.expand(u.view(1, 1)))[0, 0]  # a large count as c keeps it
            rows = rows[same] if bool(same.any()) else rows
            rows = torch.cat([rows[:, :place], u.expand(len(rows), 1), rows[:, place + 1 :]], 1)
        return rows

    def _read(self, column: Column, word: str) -> Tensor:
        """The number of a value as it is typed, ``[]``."""
        text = word[len(f"{column.name}=") :]
        if _coded(column):
            known = {str(value).lower() if isinstance(value, bool) else str(value): n for n, value in enumerate(column.categories)}
            if _open(column):
                known[""] = int(GONE)
            key = text.lower() if isinstance(column.categories[0], bool) else _as_number(text, column) or text
            if key not in known:
                held = ", ".join([name or "nothing (missing)" for name in known][:20]) + (", ..." if len(known) > 20 else "")
                raise InputError(f"--where {word}: {shown(column.name)} has no such value; it is one of {held}")
            return torch.tensor(float(known[key]))
        try:
            value: Any = _date(text, column) if isinstance(column, Date) else float(text)
        except ValueError:
            wanted = "a date, as 2020-12-31" if isinstance(column, Date) else "a number"
            raise InputError(f"--where {word}: {shown(column.name)} takes {wanted}") from None
        if isinstance(column, Date):
            cells = Cells("dates", np.array([value]).astype("datetime64[ns]"), np.array([np.isnat(value)]), column.dtype)
        elif not math.isfinite(value) or (_whole(column) and not value.is_integer()):
            raise InputError(f"--where {word}: {shown(column.name)} takes a finite number{', a whole one' if _whole(column) else ''}")
        else:
            cells = Cells("numbers", np.array([value]), np.array([False]), column.dtype)
        try:
            return Context((column,)).numbers([cells])[0, 0]
        except InputError as error:
            raise InputError(f"--where {word}: {error}") from error


def _as_number(text: str, column: Column) -> str | None:
    """How the category is written that is the same number, 3 and 3.0; None where there is none."""
    try:
        x = float(text)
    except ValueError:
        return None
    return next((str(value) for value in column.categories if not isinstance(value, str | bool) and value == x), None)


def _date(text: str, column: Column) -> np.datetime64:
    """A date as it is typed, in UTC where the column has a zone; without one of its own it is of that zone.

    Raises:
        ValueError: it is none.
    """
    if "," not in column.dtype:
        return np.datetime64(text)
    pd = pandas("reading a date")
    stamp = pd.Timestamp(text) if re.search(ZONE, text) else pd.Timestamp(np.datetime64(text))
    if pd.isna(stamp):
        return np.datetime64("NaT")
    if stamp.tzinfo is None:  # of an hour that the clocks repeat or leave out, one that there is
        stamp = stamp.tz_localize(made(column.dtype).tz, ambiguous=True, nonexistent="shift_forward")
    return np.datetime64(stamp.tz_convert("UTC").tz_localize(None).to_datetime64())


def _coded(column: Column) -> bool:
    return isinstance(column, Binary | Categorical | Ordinal)


def _open(column: Column) -> bool:
    """Whether a missing value is a category of its own."""
    return _coded(column) and column.missing > 0


def _unit(column: Column) -> int:
    return column.size - 1


def _width(column: Column) -> int:
    return (column.size if isinstance(column, Categorical) else 1) + _open(column)


def _whole(column: Column) -> bool:
    """Whether a number of the column cannot have a fraction."""
    return limits(column.dtype) is not None or isinstance(column, Count)


def _digits(column: Column, u: np.ndarray[Any, np.dtype[np.float64]]) -> Any:
    """Decoded, a broken number with the digits that float32 has told apart: 2.5 that was given comes back as 2.5."""
    series = column.decode(u)
    if _coded(column) or isinstance(column, Date) or _whole(column) or not len(u):
        return series
    x = series.to_numpy(dtype=np.float64)
    step = np.maximum(np.abs(u) * column.scale * (np.abs(x) if column.log else 1.0) * 2.0**-22, np.maximum(np.abs(x), 1e-290) * 1e-15)
    rounded = [round(float(value), int(places)) for value, places in zip(x, np.floor(-np.log10(step)), strict=True)]
    return pandas("decoding").Series(rounded, dtype=series.dtype, name=series.name)
