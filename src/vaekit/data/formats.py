"""Readers of the containers that data sets come in. Each checks the structure it needs and says in one line what is wrong with a file.

Nothing is ever unpickled: npz files are read with ``allow_pickle=False``, and MATLAB files hold plain arrays.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import math
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vaekit.errors import InputError

__all__ = [
    "check",
    "checked",
    "digest",
    "read_amat",
    "read_bytes",
    "read_idx",
    "read_mat",
    "read_npz",
    "read_npz_blocks",
    "read_omniglot",
    "read_records",
    "read_tar",
]

Bytes = npt.NDArray[np.uint8]
REPAIR = "delete it so that a good copy is downloaded, or put one in its place"


def digest(data: bytes | Bytes, *, like: str) -> str:
    """The checksum of data, in the algorithm of ``like`` ("sha256:..." or "md5:..."), written the same way.

    >>> digest(b"", like="md5:")
    'md5:d41d8cd98f00b204e9800998ecf8427e'
    """
    algorithm = like.partition(":")[0]
    return f"{algorithm}:{hashlib.new(algorithm, data if isinstance(data, bytes) else data.data, usedforsecurity=False).hexdigest()}"


def check(data: bytes | Bytes, expected: str, path: Path) -> None:
    """Raise InputError unless the decoded data hash to ``expected``."""
    got = digest(data, like=expected)
    if got != expected:
        raise InputError(f"{path} does not hold the published data: decoded, it has {got}, expected {expected}; {REPAIR}")


def checked(data: npt.NDArray[Any], shape: Sequence[int], expected: str, path: Path) -> Bytes:
    """The decoded array in C order, once its dtype (uint8), its shape and its checksum are those of the published data; ``expected`` is
    the checksum.

    Raises:
        InputError: they are not.
    """
    if data.dtype != np.uint8 or data.shape != tuple(shape):
        raise InputError(f"{path} holds an array of {data.dtype} {list(data.shape)}, expected uint8 {list(shape)}; {REPAIR}")
    data = np.ascontiguousarray(data)
    check(data, expected, path)
    return data


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what the decoders raise into one line about the file. On damaged bytes they raise nearly anything, so nearly all is caught."""
    try:
        yield
    except InputError:
        raise
    except EOFError as error:
        raise InputError(f"{path} is truncated; {REPAIR}") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise InputError(f"cannot read {path}: {error.strerror}") from error
        raise InputError(f"{path} is damaged or of another format ({' '.join(str(error).split())}); {REPAIR}") from error


def read_bytes(path: Path) -> bytes:
    """The content of a file, unpacked when its name ends in .gz or .xz; never empty.

    Raises:
        InputError: an empty or damaged file.
    """
    with _reading(path):
        if path.suffix == ".gz":
            data = gzip.decompress(path.read_bytes())
        elif path.suffix == ".xz":
            data = lzma.decompress(path.read_bytes())
        else:
            data = path.read_bytes()
    if not data:
        raise InputError(f"{path} is empty; {REPAIR}")
    return data


def read_idx(path: Path, shape: Sequence[int], expected: str) -> Bytes:
    """An IDX file of unsigned bytes (LeCun): 0, 0, 8, the number of axes, their lengths (big-endian uint32), then the values.

    ``expected`` is the checksum of the whole unpacked file, ``shape`` that of the array it must hold.

    Raises:
        InputError: another kind of file, another shape, or damage.
    """
    data = read_bytes(path)
    start = 4 + 4 * len(shape)
    if data[:3] != b"\0\0\x08":
        raise InputError(f"{path} is no IDX file of bytes: it starts with {data[:4].hex(' ')}, expected 00 00 08; {REPAIR}")
    found = tuple(np.frombuffer(data[4 : 4 + 4 * data[3]], dtype=">u4").tolist()) if len(data) >= 4 + 4 * data[3] else ()
    if found != tuple(shape):
        raise InputError(f"{path} holds an array of shape {list(found)}, expected {list(shape)}; {REPAIR}")
    if len(data) != start + math.prod(shape):
        raise InputError(f"{path} holds {len(data) - start} values, but its header promises {math.prod(shape)}; {REPAIR}")
    check(data, expected, path)
    return np.frombuffer(data, dtype=np.uint8, offset=start).reshape(tuple(shape))


def read_npz(path: Path, key: str, shape: Sequence[int]) -> Bytes:
    """The uint8 array of ``shape`` called ``key`` of a numpy .npz file; nothing is unpickled.

    Raises:
        InputError: no such array, another dtype or shape, or damage.
    """
    with _reading(path), zipfile.ZipFile(path) as archive:
        if f"{key}.npy" not in archive.namelist():
            raise InputError(f'{path} has no array "{key}"; it holds {", ".join(archive.namelist()) or "nothing"}; {REPAIR}')
        # the whole member first: its checksum is then verified before its header is parsed
        found = np.load(io.BytesIO(archive.read(f"{key}.npy")), allow_pickle=False)
    if found.dtype != np.uint8 or found.shape != tuple(shape):
        raise InputError(f'"{key}" in {path} is {found.dtype} {list(found.shape)}, expected uint8 {list(shape)}; {REPAIR}')
    return found


