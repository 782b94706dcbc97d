r"""The naive Monte Carlo estimate of the likelihood, from samples of the prior: right in the limit, and useless long before it.

.. math:: \log p(x) \approx \log \frac1K \sum_k p(x | z_k), \qquad z_k \sim p(z)

It is the importance-sampled estimate of `vaekit.evaluate.evaluate` with q = p(z). Where few z explain x, hardly any z_k is one of them: the
estimate lies far too low, by an amount that grows with the latent dimension.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vaekit.bounds import Weights
from vaekit.data.core import Split
from vaekit.dist import log_prob_observed
from vaekit.errors import InputError
from vaekit.evaluate.passes import batches, device_of, dtype_of, observing
from vaekit.evaluate.stream import tile
from vaekit.models.core import LatentModel
from vaekit.models.picks import from_p

__all__ = ["NaiveLikelihood", "naive_log_likelihood"]


@dataclass(frozen=True, eq=False)
class NaiveLikelihood:
    """What `naive_log_likelihood` found, one number per example in the order of the split; float64, on the CPU.

    Attributes:
        samples: K.
        log_px: estimates of log p(x) in nats, ``[N]``. Their mean over repetitions lies below log p(x) (Jensen).
        ess: effective number of the K samples, ``[N]``, between 1 and K: 1 where one sample carries all.
        se: standard error of each estimate from the spread of its weights (delta method), ``[N]``; NaN for K = 1. It knows only of the
            weights that were seen: at an ``ess`` of a few, the samples that would matter are missing and so is their part in the error.
    """

    samples: int
    log_px: Tensor
    ess: Tensor
    se: Tensor

    @property
    def mean(self) -> float:
        """Mean of ``log_px`` over the examples, nats."""
        return float(self.log_px.mean())


def naive_log_likelihood(
    model: LatentModel, split: Split, *, samples: int, seed: int = 0, batch_size: int = 100, chunk: int | None = None
) -> NaiveLikelihood:
    """`NaiveLikelihood` of every example of ``split`` from K = ``samples`` prior samples each, its own for each example.

    Args:
        model: any model; its posterior is not used.
        split: the data, on any device.
        samples: K, at least 1. They are streamed, so that memory does not grow with K.
        seed: of the samples; the caller's random numbers are left as they were.
        batch_size: examples at a time.
        chunk: samples at a time; default: as `vaekit.evaluate.evaluate`, 4 million numbers in the shape of x and 20,000 latents at most.

    Raises:
        InputError: ``samples``, ``batch_size`` or ``chunk`` below 1.

    >>> from vaekit import VAE, Conditional, heads, priors
    >>> _ = torch.manual_seed(0)
    >>> model = VAE(
    ...     priors.StandardNormal(2),
    ...     Conditional(torch.nn.Linear(6, 4), heads.Gaussian(2)),
    ...     Conditional(torch.nn.Linear(2, 6), heads.Bernoulli(6)),
    ... )
    >>> naive_log_likelihood(model, Split(torch.ones(3, 6)), samples=1000).log_px.shape
    torch.Size([3])
    """
    for name, value in (("samples", samples), ("batch_size", batch_size), ("chunk", 1 if chunk is None else chunk)):
        if value < 1:
            raise InputError(f"naive_log_likelihood({name}={value}): at least 1 is needed")
    log_px, ess = [], []
    with observing(model, seed):
        for batch in batches(split, batch_size, device_of(model), dtype=dtype_of(model)):
            size = chunk or tile(batch)
            w = Weights.empty(batch.size, batch.x.device)
            for start in range(0, samples, size):
                px = model.trace(from_p(min(size, samples - start), batch.size)).px
                w = w.update(log_prob_observed(px, batch.x, batch.mask))
            log_px.append(w.iwae.cpu())
            ess.append(w.ess.cpu())
    n = torch.cat(ess)
    se = ((1 / n - 1 / samples).clamp(min=0) * samples / (samples - 1)).sqrt() if samples > 1 else torch.full_like(n, math.nan)
    return NaiveLikelihood(samples, torch.cat(log_px), n, se)
