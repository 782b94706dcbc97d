"""The scikit-learn estimators: scikit-learn's own checks, whole, and what the checks do not look at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from vaekit.apps.anomaly import VAEOutlierDetector
from vaekit.apps.estimator import VAETransformer
from vaekit.apps.imputer import VAEImputer
from vaekit.apps.network import Hide
from vaekit.errors import InputError

SMALL = {"max_iter": 10, "hidden_layer_sizes": (8,), "n_samples": 16}


@parametrize_with_checks([VAETransformer(**SMALL), VAEOutlierDetector(**SMALL), VAEImputer(**SMALL, n_estimators=2)])
def test_scikit_learns_checks(estimator: BaseEstimator, check: Callable[[BaseEstimator], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")  # else the check of array-API input is skipped
    check(estimator)


def rows(n: int = 120, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 4)) @ np.array([[1.0, 1, 2, 0], [0, 1, 1, 1], [0, 0, 0.5, 0], [0, 0, 0, 0.5]])


def holes(X: np.ndarray, share: float = 0.3) -> np.ndarray:
    return np.where(np.random.default_rng(1).random(X.shape) < share, np.nan, X)


def test_the_same_seed_gives_the_same_model_and_disturbs_nobody(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    X = holes(rows())
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    a, b, c = (VAETransformer(**SMALL, random_state=seed).fit(X) for seed in (3, 3, 4))
    np.testing.assert_array_equal(a.score_samples(X), b.score_samples(X))
    np.testing.assert_array_equal(a.sample(5), b.sample(5))
    np.testing.assert_array_equal(a.impute(X), b.impute(X))
    assert not np.allclose(a.transform(X), c.transform(X))
    assert torch.equal(torch.get_rng_state(), before[0]) and (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    assert capfd.readouterr() == ("", "") and not list(tmp_path.iterdir())


def test_units_change_scores_by_their_volume_alone() -> None:
    X, factor = holes(rows()), np.array([10.0, 0.01, 1.0, 1e6])
    a, b = (VAETransformer(**SMALL, random_state=0).fit(rows) for rows in (X, X * factor + 7))
    volume = np.where(np.isnan(X), 0.0, np.log(factor)).sum(1)
    np.testing.assert_allclose(b.score_samples(X * factor + 7), a.score_samples(X) - volume, rtol=1e-4, atol=1e-4)
    assert b.score(X * factor + 7) == pytest.approx(b.score_samples(X * factor + 7).mean())


def test_training_comes_near_the_entropy_and_fills_holes_better_than_the_mean() -> None:
    X, new = rows(1500), rows(500, 1)
    cov = np.cov(X.T)
    vae = VAETransformer(n_components=4, hidden_layer_sizes=(32,), max_iter=600, random_state=0).fit(holes(X))
    gap = multivariate_normal(X.mean(0), cov).logpdf(new).mean() - vae.score(new)
    unrelated = 0.5 * (np.log(cov.diagonal()).sum() - np.linalg.slogdet(cov)[1])  # of columns each by itself
    assert -0.05 < gap < 0.3 * unrelated
    seen = holes(new)
    hidden, spread = np.isnan(seen), X.std(0)
    error = ((vae.impute(seen) - new) / spread)[hidden]
    assert np.square(error).mean() < 0.6 * np.square((new - X.mean(0)) / spread)[hidden].mean()
    found = vae.impute_distribution(seen, draws=3, coverage=0.9)
    assert found.lower is not None and found.upper is not None
    inside = (found.lower <= new) & (new <= found.upper)
    assert abs(inside[hidden].mean() - 0.9) < 0.05
    for part in (found.mean, found.lower, found.upper, *found.draws):
        np.testing.assert_array_equal(part[~hidden], new[~hidden])
    assert (found.ess > 1).all() and found.draws[:, hidden].std(0).min() > 0


def test_intervals_of_a_small_table_cover_what_they_say() -> None:
    """180 rows, 30% missing: with as many steps as a large table has, intervals of what was learned by heart are too narrow."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(180, 3)) @ rng.normal(size=(3, 8)) + rng.normal(size=(180, 8))
    seen = holes(X)
    hidden, spread = np.isnan(seen), X.std(0)
    found = VAEImputer(n_estimators=2, random_state=0).fit(seen).impute_distribution(seen, coverage=0.9)
    assert found.lower is not None and found.upper is not None
    assert 0.85 < ((found.lower <= X) & (found.upper >= X))[hidden].mean() < 0.95
    cov = np.cov(X.T)  # the best that a linear prediction can do, with the covariance of the whole table
    best = np.concatenate([gaussian_rest(X.mean(0), cov, row)[np.isnan(row)] for row in seen])
    error, bound = (np.sqrt(np.square(((made - X) / spread)[hidden]).mean()) for made in (found.mean, filled(seen, best)))
    assert error < 1.25 * bound


def test_columns_constant_but_for_a_few_values_are_filled_from_each_other() -> None:
    """Four columns that are 0 but for 4% of the rows, where all of them are 1, with noise of a quarter of their standard deviations."""
    rng = np.random.default_rng(0)
    rare = (rng.random((600, 1)) < 0.04) + 0.05 * rng.normal(size=(600, 4))
    X = np.concatenate([rare, rng.normal(size=(600, 4))], 1)
    seen = np.where(rng.random(X.shape) < 0.2, np.nan, X)
    made = VAEImputer(n_estimators=1, max_iter=400, random_state=0).fit_transform(seen)
    error = ((made - X) / X.std(0))[:, :4][np.isnan(seen[:, :4])]
    assert np.sqrt(np.square(error).mean()) < 0.4  # the noise alone is 0.25, a column's mean 1; with a variance from the network 0.7


