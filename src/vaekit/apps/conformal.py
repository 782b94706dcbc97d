r"""Alarms at a known rate: conformal p-values by the scores of rows held out.

A threshold from the data that a model was fitted to alarms too rarely there and too often elsewhere. From n rows held out,

.. math:: p(x) = \frac{1 + \#\{i : s(x_i) \ge s(x)\}}{n + 1}, \qquad P(p(x) \le \alpha) \le \alpha

for every model, n and alpha, if x and the n rows are exchangeable (Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World",
2005; of outliers: Bates et al., "Testing for outliers with conformal p-values", Annals of Statistics 2023). The probability is over the n
rows too: given them, the rate of false alarms is itself random, about alpha +- sqrt(alpha (1 - alpha) / n).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vaekit.apps.columns import Array
from vaekit.errors import InputError

__all__ = ["Conformal"]


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
