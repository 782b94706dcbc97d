"""Two operations that ONNX has not, written in operations that it has."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vaekit.dist.numeric import STIRLING, polynomial

__all__ = ["TABLE", "log_gamma", "solve_triangular"]

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
    """X of A X = B for triangular A ``[*, D, D]`` by substitution, row after row; of X A = B where not ``left``."""
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


TABLE: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.lgamma.default: log_gamma,
    torch.ops.aten.linalg_solve_triangular.default: solve_triangular,
}
"""For ``ExportedProgram.run_decompositions``."""
