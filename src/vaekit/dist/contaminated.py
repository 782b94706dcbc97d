r"""A Gaussian in which every entry may also be anything at all: the contaminated normal (Tukey, 1960), its background uniform on [0, 1].

.. math:: p(x) = \prod_d \left( \epsilon_d \, 1[0 \le x_d \le 1] + (1 - \epsilon_d) \, N(x_d; \mu_d, \sigma_d^2) \right)

An entry that the Gaussian cannot explain costs at most -log epsilon_d, so that it bends neither mu nor sigma.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution, constraints

from vaekit import noise
from vaekit.dist.core import SampleShape, log_prob_parts, sum_event
from vaekit.dist.gaussian import HALF_LOG_2PI

__all__ = ["ContaminatedGaussian"]


class ContaminatedGaussian(Distribution):
    """N(loc, exp(log_scale)^2) with weight 1 - epsilon and U(0, 1) with weight epsilon = sigmoid(logit), entry by entry (contamination:
    Tukey, 1960).

    Args:
        loc: means of the Gaussian, ``[*batch, *event]``.
        log_scale: logarithms of its standard deviations, of a shape that broadcasts to that of ``loc``.
        logit: logits of epsilon, likewise.
        event_dim: how many trailing dimensions form the event.

    Shapes: ``sample(shape)`` is ``[*shape, *batch, *event]``, real; ``log_prob`` (nats) ``[*shape, *batch]``.

    >>> d = ContaminatedGaussian(torch.full((2,), 0.5), torch.tensor(-3.0), torch.tensor(0.0))
    >>> d.log_prob(torch.tensor([[0.5, 0.5], [0.5, 1.0]])).round(decimals=2)
    tensor([3.0100, 0.8100])
    """

    has_rsample = False
    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012

    def __init__(self, loc: Tensor, log_scale: Tensor, logit: Tensor, event_dim: int = 1) -> None:
        self.loc, self.log_scale, self.logit = loc, log_scale, logit
        n = loc.dim() - event_dim
        super().__init__(loc.shape[:n], loc.shape[n:], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.real, len(self.event_shape))

    @property
    def mean(self) -> Tensor:
        return self.loc + torch.sigmoid(self.logit) * (0.5 - self.loc)

    @property
    def variance(self) -> Tensor:
        w = torch.sigmoid(self.logit)
        return w / 12 + (1 - w) * (2 * self.log_scale).exp() + w * (1 - w) * (self.loc - 0.5).square()

    def expand(self, batch_shape: SampleShape, _instance: Distribution | None = None) -> ContaminatedGaussian:
        shape = (*batch_shape, *self.event_shape)
        return ContaminatedGaussian(self.loc.expand(shape), self.log_scale, self.logit, len(self.event_shape))

    def sample(self, sample_shape: SampleShape = ()) -> Tensor:
        with torch.no_grad():
            n = len(self.event_shape)
            shape = (*sample_shape, *self.loc.shape)
            anything = noise.uniform(shape, self.loc, n) < torch.sigmoid(self.logit)
            explained = torch.addcmul(self.loc, noise.normal(shape, self.loc, n), self.log_scale.exp())
            return torch.where(anything, noise.uniform(shape, self.loc, n), explained)

    def log_prob(self, value: Tensor) -> Tensor:
        return sum_event(log_prob_parts(self, value), len(self.event_shape))


@log_prob_parts.register
def _(d: ContaminatedGaussian, x: Tensor) -> Tensor:
    gaussian = -0.5 * ((x - d.loc) * torch.exp(-d.log_scale)).square() - (d.log_scale + HALF_LOG_2PI)
    background = torch.where((x >= 0) & (x <= 1), F.logsigmoid(d.logit), -math.inf)
    return torch.logaddexp(background, gaussian + F.logsigmoid(-d.logit))
