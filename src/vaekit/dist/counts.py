r"""Counts 0, 1, 2, ...: Poisson, negative binomial, and either of them with more zeros.

.. math:: \mathrm{NB}(k; \mu, r) = \frac{\Gamma(k + r)}{\Gamma(r)\, k!} \left(\frac{r}{r + \mu}\right)^r
          \left(\frac{\mu}{r + \mu}\right)^k, \qquad E[k] = \mu, \quad \mathrm{Var}[k] = \mu + \mu^2 / r

r is the inverse dispersion, as in scVI; for large r it is the Poisson distribution. Textbook formulas subtract log-factorials of a size
that float32 cannot hold. Here both are written as saddle-point expansions (Loader, "Fast and accurate computation of binomial
probabilities", 2000), whose terms are as small as their sum: 1e-6 of a part is kept for counts of any size.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.distributions import Distribution, constraints

from vaekit.compiling import stacked
from vaekit.dist.core import SampleShape, log_prob_parts, sum_event
from vaekit.dist.numeric import HALF_LOG_2PI, exp_excess, log_gamma_excess

__all__ = ["NegativeBinomial", "Poisson", "ZeroInflated"]

MANY = 100_000
"""Entries from which those that are not 0 are looked for, if they are less than `FEW` of all."""
FEW = 0.25


class Poisson(Distribution):
    """Poisson with log-rates, independent over the last ``event_dim`` dimensions.

    Args:
        log_rate: log lambda, ``[*batch, *event]``, up to 80 in float32.
        event_dim: how many trailing dimensions form the event.

    Shapes: x holds counts as floats; ``sample(shape)`` is ``[*shape, *batch, *event]`` in the dtype of the log-rates; ``log_prob`` (nats)
    ``[*shape, *batch]``.

    >>> Poisson(torch.tensor([0.0, 13.815511])).log_prob(torch.tensor([0.0, 1e6]))
    tensor(-8.8267)
    """

    has_rsample = False
    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012

    def __init__(self, log_rate: Tensor, event_dim: int = 1) -> None:
        self.log_rate = log_rate
        n = log_rate.dim() - event_dim
        super().__init__(log_rate.shape[:n], log_rate.shape[n:], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.nonnegative_integer, len(self.event_shape))

    @property
    def mean(self) -> Tensor:
        return self.log_rate.exp()

    @property
    def mode(self) -> Tensor:
        return self.mean.floor()

    @property
    def variance(self) -> Tensor:
        return self.mean

    def expand(self, batch_shape: SampleShape, _instance: Distribution | None = None) -> Poisson:
        return Poisson(self.log_rate.expand(*batch_shape, *self.event_shape), len(self.event_shape))

    def sample(self, sample_shape: SampleShape = ()) -> Tensor:
        with torch.no_grad():
            return torch.poisson(self.mean.expand(*sample_shape, *self.log_rate.shape))

    def log_prob(self, value: Tensor) -> Tensor:
        return sum_event(log_prob_parts(self, value), len(self.event_shape))


class NegativeBinomial(Distribution):
    """Negative binomial with mean mu and inverse dispersion r, independent over the last ``event_dim`` dimensions.

    Args:
        log_mean: log mu, ``[*batch, *event]``, up to 80 in float32.
        log_r: log r, broadcastable with ``log_mean``.
        event_dim: how many trailing dimensions form the event.

    Shapes: as `Poisson`, ``log_prob`` in nats.

    >>> NegativeBinomial(torch.zeros(2), torch.zeros(2)).log_prob(torch.tensor([0.0, 3.0]))  # 1/2 and 1/16
    tensor(-3.4657)
    """

    has_rsample = False
    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012

    def __init__(self, log_mean: Tensor, log_r: Tensor, event_dim: int = 1) -> None:
        self.log_mean, self.log_r = log_mean, log_r
        self._shape = torch.broadcast_shapes(log_mean.shape, log_r.shape)
        n = len(self._shape) - event_dim
        super().__init__(self._shape[:n], self._shape[n:], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.nonnegative_integer, len(self.event_shape))

    @property
    def mean(self) -> Tensor:
        return self.log_mean.exp().expand(self._shape)

    @property
    def mode(self) -> Tensor:
        """floor(mu (r - 1) / r) for r > 1, else 0."""
        return (self.mean * (1 - (-self.log_r).exp())).clamp(min=0).floor()

    @property
    def variance(self) -> Tensor:
        return self.mean + (2 * self.log_mean - self.log_r).exp()

    def expand(self, batch_shape: SampleShape, _instance: Distribution | None = None) -> NegativeBinomial:
        shape = (*batch_shape, *self.event_shape)
        return NegativeBinomial(self.log_mean.expand(shape), self.log_r.expand(shape), len(self.event_shape))

    def sample(self, sample_shape: SampleShape = ()) -> Tensor:
        with torch.no_grad():
            r = self.log_r.exp().expand(*sample_shape, *self._shape)
            return torch.poisson(torch._standard_gamma(r) * (self.log_mean - self.log_r).exp())

    def log_prob(self, value: Tensor) -> Tensor:
        return sum_event(log_prob_parts(self, value), len(self.event_shape))


class ZeroInflated(Distribution):
    r"""A count that is 0 with probability pi = sigmoid(logit), and otherwise what ``base`` says (which may be 0 too).

    .. math:: P(0) = \pi + (1 - \pi) P_{base}(0), \qquad P(k) = (1 - \pi) P_{base}(k), \quad k > 0

    Args:
        base: `Poisson` or `NegativeBinomial`.
        logit: of pi, ``[*batch, *event]``.

    Shapes: ``sample(shape)`` is ``[*shape, *batch, *event]``; ``log_prob`` (nats) ``[*shape, *batch]``. It has no reparameterised sample.

    >>> ZeroInflated(Poisson(torch.zeros(1)), torch.zeros(1)).log_prob(torch.zeros(1)).exp()  # (1 + 1/e) / 2
    tensor(0.6839)
    """

    has_rsample = False
    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012

    def __init__(self, base: Poisson | NegativeBinomial, logit: Tensor) -> None:
        self.base, self.logit = base, logit
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return self.base.support

    @property
    def mean(self) -> Tensor:
        return torch.sigmoid(-self.logit) * self.base.mean

    @property
    def mode(self) -> Tensor:
        """0, or the base's mode where that is more probable."""
        mode = self.base.mode
        zero = log_prob_parts(self, torch.zeros_like(mode))
        return torch.where(log_prob_parts(self, mode) > zero, mode, torch.zeros_like(mode))

    @property
    def variance(self) -> Tensor:
        mean = self.base.mean
        return torch.sigmoid(-self.logit) * (self.base.variance + torch.sigmoid(self.logit) * mean.square())

    def expand(self, batch_shape: SampleShape, _instance: Distribution | None = None) -> ZeroInflated:
        return ZeroInflated(self.base.expand(batch_shape), self.logit.expand(*batch_shape, *self.event_shape))

    def sample(self, sample_shape: SampleShape = ()) -> Tensor:
        k = self.base.sample(sample_shape)
        with torch.no_grad():
            return k * (torch.rand_like(k) < torch.sigmoid(-self.logit))

    def log_prob(self, value: Tensor) -> Tensor:
        return sum_event(log_prob_parts(self, value), len(self.event_shape))


