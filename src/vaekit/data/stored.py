"""Rows that are no tensor, and become one batch by batch: what a `Split` needs of them."""

from __future__ import annotations

import abc

import torch
from torch import Tensor

__all__ = ["StoredRows"]


class StoredRows(abc.ABC):
    """Rows ``[N, *]`` in place of a tensor in a `Split`.

    Attributes:
        shape: ``[N, *]``.
        dtype: of the tensors that `read` gives.
        device: where `read` puts them.

    Implementing stored rows: set the attributes, and write `read`, `take`, `to` and `sample`.
    """

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device

    def __len__(self) -> int:
        return self.shape[0]

    def dim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    def numel(self) -> int:
        """The number of values."""
        return self.shape.numel()

    def is_floating_point(self) -> bool:
        """Whether the values are floats."""
        return self.dtype.is_floating_point

    @abc.abstractmethod
    def read(self, index: Tensor) -> Tensor:
        """The rows ``index`` (int64 ``[B]``), ``[B, *]``, on this device; IndexError where there is no such row."""

    @abc.abstractmethod
    def take(self, index: Tensor) -> StoredRows:
        """The rows ``index`` ``[n]``, in that order."""

    @abc.abstractmethod
    def head(self, n: int) -> StoredRows:
        """The first n rows."""

    @abc.abstractmethod
    def to(self, device: torch.device | str) -> StoredRows:
        """The same rows, which `read` puts on another device."""

    @abc.abstractmethod
    def sample(self) -> Tensor:
        """The rows to look at where looking at all would take too long: their numbers, int64 ``[n]``, rising."""
