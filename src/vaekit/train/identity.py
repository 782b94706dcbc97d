"""What a run is, as text: a resumed run must be the same one, and the message must say where it is not."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import fields, is_dataclass

import torch
from torch import Tensor, nn

from vaekit.data.core import Split
from vaekit.objectives.schedules import Schedule

__all__ = ["checksum", "settings"]


def settings(module: nn.Module, name: str) -> dict[str, object]:
    """Class and settings of a module and of each module inside it, by name.

    Settings are the public attributes that are numbers, text, schedules, dataclasses, or tuples of these. Lists, tensors, functions and
    names with an underscore are not: they hold state, or have no text that is the same in every process.

    >>> from vaekit import ELBO
    >>> settings(ELBO(k=2), "objective")["objective"]
    'ELBO(k=2, closed_form=None)'
    """
    return {
        f"{name}.{inner}" if inner else name: f"{type(m).__name__}({', '.join(_public(vars(m)))})" for inner, m in module.named_modules()
    }


def checksum(split: Split) -> str:
    """The stored rows' CRC-32, the mask's and the context's, and the name of what prepares them; 7 GB a second. Of rows in a file, of those
    in their `FileRows.sample`, and how many there are; where these are all it is the same as of rows in memory.

    >>> checksum(Split(torch.zeros(2, 3)))
    'a3c1ca20, prepared by to_float'
    """
    crc, looked = 0, len(split)
    for rows in (split.x, split.mask, split.c):
        if isinstance(rows, Tensor):
            crc = _crc(rows, crc)
        elif rows is not None:
            looked = len(rows.sample())
            for index in split.glance():
                crc = _crc(rows.read(index), crc)
    prepare = getattr(split.prepare, "__qualname__", type(split.prepare).__name__)  # a function has its own name, another callable a class
    return f"{crc:08x}{'' if looked == len(split) else f' of a sample of {len(split)} rows'}, prepared by {prepare}"


def _crc(t: Tensor, start: int) -> int:
    return zlib.crc32(t.detach().cpu().contiguous().view(torch.uint8).numpy().data, start)


def _public(attributes: dict[str, object]) -> Iterator[str]:
    for name, value in attributes.items():
        text = None if name.startswith("_") or name == "training" else _text(value)
        if text is not None:
            yield f"{name}={text}"


def _text(value: object) -> str | None:
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    if isinstance(value, tuple):
        parts = [_text(item) for item in value]
        return None if None in parts else f"({', '.join(map(str, parts))})"
    if is_dataclass(value) and not isinstance(value, type):
        return f"{type(value).__name__}({', '.join(_public({f.name: getattr(value, f.name) for f in fields(value)}))})"
    if isinstance(value, Schedule):
        return f"{type(value).__name__}({', '.join(_public(vars(value)))})"
    return None
