r"""Quantisers: from an encoder's vectors z_e to vectors of a finite set, and back to their numbers.

A field of codes is ``[*batch, D, *grid]``, one vector of D numbers at each place of the grid, channels first as an image; its codes are
``[*batch, *grid]``. A quantiser itself sees rows ``[N, D]``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

__all__ = ["Quantisation", "Quantiser", "embed_field", "field", "nearest", "read_field", "rows"]

CANDIDATES = 4


class Quantisation(NamedTuple):
    """What a quantiser makes of N rows. See `dist.Quantised` for the names.

    Attributes:
        encoded: what takes the straight-through gradient, ``[N, D]``.
        vectors: the chosen vectors, ``[N, D]``.
        codes: their numbers, int64 ``[N]``.
        commits: whether the encoder has to be kept near its codes.
        learned: whether the vectors are learned by gradient.
    """

    encoded: Tensor
    vectors: Tensor
    codes: Tensor
    commits: bool
    learned: bool


class Quantiser(Protocol):
    """A module ``z_e [N, D] -> Quantisation`` that can also go from codes to vectors and back.

    Implementing a Quantiser:
        1. Attributes ``size``, the number of codes, and ``dimensions``, D.
        2. ``forward(z_e)`` chooses. What it learns without a gradient it learns here, in training mode only and once per pass.
        3. ``embed(codes [*])`` gives vectors ``[*, D]``; ``read(z [*, D])`` finds the codes again, exactly for vectors of the set and the
           nearest for others.
    """

    size: int
    dimensions: int

    @property
    def __call__(self) -> Callable[[Tensor], Quantisation]: ...

    def embed(self, codes: Tensor) -> Tensor:
        """Codes int64 ``[*]`` -> their vectors ``[*, D]``."""

    def read(self, z: Tensor) -> Tensor:
        """z ``[*, D]`` -> codes int64 ``[*]``: exact for vectors of the set, the nearest for others."""


def nearest(z: Tensor, vectors: Tensor) -> Tensor:
    """The number of the nearest of ``vectors [C, D]`` for each of ``z [*, D]``, int64 ``[*]``; the first of equal ones.

    Distances by a matrix product round at the size of ``|z|^2``, which can prefer a neighbour to a vector that z is equal to: the best few
    are compared again by their differences, where equal is 0.

    >>> nearest(torch.tensor([[0.9, 0.1], [0.0, 2.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    tensor([0, 1])
    """
    with torch.no_grad(), torch.autocast(z.device.type, enabled=False):
        flat = z.reshape(-1, z.shape[-1]).to(vectors.dtype)
        rough = vectors.square().sum(-1) - 2 * flat @ vectors.mT
        first = rough.argmin(-1, keepdim=True)
        others = rough.topk(min(CANDIDATES, len(vectors)), largest=False).indices
        candidates = torch.cat([first, others], -1)
        distance = (flat.unsqueeze(-2) - vectors[candidates]).square().sum(-1)
        return candidates.gather(-1, distance.argmin(-1, keepdim=True)).reshape(z.shape[:-1])


def rows(z: Tensor, grid: int) -> Tensor:
    """z ``[*batch, D, *grid] -> [*batch, *grid, D]`` for a grid of that many dimensions."""
    return z.movedim(-1 - grid, -1)


def field(z: Tensor, grid: int) -> Tensor:
    """The inverse of `rows`: z ``[*batch, *grid, D]`` -> ``[*batch, D, *grid]``; ``grid`` is the number of the grid's dimensions."""
    return z.movedim(-1, -1 - grid)


def read_field(quantiser: Quantiser, z: Tensor, grid: int) -> Tensor:
    """The codes ``[*batch, *grid]`` of ``z [*batch, D, *grid]``, by ``quantiser``."""
    return quantiser.read(rows(z, grid))


def embed_field(quantiser: Quantiser, codes: Tensor, grid: int) -> Tensor:
    """The field ``[*batch, D, *grid]`` of ``codes [*batch, *grid]``, without gradient, by ``quantiser``."""
    return field(quantiser.embed(codes), grid).detach()
