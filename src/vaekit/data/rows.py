"""One array from a file of rows: ``.npy``, ``.npz`` or IDX, the last also as ``.gz`` or ``.xz``. Nothing is ever unpickled."""

from __future__ import annotations

import io
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vaekit.data.formats import _reading, read_bytes
from vaekit.errors import InputError, nearest

__all__ = ["read_rows", "row_bytes"]

IDX = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_rows(path: Path, *, key: str | None = None) -> npt.NDArray[Any]:
    """The array of a file.

    Args:
        path: what it holds is told from its first bytes.
        key: which array of a ``.npz`` file; None for the one there is, or "x".

    Raises:
        InputError: no such file; of no format that is known, or damaged; several arrays, and no ``key`` that says which.
    """
    if not path.is_file():
        raise InputError(f"no file {path}")
    data = read_bytes(path)
    if data[:6] == b"\x93NUMPY":
        with _reading(path):
            return np.load(io.BytesIO(data), allow_pickle=False)
    if data[:4] == b"PK\x03\x04":
        return _from_npz(path, data, key)
    if data[:2] == b"\0\0" and len(data) >= 4 and data[2] in IDX:
        return _from_idx(path, data)
    raise InputError(f"{path} is no .npy, .npz or IDX file: save the array with numpy.save")


def row_bytes(x: npt.NDArray[Any], path: Path) -> bytes:
    """The file for an array, by its ending: ``.npy``, or ``.npz`` with the array "x".

    Raises:
        InputError: another ending.
    """
    buffer = io.BytesIO()
    if path.suffix == ".npy":
        np.save(buffer, x, allow_pickle=False)
    elif path.suffix == ".npz":
        np.savez_compressed(buffer, allow_pickle=False, x=x)
    else:
        raise InputError(f"{path}: an array is written as .npy or .npz")
    return buffer.getvalue()


def _from_npz(path: Path, data: bytes, key: str | None) -> npt.NDArray[Any]:
    with _reading(path), zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        wanted = key or (names[0] if len(names) == 1 else "x")
        if wanted not in names:
            which = f'no array "{key}"; {nearest(key, names)}' if key else f"the arrays {', '.join(names)}: say which with --key"
            raise InputError(f"{path} has {which}")
        return np.load(io.BytesIO(archive.read(f"{wanted}.npy")), allow_pickle=False)


def _from_idx(path: Path, data: bytes) -> npt.NDArray[Any]:
    kind, start = np.dtype(IDX[data[2]]), 4 + 4 * data[3]
    shape = tuple(np.frombuffer(data[4:start], dtype=">u4").tolist()) if len(data) >= start else ()
    if not shape or len(data) != start + math.prod(shape) * kind.itemsize:
        raise InputError(f"{path} is damaged: its header promises {list(shape)} values of {kind.name}, and it has {len(data)} bytes")
    found = np.frombuffer(data, dtype=kind, offset=start).reshape(shape)
    return found.astype(kind.newbyteorder("="))