@log_prob_parts.register
def _(d: Poisson, x: Tensor) -> Tensor:
    return _zero_or(_poisson, x, -d.log_rate.exp(), d.log_rate)


def _poisson(k: Tensor, log_rate: Tensor) -> Tensor:
    """log P(k), k > 0."""
    log_k = k.log()
    return -(log_gamma_excess(k) + HALF_LOG_2PI + 0.5 * log_k + k * exp_excess(log_rate - log_k))


@log_prob_parts.register
def _(d: NegativeBinomial, x: Tensor) -> Tensor:
    return _zero_or(_negative_binomial, x, -d.log_r.exp() * F.softplus(d.log_mean - d.log_r, threshold=40), d.log_mean, d.log_r)


def _negative_binomial(k: Tensor, log_mean: Tensor, log_r: Tensor) -> Tensor:
    """log P(k), k > 0."""
    r, log_k = log_r.exp(), k.log()
    log_none = F.softplus(log_mean - log_r, threshold=40)  # log((r + mu) / r)
    log_n_r = F.softplus(log_k - log_r, threshold=40)  # log((r + k) / r)
    # P(k) = r / (r + k) Binomial(r; r + k, r / (r + mu)): how far r and k lie from what is expected of r + k
    far_r = log_n_r - log_none
    far_k = log_mean - log_k + far_r
    constant = log_gamma_excess(r + k) - log_gamma_excess(r) - log_gamma_excess(k) - HALF_LOG_2PI - 0.5 * (log_k + log_n_r)
    return constant - r * exp_excess(far_r) - k * exp_excess(far_k)


def _zero_or(counted: Callable[..., Tensor], x: Tensor, zero: Tensor, *parameters: Tensor) -> Tensor:
    """``zero`` where x is 0, else ``counted(x, *parameters)``: log P(0) is a function or two, log P(k) some thirty."""
    some = x > 0
    if not _mostly_zeros(some, zero):
        return torch.where(some, counted(torch.where(some, x, torch.ones_like(x)), *parameters), zero)
    shape = torch.broadcast_shapes(x.shape, zero.shape)
    where = some.expand(shape).nonzero(as_tuple=True)

    def there(t: Tensor) -> Tensor:
        return t[tuple(i if n > 1 else torch.zeros_like(i) for i, n in zip(where[len(shape) - t.dim() :], t.shape, strict=True))]

    values = counted(there(x), *map(there, parameters))
    return zero.to(values.dtype).expand(shape).index_put(where, values)


def _mostly_zeros(some: Tensor, zero: Tensor) -> bool:
    """Many entries, few of them counts, on a processor, where eager torch takes time for each; a program and a vectorised function cannot
    choose by what x holds."""
    free = some.device.type == "cpu" and not (torch.compiler.is_compiling() or stacked or is_functorch_wrapped_tensor(some))
    return free and zero.numel() >= MANY and int(some.sum()) < FEW * some.numel()


@log_prob_parts.register
def _(d: ZeroInflated, x: Tensor) -> Tensor:
    base = log_prob_parts(d.base, x)
    counted = F.logsigmoid(-d.logit) + base
    return torch.where(x > 0, counted, torch.logaddexp(F.logsigmoid(d.logit), counted))
