r"""How much say the joint density of a table has beside one in which no column knows of another.

.. math:: w = \sigma\left(\frac{R^2 - 0.64}{0.01}\right), \qquad R^2 = \frac1D \sum_d R^2_d

R_d^2, the squared multiple correlation, is the share of a column's variance that a linear regression on the others explains, adjusted for
the number of rows and columns (Ezekiel, "Methods of correlation analysis", 1930).

Where the others explain much, what goes against them is strange, and columns that all say the same must not be counted one by one, as a
product over columns does. Where they explain little, a joint density is that product with gaps, which a network fills by what it makes of
few rows, or of anomalies among them; and what is strange shows in the columns themselves. 0.64, a multiple correlation of 0.8, is a choice,
made once, by tables with labels (``benchmarks/anomalies.py`` names them). Two things R^2 does not see: columns that depend on each other
along no line, as those of a ring do; and that columns are codes of one category, which explain each other wholly.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from vaekit.apps.columns import Array, observed
from vaekit.types import Batch

__all__ = ["joint_weight", "shared_variance"]

EXPLAINED, STEP = 0.64, 0.01
"""R^2 at which both have equal say, and how sharply that changes."""
LEAST = 1e-3
"""Smallest eigenvalue of the correlations, of columns that are the same."""
ROWS, COLUMNS = 500, 32
"""How many of them are looked at most where entries are missing."""
CHUNK = 2_000_000
"""Numbers in the matrices of the rows at hand."""


def joint_weight(batch: Batch) -> float:
    """w, in [0, 1], of standardised rows ``[N, D]``.

    >>> import torch
    >>> joint_weight(Batch(torch.randn(1000, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64))) < 1e-9
    True
    """
    return float(expit((shared_variance(batch) - EXPLAINED) / STEP))


def shared_variance(batch: Batch) -> float:
    """Mean adjusted R^2 of each column of standardised rows ``[N, D]`` on all others; 0 for a single one, or no more rows than columns.

    A column that does not vary is left out. Where entries are missing the covariance is that of `covariance`.

    >>> import torch
    >>> u = torch.randn(1000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> noise = torch.randn(1000, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    >>> round(shared_variance(Batch(u + 0.5 * noise)), 1)  # two columns whose correlation is 0.8
    0.6
    """
    x, seen = batch.x.numpy(), observed(batch).numpy()
    count = np.maximum(seen.sum(0), 1)
    mean = (x * seen).sum(0) / count
    varying = np.flatnonzero(np.sqrt((((x - mean) * seen) ** 2).sum(0) / count) > 1e-6)
    if not seen.all():
        random = np.random.default_rng(0)
        varying = np.sort(random.permutation(varying)[:COLUMNS])
        some = random.permutation(len(x))[:ROWS]
        x, seen = x[some], seen[some]
    x, seen = x[:, varying] - mean[varying], seen[:, varying]
    size, rows = len(varying), float(seen.sum(0).mean()) if len(varying) else 0.0
    if size < 2 or rows <= size:
        return 0.0
    found = x.T @ x / len(x) if seen.all() else covariance(x, seen)
    scale = np.sqrt(np.diag(found))
    if not (scale > 0).all():  # of rows that were drawn a column may be constant
        return 0.0
    values, vectors = np.linalg.eigh(found / np.outer(scale, scale))
    values = np.maximum(values, LEAST)
    own = (vectors**2) @ values  # the diagonal, 1 but for what LEAST added
    left = 1 / (own * ((vectors**2) @ (1 / values)))  # 1 - R_d^2, by the diagonal of the inverse
    return float(1 - left.mean() * (rows - 1) / (rows - size))


def covariance(x: Array, seen: NDArray[np.bool_], steps: int = 10) -> Array:
    """That of a normal distribution of mean 0, ``[D, D]``, by ``steps`` of EM on the entries of ``x [N, D]`` that were ``seen``.

    In each step a row's missing entries are at their conditional means, and what these lack in variance is added (Little and Rubin,
    "Statistical Analysis with Missing Data", 1987). Correlations of pairs would not be those of any distribution, and their inverse is
    anything.
    """
    x, rows, size = np.where(seen, x, 0.0), len(x), x.shape[1]
    found = np.diag((x**2).sum(0) / np.maximum(seen.sum(0), 1))
    block = max(1, CHUNK // size**2)
    for _ in range(steps):
        total = rows * found
        for start in range(0, rows, block):
            m = seen[start : start + block].astype(np.float64)
            known = m[:, :, None] * found  # [B, D, D], the rows of S of what was seen
            both = known * m[:, None, :]
            both[:, np.arange(size), np.arange(size)] += (1 - m) + LEAST * m * np.diag(found)
            gain = np.linalg.solve(both, known)
            mean = np.einsum("bkd,bk->bd", gain, x[start : start + block])
            total = total + mean.T @ mean - np.einsum("bkd,bke->de", known, gain)
        found = (total + total.T) / (2 * rows)
    return found
