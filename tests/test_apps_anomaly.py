"""Alarms: their rate, their thresholds, streams; the detector beside a density that is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal, norm, spearmanr
from sklearn.base import clone

from vaekit import heads
from vaekit.apps.anomaly import VAEOutlierDetector
from vaekit.apps.background import background, central
from vaekit.apps.blurred import Blurred
from vaekit.apps.conformal import Conformal
from vaekit.apps.network import Plan, build, train
from vaekit.apps.weighted import explained, log_evidence
from vaekit.errors import InputError
from vaekit.models import VAE
from vaekit.objectives import ELBO, IWAE
from vaekit.priors import StandardNormal
from vaekit.train import fit
from vaekit.types import Batch

MIX = np.array([[1.0, 2, 3], [0, 1, 1], [0, 0, 0.5]])


def table(rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, 3)) @ MIX * [1.0, 100.0, 0.1] + [0.0, 1000.0, 10.0]


@pytest.fixture(scope="module")
def detector() -> VAEOutlierDetector:
    return VAEOutlierDetector(
        n_components=2, scale=None, tails=0.0, blur=0.0, trim=0.0, hidden_layer_sizes=(32,), max_iter=600, random_state=0
    ).fit(table(2000, 0))


@pytest.mark.parametrize(("n", "alpha"), [(19, 0.05), (30, 0.1), (99, 0.01)])
def test_false_alarms_come_at_their_rate(n: int, alpha: float) -> None:
    """Exactly floor(alpha (n + 1)) / (n + 1) for scores without ties; below with ties. A threshold at the plain quantile alarms more."""
    rng = np.random.default_rng(0)
    tries = 4000
    continuous, ties, plain = [], [], []
    for _ in range(tries):
        scores = rng.normal(size=n + 1)
        continuous.append(Conformal(scores[:-1]).alarms(scores[-1:], alpha)[0])
        ties.append(Conformal(scores[:-1].round()).alarms(scores[-1:].round(), alpha)[0])
        plain.append(scores[-1] > np.quantile(scores[:-1], 1 - alpha))
    exact = np.floor(alpha * (n + 1) + 1e-9) / (n + 1)
    se = np.sqrt(exact * (1 - exact) / tries)
    assert abs(np.mean(continuous) - exact) < 4 * se
    assert np.mean(ties) < exact + 3 * se
    assert np.mean(plain) > np.mean(continuous)


def test_too_few_rows_for_an_alarm() -> None:
    with pytest.raises(InputError, match=r"at least 99 rows"):
        Conformal(np.arange(98.0)).alarms([1e9], 0.01)
    with pytest.raises(InputError, match="alpha=1.5"):
        Conformal(np.arange(98.0)).alarms([1e9], 1.5)
    with pytest.raises(InputError, match="0 scores"):
        Conformal(np.array([]))
    with pytest.raises(InputError, match="1 of 2 scores are NaN"):
        Conformal(np.arange(98.0)).p_values([np.nan, 1.0])
    assert Conformal(np.arange(3.0)).p_values([np.inf]) == 0.25


def test_scores_are_the_density_in_the_columns_own_units(detector: VAEOutlierDetector) -> None:
    """Beside the Gaussian that made the rows, mixed with independent columns: without the scaling's volume more than 4 nats off."""
    X = table(1000, 1)
    scale = np.diag([1.0, 100.0, 0.1])
    exact = multivariate_normal([0.0, 1000.0, 10.0], scale @ MIX.T @ MIX @ scale).logpdf(X)
    columns = norm.logpdf(X, detector.columns_.loc, detector.columns_.scale).sum(1)
    exact = np.logaddexp(exact, columns) - np.log(2)
    found = detector.score_samples(X)
    assert -0.05 < (exact - found).mean() < 0.5  # KL(p || model), which is positive but for the sampling error of 1000 rows
    assert spearmanr(exact, found).statistic > 0.85
    np.testing.assert_array_equal(found, detector.score_samples(X))


