r"""Numeric columns as a model sees them: standardised, with a mask for NaN; and the way back to the units that they came in.

.. math:: u_d = (x_d - m_d) / s_d, \qquad \log p(x_{obs}) = \log p(u_{obs}) - \sum_{d\ observed} \log s_d

A table of mixed columns is to be another class with the methods of `Numeric`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaekit.errors import InputError
from vaekit.types import Batch

__all__ = ["Array", "Numeric", "observed"]

Array = NDArray[np.float64]
"""float64 of any shape."""


@dataclass(frozen=True, eq=False)
class Numeric:
    """Mean and standard deviation of each column's observed entries, ``[D]`` each; a constant column keeps its unit, scale 1.

    >>> columns = Numeric.of(np.array([[1.0, 5.0], [3.0, np.nan]]))
    >>> columns.loc, columns.scale
    (array([2., 5.]), array([1., 1.]))
    >>> batch = columns.encode(np.array([[4.0, np.nan]]))
    >>> batch.x, batch.mask
    (tensor([[2., 0.]], dtype=torch.float64), tensor([[ True, False]]))
    """

    loc: Array
    scale: Array

    @staticmethod
    def of(X: Array) -> Numeric:
        """Those of the rows ``X [N, D]``, NaN where nothing was observed.

        Raises:
            InputError: a column without any value.
        """
        empty = np.flatnonzero(np.isnan(X).all(0))
        if len(empty):
            raise InputError(f"column {empty[0]} has no value in any of {len(X)} rows, so nothing can be learned of it: leave it out")
        size = np.nanmax(np.abs(X), 0)  # the squares of very large or small numbers would over- or underflow
        size[size == 0] = 1
        loc, scale = np.nanmean(X / size, 0), np.nanstd(X / size, 0)
        scale[scale <= 1e-12] = 0  # what is left of a constant after rounding
        return Numeric(loc * size, np.where(scale * size > 0, scale * size, 1.0))

    @property
    def size(self) -> int:
        """D."""
        return len(self.loc)

    def encode(self, X: Array) -> Batch:
        """Rows ``[N, D]`` as a batch, float64; its mask is None where nothing is missing."""
        missing = np.isnan(X)
        x = torch.from_numpy(np.where(missing, 0.0, (X - self.loc) / self.scale))
        return Batch(x, mask=torch.from_numpy(~missing) if missing.any() else None)

    def decode(self, u: Tensor) -> Array:
        """Standardised values ``[..., D]`` in the units that the rows came in."""
        found: Array = u.double().cpu().numpy() * self.scale + self.loc
        return found

    def log_volume(self, batch: Batch) -> Tensor:
        """log |du / dx| of each entry, ``[N, D]``, 0 where nothing was observed: what log p(u) lacks to log p(x)."""
        log_scale = torch.from_numpy(np.log(self.scale)).expand(batch.x.shape)
        return -log_scale if batch.mask is None else torch.where(batch.mask, -log_scale, torch.zeros_like(log_scale))


def observed(batch: Batch) -> Tensor:
    """Which entries of rows ``[N, D]`` were observed, bool."""
    return torch.ones_like(batch.x, dtype=torch.bool) if batch.mask is None else batch.mask
