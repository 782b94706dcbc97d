r"""Heads for counts 0, 1, 2, ..., with the size of each example where it has one.

.. math:: E[k_d] = l \, e^{h_d}

l is an example's size (a cell's library, the days of exposure). With ``sized=True`` h has one number more, its last, which is log l: put
log l into the last column of the context and let it pass by the network, ``Conditional(nn.PassLast(net), head)``.
"""

from __future__ import annotations

import abc
import math

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaekit import dist
from vaekit.errors import InputError
from vaekit.heads.core import Head

__all__ = ["Count", "NegativeBinomial", "Poisson", "ZeroInflatedNegativeBinomial", "ZeroInflatedPoisson"]


class Count(Head, abc.ABC):
    """What the heads for counts share: log mu = h + log l.

    Args:
        event_shape: shape of one example, an int for a vector.
        parts: parameters per entry.
        sized: h ends with log l of the example.

    Implementing a Count: write ``counted(log_mean, others)``, ``others`` being the further parameters per entry.
    """

    def __init__(self, event_shape: int | tuple[int, ...], *, parts: int = 1, sized: bool = False) -> None:
        size = event_shape if isinstance(event_shape, int) else math.prod(event_shape)
        super().__init__(event_shape, features=parts * size + sized)
        self.parts, self.sized = parts, sized

    @abc.abstractmethod
    def counted(self, log_mean: Tensor, others: tuple[Tensor, ...]) -> Distribution:
        """The distribution with this logarithm of the mean, ``[*batch, *event]``."""

    def distribution(self, h: Tensor) -> Distribution:
        log_mean, *others = self.split(h[..., : self.features - self.sized], self.parts)
        if self.sized:
            log_mean = log_mean + h[..., -1].reshape(*h.shape[:-1], *[1] * len(self.event_shape))
        return self.counted(log_mean, tuple(others))


class Poisson(Count):
    """p(x | h) = prod_d Poisson(x_d; l e^h_d).

    Args:
        event_shape: shape of one example, an int for a vector.
        sized: h ends with log l of the example.

    >>> import torch
    >>> Poisson(2, sized=True)(torch.tensor([[0.0, 1.0, 2.0]])).mean.log()
    tensor([[2., 3.]])
    """

    def __init__(self, event_shape: int | tuple[int, ...], *, sized: bool = False) -> None:
        super().__init__(event_shape, sized=sized)

    def counted(self, log_mean: Tensor, others: tuple[Tensor, ...]) -> Distribution:
        return dist.Poisson(log_mean, len(self.event_shape))


class NegativeBinomial(Count):
    """p(x | h) = prod_d NB(x_d; mu_d = l e^h_d, r_d), the inverse dispersion r learned as a number per entry (`dist.NegativeBinomial`).

    It is exp(``log_r``), a parameter ``[*event]``; Lopez et al., "Deep generative modeling for single-cell transcriptomics", 2018.

    Args:
        event_shape: shape of one example, an int for a vector.
        sized: h ends with log l of the example.
        r: the inverse dispersion to begin with.

    Raises:
        InputError: ``r`` is not positive.

    >>> import torch
    >>> head = NegativeBinomial(2)
    >>> head.features, head(torch.zeros(1, 2)).variance  # mu + mu^2 / r
    (2, tensor([[2., 2.]], grad_fn=<AddBackward0>))
    """

    def __init__(self, event_shape: int | tuple[int, ...], *, sized: bool = False, r: float = 1.0) -> None:
        super().__init__(event_shape, sized=sized)
        self.log_r = log_dispersion("NegativeBinomial", r, self.event_shape)

    def counted(self, log_mean: Tensor, others: tuple[Tensor, ...]) -> Distribution:
        return dist.NegativeBinomial(log_mean, self.log_r.to(log_mean.dtype), len(self.event_shape))


class ZeroInflatedPoisson(Count):
    """`Poisson` with more zeros: h = (log-rates, logits of being 0 whatever the rate) (`dist.ZeroInflated`; Lambert, 1992).

    Args:
        event_shape: shape of one example, an int for a vector.
        sized: h ends with log l of the example.

    >>> import torch
    >>> ZeroInflatedPoisson(2)(torch.zeros(1, 4)).mean
    tensor([[0.5000, 0.5000]])
    """

    def __init__(self, event_shape: int | tuple[int, ...], *, sized: bool = False) -> None:
        super().__init__(event_shape, parts=2, sized=sized)

    def counted(self, log_mean: Tensor, others: tuple[Tensor, ...]) -> Distribution:
        return dist.ZeroInflated(dist.Poisson(log_mean, len(self.event_shape)), others[0])


class ZeroInflatedNegativeBinomial(Count):
    """`NegativeBinomial` with more zeros: h = (log-means, logits of being 0 whatever the mean), as in scVI (Lopez et al., 2018).

    Args:
        event_shape: shape of one example, an int for a vector.
        sized: h ends with log l of the example.
        r: the inverse dispersion to begin with.

    Raises:
        InputError: ``r`` is not positive.

    >>> import torch
    >>> ZeroInflatedNegativeBinomial(2).features
    4
    """

    def __init__(self, event_shape: int | tuple[int, ...], *, sized: bool = False, r: float = 1.0) -> None:
        super().__init__(event_shape, parts=2, sized=sized)
        self.log_r = log_dispersion("ZeroInflatedNegativeBinomial", r, self.event_shape)

    def counted(self, log_mean: Tensor, others: tuple[Tensor, ...]) -> Distribution:
        base = dist.NegativeBinomial(log_mean, self.log_r.to(log_mean.dtype), len(self.event_shape))
        return dist.ZeroInflated(base, others[0])


def log_dispersion(head: str, r: float, event_shape: tuple[int, ...]) -> nn.Parameter:
    """log r of each entry, to begin with."""
    if not 0 < r < math.inf:
        raise InputError(f"{head}(r={r}): the inverse dispersion must be a positive number")
    return nn.Parameter(torch.full(event_shape, math.log(r)))
