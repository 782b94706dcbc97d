"""Which cells of a sweep are trained as one, and the note of it in the folder of the first.

Resuming keeps to the note, whatever the memory or the cluster is then, and so ends with the same weights.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from vaekit.errors import InputError
from vaekit.files import write_json

__all__ = ["Group", "divided", "noted", "write_note"]

FILE = "together.json"


@dataclass(frozen=True)
class Group:
    """Cells that are alike, by the names of their folders, and how many of them one program trains ``at_once`` (None: not decided yet)."""

    names: tuple[str, ...]
    at_once: int | None


def write_note(path: Path, group: Group) -> None:
    """``group`` into the first cell's folder of the sweep in ``path``. A later start finds it and changes nothing."""
    write_json(path / group.names[0] / FILE, {"cells": group.names, "at_once": group.at_once})


def noted(path: Path, name: str) -> Group | None:
    """The group whose first cell is ``name``, where it has been begun.

    Raises:
        InputError: the note is damaged.
    """
    file = path / name / FILE
    if not file.is_file():
        return None
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        return Group(tuple(map(str, raw["cells"])), int(raw["at_once"]))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is damaged ({type(error).__name__}: {error}): restore it, or sweep again") from error


def divided(names: Sequence[str], most: int, tile: int = 1) -> list[tuple[str, ...]]:
    """A group's cells in parts of about ``most``, which can be trained in different places; no part is a single cell.

    Args:
        names: of the cells, two or more.
        most: what a part should hold.
        tile: models trained at once: a part holds a multiple of it, but for the last.

    >>> divided("abcdefg", 3), divided("abc", 2), divided("abcdef", 2, tile=4)
    ([('a', 'b', 'c'), ('d', 'e'), ('f', 'g')], [('a', 'b', 'c')], [('a', 'b', 'c', 'd'), ('e', 'f')])
    """
    if tile > 1:
        step = tile * max(1, most // tile)
        starts = [i for i in range(0, len(names), step) if i == 0 or i < len(names) - 1]
    else:
        count = max(1, min(-(-len(names) // most), len(names) // 2))
        starts = [-(-i * len(names) // count) for i in range(count)]
    return [tuple(names[start:end]) for start, end in pairwise([*starts, len(names)])]
