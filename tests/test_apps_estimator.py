"""The scikit-learn estimators: scikit-learn's own checks, whole, and what the checks do not look at."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sklearn.base import BaseEstimator
from sklearn.utils.estimator_checks import parametrize_with_checks

from vaekit.apps.anomaly import VAEOutlierDetector
from vaekit.apps.estimator import VAETransformer

SMALL = {"max_iter": 10, "hidden_layer_sizes": (8,), "n_samples": 16}


@parametrize_with_checks([VAETransformer(**SMALL), VAEOutlierDetector(**SMALL, n_estimators=2)])
def test_scikit_learns_checks(estimator: BaseEstimator, check: Callable[[BaseEstimator], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")  # else the check of array-API input is skipped
    check(estimator)
