"""Tensors on disk: one safetensors file, written whole or not at all, checked when it is read. Nothing is ever pickled.

Beside the tensors a file holds one JSON value, and a checksum of both: safetensors notices a file that was cut short, not a bit that
flipped. Names that share one tensor (tied weights) are stored once.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vaekit.files import write_bytes

__all__ = ["DamagedError", "read", "write"]


HEADER = "vaekit"
"""The one entry of a file's safetensors header: the checksum, in hexadecimal, and the JSON text."""

DTYPES = {
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float64: "F64",
    torch.complex64: "C64",
    torch.float32: "F32",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""Their names in a safetensors file, in the order in which it holds them: the widest first, so that all lie at multiples of their size."""


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
    write_bytes(path, _parts(stored, {HEADER: f"{_crc(stored, text):08x} {text}"}))


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
    """Each tensor once, on the CPU, where it was there already in the same memory; name -> name for those that are the same tensor."""
    stored: dict[str, Tensor] = {}
    alias: dict[str, str] = {}
    first: dict[object, str] = {}
    for name, t in sorted(tensors.items()):
        place = (t.untyped_storage().data_ptr(), t.storage_offset(), t.shape, t.stride(), t.dtype, t.device)
        if t.numel() > 0 and first.setdefault(place, name) != name:
            alias[name] = first[place]
        else:
            stored[name] = t.detach().cpu()
    return stored, alias


def _parts(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Iterator[bytes | memoryview]:
    """A safetensors file, byte for byte as the library makes it, one tensor at a time: the library holds all of it, twice."""
    order = list(DTYPES)
    placed = sorted(tensors.items(), key=lambda item: (order.index(item[1].dtype), item[0]))
    entries: dict[str, object] = {"__metadata__": metadata}
    end = 0
    for name, t in placed:
        start, end = end, end + t.numel() * t.element_size()
        entries[name] = {"dtype": DTYPES[t.dtype], "shape": list(t.shape), "data_offsets": [start, end]}
    header = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    yield len(header).to_bytes(8, "little")
    yield header
    for _, t in placed:
        yield _bytes(t)


def _bytes(t: Tensor) -> memoryview:
    """Row by row."""
    found: memoryview = t.contiguous().reshape(-1).view(torch.uint8).numpy().data
    return found


def _crc(tensors: Mapping[str, Tensor], text: str) -> int:
    crc = zlib.crc32(text.encode())
    for name, t in sorted(tensors.items()):
        crc = zlib.crc32(f"{name} {t.dtype} {list(t.shape)}".encode(), crc)
        crc = zlib.crc32(_bytes(t), crc)
    return crc


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
