r"""How noisy an objective's gradients are: mean, variance and signal-to-noise ratio of the gradient of one batch.

.. math:: g = \nabla \frac1B \sum_b \text{surrogate}_b, \qquad \text{variance} = \sum_i \mathrm{Var}(g_i), \qquad
          \text{SNR} = \frac1P \sum_{i=1}^{P} \frac{|E g_i|}{\sqrt{\mathrm{Var}(g_i)}}

over the noise of the objective alone: batch and weights stand still. The signal-to-noise ratio is that of Rainforth et al., "Tighter
Variational Bounds are Not Necessarily Better", ICML 2018, eq. 5, averaged over the P entries.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vaekit.errors import InputError
from vaekit.evaluate.passes import device_of, observing
from vaekit.models.core import LatentModel
from vaekit.objectives.core import Objective
from vaekit.types import Batch

__all__ = ["GradientMoments", "gradient_moments"]

BLOCKS = 10
"""The draws are made in so many blocks, whose spread gives the standard errors."""


@dataclass(frozen=True, eq=False)
class GradientMoments:
    """Moments of one group's gradient over independent draws. ``_se`` is a standard error, from the spread of
    `BLOCKS` blocks of draws; that of ``snr`` needs some hundred draws to mean much.

    Attributes:
        draws: n.
        norm: Euclidean norm of the expected gradient; the n draws' noise is taken out of its square (0 where more than all of it is noise).
        variance: sum over the entries of the variance of one draw.
        snr: mean over the entries that vary of |mean| / standard deviation; infinite where none varies. The mean of n draws is never 0:
            an entry without any signal counts as ``snr_floor``.
        snr_floor: sqrt(2 / (pi n)), what is found for a gradient of pure noise; only a ``snr`` far above it says something.
        seconds: wall time of one draw, forward and backward.
        mean: of the draws, all entries in one row, ``[P]``.
        sd: standard deviation of one draw, ``[P]``.
    """

    draws: int
    norm: float
    norm_se: float
    variance: float
    variance_se: float
    snr: float
    snr_se: float
    snr_floor: float
    seconds: float
    mean: Tensor
    sd: Tensor

    @property
    def cost(self) -> float:
        """variance * seconds: the variance of the mean of as many draws as one second allows. What estimators are compared by."""
        return self.variance * self.seconds


def gradient_moments(
    model: LatentModel,
    batch: Batch,
    objective: Objective,
    *,
    draws: int,
    parameters: Mapping[str, Iterable[nn.Parameter]] | None = None,
    seed: int = 0,
) -> dict[str, GradientMoments]:
    """`GradientMoments` of each group of parameters, from ``draws`` gradients of the mean surrogate of one batch.

    In evaluation mode: no dropout, baselines as they stand. Memory is a few copies of the parameters, whatever ``draws``. The model, the
    objective, their gradients and modes, and the caller's random numbers are left as they were.

    Args:
        model: any model.
        batch: on the model's device.
        objective: any objective that suits the model.
        draws: n, at least 20.
        parameters: name -> parameters of the model or of the objective; default: each part of the model that has parameters, by its
            name (``posterior`` and ``likelihood`` of a `VAE`). Frozen ones are left out.
        seed: of the draws.

    Raises:
        InputError: ``draws`` below 20; a group without a parameter to train.

    >>> from vaekit import ELBO, VAE, Conditional, heads, priors
    >>> _ = torch.manual_seed(0)
    >>> model = VAE(
    ...     priors.StandardNormal(2),
    ...     Conditional(nn.Linear(6, 4), heads.Gaussian(2)),
    ...     Conditional(nn.Linear(2, 6), heads.Bernoulli(6)),
    ... )
    >>> found = gradient_moments(model, Batch(torch.ones(8, 6)), ELBO(), draws=100)
    >>> list(found), found["posterior"].snr > found["posterior"].snr_floor
    (['posterior', 'likelihood'], True)
    """
    if draws < 2 * BLOCKS:
        raise InputError(f"gradient_moments(draws={draws}): the errors come from {BLOCKS} blocks of draws, so take {2 * BLOCKS} or more")
    groups = _groups(model, parameters)
    every = [p for group in groups.values() for p in group]
    modes = [(module, module.training) for module in objective.modules()]
    device = device_of(model)
    clock = 0.0
    pooled = {name: _Moments() for name in groups}
    blocks: dict[str, list[tuple[float, float, float]]] = {name: [] for name in groups}
    objective.eval()
    try:
        with observing(model, seed), torch.enable_grad():
            for block in range(BLOCKS):
                here = {name: _Moments() for name in groups}
                for _ in range(draws * block // BLOCKS, draws * (block + 1) // BLOCKS):
                    _wait(device)
                    started = time.perf_counter()
                    found = torch.autograd.grad(objective(model, batch).surrogate.mean(), every, allow_unused=True)
                    _wait(device)
                    clock += time.perf_counter() - started
                    rest = iter(torch.zeros_like(p) if g is None else g for g, p in zip(found, every, strict=True))
                    for name, group in groups.items():
                        here[name].add(torch.cat([next(rest).flatten() for _ in group]))
                for name in groups:
                    pooled[name].join(here[name])
                    blocks[name].append(here[name].summary())
    finally:
        for module, mode in modes:
            module.training = mode
    return {name: _result(pooled[name], blocks[name], clock / draws) for name in groups}


class _Moments:
    """Mean and sum of squared deviations of vectors that arrive one by one (Welford, 1962) or in parts (Chan et al., 1979)."""

    def __init__(self) -> None:
        self.n = 0
        self.mean = self.squares = torch.zeros(())

    def add(self, g: Tensor) -> None:
        self.n += 1
        change = g - self.mean
        self.mean = self.mean + change / self.n
        self.squares = self.squares + change * (g - self.mean)

    def join(self, other: _Moments) -> None:
        n, change = self.n + other.n, other.mean - self.mean
        self.squares = self.squares + other.squares + change.square() * (self.n * other.n / n)
        self.mean = self.mean + change * (other.n / n)
        self.n = n

    @property
    def variance(self) -> Tensor:
        return self.squares / (self.n - 1)

    def summary(self) -> tuple[float, float, float]:
        """Squared norm of the expectation without the noise's part, total variance, mean signal-to-noise ratio of the entries that vary."""
        variance = self.variance
        total = float(variance.sum(dtype=torch.float64))
        norm2 = float(self.mean.square().sum(dtype=torch.float64)) - total / self.n
        varies = variance > 0
        ratio = self.mean[varies].abs() / variance[varies].sqrt()
        return norm2, total, float(ratio.mean(dtype=torch.float64)) if len(ratio) else math.inf


