r"""Disentangling by the total correlation of the aggregate posterior q(z) = (1/N) sum_j q(z | x_j): beta-TC-VAE and FactorVAE.

.. math:: E_x KL(q(z | x) \| p(z)) = \underbrace{E \log \frac{q(z | x)}{q(z)}}_{\text{mutual information}}
          + \underbrace{E \log \frac{q(z)}{\prod_d q(z_d)}}_{\text{total correlation}}
          + \underbrace{E \log \frac{\prod_d q(z_d)}{p(z)}}_{\text{dimension-wise KL}}

Both weigh the total correlation more than the rest. The first estimates log q(z) from the posteriors of the minibatch, the second the ratio
q(z) / prod_d q(z_d) by a discriminator. The reported bound is the ELBO all the same.

Chen, Li, Grosse and Duvenaud, "Isolating Sources of Disentanglement in Variational Autoencoders", NeurIPS 2018; Kim and Mnih,
"Disentangling by Factorising", ICML 2018.
"""

from __future__ import annotations

import math
from numbers import Integral

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal
from torch.func import functional_call
from torch.nn.functional import softplus

from vaekit.dist import DiagGaussian, describe
from vaekit.errors import InputError
from vaekit.models.core import LatentModel, Trace
from vaekit.models.picks import Level
from vaekit.objectives.core import Loss, Objective, terms
from vaekit.objectives.schedules import Schedule, as_schedule
from vaekit.types import Batch

__all__ = ["BetaTC", "FactorVAE", "log_marginals", "pairwise", "permuted"]


class BetaTC(Objective):
    r"""beta-TC-VAE: surrogate = -log p(x | z) + alpha MI + beta TC + gamma KL_dim, each term at z ~ q(z | x), one sample an example.

    log q(z_i) and log q(z_id) are estimated from the minibatch of B examples out of N, by default with equal weights 1 / (N B) (minibatch
    weighted sampling), else stratified: 1 / N for x_i and (N - 1) / (N (B - 1)) for each other example, without bias for q(z) and exact
    where B = N. (The paper's stratified weights depend on the order of the minibatch; these are their mean over all orders.) Equal weights
    count x_i itself N / B times too often: at B = N they give log q(z) and each log q(z_d) less log N, so that MI is too large by log N, TC
    by (D - 1) log N, and KL_dim too small by D log N. ``logs``' mi, tc and dim_kl are thus estimates at this B, of which the sum alone is
    the rate whatever B; `vaekit.evaluate.posterior_correlation` has the exact TC. With all weights 1 this is the ELBO with a sampled KL.
    Memory is B^2 D numbers.

    Args:
        dataset_size: N, the number of training examples: there is no default, because the estimate is another one with another N.
        beta: weight of the total correlation, a number or a schedule, as the other two.
        alpha: weight of the mutual information.
        gamma: weight of the dimension-wise KL.
        stratified: stratified weights.

    Raises:
        InputError: a dataset size that is none, a weight below 0; at the call, several levels, a posterior that is no diagonal Gaussian, or
            a batch larger than the data set.

    >>> from vaekit import Conditional, VAE, heads, priors
    >>> _ = torch.manual_seed(0)
    >>> model = VAE(
    ...     priors.StandardNormal(2),
    ...     Conditional(torch.nn.Linear(6, 4), heads.Gaussian(2)),
    ...     Conditional(torch.nn.Linear(2, 6), heads.Bernoulli(6)),
    ... )
    >>> loss = BetaTC(1000, 6.0)(model, Batch(torch.ones(8, 6)))
    >>> loss.bound.shape, sorted(loss.logs)
    (torch.Size([8]), ['dim_kl', 'log_px', 'mi', 'rate_0', 'tc'])
    """

    compiles = True

    def __init__(
        self,
        dataset_size: int,
        beta: float | Schedule,
        *,
        alpha: float | Schedule = 1.0,
        gamma: float | Schedule = 1.0,
        stratified: bool = False,
    ) -> None:
        super().__init__()
        self.dataset_size = _rows(dataset_size)
        self.alpha = weight("BetaTC", "alpha", alpha)
        self.beta = weight("BetaTC", "beta", beta)
        self.gamma = weight("BetaTC", "gamma", gamma)
        self.stratified = stratified
        self.schedules = (self.alpha, self.beta, self.gamma)

    def forward(self, model: LatentModel, batch: Batch, step: int = 0) -> Loss:
        t = model.infer(batch)
        level = only_level("BetaTC", t)
        q = diagonal("BetaTC", level.q)
        if batch.size > self.dataset_size:
            raise InputError(
                f"BetaTC(dataset_size={self.dataset_size}): this batch has {batch.size} examples; give the size of the data set"
            )
        z = level.z[0].flatten(1)
        log_weights = self._log_weights(batch.size, z)
        log_qz, log_qz_d = log_marginals(pairwise(q, z), log_weights)
        log_q, log_px = t.log_qz[0], t.log_px
        mi, tc, dim_kl = log_q - log_qz, log_qz - log_qz_d, log_qz_d - level.log_p[0]
        surrogate = self.alpha(step) * mi + self.beta(step) * tc + self.gamma(step) * dim_kl - log_px[0]
        logs = {"mi": mi.detach(), "tc": tc.detach(), "dim_kl": dim_kl.detach()}
        return Loss(surrogate, elbo(t, log_px), terms(log_px, rate(t)) | logs)

    def _log_weights(self, b: int, like: Tensor) -> Tensor:
        """log of x_j's weight in the estimate of q(z_i), ``[B, B]``."""
        n = self.dataset_size
        if not self.stratified or b == 1:  # one example has no others: the estimate is the part of q(z) that it knows
            return like.new_full((b, b), -math.log(n * b))
        others = (n - 1) / (n * (b - 1))
        return like.new_full((b, b), math.log(others)).fill_diagonal_(-math.log(n))


