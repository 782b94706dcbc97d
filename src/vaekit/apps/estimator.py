r"""A variational autoencoder as a scikit-learn estimator: codes, densities, samples and missing values of numeric tables.

.. math:: p(x) = \int N(z; 0, I) \prod_d p(x_d | z) \, dz, \qquad
          \log p(x_{obs}) \approx \log \frac1K \sum_k \frac{p(x_{obs} | z_k) p(z_k)}{q(z_k | x_{obs})}

NaN means not observed: such entries are never filled in. The encoder is told which they are, training maximises the bound on the observed
entries alone (MIWAE: Mattei and Frellsen, "MIWAE: Deep Generative Modelling and Imputation of Incomplete Data Sets", ICML 2019), and
scores are the density of what was observed.
"""

from __future__ import annotations

import abc
import sys
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin, _fit_context
from sklearn.utils import Tags, check_random_state
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from vaekit import heads
from vaekit.apps.columns import Array, Numeric
from vaekit.apps.impute import impute
from vaekit.apps.network import Plan, build, train
from vaekit.apps.weighted import explained, log_evidence
from vaekit.dist import centre
from vaekit.errors import InputError
from vaekit.models import VAE
from vaekit.objectives import ELBO, IWAE
from vaekit.tensors import logmeanexp, seed_noise
from vaekit.types import Batch

__all__ = ["BaseVAE", "Imputed", "VAETransformer", "latent_size", "training_steps"]

TRAINED_WITH = 5
"""Importance samples of the bound where entries are missing."""
IMPUTED_WITH = 512
"""Importance samples behind an imputation, at least."""
MIN_SCALE = 0.1
"""Smallest standard deviation of p(x_d | z), in the column's own."""