def _result(pooled: _Moments, blocks: list[tuple[float, float, float]], seconds: float) -> GradientMoments:
    norm2, variance, snr = pooled.summary()
    norm2_se, variance_se, snr_se = (_standard_error(values) for values in zip(*blocks, strict=True))
    norm = math.sqrt(max(norm2, 0.0))
    return GradientMoments(
        draws=pooled.n,
        norm=norm,
        norm_se=norm2_se / (2 * norm) if norm > 0 else math.sqrt(norm2_se),
        variance=variance,
        variance_se=variance_se,
        snr=snr,
        snr_se=snr_se,
        snr_floor=math.sqrt(2 / (math.pi * pooled.n)),
        seconds=seconds,
        mean=pooled.mean,
        sd=pooled.variance.sqrt(),
    )


def _standard_error(values: Sequence[float]) -> float:
    return statistics.stdev(values) / math.sqrt(len(values)) if all(map(math.isfinite, values)) else math.nan


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _groups(model: LatentModel, parameters: Mapping[str, Iterable[nn.Parameter]] | None) -> dict[str, list[nn.Parameter]]:
    if parameters is None:
        found = {name: [p for p in part.parameters() if p.requires_grad] for name, part in model.named_children()}
        groups = {name: group for name, group in found.items() if group}
    else:
        groups = {name: [p for p in group if p.requires_grad] for name, group in parameters.items()}
    for name, group in groups.items():
        if not group:
            raise InputError(f'gradient_moments: the group "{name}" holds no parameter to train: leave it out')
    if not groups:
        raise InputError("gradient_moments: the model has no parameter to train: all are frozen, or there are none")
    return groups
