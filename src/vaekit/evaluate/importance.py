r"""log p(x) of every example, with the error of each estimate and a word on whether it can be believed.

.. math:: \hat L = \log \frac1K \sum_k w_k, \quad w_k = \frac{p(x, z_k)}{q(z_k | x)}, \quad z_k \sim q(z | x); \qquad
          \mathrm{se}(\hat L) = \frac{\mathrm{sd}(w)}{\bar w \sqrt K} = \sqrt{\frac{K}{K-1} \Big( \frac{1}{\mathrm{ess}} - \frac1K \Big)}

The mean of :math:`\hat L` rises with K to log p(x) (Burda et al., 2016), so an estimate lies low by about half its variance where the
error is small, and by an unknown amount where the weights have a heavy tail. ``k_hat`` and ``ess`` tell the two apart; see `doubts`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from vaekit.bounds import Weights
from vaekit.data.core import Split
from vaekit.dist import Certain
from vaekit.errors import InputError
from vaekit.evaluate.estimates import LogLikelihood
from vaekit.evaluate.pareto import K_HAT, Tail
from vaekit.evaluate.passes import device_of, observing
from vaekit.evaluate.stream import BLOCK, blocks, check_finite, entries, require_density, tiles, worth_compiling
from vaekit.matmul import matching_matmul
from vaekit.models.core import LatentModel, Trace

__all__ = ["doubts", "importance_log_likelihood", "require_likelihood"]

SMALLEST_ESS = 10


def importance_log_likelihood(
    model: LatentModel,
    split: Split,
    *,
    samples: int = 5000,
    method: Literal["iwae", "elbo"] = "iwae",
    seed: int = 0,
    chunk: int | None = None,
    compile: bool | None = None,
    watch: Callable[[int, int], None] | None = None,
) -> LogLikelihood:
    """`vaekit.evaluate.log_likelihood` by samples of q(z | x): ``method`` "iwae" or "elbo". ``chunk`` and ``compile`` as there, where
    the errors are told too.

    Raises:
        InputError: ``samples`` or ``chunk`` below 1; a model without a likelihood; an estimate that is not finite.
    """
    for name, value in (("samples", samples), ("chunk", 1 if chunk is None else chunk)):
        if value < 1:
            raise InputError(f"log_likelihood({name}={value}): at least 1 is needed")
    parts: list[Tensor] = []
    compiled = worth_compiling(model, split, samples) if compile is None else compile
    with observing(model, seed), matching_matmul(device_of(model)):
        for seen in blocks(model, split, BLOCK, seed):
            require_likelihood(seen)
            weights, spread, tail = Weights.empty(len(seen.levels[0].z[0]), device_of(model)), Spread.empty(), Tail(samples)
            for log_px, rate in tiles(model, seen, samples, chunk=chunk, compiled=compiled):
                log_w = log_px - rate.sum(-1)
                weights, spread = weights.update(log_w), spread.update(log_w)
                tail.add(log_w)
            estimate = weights.iwae if method == "iwae" else weights.elbo
            error = _relative_error(weights) if method == "iwae" else spread.standard_error
            parts.append(torch.stack([estimate, error, weights.ess, tail.k_hat, entries(seen).double()]).cpu())
            if watch is not None:
                watch(sum(part.shape[1] for part in parts), len(split))
    log_px, mc_se, ess, k_hat, counted = torch.cat(parts, 1)
    check_finite(log_px)
    return LogLikelihood(method, samples, log_px, mc_se, ess, k_hat, counted, seed)


def require_likelihood(seen: Trace) -> None:
    """Refuse a model of which no number of samples would give the likelihood.

    Raises:
        InputError: q(z | x) is a point at some level, in a continuous space or on one code of a quantiser. (A model whose p(x | z) is as
            certain, as `vaekit.models.code_model`, is no such: its one term is all of p(x).)
    """
    require_density(seen)
    if any(isinstance(level.q, Certain) for level in seen.levels) and not isinstance(seen.px, Certain):
        raise InputError(
            "q(z | x) is certain of one code, so every sample is the same term of the sum over codes and no number of them would give "
            "log p(x): vaekit.evaluate.evaluate(model, split) gives the bound, vaekit.evaluate.reconstruction(model, split) the error"
        )


def doubts(estimate: LogLikelihood) -> list[str]:
    """One plain sentence on each reason not to believe importance-sampled estimates; an empty list where there is none.

    An average of importance weights cannot be trusted where ``k_hat`` exceeds 0.7, or where fewer than 10 samples carry it: then the
    estimate lies too low by an unknown amount, which ``mc_se`` does not show. "elbo" averages no weights, so there is nothing to doubt.
    """
    if estimate.method == "elbo":
        return []
    n, found = len(estimate), []
    heavy = int((estimate.k_hat > K_HAT).sum())
    if heavy:
        found.append(
            f"For {heavy} of {n} examples the largest weights have a Pareto tail of k-hat above {K_HAT} (worst "
            f"{float(estimate.k_hat[~estimate.k_hat.isnan()].max()):.2f}): importance sampling cannot be trusted there, the estimate lies "
            "too low by more than its error says; {}"
        )
    few = int((estimate.ess < SMALLEST_ESS).sum())
    if few:
        found.append(
            f"For {few} of {n} examples the {estimate.samples} weights have an effective size below {SMALLEST_ESS} (median of all "
            f"{float(estimate.ess.median()):.1f}), so a few samples carry the estimate: it lies too low; {{}}"
        )
    cure = "take more annealing steps." if estimate.method == "ais" else 'take more samples, or method="ais".'
    return [sentence.format(cure) for sentence in found]


class Spread(NamedTuple):
    """Running mean of log w and sum of squares about it, ``[B]`` each (Chan, Golub and LeVeque, 1983)."""

    k: int
    mean: Tensor
    squares: Tensor

    @staticmethod
    def empty() -> Spread:
        zero = torch.zeros((), dtype=torch.float64)
        return Spread(0, zero, zero)

    def update(self, log_w: Tensor) -> Spread:
        """With a further tile, ``[k, B]``."""
        log_w = log_w.double()
        k = log_w.shape[0]
        mean = log_w.mean(0)
        step = mean - self.mean
        n = self.k + k
        return Spread(n, self.mean + step * (k / n), self.squares + (log_w - mean).square().sum(0) + step.square() * (self.k * k / n))

    @property
    def standard_error(self) -> Tensor:
        """Of the mean, ``[B]``; NaN for a single sample."""
        return (self.squares / ((self.k - 1) * self.k)).sqrt() if self.k > 1 else torch.full_like(self.mean, math.nan)


def _relative_error(weights: Weights) -> Tensor:
    """sd(w) / (mean(w) sqrt(K)), ``[B]``: the standard error of log of the mean by the delta method; NaN for a single sample."""
    k, ess = weights.k, weights.ess
    return ((1 / ess - 1 / k).clamp(min=0) * (k / (k - 1))).sqrt() if k > 1 else torch.full_like(ess, math.nan)