def test_a_coarse_scale_is_a_density_too() -> None:
    """Its log p(x) of a column by itself is at most that of N(0, scale^2) at its mean, and its integral over x is 1."""
    X = np.random.default_rng(0).normal(size=(300, 1)) * 50 + 7
    settings = {"hidden_layer_sizes": (8,), "max_iter": 100, "n_samples": 256, "random_state": 0}
    coarse = VAEOutlierDetector(n_components=1, scale=1.0, tails=0.0, **settings).fit(X)
    grid = np.linspace(-1000, 1000, 201)[:, None]
    density = np.exp(coarse.score_samples(grid))
    assert 10 * density.sum() == pytest.approx(1, abs=0.05) and density.max() <= 1 / (np.sqrt(2 * np.pi) * X.std()) * 1.001


def test_the_value_that_does_not_fit_is_named(detector: VAEOutlierDetector) -> None:
    """Columns 1 and 2 go together: 1 alone is ordinary, and so is 2. Beside the conditionals of the exact mixture."""
    X = np.array([[0.0, 1000.0, 10.0], [0.0, 1000.0, 11.0], [0.0, 1000.0, 12.0]])
    scale = np.diag([1.0, 100.0, 0.1])
    loc, cov = np.array([0.0, 1000.0, 10.0]), scale @ MIX.T @ MIX @ scale

    def log_p(columns: list[int]) -> np.ndarray:
        joint = multivariate_normal(loc[columns], cov[np.ix_(columns, columns)]).logpdf(X[:, columns])
        alone = norm.logpdf(X[:, columns], loc[columns], np.sqrt(np.diag(cov))[columns]).sum(1)
        return np.logaddexp(joint, alone) - np.log(2)

    exact = np.stack([log_p([j for j in range(3) if j != d]) - log_p([0, 1, 2]) for d in range(3)], 1)
    parts = detector.explain(X)
    assert parts.shape == (3, 3)
    assert parts[2].argmax() == 2 and parts[1, 2] > parts[0, 2] + 3
    np.testing.assert_allclose(parts[1:], exact[1:], atol=1.0)
    missing = X.copy()
    missing[:, 0] = np.nan
    assert (detector.explain(missing)[:, 0] == 0).all()


def test_an_extreme_row_is_explained(detector: VAEOutlierDetector) -> None:
    X = np.array([[0.0, 1e300, 10.0], [0.0, 1000.0, 10.0]])
    models = detector.models_
    for several in (models, models * 2):
        detector.models_ = several
        parts = detector.explain(X)
        assert not np.isnan(parts).any() and parts[0].argmax() == 1
    detector.models_ = models


def test_alarms_on_rows_of_the_same_kind_are_few(detector: VAEOutlierDetector) -> None:
    with pytest.raises(InputError, match="calibrate"):
        detector.p_values(table(3, 2))
    detector.calibrate(table(999, 2))
    assert abs(detector.alarms(table(2000, 3), alpha=0.05).mean() - 0.05) < 0.03
    assert detector.alarms([[9.0, 0.0, 10.0]], alpha=0.01).all()


def test_what_is_an_outlier_does_not_depend_on_the_units_where_entries_are_missing() -> None:
    X, factor = table(300, 6), np.array([1e6, 1e-6, 1e3])
    X = np.where(np.random.default_rng(0).random(X.shape) < 0.3, np.nan, X)
    fitted, held, new = X[:150], X[150:225], X[225:]
    small = VAEOutlierDetector(n_components=2, hidden_layer_sizes=(8,), max_iter=60, n_samples=32, random_state=0)
    here = clone(small).fit(fitted).calibrate(held)
    there = clone(small).fit(fitted * factor).calibrate(held * factor)
    np.testing.assert_array_equal(here.predict(new), there.predict(new * factor))
    np.testing.assert_allclose(here.decision_function(new), there.decision_function(new * factor), atol=1e-3)
    np.testing.assert_allclose(here.p_values(new), there.p_values(new * factor), atol=0.03)  # rounding may change one place
    assert 0 < (there.predict(fitted * factor) == -1).mean() < 0.2
    complete = table(5, 7)
    np.testing.assert_allclose(here.decision_function(complete), here.score_samples(complete) - here.offset_, rtol=1e-12)


def test_a_new_fit_forgets_the_rows_it_was_calibrated_by() -> None:
    small = VAEOutlierDetector(n_components=2, hidden_layer_sizes=(8,), max_iter=10, n_samples=16, random_state=0)
    small.fit(table(50, 0)).calibrate(table(50, 1)).fit(table(50, 2))
    with pytest.raises(InputError, match="calibrate"):
        small.p_values(table(3, 2))


