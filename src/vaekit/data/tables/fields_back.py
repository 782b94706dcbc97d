"""The fields of a text file as they are written, to write the file again with some of them filled in."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vaekit.data.tables.delimited import Layout, layout_of
from vaekit.data.tables.fields import TRUTHS
from vaekit.data.tables.needs import pandas
from vaekit.data.tables.read import TEXT

__all__ = ["Fields", "fields_of"]


@dataclass(frozen=True, eq=False)
class Fields:
    """N rows of fields as text, by the names of their columns, and how the file writes them, its ``layout``."""

    layout: Layout
    columns: Mapping[str, list[str]]

    def filled(self, values: Mapping[Any, Any], holes: Mapping[Any, npt.NDArray[np.bool_]]) -> bytes:
        """The file with the fields in ``holes``, bool ``[N]`` of a column, from ``values``, a Series ``[N]``, as the column's others are
        written; all others as they were, but for quotes that they need not have and lines that are empty."""
        columns = dict(self.columns)
        for name, missing in holes.items():
            if missing.any():
                others = [field.strip() for field, gone in zip(columns[name], missing.tolist(), strict=True) if not gone]
                comma = name in self.layout.commas or (bool(self.layout.commas) and not any("." in field for field in others))
                made = iter(_written(values[name][missing].tolist(), others, comma))
                columns[name] = [next(made) if gone else field for field, gone in zip(columns[name], missing.tolist(), strict=True)]
        text = io.StringIO(newline="")
        writer = csv.writer(text, delimiter=self.layout.separator, lineterminator=self.layout.line_end)
        writer.writerows([self.layout.header] if self.layout.header else [])
        writer.writerows(zip(*columns.values(), strict=True))
        try:
            return text.getvalue().encode(self.layout.encoding)
        except UnicodeEncodeError:  # a category that training had from a file of another encoding
            return text.getvalue().encode()


def fields_of(path: Path) -> Fields | None:
    """The fields of a text file that `vaekit.data.tables.read_table` reads; None of another file.

    Raises:
        InputError: as `vaekit.data.tables.read_table`.
    """
    if not path.name.lower().endswith(TEXT):
        return None
    table, layout = layout_of(path)
    return Fields(layout, {name: table[name].to_pylist() for name in table.column_names})


def _written(values: Sequence[Any], others: Sequence[str], comma: bool) -> list[str]:
    """Values as text, as the other fields of their column are."""
    truths = {TRUTHS[field]: field for field in others if field in TRUTHS}
    days = all(len(field) == len("2020-12-31") for field in others) and all(_day(value) for value in values)
    found = []
    for value in values:
        if isinstance(value, bool):
            found.append(truths.get(value, str(value)))
        elif isinstance(value, float):
            text = np.format_float_positional(value, trim="-")
            found.append(text.replace(".", ",") if comma else text)
        elif isinstance(value, pandas().Timestamp):
            found.append(value.strftime("%Y-%m-%d") if days else value.isoformat())
        else:
            found.append(str(value))
    return found


def _day(value: object) -> bool:
    """Whether a time says no more than its date does."""
    return isinstance(value, pandas().Timestamp) and value.tzinfo is None and value == value.normalize()
