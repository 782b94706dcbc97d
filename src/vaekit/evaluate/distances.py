r"""How far the features of generated examples, y ``[M, F]``, are from those of real ones, x ``[N, F]``, as two distributions.

.. math::
    \text{kernel} &= \sum_{i \ne i'} \frac{k(x_i, x_{i'})}{N (N - 1)} + \sum_{j \ne j'} \frac{k(y_j, y_{j'})}{M (M - 1)}
        - 2 \sum_{ij} \frac{k(x_i, y_j)}{N M}, \qquad k(x, y) = (x \cdot y / F + 1)^3 \\
    \text{Fr\'echet} &= |\mu_x - \mu_y|^2 + \mathrm{tr}\,(\Sigma_x + \Sigma_y - 2 (\Sigma_x \Sigma_y)^{1/2})

Kernel distance (KID): Binkowski et al., ICLR 2018; unbiased, so it may be negative. Frechet distance (FID): Heusel et al., NeurIPS 2017.
Both are squared distances without a unit. Features other than another paper's give numbers that cannot be held against that paper's. Every
standard error is that of drawing both sets anew.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vaekit.errors import InputError

__all__ = ["FrechetDistance", "KernelDistance", "frechet_distance", "gaussian_frechet", "kernel_distance", "paired", "shuffled"]

TILE = 1024
"""Kernel values are summed in tiles of 1024 x 1024. A constant: sums of rounded numbers depend on their order."""


@dataclass(frozen=True)
class KernelDistance:
    """What `kernel_distance` found: the unbiased squared maximum mean discrepancy, negative at times, and its standard error.

    Attributes:
        distance: MMD^2.
        distance_se: its standard error.
    """

    distance: float
    distance_se: float


@dataclass(frozen=True)
class FrechetDistance:
    """What `frechet_distance` found.

    Attributes:
        distance: between the Gaussians of the sample means and covariances. It is too large by about c / N, c unknown and larger the
            more features there are, so compare it only between sets of equal sizes.
        distance_se: its standard error, by its derivative with respect to the two distributions; too large by sqrt(2) where they are equal.
        limit: ``2 d(N, M) - d(N / 2, M / 2)``, the second averaged over the two halves: the distance without its c / N, the two-point
            form of the extrapolation of Chong and Forsyth, CVPR 2020. Its error is about ``distance_se``. NaN where a half has no more
            rows than there are features.
        rank: of the two covariances, real and generated. Less than F where features never vary, which does no harm, and where there are
            fewer rows than features: the distance is then that of two flat Gaussians, exact in itself, and mostly bias.
    """

    distance: float
    distance_se: float
    limit: float
    rank: tuple[int, int]


def kernel_distance(real: Tensor, generated: Tensor) -> KernelDistance:
    """The kernel distance of features ``real`` ``[N, F]`` and ``generated`` ``[M, F]`` from all pairs, and its two-sample jackknife
    standard error.

    Leaving out each row in turn costs nothing: the sums over all pairs lose that row's. The error is too large, by sqrt(2) or so, where
    both distributions are equal. (Binkowski et al. average over 100 subsets of 1000 rows, which has the same mean and a larger error.)

    Raises:
        InputError: no two matrices of equal width and finite numbers; fewer than 3 rows in one.

    >>> one, other = torch.zeros(3, 2), torch.tensor([[2.0, 0.0]]).expand(5, 2)
    >>> kernel_distance(one, other).distance  # k(0, 0) + k(2, 2) - 2 k(0, 2) = 1 + 27 - 2
    26.0
    """
    x, y = paired(real, generated)
    n, m = len(x), len(y)
    if min(n, m) < 3:
        raise InputError(f"{n} real and {m} generated examples: the kernel distance and its error need at least 3 of each")
    a, b = _kernel_sums(x, x, same=True)[0], _kernel_sums(y, y, same=True)[0]
    c, d = _kernel_sums(x, y, same=False)
    within_x, within_y, across = a.sum(), b.sum(), c.sum()

    def distance(xx: Tensor, yy: Tensor, xy: Tensor, n: int, m: int) -> Tensor:
        return xx / (n * (n - 1)) + yy / (m * (m - 1)) - 2 * xy / (n * m)

    left_x = distance(within_x - 2 * a, within_y, across - c, n - 1, m)
    left_y = distance(within_x, within_y - 2 * b, across - d, n, m - 1)
    variance = left_x.var(correction=0) * (n - 1) + left_y.var(correction=0) * (m - 1)
    return KernelDistance(float(distance(within_x, within_y, across, n, m)), float(variance.sqrt()))


def frechet_distance(real: Tensor, generated: Tensor, *, seed: int = 0) -> FrechetDistance:
    """The Frechet distance of the Gaussians with the means and covariances of features ``real`` ``[N, F]`` and ``generated`` ``[M, F]``, in
    float64.

    Any number of rows will do; see `FrechetDistance` for what few of them mean. ``seed`` is of the halves for the limit.

    Raises:
        InputError: no two matrices of equal width and finite numbers; fewer than 2 rows in one.

    >>> x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> found = frechet_distance(x, x + 2)  # a shift alone: |mu|^2 = 3 * 4
    >>> round(found.distance, 9), found.rank
    (12.0, (3, 3))
    """
    x, y = paired(real, generated)
    if min(len(x), len(y)) < 2:
        raise InputError(f"{len(x)} real and {len(y)} generated examples: a covariance needs at least 2 of each")
    value, se, rank = _frechet(x, y)
    limit = math.nan
    if min(len(x), len(y)) // 2 > x.shape[1]:
        halves = zip(*(t.tensor_split(2) for t in shuffled(x, y, seed)), strict=True)
        limit = 2 * value - sum(_frechet(a, b)[0] for a, b in halves) / 2
    return FrechetDistance(value, se, limit, rank)


def gaussian_frechet(mean_x: Tensor, cov_x: Tensor, mean_y: Tensor, cov_y: Tensor) -> float:
    """The squared Frechet (2-Wasserstein) distance of N(mean_x, cov_x) and N(mean_y, cov_y), ``[F]`` and ``[F, F]``; either may be flat.

    ``tr (S_x S_y)^1/2`` is the sum of the singular values of ``R_x R_y^T``, with ``S = R^T R``: square roots of the eigenvalues of the
    symmetric ``S_x^1/2 S_y S_x^1/2``, without the loss of half the digits that rooting rounded zeros costs.

    >>> gaussian_frechet(torch.zeros(2), torch.eye(2), torch.tensor([3.0, 4.0]), torch.diag(torch.tensor([4.0, 0.0])))
    27.0
    """
    mean_x, cov_x, mean_y, cov_y = (t.double() for t in (mean_x, cov_x, mean_y, cov_y))
    cross = torch.linalg.svdvals(_root(cov_x) @ _root(cov_y).mT).sum()
    return max(0.0, float((mean_x - mean_y).square().sum() + cov_x.trace() + cov_y.trace() - 2 * cross))


def paired(real: Tensor, generated: Tensor) -> tuple[Tensor, Tensor]:
    """Both features, ``real`` ``[N, F]`` and ``generated`` ``[M, F]``, in float64, or an `InputError` that says why they cannot be
    compared."""
    for name, t in (("real", real), ("generated", generated)):
        if t.dim() != 2 or t.numel() == 0:
            raise InputError(f"features of {name} examples have shape {list(t.shape)}: they must be [rows, F], at least one of each")
        bad = (~t.isfinite()).any(1).sum()
        if bad:
            raise InputError(f"features of {int(bad)} of {len(t)} {name} examples are not finite: correct the features, or the examples")
    if real.shape[1] != generated.shape[1]:
        raise InputError(f"real examples have {real.shape[1]} features and generated ones {generated.shape[1]}: take the same function")
    return real.detach().double(), generated.detach().double()


def shuffled(x: Tensor, y: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """The rows of both, x ``[N, F]`` and y ``[M, F]``, in a seeded order."""
    g = torch.Generator().manual_seed(seed)
    return x[torch.randperm(len(x), generator=g).to(x.device)], y[torch.randperm(len(y), generator=g).to(y.device)]


def _kernel_sums(x: Tensor, y: Tensor, *, same: bool) -> tuple[Tensor, Tensor]:
    """Sums of the kernel over y for every x ``[N]``, and over x for every y ``[M]``; of ``same`` sets without a row's value with itself."""
    over_y, over_x = x.new_zeros(len(x)), x.new_zeros(len(y))
    for i, a in enumerate(x.split(TILE)):
        for j, b in enumerate(y.split(TILE)):
            value = (a @ b.mT / x.shape[1] + 1) ** 3
            if same and i == j:
                value.fill_diagonal_(0)
            over_y[i * TILE : (i + 1) * TILE] += value.sum(1)
            over_x[j * TILE : (j + 1) * TILE] += value.sum(0)
    return over_y, over_x