def test_a_stream_is_read_chunk_by_chunk(detector: VAEOutlierDetector) -> None:
    X, read = table(30, 4), []

    def chunks():
        for start in range(0, 30, 10):
            read.append(start)
            yield X[start : start + 10]

    stream = detector.score_stream(chunks())
    assert not read
    first = next(stream)
    assert read == [0]
    np.testing.assert_allclose(np.concatenate([first, *stream]), detector.score_samples(X), rtol=1e-12)


def test_the_mixture_of_several_models_lies_between_them() -> None:
    X = table(100, 5)
    several = VAEOutlierDetector(n_components=2, tails=0.0, hidden_layer_sizes=(8,), max_iter=50, n_estimators=3, random_state=0).fit(X)
    mixture = several.score_samples(X)
    models, each = several.models_, []
    for model in models:
        several.models_ = [model]
        each.append(several.score_samples(X))
    np.testing.assert_allclose(mixture, np.logaddexp.reduce(each, 0) - np.log(4), rtol=1e-12)


def test_anomalies_among_the_fitted_rows_are_left_out_of_training() -> None:
    """A tenth of the rows in one place far away: learned as a group of their own, or left out and strange."""
    rng = np.random.default_rng(0)
    X = np.r_[rng.normal(size=(450, 4)), rng.normal(size=(50, 4)) * 0.1 + 4]
    gap = {}
    for trim in (0.0, 0.2):
        fitted = VAEOutlierDetector(trim=trim, tails=0.0, hidden_layer_sizes=(16,), max_iter=400, random_state=0).fit(X)
        scores = fitted.score_samples(X)
        gap[trim] = scores[:450].mean() - scores[450:].mean()
    assert gap[0.2] > gap[0.0] + 2


def test_of_ordinary_rows_all_are_learned_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """What training is given: the rows, and the objective. A ``blur`` or ``trim`` that is given stands, whatever ``novelty`` says."""
    seen = []

    def watched(model: VAE, batch: Batch, plan: Plan) -> int:
        seen.append((batch.size, plan.objective))
        return train(model, batch, plan)

    monkeypatch.setattr("vaekit.apps.base.train", watched)
    X = table(100, 9)
    small = VAEOutlierDetector(n_components=2, hidden_layer_sizes=(8,), max_iter=2, n_samples=4, random_state=0)
    suspicious = {"novelty": True, "blur": 0.5, "trim": 0.3}
    for given in ({}, {"novelty": True}, {"blur": 0.0, "trim": 0.0}, suspicious):
        clone(small).set_params(**given).fit(X)
    (suspect, blurred), (every, plain), (untrimmed, sharp), (most, both) = seen
    assert (suspect, every, untrimmed, most) == (85, 100, 100, 70)
    assert isinstance(blurred, Blurred) and blurred.scale == 0.8 and isinstance(blurred.objective, ELBO)
    assert isinstance(plain, IWAE) and isinstance(sharp, ELBO)
    assert isinstance(both, Blurred) and both.scale == 0.5 and isinstance(both.objective, IWAE)


def test_ordinary_rows_are_learned_more_closely() -> None:
    """Beside the density of two groups, one of them small and far out: left out as suspect, or learned as ordinary."""
    rng = np.random.default_rng(0)

    def groups(rows: int) -> np.ndarray:
        return np.where(rng.random((rows, 1)) < 0.08, 6.0, 0.0) + rng.normal(size=(rows, 3)) * 0.5

    X, new = groups(600), groups(2000)
    far = new.mean(1) > 3
    centre = [norm.logpdf(new, loc, 0.5).sum(1) for loc in (0.0, 6.0)]
    exact = np.logaddexp(np.log(0.92) + centre[0], np.log(0.08) + centre[1])
    off = {}
    for novelty in (False, True):
        fitted = VAEOutlierDetector(novelty=novelty, tails=0.0, scale=0.25, hidden_layer_sizes=(16,), max_iter=400, random_state=0).fit(X)
        found = exact - fitted.score_samples(new)
        off[novelty] = found.mean(), found[far].mean()
    assert off[True][0] < 1.0  # log 2 of it the share of the background
    assert off[False][0] > off[True][0] + 1 and off[False][1] > off[True][1] + 8


