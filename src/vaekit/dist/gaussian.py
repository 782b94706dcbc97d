r"""The diagonal Gaussian, held by its log-scale.

.. math:: \log N(z; \mu, \sigma^2 I) = -\tfrac12 \sum_d \left( ((z_d - \mu_d) / \sigma_d)^2 + 2 \log \sigma_d + \log 2\pi \right)

``torch.distributions.Normal`` holds sigma and takes its logarithm again in every density and every KL. Networks give the
logarithm; keeping it is both exact where sigma under- or overflows and faster.
"""

from __future__ import annotations

import math

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal, constraints, register_kl

from vaekit import noise
from vaekit.dist.core import SampleShape, draw, log_prob_parts, sum_event, tempered
from vaekit.errors import InputError

__all__ = ["DiagGaussian", "full_gaussian", "gaussian_kl_parts"]

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class DiagGaussian(Distribution):
    r"""N(loc, diag(exp(log_scale))^2), independent over the last ``event_dim`` dimensions.

    Args:
        loc: mean, ``[*batch, *event]``.
        log_scale: logarithm of the standard deviation, broadcastable with ``loc``.
        event_dim: how many trailing dimensions form the event.

    Shapes: ``rsample(shape)`` is ``[*shape, *batch, *event]``; ``log_prob`` (nats) ``[*shape, *batch]``.

    >>> _ = torch.manual_seed(0)
    >>> q = DiagGaussian(torch.zeros(4, 2), torch.zeros(4, 2))
    >>> q.rsample((3,)).shape, q.log_prob(torch.zeros(2))[0]
    (torch.Size([3, 4, 2]), tensor(-1.8379))
    """

    has_rsample = True
    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012

    def __init__(self, loc: Tensor, log_scale: Tensor, event_dim: int = 1) -> None:
        shape = torch.broadcast_shapes(loc.shape, log_scale.shape)
        self.loc = loc
        self.log_scale = log_scale
        self._shape = shape
        n = len(shape) - event_dim
        super().__init__(shape[:n], shape[n:], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.real, len(self.event_shape))

    @property
    def scale(self) -> Tensor:
        """Standard deviation, ``[*batch, *event]``."""
        return self.log_scale.exp().expand(self._shape)

    @property
    def mean(self) -> Tensor:
        return self.loc.expand(self._shape)

    @property
    def mode(self) -> Tensor:
        return self.mean

    @property
    def variance(self) -> Tensor:
        return (2 * self.log_scale).exp().expand(self._shape)

    def expand(self, batch_shape: SampleShape, _instance: Distribution | None = None) -> DiagGaussian:
        shape = (*batch_shape, *self.event_shape)
        return DiagGaussian(self.loc.expand(shape), self.log_scale.expand(shape), len(self.event_shape))

    def rsample(self, sample_shape: SampleShape = ()) -> Tensor:
        eps = noise.normal((*sample_shape, *self._shape), self.loc, len(self.event_shape))  # faster than Normal.rsample
        return torch.addcmul(self.loc, eps, self.log_scale.exp())

    def sample(self, sample_shape: SampleShape = ()) -> Tensor:
        with torch.no_grad():
            return self.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        return sum_event(log_prob_parts(self, value), len(self.event_shape))

    def entropy(self) -> Tensor:
        parts = (self.log_scale + (0.5 + HALF_LOG_2PI)).expand(self._shape)
        return sum_event(parts, len(self.event_shape))


@log_prob_parts.register
def _(d: DiagGaussian, x: Tensor) -> Tensor:
    return -0.5 * ((x - d.loc) * torch.exp(-d.log_scale)).square() - (d.log_scale + HALF_LOG_2PI)


@tempered.register
def _(d: DiagGaussian, temperature: float) -> Distribution:
    return DiagGaussian(d.loc, d.log_scale + math.log(temperature) if temperature > 0 else d.log_scale - math.inf, len(d.event_shape))


def gaussian_kl_parts(q: DiagGaussian, p: DiagGaussian) -> Tensor:
    r"""KL(q_d || p_d) of each dimension in nats, ``[*batch, *event]``, of ``q`` and ``p`` with equal event dimensions.

    .. math:: \log\sigma_p - \log\sigma_q + \tfrac12 \left( (\sigma_q/\sigma_p)^2 + ((\mu_q-\mu_p)/\sigma_p)^2 - 1 \right)
    """
    log_ratio = q.log_scale - p.log_scale
    distance = ((q.loc - p.loc) * torch.exp(-p.log_scale)).square()
    return 0.5 * (torch.exp(2 * log_ratio) + distance - 1) - log_ratio


@register_kl(DiagGaussian, DiagGaussian)
def _kl_diag_diag(q: DiagGaussian, p: DiagGaussian) -> Tensor:
    return sum_event(gaussian_kl_parts(q, p), len(q.event_shape))


