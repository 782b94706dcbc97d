"""Operations that ONNX has not, or only in a form that loses digits, written in operations that it has."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vaekit.dist.numeric import STIRLING, polynomial

__all__ = ["TABLE", "cross_entropy_of_logits", "log_gamma", "solve_triangular"]

SHIFT = 8


def log_gamma(x: Tensor) -> Tensor:
    r"""log Gamma(x) for x > 0: Stirling's series, from x + 8 down by Gamma(x + 1) = x Gamma(x).

    >>> log_gamma(torch.tensor([0.5, 1.0, 100.0])) - torch.tensor([0.5, 1.0, 100.0]).lgamma() < 1e-4
    tensor([True, True, True])
    """
    small = x < SHIFT
    y = torch.where(small, x + SHIFT, x)
    near = torch.where(small, x, torch.ones_like(x))
    product = near
    for n in range(1, SHIFT):
        product = product * (near + n)
    series = (y - 0.5) * y.log() - y + 0.5 * math.log(2 * math.pi) + polynomial(1 / y.square(), STIRLING) / y
    return torch.where(small, series - product.log(), series)


def solve_triangular(a: Tensor, b: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Tensor:
    """X of A X = B for triangular A = ``a`` ``[*, D, D]`` and B = ``b`` ``[*, D, M]`` by substitution, row after row; of X A = B where
    not ``left``. A is ``upper`` triangular or lower; where ``unitriangular`` its diagonal is taken for 1."""
    if not left:
        return solve_triangular(a.mT, b.mT, upper=not upper, unitriangular=unitriangular).mT
    d = a.shape[-1]
    rows: dict[int, Tensor] = {}
    for i in reversed(range(d)) if upper else range(d):
        rest = b[..., i, :]
        for j, row in rows.items():
            rest = rest - a[..., i, j, None] * row
        rows[i] = rest if unitriangular else rest / a[..., i, i, None]
    return torch.stack([rows[i] for i in range(d)], -2)


def cross_entropy_of_logits(
    logits: Tensor, x: Tensor, weight: Tensor | None = None, pos_weight: Tensor | None = None, reduction: int = 1
) -> Tensor:
    r"""-log Bernoulli(x; logits) of each entry, :math:`\max(l, 0) - l x + \log(1 + e^{-|l|})`: finite for every logit, ``[*]`` as both.

    torch's own translation takes log(sigmoid(l)), which is -inf as soon as the sigmoid rounds to 0 or 1.

    >>> cross_entropy_of_logits(torch.tensor([-200.0, 0.0, 200.0]), torch.ones(3), reduction=0)
    tensor([200.0000,   0.6931,   0.0000])

    Raises:
        NotImplementedError: ``weight``, ``pos_weight`` or a sum over entries, which no likelihood here takes.
    """
    if weight is not None or pos_weight is not None or reduction != 0:
        raise NotImplementedError("binary_cross_entropy_with_logits with weights or a reduction")
    return logits.clamp(min=0) - logits * x + (1 + (-logits.abs()).exp()).log()


TABLE: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.binary_cross_entropy_with_logits.default: cross_entropy_of_logits,
    torch.ops.aten.lgamma.default: log_gamma,
    torch.ops.aten.linalg_solve_triangular.default: solve_triangular,
}
"""For ``ExportedProgram.run_decompositions``."""
