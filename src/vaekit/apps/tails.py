r"""How far out in the tails of its columns a row lies, as a density in which no column knows of another.

.. math:: g(u) = \prod_d \frac{\min(F_d(u_d), 1 - F_d(u_d))}{E |U_d - m_d|}, \qquad F_d(m_d) = \tfrac12

F_d is the distribution function of the rows' column, and -log of what stands above is the surprise at a value that far out or further.
Below is what makes it a density, because the integral of min(F, 1 - F) is the mean distance from the median. On each side of the median it
is the equilibrium or stationary-excess distribution of renewal theory (Cox, "Renewal Theory", 1962) of the distances on that side. It has
one mode, so that a value between two groups of others is not strange, and follows each tail as far as there are rows: long or short, and
differently on both sides.

F_d is that of the rows and a little noise, U_d = x_i + h e, with e of the standard Laplace distribution and h = n^(-1/3) standard
deviations, the rate at which a smoothed distribution function is closest to the true one (Azzalini, "A note on the estimation of a
distribution function and quantiles by a kernel method", Biometrika 1981). Behind the last row g falls off exponentially.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vaekit.apps.columns import Array, observed
from vaekit.types import Batch

__all__ = ["Tail", "Tails"]

FINE = 16
"""Rows closer together than h / FINE are kept as one: what is stored follows from the spread of a column, not from the number of rows."""


@dataclass(frozen=True, eq=False)
class Tail:
    r"""g of one column: of K places with weights, and Laplace noise of scale h around each.

    .. math:: F(t) = \sum_{x_k \le t} w_k - A + B, \quad A = \tfrac12 \sum_{x_k \le t} w_k e^{(x_k - t) / h}, \quad
              B = \tfrac12 \sum_{x_k > t} w_k e^{(t - x_k) / h}

    All sums run over the places on one side of t, so that of each place one number a sum is kept, and a value costs a search.

    Attributes:
        h: scale of the noise.
        places: x_k, rising, ``[K]``.
        below, above: sums of the weights of the first k places, and of the others, ``[K + 1]``.
        log_rising, log_falling: logarithms of the sums in A, up to each place, and in B, from it on, at t = 0, ``[K]``.
        log_distance: log E |U - m|.

    >>> tail = Tail.of(np.array([-1.0, 0.0, 1.0]), np.ones(3))
    >>> grid = np.linspace(-30, 30, 60001)
    >>> round(float(np.exp(tail.log_prob(grid)).sum() * 0.001), 6)  # the integral
    1.0
    """

    h: float
    places: Array
    below: Array
    above: Array
    log_rising: Array
    log_falling: Array
    log_distance: float

    @staticmethod
    def of(values: Array, weights: Array) -> Tail:
        """That of ``values [n]``, at least one, with positive ``weights [n]``."""
        h = len(values) ** (-1 / 3)
        _, group = np.unique(np.floor(values * (FINE / h)), return_inverse=True)
        w = np.bincount(group, weights)
        x = np.bincount(group, weights * values) / w
        w = w / w.sum()
        zero = np.zeros(1)
        tail = Tail(
            h=h,
            places=x,
            below=np.concatenate([zero, np.cumsum(w)]),
            above=np.concatenate([np.cumsum(w[::-1])[::-1], zero]),
            log_rising=np.logaddexp.accumulate(np.log(w / 2) + x / h),
            log_falling=np.logaddexp.accumulate((np.log(w / 2) - x / h)[::-1])[::-1],
            log_distance=0.0,
        )
        far = np.abs(x - tail.median())
        distance = float(w @ (far + h * np.exp(-far / h)))  # E |far + h e|
        return replace(tail, log_distance=float(np.log(distance)))

    def log_sides(self, t: Array) -> tuple[Array, Array]:
        """log F and log (1 - F) of values of any shape; the smaller of the two to full precision, however far out."""
        k, last = np.searchsorted(self.places, t, side="right"), len(self.places)
        log_a = np.where(k > 0, self.log_rising[np.maximum(k - 1, 0)] - t / self.h, -np.inf)
        log_b = np.where(k < last, self.log_falling[np.minimum(k, last - 1)] + t / self.h, -np.inf)
        with np.errstate(divide="ignore"):
            # A is at most half of what is below, but for the rounding of places: some are a digit beyond a value that was put among them
            log_a, log_b = np.minimum(log_a, np.log(self.below[k] / 2)), np.minimum(log_b, np.log(self.above[k] / 2))
            shift = np.exp(log_b) - np.exp(log_a)
            lower = np.where(k == 0, log_b, np.log(self.below[k] + shift))
            upper = np.where(k == last, log_a, np.log(self.above[k] - shift))
        return lower, upper

    def median(self) -> float:
        """m, where F is 1/2, by bisection."""
        left, right = self.places[0] - self.h, self.places[-1] + self.h  # F there is below 1/2, and above
        for _ in range(80):
            middle = (left + right) / 2
            lower, upper = self.log_sides(np.asarray(middle))
            left, right = (middle, right) if lower < upper else (left, middle)
        return float(middle)

    def log_prob(self, t: Array) -> Array:
        """log g of values of any shape, nats."""
        found: Array = np.minimum(*self.log_sides(t)) - self.log_distance
        return found


@dataclass(frozen=True, eq=False)
class Tails:
    """g of a table.

    Attributes:
        columns: the `Tail` of each standardised column, of its observed entries.
    """

    columns: list[Tail]

    @staticmethod
    def of(batch: Batch, weights: Array) -> Tails:
        """Those of rows ``[N, D]``, each counted with its one of the positive ``weights`` ``[N]``; every column has an entry."""
        x, seen = batch.x.numpy(), observed(batch).numpy()
        return Tails([Tail.of(x[rows, d], weights[rows]) for d, rows in enumerate(seen.T)])

    def log_prob(self, batch: Batch) -> Tensor:
        """log g of each entry of rows ``[N, D]``, nats; 0 where nothing was observed."""
        found = torch.from_numpy(np.stack([tail.log_prob(x) for tail, x in zip(self.columns, batch.x.numpy().T, strict=True)], 1))
        return torch.where(observed(batch), found, torch.zeros_like(found))
