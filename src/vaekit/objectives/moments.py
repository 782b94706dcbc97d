r"""Penalties on the aggregate posterior q(z) = E_x q(z | x) as a whole: on its covariance (DIP-VAE), its distance from the prior (InfoVAE).

Both are statistics of a batch and no means over its examples. What an example's surrogate carries is said with each; the mean over the
batch is the batch's value, and the reported bound is the ELBO.

Kumar, Sattigeri and Balakrishnan, "Variational Inference of Disentangled Latent Concepts from Unlabeled Observations", ICLR 2018;
Zhao, Song and Ermon, "InfoVAE: Balancing Learning and Inference in Variational Autoencoders", AAAI 2019.
"""

from __future__ import annotations

import abc
import math

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, MultivariateNormal

from vaekit.dist import draw
from vaekit.errors import InputError
from vaekit.models.core import LatentModel
from vaekit.objectives.core import Loss, Objective, terms
from vaekit.objectives.schedules import Schedule
from vaekit.objectives.tc import diagonal, elbo, only_level, rate, weight
from vaekit.types import Batch

__all__ = ["DIPVAE", "IMQ", "RBF", "InfoVAE", "MMDKernel", "mmd"]


class DIPVAE(Objective):
    r"""surrogate = -ELBO + off_diagonal sum_{i != j} C_ij^2 + diagonal sum_i (C_ii - 1)^2, with C a covariance of the batch.

    .. math:: \text{DIP-VAE-I: } C = \mathrm{Cov}_x[\mu(x)], \qquad
              \text{DIP-VAE-II: } C = \mathrm{Cov}_x[\mu(x)] + E_x[\Sigma(x)] = \mathrm{Cov}_{q(z)}[z]

    for q(z | x) with mean mu and covariance Sigma; Cov divides by B. The target I is the covariance of the prior N(0, I). The penalty of
    the batch stands in every example. ``logs`` add it as ``penalty``.

    Args:
        off_diagonal: weight of the covariances, a number or a schedule.
        diagonal: weight of the variances' distance from 1; the paper takes 10 times ``off_diagonal`` for I and 1 times for II.
        second: DIP-VAE-II.

    Raises:
        InputError: a weight below 0; at the call, several levels, or a posterior that is no Gaussian.

    >>> from vaekit import Conditional, VAE, heads, priors
    >>> _ = torch.manual_seed(0)
    >>> model = VAE(
    ...     priors.StandardNormal(2),
    ...     Conditional(torch.nn.Linear(6, 4), heads.Gaussian(2)),
    ...     Conditional(torch.nn.Linear(2, 6), heads.Bernoulli(6)),
    ... )
    >>> loss = DIPVAE(10.0, 100.0)(model, Batch(torch.ones(8, 6)))  # equal examples have equal means: C = 0
    >>> loss.logs["penalty"][0]
    tensor(200.)
    """

    def __init__(self, off_diagonal: float | Schedule, diagonal: float | Schedule, *, second: bool = False) -> None:
        super().__init__()
        self.off_diagonal = weight("DIPVAE", "off_diagonal", off_diagonal)
        self.diagonal = weight("DIPVAE", "diagonal", diagonal)
        self.second = second
        self.schedules = (self.off_diagonal, self.diagonal)

    def forward(self, model: LatentModel, batch: Batch, step: int = 0) -> Loss:
        t = model.infer(batch)
        mean, covariance = _moments(only_level("DIPVAE", t).q)
        centred = mean - mean.mean(0)
        c = centred.mT @ centred / batch.size
        if self.second:
            c = c + covariance
        variances = c.diagonal()
        off = c.square().sum() - variances.square().sum()
        penalty = self.off_diagonal(step) * off + self.diagonal(step) * (variances - 1).square().sum()
        log_px, kl = t.log_px, rate(t)
        surrogate = (kl.sum(-1) - log_px).mean(0) + penalty
        return Loss(surrogate, elbo(t, log_px), terms(log_px, kl) | {"penalty": penalty.detach().expand(batch.size)})


def _moments(q: Distribution | None) -> tuple[Tensor, Tensor]:
    """The means of B Gaussian posteriors, ``[B, D]``, and the mean of their covariances, ``[D, D]``."""
    if isinstance(q, MultivariateNormal):
        return q.loc, q.covariance_matrix.mean(0)
    flat = diagonal("DIPVAE", q)
    return flat.mean.flatten(1), flat.variance.flatten(1).mean(0).diag()


class MMDKernel(nn.Module, abc.ABC):
    """k(a, b) of squared distances. Implementing an MMDKernel: write ``forward``, for a k that is positive definite."""

    @abc.abstractmethod
    def forward(self, square: Tensor, d: int) -> Tensor:
        """k, of squared distances |a - b|^2 of points with d dimensions, in the shape of ``square``."""


class RBF(MMDKernel):
    """exp(-|a - b|^2 / (2 h^2)).

    Args:
        bandwidth: h, positive.

    Raises:
        InputError: ``bandwidth`` is not positive.

    >>> RBF(1.0)(torch.tensor([0.0, 2.0]), 5)
    tensor([1.0000, 0.3679])
    """

    def __init__(self, bandwidth: float) -> None:
        super().__init__()
        self.bandwidth = _positive("RBF", "bandwidth", bandwidth)

    def forward(self, square: Tensor, d: int) -> Tensor:
        return torch.exp(-square / (2 * self.bandwidth**2))


