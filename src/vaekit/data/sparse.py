"""A sparse matrix whose rows become dense batch by batch: counts of thousands of cells and tens of thousands of genes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaekit.data.disk import plain
from vaekit.data.stored import StoredRows
from vaekit.errors import InputError

__all__ = ["EXACT", "SparseRows", "canonical", "place_of"]

LOOKED = 2**26  # dense values of a sample
EXACT = 2**24  # whole numbers up to here are float32 numbers


def canonical(matrix: Any) -> Any:
    """A sparse matrix as CSR in float64, a copy: each entry once, in order, and none that is 0.

    Entries that are there twice are summed, as scipy means them, after they have been widened: in uint8 the sum would wrap, of bool it
    is none.

    Raises:
        InputError: entries that are no numbers.
    """
    if matrix.dtype.kind not in "biuf":
        raise InputError(f"the matrix holds {matrix.dtype} values; give numbers")
    csr = matrix.astype(np.float64, copy=True).tocsr()
    csr.sum_duplicates()
    csr.eliminate_zeros()
    return csr


def place_of(csr: Any, entry: int) -> tuple[int, int]:
    """The row and the column of an entry of the CSR matrix ``csr``."""
    return int(np.searchsorted(csr.indptr, entry, side="right")) - 1, int(csr.indices[entry])


class SparseRows(StoredRows):
    """Rows ``[N, D]`` of which only the entries that are not 0 are held (CSR), in memory; made by `of`.

    A batch is filled in where the rows lie, on a GPU too; float32, so that counts up to 2^24 are exact.

    Args:
        starts: int64 ``[N + 1]``: row n has the entries starts[n] to starts[n + 1].
        columns: int32 ``[entries]``, each once in a row.
        values: float32 ``[entries]``.
        width: D.

    >>> from scipy.sparse import csr_array
    >>> rows = SparseRows.of(csr_array(np.array([[0, 2, 0], [1, 0, 0]])))
    >>> rows.shape, rows.read(torch.tensor([1, 0, 1]))
    (torch.Size([2, 3]), tensor([[1., 0., 0.],
            [0., 2., 0.],
            [1., 0., 0.]]))
    """

    def __init__(self, starts: Tensor, columns: Tensor, values: Tensor, width: int) -> None:
        self._starts, self._columns, self.values = starts, columns, values
        self.shape = torch.Size((len(starts) - 1, width))
        self.dtype, self.device = torch.float32, values.device

    @staticmethod
    def of(matrix: Any) -> SparseRows:
        """The rows of a scipy sparse matrix or array, of any format.

        Raises:
            InputError: entries that are not finite, whole numbers that float32 rounds (the row and the column are named), or no numbers.
        """
        csr = canonical(matrix)
        if matrix.dtype.kind in "iu" and (np.abs(csr.data) > EXACT).any():
            entry = int(np.argmax(np.abs(csr.data) > EXACT))
            row, column = place_of(csr, entry)
            raise InputError(
                f"the sparse matrix holds {csr.data[entry]:.16g} in row {row}, column {column}, and whole numbers beyond {EXACT} are "
                "not exact in float32: leave that column out, or give floats"
            )
        values = plain(csr.data, "the sparse matrix", copy=True).to(torch.float32)
        if not bool(values.isfinite().all()):
            count = int((~values.isfinite()).sum())
            raise InputError(f"{count} entries of the sparse matrix are not finite in float32: correct them, or leave their rows out")
        starts, columns = torch.from_numpy(csr.indptr.astype(np.int64)), torch.from_numpy(csr.indices.astype(np.int32))
        return SparseRows(starts, columns, values, int(csr.shape[1]))

    def read(self, index: Tensor) -> Tensor:
        rows, columns, values, _ = self._picked(index)
        dense = torch.zeros(len(index), self.shape[1], dtype=self.dtype, device=self.device)
        dense[rows, columns.long()] = values
        return dense

    def take(self, index: Tensor) -> SparseRows:
        _, columns, values, counts = self._picked(index)
        return SparseRows(torch.cat([counts.new_zeros(1), counts.cumsum(0)]), columns, values, self.shape[1])

    def head(self, n: int) -> SparseRows:
        end = int(self._starts[n])
        return SparseRows(self._starts[: n + 1], self._columns[:end], self.values[:end], self.shape[1])

    def to(self, device: torch.device | str) -> SparseRows:
        return SparseRows(self._starts.to(device), self._columns.to(device), self.values.to(device), self.shape[1])

    def totals(self) -> Tensor:
        """The sum of each row, float32 ``[N]``; added up in float64."""
        rows = torch.repeat_interleave(torch.arange(len(self), device=self.device), self._starts.diff())
        sums = torch.zeros(len(self), dtype=torch.float64, device=self.device)
        return sums.index_add_(0, rows, self.values.double()).float()

    def column_totals(self) -> Tensor:
        """The sum of each column, float32 ``[D]``; added up in float64."""
        sums = torch.zeros(self.shape[1], dtype=torch.float64, device=self.device)
        return sums.index_add_(0, self._columns.long(), self.values.double()).float()

    def sample(self) -> Tensor:
        n = len(self)
        return torch.from_numpy(np.unique(np.linspace(0, n - 1, min(n, max(2, LOOKED // self.shape[1]))).astype(np.int64)))

    def _picked(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of the entries of these rows: which of the rows, the column, the value; and how many a row has."""
        if len(index) and (int(index.min()) < 0 or int(index.max()) >= len(self)):
            raise IndexError(f"rows {int(index.min())} to {int(index.max())} of {len(self)} were asked for")
        index = index.to(self.device)
        starts = self._starts[index]
        counts = self._starts[index + 1] - starts
        rows = torch.repeat_interleave(torch.arange(len(index), device=self.device), counts)
        before = counts.cumsum(0) - counts
        where = torch.arange(len(rows), device=self.device) + (starts - before)[rows]
        return rows, self._columns[where], self.values[where], counts
