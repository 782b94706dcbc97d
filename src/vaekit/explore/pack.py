"""Arrays as bytes for a page: little-endian, compressed, with what is needed to read them."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

__all__ = ["Block", "evenly", "gzipped"]


@dataclass(frozen=True)
class Block:
    """Compressed bytes, ``data``: of a file (dtype "bytes") or of an array ``[*shape]``; with low and step, of low[d] + step[d] *
    number."""

    dtype: str
    shape: list[int]
    data: bytes
    low: list[float] | None = None
    step: list[float] | None = None

    @staticmethod
    def of(array: npt.NDArray[Any]) -> Block:
        """An array in its own precision.

        >>> block = Block.of(np.zeros((2, 3), "<f4"))
        >>> block.dtype, block.shape
        ('f4', [2, 3])
        """
        return Block(array.dtype.str[1:], list(array.shape), gzipped(np.ascontiguousarray(array).tobytes()))

    def header(self) -> dict[str, Any]:
        """All but the bytes, for JSON."""
        return {"dtype": self.dtype, "shape": self.shape} | ({} if self.low is None else {"low": self.low, "step": self.step})


def gzipped(data: bytes) -> bytes:
    """Compressed, and the same bytes for the same input."""
    return gzip.compress(data, 9, mtime=0)


def evenly(z: Tensor) -> Block:
    """Codes ``[N, D]`` in 65,536 even steps of each dimension's range, dimension by dimension: half a step is 8e-6 of the range.

    >>> import torch
    >>> evenly(torch.tensor([[0.0], [65535.0]])).step
    [1.0]
    """
    array = z.double().numpy()
    low = array.min(0)
    step = np.maximum((array.max(0) - low) / 65535, 1e-30)
    numbers = np.rint((array - low) / step).clip(0, 65535).astype("<u2")
    data = gzipped(np.ascontiguousarray(numbers.T).tobytes())
    return Block("u2", [array.shape[1], array.shape[0]], data, low.tolist(), step.tolist())
