r"""Four densities in the plane that are hard for a Gaussian: the energies of Rezende and Mohamed (2015), table 1.

.. math:: p(z) = e^{-U(z)} / Z

U_1 is a ring with two denser sides; U_2 a sine wave; U_3 and U_4 a wave that splits in two. As published, U_2 to U_4 do not depend on z_1
far out, so that Z would be infinite; the paper's pictures end at \|z_1\| = 4. Here a smooth wall stands there,

.. math:: U_n(z) + \tfrac12 \left( \max(|z_1| - 4, 0) / 0.2 \right)^2 \qquad (n = 2, 3, 4)

which changes nothing within the picture and makes each a density on the whole plane.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from vaekit.errors import InputError

__all__ = ["energy", "log_normaliser"]

LogDensity = Callable[[Tensor], Tensor]


def energy(number: int) -> tuple[LogDensity, float]:
    """log p~ = -U of energy 1, 2, 3 or 4, ``[*, 2] -> [*]``, and its log Z in nats, by quadrature.

    Raises:
        InputError: another number.

    >>> log_p, log_z = energy(1)
    >>> log_p(torch.tensor([[2.0, 0.0]])) - log_z
    tensor([-1.8775])
    """
    if number not in _ENERGIES:
        raise InputError(f"energy({number}): the four are numbered 1, 2, 3, 4")
    return _ENERGIES[number], _log_z(number)


def log_normaliser(log_density: LogDensity, *, half_width: float = 8.0, n: int = 1601) -> float:
    """log of the integral, nats, of exp ``log_density``, ``[n, 2] -> [n]``, over the square [-half_width, half_width]^2 by the trapezoid
    rule on n x n points, float64.

    The density must have vanished at the border.

    >>> round(log_normaliser(lambda z: -0.5 * z.square().sum(-1)) - math.log(2 * math.pi), 9)
    0.0
    """
    line = torch.linspace(-half_width, half_width, n, dtype=torch.float64)
    with torch.no_grad():
        rows = [torch.logsumexp(log_density(torch.stack([line, y.expand(n)], -1)), 0) for y in line]
    return float(torch.logsumexp(torch.stack(rows), 0)) + 2 * math.log(2 * half_width / (n - 1))


@functools.cache
def _log_z(number: int) -> float:
    return log_normaliser(_ENERGIES[number])


def _bump(x: Tensor, scale: float) -> Tensor:
    return -0.5 * (x / scale).square()


def _wall(z: Tensor) -> Tensor:
    return _bump((z[..., 0].abs() - 4).clamp(min=0), 0.2)


def _wave(z: Tensor) -> Tensor:
    """z_2 - w_1(z), w_1 = sin(pi z_1 / 2)."""
    return z[..., 1] - torch.sin(0.5 * math.pi * z[..., 0])


def _u1(z: Tensor) -> Tensor:
    return _bump(z.norm(dim=-1) - 2, 0.4) + torch.logaddexp(_bump(z[..., 0] - 2, 0.6), _bump(z[..., 0] + 2, 0.6))


def _u2(z: Tensor) -> Tensor:
    return _bump(_wave(z), 0.4) + _wall(z)


def _u3(z: Tensor) -> Tensor:
    apart = 3 * torch.exp(_bump(z[..., 0] - 1, 0.6))
    return torch.logaddexp(_bump(_wave(z), 0.35), _bump(_wave(z) + apart, 0.35)) + _wall(z)


def _u4(z: Tensor) -> Tensor:
    apart = 3 * torch.sigmoid((z[..., 0] - 1) / 0.3)
    return torch.logaddexp(_bump(_wave(z), 0.4), _bump(_wave(z) + apart, 0.35)) + _wall(z)


_ENERGIES: dict[int, LogDensity] = {1: _u1, 2: _u2, 3: _u3, 4: _u4}
