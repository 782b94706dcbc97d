r"""Gaussian heads, for posteriors q(z | x), conditional priors and likelihoods p(x | z).

A likelihood's variance may be fixed, learned as one number, learned per entry, or the optimum for each batch. Which of them is used
changes what a nat means: a Gaussian with sigma = 1 on pixels in [0, 1] is a weighted squared error, not a fit of the data's spread.
"""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Distribution

from vaekit.dist import DiagGaussian
from vaekit.heads.core import Head

__all__ = ["Gaussian"]


class Gaussian(Head):
    r"""N(mu, diag(sigma^2)), mean and log-variance per entry from the network: h = (mu, log sigma^2) (Kingma and Welling, 2014, app. C).

    The second half is the log-*variance*: sigma = exp(h / 2).

    >>> import torch
    >>> Gaussian(3)(torch.zeros(5, 6)).scale.shape
    torch.Size([5, 3])
    """

    def __init__(self, event_shape: int | tuple[int, ...]) -> None:
        super().__init__(event_shape, parts=2)

    def distribution(self, h: Tensor) -> Distribution:
        loc, log_variance = self.split(h, 2)
        return DiagGaussian(loc, 0.5 * log_variance, len(self.event_shape))