def latent_size(columns: int) -> int:
    """Dimensions of z by default: half as many as columns, from 2 to 16."""
    return max(2, min(columns // 2, 16))


def training_steps(rows: int) -> int:
    """Steps by default: 10 for each row, from 200 to 2000."""
    return max(200, min(10 * rows, 2000))


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
        2. Give ``_head(size)``: the likelihood of that many standardised columns.
    """

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

    def _rows(self, X: ArrayLike, *, reset: bool) -> Array:
        rows: Array = validate_data(self, X, reset=reset, dtype=np.float64, ensure_all_finite="allow-nan")
        return rows

    def _begin(self, X: Array, count: int) -> None:
        """Columns and ``count`` untrained models."""
        self._random = check_random_state(self.random_state)
        columns = Numeric.of(X)
        latent = latent_size(columns.size) if self.n_components is None else self.n_components
        layers = [int(width) for width in self.hidden_layer_sizes]
        self.columns_, self.n_components_, self.n_iter_ = columns, latent, 0
        self.models_ = [build(self._head(columns.size), latent, layers, self._seed()) for _ in range(count)]
        self.noise_seed_ = self._seed()

    def _seed(self) -> int:
        return int(self._random.randint(2**31 - 1))

    def _train(self, X: Array, steps: int, *, stop_early: bool, anneal: bool = True) -> None:
        batch = self.columns_.encode(X)
        for model in self.models_:
            plan = Plan(
                objective=IWAE(TRAINED_WITH) if batch.mask is not None else ELBO(),
                steps=steps,
                batch_size=self.batch_size,
                learning_rate=self.learning_rate,
                anneal=anneal,
                held_out=self.validation_fraction if stop_early else 0.0,
                patience=self.n_iter_no_change,
                seed=self._seed(),
            )
            done = train(model, batch, plan)
        self.n_iter_ += done

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
        each = torch.stack([log_evidence(model, batch, self.n_samples, self.noise_seed_) for model in self.models_])
        found: Array = (logmeanexp(each) + self.columns_.log_volume(batch).sum(1)).numpy()
        return found

    def _explained(self, X: ArrayLike) -> Array:
        """-log p(x_d | x_rest), ``[N, D]``; of several models weighted by how well each explains the row's other entries."""
        batch = self._batch(X)
        each = [explained(model, batch, self.n_samples, self.noise_seed_) for model in self.models_]
        log_px = torch.stack([e.log_px for e in each]).unsqueeze(-1)
        log_rest = log_px - torch.stack([e.parts for e in each])
        found: Array = -(logmeanexp(log_px) - logmeanexp(log_rest) + self.columns_.log_volume(batch)).numpy()
        return found


class VAETransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseVAE):
    r"""Latent means, log-densities, samples and imputations of a numeric table with a variational autoencoder.

    The columns are standardised by their observed entries. q(z | x) and p(x | z) are Gaussian with mean and variance from a network
    each; nats are of the data in their own units.

    Args:
        n_components: dimensions of z; None for `latent_size` of the number of columns.
        hidden_layer_sizes: widths of the encoder's layers, and of the decoder's.
        n_samples: K, importance samples behind each score; more make it larger and closer to log p(x).
        max_iter: steps of the optimiser, rounded up to whole passes over few rows; None for `training_steps` of the number of rows.
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
        n_iter_: steps done.
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

    def __sklearn_is_fitted__(self) -> bool:
        return "models_" in vars(self)

    def transform(self, X: ArrayLike) -> Array:
        """Means of q(z | x_obs), ``[N, n_components_]``."""
        codes: Array = self._model.embed(self._batch(X)).numpy()
        return codes

    def inverse_transform(self, X: ArrayLike) -> Array:
        """E[x | z] of codes z ``[N, n_components_]``, in the columns' own units; of codes in a DataFrame a DataFrame."""
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
        """New rows x ~ p(x), ``[n_samples, D]``, other ones at each call but for a ``random_state``; a DataFrame after a fit on one."""
        check_is_fitted(self)
        if n_samples < 1:
            raise InputError(f"sample({n_samples}): at least 1 row is needed")
        with torch.random.fork_rng(devices=[]):
            seed_noise(int(check_random_state(self.random_state).randint(2**31 - 1)), torch.device("cpu"))
            x = self._model.sample(n_samples, mean=False)
        frame = sys.modules["pandas"].DataFrame if self._framed else None
        return self._out(self.columns_.decode(x), None if frame is None else frame(index=range(n_samples)))

    def impute(self, X: ArrayLike) -> Array:
        """``X`` with its missing entries at their conditional means E[x_mis | x_obs]; a DataFrame for a DataFrame."""
        found: Array = self.impute_distribution(X).mean
        return self._out(found, frame_of(X))

    def impute_distribution(self, X: ArrayLike, *, draws: int = 0, coverage: float | None = None) -> Imputed:
        """Conditional means, joint draws and intervals of the missing entries, in the columns' own units; see `vaekit.apps.impute`."""
        check_is_fitted(self)
        rows = self._rows(X, reset=False)
        k = max(self.n_samples, IMPUTED_WITH)
        found = impute(self._model, self.columns_.encode(rows), samples=k, draws=draws, coverage=coverage, seed=self.noise_seed_)

        def own(part: torch.Tensor) -> Array:
            """In the columns' units, the observed entries to the last digit."""
            return np.where(np.isnan(rows), self.columns_.decode(part), rows)

        lower, upper = (None if end is None else own(end) for end in (found.lower, found.upper))
        return Imputed(own(found.mean), own(found.draws), lower, upper, found.ess.numpy())

    @property
    def _model(self) -> VAE:
        check_is_fitted(self)
        return self.models_[0]

    @property
    def _n_features_out(self) -> int:
        return self.n_components_

    def _out(self, values: Array, frame: Any) -> Any:
        """As a DataFrame with the index of ``frame``, where there is one."""
        if frame is None:
            return values
        names = vars(self).get("feature_names_in_")
        return sys.modules["pandas"].DataFrame(values, index=frame.index, columns=names)