def _frechet(x: Tensor, y: Tensor) -> tuple[float, float, tuple[int, int]]:
    """Distance, standard error, ranks.

    The distance changes with S_x by ``tr (I - T) dS_x``, T the optimal map from one Gaussian to the other; with R_x R_y^T = P diag(s) Q^T,
    ``T = A diag(s) A^T`` for ``A = R_x^+ P``, and with Q in the other direction.
    """
    shift = x.mean(0) - y.mean(0)
    root_x, root_y = _root(x.mT.cov().reshape(x.shape[1], -1)), _root(y.mT.cov().reshape(y.shape[1], -1))
    p, s, qt = torch.linalg.svd(root_x @ root_y.mT, full_matrices=False)
    value = shift.square().sum() + root_x.square().sum() + root_y.square().sum() - 2 * s.sum()
    variance = x.new_zeros(())
    for t, root, turn, delta in ((x, root_x, p, shift), (y, root_y, qt.mT, -shift)):
        t = t - t.mean(0)
        mapped = (t @ root.mT / root.square().sum(1)) @ turn
        variance = variance + (2 * t @ delta + t.square().sum(1) - mapped.square() @ s).var() / len(t)
    return max(0.0, float(value)), float(variance.sqrt()), (len(root_x), len(root_y))


def _root(cov: Tensor) -> Tensor:
    """R ``[rank, F]`` with R^T R = cov: eigenvectors by the roots of their eigenvalues, without those that are 0 but for rounding."""
    values, vectors = torch.linalg.eigh((cov + cov.mT) / 2)
    keep = values > values[-1] * len(cov) * torch.finfo(cov.dtype).eps
    return values[keep].sqrt()[:, None] * vectors[:, keep].mT
