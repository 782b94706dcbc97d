"""The estimate of log p(x) that the authors of the first VAE paper read their fig. 3 from, bias and all.

.. math:: \\frac{1}{p(x)} = E_{p(z | x)}\\left[ \\frac{q(z)}{p(x, z)} \\right]

Fifty HMC draws of p(z | x) with four leapfrog steps, from a draw of the prior on; a kernel density q is fitted to the first half of the
chain, and the second half gives the mean (their appendix D; details as in their public code, ``hmc_est.py`` of
github.com/dpkingma/anglepy: a burn-in of 5 moves, a step size of each chain's own from .001 on, times e^{+-1.02} after each move, the best
of ten bandwidths). A chain that has not left its start, or sits in one mode of several, makes the mean too large and the estimate too low.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vaekit.models import VAE

__all__ = ["hmc_log_evidence"]

BURN_IN, DRAWS, LEAPFROGS, STEP, RATE = 5, 50, 4, 1e-3, 1.02


def hmc_log_evidence(model: VAE, x: Tensor, *, seed: int = 0) -> Tensor:
    """The estimate for each image, ``[B]`` float64, of a flat model with a N(0, I) prior over few dimensions."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        d = model.prior().event_shape[0]
        z, step = torch.randn(len(x), d), torch.full((len(x), 1), STEP)
        kept: list[tuple[Tensor, Tensor]] = []
        for move in range(BURN_IN + DRAWS):
            z, log_joint, accepted = _move(model, x, z, step)
            step = step * torch.where(accepted, math.exp(RATE), math.exp(-RATE)).unsqueeze(-1)
            if move >= BURN_IN:
                kept.append((z, log_joint))
    zs, log_joints = (torch.stack(values, 1).double() for values in zip(*kept, strict=True))  # [B, draws, d], [B, draws]
    half = DRAWS // 2
    fitted, other = zs[:, :half], zs[:, half:]
    widths = [half ** (-1 / (d + 4)) * math.exp((i - 5) / 2) for i in range(10)]
    chosen = torch.stack([_kde(fitted[:, half // 2 :], fitted[:, : half // 2], w).sum(-1) for w in widths]).argmax(0)
    log_q = torch.stack([_kde(fitted, other, w) for w in widths])[chosen, torch.arange(len(x))]
    return math.log(DRAWS - half) - (log_q - log_joints[:, half:]).logsumexp(1)


def _gradient(model: VAE, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    z = z.detach().requires_grad_()
    log_joint = model.likelihood(z.unsqueeze(0)).log_prob(x)[0] - 0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)
    (gradient,) = torch.autograd.grad(log_joint.sum(), z)
    return log_joint.detach(), gradient


def _move(model: VAE, x: Tensor, z: Tensor, step: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Position, log p(x, z) there and whether the proposal was accepted. Theirs makes one leapfrog step more than it is asked for."""
    momentum = torch.randn_like(z)
    before, gradient = _gradient(model, x, z)
    p, y = momentum + 0.5 * step * gradient, z
    for _ in range(LEAPFROGS + 1):
        y = y + step * p
        after, gradient = _gradient(model, x, y)
        p = p + step * gradient
    p = p - 0.5 * step * gradient
    energy = after - before + 0.5 * (momentum.square() - p.square()).sum(-1)
    accepted = torch.rand(len(z)) < energy.exp()
    return torch.where(accepted.unsqueeze(-1), y, z), torch.where(accepted, after, before), accepted


def _kde(draws: Tensor, at: Tensor, width: float) -> Tensor:
    """log q ``[B, m]`` at ``at [B, m, d]`` of a Gaussian kernel density over ``draws [B, n, d]``."""
    n, d = draws.shape[1:]
    centred = draws - draws.mean(1, keepdim=True)
    tril = width * torch.linalg.cholesky(centred.mT @ centred / (n - 1) + 1e-10 * torch.eye(d, dtype=draws.dtype))
    u = torch.linalg.solve_triangular(tril.unsqueeze(1), (at.unsqueeze(2) - draws.unsqueeze(1)).mT, upper=False)
    log_det = tril.diagonal(dim1=-2, dim2=-1).log().sum(-1, keepdim=True)
    return (-0.5 * u.square().sum(-2)).logsumexp(-1) - math.log(n) - 0.5 * d * math.log(2 * math.pi) - log_det
