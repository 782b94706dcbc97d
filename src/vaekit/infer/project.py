r"""Projections of a density onto the Gaussians, and KLs between densities, by quadrature in one to three dimensions.

.. math:: \arg\min_q KL(p \| q) = N(E_p[z], \mathrm{Cov}_p[z]), \qquad KL(q \| p) = \int q(z) \log \frac{q(z)}{p(z)} \, dz

The inclusive (forward) direction KL(p || q) is minimised among Gaussians by the moments of p: q covers the mass of p, and averages its
modes. The exclusive (reverse) one, KL(q || p), that of variational inference, punishes q where p is small: q seeks one mode and is
forced to zero elsewhere; ``vaekit.infer.fit.fit_density`` minimises it.

Bishop, "Pattern Recognition and Machine Learning", 2006, section 10.1.2; Minka, "Divergence measures and message passing", 2005.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from vaekit.errors import InputError

__all__ = ["TrapezoidRule", "kl_by_quadrature", "moment_match"]

LARGEST = 20_000_000
LOST = 1e-9
"""The largest share of a density's mass that may lie on a rule's outermost nodes."""


@dataclass(frozen=True)
class TrapezoidRule:
    """Equally spaced nodes on a box: for smooth densities that vanish at its walls the error falls exponentially with their number.

    Attributes:
        low: the box's lower corner, one number per dimension.
        high: its upper corner.
        points: nodes per dimension.

    Raises:
        InputError: an empty box, corners of unlike dimension, fewer than 3 nodes, or more than 20 million in all.

    >>> rule = TrapezoidRule((-8.0,), (8.0,), 81)
    >>> rule.nodes.shape, rule.log_integral(-0.5 * rule.nodes[:, 0] ** 2).exp() / math.sqrt(2 * math.pi)
    (torch.Size([81, 1]), tensor(1., dtype=torch.float64))
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    points: int

    def __post_init__(self) -> None:
        if not self.low or len(self.low) != len(self.high) or not all(a < b for a, b in zip(self.low, self.high, strict=True)):
            raise InputError(f"TrapezoidRule(low={self.low}, high={self.high}): give one number per dimension, each low below its high")
        if self.points < 3 or self.points ** len(self.low) > LARGEST:
            raise InputError(f"TrapezoidRule(points={self.points}) in {len(self.low)} dimensions: at least 3, and {LARGEST:,} nodes in all")

    @property
    def steps(self) -> tuple[float, ...]:
        """The nodes' distance in each dimension."""
        return tuple((b - a) / (self.points - 1) for a, b in zip(self.low, self.high, strict=True))

    @property
    def nodes(self) -> Tensor:
        """``[N, D]`` float64, the last dimension running fastest."""
        lines = [torch.linspace(a, b, self.points, dtype=torch.float64) for a, b in zip(self.low, self.high, strict=True)]
        return torch.cartesian_prod(*lines).reshape(-1, len(lines))

    def log_integral(self, log_f: Tensor) -> Tensor:
        """log of the integral of f, nats, from ``log_f`` at the nodes ``[N]``. At the walls f is taken to vanish: every node weighs the
        same."""
        return torch.logsumexp(log_f, 0) + sum(math.log(h) for h in self.steps)

    def normalised(self, log_density: Callable[[Tensor], Tensor]) -> Tensor:
        """log p at the nodes ``[N]``, float64, with p normalised over the box.

        Raises:
            InputError: log p is of another shape, NaN, nowhere finite, or leaves mass at the walls, where the box cuts it off.
        """
        with torch.no_grad():
            log_p = log_density(self.nodes).double()
        n = self.points ** len(self.low)
        if log_p.shape != (n,):
            raise InputError(f"log_density gave shape {list(log_p.shape)} for nodes [{n}, {len(self.low)}]: it must give [{n}]")
        total = self.log_integral(log_p)
        if not total.isfinite():
            raise InputError("the density is zero at every node, or NaN or infinite at some: its integral over the box is no finite number")
        log_p = log_p - total
        shape = (self.points,) * len(self.low)
        inside = log_p.reshape(shape)[(slice(1, -1),) * len(shape)].flatten()
        lost = 1 - float(self.log_integral(inside).exp())
        if lost > LOST:
            raise InputError(f"{lost:.2g} of the density's mass lies on the outermost nodes: the box {self.low} to {self.high} cuts it off")
        return log_p


def moment_match(log_density: Callable[[Tensor], Tensor], rule: TrapezoidRule) -> MultivariateNormal:
    """argmin over Gaussians q of KL(p || q): the mean and covariance of p. The diagonal Gaussian that minimises it has their diagonal.

    Args:
        log_density: z ``[N, D]`` float64 -> log p(z) ``[N]``, up to a constant (nats).
        rule: nodes that cover p.

    Raises:
        InputError: a density that the rule cannot integrate (`TrapezoidRule.normalised`), or narrower than the distance of its nodes.

    >>> p = MultivariateNormal(torch.tensor([1.0, 0.0]).double(), torch.tensor([[1.0, 0.5], [0.5, 1.0]]).double())
    >>> moment_match(p.log_prob, TrapezoidRule((-8.0, -9.0), (10.0, 9.0), 61)).covariance_matrix
    tensor([[1.0000, 0.5000], [0.5000, 1.0000]], dtype=torch.float64)
    """
    z = rule.nodes
    w = rule.normalised(log_density).softmax(0).unsqueeze(-1)
    mean = (w * z).sum(0)
    centred = z - mean
    covariance = (w * centred).mT @ centred
    narrow = float((torch.linalg.eigvalsh(covariance)[0].clamp(min=0)).sqrt()) / max(rule.steps)
    if narrow < 0.8:
        raise InputError(
            f"the density's smallest standard deviation is {narrow:.2g} of the nodes' distance {max(rule.steps):.3g}: use more points, "
            "or a smaller box"
        )
    return MultivariateNormal(mean, covariance)


def kl_by_quadrature(log_q: Callable[[Tensor], Tensor], log_p: Callable[[Tensor], Tensor], rule: TrapezoidRule) -> float:
    """KL(q || p) in nats of two densities that need not be normalised, over a box that holds both.

    Args:
        log_q: z ``[N, D]`` float64 -> log q(z) ``[N]``, up to a constant; the density over which the mean is taken.
        log_p: as ``log_q``.
        rule: nodes that cover both.

    Raises:
        InputError: a density that the rule cannot integrate (`TrapezoidRule.normalised`).

    >>> q, p = torch.distributions.Normal(0, 1), torch.distributions.Normal(1, 2)
    >>> kl = kl_by_quadrature(lambda z: q.log_prob(z[:, 0]), lambda z: p.log_prob(z[:, 0]), TrapezoidRule((-20.0,), (20.0,), 401))
    >>> abs(kl - torch.distributions.kl_divergence(q, p).item()) < 1e-6
    True
    """
    a, b = rule.normalised(log_q), rule.normalised(log_p)
    terms = torch.where(a == -math.inf, torch.zeros_like(a), a.exp() * (a - b))
    return float(terms.sum()) * math.prod(rule.steps)
