"""Rows that stay in their file, which is mapped, and are copied when they are asked for: how a data set larger than memory is trained on.

Mapped and not read: a read a row costs a thread that runs beside the steps two changes of hands of Python's lock a row, a sixth of the
time of a small network's step; rows of a map are copied in one call without it. Pages of a map count as resident memory of the process, so
they are handed back to the system's cache when they are more than `RESIDENT`. A file that is cut short under a map ends the process with
a bus error, so that its size and time are looked at before each batch; what is left to chance are the microseconds of the copying.
"""

from __future__ import annotations

import mmap
import os
import sys
import time
import weakref
from io import FileIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vaekit.data.stored import StoredRows
from vaekit.errors import InputError

__all__ = ["FileRows", "NpyFile", "plain"]

RUN = 2**16  # bytes of a run of neighbouring rows in a sample
RUNS = 2**10  # runs in a sample of a whole file: 64 MiB
SINGLE = 2**13  # rows in a sample of rows from all over a file: a second on a disk that is slow to answer
RESIDENT = 2**28  # bytes of files in the process, from which pages are handed back
AT_ONCE = 2**9  # rows between two looks at that: the system maps 64 KiB around each row, 32 MiB
SLOW = 2e-5  # seconds a row, beyond what copying it takes, from which a file is not in the system's cache
COPIED = 5e8  # bytes a second that are copied at least


def plain(array: npt.NDArray, what: str, *, copy: bool) -> Tensor:
    """An array ``[*]`` as a tensor ``[*]`` of a dtype that torch computes with: float64 and wider as float32, unsigned integers above a
    byte as int64. ``what`` names the array in messages; without ``copy`` the tensor shares its memory where it can.

    Raises:
        InputError: text, objects or complex numbers.
    """
    if array.dtype.kind not in "buif":
        raise InputError(f"{what} holds {array.dtype} values; give numbers or booleans (encode text and categories as numbers first)")
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:  # torch can hardly compute with wider unsigned integers
        array = array.astype(np.int64)
    rows = torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C", copy=copy))
    return rows.to(torch.float32) if rows.dtype == torch.float64 else rows


