"""Two densities of one table, close and coarse, whose log-densities are averaged: beside Gaussians, and each by itself."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from vaekit import heads
from vaekit.apps.anomaly import VAEOutlierDetector
from vaekit.apps.background import background
from vaekit.models import VAE


def independent(scale: float) -> VAE:
    """Columns that are N(0, scale^2) each, whatever z."""
    model = background(3).double()
    model.likelihood.head = heads.GaussianFixed(3, scale).double()
    return model


@pytest.mark.parametrize("missing", [False, True])
def test_the_pool_of_two_gaussians_is_a_gaussian(missing: bool) -> None:
    """Its precision is the mean of theirs, and it lacks -log of the integral of sqrt(p q) to a density: -d/2 log(2 s t / (s^2 + t^2))."""
    X = np.random.default_rng(0).normal(size=(8, 3)) * 3
    if missing:
        X[np.random.default_rng(1).random(X.shape) < 0.4] = np.nan
    small = VAEOutlierDetector(n_components=2, hidden_layer_sizes=(8,), max_iter=2, n_samples=4, random_state=0).fit(
        np.random.default_rng(2).normal(size=(50, 3)) * [1.0, 100.0, 0.1]
    )
    s, t = 0.5, 2.0
    small.models_, small.coarse_ = [independent(s)], [independent(t)]
    loc, scale = small.columns_.loc, small.columns_.scale
    wide = np.sqrt(2 / (s**-2 + t**-2)) * scale
    entries = norm.logpdf(X * scale + loc, loc, wide) + np.log(2 * s * t / (s**2 + t**2)) / 2
    exact = np.where(np.isnan(X), 0.0, entries)
    np.testing.assert_allclose(small.score_samples(X * scale + loc), exact.sum(1), rtol=1e-6)
    np.testing.assert_allclose(small.explain(X * scale + loc), -exact, rtol=1e-6, atol=1e-6)


def test_of_ordinary_rows_two_densities_are_pooled() -> None:
    """`score_samples` is the mean of both logarithms, each mixture by itself; and no more than 1 is what it integrates to."""
    X = np.random.default_rng(0).normal(size=(200, 1)) * 50 + 7
    settings = {"n_components": 1, "hidden_layer_sizes": (8,), "max_iter": 50, "n_samples": 256, "random_state": 0}
    both = VAEOutlierDetector(novelty=True, n_estimators=2, **settings).fit(X)
    found, close, coarse = both.score_samples(X), both.models_, both.coarse_
    assert [model.likelihood.head.log_scale.exp().item() for model in coarse] == pytest.approx([2.0, 2.0])
    assert (len(close), len(coarse)) == (3, 2)  # the background is one of the close ones
    grid = np.linspace(-2000, 2000, 401)[:, None]
    assert 0.5 < 10 * np.exp(both.score_samples(grid)).sum() < 1
    each = []
    for models in (close, coarse):
        both.models_, both.coarse_ = models, []
        each.append(both.score_samples(X))
        assert 10 * np.exp(both.score_samples(grid)).sum() == pytest.approx(1, abs=0.05)
    np.testing.assert_allclose(found, np.mean(each, 0), rtol=1e-12)
    alone = VAEOutlierDetector(novelty=True, coarse=0.0, **settings).fit(X)
    assert alone.coarse_ == [] and len(alone.models_) == 2