class FactorVAE(Objective):
    r"""surrogate = -ELBO + gamma logit(z) + the discriminator's loss; E logit(z) is the total correlation once that is at its least.

    .. math:: \mathrm{logit}(z) \approx \log \frac{q(z)}{\prod_d q(z_d)}, \qquad
              \text{discriminator: } \tfrac12 \left( \log(1 + e^{-\mathrm{logit}(z)}) + \log(1 + e^{\mathrm{logit}(\bar z)}) \right)

    z_bar is the batch's z with every dimension permuted on its own among the examples. The discriminator learns in the same backward pass,
    as part of the objective, with the model's optimiser; its loss does not reach the model, nor gamma logit(z) the discriminator. The paper
    takes z_bar from a second batch; here it comes from the same one, where a fraction 1 / B of the pairs stays together. ``logs`` add
    ``tc``, the mean logit, which lies below the total correlation until the discriminator has learnt it, and ``discriminator``, its loss
    (log 2 = 0.69 where it tells nothing apart).

    Args:
        discriminator: z ``[B, D]`` -> one logit an example, ``[B]`` or ``[B, 1]``; no batch normalisation, which would mix z and z_bar.
        gamma: weight of the total correlation, a number or a schedule.

    Raises:
        InputError: a discriminator that is no module or gives other than one number an example, a weight below 0; at the call, several
            levels.

    >>> from vaekit import Conditional, VAE, heads, nn, priors
    >>> _ = torch.manual_seed(0)
    >>> model = VAE(
    ...     priors.StandardNormal(2),
    ...     Conditional(torch.nn.Linear(6, 4), heads.Gaussian(2)),
    ...     Conditional(torch.nn.Linear(2, 6), heads.Bernoulli(6)),
    ... )
    >>> loss = FactorVAE(nn.mlp(2, [16, 16], 1), 35.0)(model, Batch(torch.ones(8, 6)))
    >>> loss.bound.shape, sorted(loss.logs)
    (torch.Size([8]), ['discriminator', 'log_px', 'rate_0', 'tc'])
    """

    def __init__(self, discriminator: nn.Module, gamma: float | Schedule) -> None:
        super().__init__()
        if not isinstance(discriminator, nn.Module):
            raise InputError(
                f"FactorVAE(discriminator={discriminator!r}) is no module: give a network from z to one logit, nn.mlp(D, [...], 1)"
            )
        self.discriminator = discriminator
        self.gamma = weight("FactorVAE", "gamma", gamma)
        self.schedules = (self.gamma,)

    def forward(self, model: LatentModel, batch: Batch, step: int = 0) -> Loss:
        t = model.infer(batch)
        z = only_level("FactorVAE", t).z[0].flatten(1)
        held = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        tc = self._logit(functional_call(self.discriminator, held, (z,)), batch.size)
        both = self._logit(self.discriminator(torch.cat([z.detach(), permuted(z.detach())])), 2 * batch.size)
        told = 0.5 * (softplus(-both[: batch.size]) + softplus(both[batch.size :]))
        log_px, kl = t.log_px, rate(t)
        surrogate = (kl.sum(-1) - log_px).mean(0) + self.gamma(step) * tc + told
        return Loss(surrogate, elbo(t, log_px), terms(log_px, kl) | {"tc": tc.detach(), "discriminator": told.detach()})

    def _logit(self, logit: Tensor, n: int) -> Tensor:
        if logit.shape not in ((n,), (n, 1)):
            raise InputError(
                f"FactorVAE: the discriminator gives {list(logit.shape)} for {n} codes: it must give one logit each, [B] or [B, 1]"
            )
        return logit.reshape(n)