def read_npz_blocks(path: Path, key: str, shape: Sequence[int], dtype: npt.DTypeLike, *, rows: int = 4096) -> Iterator[npt.NDArray[Any]]:
    """The array of ``shape`` and ``dtype`` called ``key`` of a numpy .npz file that is too large to be held twice: blocks of ``rows``
    rows, in order; nothing is unpickled.

    Raises:
        InputError: no such array, another dtype or shape, or damage.
    """
    with _reading(path), zipfile.ZipFile(path) as archive:
        if f"{key}.npy" not in archive.namelist():
            raise InputError(f'{path} has no array "{key}"; it holds {", ".join(archive.namelist()) or "nothing"}; {REPAIR}')
        with archive.open(f"{key}.npy") as member:
            version = np.lib.format.read_magic(member)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            found, fortran, kind = header(member)
            if found != tuple(shape) or kind != np.dtype(dtype) or fortran:
                raise InputError(f'"{key}" in {path} is {kind} {list(found)}, expected {np.dtype(dtype)} {list(shape)}; {REPAIR}')
            size = math.prod(shape[1:]) * kind.itemsize
            for start in range(0, shape[0], rows):
                n = min(rows, shape[0] - start)
                block = member.read(n * size)
                if len(block) < n * size:
                    raise EOFError
                yield np.frombuffer(bytearray(block), dtype=kind).reshape(n, *shape[1:])


def read_mat(path: Path, key: str) -> npt.NDArray[Any]:
    """The array called ``key`` of a MATLAB v5 file.

    Raises:
        InputError: no such array, or damage.
    """
    from scipy.io import loadmat

    data = io.BytesIO(read_bytes(path))
    with _reading(path):
        found = loadmat(data, variable_names=[key])
    if key not in found:
        raise InputError(f'{path} has no array "{key}"; {REPAIR}')
    return found[key]


def read_amat(path: Path, columns: int) -> Bytes:
    """Rows of ``columns`` digits 0 or 1 with single spaces between them, a newline after each row -> uint8 ``[N, columns]``.

    Raises:
        InputError: no whole number of rows.
    """
    data = np.frombuffer(read_bytes(path), dtype=np.uint8)
    if data.size % (2 * columns):
        raise InputError(f"{path} has {data.size} bytes, which is no whole number of rows of {columns} digits 0 or 1; {REPAIR}")
    return data.reshape(-1, 2 * columns)[:, ::2] - ord("0")


def read_records(files: Sequence[Path], width: int) -> Bytes:
    """``files`` of records of ``width`` bytes, one after another -> uint8 ``[N, width]``.

    Raises:
        InputError: no whole number of records, or a damaged file.
    """
    return np.concatenate([_records(read_bytes(path), width, path) for path in files])


def read_tar(path: Path, members: Sequence[str], width: int) -> Bytes:
    """The same, ``[N, width]``, for members of a tar archive.

    Raises:
        InputError: no whole number of records, or a damaged archive.
    """
    with _reading(path), tarfile.open(path) as archive:
        opened = [archive.extractfile(member) for member in members]
        return np.concatenate([_records(file.read() if file is not None else b"", width, path) for file in opened])


def _records(data: bytes, width: int, path: Path) -> Bytes:
    if len(data) % width or not data:
        raise InputError(f"{path} holds {len(data)} bytes, which is no whole number of records of {width}; {REPAIR}")
    return np.frombuffer(data, dtype=np.uint8).reshape(-1, width)


def read_omniglot(files: Sequence[Path], side: int) -> Bytes:
    """``files``, OMNIGLOT's zip archives of drawings, ``<alphabet>/character<nn>/<cccc>_<dd>.png`` -> uint8 ``[N, side, side]``, ink 255.

    Drawings come in the order of character cccc (counted over all alphabets), then drawer dd. They are area-averaged (box filter).

    Raises:
        InputError: the archives hold no drawings, or are damaged.
    """
    from PIL import Image

    drawings: dict[str, Bytes] = {}
    for path in files:
        with _reading(path), zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                if member.endswith(".png") and not member.startswith("__MACOSX"):
                    with Image.open(io.BytesIO(archive.read(member))) as image:
                        ink = Image.fromarray(255 - np.asarray(image.convert("L")))
                    drawings[member.rpartition("/")[2]] = np.asarray(ink.resize((side, side), Image.Resampling.BOX))
    if not drawings:
        raise InputError(f"{' and '.join(map(str, files))} hold no drawings (.png); {REPAIR}")
    return np.stack([drawings[name] for name in sorted(drawings)])
