"""Missing values as a step of a scikit-learn pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import OneToOneFeatureMixin, TransformerMixin, _fit_context
from sklearn.utils._param_validation import Interval
from torch import nn

from vaekit import heads, priors
from vaekit.apps.base import MIN_SCALE, BaseVAE
from vaekit.apps.columns import Array

__all__ = ["VAEImputer", "steps_of_table"]

HIDDEN = 0.1
"""Share of the entries that the encoder is not shown in training, in the mean."""
PACE = 10.0
"""How much faster than a weight the logarithm of a column's scale is learned: a few hundred steps have to do."""


def steps_of_table(rows: int, columns: int) -> int:
    """Steps by default: one for every 8 entries of the table, from 300 to 2000.

    What a table can teach is in its entries, and not in its rows alone: a few thousand of them are soon learned by heart, and intervals are
    then too narrow for the entries that were missing. Tables of many columns need the long training, because their columns depend on each
    other in more ways.

    >>> steps_of_table(178, 13), steps_of_table(442, 10), steps_of_table(569, 30)
    (300, 552, 2000)
    """
    return max(300, min(rows * columns // 8, 2000))


class VAEImputer(OneToOneFeatureMixin, TransformerMixin, BaseVAE):
    r"""Missing entries (NaN) filled with their conditional means E[x_mis | x_obs], by the mixture of several variational autoencoders.

    An imputer as those of scikit-learn, for a pipeline: `transform` gives the table without holes. For draws and intervals see
    `impute_distribution`.

    p(x_d | z) is normal with a standard deviation that is the same for all z (`heads.GaussianEach`): a column that is constant but for a
    few values would otherwise have them explained by its variance, and their mean not learned. In training the encoder is not shown some
    of the observed entries (`vaekit.apps.network.Hide`).

    Args:
        n_components: dimensions of z; None for `vaekit.apps.base.latent_size` of the number of columns.
        n_estimators: models, each with its own initial weights, held-out rows and order of the data.
        max_iter: steps of the optimiser for each model, rounded up to whole passes over few rows; None for `steps_of_table`.
        early_stopping: as in `VAETransformer`, but not by default: with many entries missing no row can be spared, and the mixture of
            several models mends what each of them learned by heart.

    The other arguments are those of `VAETransformer`.

    >>> X = np.random.default_rng(0).normal(size=(100, 1)) * [1.0, 2.0, 3.0]
    >>> X[0, 1] = np.nan
    >>> VAEImputer(n_components=1, n_estimators=2, max_iter=50, random_state=0).fit_transform(X).shape
    (100, 3)
    """

    _parameter_constraints: dict[str, list[Any]] = {  # noqa: RUF012
        **BaseVAE._parameter_constraints,
        "n_estimators": [Interval(Integral, 1, None, closed="left")],
    }

    _hidden = HIDDEN

    def __init__(
        self,
        n_components: int | None = None,
        *,
        n_estimators: int = 5,
        hidden_layer_sizes: Sequence[int] = (128, 128),
        n_samples: int = 128,
        max_iter: int | None = None,
        batch_size: int = 128,
        learning_rate: float = 4e-3,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_components = n_components
        self.n_estimators = n_estimators
        self.hidden_layer_sizes = hidden_layer_sizes
        self.n_samples = n_samples
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.random_state = random_state

    def _head(self, size: int) -> heads.Head:
        return heads.GaussianEach(size, min_scale=MIN_SCALE, pace=PACE)

    def _prior(self, latent: int) -> nn.Module:
        return priors.StandardNormal(latent)

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Learn from the rows ``X [N, D]``, NaN where nothing was observed; ``y`` is not looked at.

        Raises:
            InputError: a column without any value.
        """
        rows = self._rows(X, reset=True)
        self._begin(rows, self.n_estimators)
        steps = steps_of_table(*rows.shape) if self.max_iter is None else self.max_iter
        self._train(rows, steps, stop_early=self.early_stopping)
        return self

    def transform(self, X: ArrayLike) -> Array:
        """``X [N, D]`` with its missing entries at their conditional means."""
        return self.impute_distribution(X).mean
