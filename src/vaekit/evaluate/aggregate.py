r"""The posteriors of a data set taken together: how much they tell of x, and how far their mixture lies from the prior.

.. math:: q(z) = \frac1N \sum_j q(z | x_j), \qquad
          \underbrace{E \log \frac{q(z|x)}{p(z)}}_{\text{rate}} =
          \underbrace{E \log \frac{q(z|x)}{q(z)}}_{I_q(x; z)} + \underbrace{E \log \frac{q(z)}{p(z)}}_{KL(q(z) \| p(z))}

with x uniform over the N examples, so that the mutual information is at most log N. All three are means over the same draws
z ~ q(z | x_i), so that they add up to the last bits, and the mixture has all N components. Chen et al. estimate log q(z) from a minibatch
of M examples, z's own x_i and M - 1 others, which is all that a training step has:

.. math:: \text{weighted (MWS):} \; \frac{1}{N M} \sum_{j \in \text{batch}} q(z | x_j), \qquad
          \text{stratified (MSS):} \; \frac1N q(z | x_i) + \frac{N - 1}{N (M - 1)} \sum_{j \ne i} q(z | x_j)

MSS, without bias for q(z), is the mean of the paper's over the orders of the minibatch, whose last example weighs otherwise than the rest.
The logarithm makes of either a biased estimate of log q(z).

Hoffman and Johnson, "ELBO surgery", NIPS workshop 2016; Chen, Li, Grosse and Duvenaud, "Isolating Sources of Disentanglement in
Variational Autoencoders", NeurIPS 2018.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaekit.dist import Certain, DiagGaussian
from vaekit.errors import InputError

__all__ = ["Aggregate", "aggregate", "bhattacharyya", "cross_log_prob", "mss", "mws"]

CHUNK = 1_000_000
"""Densities q(z_i | x_j) made at a time, 8 MB; of distributions without a fast path, numbers in the shape of z."""
PAIRED = 500
"""Examples, at most, whose posteriors are compared pair by pair."""
PRECISE = 1e-5
"""Nats of rounding error that a matrix product may bring into a Gaussian's log-density; beyond it differences are taken."""


@dataclass(frozen=True)
class Aggregate:
    """What `aggregate` found, nats; ``_se`` is the standard error of the mean over the N examples.

    Attributes:
        examples: N; the mixture has as many components.
        samples: z drawn from each posterior.
        rate: mean log q(z | x) - log p(z); ``rate = mutual_information + gap``.
        mutual_information: I_q(x; z), at most `ceiling`.
        gap: KL(q(z) || p(z)) of the mixture of these N posteriors. Where the mutual information is at its ceiling it is that of N spikes,
            and falls as N grows.
        weighted: the mutual information by MWS, which is too large: log N for equal posteriors, log N + log M for distant ones.
        stratified: the mutual information by MSS.
        minibatch: M of the last two.
        overlap: mean over pairs of examples of the Bhattacharyya coefficient of their posteriors, 0 (apart) to 1 (equal), over at most 500
            examples; None where the posteriors are no diagonal Gaussians.
        nearest: the same between each example and the one whose posterior is most like its own.
    """

    examples: int
    samples: int
    rate: float
    rate_se: float
    mutual_information: float
    mutual_information_se: float
    gap: float
    gap_se: float
    weighted: float
    stratified: float
    minibatch: int
    overlap: float | None
    nearest: float | None

    @property
    def ceiling(self) -> float:
        """log N: no N posteriors can tell more than which of the N examples it was."""
        return math.log(self.examples)


