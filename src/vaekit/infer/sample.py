r"""Warm up, then draw: any kernel, any number of independent chains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vaekit.errors import InputError
from vaekit.infer.adapt import DualAveraging
from vaekit.infer.core import Kernel, Layout, LogDensity, State, start
from vaekit.infer.nuts import NUTS

__all__ = ["Draws", "Warmup", "r_hat", "sample"]


@dataclass(frozen=True)
class Warmup:
    """How chains find their step sizes before the draws that count.

    Attributes:
        steps: transitions; 0 keeps ``epsilon`` as it is.
        epsilon: the first step size.
        target: acceptance to adapt to, None for the kernel's own (0.9 for HMC, 0.8 for NUTS).
        per_chain: a step size of its own for each chain; False shares one among the K chains of an example, which is found sooner.
        mass: set the inverse mass of each example to the variances that its chains had in the middle third of the warm-up.

    Raises:
        InputError: ``steps`` below 0, ``epsilon`` not positive, ``target`` not between 0 and 1.
    """

    steps: int = 500
    epsilon: float = 0.1
    target: float | None = None
    per_chain: bool = False
    mass: bool = False

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise InputError(f"Warmup(steps={self.steps}): give 0 or more transitions")
        if not self.epsilon > 0:
            raise InputError(f"Warmup(epsilon={self.epsilon}): the step size is positive")
        if self.target is not None and not 0 < self.target < 1:
            raise InputError(f"Warmup(target={self.target}): the acceptance lies between 0 and 1")


@dataclass(frozen=True)
class Draws:
    """What `sample` returns.

    Attributes:
        z: ``[S, K, B, *]``, one tensor per level (one tensor for a flat target).
        accept: mean acceptance statistic, ``[K, B]``.
        divergences: how many of the transitions after the warm-up diverged, ``[K, B]`` int64.
        leapfrogs: mean leapfrog steps per transition, ``[K, B]``.
        epsilon: the step sizes in use, ``[K, B]``.
        inverse_mass: ``[1, B, D]``, ones unless it was adapted.
    """

    z: Any
    accept: Tensor
    divergences: Tensor
    leapfrogs: Tensor
    epsilon: Tensor
    inverse_mass: Tensor


def sample(
    log_density: Callable[[Any], Tensor],
    init: Tensor | Sequence[Tensor],
    kernel: Kernel | None = None,
    *,
    warmup: Warmup | None = None,
    draws: int = 1000,
    thin: int = 1,
    seed: int | None = None,
) -> Draws:
    """K x B chains from ``init``, side by side.

    Args:
        log_density: latents as in ``init`` -> ``[K, B]``, up to a constant: `log_posterior` of a model, or any function.
        init: where the chains start, ``[K, B, *]``, or a tuple of these; spread them out for `r_hat` to mean something.
        kernel: `HMC` or `NUTS`, the default.
        warmup: how the step sizes are found; default ``Warmup()``.
        draws: S, positions kept per chain.
        thin: keep every so many-th.
        seed: of torch's global generator, which is then put back; None goes on with it as it is.

    Raises:
        InputError: draws or thin below 1; a log-density of the wrong shape, without gradient, or not finite at the start.

    >>> got = sample(lambda z: -0.5 * (z - 3).square().sum(-1), torch.zeros(50, 1, 2), draws=100, warmup=Warmup(100), seed=0)
    >>> got.z.shape, bool((got.z.mean((0, 1, 2)) - 3).abs().max() < 0.1), int(got.divergences.sum())
    (torch.Size([100, 50, 1, 2]), True, 0)
    """
    if draws < 1 or thin < 1:
        raise InputError(f"sample(draws={draws}, thin={thin}): both are at least 1")
    kernel = NUTS() if kernel is None else kernel
    warmup = Warmup() if warmup is None else warmup
    single = isinstance(init, Tensor)
    levels = (init,) if isinstance(init, Tensor) else tuple(init)
    layout = Layout.of(levels)

    def flat(z: Tensor) -> Tensor:
        parts = layout.split(z)
        return log_density(parts[0] if single else parts)

    with nullcontext() if seed is None else torch.random.fork_rng():
        if seed is not None:
            torch.manual_seed(seed)
        state = start(flat, layout.join(levels))
        state, epsilon, m = _warmed(flat, state, kernel, warmup)
        kept: list[Tensor] = []
        accept = leapfrogs = torch.zeros_like(state.log_p)
        divergences = torch.zeros_like(state.log_p, dtype=torch.int64)
        for n in range(draws * thin):
            state, info = kernel.step(flat, state, epsilon, m)
            accept, leapfrogs, divergences = accept + info.accept, leapfrogs + info.leapfrogs, divergences + info.divergent
            if (n + 1) % thin == 0:
                kept.append(state.z)
    z = layout.split(torch.stack(kept))
    return Draws(
        z=z[0] if single else z,
        accept=accept / (draws * thin),
        divergences=divergences,
        leapfrogs=leapfrogs / (draws * thin),
        epsilon=epsilon.expand(state.log_p.shape),
        inverse_mass=m,
    )


def _warmed(log_density: LogDensity, state: State, kernel: Kernel, warmup: Warmup) -> tuple[State, Tensor, Tensor]:
    """State, step sizes and inverse mass after the warm-up."""
    target = kernel.preferred if warmup.target is None else warmup.target
    k = state.log_p.shape[0] if warmup.per_chain else 1
    epsilon = torch.full_like(state.log_p[:1], warmup.epsilon).repeat(k, 1)
    m = torch.ones_like(state.z[:1])
    if warmup.steps == 0:
        return state, epsilon, m
    third = warmup.steps // 3 if warmup.mass else 0
    moments: list[Tensor] = []
    adapting = DualAveraging.begin(epsilon)
    for n in range(warmup.steps):
        state, info = kernel.step(log_density, state, adapting.epsilon, m)
        adapting = adapting.update(info.accept if warmup.per_chain else info.accept.mean(0, keepdim=True), target)
        if third <= n < 2 * third:
            moments.append(state.z)
        if third and n == 2 * third - 1:
            seen = torch.stack(moments).flatten(0, 1)
            share = len(seen) / (len(seen) + 5.0)  # shrunk towards 1e-3, as in Stan, so that a chain that stood still has a mass
            m = (share * seen.var(0, unbiased=False) + 1e-3 * (1 - share)).unsqueeze(0)
            adapting = DualAveraging.begin(torch.full_like(epsilon, warmup.epsilon))
    return state, adapting.final, m


def r_hat(z: Tensor) -> Tensor:
    r"""Split :math:`\hat R` of draws ``[S, K, B, *]``, ``[B, *]``: near 1 where all halves of all chains agree, above 1.01 better not used.

    Gelman et al., "Bayesian Data Analysis", 3rd edition, section 11.4.

    Raises:
        InputError: fewer than 4 draws.

    >>> _ = torch.manual_seed(0)
    >>> z = torch.randn(500, 4, 1)
    >>> r_hat(z), r_hat(z + torch.arange(4.0).view(1, 4, 1))
    (tensor([1.00]), tensor([1.54]))
    """
    s = z.shape[0] // 2
    if s < 2:
        raise InputError(f"r_hat of {z.shape[0]} draws: at least 4 are needed")
    halves = torch.cat([z[:s], z[s : 2 * s]], 1)
    within = halves.var(0).mean(0)
    between = halves.mean(0).var(0)
    return ((s - 1) / s + between / within).sqrt()
