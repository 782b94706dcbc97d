r"""Continuous relaxations of discrete variables, whose samples can be differentiated.

.. math:: \text{binary: } y = \frac{l + L}{\lambda}, \; z = \mathrm{sigmoid}(y), \; L \sim \text{Logistic}; \qquad
          \text{one of C: } y = \log\mathrm{softmax}\frac{l + G}{\lambda}, \; z = e^y, \; G_c \sim \text{Gumbel}

z lies between the discrete values and tends to them as the temperature lambda -> 0; the nearest discrete value is an exact draw
of the discrete distribution at any lambda. The densities are

.. math:: \log p(y) = \log\lambda + t - 2\log(1 + e^t), \; t = l - \lambda y; \qquad
          \log p(y) = \log (C-1)! + (C-1)\log\lambda + \sum_c t_c - C \log\sum_c e^{t_c}, \; t_c = l_c - \lambda y_c

with log p(z) = log p(y) - log z (1 - z), respectively - sum_c y_c; for classes the density is that of the C - 1 differences y_c - y_C,
which is logit z for two. Everything is computed from y: at small lambda z itself is rounded to
0 or 1, where its logit is lost.

Maddison, Mnih and Teh, "The Concrete Distribution", ICLR 2017; Jang, Gu and Poole, "Categorical Reparameterization with
Gumbel-Softmax", ICLR 2017.
"""

from __future__ import annotations

import math
from functools import singledispatch

import torch
import torch.nn.functional as F
from torch import Size, Tensor
from torch.distributions import Distribution, Independent, OneHotCategorical, constraints

from vaekit.dist.bernoulli import Bernoulli
from vaekit.dist.core import SampleShape, describe, draw, sum_event
from vaekit.dist.one_hot import OneHot, gumbel, uniform, vertex
from vaekit.errors import InputError

__all__ = ["BinConcrete", "Concrete", "relaxed"]


