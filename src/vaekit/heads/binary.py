"""Heads for binary data and for grey values in [0, 1]."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Distribution

from vaekit import dist
from vaekit.heads.core import Head

__all__ = ["Bernoulli", "ContinuousBernoulli"]


class Bernoulli(Head):
    r"""p(x | h) = prod_d Bernoulli(x_d; logits h_d), for binary x; grey x in [0, 1] gets its expected log-mass (`dist.Bernoulli`).

    Args:
        event_shape: shape of one example, an int for a vector.

    >>> import torch
    >>> Bernoulli((1, 2, 2))(torch.zeros(5, 4)).log_prob(torch.ones(5, 1, 2, 2))[0]
    tensor(-2.7726)
    """

    def __init__(self, event_shape: int | tuple[int, ...]) -> None:
        super().__init__(event_shape)

    def distribution(self, h: Tensor) -> Distribution:
        (logits,) = self.split(h, 1)
        return dist.Bernoulli(logits, len(self.event_shape))


class ContinuousBernoulli(Head):
    r"""p(x | h) = prod_d CB(x_d; logits h_d), a density for grey x in [0, 1] (`dist.ContinuousBernoulli`; Loaiza-Ganem, 2019).

    Its mean is not sigmoid(h) but 1 / (1 - e^-h) - 1 / h.

    Args:
        event_shape: shape of one example, an int for a vector.

    >>> import torch
    >>> ContinuousBernoulli((1, 2, 2))(torch.zeros(5, 4)).log_prob(torch.rand(5, 1, 2, 2))[0]
    tensor(0.)
    """

    def __init__(self, event_shape: int | tuple[int, ...]) -> None:
        super().__init__(event_shape)

    def distribution(self, h: Tensor) -> Distribution:
        (logits,) = self.split(h, 1)
        return dist.ContinuousBernoulli(logits, len(self.event_shape))
