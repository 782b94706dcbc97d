"""What the estimators share: parameters, columns, training, scores and imputations."""

from __future__ import annotations

import abc
import sys
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils import Tags, check_random_state
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

from vaekit import heads
from vaekit.apps.blurred import Blurred
from vaekit.apps.columns import Array, Numeric
from vaekit.apps.impute import impute
from vaekit.apps.network import Plan, build, train
from vaekit.apps.weighted import explained, given_rest, log_evidence
from vaekit.objectives import ELBO, IWAE
from vaekit.objectives.core import Objective
from vaekit.tensors import logmeanexp
from vaekit.types import Batch

__all__ = ["MIN_SCALE", "BaseVAE", "Imputed", "frame_of", "latent_size", "training_steps"]

TRAINED_WITH = 5
"""Importance samples of the bound, where it is of several."""
IMPUTED_WITH = 512
"""Importance samples behind an imputation, at least."""
MIN_SCALE = 0.1
"""Smallest standard deviation of p(x_d | z), in the column's own."""


def latent_size(columns: int) -> int:
    """Dimensions of z by default: half as many as columns, from 2 to 16."""
    return max(2, min(columns // 2, 16))


def training_steps(rows: int) -> int:
    """Steps by default: 4 for each row, from 300 to 2000."""
    return max(300, min(4 * rows, 2000))


def frame_of(X: object) -> Any:
    """X where it is a pandas DataFrame, else None; pandas is not imported for it."""
    pandas = sys.modules.get("pandas")
    return X if pandas is not None and isinstance(X, pandas.DataFrame) else None


class Imputed(NamedTuple):
    """What `VAETransformer.impute_distribution` found, in the columns' own units; observed entries as they were.

    Attributes:
        mean: missing entries at their conditional mean, ``[N, D]``.
        draws: joint draws, ``[M, N, D]``.
        lower, upper: ends of the intervals, ``[N, D]``, or None.
        ess: effective number of importance samples behind each row, ``[N]``.
    """

    mean: Array
    draws: Array
    lower: Array | None
    upper: Array | None
    ess: Array


class BaseVAE(BaseEstimator, abc.ABC):
    """What the estimators share: columns, training and scores. An estimator adds its parameters and what its kind does.

    Implementing one:
        1. List the parameters in ``__init__``, as scikit-learn asks; those below are read here.
        2. Give ``_head(size)``, the likelihood of that many standardised columns, and ``_prior(latent)``, p(z); and ``_hidden``, the
           share of the entries that encoders are not shown in training, where it is not 0.
    """

    _hidden = 0.0

    n_components: int | None
    hidden_layer_sizes: Sequence[int]
    n_samples: int
    max_iter: int | None
    batch_size: int
    learning_rate: float
    early_stopping: bool
    validation_fraction: float
    n_iter_no_change: int
    random_state: int | np.random.RandomState | None

    _parameter_constraints: dict[str, list[Any]] = {  # noqa: RUF012
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "hidden_layer_sizes": ["array-like"],
        "n_samples": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    @abc.abstractmethod
    def _head(self, size: int) -> heads.Head: ...

    @abc.abstractmethod
    def _prior(self, latent: int) -> nn.Module: ...

    def _objective(self, batch: Batch, *, weighted: bool, blur: float) -> Objective:
        """The bound on log p(x) of the rows: of K samples where that is asked for, or entries are missing (MIWAE); of blurred rows."""
        bound: Objective = IWAE(TRAINED_WITH) if weighted or batch.mask is not None else ELBO()
        return bound if blur == 0 else Blurred(bound, blur)

    def __sklearn_is_fitted__(self) -> bool:
        return "models_" in vars(self)  # a fit that was refused leaves n_features_in_ behind

    def _rows(self, X: ArrayLike, *, reset: bool) -> Array:
        rows: Array = validate_data(self, X, reset=reset, dtype=np.float64, ensure_all_finite="allow-nan")
        return rows

    def _begin(self, X: Array, count: int) -> None:
        """Columns and ``count`` untrained models."""
        self._random = check_random_state(self.random_state)
        columns = Numeric.of(X)
        latent = latent_size(columns.size) if self.n_components is None else self.n_components
        self.columns_, self.n_components_, self.n_iter_ = columns, latent, 0
        layers = [int(width) for width in self.hidden_layer_sizes]
        self.models_ = [build(self._head(columns.size), self._prior, latent, layers, self._seed(), hide=self._hidden) for _ in range(count)]
        self.noise_seed_ = self._seed()

    def _seed(self) -> int:
        return int(self._random.randint(2**31 - 1))

    def _train(self, X: Array, steps: int, *, stop_early: bool, anneal: bool = True, weighted: bool = False, blur: float = 0.0) -> None:
        batch = self.columns_.encode(X)
        done = []
        for model in self.models_:
            plan = Plan(
                objective=self._objective(batch, weighted=weighted, blur=blur),
                steps=steps,
                batch_size=self.batch_size,
                learning_rate=self.learning_rate,
                anneal=anneal,
                held_out=self.validation_fraction if stop_early else 0.0,
                patience=self.n_iter_no_change,
                seed=self._seed(),
            )
            done.append(train(model, batch, plan))
        self.n_iter_ += max(done)

    def _steps(self, rows: int) -> int:
        return training_steps(rows) if self.max_iter is None else self.max_iter

    def _batch(self, X: ArrayLike) -> Batch:
        check_is_fitted(self)
        return self.columns_.encode(self._rows(X, reset=False))

    def score_samples(self, X: ArrayLike) -> Array:
        """log p(x) of the observed entries of each row, ``[N]``: nats, a density in the columns' own units.

        By ``n_samples`` importance samples with noise that is the same for every row and every call, so that a row's score depends on the
        row alone. Of several models it is the density of their mixture with equal weights.
        """
        check_is_fitted(self)
        return self._scored(self._rows(X, reset=False))

    def _scored(self, rows: Array) -> Array:
        batch = self.columns_.encode(rows)
        found: Array = (self._evidence(batch) + self.columns_.log_volume(batch).sum(1)).numpy()
        return found

    def _evidence(self, batch: Batch) -> torch.Tensor:
        """log p(u_obs) of the standardised columns, ``[N]``."""
        return logmeanexp(torch.stack([log_evidence(model, batch, self.n_samples, self.noise_seed_) for model in self.models_]))

    def _parts(self, batch: Batch) -> torch.Tensor:
        """log p(u_d | u_rest), ``[N, D]``; of several models weighted by how well each explains the row's other entries."""
        each = [explained(model, batch, self.n_samples, self.noise_seed_) for model in self.models_]
        return given_rest(logmeanexp(torch.stack([e.log_px for e in each])), logmeanexp(torch.stack([e.rest for e in each])))

    def _explained(self, X: ArrayLike) -> Array:
        """-log p(x_d | x_rest), ``[N, D]``."""
        batch = self._batch(X)
        found: Array = -(self._parts(batch) + self.columns_.log_volume(batch)).numpy()
        return found

    def impute(self, X: ArrayLike) -> Array:
        """``X`` with its missing entries at their conditional means E[x_mis | x_obs]; a DataFrame for a DataFrame."""
        found: Array = self.impute_distribution(X).mean
        return self._out(found, frame_of(X))

    def impute_distribution(self, X: ArrayLike, *, draws: int = 0, coverage: float | None = None) -> Imputed:
        """Conditional means, joint draws and intervals of the missing entries, in the columns' own units; see `vaekit.apps.impute`.
        ``draws`` and ``coverage`` as there."""
        check_is_fitted(self)
        rows = self._rows(X, reset=False)
        k = max(self.n_samples, IMPUTED_WITH)
        found = impute(self.models_, self.columns_.encode(rows), samples=k, draws=draws, coverage=coverage, seed=self.noise_seed_)

        def own(part: torch.Tensor) -> Array:
            """In the columns' units, the observed entries to the last digit."""
            return np.where(np.isnan(rows), self.columns_.decode(part), rows)

        lower, upper = (None if end is None else own(end) for end in (found.lower, found.upper))
        return Imputed(own(found.mean), own(found.draws), lower, upper, found.ess.numpy())

    def _out(self, values: Array, frame: Any) -> Any:
        """As a DataFrame with the index of ``frame``, where there is one."""
        if frame is None:
            return values
        names = vars(self).get("feature_names_in_")
        return sys.modules["pandas"].DataFrame(values, index=frame.index, columns=names)
