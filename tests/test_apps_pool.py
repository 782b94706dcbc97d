"""The detector's two densities, of the rows and of the columns' tails: how they are pooled, and which of them has the word."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit
from scipy.stats import norm
from sklearn.base import clone
from sklearn.linear_model import LinearRegression
from sklearn.metrics import roc_auc_score

from vaekit import heads
from vaekit.apps.anomaly import VAEOutlierDetector
from vaekit.apps.background import background, central
from vaekit.apps.columns import Numeric
from vaekit.apps.pooling import covariance, shared_variance
from vaekit.apps.tails import Tail
from vaekit.models import VAE
from vaekit.types import Batch

SMALL = VAEOutlierDetector(n_components=2, hidden_layer_sizes=(8,), max_iter=2, n_samples=4, random_state=0)


def independent(scale: float) -> VAE:
    """Columns that are N(0, scale^2) each, whatever z."""
    model = background(3).double()
    model.likelihood.head = heads.GaussianFixed(3, scale).double()
    return model


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_pool_is_of_logarithms_in_the_columns_own_units(share: float, missing: bool) -> None:
    """Scores and the parts of a row, beside scipy's normal density and each column's tails."""
    X = np.random.default_rng(0).normal(size=(8, 3)) * 3
    if missing:
        X[np.random.default_rng(1).random(X.shape) < 0.4] = np.nan
    fitted = np.random.default_rng(2).normal(size=(50, 3)) * [1.0, 100.0, 0.1]
    small = clone(SMALL).set_params(tails=share, novelty=True).fit(fitted)
    small.models_ = [independent(0.5)]
    loc, scale = fitted.mean(0), fitted.std(0)
    tails = [Tail.of((fitted[:, d] - loc[d]) / scale[d], np.ones(50)).log_prob(X[:, d]) for d in range(3)]
    entries = (1 - share) * norm.logpdf(X, 0, 0.5) + share * np.stack(tails, 1) - np.log(scale)
    exact = np.where(np.isnan(X), 0.0, entries)
    np.testing.assert_allclose(small.score_samples(X * scale + loc), exact.sum(1), rtol=1e-6)
    np.testing.assert_allclose(small.explain(X * scale + loc), -exact, rtol=1e-6, atol=1e-6)


def test_what_it_integrates_to_is_at_most_one() -> None:
    X = np.random.default_rng(0).gamma(2.0, size=(200, 1)) * 50 + 7
    grid = np.linspace(-3000, 5000, 4001)[:, None]
    found = {}
    for share in (0.0, 0.5, 1.0):
        fitted = clone(SMALL).set_params(n_components=1, tails=share, novelty=True, max_iter=50, n_samples=128).fit(X)
        found[share] = 2 * np.exp(fitted.score_samples(grid)).sum()
    assert found[0.0] == pytest.approx(1, abs=0.01) and found[1.0] == pytest.approx(1, abs=0.01)
    assert 0.5 < found[0.5] < 1


@pytest.mark.parametrize("missing", [False, True])
def test_the_variance_that_columns_share_is_that_of_regressions(missing: bool) -> None:
    """Beside scikit-learn's, one column after the other; and beside a correlation that is known, where entries are missing."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 5)) @ rng.normal(size=(5, 5))
    if not missing:
        X = np.c_[X, np.full(400, 3.0)]  # what does not vary has no variance to explain
        exact = [LinearRegression().fit(np.delete(X, d, 1), X[:, d]).score(np.delete(X, d, 1), X[:, d]) for d in range(5)]
        adjusted = 1 - (1 - np.mean(exact)) * 399 / 395
        assert shared_variance(Numeric.of(X).encode(X)) == pytest.approx(adjusted, abs=1e-9)
        return
    u = rng.normal(size=(20_000, 1))
    pair = np.where(rng.random((20_000, 2)) < 0.3, np.nan, np.c_[u, 0.9 * u + np.sqrt(0.19) * rng.normal(size=u.shape)])
    assert shared_variance(Numeric.of(pair).encode(pair)) == pytest.approx(0.81, abs=0.01)


def test_of_too_little_nothing_is_shared() -> None:
    rng = np.random.default_rng(0)
    for X in (rng.normal(size=(50, 1)), rng.normal(size=(5, 5)), np.ones((9, 3)), np.full((3, 2), np.nan)):
        assert shared_variance(Batch(torch.from_numpy(np.nan_to_num(X)), mask=torch.from_numpy(~np.isnan(X)))) == 0
    same = np.repeat(rng.normal(size=(50, 1)), 3, 1)
    assert 0.99 < shared_variance(Batch(torch.from_numpy(same))) <= 1


