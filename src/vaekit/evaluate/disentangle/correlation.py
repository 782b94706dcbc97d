r"""Total correlation: how far the codes are from being independent of each other, in nats.

.. math:: TC(z) = KL\left( q(z) \,\|\, \prod_d q(z_d) \right) = \sum_d H(z_d) - H(z)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vaekit.dist import DiagGaussian
from vaekit.errors import InputError
from vaekit.objectives.tc import log_marginals, pairwise

__all__ = ["gaussian_correlation", "posterior_correlation"]

CHUNK = 4_000_000
"""Densities q(z_id | x_jd) held at a time."""


def gaussian_correlation(z: Tensor) -> float:
    r"""TC of the Gaussian with the covariance of the codes z ``[N, D]``: -1/2 log |R| nats, R the matrix of their correlations.

    It sees linear dependence alone. As in disentanglement_lib, but by correlations, so that the codes' scales do not matter. Codes that do
    not vary are left out; infinite where one code is a linear function of the others.

    Raises:
        InputError: codes that are no matrix of at least 2 rows.

    >>> z = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    >>> gaussian_correlation(z), gaussian_correlation(z @ torch.tensor([[1.0, 1.0], [0.0, 1.0]]))  # -1/2 log(1 - 1/2)
    (0.0, 0.3466)
    """
    if z.dim() != 2 or len(z) < 2:
        raise InputError(f"the codes are {list(z.shape)}: a covariance takes [N, D] with at least 2 rows")
    a = z.double() - z.double().mean(0)
    norm = a.square().sum(0).sqrt()
    varies = z.amax(0) > z.amin(0)  # of a constant code the mean may round, and leave a residue
    a = a[:, varies] / norm[varies]
    eigenvalues = torch.linalg.eigvalsh(a.mT @ a)
    if eigenvalues.numel() and float(eigenvalues[0]) <= len(eigenvalues) * torch.finfo(torch.float64).eps:
        return math.inf
    return max(0.0, -0.5 * float(eigenvalues.log().sum()))


@torch.no_grad()
def posterior_correlation(q: DiagGaussian, *, samples: int = 1, seed: int = 0) -> tuple[float, float]:
    r"""TC of the mixture q(z) = (1/N) sum_j q(z | x_j) of N posteriors, and its standard error, in nats.

    .. math:: TC \approx \frac{1}{SN} \sum_{s, i} \left( \log q(z_{si}) - \sum_d \log q(z_{sid}) \right), \qquad z_{si} \sim q(z | x_i)

    with all N components in each density: nothing is estimated but the mean over z. It is the TC of these N posteriors; of few and narrow
    ones it is large, since N spikes are far from any product: at most (D - 1) log N. Time and memory traffic are S N^2 D.

    Args:
        q: batch shape ``[N]``.
        samples: S of each posterior.
        seed: of the samples.

    Raises:
        InputError: fewer than 2 posteriors, or no sample of each.

    >>> q = DiagGaussian(torch.tensor([[-9.0, -9.0], [9.0, 9.0]]), torch.zeros(2, 2))  # each coordinate tells the other's sign
    >>> posterior_correlation(q)[0]
    0.6931
    """
    n, d = q.mean.flatten(1).shape
    if n < 2 or samples < 1:
        raise InputError(f"{n} posteriors, {samples} samples of each: the aggregate posterior takes at least 2 of them and 1 sample")
    q = DiagGaussian(q.mean.double(), q.log_scale.double())
    eps = torch.randn(samples, n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(q.loc.device)
    z = (q.mean.flatten(1) + q.scale.flatten(1) * eps).flatten(0, 1)
    log_weights = torch.full((1, n), -math.log(n), dtype=torch.float64, device=z.device)
    parts = [log_marginals(pairwise(q, rows), log_weights) for rows in z.split(max(1, CHUNK // (n * d)))]
    tc = torch.cat([joint - product for joint, product in parts]).unflatten(0, (samples, n)).mean(0)
    return float(tc.mean()), float(tc.std() / math.sqrt(n))
