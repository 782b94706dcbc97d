r"""Real numbers with heavy tails, and positive numbers: Student's t and the log-normal distribution.

.. math:: \log t_\nu(x; \mu, \sigma) = \log\Gamma(\tfrac{\nu+1}{2}) - \log\Gamma(\tfrac\nu2) - \tfrac12 \log(\pi\nu) - \log\sigma
          - \tfrac{\nu+1}{2} \log\left(1 + \tfrac{t^2}{\nu}\right), \qquad t = (x - \mu) / \sigma
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from vaekit import noise
from vaekit.dist.core import SampleShape, log_prob_parts, sum_event
from vaekit.dist.gaussian import HALF_LOG_2PI
from vaekit.dist.numeric import log_gamma_half_step

__all__ = ["LogNormal", "StudentT"]

FAR = 1e4
"""Of |t|: beyond, its square is not formed, which would overflow."""


class StudentT(Distribution):
    r"""Student's t with location, scale and degrees of freedom, independent over the last ``event_dim`` dimensions.

    An outlier costs only about (nu + 1) log |t|, so that it bends neither location nor scale as it would a Gaussian's. For large nu it is
    the Gaussian.

    Args:
        loc: mu, ``[*batch, *event]``.
        log_scale: log sigma, broadcastable with ``loc``.
        df: nu > 0, broadcastable with ``loc``.
        event_dim: how many trailing dimensions form the event.

    Shapes: ``rsample(shape)`` is ``[*shape, *batch, *event]``; ``log_prob`` (nats) ``[*shape, *batch]``. `mean` is mu whatever nu is (for
    nu <= 1 there is no mean and mu is the median).

    >>> StudentT(torch.zeros(2), torch.zeros(2), torch.tensor(1.0)).log_prob(torch.tensor([0.0, 1e30])).round(decimals=2)
    tensor(-140.4400)
    """

    has_rsample = True
    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012

    def __init__(self, loc: Tensor, log_scale: Tensor, df: Tensor, event_dim: int = 1) -> None:
        self.loc, self.log_scale, self.df = loc, log_scale, df
        shape = torch.broadcast_shapes(loc.shape, log_scale.shape, df.shape)
        n = len(shape) - event_dim
        self._shape = shape
        super().__init__(shape[:n], shape[n:], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.real, len(self.event_shape))

    @property
    def mean(self) -> Tensor:
        return self.loc.expand(self._shape)

    @property
    def mode(self) -> Tensor:
        return self.mean

    @property
    def variance(self) -> Tensor:
        """nu / (nu - 2) sigma^2; infinite for nu <= 2."""
        ratio = torch.where(self.df > 2, self.df / (self.df - 2), torch.full_like(self.df, math.inf))
        return (ratio * (2 * self.log_scale).exp()).expand(self._shape)

    def expand(self, batch_shape: SampleShape, _instance: Distribution | None = None) -> StudentT:
        shape = (*batch_shape, *self.event_shape)
        return StudentT(self.loc.expand(shape), self.log_scale.expand(shape), self.df.expand(shape), len(self.event_shape))

    def rsample(self, sample_shape: SampleShape = ()) -> Tensor:
        # Bailey, "Polar generation of random variates with the t-distribution", 1994: differentiable in nu too, from uniform noise alone
        shape, n = (*sample_shape, *self._shape), len(self.event_shape)
        u = 1 - noise.uniform(shape, self.loc, n)
        radius = (self.df * torch.expm1((-2 / self.df) * u.log())).clamp(min=torch.finfo(u.dtype).tiny).sqrt()
        t = radius * torch.cos(2 * math.pi * noise.uniform(shape, self.loc, n))
        return torch.addcmul(self.loc, t, self.log_scale.exp())

    def sample(self, sample_shape: SampleShape = ()) -> Tensor:
        with torch.no_grad():
            return self.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        return sum_event(log_prob_parts(self, value), len(self.event_shape))


@log_prob_parts.register
def _(d: StudentT, x: Tensor) -> Tensor:
    distance, log_scale = torch.broadcast_tensors((x - d.loc).abs(), d.log_scale)
    log_t = distance.detach().log() - log_scale.detach()
    far, off = log_t > math.log(FAR), distance > 0
    zero, one = torch.zeros_like(distance), torch.ones_like(distance)
    # of a branch that is not taken neither value nor gradient may overflow, so each is given numbers that it can bear
    near = torch.where(far, zero, distance) * torch.exp(-torch.where(far | ~off, zero, log_scale))
    log_beyond = torch.where(far, distance, one).log() - torch.where(far, log_scale, zero)
    tail = 2 * log_beyond - d.df.log() + torch.log1p(d.df * torch.exp(-2 * log_beyond))
    log_rise = torch.where(far, tail, torch.log1p(near.square() / d.df))
    log_norm = log_gamma_half_step(0.5 * d.df) - 0.5 * (math.pi * d.df).log()
    return log_norm - d.log_scale - 0.5 * (d.df + 1) * log_rise


class LogNormal(Distribution):
    r"""x > 0 with log x ~ N(loc, exp(log_scale)^2), independent over the last ``event_dim`` dimensions.

    .. math:: \log p(x) = \sum_d \log N(\log x_d; \mu_d, \sigma_d^2) - \log x_d

    Args:
        loc: mu, ``[*batch, *event]``.
        log_scale: log sigma, broadcastable with ``loc``.
        event_dim: how many trailing dimensions form the event.

    Shapes: ``rsample(shape)`` is ``[*shape, *batch, *event]``; ``log_prob`` (nats) ``[*shape, *batch]``.

    >>> LogNormal(torch.zeros(2), torch.zeros(2)).log_prob(torch.tensor([1.0, 2.718281828]))
    tensor(-3.3379)
    """

    has_rsample = True
    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012

    def __init__(self, loc: Tensor, log_scale: Tensor, event_dim: int = 1) -> None:
        self.loc, self.log_scale = loc, log_scale
        self._shape = torch.broadcast_shapes(loc.shape, log_scale.shape)
        n = len(self._shape) - event_dim
        super().__init__(self._shape[:n], self._shape[n:], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.positive, len(self.event_shape))

    @property
    def mean(self) -> Tensor:
        return (self.loc + 0.5 * (2 * self.log_scale).exp()).exp().expand(self._shape)

    @property
    def mode(self) -> Tensor:
        return (self.loc - (2 * self.log_scale).exp()).exp().expand(self._shape)

    @property
    def variance(self) -> Tensor:
        return torch.expm1((2 * self.log_scale).exp()) * self.mean.square()

    def expand(self, batch_shape: SampleShape, _instance: Distribution | None = None) -> LogNormal:
        shape = (*batch_shape, *self.event_shape)
        return LogNormal(self.loc.expand(shape), self.log_scale.expand(shape), len(self.event_shape))

    def rsample(self, sample_shape: SampleShape = ()) -> Tensor:
        eps = noise.normal((*sample_shape, *self._shape), self.loc, len(self.event_shape))
        return torch.addcmul(self.loc, eps, self.log_scale.exp()).exp()

    def sample(self, sample_shape: SampleShape = ()) -> Tensor:
        with torch.no_grad():
            return self.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        return sum_event(log_prob_parts(self, value), len(self.event_shape))


@log_prob_parts.register
def _(d: LogNormal, x: Tensor) -> Tensor:
    log_x = x.clamp(min=torch.finfo(x.dtype).tiny).log()  # an entry that is missing holds 0
    return -0.5 * ((log_x - d.loc) * torch.exp(-d.log_scale)).square() - (d.log_scale + HALF_LOG_2PI) - log_x
