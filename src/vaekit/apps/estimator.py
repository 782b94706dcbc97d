r"""A variational autoencoder as a scikit-learn estimator: codes, densities, samples and missing values of numeric tables.

.. math:: p(x) = \int N(z; 0, I) \prod_d p(x_d | z) \, dz, \qquad
          \log p(x_{obs}) \approx \log \frac1K \sum_k \frac{p(x_{obs} | z_k) p(z_k)}{q(z_k | x_{obs})}

NaN means not observed: such entries are never filled in. The encoder is told which they are, training maximises the bound on the observed
entries alone (MIWAE: Mattei and Frellsen, "MIWAE: Deep Generative Modelling and Imputation of Incomplete Data Sets", ICML 2019), and
scores are the density of what was observed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin, _fit_context
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, check_is_fitted
from torch import nn

from vaekit import heads, priors
from vaekit.apps.base import MIN_SCALE, BaseVAE, frame_of
from vaekit.apps.columns import Array
from vaekit.dist import centre
from vaekit.errors import InputError
from vaekit.models import VAE
from vaekit.tensors import seed_noise

__all__ = ["VAETransformer"]


class VAETransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseVAE):
    r"""Latent means, log-densities, samples and imputations of a numeric table with a variational autoencoder.

    The columns are standardised by their observed entries. q(z | x) and p(x | z) are Gaussian with mean and variance from a network
    each; nats are of the data in their own units.

    Args:
        n_components: dimensions of z; None for `vaekit.apps.base.latent_size` of the number of columns.
        hidden_layer_sizes: widths of the encoder's layers, and of the decoder's.
        n_samples: K, importance samples behind each score; more make it larger and closer to log p(x).
        max_iter: steps of the optimiser, rounded up to whole passes over few rows; None for `vaekit.apps.base.training_steps` of the
            number of rows.
        batch_size: rows a step.
        learning_rate: of Adam, at the start; it falls to 0 along half a cosine.
        early_stopping: keep the weights that were best on rows held out, where there are enough of them (at least 20), and stop when
            they no longer get better.
        validation_fraction: share of the rows that is held out.
        n_iter_no_change: looks at these rows (about every 50 steps) without a better bound, after which training stops.
        random_state: seed of initial weights, training and scores.

    Attributes:
        models_: the trained `vaekit.VAE`, a list of one.
        n_components_: dimensions of z.
        n_iter_: steps behind the weights that were kept, of several models the most.
        n_features_in_, feature_names_in_: as everywhere in scikit-learn.

    >>> X = np.random.default_rng(0).normal(size=(100, 3)) @ np.array([[1.0, 2, 3], [0, 1, 1], [0, 0, 1]]) + 5
    >>> X[0, 1] = np.nan
    >>> vae = VAETransformer(n_components=2, max_iter=100, random_state=0).fit(X)
    >>> vae.transform(X).shape, vae.score_samples(X).shape, vae.sample(7).shape, bool(np.isnan(vae.impute(X)).any())
    ((100, 2), (100,), (7, 3), False)
    """

    def __init__(
        self,
        n_components: int | None = None,
        *,
        hidden_layer_sizes: Sequence[int] = (64, 64),
        n_samples: int = 128,
        max_iter: int | None = None,
        batch_size: int = 128,
        learning_rate: float = 2e-3,
        early_stopping: bool = True,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_components = n_components
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
        return heads.Gaussian(size, min_scale=MIN_SCALE)

    def _prior(self, latent: int) -> nn.Module:
        return priors.StandardNormal(latent)

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Learn from the rows ``X [N, D]``, NaN where nothing was observed; ``y`` is not looked at.

        Raises:
            InputError: a column without any value.
        """
        rows = self._rows(X, reset=True)
        self._begin(rows, 1)
        self._framed = frame_of(X) is not None
        self._train(rows, self._steps(len(rows)), stop_early=self.early_stopping)
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: ArrayLike, y: object = None) -> Self:
        """One more pass over ``X``, from the weights as they are. The first call fixes the columns' scales by its rows: let it have many.

        Adam's averages begin anew at each call, and no rows are held out.
        """
        first = not self.__sklearn_is_fitted__()
        rows = self._rows(X, reset=first)
        if first:
            self._framed = frame_of(X) is not None
            self._begin(rows, 1)
        self._train(rows, -(-len(rows) // self.batch_size), stop_early=False, anneal=False)
        return self

    def transform(self, X: ArrayLike) -> Array:
        """Means of q(z | x_obs), ``[N, n_components_]``."""
        codes: Array = self._model.embed(self._batch(X)).numpy()
        return codes

    def inverse_transform(self, X: ArrayLike) -> Array:
        """E[x | z] of codes z ``[N, n_components_]``, in the columns' own units; of codes in a DataFrame a DataFrame.

        Raises:
            InputError: codes of another width than ``n_components_``.
        """
        check_is_fitted(self)
        z = check_array(X, dtype=np.float64)
        if z.shape[1] != self.n_components_:
            raise InputError(f"codes of {z.shape[1]} numbers were given and this model has {self.n_components_} latent dimensions")
        with torch.no_grad():
            x = centre(self._model.likelihood(torch.tensor(z).unsqueeze(0)))[0]
        return self._out(self.columns_.decode(x), frame_of(X))

    def score(self, X: ArrayLike, y: object = None) -> float:
        """Mean of `score_samples`, nats a row."""
        return float(self.score_samples(X).mean())

    def sample(self, n_samples: int = 1) -> Array:
        """New rows x ~ p(x), ``[n_samples, D]``, other ones at each call but for a ``random_state``; a DataFrame after a fit on one.

        Raises:
            InputError: ``n_samples`` below 1.
        """
        check_is_fitted(self)
        if n_samples < 1:
            raise InputError(f"sample({n_samples}): at least 1 row is needed")
        with torch.random.fork_rng(devices=[]):
            seed_noise(int(check_random_state(self.random_state).randint(2**31 - 1)), torch.device("cpu"))
            x = self._model.sample(n_samples, mean=False)
        frame = sys.modules["pandas"].DataFrame if self._framed else None
        return self._out(self.columns_.decode(x), None if frame is None else frame(index=range(n_samples)))

    @property
    def _model(self) -> VAE:
        check_is_fitted(self)
        return self.models_[0]

    @property
    def _n_features_out(self) -> int:
        return self.n_components_