def _rows(n: object) -> int:
    if isinstance(n, bool) or not isinstance(n, Integral) or n < 1:
        raise InputError(f"BetaTC(dataset_size={n!r}): give the number of training examples, len(data.train)")
    return int(n)


def pairwise(q: DiagGaussian, z: Tensor) -> Tensor:
    """log q(z_id | x_jd) of R codes z ``[R, D]`` under each of N posteriors, dimension by dimension, ``[R, N, D]``.

    >>> pairwise(DiagGaussian(torch.zeros(3, 2), torch.zeros(3, 2)), torch.zeros(5, 2)).shape
    torch.Size([5, 3, 2])
    """
    loc, log_scale = q.mean.flatten(1), q.log_scale.expand(q.mean.shape).flatten(1)
    distance = (z.unsqueeze(1) - loc) * torch.exp(-log_scale)
    return -0.5 * distance.square() - (log_scale + 0.5 * math.log(2 * math.pi))


def log_marginals(log_q: Tensor, log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """log q(z_i) and sum_d log q(z_id), ``[R]`` nats each, from ``log_q`` of `pairwise` ``[R, N, D]`` and the
    mixture's ``log_weights`` ``[R or 1, N]``."""
    joint = (log_q.sum(-1) + log_weights).logsumexp(1)
    return joint, (log_q + log_weights.unsqueeze(-1)).logsumexp(1).sum(-1)


def permuted(z: Tensor) -> Tensor:
    """z ``[B, D]`` with each dimension in an order of its own: a sample of prod_d q(z_d), where z is one of q(z)."""
    return z.gather(0, torch.rand_like(z).argsort(0))


def weight(objective: str, name: str, value: float | Schedule) -> Schedule:
    """A weight of a penalty, as a schedule.

    Raises:
        InputError: a number below 0, with which the surrogate would reward what it is to punish.
    """
    if isinstance(value, int | float) and not 0 <= value < math.inf:
        raise InputError(f"{objective}({name}={value}): a weight is 0 or more and finite; below 0 it rewards what it is there to punish")
    return as_schedule(value)


def only_level(objective: str, t: Trace) -> Level:
    """The one level of a flat model.

    Raises:
        InputError: there are several.
    """
    if len(t.levels) != 1:
        raise InputError(
            f"{objective}: the model has {len(t.levels)} levels, and the aggregate posterior is compared for one: use a flat VAE"
        )
    return t.levels[0]


def diagonal(objective: str, q: Distribution | None) -> DiagGaussian:
    """A posterior whose dimensions are independent Gaussians, each with a density of its own.

    Raises:
        InputError: it is another.
    """
    if isinstance(q, DiagGaussian):
        return q
    if isinstance(q, Independent) and isinstance(q.base_dist, Normal):
        return DiagGaussian(q.base_dist.loc, q.base_dist.scale.log(), len(q.event_shape))
    what = "none" if q is None else describe(q)
    raise InputError(
        f"{objective} needs a density for each dimension of z, and q(z | x) is {what}: use a diagonal Gaussian, heads.Gaussian"
    )


def rate(t: Trace) -> Tensor:
    """The KL in closed form, or where there is none sampled, ``[K or 1, B, L]``."""
    kl = t.kl
    return t.rate if kl is None else kl


def elbo(t: Trace, log_px: Tensor) -> Tensor:
    """The ELBO, ``[B]``, detached: what is reported whatever is minimised."""
    return (log_px - rate(t).sum(-1)).mean(0).detach()