class IMQ(MMDKernel):
    """c / (c + |a - b|^2) with c = 2 d s^2, the expected squared distance of two points of N(0, s^2 I): heavy tails, so that far codes
    have a gradient (Tolstikhin et al., "Wasserstein Auto-Encoders", ICLR 2018).

    Args:
        scale: s, positive: 1 for the prior N(0, I).

    Raises:
        InputError: ``scale`` is not positive.

    >>> IMQ()(torch.tensor([0.0, 10.0]), 5)
    tensor([1.0000, 0.5000])
    """

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = _positive("IMQ", "scale", scale)

    def forward(self, square: Tensor, d: int) -> Tensor:
        c = 2 * d * self.scale**2
        return c / (c + square)


def _positive(name: str, setting: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise InputError(f"{name}({setting}={value}): a length in latent space is positive and finite; 1 is that of N(0, I)")
    return float(value)


class InfoVAE(Objective):
    r"""surrogate = -log p(x | z) + (1 - alpha) KL(q(z|x) || p(z)) + (alpha + lambda - 1) MMD^2(q(z), p(z)).

    alpha = 0 and lambda = 1 leave the ELBO; alpha = 1 takes no account of the mutual information of x and z. MMD^2 is `mmd` of the batch's
    z, one sample an example, and as many samples of the prior, which the term does not train. An example's share is its row of the
    U-statistic; a batch of one example has none. ``logs`` add it as ``mmd``, without its weight.

    Args:
        alpha: at most 1.
        lambda_: the paper's lambda, at least 1 - alpha.
        kernel: `RBF`, `IMQ` or another `MMDKernel`; None for ``IMQ()``.

    Raises:
        InputError: weights of the KL or of the MMD below 0; a kernel that is none; at the call, several levels.

    >>> from vaekit import Conditional, VAE, heads, priors
    >>> _ = torch.manual_seed(0)
    >>> model = VAE(
    ...     priors.StandardNormal(2),
    ...     Conditional(torch.nn.Linear(6, 4), heads.Gaussian(2)),
    ...     Conditional(torch.nn.Linear(2, 6), heads.Bernoulli(6)),
    ... )
    >>> loss = InfoVAE(alpha=1.0, lambda_=500.0)(model, Batch(torch.ones(8, 6)))
    >>> loss.bound.shape, sorted(loss.logs)
    (torch.Size([8]), ['log_px', 'mmd', 'rate_0'])
    """

    def __init__(self, alpha: float, lambda_: float, *, kernel: MMDKernel | None = None) -> None:
        super().__init__()
        if not (alpha <= 1 and alpha + lambda_ >= 1):
            raise InputError(
                f"InfoVAE(alpha={alpha}, lambda_={lambda_}): 1 - alpha weighs the KL and alpha + lambda_ - 1 the MMD: "
                "both must be 0 or more"
            )
        if kernel is not None and not isinstance(kernel, MMDKernel):
            raise InputError(f"InfoVAE(kernel={kernel!r}) is no kernel: use RBF(bandwidth), IMQ() or another MMDKernel")
        self.alpha = float(alpha)
        self.lambda_ = float(lambda_)
        self.kernel = IMQ() if kernel is None else kernel

    def forward(self, model: LatentModel, batch: Batch, step: int = 0) -> Loss:
        t = model.infer(batch)
        level = only_level("InfoVAE", t)
        z = level.z[0].flatten(1)
        prior, _ = draw(level.p, torch.Size((batch.size,)[: 1 - len(level.p.batch_shape)]), False)
        share = mmd(z, prior.detach().flatten(1), self.kernel)
        log_px, kl = t.log_px, rate(t)
        surrogate = ((1 - self.alpha) * kl.sum(-1) - log_px).mean(0) + (self.alpha + self.lambda_ - 1) * share
        return Loss(surrogate, elbo(t, log_px), terms(log_px, kl) | {"mmd": share.detach()})


def mmd(a: Tensor, b: Tensor, kernel: MMDKernel) -> Tensor:
    r"""Each example's row of the unbiased estimate of MMD^2 between the distributions of a and b, ``[B, D]`` each,
    by ``kernel``; their mean is it.

    .. math:: \mathrm{MMD}^2 = \frac{1}{B (B - 1)} \sum_{i \ne j} \left( k(a_i, a_j) + k(b_i, b_j) \right)
              - \frac{2}{B^2} \sum_{i, j} k(a_i, b_j)

    Row i has the k(a_i, a_j), the k(b_i, b_j), and half of the k(a_i, b_j) and of the k(a_j, b_i). 0 for one example.

    Gretton, Borgwardt, Rasch, Schoelkopf and Smola, "A Kernel Two-Sample Test", JMLR 2012, eq. 3.

    >>> a = torch.tensor([[0.0], [1.0], [2.0]])
    >>> mmd(a, a, RBF(1.0)).mean()
    tensor(-0.3670)
    """
    n, d = a.shape
    if n == 1:
        return a.new_zeros(1) * a.sum()  # no pair, no gradient, the same names
    aa, bb, ab = (kernel(_square(x, y), d) for x, y in ((a, a), (b, b), (a, b)))
    within = (aa + bb).sum(1) - aa.diagonal() - bb.diagonal()
    return within / (n - 1) - (ab.sum(1) + ab.sum(0)) / n


def _square(a: Tensor, b: Tensor) -> Tensor:
    """|a_i - b_j|^2, as differences: a difference of products loses the digits of near points."""
    return (a.unsqueeze(1) - b).square().sum(-1)
