"""What the recipes for data of one's own look at: the data, what was found in them before, and what the user says of their columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from vaekit.data.core import DataSet
from vaekit.data.tables import Counts, Description, Known, Pixels, Schema, inspect
from vaekit.data.tables.cells import Name
from vaekit.data.tables.infer import Kind
from vaekit.errors import InputError

__all__ = ["look", "overrides_of", "schema_as"]


def look(
    path: str,
    known: Known | None,
    *,
    overrides: dict[Name, Kind] | None = None,
    drop: Name | Sequence[Name] = (),
    condition: Name | Sequence[Name] = (),
) -> tuple[Known, Callable[[], DataSet]]:
    """What is known of the data, looked at now where nothing is, and what reads them. ``overrides``, ``drop`` and ``condition`` as in
    `vaekit.data.tables.inspect`."""
    if known is None:
        found = inspect(path, overrides=overrides, drop=drop, condition=condition)
        return Known.of(found), lambda: found.data
    schema = known.schema
    return known, lambda: inspect(path, schema=schema).data


D = TypeVar("D", Schema, Pixels, Counts)


def schema_as(kind: type[D], schema: Description, path: str, recipe: str) -> D:
    """The schema, if it is of ``kind``, which the recipe is for.

    Raises:
        InputError: it is not.
    """
    if not isinstance(schema, kind):
        named = {Schema: "table", Pixels: "images", Counts: "counts"}[type(schema)]
        raise InputError(f"own:{recipe} is not for {path}, which holds {named}: vaekit train {path} takes own:{named}")
    return schema


def overrides_of(kinds: str | Sequence[str]) -> dict[Name, Kind]:
    """name=kind, or name=low<middle<high, by the names.

    Raises:
        InputError: another form, or a column twice.

    >>> overrides_of(["age=count", "size=s<m<l", "stars=1<2<3"])
    {'age': 'count', 'size': ('s', 'm', 'l'), 'stars': (1, 2, 3)}
    """
    found: dict[Name, Kind] = {}
    for word in [kinds] if isinstance(kinds, str) else kinds:
        name, equals, kind = word.rpartition("=")
        if not equals or not name or not kind:
            raise InputError(f'--kind {word}: give a column and its kind, as "age=count", or its levels, as "size=small<medium<large"')
        if name in found:
            raise InputError(f'--kind {word}: column "{name}" is given a kind twice')
        levels = kind.split("<")
        whole = all(level.lstrip("-").isdigit() for level in levels)
        found[name] = kind if len(levels) == 1 else tuple(int(level) for level in levels) if whole else tuple(levels)
    return found