class BinConcrete(Distribution):
    r"""The relaxed Bernoulli on (0, 1), independent over the last ``event_dim`` dimensions.

    Maddison, Mnih and Teh, "The Concrete Distribution", ICLR 2017.

    Args:
        logits: l, ``[*batch, *event]``.
        temperature: lambda > 0.
        event_dim: how many trailing dimensions form the event.

    Shapes: y and z ``[*shape, *batch, *event]``; log-densities (nats) ``[*shape, *batch]``.

    Raises:
        InputError: a temperature that is not positive and finite.

    >>> _ = torch.manual_seed(0)
    >>> q = BinConcrete(torch.zeros(4, 3), 0.5)
    >>> y = q.rsample_y((2,))
    >>> torch.allclose(q.log_prob_y(y) + (F.softplus(y) + F.softplus(-y)).sum(-1), q.log_prob(q.value(y)), atol=1e-4)
    True
    """

    has_rsample = True
    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012

    def __init__(self, logits: Tensor, temperature: float, event_dim: int = 1) -> None:
        self.logits = logits
        self.temperature = positive(temperature)
        n = logits.dim() - event_dim
        super().__init__(logits.shape[:n], logits.shape[n:], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.unit_interval, len(self.event_shape))

    def expand(self, batch_shape: SampleShape, _instance: Distribution | None = None) -> BinConcrete:
        return BinConcrete(self.logits.expand(*batch_shape, *self.event_shape), self.temperature, len(self.event_shape))

    def rsample_y(self, sample_shape: SampleShape = ()) -> Tensor:
        """y = logit(z), ``[*shape, *batch, *event]``."""
        u = uniform(self.logits, sample_shape, len(self.event_shape))
        return (self.logits + (torch.log(u) - torch.log1p(-u))) / self.temperature

    def value(self, y: Tensor) -> Tensor:
        """z in (0, 1), ``[*shape, *batch, *event]`` as y."""
        return torch.sigmoid(y)

    def hard(self, y: Tensor) -> Tensor:
        """The nearest of 0 and 1, ``[*shape, *batch, *event]``: a draw of the Bernoulli itself, without gradient."""
        return (y > 0).to(y.dtype)

    def log_prob_y(self, y: Tensor) -> Tensor:
        """log-density of y, nats ``[*shape, *batch]``."""
        return sum_event(self._parts(y), len(self.event_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """log-density of z, from a z that may have been rounded; `draw` gives it without that error."""
        eps = torch.finfo(value.dtype).eps
        return _binary_density(self, torch.logit(value.clamp(eps, 1 - eps)))

    def rsample(self, sample_shape: SampleShape = ()) -> Tensor:
        return self.value(self.rsample_y(sample_shape))

    def sample(self, sample_shape: SampleShape = ()) -> Tensor:
        with torch.no_grad():
            return self.rsample(sample_shape)

    def _parts(self, y: Tensor) -> Tensor:
        t = self.logits - self.temperature * y
        return math.log(self.temperature) + t - 2 * F.softplus(t)


class Concrete(Distribution):
    r"""The relaxed one-hot vector, inside the simplex along the last dimension, independent over the event dimensions before it.

    Maddison, Mnih and Teh, "The Concrete Distribution", ICLR 2017; Jang, Gu and Poole, "Categorical Reparameterization with
    Gumbel-Softmax", ICLR 2017.

    Args:
        logits: l, ``[*batch, *event]``, the C classes last.
        temperature: lambda > 0; up to 1 / (C - 1) the density has no mode inside the simplex.
        event_dim: how many trailing dimensions form the event: 2 for N variables of C classes, ``[N, C]``.

    Shapes: y and z ``[*shape, *batch, *event]``; log-densities (nats; of z, of the first C - 1 entries of each variable)
    ``[*shape, *batch]``.

    Raises:
        InputError: a temperature that is not positive and finite.

    >>> _ = torch.manual_seed(0)
    >>> q = Concrete(torch.zeros(4, 3, 5), 0.5)
    >>> y = q.rsample_y((2,))
    >>> torch.allclose(q.log_prob_y(y) - y.sum((-2, -1)), q.log_prob(q.value(y)), rtol=1e-4)
    True
    """

    has_rsample = True
    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012

    def __init__(self, logits: Tensor, temperature: float, event_dim: int = 2) -> None:
        self.logits = logits
        self.temperature = positive(temperature)
        n = logits.dim() - event_dim
        super().__init__(logits.shape[:n], logits.shape[n:], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.simplex, len(self.event_shape) - 1)

    def expand(self, batch_shape: SampleShape, _instance: Distribution | None = None) -> Concrete:
        return Concrete(self.logits.expand(*batch_shape, *self.event_shape), self.temperature, len(self.event_shape))

    def rsample_y(self, sample_shape: SampleShape = ()) -> Tensor:
        """y = log z, ``[*shape, *batch, *event]``."""
        return ((self.logits + gumbel(self.logits, sample_shape, len(self.event_shape))) / self.temperature).log_softmax(-1)

    def value(self, y: Tensor) -> Tensor:
        """z inside the simplex, ``[*shape, *batch, *event]`` as y."""
        return y.exp()

    def hard(self, y: Tensor) -> Tensor:
        """The nearest one-hot vector, ``[*shape, *batch, *event]``: a draw of the categorical variable itself, without gradient."""
        return vertex(y)

    def log_prob_y(self, y: Tensor) -> Tensor:
        """log-density of y, nats ``[*shape, *batch]``, of its C - 1 differences y_c - y_C."""
        return sum_event(self._parts(y), len(self.event_shape) - 1)

    def log_prob(self, value: Tensor) -> Tensor:
        """log-density of z, from a z that may have been rounded; `draw` gives it without that error."""
        return _simplex_density(self, torch.log(value.clamp(min=torch.finfo(value.dtype).tiny)))

    def rsample(self, sample_shape: SampleShape = ()) -> Tensor:
        return self.value(self.rsample_y(sample_shape))

    def sample(self, sample_shape: SampleShape = ()) -> Tensor:
        with torch.no_grad():
            return self.rsample(sample_shape)

    def _parts(self, y: Tensor) -> Tensor:
        c = self.logits.shape[-1]
        t = self.logits - self.temperature * y
        return math.lgamma(c) + (c - 1) * math.log(self.temperature) + t.sum(-1) - c * t.logsumexp(-1)


@singledispatch
def relaxed(d: Distribution, temperature: float) -> BinConcrete | Concrete:
    """The continuous relaxation of a discrete distribution d at a temperature.

    Raises:
        InputError: a distribution without one; a temperature that is not positive and finite.

    >>> type(relaxed(Bernoulli(torch.zeros(3)), 0.5)).__name__
    'BinConcrete'
    """
    raise InputError(
        f"{describe(d)} has no relaxation: only Bernoulli and OneHot variables have one; a continuous latent needs none (use ELBO), "
        "and for another discrete one there are score-function objectives"
    )


@relaxed.register
def _(d: Bernoulli, temperature: float) -> BinConcrete:
    return BinConcrete(d.logits, temperature, len(d.event_shape))


@relaxed.register
def _(d: OneHot, temperature: float) -> Concrete:
    return Concrete(d.logits, temperature, len(d.event_shape))


@relaxed.register
def _(d: torch.distributions.Bernoulli, temperature: float) -> BinConcrete:
    return BinConcrete(d.logits, temperature, 0)


@relaxed.register
def _(d: OneHotCategorical, temperature: float) -> Concrete:
    return Concrete(d.logits, temperature, 1)


@relaxed.register
def _(d: Independent, temperature: float) -> BinConcrete | Concrete:
    inner = relaxed(d.base_dist, temperature)
    return type(inner)(inner.logits, temperature, len(d.event_shape))


def positive(temperature: float) -> float:
    """The temperature, where it is one."""
    if not 0 < temperature < math.inf:
        raise InputError(
            f"temperature {temperature}: a relaxation needs a positive, finite one; 0 would be the discrete distribution itself"
        )
    return temperature


def _binary_density(d: BinConcrete, y: Tensor) -> Tensor:
    return sum_event(d._parts(y) + F.softplus(y) + F.softplus(-y), len(d.event_shape))


def _simplex_density(d: Concrete, y: Tensor) -> Tensor:
    return sum_event(d._parts(y) - y.sum(-1), len(d.event_shape) - 1)


@draw.register
def _(d: BinConcrete, shape: Size, reparam: bool = True) -> tuple[Tensor, Tensor]:
    y = d.rsample_y(shape) if reparam else d.rsample_y(shape).detach()
    return d.value(y), _binary_density(d, y)


@draw.register
def _(d: Concrete, shape: Size, reparam: bool = True) -> tuple[Tensor, Tensor]:
    y = d.rsample_y(shape) if reparam else d.rsample_y(shape).detach()
    return d.value(y), _simplex_density(d, y)
