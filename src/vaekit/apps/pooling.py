r"""How much say the joint density of a table has beside one in which no column knows of another.

.. math:: w = \max\left\{\sigma\left(\frac{R^2 - 2/3}{0.02}\right), \sigma\left(\frac{I - 0.2}{0.02}\right)\right\}, \qquad
          R^2 = \frac1D \sum_d R^2_d, \qquad I = \operatorname{median}_i \frac{\log p(x_i) - \log b(x_i)}{D}

R_d^2, the squared multiple correlation, is the share of a column's variance that a linear regression on the others explains, adjusted for
the number of rows and columns (Ezekiel, "Methods of correlation analysis", 1930). I is what the model has found that they tell of one, in
nats, linear or not: b are independent normal columns (`vaekit.apps.background`).

Where the others tell much, what goes against them is strange, and columns that all say the same must not be counted one by one, as a
product over columns does. Where they tell little, p is b with gaps that a network fills by what it makes of few rows, or of anomalies among
them, and what is strange shows in the columns themselves. The constants are a choice, made once, by tables with labels
(``benchmarks/anomalies.py`` names them).
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from vaekit.apps.columns import Array, observed
from vaekit.types import Batch

__all__ = ["joint_weight", "shared_variance"]

EXPLAINED, TOLD, STEP = 2 / 3, 0.2, 0.02
"""R^2 and I at which both have equal say, and how sharply that changes."""
LEAST = 1e-3
"""Smallest eigenvalue of the correlations: of columns that are the same, and of those of few rows with entries missing."""


def shared_variance(batch: Batch) -> float:
    """Mean adjusted R^2 of each column of standardised rows ``[N, D]`` on all others; 0 for a single one, or no more rows than columns.

    Correlations are of the rows in which both entries were observed; a column that does not vary is left out.

    >>> import torch
    >>> u = torch.randn(1000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> noise = torch.randn(1000, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    >>> round(shared_variance(Batch(u + 0.5 * noise)), 1)  # two columns whose correlation is 0.8
    0.6
    """
    seen = observed(batch).numpy().astype(np.float64)
    x = batch.x.numpy() * seen
    x = (x - x.sum(0) / np.maximum(seen.sum(0), 1)) * seen
    varying = np.sqrt((x**2).sum(0) / np.maximum(seen.sum(0), 1)) > 1e-6
    x, seen = x[:, varying], seen[:, varying]
    rows, size = float(seen.sum(0).mean()) if varying.any() else 0.0, int(varying.sum())
    if size < 2 or rows <= size:
        return 0.0
    covariance = x.T @ x / np.maximum(seen.T @ seen, 1)
    scale = np.sqrt(np.diag(covariance))
    values, vectors = np.linalg.eigh(covariance / np.outer(scale, scale))
    values = np.maximum(values, LEAST)
    own = (vectors**2) @ values  # the diagonal, 1 but for what LEAST added
    left = 1 / (own * ((vectors**2) @ (1 / values)))  # 1 - R_d^2, by the diagonal of the inverse
    return float(1 - left.mean() * (rows - 1) / (rows - size))


def joint_weight(batch: Batch, told: Array) -> float:
    """w, in [0, 1], of the rows ``[N, D]`` that the model has learned, and of (log p - log b) / D of any rows, ``told`` in nats ``[M]``."""
    return float(max(expit((shared_variance(batch) - EXPLAINED) / STEP), expit((np.median(told) - TOLD) / STEP)))
