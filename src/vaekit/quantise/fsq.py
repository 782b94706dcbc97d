r"""Finite scalar quantisation: each number is bounded and rounded to one of a few levels.

.. math:: b_d = \tfrac12 (L_d - 1) (1 + \epsilon) \tanh(z_{e,d} + s_d) - o_d, \qquad z_d = \mathrm{round}(b_d) / \lfloor L_d / 2 \rfloor

with o = 1/2 for an even number of levels, 0 for an odd one, and s such that z_e = 0 gives b = 0. The codebook is the product of the levels.

Mentzer, Minnen, Agustsson and Tschannen, "Finite Scalar Quantization: VQ-VAE Made Simple", ICLR 2024.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vaekit.errors import InputError
from vaekit.quantise.core import Quantisation

__all__ = ["FSQ"]

MARGIN = 1e-3
"""The outermost levels are reached by rounding before tanh saturates, and no level lies beyond them: 2 (1 + MARGIN) rounds to 2."""


class FSQ(nn.Module):
    """D numbers, the d-th one of L_d levels: prod(L) codes, all of them in use from the start, nothing to learn and nothing to commit to.

    Rounding passes the gradient of the bounded number on (straight through). The value -1 ... 1 of a number has the same order as its
    level; an even number of levels stops one level short of 1, so that 0 is among them.

    Mentzer, Minnen, Agustsson and Tschannen, "Finite Scalar Quantization: VQ-VAE Made Simple", ICLR 2024.

    Args:
        levels: L, at least 2 each; the paper recommends at least 5, as (8, 5, 5, 5) for 1000 codes.

    Raises:
        InputError: no dimension, or fewer than 2 levels.

    >>> fsq = FSQ((3, 2))
    >>> fsq.size, fsq(torch.tensor([[0.0, -9.0], [9.0, 0.1]])).vectors
    (6, tensor([[ 0., -1.],
            [ 1.,  0.]]))
    """

    reach: Tensor
    offset: Tensor
    shift: Tensor
    steps: Tensor
    counts: Tensor
    basis: Tensor

    def __init__(self, levels: Sequence[int] = (8, 5, 5, 5)) -> None:
        super().__init__()
        if len(levels) < 1 or min(levels) < 2:
            raise InputError(f"FSQ(levels={tuple(levels)}): at least one number of at least 2 levels is needed, as (8, 5, 5, 5)")
        self.levels = tuple(levels)
        self.size = math.prod(levels)
        self.dimensions = len(levels)
        counts = torch.tensor(self.levels)
        reach = (counts - 1) * (1 + MARGIN) / 2
        offset = 0.5 * (counts % 2 == 0).float()
        basis = torch.tensor([math.prod(self.levels[:d]) for d in range(len(levels))])
        parts = {
            "reach": reach,
            "offset": offset,
            "shift": torch.atanh(offset / reach),
            "steps": counts // 2,
            "counts": counts,
            "basis": basis,
        }
        for name, value in parts.items():
            self.register_buffer(name, value, persistent=False)

    def forward(self, z_e: Tensor) -> Quantisation:
        """z_e ``[N, D]``."""
        bounded = torch.tanh(z_e + self.shift) * self.reach - self.offset
        digits = bounded.detach().round()
        return Quantisation(bounded / self.steps, digits / self.steps, self._number(digits), commits=False, learned=False)

    def embed(self, codes: Tensor) -> Tensor:
        """``[*] -> [*, D]``."""
        digits = codes.unsqueeze(-1) // self.basis % self.counts
        return (digits - self.steps) / self.steps.to(self.reach.dtype)

    def read(self, z: Tensor) -> Tensor:
        """The nearest code of each of ``z [*, D]``, int64 ``[*]``."""
        return self._number((z.detach() * self.steps).round())

    def _number(self, digits: Tensor) -> Tensor:
        digits = digits.long() + self.steps
        return (digits.clamp(min=0).minimum(self.counts - 1) * self.basis).sum(-1)

    def extra_repr(self) -> str:
        return f"levels={self.levels}"