@torch.no_grad()
def aggregate(posteriors: Sequence[Distribution], z: Tensor, log_p: Tensor, *, minibatch: int = 100, seed: int = 0) -> Aggregate:
    """`Aggregate` of N posteriors and their samples. Memory is bounded: N^2 densities are made, a few million at a time.

    Args:
        posteriors: q(z | x_j), each of batch shape ``[n]``, N in all.
        z: ``[S, N, *]``, drawn from them in this order.
        log_p: log p(z), ``[S, N]``.
        minibatch: M of the minibatch estimators; N where there are fewer.
        seed: of the minibatches, and of the examples that are compared in pairs.

    Raises:
        InputError: fewer than 2 examples, or another number of samples than of posteriors; a minibatch below 2; a posterior that cannot
            give the density of a point that is not its own sample (a flow without inverse).

    >>> q = DiagGaussian(torch.tensor([[-9.0], [9.0]]), torch.zeros(2, 1))
    >>> z = q.mean.unsqueeze(0)
    >>> found = aggregate([q], z, DiagGaussian(torch.zeros(1), torch.zeros(1)).log_prob(z))
    >>> found.rate, found.mutual_information, found.gap, found.overlap
    (40.5, 0.6931, 39.8069, 0.0)
    """
    s, n = z.shape[:2]
    if n != sum(q.batch_shape[0] for q in posteriors) or log_p.shape != (s, n):
        raise InputError(f"{list(z.shape[:2])} samples, log p {list(log_p.shape)}: both must be [S, N] with N the number of posteriors")
    if n < 2 or minibatch < 2:
        raise InputError(f"{n} examples in minibatches of {minibatch}: a mixture of posteriors needs at least 2 of them")
    m = min(minibatch, n)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).to(z.device)
    members = torch.stack([order.roll(-k) for k in range(m)], -1)[order.argsort()]  # [N, M]: i first, then those that follow it at random
    flat = z.flatten(0, 1)
    pairs = _overlap(posteriors, order[:PAIRED])
    posteriors, flat = _numbered(posteriors, flat)
    found = []
    for rows in torch.arange(s * n, device=z.device).split(_rows(posteriors, n)):
        log_q = cross_log_prob(posteriors, flat[rows])
        log_batch = log_q.gather(1, members[rows % n])
        found.append(torch.stack([log_batch[:, 0], log_q.logsumexp(1) - math.log(n), mws(log_batch, n), mss(log_batch, n)], -1))
    own, mixture, weighted, stratified = torch.cat(found).unflatten(0, (s, n)).mean(0).unbind(-1)
    prior = log_p.double().mean(0)
    rate, information, gap = (_mean(v) for v in (own - prior, own - mixture, mixture - prior))
    by_batch = float((own - weighted).mean()), float((own - stratified).mean())
    return Aggregate(n, s, *rate, *information, *gap, *by_batch, m, *pairs)


def mws(log_q: Tensor, n: int) -> Tensor:
    """log of the minibatch-weighted estimate of q(z), nats ``[*]``, from ``log_q``, log q(z | x_j) of the minibatch, ``[*, M]``, z's own
    x first; n examples in all."""
    return log_q.logsumexp(-1) - math.log(n * log_q.shape[-1])


def mss(log_q: Tensor, n: int) -> Tensor:
    """log of the stratified estimate of q(z), nats ``[*]``, from ``log_q``, log q(z | x_j) of the minibatch, ``[*, M]``, z's own x first; n
    examples in all.

    >>> mss(torch.tensor([[0.0, 0.0, 0.0]]), n=10)  # equal posteriors: the weights add up to 1
    tensor([0.])
    """
    m = log_q.shape[-1]
    others = log_q[..., 1:].logsumexp(-1) + math.log((n - 1) / (n * (m - 1)))
    return torch.logaddexp(log_q[..., 0] - math.log(n), others)


def cross_log_prob(posteriors: Sequence[Distribution], z: Tensor) -> Tensor:
    """log q(z_i | x_j), nats, float64 ``[R, N]``, of points z ``[R, *]`` under N posteriors."""
    gaussians = [q for q in posteriors if isinstance(q, DiagGaussian)]
    if len(gaussians) == len(posteriors):
        loc, log_scale = _joined(gaussians)
        return _gaussian(z.flatten(1).double(), loc, log_scale)
    shape = z.shape[1:]
    columns = [q.log_prob(z.unsqueeze(1).expand(len(z), q.batch_shape[0], *shape)) for q in posteriors]
    return torch.cat(columns, 1).double()


