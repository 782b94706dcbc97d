r"""A complete table with the gaps that real rows of its values would have.

.. math:: m \sim \prod_d p(m_d | x_{C}, m_{<d} \odot x_{<d}),

over the columns in which gaps are to be, from the one with the fewest up: each by boosted trees, fitted to real rows, of the columns C that
are left as they are and of those before it, gaps included; or by its share, where in cross-validation the trees know no better. That is
right where a gap depends on columns with fewer gaps than its own, and where several are missing together; what a gap has to do with its own
value, or with one that is missing more often, is not told by the observed values of a table.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from vaekit.apps.columns import Array
from vaekit.data.tables.columns import Column

__all__ = ["LEVELS", "coded", "with_gaps"]

LEVELS = 255
"""Categories, at most, that trees take as such; those of a column with more are numbers to them."""
ROWS = 10_000
"""Real rows, at most, that each model of gaps is fitted to."""
FEW = 20
"""Rows with a gap, and rows without, that its trees need."""
FOLDS = 3
WIDTH = 50
"""Columns, at most, that it looks at: those that differ most between rows with the gap and rows without."""


def with_gaps(columns: Sequence[Column], x: Array, real: Array, r: np.random.Generator) -> tuple[Array, NDArray[np.intp]]:
    """(``x [N, D]`` with gaps in those columns that have some in ``real [M, D]`` and none in x, which these are).

    >>> from vaekit.data.tables import Continuous
    >>> r = np.random.default_rng(0)
    >>> x, real = r.uniform(0, 500, (500, 2)), r.uniform(0, 500, (500, 2))
    >>> real[real[:, 0] > 300, 1] = np.nan  # the second is missing where the first is large
    >>> seen, which = with_gaps([Continuous(name=name, dtype="float64") for name in "ab"], x, real, r)
    >>> gaps = np.isnan(seen[:, 1])
    >>> which, f"{gaps[x[:, 0] > 300].mean():.1f} {gaps[x[:, 0] <= 300].mean():.1f}"
    (array([1]), '1.0 0.0')
    """
    real = real[r.permutation(len(real))[:ROWS]] if len(real) > ROWS else real
    share = np.isnan(real).mean(0)
    which = np.flatnonzero((share > 0) & ~np.isnan(x).any(0))
    seen, known = x.copy(), [d for d in range(x.shape[1]) if d not in set(which.tolist()) and share[d] < 1]
    for d in which[np.argsort(share[which], kind="stable")].tolist():
        gap = np.isnan(real[:, d])
        seen[r.random(len(x)) < _probability(columns, known, seen, real, gap, int(r.integers(2**31))), d] = np.nan
        if share[d] < 1:  # the trees refuse a column without a value
            known.append(d)
    return seen, which


def coded(columns: Sequence[Column]) -> list[bool]:
    """Which columns are categories to trees."""
    return [column.kind == "categorical" and column.size <= LEVELS for column in columns]


def _probability(columns: Sequence[Column], known: list[int], x: Array, real: Array, gap: NDArray[np.bool_], seed: int) -> Array:
    """Of a gap in each row of x, given the columns that are known."""
    share = np.full(len(x), gap.mean())
    if not known or min(gap.sum(), (~gap).sum()) < FEW:
        return share
    looked = known if len(known) <= WIDTH else [known[i] for i in np.argsort(-_difference(real[:, known], gap), kind="stable")[:WIDTH]]
    trees = HistGradientBoostingClassifier(
        max_iter=60, max_leaf_nodes=3, categorical_features=coded([columns[d] for d in looked]), early_stopping=False, random_state=seed
    )
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    p = cross_val_predict(trees, real[:, looked], gap, cv=folds, method="predict_proba")[:, 1]
    if log_loss(gap, p) >= log_loss(gap, np.full(len(gap), gap.mean())):
        return share
    found: Array = trees.fit(real[:, looked], gap).predict_proba(x[:, looked])[:, 1]
    return found


def _difference(x: Array, gap: NDArray[np.bool_]) -> Array:
    """How far rows with a gap and rows without are apart ``[K]``: the larger difference, in standard deviations, of values and of gaps."""

    def apart(y: Array) -> Array:
        scale = y.std(0)
        difference: Array = np.abs(y[gap].mean(0) - y[~gap].mean(0)) / np.where(scale > 0, scale, 1.0)
        return difference

    return np.maximum(apart(np.where(np.isnan(x), np.nanmean(x, 0), x)), apart(np.isnan(x).astype(float)))
