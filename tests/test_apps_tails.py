"""The density of the columns' tails beside sums over all rows, integrals by quadrature and the one distribution that is its own tail."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import laplace, norm

from vaekit.apps.tails import FINE, Tail, Tails
from vaekit.types import Batch

RNG = np.random.default_rng(0)
ROWS = {
    "one": np.array([3.0]),
    "two": np.array([-1.0, 4.0]),
    "ties": np.repeat([0.0, 0.0, 1.0, 7.0], [30, 1, 5, 1]),
    "skewed": RNG.gamma(0.5, size=40) * 3 - 1,
    "groups": np.r_[RNG.normal(size=20) - 8, RNG.normal(size=30) + 8],
}


def log_laplace(z: np.ndarray) -> np.ndarray:
    """log of the standard Laplace distribution's F(z); scipy's is -inf far out."""
    return np.where(z < 0, np.minimum(z, 0) - np.log(2), np.log1p(-np.exp(-np.abs(z)) / 2))


class Exact:
    """g by the definition: the mean of Laplace distribution functions around the rows, the median by a root, the scale by quadrature."""

    def __init__(self, rows: np.ndarray, weights: np.ndarray) -> None:
        self.w, self.rows, self.h = weights / weights.sum(), rows, len(rows) ** (-1 / 3)
        self.median = brentq(lambda t: self.w @ (laplace.cdf(t, rows, self.h) - 0.5), rows.min() - 9, rows.max() + 9, xtol=1e-14)
        points = sorted({*rows.tolist(), self.median})
        parts = [(rows.min() - 60, points[0]), *pairwise(points), (points[-1], rows.max() + 60)]
        self.distance = sum(quad(lambda t: float(np.exp(self.log_side(np.array([t]))[0])), *part, epsabs=1e-13)[0] for part in parts)

    def log_side(self, t: np.ndarray) -> np.ndarray:
        z, log_w = (t[:, None] - self.rows) / self.h, np.log(self.w)
        return np.minimum(*(np.logaddexp.reduce(log_w + log_laplace(side), axis=1) for side in (z, -z)))

    def log_prob(self, t: np.ndarray) -> np.ndarray:
        return self.log_side(t) - np.log(self.distance)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_what_the_definition_says(name: str, weighted: bool) -> None:
    """At the rows, between them and far out, where all but the logarithm has become 0; nothing is rounded but rows next to each other."""
    rows = ROWS[name]
    weights = np.where(np.arange(len(rows)) % 3 == 0, 0.01, 1.0) if weighted else np.ones(len(rows))
    tail, exact = Tail.of(rows, weights), Exact(rows, weights)
    t = np.r_[rows, np.linspace(rows.min() - 3, rows.max() + 3, 101), -500.0, 500.0]
    near = 5e-4 if len(rows) > 10 and name != "ties" else 1e-9  # rows that are kept as one
    np.testing.assert_allclose(tail.log_prob(t), exact.log_prob(t), atol=near, rtol=1e-6)
    assert tail.median() == pytest.approx(exact.median, abs=1e-3)


@pytest.mark.parametrize("rows", [1, 7, 3000])
def test_its_integral_is_one(rows: int) -> None:
    tail = Tail.of(np.random.default_rng(rows).standard_t(2, size=rows) * 5, np.random.default_rng(1).random(rows) + 0.01)
    grid = np.linspace(tail.places[0] - 50 * tail.h, tail.places[-1] + 50 * tail.h, 1_000_001)
    assert np.exp(tail.log_prob(grid)).sum() * (grid[1] - grid[0]) == pytest.approx(1, abs=1e-4)


def test_a_laplace_distribution_is_its_own_tail() -> None:
    """The only one without memory: what is left of it behind a point is the same again. A normal one falls off faster than its tail."""
    quantiles = (np.arange(20_000) + 0.5) / 20_000
    t = np.linspace(-5, 5, 21)
    np.testing.assert_allclose(Tail.of(laplace.ppf(quantiles), np.ones(20_000)).log_prob(t), laplace.logpdf(t), atol=0.02)
    tail = np.log(norm.sf(np.abs(t)) / np.sqrt(2 / np.pi))
    np.testing.assert_allclose(Tail.of(norm.ppf(quantiles), np.ones(20_000)).log_prob(t)[3:-3], tail[3:-3], atol=0.02)


def test_it_has_one_mode_and_both_its_tails_are_their_own() -> None:
    rows = np.r_[RNG.normal(size=500) - 4, RNG.exponential(5.0, size=500) + 4]
    tail = Tail.of(rows, np.ones(1000))
    grid = np.linspace(-30, 60, 2001)
    found = tail.log_prob(grid)
    top = found.argmax()
    assert (np.diff(found[: top + 1]) > -1e-9).all() and (np.diff(found[top:]) < 1e-9).all()
    left, right = tail.log_prob(np.array([-14.0, 24.0]))  # 10 behind the middle of a group, twenty behind the other's
    assert left < right - 20


def test_many_rows_are_kept_as_few() -> None:
    rows = np.random.default_rng(2).normal(size=300_000)
    tail = Tail.of(rows, np.ones(300_000))
    assert len(tail.places) < 12 * FINE / tail.h < 300_000 / 20
    t = np.array([-4.0, -1.0, 0.0, 2.0, 6.0])
    z = (t[:, None] - rows) / tail.h
    exact = [np.logaddexp.reduce(log_laplace(side), axis=1) - np.log(300_000) for side in (z, -z)]
    np.testing.assert_allclose(np.stack(tail.log_sides(t)), exact, atol=1e-3)


def test_of_a_table_entries_that_were_not_observed_say_nothing() -> None:
    x, mask = RNG.normal(size=(50, 3)), np.random.default_rng(3).random((50, 3)) < 0.6
    batch = Batch(torch.from_numpy(np.where(mask, x, 0.0)), mask=torch.from_numpy(mask))
    weights = np.random.default_rng(4).random(50) + 0.1
    tails = Tails.of(batch, weights)
    expected = np.zeros((50, 3))
    for d in range(3):
        expected[mask[:, d], d] = Tail.of(x[mask[:, d], d], weights[mask[:, d]]).log_prob(x[mask[:, d], d])
    np.testing.assert_array_equal(tails.log_prob(batch), expected)
    assert bool(tails.log_prob(Batch(torch.full((1, 3), 1e300, dtype=torch.float64))).isfinite().all())


@pytest.mark.parametrize("size", [1e5, 1e16, 1e30])
def test_places_that_are_rounded_give_no_nan(size: float) -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        values = rng.integers(0, 3, size=100) * size - size
        found = Tail.of(values, np.where(rng.random(100) < 0.15, 0.01, 1.0)).log_prob(np.r_[values, values + 1, 0.5 * size])
        assert np.isfinite(found).all()
