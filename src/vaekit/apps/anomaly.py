r"""Anomalies by density: how improbable a row is, which of its values make it so, and an alarm that is false at a known rate.

.. math:: s(x) = -\log p(x) \approx -\log \frac1K \sum_k \frac{p(x | z_k) p(z_k)}{q(z_k | x)}

The score is in nats and deterministic, not a reconstruction error: a row is strange too where it is rebuilt well from an improbable code.
Of ordinary rows two densities are learned, a close one and a coarse one, and

.. math:: s(x) = -\tfrac12 \log p(x) - \tfrac12 \log p_{coarse}(x), \qquad \int e^{-s(x)} dx \le 1

A close density tells rows apart from those between the groups of ordinary ones, a coarse one those that lie out on one side of all; a row
is strange that either finds very strange. It is their logarithmic opinion pool (Genest and Zidek, "Combining probability distributions",
Statistical Science 1986) but for the constant by which that is normalised. The integral is at most 1 by Cauchy and Schwarz, so that s is
still a number of nats that a code could spend on x; where only one density is learned it is -log p(x).

A threshold from the data that the model was fitted to alarms too rarely there and too often elsewhere. From n rows held out,

.. math:: p(x) = \frac{1 + \#\{i : s(x_i) \ge s(x)\}}{n + 1}, \qquad P(p(x) \le \alpha) \le \alpha

for every model, n and alpha, if x and the n rows are exchangeable (Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World",
2005; of outliers: Bates et al., "Testing for outliers with conformal p-values", Annals of Statistics 2023). The probability is over the n
rows too: given them, the rate of false alarms is itself random, about alpha +- sqrt(alpha (1 - alpha) / n).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import OutlierMixin, _fit_context
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted
from torch import nn

from vaekit import heads, priors
from vaekit.apps.background import background, central
from vaekit.apps.base import MIN_SCALE, BaseVAE
from vaekit.apps.columns import Array
from vaekit.errors import InputError

__all__ = ["Conformal", "VAEOutlierDetector"]

COMPONENTS = 20
"""Gaussians of which p(z) is a mixture, learned: groups of rows with nothing between them."""
BLUR, TRIM = 0.8, 0.1
"""Noise while training and share of the rows left out, where there may be anomalies among the fitted rows."""
COARSE = 2.0
"""Scale of the second density, where all fitted rows are ordinary."""


@dataclass(frozen=True, eq=False)
class Conformal:
    """Conformal p-values of scores that grow with strangeness, from those of n rows that the model has not seen.

    Args:
        scores: of the held-out rows, ``[n]``.

    Raises:
        InputError: no scores, or some that are not finite.

    >>> Conformal(np.array([1.0, 2.0, 3.0, 4.0])).p_values(np.array([0.0, 2.5, 9.0]))
    array([1. , 0.6, 0.2])
    """

    scores: Array

    def __post_init__(self) -> None:
        scores = np.sort(np.asarray(self.scores, dtype=np.float64).ravel())
        if len(scores) == 0 or not np.isfinite(scores).all():
            raise InputError(
                f"{len(scores)} scores to calibrate by, {int((~np.isfinite(scores)).sum())} of them not finite: give finite ones"
            )
        object.__setattr__(self, "scores", scores)

    def p_values(self, scores: ArrayLike) -> Array:
        """(1 + number of held-out scores at least as large) / (n + 1), of each score.

        Raises:
            InputError: a score is NaN, which is neither strange nor ordinary.
        """
        own = np.asarray(scores, dtype=np.float64)
        if np.isnan(own).any():
            raise InputError(f"{int(np.isnan(own).sum())} of {own.size} scores are NaN, which have no p-value: leave these rows out")
        larger = len(self.scores) - np.searchsorted(self.scores, own, side="left")
        found: Array = (1 + larger) / (len(self.scores) + 1)
        return found

    def alarms(self, scores: ArrayLike, alpha: float) -> NDArray[np.bool_]:
        """Whether each score's p-value is at most alpha: a false alarm with probability at most alpha.

        Raises:
            InputError: alpha outside (0, 1), or so small that n scores can never raise an alarm: 1 / (n + 1) is the least p-value.
        """
        if not 0 < alpha < 1:
            raise InputError(f"alpha={alpha}: a rate of false alarms lies between 0 and 1, as 0.01")
        n = len(self.scores)
        if alpha < 1 / (n + 1):
            raise InputError(
                f"alpha={alpha} with {n} held-out rows: no p-value can be below 1 / {n + 1}, so there would never be an alarm; "
                f"hold out at least {int(np.ceil(1 / alpha)) - 1} rows"
            )
        found: NDArray[np.bool_] = self.p_values(scores) <= alpha
        return found


class VAEOutlierDetector(OutlierMixin, BaseVAE):
    r"""Outliers of a numeric table: the rows of the lowest density under a variational autoencoder.

    NaN means not observed; a row is scored by what was. Names and signs are scikit-learn's: `score_samples` is log p(x) in nats, lower for
    stranger rows, and `predict` gives -1 for outliers. With a ``coarse`` density too, as where ``novelty``, it is the mean of both
    logarithms. `calibrate` with rows held out makes alarms of a known rate.

    Rows with different entries missing are compared by the density of their standardised entries, so that the columns' units change no
    decision, p-value or alarm. What remains is that of fewer observed entries the density is another, and most often higher: such a row
    has less to be strange by, and is called an outlier more seldom. Rows to calibrate by should miss entries as those to be judged do.

    Whether the fitted rows are all known to be ordinary changes how they are best learned: ``novelty`` says so, and what ``coarse``,
    ``blur`` and ``trim`` are where they are None.

    Args:
        n_components: dimensions of z; None for `vaekit.apps.base.latent_size` of the number of columns.
        contamination: share of the fitted rows that `predict` calls outliers, in (0, 0.5].
        scale: standard deviation of p(x_d | z), in the column's own; None for one that the network learns for each entry. The default is
            coarse on purpose: rows are strange that lie far from where most are. A learned scale gives a density nearer to that of the
            data, but it falls to next to nothing in columns that can be predicted exactly, which then decide the score alone.
        novelty: True where all fitted rows are known to be ordinary (novelty detection); False where there may be anomalies among them
            (outlier detection). Of ordinary rows all are learned, as closely as ``scale`` lets them: by the importance-weighted bound, and
            with ``blur`` and ``trim`` 0.
        coarse: ``scale`` of as many models again, whose log-density is averaged with that of the others; 0 for none. At a scale beyond
            the columns' own a decoder follows only what many columns share, so that this density falls off about as the squared distance
            from the middle does. None is 2 where ``novelty``, otherwise 0: a coarse density finds a group of anomalies within the range
            of the rows ordinary, and so finds fewer where the close one is coarse already.
        blur: standard deviation of noise that is added to each entry while training, in the column's own, so that the density does not
            fall off right behind the last row (`vaekit.apps.blurred`); 0 for the rows as they are. None is 0 where ``novelty``, otherwise
            0.8, as large as ``scale`` by default: a decoder cannot tell rows apart that lie closer than that, and what it learns is the
            rows' density at that resolution.
        trim: share of the rows that training leaves out, those furthest from the middle (`vaekit.apps.background.central`). A group of
            anomalies among the fitted rows is dense, so that a model as flexible as this would learn it as one more group of rows; the
            plainest density cannot. None is 0 where ``novelty``, otherwise 0.1.
        n_estimators: models of each density, each with its own initial weights and order of the data; a density is that of their mixture.

    One more component of the close mixture, with the weight of one model, is `vaekit.apps.background`: independent normal columns. Far
    from all rows a network says whatever it continues with; there the background has the word, and a row is the stranger the further out
    it lies.

    The other arguments are those of `VAETransformer`.

    Attributes:
        offset_: what `decision_function` subtracts: the ``contamination`` quantile of the fitted rows.
        conformal_: after `calibrate`.

    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(200, 3)) @ np.array([[1.0, 2, 3], [0, 1, 1], [0, 0, 1]])
    >>> detector = VAEOutlierDetector(n_components=2, max_iter=200, random_state=0).fit(X[:150])
    >>> detector.predict([[0.0, 0.0, 0.0], [9.0, 9.0, -9.0]])
    array([ 1, -1])
    >>> detector.calibrate(X[150:]).alarms([[0.0, 0.0, 0.0], [9.0, 9.0, -9.0]], alpha=0.05)
    array([False,  True])
    """

    _parameter_constraints: dict[str, list[Any]] = {  # noqa: RUF012
        **BaseVAE._parameter_constraints,
        "contamination": [Interval(Real, 0, 0.5, closed="right")],
        "scale": [Interval(Real, 0, None, closed="neither"), None],
        "novelty": ["boolean"],
        "coarse": [Interval(Real, 0, None, closed="left"), None],
        "blur": [Interval(Real, 0, None, closed="left"), None],
        "trim": [Interval(Real, 0, 1, closed="left"), None],
        "n_estimators": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        n_components: int | None = None,
        *,
        contamination: float = 0.1,
        scale: float | None = 0.8,
        novelty: bool = False,
        coarse: float | None = None,
        blur: float | None = None,
        trim: float | None = None,
        n_estimators: int = 1,
        hidden_layer_sizes: Sequence[int] = (64, 64),
        n_samples: int = 128,
        max_iter: int | None = None,
        batch_size: int = 128,
        learning_rate: float = 6e-3,
        early_stopping: bool = True,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_components = n_components
        self.contamination = contamination
        self.scale = scale
        self.novelty = novelty
        self.coarse = coarse
        self.blur = blur
        self.trim = trim
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
        return heads.Gaussian(size, min_scale=MIN_SCALE) if self.scale is None else heads.GaussianFixed(size, self.scale)

    def _prior(self, latent: int) -> nn.Module:
        return priors.GaussianMixture(latent, COMPONENTS)

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Learn the density of the rows ``X [N, D]``, NaN where nothing was observed; ``y`` is not looked at.

        Raises:
            InputError: a column without any value.
        """
        if "conformal_" in vars(self):  # scores of another model
            del self.conformal_
        rows = self._rows(X, reset=True)
        self._begin(rows, self.n_estimators)
        coarse, blur, trim = (COARSE, 0.0, 0.0) if self.novelty else (0.0, BLUR, TRIM)
        coarse = coarse if self.coarse is None else self.coarse
        if coarse > 0:
            self.coarse_ = self._untrained(lambda size: heads.GaussianFixed(size, coarse), self.n_estimators)
        kept = central(self.columns_.encode(rows), trim if self.trim is None else self.trim)
        self._train(
            rows[kept],
            self._steps(int(kept.sum())),
            stop_early=self.early_stopping,
            weighted=self.novelty,
            blur=blur if self.blur is None else self.blur,
        )
        self.models_.append(background(rows.shape[1]).double())
        self.offset_ = float(np.percentile(self._compared(rows), 100 * self.contamination))
        return self

    def _compared(self, rows: Array) -> Array:
        """`score_samples` of a complete row; of others with the volume of all columns too, which is then the same for every row."""
        found: Array = self._evidence(self.columns_.encode(rows)).numpy() - np.log(self.columns_.scale).sum()
        return found

    def _strangeness(self, X: ArrayLike) -> Array:
        check_is_fitted(self)
        return -self._compared(self._rows(X, reset=False))

    def decision_function(self, X: ArrayLike) -> Array:
        """Negative for outliers, nats: of a complete row `score_samples` minus ``offset_``; of others the same with a density of 1 / s_d
        for each missing entry, s_d the scale of its column, so that the units do not matter."""
        return -self._strangeness(X) - self.offset_

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """-1 for outliers, 1 for the others."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def explain(self, X: ArrayLike) -> Array:
        r"""How strange each value is given the rest of its row, -log p(x_d | x_rest) in nats and the columns' own units, ``[N, D]``.

        0 where nothing was observed. See `vaekit.apps.weighted.explained` for the estimate; the parts of a row do not add up to its score.
        Under two densities it is the mean of what it is under each. The background component bounds them: in a table of few columns a
        value that contradicts the others without being far out itself is hardly stranger than it would be among independent columns.
        """
        return self._explained(X)

    def calibrate(self, X: ArrayLike) -> Self:
        """Take the scores of ``X``, ordinary rows that `fit` has not seen, for `p_values` and `alarms`."""
        self.conformal_ = Conformal(self._strangeness(X))
        return self

    def p_values(self, X: ArrayLike) -> Array:
        """Conformal p-values of the rows, see `Conformal`: small for strange ones, and for an ordinary one at most alpha with probability
        at most alpha.

        Raises:
            InputError: `calibrate` was not called.
        """
        return self._calibrated.p_values(self._strangeness(X))

    def alarms(self, X: ArrayLike, alpha: float = 0.01) -> NDArray[np.bool_]:
        """Which rows are called anomalies, an ordinary one with probability at most alpha.

        Raises:
            InputError: `calibrate` was not called, or with too few rows for this alpha.
        """
        return self._calibrated.alarms(self._strangeness(X), alpha)

    def score_stream(self, chunks: Iterable[ArrayLike]) -> Iterator[Array]:
        """`score_samples` of one chunk of rows after the other, each read when its scores are asked for: memory is that of one chunk."""
        check_is_fitted(self)
        return (self.score_samples(chunk) for chunk in chunks)

    @property
    def _calibrated(self) -> Conformal:
        found = vars(self).get("conformal_")
        if found is None:
            raise InputError("no alarm without rows to calibrate by: call calibrate(X) with ordinary rows that fit() has not seen")
        return found
