"""Columns as plain values for a JSON file, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from vaekit.data.tables.cells import shown
from vaekit.data.tables.columns import Column
from vaekit.data.tables.dates import RESOLUTIONS
from vaekit.data.tables.kinds import KINDS
from vaekit.data.tables.numbers import MOST
from vaekit.errors import InputError, nearest

__all__ = ["restored", "stored"]

CODED = ("binary", "categorical", "ordinal")


def stored(column: Column) -> dict[str, Any]:
    """What differs from the kind's defaults."""
    held = {field.name: getattr(column, field.name) for field in fields(column)}
    plain = {field.name: field.default for field in fields(column)}
    kept = {name: value for name, value in held.items() if plain[name] is MISSING or value != plain[name]}
    return {"kind": column.kind, **{name: list(value) if isinstance(value, tuple) else value for name, value in kept.items()}}


def restored(found: Mapping[str, Any]) -> Column:
    """A column from what `stored` made of it.

    Raises:
        InputError: another kind, or a field that is damaged.
    """
    given = dict(found)
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
    if name == "decimals":
        return value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST)
    if name == "categories":
        return isinstance(value, tuple) and all(isinstance(one, str | int | float) for one in value)
    if isinstance(default, float):
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        return number and (name != "scale" or value > 0)
    return isinstance(value, bool if isinstance(default, bool) else str)
