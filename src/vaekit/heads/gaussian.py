r"""Gaussian heads, for posteriors q(z | x), conditional priors and likelihoods p(x | z).

A likelihood's variance may be per entry from the network, fixed, learned as one number, or the optimum for each batch. Which of them
is used changes what a nat means: a Gaussian with sigma = 1 on pixels in [0, 1] is a weighted squared error, not a fit of the data's
spread.

Two options recur. ``mean`` maps the network's output to the mean, ``nn.Sigmoid()`` for images in [0, 1]; None leaves it as it is.
``min_scale`` is the smallest standard deviation: a learned variance can fall to 0 where the data can be predicted exactly (a
constant pixel), and the density and the bound then grow without limit. Nothing stops that by default; a floor, such as half of the data's
quantisation step, does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaekit.dist import DiagGaussian, OptimalGaussian
from vaekit.errors import InputError
from vaekit.heads.core import Head

__all__ = ["Gaussian", "GaussianEach", "GaussianFixed", "GaussianOptimal", "GaussianShared"]


NOTHING = -1e30
"""The log-variance of a floor of 0."""


def floored(log_scale: Tensor, min_scale: float | Tensor) -> Tensor:
    """log sqrt(sigma^2 + min_scale^2): noise of size ``min_scale`` comes on top. Smooth, and no change at all for 0. A tensor holds the
    log-variances of the floors (`log_floors`)."""
    if isinstance(min_scale, Tensor):
        return 0.5 * torch.logaddexp(2 * log_scale, min_scale.to(log_scale.dtype).expand_as(log_scale))
    return log_scale if min_scale == 0 else 0.5 * torch.logaddexp(2 * log_scale, torch.full_like(log_scale, 2 * math.log(min_scale)))


def log_floors(min_scale: float | tuple[float, ...]) -> Tensor | None:
    """Log-variances of floors of each entry; None where they have one in common."""
    if not isinstance(min_scale, tuple):
        return None
    return torch.tensor([2 * math.log(s) if s else NOTHING for s in min_scale], dtype=torch.float64)


def check_floor(head: str, value: float | Sequence[float], shape: Sequence[int]) -> float | tuple[float, ...]:
    """A floor of all entries, or one of each entry of a vector."""
    if not isinstance(value, Sequence):
        return check_scale(head, "min_scale", value, allow_zero=True)
    if tuple(shape) != (len(value),):
        raise InputError(f"{head}(min_scale=...): {len(value)} floors were given for an event of shape {tuple(shape)}; give one number")
    return tuple(check_scale(head, "min_scale", one, allow_zero=True) for one in value)


def check_scale(head: str, name: str, value: float, allow_zero: bool = False) -> float:
    """``value``, where it can be a standard deviation."""
    if not (math.isfinite(value) and (value > 0 or (allow_zero and value == 0))):
        raise InputError(f"{head}({name}={value}): a standard deviation must be a {'number >= 0' if allow_zero else 'positive number'}")
    return value


class Gaussian(Head):
    r"""N(mu, diag(sigma^2)), mean and log-variance per entry from the network: h = (mu, log sigma^2) (Kingma and Welling, 2014, app. C).

    The second half is the log-*variance*: sigma = exp(h / 2).

    Args:
        event_shape: shape of one example, an int for a vector.
        mean: maps the first half of h to the mean, entry by entry; None leaves it as it is.
        min_scale: sigma^2 = exp(h) + min_scale^2; of a vector also one for each entry.

    >>> import torch
    >>> Gaussian(3)(torch.zeros(5, 6)).scale.shape
    torch.Size([5, 3])
    """

    log_floor: Tensor | None

    def __init__(
        self, event_shape: int | tuple[int, ...], *, mean: nn.Module | None = None, min_scale: float | Sequence[float] = 0.0
    ) -> None:
        super().__init__(event_shape, parts=2)
        self.mean = nn.Identity() if mean is None else mean
        self.min_scale = check_floor("Gaussian", min_scale, self.event_shape)
        self._floor = 0.0 if isinstance(self.min_scale, tuple) else self.min_scale
        self.register_buffer("log_floor", log_floors(self.min_scale), persistent=False)

    def distribution(self, h: Tensor) -> Distribution:
        loc, log_variance = self.split(h, 2)
        floor = self._floor if self.log_floor is None else self.log_floor
        return DiagGaussian(self.mean(loc), floored(0.5 * log_variance, floor), len(self.event_shape))


class GaussianFixed(Head):
    r"""N(mu, scale^2 I) with the mean from the network and a standard deviation that is given.

    log p(x) = -|x - mu|^2 / (2 scale^2) + const: squared error with the weight 1 / (2 scale^2), which has to be chosen.

    Args:
        event_shape: shape of one example, an int for a vector.
        scale: standard deviation, in the units of x.
        mean: maps h to the mean, entry by entry; None leaves it as it is.

    Raises:
        InputError: ``scale`` is not a positive number.

    >>> import torch
    >>> GaussianFixed(2, 0.5)(torch.zeros(1, 2)).log_prob(torch.zeros(2))
    tensor([-0.4516])
    """

    log_scale: Tensor

    def __init__(self, event_shape: int | tuple[int, ...], scale: float, *, mean: nn.Module | None = None) -> None:
        super().__init__(event_shape)
        self.mean = nn.Identity() if mean is None else mean
        self.register_buffer("log_scale", torch.tensor(math.log(check_scale("GaussianFixed", "scale", scale))))

    def distribution(self, h: Tensor) -> Distribution:
        (loc,) = self.split(h, 1)
        return DiagGaussian(self.mean(loc), self.log_scale.to(loc.dtype), len(self.event_shape))


class GaussianShared(Head):
    r"""N(mu, sigma^2 I) with the mean from the network and one sigma, learned with the weights as ``log_scale``.

    Args:
        event_shape: shape of one example, an int for a vector.
        scale: standard deviation to start from, in the units of x.
        mean: maps h to the mean, entry by entry; None leaves it as it is.
        min_scale: sigma^2 = exp(2 log_scale) + min_scale^2.

    Raises:
        InputError: ``scale`` is not a positive number, or ``min_scale`` a negative one.

    >>> import torch
    >>> GaussianShared(2, scale=0.5)(torch.zeros(1, 2)).log_prob(torch.zeros(2))
    tensor([-0.4516], grad_fn=<SumBackward1>)
    """

    def __init__(
        self, event_shape: int | tuple[int, ...], *, scale: float = 1.0, mean: nn.Module | None = None, min_scale: float = 0.0
    ) -> None:
        super().__init__(event_shape)
        self.mean = nn.Identity() if mean is None else mean
        self.min_scale = check_scale("GaussianShared", "min_scale", min_scale, allow_zero=True)
        self.log_scale = nn.Parameter(torch.tensor(math.log(check_scale("GaussianShared", "scale", scale))))

    def distribution(self, h: Tensor) -> Distribution:
        (loc,) = self.split(h, 1)
        return DiagGaussian(self.mean(loc), floored(self.log_scale.to(loc.dtype), self.min_scale), len(self.event_shape))


class GaussianEach(Head):
    r"""N(mu, diag(sigma^2)) with the mean from the network and a sigma for each entry, learned with the weights: one for all z.

    .. math:: \sigma_d = s \, e^{r \theta_d}, \quad \theta_d \text{ learned as } \texttt{theta}

    Where the network gives the variance too (`Gaussian`), an entry that is nearly constant but for a few values is soon explained by a
    variance that is large where those lie. The error of its mean counts for little there, and the mean is not learned (Seitzer,
    Tavakoli, Antic and Martius, "On the Pitfalls of Heteroscedastic Uncertainty Estimation with Probabilistic Neural Networks", ICLR
    2022). With one variance for all z the mean is fitted by least squares, each entry in units of its own error.

    Args:
        event_shape: shape of one example, an int for a vector.
        scale: s, the standard deviations to start from, in the units of x.
        mean: maps h to the mean, entry by entry; None leaves it as it is.
        min_scale: sigma^2 has min_scale^2 on top.
        pace: r. Adam moves a weight by about its learning rate in a step; log sigma moves r times as far, so that short trainings arrive.

    Raises:
        InputError: ``scale`` or ``pace`` is not a positive number, or ``min_scale`` a negative one.

    >>> import torch
    >>> GaussianEach(2, scale=0.5)(torch.zeros(1, 2)).scale
    tensor([[0.5000, 0.5000]], grad_fn=<ExpandBackward0>)
    """

    def __init__(
        self,
        event_shape: int | tuple[int, ...],
        *,
        scale: float = 1.0,
        mean: nn.Module | None = None,
        min_scale: float = 0.0,
        pace: float = 1.0,
    ) -> None:
        super().__init__(event_shape)
        self.mean = nn.Identity() if mean is None else mean
        self.scale = check_scale("GaussianEach", "scale", scale)
        self.min_scale = check_scale("GaussianEach", "min_scale", min_scale, allow_zero=True)
        if not (math.isfinite(pace) and pace > 0):
            raise InputError(f"GaussianEach(pace={pace}): how much faster log sigma is learned must be a positive number")
        self.pace = pace
        self.theta = nn.Parameter(torch.zeros(self.event_shape))

    def distribution(self, h: Tensor) -> Distribution:
        (loc,) = self.split(h, 1)
        log_scale = math.log(self.scale) + self.pace * self.theta.to(loc.dtype)
        return DiagGaussian(self.mean(loc), floored(log_scale, self.min_scale).expand_as(loc), len(self.event_shape))


class GaussianOptimal(Head):
    r"""N(mu, sigma^2 I) with the mean from the network and, in training, the sigma that is best for the batch: the sigma-VAE.

    .. math:: \hat\sigma^2 = \mathrm{mean}_{k, b, d} (x_{bd} - \mu_{kbd})^2 \quad (\text{observed entries})

    In training mode each log-density uses its batch's own optimum (`dist.OptimalGaussian`) and adds it to the running average
    ``variance``. In evaluation mode sigma^2 is that average, so that p(x | z) is a density like any other and does not look at x:
    call ``model.eval()`` before reporting a bound, as with batch normalisation. With several devices or accumulated gradients
    a batch is what one device sees in one pass.

    Rybkin, Daniilidis and Levine, "Simple and Effective VAE Training with Calibrated Decoders", ICML 2021.

    Args:
        event_shape: shape of one example, an int for a vector.
        mean: maps h to the mean, entry by entry; None leaves it as it is.
        momentum: weight of the newest batch in the running average. The first 1 / momentum batches are averaged with equal
            weights, so that the average never leans on a starting value.
        min_scale: the smallest sigma; the optimum under that constraint is used.

    Raises:
        InputError: ``momentum`` is not in (0, 1], or ``min_scale`` negative.

    >>> import torch
    >>> head = GaussianOptimal(2)
    >>> _ = head(torch.zeros(3, 2)).log_prob(torch.full((3, 2), 0.5))
    >>> head.eval()(torch.zeros(3, 2)).variance[0]
    tensor([0.2500, 0.2500])
    """

    variance: Tensor
    batches: Tensor

    def __init__(
        self, event_shape: int | tuple[int, ...], *, mean: nn.Module | None = None, momentum: float = 0.1, min_scale: float = 0.0
    ) -> None:
        super().__init__(event_shape)
        if not 0 < momentum <= 1:
            raise InputError(f"GaussianOptimal(momentum={momentum}): the newest batch's weight must lie in (0, 1]")
        self.mean = nn.Identity() if mean is None else mean
        self.momentum = momentum
        self.min_scale = check_scale("GaussianOptimal", "min_scale", min_scale, allow_zero=True)
        self.register_buffer("variance", torch.tensor(1.0))
        self.register_buffer("batches", torch.tensor(0))

    def distribution(self, h: Tensor) -> Distribution:
        (loc,) = self.split(h, 1)
        loc, log_scale, n = self.mean(loc), 0.5 * self.variance.to(loc.dtype).log(), len(self.event_shape)
        if not self.training:
            return DiagGaussian(loc, log_scale, n)
        return OptimalGaussian(loc, log_scale, n, record=self._record, min_scale=self.min_scale)

    def _record(self, variance: Tensor) -> None:
        self.batches += 1
        weight = (1.0 / self.batches).clamp(min=self.momentum)
        self.variance += weight * (variance.to(self.variance.dtype) - self.variance)
