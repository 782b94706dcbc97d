r"""Bounds on log p(x) as pure functions of the log-weights log w = log p(x, z) - log q(z | x), ``[K, B]`` -> ``[B]``, in nats.

``Weights`` is the same in a stream: K in chunks of any size, memory that does not grow with K.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vaekit.errors import InputError
from vaekit.tensors import logmeanexp

__all__ = ["elbo", "iwae", "renyi", "ess", "Weights"]


def elbo(log_w: Tensor) -> Tensor:
    r"""The evidence lower bound, averaged over K samples: :math:`\frac1K \sum_k \log w_k` (Kingma and Welling, 2014).

    ``log_w`` ``[K, B]`` -> ``[B]``, nats.

    >>> elbo(torch.tensor([[-2.0], [-4.0]]))
    tensor([-3.])
    """
    return log_w.mean(0)


def iwae(log_w: Tensor) -> Tensor:
    r"""The importance-weighted bound :math:`\log \frac1K \sum_k w_k` (Burda, Grosse and Salakhutdinov, 2016).

    ``log_w`` ``[K, B]`` -> ``[B]``, nats. For K = 1 it is the ELBO; its mean rises with K to log p(x).

    >>> iwae(torch.tensor([[-2.0], [-2.0]]))
    tensor([-2.])
    """
    return logmeanexp(log_w, 0)


def renyi(log_w: Tensor, alpha: float) -> Tensor:
    r"""The variational Renyi bound :math:`\frac{1}{1-\alpha} \log \frac1K \sum_k w_k^{1-\alpha}` (Li and Turner, 2016).

    alpha = 0 is the IWAE bound, alpha -> 1 the ELBO (taken there exactly). ``log_w`` ``[K, B]`` -> ``[B]``, nats.

    Raises:
        InputError: ``alpha`` is not finite.
    """
    if not math.isfinite(alpha):
        raise InputError(f"renyi(alpha={alpha}): alpha must be finite")
    if alpha == 1:
        return elbo(log_w)
    y = (1 - alpha) * log_w
    top = y.amax(0)
    return (top + torch.log1p(torch.expm1(y - top).mean(0))) / (1 - alpha)  # exact near alpha = 1, where y is tiny


def ess(log_w: Tensor) -> Tensor:
    r"""Effective sample size :math:`(\sum_k w_k)^2 / \sum_k w_k^2`, between 1 and K (Kong, 1992).

    >>> ess(torch.zeros(5, 1))
    tensor([5.])
    """
    w = torch.exp(log_w - log_w.amax(0))  # the largest is 1: nothing cancels, however large log w is
    return w.sum(0).square() / w.square().sum(0)


class Weights(NamedTuple):
    """Running sums over log-weights that arrive in chunks; add with `update`, read the properties. float64, ``[B]`` each.

    Attributes:
        k: samples so far.
        total: sum of log w_k, nats.
        log_sum: log of the sum of w_k.
        log_sum_squares: log of the sum of w_k^2.

    >>> w = Weights.empty(1)
    >>> for chunk in torch.tensor([[-1.0], [-2.0], [-3.0], [-4.0]]).split(3):
    ...     w = w.update(chunk)
    >>> w.k, round(w.elbo.item(), 4), round(w.iwae.item(), 4)
    (4, -2.5, -1.9461)
    """

    k: int
    total: Tensor  # sum_k log w_k
    log_sum: Tensor  # log sum_k w_k
    log_sum_squares: Tensor  # log sum_k w_k^2

    @staticmethod
    def empty(size: int, device: torch.device | str = "cpu") -> Weights:
        """No weights yet, for ``size`` examples, on ``device``."""
        zero = torch.zeros(size, dtype=torch.float64, device=device)
        return Weights(0, zero, zero - math.inf, zero - math.inf)

    def update(self, log_w: Tensor) -> Weights:
        """With a further chunk of log-weights, ``[k, B]``."""
        log_w = log_w.double()
        return Weights(
            self.k + log_w.shape[0],
            self.total + log_w.sum(0),
            torch.logaddexp(self.log_sum, torch.logsumexp(log_w, 0)),
            torch.logaddexp(self.log_sum_squares, torch.logsumexp(2 * log_w, 0)),
        )

    @property
    def elbo(self) -> Tensor:
        """`elbo` of all weights so far, ``[B]`` nats."""
        return self.total / self._count()

    @property
    def iwae(self) -> Tensor:
        """`iwae` of all weights so far, ``[B]`` nats."""
        return self.log_sum - math.log(self._count())

    @property
    def ess(self) -> Tensor:
        """`ess` of all weights so far, ``[B]``."""
        return torch.exp(2 * self.log_sum - self.log_sum_squares)

    def _count(self) -> int:
        if self.k < 1:
            raise InputError("no weights have been added yet; at least 1 sample is needed")
        return self.k
