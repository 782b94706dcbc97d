r"""Counts made by a known process of low rank, whose log-likelihood is known to any precision.

.. math:: x_g \sim \mathrm{NB}(l \, e^{a_g + w_g z_{b(g)}}, r_g), \qquad z_1, z_2 \sim N(0, 1), \qquad \log l \sim N(\log L, \sigma^2)

and with ``zeros`` each count is 0 with that probability besides. Half of the genes follow z_1, half z_2, so that log p(x | l) is a sum of
two integrals over a line, which the trapezoidal rule takes exactly.

A model p(x | z, T) that is given the total T = sum_g x_g is held to the bracket

.. math:: H(x | l) - H(T) \le H(x | T) \le -E \log p(x | T), \qquad H(T) \le \tfrac12 \log(2 \pi e (\mathrm{Var}\, T + \tfrac1{12}))
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln, logsumexp

Array = npt.NDArray[np.float64]
GENES = 200
SIZE, SPREAD = 600.0, 0.3  # L and sigma
GRID = np.linspace(-6.0, 6.0, 241)  # posteriors are wider than its step of .05


@dataclass(frozen=True)
class Process:
    """The parameters: a, w, r ``[GENES]``, and the probability of a zero besides."""

    a: Array
    w: Array
    r: Array
    zeros: float

    @staticmethod
    def of(seed: int, *, zeros: float = 0.0) -> Process:
        rng = np.random.default_rng(seed)
        a = rng.normal(0.0, 1.0, GENES)
        w = rng.normal(0.0, 0.5, GENES)
        a -= math.log(np.exp(a + w**2 / 2).sum())
        return Process(a, w, np.exp(rng.uniform(0.0, 1.5, GENES)), zeros)

    def draw(self, n: int, seed: int) -> tuple[Array, Array]:
        """Counts ``[n, GENES]`` and l ``[n]``."""
        rng = np.random.default_rng(seed)
        size = SIZE * np.exp(SPREAD * rng.normal(size=n))
        z = rng.normal(size=(n, 2)).repeat(GENES // 2, axis=1)
        mean = size[:, None] * np.exp(self.a + self.w * z)
        x = rng.poisson(rng.gamma(self.r, mean / self.r)) * (rng.random((n, GENES)) >= self.zeros)
        return x.astype(np.float64), size

    def log_prob(self, x: Array, size: Array) -> Array:
        """log p(x | l) of each row, nats ``[n]``."""
        log_z = -0.5 * GRID**2 - 0.5 * math.log(2 * math.pi) + math.log(GRID[1] - GRID[0])
        return np.array([self._row(row, l, log_z) for row, l in zip(x, size, strict=True)])

    def _row(self, x: Array, size: float, log_z: Array) -> float:
        r = self.r
        log_mean = math.log(size) + self.a + self.w * GRID[:, None]
        log_more = np.logaddexp(np.log(r), log_mean)  # log(r + mu)
        parts = gammaln(x + r) - gammaln(r) - gammaln(x + 1) + r * (np.log(r) - log_more) + x * (log_mean - log_more)
        if self.zeros:
            parts += math.log1p(-self.zeros)
            parts = np.where(x == 0, np.logaddexp(parts, math.log(self.zeros)), parts)
        halves = parts[:, : GENES // 2].sum(1), parts[:, GENES // 2 :].sum(1)
        return float(sum(logsumexp(log_z + half) for half in halves))


def entropy_of_totals(x: Array) -> float:
    """The most that the entropy of whole numbers of this variance can be, nats."""
    return 0.5 * math.log(2 * math.pi * math.e * (float(x.sum(1).var()) + 1 / 12))


def sparse(x: Array) -> Any:
    """As a matrix of which only the counts above 0 are held."""
    from scipy.sparse import csr_array

    return csr_array(x)
