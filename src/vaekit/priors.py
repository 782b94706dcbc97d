"""Priors p(z): modules that return a distribution of batch shape () when called without arguments. Any zuko flow is one too."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaekit.dist import DiagGaussian

__all__ = ["StandardNormal"]


class StandardNormal(nn.Module):
    """N(0, I) on ``event_shape``, an int for a vector.

    >>> StandardNormal(2)().log_prob(torch.zeros(2))
    tensor(-1.8379)
    """

    zero: Tensor

    def __init__(self, event_shape: int | tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("zero", torch.zeros(event_shape), persistent=False)

    def forward(self) -> Distribution:
        return DiagGaussian(self.zero, self.zero, self.zero.dim())
