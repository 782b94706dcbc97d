"""Functions of one real number that keep value and gradient exact where the textbook formula does not."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["exp_excess", "log_gamma_excess", "log_gamma_half_step", "log_shrink", "polynomial"]

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
# The asymptotic series of log Gamma(x + 1), in odd powers of 1 / x; from x = 8 on exact to 1e-16.
STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156, -3617 / 122400)
# That of log Gamma(a + 1/2) - log Gamma(a) - log(a) / 2.
HALF_STEP = (-1 / 8, 1 / 192, -1 / 640, 17 / 14336, -31 / 18432, 691 / 180224, -5461 / 425984, 929569 / 15728640)
EXPONENTIAL = tuple(1 / math.factorial(n) for n in range(2, 14))

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
    """c_0 + c_1 x + c_2 x^2 + ..., of the shape of x, ``coefficients`` = (c_0, c_1, ...)."""
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


def log_gamma_excess(x: Tensor) -> Tensor:
    r"""What Stirling's formula misses: log Gamma(x + 1) - (x + 1/2) log x + x - log(2 pi) / 2 for x > 0, about 1 / (12 x).

    The logarithms of two large factorials are large numbers of a small difference, which float32 cannot hold; these are small. Loader,
    "Fast and accurate computation of binomial probabilities", 2000.

    >>> log_gamma_excess(torch.tensor([1.0, 1e6]))
    tensor([8.1061e-02, 8.3333e-08])
    """
    small = x < 8
    near = torch.where(small, x, torch.ones_like(x))
    far = 1 / torch.where(small, torch.full_like(x, 8.0), x)
    exact = torch.lgamma(near + 1) - (near + 0.5) * near.log() + near - HALF_LOG_2PI
    return torch.where(small, exact, far * polynomial(far.square(), STIRLING))


def exp_excess(t: Tensor) -> Tensor:
    """e^t - 1 - t, exact near 0, where it is t^2 / 2.

    >>> exp_excess(torch.tensor([1e-4, 1.0]))
    tensor([5.0002e-09, 7.1828e-01])
    """
    small = t.abs() < 0.3
    near = torch.where(small, t, torch.zeros_like(t))
    far = torch.where(small, torch.ones_like(t), t)
    return torch.where(small, near.square() * polynomial(near, EXPONENTIAL), torch.expm1(far) - far)


def log_gamma_half_step(a: Tensor) -> Tensor:
    r"""log Gamma(a + 1/2) - log Gamma(a) for a > 0, without the difference of two large numbers.

    >>> log_gamma_half_step(torch.tensor([0.5, 1e6]))
    tensor([-0.5724,  6.9078])
    """
    small = a < 8
    near = torch.where(small, a, torch.ones_like(a))
    far = 1 / torch.where(small, torch.full_like(a, 8.0), a)
    exact = torch.lgamma(near + 0.5) - torch.lgamma(near)
    return torch.where(small, exact, -0.5 * far.log() + far * polynomial(far.square(), HALF_STEP))
