r"""Whether an average of importance weights can be trusted: the shape k of the generalised Pareto distribution of the largest.

.. math:: P(w - u > y \mid w > u) = \left(1 + k y / \sigma\right)^{-1/k}

Weights with k have 1/k finite moments: below 1/2 the variance is finite, above 0.7 no sample size that one can afford gives a stable
average, and the estimated error is not to be believed either. k is fitted to the M = min(K/5, 3 sqrt(K)) largest of K weights.

Vehtari, Simpson, Gelman, Yao and Gabry, "Pareto smoothed importance sampling", JMLR 2024; the fit is that of Zhang and Stephens, "A new
and efficient estimation method for the generalized Pareto distribution", Technometrics 2009, with the weak prior k ~ 0.5 of ten weights.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vaekit.errors import InputError

__all__ = ["K_HAT", "Tail", "gpd_fit", "k_hat", "tail_length"]

K_HAT = 0.7
"""Above this shape an importance-sampled average cannot be trusted (Vehtari et al., 2024)."""
FEWEST = 5
"""Weights below which a tail says nothing about its shape."""
PRIOR_K, PRIOR_WEIGHTS = 0.5, 10


def tail_length(samples: int) -> int:
    """M = min(K/5, 3 sqrt(K)), rounded up.

    >>> tail_length(5000), tail_length(100)
    (213, 20)
    """
    return math.ceil(min(samples / 5, 3 * math.sqrt(samples)))


def k_hat(log_w: Tensor) -> Tensor:
    """The shape of the tail of the weights, ``[K, B] -> [B]``, float64; it depends neither on K log-weights' order nor on their level.

    NaN where the tail holds fewer than five weights (K <= 20) or too few different ones; -inf where all of its weights are equal, so
    that there is no tail; inf where most of them vanish beside the largest.

    >>> u = (torch.arange(100_000, dtype=torch.float64).unsqueeze(-1) + 0.5) / 100_000
    >>> k_hat(-0.5 * u.log()).round(decimals=1)  # w = u^-0.5: k = 0.5
    tensor([0.5000], dtype=torch.float64)
    """
    samples = log_w.shape[0]
    top = log_w.double().topk(min(samples, tail_length(samples) + 1), 0).values
    return _shape(top)


class Tail:
    """`k_hat` of log-weights that arrive in a stream of known length: only the M + 1 largest of each example are kept.

    Args:
        samples: K, how many will come.

    Raises:
        InputError: ``samples`` below 1.

    >>> tail = Tail(1000)
    >>> log_w = torch.randn(1000, 2)
    >>> for chunk in log_w.split(300):
    ...     tail.add(chunk)
    >>> torch.equal(tail.k_hat, k_hat(log_w))
    True
    """

    def __init__(self, samples: int) -> None:
        if samples < 1:
            raise InputError(f"Tail({samples}): at least 1 sample is needed")
        self._length = min(samples, tail_length(samples) + 1)
        self._kept: list[Tensor] = []
        self._rows = 0

    def add(self, log_w: Tensor) -> None:
        """A further chunk, ``[k, B]``."""
        self._kept.append(log_w)
        self._rows += log_w.shape[0]
        if self._rows > 4 * self._length:  # not at every chunk: selecting costs more than keeping a few times as many
            self._kept = [self._top()]
            self._rows = self._length

    @property
    def k_hat(self) -> Tensor:
        """`k_hat` of all log-weights so far, ``[B]``.

        Raises:
            InputError: none were added.
        """
        if not self._kept:
            raise InputError("no weights have been added yet; at least 1 sample is needed")
        return _shape(self._top().double())

    def _top(self) -> Tensor:
        rows = torch.cat(self._kept)
        return rows.topk(min(self._length, rows.shape[0]), 0).values


def _shape(top: Tensor) -> Tensor:
    """k of the M + 1 largest log-weights in descending order, ``[M + 1, B]``; the last of them is the threshold."""
    if len(top) <= FEWEST:
        return torch.full_like(top[0], math.nan)
    w = torch.exp(top - top[0])
    excess = (w[:-1] - w[-1]).flip(0)
    k = torch.where(excess[-1] > 0, gpd_fit(excess), torch.full_like(excess[0], -math.inf))
    return torch.where((excess[-1] > 0.5) & k.isnan(), math.inf, k)  # most of the tail underflows: it is as heavy as can be


def gpd_fit(excess: Tensor) -> Tensor:
    r"""The shape k of the generalised Pareto distribution of n excesses over a threshold in ascending order, ``[n, B] -> [B]``.

    The posterior mean of theta = -k / sigma over a grid under Zhang and Stephens' prior; k is the best one for that theta, drawn to 0.5
    as by ten more observations.
    """
    n = len(excess)
    size = 30 + math.isqrt(n)
    steps = 1 - (size / (torch.arange(1, size + 1, dtype=excess.dtype, device=excess.device) - 0.5)).sqrt()
    quartile = excess[math.floor(n / 4 + 0.5) - 1]
    theta = 1 / excess[-1] + steps[:, None] / (3 * quartile)  # [G, B]
    k = _best_k(theta, excess)
    log_likelihood = n * (torch.log(-theta / k) - k - 1)
    theta = (torch.softmax(log_likelihood, 0) * theta).sum(0)
    return (n * _best_k(theta[None], excess)[0] + PRIOR_K * PRIOR_WEIGHTS) / (n + PRIOR_WEIGHTS)


def _best_k(theta: Tensor, excess: Tensor) -> Tensor:
    """mean log(1 - theta y), which maximises the likelihood of k for a given theta, ``[G, B]``."""
    total = torch.zeros_like(theta)
    for y in excess.split(32):  # [32, G, B] at a time
        total = total + torch.log1p(-theta * y[:, None]).sum(0)
    return total / len(excess)