def test_hidden_entries_are_shown_as_missing_ones_in_training_alone() -> None:
    torch.manual_seed(0)
    x = torch.randn(20_000, 6) + 10
    h, layer = torch.cat([x, torch.ones_like(x)], 1), Hide(0.15)
    seen, shown = layer(h).chunk(2, 1)
    torch.testing.assert_close(seen, x * shown)
    assert set(shown.unique().tolist()) == {0.0, 1.0}
    share = 1 - shown.mean(1)
    assert share.mean().item() == pytest.approx(0.15, abs=0.005)
    # each row's share is uniform from 0 to 0.3: of a mean 0.15 and variance 0.0075, and given it binomial of 6
    assert share.var().item() == pytest.approx(0.0075 + (0.15 - 0.0225 - 0.0075) / 6, rel=0.05)
    torch.testing.assert_close(layer.eval()(h), h)


def gaussian_rest(mean: np.ndarray, cov: np.ndarray, row: np.ndarray) -> np.ndarray:
    """The row with its missing entries at their mean given the others."""
    m, o = np.isnan(row), ~np.isnan(row)
    made = row.copy()
    made[m] = mean[m] + cov[np.ix_(m, o)] @ np.linalg.solve(cov[np.ix_(o, o)], row[o] - mean[o])
    return made


def filled(seen: np.ndarray, values: np.ndarray) -> np.ndarray:
    made = seen.copy()
    made[np.isnan(seen)] = values
    return made


def test_a_row_without_any_value_is_the_prior() -> None:
    vae = VAETransformer(**SMALL, random_state=0).fit(holes(rows()))
    nothing = np.full((1, 4), np.nan)
    assert vae.score_samples(nothing) == pytest.approx(0, abs=0.5)  # log 1, up to the error of q(z | nothing)
    assert np.isfinite(vae.impute(nothing)).all()


def test_scikit_learns_machinery() -> None:
    X = rows(60)
    grid = GridSearchCV(VAETransformer(**SMALL, random_state=0), {"n_components": [1, 2]}, cv=2).fit(X)
    assert set(grid.cv_results_["param_n_components"]) == {1, 2} and np.isfinite(grid.best_score_)
    pipeline = make_pipeline(StandardScaler(), VAETransformer(n_components=3, **SMALL)).fit(X)
    assert pipeline.transform(X).shape == (60, 3) and pipeline.inverse_transform(pipeline.transform(X)).shape == X.shape
    assert list(pipeline.get_feature_names_out()) == ["vaetransformer0", "vaetransformer1", "vaetransformer2"]
    assert clone(pipeline[-1]).get_params() == pipeline[-1].get_params()


def test_partial_fit_goes_on() -> None:
    X = rows(400)
    vae = VAETransformer(n_components=2, hidden_layer_sizes=(16,), batch_size=32, random_state=0).partial_fit(X)
    first, columns = vae.score(X), vae.columns_
    for _ in range(15):
        vae.partial_fit(X[:200]).partial_fit(X[200:])
    assert vae.score(X) > first + 0.2 and vae.columns_ is columns
    assert vae.n_iter_ == 13 + 15 * 14
    with pytest.raises(ValueError, match="features"):
        vae.partial_fit(X[:, :2])


def test_frames_in_and_out() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(holes(rows(60)), columns=list("abcd"), index=range(100, 160))
    vae = VAETransformer(n_components=2, **SMALL, random_state=0).set_output(transform="pandas").fit(frame)
    codes = vae.transform(frame)
    assert list(codes.columns) == ["vaetransformer0", "vaetransformer1"] and list(codes.index) == list(frame.index)
    for made in (vae.impute(frame), vae.inverse_transform(codes)):
        assert list(made.columns) == list("abcd") and list(made.index) == list(frame.index)
    assert list(vae.sample(3).columns) == list("abcd")
    with pytest.raises(ValueError, match="feature names"):
        vae.transform(frame[list("dcba")])


def test_what_cannot_be() -> None:
    X = rows(30)
    empty = X.copy()
    empty[:, 2] = np.nan
    with pytest.raises(InputError, match="column 2 has no value in any of 30 rows"):
        VAETransformer(**SMALL).fit(empty)
    for refused in (VAEImputer(**SMALL), VAEOutlierDetector(**SMALL), VAETransformer(**SMALL)):
        with pytest.raises(InputError, match="column 2"):
            refused.fit(empty)
        with pytest.raises(NotFittedError):
            refused.impute(X)
    vae = VAETransformer(n_components=2, **SMALL).fit(X)
    with pytest.raises(InputError, match="codes of 3 numbers"):
        vae.inverse_transform(np.zeros((5, 3)))
    with pytest.raises(InputError, match=r"sample\(0\)"):
        vae.sample(0)
    with pytest.raises(ValueError, match="n_components"):
        VAETransformer(n_components=0).fit(X)


def test_awkward_columns_are_finite() -> None:
    """A constant, numbers near the ends of what a double holds, a value of its own, whole numbers."""
    X = rows(80)
    X = np.column_stack([X, np.full(80, 3.0), X[:, 0] * 1e200, X[:, 1] * 1e-200, X[:, 2].round(), np.r_[1e9, np.zeros(79)]])
    vae = VAETransformer(**SMALL, random_state=0).fit(X)
    assert np.isfinite(vae.score_samples(X)).all() and np.isfinite(vae.transform(X * 1e6)).all()
    vae = VAETransformer(**{**SMALL, "max_iter": 300}, random_state=0).fit(X)  # long enough to have learned the constant
    np.testing.assert_allclose(vae.impute(np.where(np.arange(9) == 4, np.nan, X))[:, 4], 3.0, atol=1.0)
