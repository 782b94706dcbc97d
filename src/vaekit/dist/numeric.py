"""Functions of one real number that keep value and gradient exact where the textbook formula does not."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["log_shrink", "polynomial"]

# log(sinh(a/2) / (a/2)) = sum_n B_2n / (2n (2n)!) a^2n, with the Bernoulli numbers B_2n.
SINHC = (
    1 / 24,
    -1 / 2880,
    1 / 181440,
    -1 / 9676800,
    1 / 479001600,
    -691 / 15692092416000,
    1 / 1046139494400,
    -3617 / (510 * 16 * 20922789888000),
)


def polynomial(x: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    """c_0 + c_1 x + c_2 x^2 + ..."""
    y = torch.full_like(x, coefficients[-1])
    for c in coefficients[-2::-1]:
        y = c + x * y
    return y


def log_shrink(a: Tensor) -> Tensor:
    r"""log((1 - exp(-a)) / a) for a >= 0; 0 at 0.

    Its derivative 1 / (e^a - 1) - 1 / a is a difference of two large numbers near 0, so a series takes over below 1.

    >>> log_shrink(torch.tensor([0.0, 1.0]))
    tensor([ 0.0000, -0.4587])
    """
    small = a < 1
    near = torch.where(small, a, torch.zeros_like(a))
    far = torch.where(small, torch.ones_like(a), a)
    t = near.square()
    return torch.where(small, t * polynomial(t, SINHC) - 0.5 * near, torch.log(-torch.expm1(-far)) - far.log())