class NpyFile:
    """A ``.npy`` file of an array ``[N, *]`` in C order, open for reading by any number of threads.

    Raises:
        InputError: there is no such file, it is no whole .npy file of numbers, or it is in Fortran order.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            found = np.load(path, mmap_mode="r", allow_pickle=False)
            self._file = FileIO(path)
        except OSError as error:
            raise InputError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
        except (ValueError, EOFError) as error:
            why = " ".join(str(error).split())
            raise InputError(f"{path} is no whole .npy file of numbers ({why}): write it with numpy.save") from error
        if not isinstance(found, np.memmap):
            found.close()
            raise InputError(f"{path} is an archive, whose arrays cannot be read row by row: write each with numpy.save")
        weakref.finalize(self, self._file.close)
        if not found.flags.c_contiguous:
            raise InputError(f"{path} is in Fortran order, its rows scattered over the file: save numpy.ascontiguousarray(x) instead")
        self.shape, self.dtype, self.offset = found.shape, found.dtype, int(found.offset)
        self.size = self.dtype.itemsize * int(np.prod(self.shape[1:], dtype=np.int64))
        plain(np.empty(0, self.dtype), str(path), copy=False)
        self._cold, self._state, self._held = False, self._stamp(), _resident()
        self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        self._rows = np.frombuffer(self._map, np.uint8, found.nbytes, self.offset).reshape(-1, self.size)
        if sys.platform == "linux":  # what lies beside a row is not wanted
            self._map.madvise(mmap.MADV_RANDOM)

    def __reduce__(self) -> tuple[type[NpyFile], tuple[Path]]:
        return NpyFile, (self.path,)

    def read(self, rows: npt.NDArray[np.int64]) -> npt.NDArray:
        """The rows of these numbers, ``[B, *]``, as they are stored.

        Raises:
            InputError: the file was changed since it was opened.
        """
        if self._stamp() != self._state:
            raise InputError(
                f"{self.path} was changed while it was in use: put back what was there and resume, or start a new run on what is there now"
            )
        if len(rows) > AT_ONCE:
            return np.concatenate([self.read(rows[start : start + AT_ONCE]) for start in range(0, len(rows), AT_ONCE)])
        begun = time.perf_counter()
        if self._cold and sys.platform == "linux":  # the disk is asked for all of them at once, as it answers many in the time of one
            for start, size in self._places(rows):
                os.posix_fadvise(self._file.fileno(), start, size, os.POSIX_FADV_WILLNEED)
        data = self._rows.take(rows, axis=0)
        self._cold = time.perf_counter() - begun > len(rows) * (SLOW + self.size / COPIED)
        if sys.platform == "linux" and _resident() > self._held + RESIDENT:
            self._map.madvise(mmap.MADV_DONTNEED)
            self._held = _resident()
        return data.view(self.dtype).reshape(len(rows), *self.shape[1:])

    def _places(self, rows: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
        """Where rows begin and how many bytes are theirs, neighbours in one."""
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
        starts, counts = rows[np.concatenate([[0], breaks])], np.diff(np.concatenate([[0], breaks, [len(rows)]]))
        return list(zip((self.offset + starts * self.size).tolist(), (counts * self.size).tolist(), strict=True))

    def _stamp(self) -> tuple[int, int]:
        found = os.fstat(self._file.fileno())
        return found.st_size, found.st_mtime_ns


def _resident() -> int:
    """Bytes of files that count as memory of this process; 0 where the system does not say."""
    if sys.platform != "linux":
        return 0
    with open("/proc/self/statm", "rb", buffering=0) as file:
        return int(file.read().split()[2]) * mmap.PAGESIZE


class FileRows(StoredRows):
    """Rows ``[N, *]`` of a `NpyFile`, as a `Split` holds them in place of a tensor.

    Attributes:
        dtype: as a tensor of these rows would have it: float64 is read as float32. So with the shape.
        device: where `read` puts rows.

    Args:
        source: the ``.npy`` file, or its path.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/x.npy", np.arange(8.0).reshape(4, 2))
    ...     rows = FileRows(f"{folder}/x.npy")
    >>> rows.shape, rows.read(torch.tensor([2, 0]))
    (torch.Size([4, 2]), tensor([[4., 5.], [0., 1.]]))
    """

    def __init__(self, source: Path | str | NpyFile) -> None:
        self.file = source if isinstance(source, NpyFile) else NpyFile(Path(source))
        self.shape = torch.Size(self.file.shape)
        self.dtype = plain(np.empty(0, self.file.dtype), str(self.file.path), copy=False).dtype
        self.device = torch.device("cpu")
        self._index: Tensor | None = None
        self._observed = False

    def read(self, index: Tensor) -> Tensor:
        """The rows ``index`` (int64 ``[B]``), ``[B, *]``, on this device: to a GPU by way of page-locked memory, without waiting for it.

        Raises:
            IndexError: there is no such row.
            InputError: the file was changed since it was opened.
        """
        index = index.to("cpu")
        if len(index) == 0:
            return torch.empty((0, *self.shape[1:]), dtype=self.dtype, device=self.device)
        low, high = (int(edge) for edge in index.aminmax())
        if low < 0 or high >= len(self):
            raise IndexError(f"rows {low} to {high} of {len(self)} were asked for")
        where = index if self._index is None else self._index[index]
        array = self.file.read(where.numpy())
        rows = plain(~np.isnan(array) if self._observed else array, str(self.file.path), copy=False)
        return rows if self.device.type == "cpu" else rows.pin_memory().to(self.device, non_blocking=True)

    def take(self, index: Tensor) -> FileRows:
        """The rows ``index`` ``[n]``, in that order: a view."""
        index = index.to("cpu")
        return self._as(index if self._index is None else self._index[index])

    def head(self, n: int) -> FileRows:
        """The first n rows: a view."""
        return self._as(torch.arange(n) if self._index is None else self._index[:n])

    def to(self, device: torch.device | str) -> FileRows:
        """The same rows, which `read` puts on another device."""
        other = self._as(self._index)
        other.device = torch.device(device)
        return other

    def observed(self) -> FileRows:
        """bool ``[N, *]``, False where these are NaN: the mask of entries that are missing."""
        other = self._as(self._index)
        other._observed, other.dtype = True, torch.bool
        return other

    def sample(self) -> Tensor:
        """The rows to look at where looking at all would take too long: their numbers, int64 ``[n]``, rising.

        All of up to 64 MiB, or 8192 rows from all over a file; of more 1024 runs of neighbouring rows, from the first to the last, or 8192
        rows. It takes 0.3 s, and where the disk has to find each row a few; all of a large file would have to be read.
        """
        n, each = len(self), max(1, self.file.size)
        most = RUN * RUNS // each
        if n <= most and (self._index is None or n <= SINGLE):
            return torch.arange(n)
        length = 1 if self._index is not None else max(1, RUN // each)
        count = max(2, min(SINGLE if self._index is not None else RUNS, most // length))
        starts = torch.from_numpy(np.linspace(0, n - length, count).astype(np.int64))
        return (starts[:, None] + torch.arange(length)).flatten().unique()

    def _as(self, index: Tensor | None) -> FileRows:
        other = FileRows(self.file)
        other._index, other._observed, other.dtype, other.device = index, self._observed, self.dtype, self.device
        other.shape = torch.Size((len(self) if index is None else len(index), *self.shape[1:]))
        return other
