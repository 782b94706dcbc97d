r"""The decoder for data in [0, 1] of the first paper's authors: what the network does not know is learned once for each entry.

.. math:: p(x \mid z) = \prod_d \left( \epsilon_d + (1 - \epsilon_d) \, N(x_d; \mu_d(z), \sigma_d^2) \right), \quad x \in [0, 1]^D
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaekit.dist import ContaminatedGaussian
from vaekit.heads.core import Head

__all__ = ["GaussianContaminated"]


class GaussianContaminated(Head):
    """`dist.ContaminatedGaussian` with the mean from the network, and scale and background weight learned as a number per entry.

    They are the parameters ``log_scale`` and ``logit`` ``[*event]``, which start at 0 (sigma = 1, epsilon = 1/2). This is the decoder
    "bounded01" in the code that D. P. Kingma published with "Auto-Encoding Variational Bayes" (Kingma and
    Welling, ICLR 2014; anglepy, models/VAE_Z_X.py).

    Args:
        event_shape: shape of one example, an int for a vector.
        mean: maps h to the Gaussian's mean, entry by entry; by default ``nn.Sigmoid()``, as the data lie in [0, 1].

    >>> GaussianContaminated(2)(torch.zeros(1, 2)).log_prob(torch.full((2,), 0.5))
    tensor([-0.7149], grad_fn=<SumBackward1>)
    """

    def __init__(self, event_shape: int | tuple[int, ...], *, mean: nn.Module | None = None) -> None:
        super().__init__(event_shape)
        self.mean = nn.Sigmoid() if mean is None else mean
        self.log_scale = nn.Parameter(torch.zeros(self.event_shape))
        self.logit = nn.Parameter(torch.zeros(self.event_shape))

    def distribution(self, h: Tensor) -> Distribution:
        (loc,) = self.split(h, 1)
        return ContaminatedGaussian(self.mean(loc), self.log_scale.to(loc.dtype), self.logit.to(loc.dtype), len(self.event_shape))
