r"""The Gaussian whose one variance is the best one for the batch at hand.

.. math:: \hat\sigma^2 = \arg\max_{\sigma^2} \sum_{k, b} \log N(x_b; \mu_{kb}, \sigma^2 I) = \mathrm{mean}_{k, b, d} (x_{bd} - \mu_{kbd})^2
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vaekit.dist.core import log_prob_observed, log_prob_parts, sum_event
from vaekit.dist.gaussian import HALF_LOG_2PI, DiagGaussian

__all__ = ["OptimalGaussian"]


class OptimalGaussian(DiagGaussian):
    r"""N(loc, sigma^2 I) scored at the sigma^2 that is most probable for the x it is asked about, over all samples, examples and entries.

    The variance is held constant in the gradient. Where all log-densities weigh the same (an ELBO) that changes nothing: the
    derivative by sigma^2 is zero at the maximiser (the envelope theorem). Where they do not (an importance-weighted bound) it keeps
    the gradient that of a Gaussian with this variance, with no term from one example to another.

    It is what a training step uses; it is no density, since it looks at x. Samples use ``log_scale``, as any Gaussian. Rybkin, Daniilidis
    and Levine, "Simple and Effective VAE Training with Calibrated Decoders", ICML 2021.

    Args:
        loc: mean, ``[*batch, *event]``.
        log_scale: logarithm of the standard deviation for samples, broadcastable with ``loc``.
        event_dim: how many trailing dimensions form the event.
        record: is given the variance at the first log-density that is asked for.
        min_scale: the smallest standard deviation allowed; the maximiser under that constraint is used.

    >>> seen = []
    >>> p = OptimalGaussian(torch.zeros(2, 3), torch.zeros(()), record=seen.append)
    >>> p.log_prob(torch.full((2, 3), 0.5)), seen
    (tensor([-2.1774, -2.1774]), [tensor(0.2500)])
    """

    def __init__(
        self, loc: Tensor, log_scale: Tensor, event_dim: int = 1, *, record: Callable[[Tensor], None] | None = None, min_scale: float = 0.0
    ) -> None:
        super().__init__(loc, log_scale, event_dim)
        self.record = record
        self.min_scale = min_scale

    def parts(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """log-density of each entry, ``[*batch, *event]``; entries out of the mask do not count towards the variance."""
        square = (x - self.loc).square()
        variance = _mean(square.detach(), mask, self.log_scale).clamp(min=self.min_scale**2)
        if self.record is not None:
            self.record(variance)
            self.record = None  # log_px may be asked for twice in one step; the batch counts once
        return -0.5 * square / variance - (0.5 * variance.log() + HALF_LOG_2PI)


def _mean(square: Tensor, mask: Tensor | None, log_scale: Tensor) -> Tensor:
    if mask is None:
        return square.mean()
    mask = mask.expand(square.shape)
    count = mask.sum()
    # A batch without any observed entry says nothing about the variance; none of its terms is kept either.
    return torch.where(count > 0, torch.where(mask, square, torch.zeros_like(square)).sum() / count, (2 * log_scale).exp())


@log_prob_parts.register
def _(d: OptimalGaussian, x: Tensor) -> Tensor:
    return d.parts(x)


@log_prob_observed.register
def _(d: OptimalGaussian, x: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return d.log_prob(x)
    parts = d.parts(torch.where(mask, x, torch.zeros_like(x)), mask)
    return sum_event(torch.where(mask, parts, torch.zeros_like(parts)), len(d.event_shape))
