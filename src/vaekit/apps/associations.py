r"""How far two tables differ, column by column and pair by pair; what is missing is left out of each.

=====================  ===============================================================================================================
Two columns            their association
=====================  ===============================================================================================================
numbers, dates         Spearman's rank correlation, from -1 to 1
categories and levels  Cramér's V from 0 to 1, :math:`V^2 = \tilde\varphi^2 / \min(\tilde r - 1, \tilde c - 1)`, without its bias
                       (Bergsma, "A bias-correction for Cramér's V and Tschuprow's T", 2013)
one of each            the correlation ratio of the ranks from 0 to 1, :math:`\varepsilon^2 = 1 - (1 - \eta^2)(n - 1) / (n - c)`, eta^2
                       the share of their variance between categories (Kelley, "An unbiased correlation ratio measure", 1935)
=====================  ===============================================================================================================

Columns alone differ by the largest distance of their distribution functions (Kolmogorov-Smirnov), or by the total variation
:math:`\frac12 \sum_c |p_c - q_c|` of categories: both from 0, alike, to 1.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from vaekit.apps.columns import Array
from vaekit.data.tables.columns import Column

__all__ = ["CODED", "RATIO", "SPEARMAN", "V", "association", "distance", "measure"]

CODED = ("binary", "categorical", "ordinal")
"""Kinds of columns that hold codes of categories rather than numbers."""
SPEARMAN, RATIO, V = "rank correlation", "correlation ratio", "Cramér's V"


def distance(column: Column, x: Array, y: Array) -> float:
    """How far the values ``x`` ``[N]`` and ``y`` ``[M]`` of one column are apart, encoded, NaN where missing; NaN where one has none.

    >>> from vaekit.data.tables import Binary, Continuous
    >>> distance(Continuous(name="a", dtype="float64"), np.array([0.0, 1.0]), np.array([1.0, 2.0, np.nan]))
    0.5
    >>> distance(Binary(name="b", dtype="bool", categories=(False, True)), np.array([0.0, 1.0]), np.array([1.0, 1.0]))
    0.5
    """
    x, y = x[~np.isnan(x)], y[~np.isnan(y)]
    if not len(x) or not len(y):
        return math.nan
    if column.kind in CODED:
        p, q = (np.bincount(values.astype(int), minlength=column.size) / len(values) for values in (x, y))
        return float(0.5 * np.abs(p - q).sum())
    every = np.concatenate([x, y])
    f, g = (np.searchsorted(np.sort(values), every, side="right") / len(values) for values in (x, y))
    return float(np.abs(f - g).max())


def measure(a: Column, b: Column) -> str:
    """The name of the association of two columns, ``a`` and ``b``."""
    coded = (a.kind in CODED) + (b.kind in CODED)
    return (SPEARMAN, RATIO, V)[coded]


def association(a: Column, b: Column, x: Array, y: Array) -> float:
    """Of values of two columns ``[N]`` each, encoded, in the rows that have both; NaN where they are fewer than 3 or one is constant.

    >>> from vaekit.data.tables import Binary, Continuous
    >>> number, truth = Continuous(name="a", dtype="float64"), Binary(name="b", dtype="bool", categories=(False, True))
    >>> x, y = np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.0, 0.0, 1.0, 1.0])
    >>> association(number, number, x, -x), association(truth, truth, y, y), round(association(number, truth, x, y), 3)
    (-1.0, 1.0, 0.837)
    """
    both = ~(np.isnan(x) | np.isnan(y))
    x, y = x[both], y[both]
    if len(x) < 3 or (x == x[0]).all() or (y == y[0]).all():
        return math.nan
    kind = measure(a, b)
    if kind == SPEARMAN:
        return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])
    if kind == V:
        return _cramer(_codes(x), _codes(y))
    return _ratio(rankdata(y), _codes(x)) if a.kind in CODED else _ratio(rankdata(x), _codes(y))


def _codes(x: Array) -> NDArray[np.intp]:
    """0, 1, ... for the categories that occur."""
    return np.unique(x, return_inverse=True)[1]


def _cramer(a: NDArray[np.intp], b: NDArray[np.intp]) -> float:
    n, r, c = len(a), int(a.max()) + 1, int(b.max()) + 1
    seen = np.bincount(a * c + b, minlength=r * c).reshape(r, c)
    expected = np.outer(seen.sum(1), seen.sum(0)) / n
    phi2 = float(((seen - expected) ** 2 / expected).sum()) / n
    phi2 = max(0.0, phi2 - (r - 1) * (c - 1) / (n - 1))
    least = min(r - (r - 1) ** 2 / (n - 1), c - (c - 1) ** 2 / (n - 1)) - 1
    return min(1.0, math.sqrt(phi2 / least)) if least > 0 else math.nan


def _ratio(x: Array, group: NDArray[np.intp]) -> float:
    n, c = len(x), int(group.max()) + 1
    if n <= c:
        return math.nan
    counts = np.bincount(group)
    means = np.bincount(group, weights=x) / counts
    between = float((counts * (means - x.mean()) ** 2).sum()) / float(((x - x.mean()) ** 2).sum())
    return math.sqrt(max(0.0, 1 - (1 - between) * (n - 1) / (n - c)))
