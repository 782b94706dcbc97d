"""Tensors on disk: one safetensors file, written whole or not at all, checked when it is read. Nothing is ever pickled.

Beside the tensors a file holds one JSON value, and a checksum of both: safetensors notices a file that was cut short, not a bit that
flipped. Names that share one tensor (tied weights) are stored once.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor

from vaekit.files import write_bytes

__all__ = ["DamagedError", "read", "write"]


HEADER = "vaekit"
"""The one entry of a file's safetensors header: the checksum, in hexadecimal, and the JSON text."""


class DamagedError(ValueError):
    """A file that is not what was written; the message says in which way."""


def write(path: Path, tensors: Mapping[str, Tensor], value: Mapping[str, Any]) -> None:
    """Write tensors and a JSON value to ``path``, atomically and durably.

    Raises:
        InputError: no space or no permission; an older file of that name is untouched.
    """
    stored, alias = _untied(tensors)
    text = json.dumps({"value": value, "alias": alias}, allow_nan=False, sort_keys=True)
    # One entry: safetensors writes several in an order of its own, and the same weights should be the same bytes.
    write_bytes(path, serialise(stored, {HEADER: f"{_crc(stored, text):08x} {text}"}))


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors, on the CPU, and the JSON value; of a safetensors file that vaekit did not write, the tensors and {}.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedError: the file is cut short, changed or no safetensors file at all.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - a safe_open is no mapping
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, UnicodeDecodeError) as error:
        raise DamagedError(f"{path} cannot be read ({_line(error)})") from error
    if set(header) <= {"format"}:  # what other writers put there; anything else is ours, or was before it was damaged
        return tensors, {}
    crc, _, text = header.get(HEADER, "").partition(" ")
    if crc != f"{_crc(tensors, text):08x}":
        raise DamagedError(f"{path} is not as it was written (its checksum differs)")
    content = json.loads(text)
    return tensors | {name: tensors[first] for name, first in content["alias"].items()}, content["value"]


def _untied(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Each tensor once, contiguous, on the CPU and with memory of its own; and name -> name for those that are the same tensor."""
    stored: dict[str, Tensor] = {}
    alias: dict[str, str] = {}
    first: dict[object, str] = {}
    for name, t in sorted(tensors.items()):
        place = (t.untyped_storage().data_ptr(), t.storage_offset(), t.shape, t.stride(), t.dtype, t.device)
        if t.numel() > 0 and first.setdefault(place, name) != name:
            alias[name] = first[place]
        else:
            stored[name] = t.detach().to("cpu", memory_format=torch.contiguous_format, copy=True)
    return stored, alias


def _crc(tensors: Mapping[str, Tensor], text: str) -> int:
    crc = zlib.crc32(text.encode())
    for name, t in sorted(tensors.items()):
        crc = zlib.crc32(f"{name} {t.dtype} {list(t.shape)}".encode(), crc)
        crc = zlib.crc32(t.contiguous().reshape(-1).view(torch.uint8).numpy().data, crc)
    return crc


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