@draw.register
def _(d: MultivariateNormal, shape: Size, reparam: bool = True) -> tuple[Tensor, Tensor]:
    # z = mu + L eps has log-density log N(eps; 0, I) - log |L|: no triangular system to solve. The product is written out because
    # mixed precision would round a matrix product.
    eps = noise.normal((*shape, *d.batch_shape, *d.event_shape), d.loc)
    z = d.loc + (d.scale_tril * eps.unsqueeze(-2)).sum(-1)
    if not reparam:
        z = z.detach()
        return z, d.log_prob(z)
    return z, -(0.5 * eps.square() + HALF_LOG_2PI).sum(-1) - d.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def _as_diagonal(d: Independent) -> DiagGaussian:
    """torch's own form of a diagonal Gaussian."""
    if not isinstance(d.base_dist, Normal):
        raise NotImplementedError
    return DiagGaussian(d.base_dist.loc, d.base_dist.scale.log(), len(d.event_shape))


@register_kl(Independent, DiagGaussian)
def _kl_torch_diag(q: Independent, p: DiagGaussian) -> Tensor:
    return _kl_diag_diag(_as_diagonal(q), p)


@register_kl(DiagGaussian, Independent)
def _kl_diag_torch(q: DiagGaussian, p: Independent) -> Tensor:
    return _kl_diag_diag(q, _as_diagonal(p))


@register_kl(MultivariateNormal, DiagGaussian)
def _kl_full_diag(q: MultivariateNormal, p: DiagGaussian) -> Tensor:
    inverse = torch.exp(-p.log_scale)
    trace = (q.scale_tril * inverse.unsqueeze(-1)).square().sum((-2, -1))
    distance = ((q.loc - p.loc) * inverse).square().sum(-1)
    log_det = p.log_scale.sum(-1) - q.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return 0.5 * (trace + distance - q.loc.shape[-1]) + log_det


@register_kl(DiagGaussian, MultivariateNormal)
def _kl_diag_full(q: DiagGaussian, p: MultivariateNormal) -> Tensor:
    full = MultivariateNormal(q.mean, scale_tril=torch.diag_embed(q.scale.expand(q.mean.shape)), validate_args=False)
    kl: Tensor = torch.distributions.kl_divergence(full, p)
    return kl


@register_kl(MultivariateNormal, Independent)
def _kl_full_torch(q: MultivariateNormal, p: Independent) -> Tensor:
    return _kl_full_diag(q, _as_diagonal(p))


@register_kl(Independent, MultivariateNormal)
def _kl_torch_full(q: Independent, p: MultivariateNormal) -> Tensor:
    return _kl_diag_full(_as_diagonal(q), p)


def full_gaussian(loc: Tensor, covariance: Tensor) -> MultivariateNormal:
    r"""N(loc, covariance), with every mistake in the covariance told; `closed_form_kl` has the KL of any two Gaussians.

    .. math:: KL(q \| p) = \tfrac12 \left( \mathrm{tr}(\Sigma_p^{-1} \Sigma_q) + (\mu_p - \mu_q)^T \Sigma_p^{-1} (\mu_p - \mu_q)
              - D + \log \frac{|\Sigma_p|}{|\Sigma_q|} \right)

    Args:
        loc: mean, ``[*batch, D]``.
        covariance: ``[*batch, D, D]``, variances and not standard deviations on its diagonal.

    Raises:
        InputError: of another shape, not finite, not symmetric, or not positive definite in its precision (the smallest eigenvalue is
            named): a singular Gaussian has no density, and its KL to any other is infinite.

    >>> p, q = full_gaussian(torch.zeros(2), torch.tensor([[2.0, 1.0], [1.0, 2.0]])), full_gaussian(torch.zeros(2), torch.eye(2))
    >>> torch.distributions.kl_divergence(q, p), torch.distributions.kl_divergence(p, q)
    (tensor(0.2160), tensor(0.4507))
    """
    d = loc.shape[-1] if loc.dim() else 0
    if d == 0 or covariance.dim() < 2 or covariance.shape[-2:] != (d, d):
        raise InputError(f"full_gaussian: mean {list(loc.shape)}, covariance {list(covariance.shape)}: give [*batch, D] and [*batch, D, D]")
    if not (loc.isfinite().all() and covariance.isfinite().all()):
        raise InputError("full_gaussian: the mean or the covariance has entries that are NaN or infinite")
    off = float((covariance - covariance.mT).abs().max())
    largest = float(covariance.abs().max())
    if off > 1e3 * torch.finfo(covariance.dtype).eps * largest:
        raise InputError(f"full_gaussian: the covariance is not symmetric: entries differ from their mirror images by up to {off:.3g}")
    least = float(torch.linalg.eigvalsh(covariance.detach()).min())
    if least <= d * torch.finfo(covariance.dtype).eps * largest:
        raise InputError(
            f"full_gaussian: the covariance is not positive definite, smallest eigenvalue {least:.3g}, largest entry {largest:.3g}: "
            "leave out the directions that have no variance"
        )
    return MultivariateNormal(loc, covariance_matrix=covariance, validate_args=False)