@pytest.mark.parametrize(("rows", "columns", "missing"), [(300, 30, 0.5), (1000, 50, 0.7), (150, 10, 0.7), (5000, 60, 0.8)])
def test_independent_columns_share_nothing_where_entries_are_missing(rows: int, columns: int, missing: float) -> None:
    """Their correlations pair by pair are those of no distribution: by their inverse the others would explain nearly all."""
    rng = np.random.default_rng(0)
    X = np.where(rng.random((rows, columns)) < missing, np.nan, rng.normal(size=(rows, columns)))
    assert shared_variance(Numeric.of(X).encode(X)) < 0.5
    X = np.where(np.isnan(X), np.nan, rng.normal(size=(rows, 1)) + 0.1 * rng.normal(size=(rows, columns)))
    assert shared_variance(Numeric.of(X).encode(X)) > 0.65


def test_the_covariance_of_rows_with_gaps_is_that_of_the_rows() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5000, 4)) @ rng.normal(size=(4, 4))
    seen = rng.random(x.shape) < 0.7
    np.testing.assert_allclose(covariance(x, seen, 50), x.T @ x / 5000, atol=0.12)
    np.testing.assert_allclose(covariance(x, np.ones(x.shape, dtype=bool)), x.T @ x / 5000, rtol=1e-2, atol=1e-2)


def test_the_say_of_the_tails_follows_from_the_variance_that_columns_share() -> None:
    """That of the rows which training keeps, and of nothing else: neither rows without entries nor columns without variance count."""
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(300, 1)) + 0.3 * rng.normal(size=(300, 6))
    alone = rng.normal(size=(300, 6))
    between = rng.normal(size=(300, 1)) + 0.7 * rng.normal(size=(300, 6))
    for X, low, high in ((shared, 0.0, 1e-6), (alone, 1 - 1e-9, 1.0), (between, 0.0, 1.0)):
        for novelty in (True, False):
            batch = Numeric.of(X).encode(X)
            own = shared_variance(Batch(batch.x[torch.from_numpy(central(batch, 0.0 if novelty else 0.15))]))
            found = clone(SMALL).set_params(novelty=novelty).fit(X).tails_weight_
            assert found == pytest.approx(1 - expit((own - 0.64) / 0.01), rel=1e-9, abs=1e-12)
            assert low <= found <= high
        wider = np.vstack([np.c_[X, np.full(300, 7.0)], np.full((50, 7), np.nan)])
        again = clone(SMALL).set_params(novelty=True).fit(wider)
        assert again.tails_weight_ == pytest.approx(clone(SMALL).set_params(novelty=True).fit(X).tails_weight_, abs=0.05)
        assert np.isfinite(again.score_samples(wider)).all()
    assert clone(SMALL).set_params(tails=0.25).fit(alone).tails_weight_ == 0.25


def test_a_row_is_found_by_the_density_that_has_the_word() -> None:
    """A group that has been learned, out in the tails of independent columns; and rows within the range of each column that go against how
    columns go together."""
    rng = np.random.default_rng(0)
    alone, group = rng.normal(size=(550, 6)), rng.normal(size=(50, 6)) * 0.1 + 2
    shared, against = rng.normal(size=(550, 1)) + 0.3 * rng.normal(size=(550, 6)), rng.normal(size=(50, 6))
    settings = {"max_iter": 400, "n_samples": 64, "hidden_layer_sizes": (16,), "trim": 0.0}
    truth = np.repeat([0, 1], [550, 50])
    for ordinary, strange, better in ((alone, group, 1.0), (shared, against, 0.0)):
        X = np.r_[ordinary, strange]
        fitted = clone(SMALL).set_params(**settings).fit(X)
        own = fitted.tails_weight_
        area = {share: roc_auc_score(truth, -_scored(fitted, share, X)) for share in (0.0, 1.0, own)}
        assert abs(own - better) < 0.1 and area[own] > 0.9
        assert area[better] > area[1 - better] + 0.2 and area[own] > area[better] - 0.02


def _scored(fitted: VAEOutlierDetector, share: float, rows: np.ndarray) -> np.ndarray:
    kept, fitted.tails_weight_ = fitted.tails_weight_, share
    try:
        return fitted.score_samples(rows)
    finally:
        fitted.tails_weight_ = kept


def test_a_group_of_anomalies_far_out_hardly_lengthens_the_tails() -> None:
    """Rows that training leaves out count a hundredth; of ordinary rows all count alike."""
    X = np.r_[np.random.default_rng(0).normal(size=(450, 2)), np.full((50, 2), 6.0)]
    suspicious, trusted = (clone(SMALL).set_params(novelty=novelty).fit(X).tails_ for novelty in (False, True))
    u = (np.full(2, 6.0) - X.mean(0)) / X.std(0)
    for d in range(2):
        inside, outside = (tails.columns[d].log_prob(u[d : d + 1])[0] for tails in (suspicious, trusted))
        assert inside < outside - 3
        kept = suspicious.columns[d]
        assert kept.above[np.searchsorted(kept.places, u[d] - 0.01)] == pytest.approx(0.5 / (425 + 0.75), rel=1e-6)
