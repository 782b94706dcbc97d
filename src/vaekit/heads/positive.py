"""Heads for real numbers with outliers and for positive numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaekit import dist
from vaekit.errors import InputError
from vaekit.heads.core import Head
from vaekit.heads.gaussian import check_floor, check_scale, floored, log_floors

__all__ = ["LogNormal", "StudentT"]


class StudentT(Head):
    r"""Student's t, location and scale per entry from the network, degrees of freedom learned as a number per entry.

    h = (mu, log sigma^2) as in `Gaussian`, and nu = 1 + exp(``log_df``) > 1 with the parameter ``log_df`` ``[*event]``: a mean exists.

    Args:
        event_shape: shape of one example, an int for a vector.
        df: the degrees of freedom to begin with, above 1.
        min_scale: sigma^2 = exp(h) + min_scale^2; of a vector also one for each entry.

    Raises:
        InputError: ``df`` is not above 1, or ``min_scale`` negative.

    >>> StudentT(2)(torch.zeros(1, 4)).log_prob(torch.zeros(2))
    tensor([-1.9372], grad_fn=<SumBackward1>)
    """

    log_floor: Tensor | None

    def __init__(self, event_shape: int | tuple[int, ...], *, df: float = 5.0, min_scale: float | Sequence[float] = 0.0) -> None:
        super().__init__(event_shape, parts=2)
        if not 1 < df < math.inf:
            raise InputError(f"StudentT(df={df}): the degrees of freedom must lie above 1, where a mean exists; give 5, say")
        self.min_scale = check_floor("StudentT", min_scale, self.event_shape)
        self._floor = 0.0 if isinstance(self.min_scale, tuple) else self.min_scale
        self.register_buffer("log_floor", log_floors(self.min_scale), persistent=False)
        self.log_df = nn.Parameter(torch.full(self.event_shape, math.log(df - 1)))

    def distribution(self, h: Tensor) -> Distribution:
        loc, log_variance = self.split(h, 2)
        df = 1 + self.log_df.to(h.dtype).exp()
        floor = self._floor if self.log_floor is None else self.log_floor
        return dist.StudentT(loc, floored(0.5 * log_variance, floor), df, len(self.event_shape))


class LogNormal(Head):
    r"""log x ~ N(mu, sigma^2) for x > 0, with h = (mu, log sigma^2) from the network, as in `Gaussian`.

    Args:
        event_shape: shape of one example, an int for a vector.
        min_scale: sigma^2 = exp(h) + min_scale^2.

    Raises:
        InputError: ``min_scale`` is negative.

    >>> LogNormal(2)(torch.zeros(1, 4)).log_prob(torch.ones(2))
    tensor([-1.8379])
    """

    def __init__(self, event_shape: int | tuple[int, ...], *, min_scale: float = 0.0) -> None:
        super().__init__(event_shape, parts=2)
        self.min_scale = check_scale("LogNormal", "min_scale", min_scale, allow_zero=True)

    def distribution(self, h: Tensor) -> Distribution:
        loc, log_variance = self.split(h, 2)
        return dist.LogNormal(loc, floored(0.5 * log_variance, self.min_scale), len(self.event_shape))