def test_the_number_of_steps_is_that_of_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = Batch(torch.randn(200, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    found = []

    def watched(*args, **settings):
        found.append(fit(*args, **settings))
        return found[-1]

    monkeypatch.setattr("vaekit.apps.network.fit", watched)
    plan = Plan(ELBO(), 600, 32, 0.05, False, 0.2, 2, 0)  # so fast that it gets worse
    steps = train(build(heads.GaussianFixed(2, 0.5), StandardNormal, 2, [64], seed=0), batch, plan)
    assert steps == found[0].best_step < found[0].step
    assert train(build(heads.GaussianFixed(2, 0.5), StandardNormal, 2, [8], seed=0), batch, replace(plan, held_out=0.0)) == found[1].step


def test_the_background_is_independent_normal_columns() -> None:
    """Its evidence and its explanations are those of scipy's density, with one sample as with many, and with entries missing."""
    x = np.random.default_rng(0).normal(size=(6, 4)) * [1.0, 10.0, 1.0, 1e3]
    mask = np.random.default_rng(1).random(x.shape) < 0.6
    parts = np.where(mask, norm.logpdf(x), 0.0)
    batch = Batch(torch.from_numpy(np.where(mask, x, np.nan)), mask=torch.from_numpy(mask))
    for samples in (1, 16):
        np.testing.assert_allclose(log_evidence(background(4).double(), batch, samples, 0), parts.sum(1), rtol=1e-12)
        found = explained(background(4).double(), batch, samples, 0)
        np.testing.assert_allclose(found.parts, parts, rtol=1e-9, atol=1e-9)


def test_no_row_is_less_likely_than_its_share_of_the_background() -> None:
    X = table(200, 8)
    one = VAEOutlierDetector(n_components=2, tails=0.0, hidden_layer_sizes=(8,), max_iter=50, random_state=0).fit(X)
    far = X.mean(0) + X.std(0) * np.array([[20.0, 0, 0], [0, 0, -40.0], [0, 0, 0]])
    least = norm.logpdf(far, X.mean(0), X.std(0)).sum(1) - np.log(2)
    found = one.score_samples(far)
    assert (found >= least - 1e-9).all()
    np.testing.assert_allclose(found[:2], least[:2], rtol=1e-9)  # the network gives them nothing
    assert found[2] > least[2] + 0.1


def test_the_rows_in_the_middle_are_kept() -> None:
    x = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, -2.5], [1.0, 1.0], [5.0, 5.0]], dtype=torch.float64)
    assert central(Batch(x), 0.4).tolist() == [True, False, True, True, False]
    assert central(Batch(x), 0.39).tolist() == [True, True, True, True, False]  # rounded down
    assert central(Batch(x), 0.0).all()
    mask = torch.tensor([[True, True], [True, True], [False, True], [True, True], [False, False]])
    found = central(Batch(x, mask=mask), 0.2).tolist()
    assert found == [True, True, False, True, True]  # 6.25 an entry, beside 4.5


@pytest.mark.parametrize("missing", [False, True])
def test_what_is_learned_is_the_density_of_the_blurred_rows(missing: bool) -> None:
    """Rows of variance 1 in one column, blurred by 1: variance 2, and the mean of the other given it is rho / 2 times it, not rho."""
    rng = np.random.default_rng(0)
    u = rng.normal(size=(4000, 1))
    x = torch.from_numpy(np.c_[u, 0.8 * u + 0.6 * rng.normal(size=u.shape)])
    mask = torch.from_numpy(rng.random(x.shape) < 0.8) if missing else None
    model = build(heads.Gaussian(2, min_scale=0.1), StandardNormal, 2, [16], seed=0)
    bound = IWAE(5) if missing else ELBO()
    train(model, Batch(x, mask=mask), Plan(Blurred(bound, 1.0), 1500, 128, 5e-3, True, 0.0, 1, 0))
    point = np.array([[0.0, 0.0], [2.0, 2.0], [2.0, -2.0]])
    exact = multivariate_normal([0, 0], [[2.0, 0.8], [0.8, 2.0]]).logpdf(point)
    np.testing.assert_allclose(log_evidence(model, Batch(torch.from_numpy(point)), 512, 0), exact, atol=0.2)


def test_a_blur_is_a_number() -> None:
    for wrong in (-1, float("nan")):
        with pytest.raises(InputError, match=f"scale={wrong}"):
            Blurred(ELBO(), wrong)
