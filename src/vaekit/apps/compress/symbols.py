"""Values as whole numbers: ``[S, *event]`` of a discrete distribution, or of a latent in cells, as levels ``[S, F]``, F symbols a row."""

from __future__ import annotations

import abc
import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Size, Tensor

__all__ = ["Cells", "Levels", "Numbering", "OneHots"]


class Numbering(abc.ABC):
    """Which number stands for which value.

    Implementing a Numbering:
        1. ``levels(x)`` for ``[S, *event]``: the nearest numbers, int64 ``[S, F]``, whatever x holds; who asks compares with ``values``.
        2. ``values(levels)``: what they stand for, float64 ``[S, *event]``.
    """

    @abc.abstractmethod
    def levels(self, x: Tensor) -> Tensor:
        """The number of each value, int64 ``[S, F]``."""

    @abc.abstractmethod
    def values(self, levels: Tensor) -> Tensor:
        """The value of each number, float64 ``[S, *event]``."""


class Levels(Numbering):
    """``size`` values k / unit, k = 0 ... size - 1, for each entry: classes and bits with unit 1, grey levels with size - 1.
    ``event_shape`` is that of one example."""

    def __init__(self, event_shape: Size, size: int, unit: int) -> None:
        self.event_shape, self.size, self.unit = event_shape, size, unit

    def levels(self, x: Tensor) -> Tensor:
        return (x.double() * self.unit).nan_to_num().round().clamp(0, self.size - 1).long().reshape(len(x), -1)

    def values(self, levels: Tensor) -> Tensor:
        return levels.double().div(self.unit).reshape(-1, *self.event_shape)


class OneHots(Numbering):
    """The place of the 1 in each one-hot vector. ``event_shape`` is that of one example, classes last."""

    def __init__(self, event_shape: Size) -> None:
        self.event_shape = event_shape

    def levels(self, x: Tensor) -> Tensor:
        return x.argmax(-1).reshape(len(x), -1)

    def values(self, levels: Tensor) -> Tensor:
        return F.one_hot(levels, self.event_shape[-1]).double().reshape(-1, *self.event_shape)


class Cells(Numbering):
    r"""Real entries in ``2^16`` cells of equal mass under N(loc, scale^2), each represented by its median.

    .. math:: e_k = \mu + \sigma \Phi^{-1}(k / 2^{16}), \qquad z_k = \mu + \sigma \Phi^{-1}((k + \tfrac12) / 2^{16})

    Cells of a prior follow its scale, whatever that is, and a Gaussian prior's are all alike: 16 bits each, exactly. They reach to
    4.3 scales from loc: a posterior further out still comes back to the last bit, at a length that is not quite the bound.

    Args:
        loc: float64 ``[S, D]``, the entries of an event in a row.
        scale: likewise.
        event_shape: of the value.
    """

    BITS = 16

    def __init__(self, loc: Tensor, scale: Tensor, event_shape: Size) -> None:
        self.loc, self.scale, self.event_shape = loc, scale, event_shape
        self.size = 2**self.BITS
        self._edges, self._medians = _quantiles(self.size)

    def edges(self, k: Tensor, columns: slice) -> Tensor:
        """e_k ``[S, F, E]`` for k int64 ``[S, F, E]`` of these columns; -inf and inf at the ends."""
        return self.loc[:, columns, None] + self.scale[:, columns, None] * self._edges[k]

    def levels(self, x: Tensor) -> Tensor:
        u = torch.special.ndtr((x.double().reshape(len(x), -1) - self.loc) / self.scale)
        return (u * self.size).floor().clamp(0, self.size - 1).long()

    def values(self, levels: Tensor) -> Tensor:
        return (self.loc + self.scale * self._medians[levels]).reshape(-1, *self.event_shape)


@cache
def _quantiles(n: int) -> tuple[Tensor, Tensor]:
    """Of N(0, 1), at k / n for k = 0 ... n and half-way between."""
    k = torch.arange(n + 1, dtype=torch.float64)
    return torch.special.ndtri(k / n), torch.special.ndtri((k[:-1] + 0.5) / n)


def digits_of(size: int) -> tuple[int, int]:
    """(base, how many) of the digits that number ``size`` values: base 16, or one digit where that is enough.

    >>> digits_of(2), digits_of(256), digits_of(2**16)
    ((2, 1), (16, 2), (16, 4))
    """
    return (size, 1) if size <= 16 else (16, math.ceil(math.log(size, 16) - 1e-9))
