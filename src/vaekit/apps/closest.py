r"""Do synthetic rows lie closer to the training rows than rows of the same process do that were never trained on?

.. math:: d(a, b) = \frac1D \sum_d \delta_d(a_d, b_d), \qquad \delta_d = |a_d - b_d| / s_d\ \text{or}\ 1[a_d \ne b_d]

for numbers (s their standard deviation over the training rows, of the logarithms of positive ones), levels (s their number less one) and
categories, after Gower, "A general coefficient of similarity and some of its properties", 1971. A cell that one of the two rows lacks
counts as much as it does on average between held-out rows and the training rows closest to them: rows with gaps are neither close to all
nor far from all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vaekit.apps.associations import CODED
from vaekit.apps.columns import Array
from vaekit.data.tables.columns import Column

__all__ = ["CLOSE", "Closeness", "closeness", "closest"]

CLOSE = 0.05
"""The share of held-out rows that count as close."""
SAME = 1e-4
"""Of a column's spread, which few outliers do not change: the difference of two numbers that are called the same, after text."""
ROUNDED = 2.0**-21
"""Of a number itself, the same after float32."""
PAIRS = 4_000_000
"""Distances held at a time."""
RESAMPLES = 200


@dataclass(frozen=True)
class Closeness:
    """What `closeness` found; ``_se`` is a standard error, of drawing both sets of rows anew beside these training rows.

    Attributes:
        rows, held_out: how many synthetic and held-out rows were looked at.
        median, median_held_out: of the distances to the closest training row.
        close: the share of synthetic rows that lie closer to a training row than 95% of the held-out rows do; 0.05 on average for rows of
            the process, 1 for copies.
        closer: the probability that a synthetic row lies closer to the training rows than a held-out one, half of it where equally close;
            0.5 for rows of the process.
        copies, copies_held_out: rows that agree with a training row in every cell that both have, where these are half of the columns or
            more.
    """

    rows: int
    held_out: int
    median: float
    median_held_out: float
    close: float
    close_se: float
    closer: float
    closer_se: float
    copies: int
    copies_held_out: int


def closeness(columns: Sequence[Column], synthetic: Array, real: Array, train: Array, *, seed: int = 0) -> Closeness:
    """Compare distances to the closest of the rows ``train [N, D]``, encoded, NaN where missing.

    Args:
        columns: of the table.
        synthetic: rows ``[M, D]``.
        real: rows that were held out, ``[R, D]``.
        train: rows that the model saw, ``[N, D]``.
        seed: of the resamples.
    """
    r = np.random.default_rng(seed)
    lacking = _lacking(columns, synthetic, real, train, r)
    (near, _, same), (held, _, held_same) = (closest(columns, rows, train, lacking) for rows in (synthetic, real))
    drawn = [(near[r.integers(len(near), size=len(near))], held[r.integers(len(held), size=len(held))]) for _ in range(RESAMPLES)]

    def error(statistic: Callable[[Array, Array], float]) -> float:
        return float(np.std([statistic(a, b) for a, b in drawn], ddof=1))

    return Closeness(
        rows=len(near),
        held_out=len(held),
        median=float(np.median(near)),
        median_held_out=float(np.median(held)),
        close=_close(near, held),
        close_se=error(_close),
        closer=_closer(near, held),
        closer_se=error(_closer),
        copies=int(same.sum()),
        copies_held_out=int(held_same.sum()),
    )


def closest(columns: Sequence[Column], rows: Array, train: Array, lacking: Array) -> tuple[Array, NDArray[np.intp], NDArray[np.bool_]]:
    """(distance to the closest of ``train [N, D]``, which that is, whether one is agreed with) of each of ``rows [M, D]``: ``[M]`` each.

    ``columns`` are those of the table. ``lacking [D]`` is the delta of a cell that one of the two lacks.
    """
    scales = [_scale(column, train[:, d]) for d, column in enumerate(columns)]
    grains = [_grain(column, train[:, d]) for d, column in enumerate(columns)]
    near, which, same = np.empty(len(rows)), np.empty(len(rows), dtype=np.intp), np.empty(len(rows), dtype=np.bool_)
    size = max(1, PAIRS // len(train))
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        total = np.zeros((len(part), len(train)))
        joint, agrees = np.zeros(total.shape, dtype=np.int32), np.ones(total.shape, dtype=np.bool_)
        for d, column in enumerate(columns):
            apart = _apart(column, part[:, d, None], train[None, :, d], scales[d])
            known = ~np.isnan(apart)
            total += np.where(known, apart, lacking[d])
            joint += known
            agrees &= ~(apart > (grains[d] + ROUNDED * np.abs(part[:, d, None])) / scales[d])  # NaN is not above
        which[start : start + size] = total.argmin(1)
        near[start : start + size] = total.min(1) / len(columns)
        same[start : start + size] = (agrees & (2 * joint >= len(columns))).any(1)
    return near, which, same


def _lacking(columns: Sequence[Column], synthetic: Array, real: Array, train: Array, r: np.random.Generator) -> Array:
    """The mean of each delta_d over held-out rows and the closest of the training rows, which are looked for with its mean over all."""
    if not any(np.isnan(rows).any() for rows in (synthetic, real, train)):
        return np.zeros(len(columns))
    order = r.permutation(len(train))
    neighbours = train[order[1:]], train[order[:-1]]

    def means(a: Array, b: Array) -> Array:
        apart = [_apart(column, a[:, d], b[:, d], _scale(column, train[:, d])) for d, column in enumerate(columns)]
        return np.array([one[~np.isnan(one)].mean() if not np.isnan(one).all() else 0.0 for one in apart])

    return means(real, train[closest(columns, real, train, means(*neighbours))[1]])


def _apart(column: Column, a: Array, b: Array, scale: float) -> Array:
    """delta_d, NaN where one of them is."""
    if column.kind == "categorical":
        found: Array = np.where(np.isnan(a) | np.isnan(b), np.nan, a != b)
        return found
    return np.abs(a - b) / scale


def _scale(column: Column, x: Array) -> float:
    if column.kind in ("binary", "ordinal"):
        return max(1.0, column.size - 1.0)
    if column.kind == "categorical":
        return 1.0
    spread = float(np.nanstd(x)) if not np.isnan(x).all() else 0.0
    return spread if spread > 0 else 1.0


def _grain(column: Column, x: Array) -> float:
    """The difference of numbers that are called the same: ``SAME`` of their median distance from their median, without those of 0."""
    if column.kind in CODED:
        return 0.0
    known = x[~np.isnan(x)]
    away = np.abs(known - np.median(known)) if len(known) else known
    return SAME * float(np.median(away[away > 0])) if (away > 0).any() else 0.0


def _close(near: Array, held: Array) -> float:
    """Of what lies on the quantile itself, as large a share as makes 5% of the held-out rows: tables of few values have many ties."""
    threshold = np.quantile(held, CLOSE, method="inverted_cdf")
    share = (CLOSE - (held < threshold).mean()) / (held == threshold).mean()
    return float((near < threshold).mean() + share * (near == threshold).mean())


def _closer(near: Array, held: Array) -> float:
    ordered = np.sort(held)
    below, above = (np.searchsorted(ordered, near, side=side) for side in ("left", "right"))
    return float(1 - (below + above).mean() / (2 * len(held)))