def bhattacharyya(q: DiagGaussian, p: DiagGaussian) -> Tensor:
    r"""Coefficients of each of R diagonal Gaussians ``q`` with each of N, ``p``: ``[R, N]``, in [0, 1].

    .. math:: \int \sqrt{q_i(z) p_j(z)} \, dz = \prod_d \frac{1}{\sqrt{\cosh(\log\sigma_i - \log\sigma_j)}}
              \exp\left( -\frac{(\mu_i - \mu_j)^2}{4 (\sigma_i^2 + \sigma_j^2)} \right)

    >>> bhattacharyya(DiagGaussian(torch.zeros(1, 1), torch.zeros(1, 1)), DiagGaussian(torch.tensor([[0.0], [2.0]]), torch.zeros(2, 1)))
    tensor([[1.0000, 0.6065]])
    """
    loc, log_scale = q.mean.flatten(1).unsqueeze(1), q.log_scale.expand(q.mean.shape).flatten(1).unsqueeze(1)
    other_loc, other = p.mean.flatten(1), p.log_scale.expand(p.mean.shape).flatten(1)
    ratio = (log_scale - other).abs()
    log_cosh = ratio + torch.log1p(torch.exp(-2 * ratio)) - math.log(2)
    distance = (loc - other_loc).square() * torch.exp(-torch.logaddexp(2 * log_scale, 2 * other)) / 4
    return (-distance - 0.5 * log_cosh).sum(-1).exp()


def _numbered(posteriors: Sequence[Distribution], z: Tensor) -> tuple[Sequence[Distribution], Tensor]:
    """Point masses as numbers, equal ones where the points are: two codes of thousands of entries are compared by one number."""
    certain = [q for q in posteriors if isinstance(q, Certain)]
    if len(certain) < len(posteriors):
        return posteriors, z
    points = torch.cat([*(q.point for q in certain), z.to(certain[0].point.dtype)]).flatten(1)
    number = torch.unique(points, dim=0, return_inverse=True)[1].unsqueeze(1).double()
    return [Certain(number[: -len(z)])], number[-len(z) :]


def _rows(posteriors: Sequence[Distribution], n: int) -> int:
    """Points whose densities under all posteriors are made at a time."""
    fast = all(isinstance(q, DiagGaussian) for q in posteriors)
    return max(1, CHUNK // (n * (1 if fast else max(1, posteriors[0].event_shape.numel()))))


def _joined(gaussians: Sequence[DiagGaussian]) -> tuple[Tensor, Tensor]:
    """Means and log standard deviations, float64 ``[N, D]``."""
    loc = torch.cat([q.mean.flatten(1) for q in gaussians])
    log_scale = torch.cat([q.log_scale.expand(q.mean.shape).flatten(1) for q in gaussians])
    return loc.double(), log_scale.double()


def _gaussian(z: Tensor, loc: Tensor, log_scale: Tensor) -> Tensor:
    """log N(z_i; mu_j, sigma_j), ``[R, N]``: |z - mu|^2 / sigma^2 as three products where rounding allows it."""
    precision = torch.exp(-2 * log_scale)
    middle = loc.mean(0)  # distances from here are smaller than from 0, and so is what cancels
    a, b = z - middle, loc - middle
    largest = (a.square().max(0).values + b.square().max(0).values) * precision.max(0).values
    if float(largest.sum()) * torch.finfo(z.dtype).eps < PRECISE:
        square = a.square() @ precision.mT - 2 * a @ (b * precision).mT + (b.square() * precision).sum(1)
    else:
        square = torch.stack([((row - loc).square() * precision).sum(1) for row in z])
    return -0.5 * square - (log_scale + 0.5 * math.log(2 * math.pi)).sum(1)


def _overlap(posteriors: Sequence[Distribution], chosen: Tensor) -> tuple[float | None, float | None]:
    """Mean over pairs, and mean over examples of the largest, of the Bhattacharyya coefficients among the chosen examples."""
    gaussians = [q for q in posteriors if isinstance(q, DiagGaussian)]
    if len(gaussians) < len(posteriors):
        return None, None
    loc, log_scale = (t[chosen] for t in _joined(gaussians))
    n, total, largest = len(loc), 0.0, []
    for rows in torch.arange(n, device=loc.device).split(max(1, CHUNK // loc.numel())):
        found = bhattacharyya(DiagGaussian(loc[rows], log_scale[rows]), DiagGaussian(loc, log_scale))
        found[torch.arange(len(rows), device=rows.device), rows] = 0.0  # an example and itself are no pair
        total += float(found.sum())
        largest.append(found.max(1).values)
    return total / (n * (n - 1)), float(torch.cat(largest).mean())


def _mean(values: Tensor) -> tuple[float, float]:
    return float(values.mean()), float(values.std() / math.sqrt(len(values)))
