r"""Anomalies by density: how improbable a row is, which of its values make it so, and an alarm that is false at a known rate.

.. math:: s(x) = -w \log p(x) - (1 - w) \log g(x), \qquad \int e^{-s(x)} dx \le 1

    p(x) \approx \frac1K \sum_k \frac{p(x | z_k) p(z_k)}{q(z_k | x)}, \quad z_k \sim q(z | x)

The score is in nats and deterministic, not a reconstruction error: a row is strange too where it is rebuilt well from an improbable code.
p is the density that a variational autoencoder has learned, which knows how columns go together, and g that of the columns' tails alone
(`vaekit.apps.tails`). s is their logarithmic opinion pool (Genest and Zidek, "Combining probability distributions", Statistical Science
1986) but for the constant that normalises it; by Hölder's inequality the integral is at most 1, so that s is a number of nats that a code
could spend on x. How much say p has depends on how much columns tell of each other, see `vaekit.apps.pooling`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import OutlierMixin, _fit_context
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from vaekit import heads, priors
from vaekit.apps.background import background, central
from vaekit.apps.base import MIN_SCALE, BaseVAE
from vaekit.apps.columns import Array
from vaekit.apps.conformal import Conformal
from vaekit.apps.pooling import joint_weight
from vaekit.apps.tails import Tails
from vaekit.errors import InputError
from vaekit.types import Batch

__all__ = ["VAEOutlierDetector"]

COMPONENTS = 20
"""Gaussians of which p(z) is a mixture, learned: groups of rows with nothing between them."""
BLUR, TRIM = 0.8, 0.15
"""Noise while training and share of the rows left out, where there may be anomalies among the fitted rows."""
OUTER = 0.01
"""What a row that is left out of training counts in the tails, whose length it tells."""


class VAEOutlierDetector(OutlierMixin, BaseVAE):
    r"""Outliers of a numeric table: the rows of the lowest density under a variational autoencoder.

    NaN means not observed; a row is scored by what was. Names and signs are scikit-learn's: `score_samples` is log p(x) in nats, lower for
    stranger rows, by default pooled with the log-density of the columns' tails, and `predict` gives -1 for outliers. `calibrate` with rows
    held out makes alarms of a known rate.

    Rows with different entries missing are compared by the density of their standardised entries, so that the columns' units change no
    decision, p-value or alarm. What remains is that of fewer observed entries the density is another, and most often higher: such a row
    has less to be strange by, and is called an outlier more seldom. Rows to calibrate by should miss entries as those to be judged do.

    Whether the fitted rows are all known to be ordinary changes how they are best learned: ``novelty`` says so, and what ``blur`` and
    ``trim`` are where they are None.

    Args:
        n_components: dimensions of z; None for `vaekit.apps.base.latent_size` of the number of columns.
        contamination: share of the fitted rows that `predict` calls outliers, in (0, 0.5].
        scale: standard deviation of p(x_d | z), in the column's own; None for one that the network learns for each entry. The default is
            coarse on purpose: rows are strange that lie far from where most are. A learned scale gives a density nearer to that of the
            data, but it falls to next to nothing in columns that can be predicted exactly, which then decide the score alone.
        novelty: True where all fitted rows are known to be ordinary (novelty detection); False where there may be anomalies among them
            (outlier detection). Of ordinary rows all are learned, as closely as ``scale`` lets them: by the importance-weighted bound, and
            with ``blur`` and ``trim`` 0.
        tails: 1 - w, the say of the density of the columns' tails; None for what the fitted rows say. With 0 the score is that of the model
            alone, with 1 that of the tails, by which a value that only contradicts the others in its row is not strange.
        blur: standard deviation of noise that is added to each entry while training, in the column's own, so that the density does not
            fall off right behind the last row (`vaekit.apps.blurred`); 0 for the rows as they are. None is 0 where ``novelty``, otherwise
            0.8, as large as ``scale`` by default: a decoder cannot tell rows apart that lie closer than that, and what it learns is the
            rows' density at that resolution.
        trim: share of the rows that training leaves out, those furthest from the middle (`vaekit.apps.background.central`), and that count
            a hundredth in the tails. A group of anomalies among the fitted rows is dense, so that a model as flexible as this would learn
            it as one more group of rows; the plainest density cannot. None is 0 where ``novelty``, otherwise 0.15.
        n_estimators: models, each with its own initial weights and order of the data; p is the density of their mixture.

    One more component of the mixture, with the weight of one model, is `vaekit.apps.background`: independent normal columns. Far
    from all rows a network says whatever it continues with; there the background has the word, and a row is the stranger the further out
    it lies.

    The other arguments are those of `VAETransformer`.

    Attributes:
        offset_: what `decision_function` subtracts: the ``contamination`` quantile of the fitted rows.
        tails_: the density of the columns' tails, g.
        tails_weight_: its say, 1 - w.
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
        "tails": [Interval(Real, 0, 1, closed="both"), None],
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
        tails: float | None = None,
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
        self.tails = tails
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
        blur, trim = (0.0, 0.0) if self.novelty else (BLUR, TRIM)
        batch = self.columns_.encode(rows)
        kept = central(batch, trim if self.trim is None else self.trim)
        ordinary = rows[kept]
        self._train(
            ordinary,
            self._steps(len(ordinary)),
            stop_early=self.early_stopping,
            weighted=self.novelty,
            blur=blur if self.blur is None else self.blur,
        )
        self.models_.append(background(rows.shape[1]).double())
        self.tails_ = Tails.of(batch, np.where(kept, 1.0, OUTER))
        self.tails_weight_ = 1 - joint_weight(self.columns_.encode(ordinary)) if self.tails is None else float(self.tails)
        self.offset_ = float(np.percentile(self._compared(rows), 100 * self.contamination))
        return self

    def score_samples(self, X: ArrayLike) -> Array:
        """-s(x) of the observed entries of each row, ``[N]``: w log p(x) + (1 - w) log g(x), nats, in the columns' own units.

        log p(x) is that of the mixture of the models, by ``n_samples`` importance samples with noise that is the same for every row and
        every call, so that a row's score depends on the row alone.
        """
        return super().score_samples(X)

    def _pool(self, joint: Callable[[], Tensor], tails: Callable[[], Tensor]) -> Tensor:
        """w times one logarithm and 1 - w times the other; one without any say may be infinite, and is not asked for."""
        share = self.tails_weight_
        return joint() if share == 0 else tails() if share == 1 else (1 - share) * joint() + share * tails()

    def _evidence(self, batch: Batch) -> Tensor:
        return self._pool(lambda: super(VAEOutlierDetector, self)._evidence(batch), lambda: self.tails_.log_prob(batch).sum(1))

    def _parts(self, batch: Batch) -> Tensor:
        return self._pool(lambda: super(VAEOutlierDetector, self)._parts(batch), lambda: self.tails_.log_prob(batch))

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
        r"""How strange each value is given the rest of its row, w times -log p(x_d | x_rest) and 1 - w times -log g(x_d), in nats and the
        columns' own units, ``[N, D]``; 0 where nothing was observed.

        See `vaekit.apps.weighted.explained` for the estimate of the first, which does not add up to -log p(x) over a row; the second, of
        the tails, is how far out the value itself is. The background component bounds the first: in a table of few columns a value that
        contradicts the others without being far out itself is hardly stranger than it would be among independent columns.
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
