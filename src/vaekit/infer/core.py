r"""Markov chains whose stationary distribution is a density given up to a constant. Notation of this package:

``z [K, B, D]`` positions (all latents of an example, flattened and joined), ``r [K, B, D]`` momenta, ``m [*, D]`` the inverse mass (an
estimate of the variances), ``epsilon [*]`` step sizes, nats throughout.

.. math:: H(z, r) = -\log p(z) + \tfrac12 \sum_d m_d r_d^2, \qquad r \sim N(0, 1 / m)

Each of the K x B chains is a chain of its own: own momentum, own decision, own step size where that is wanted. Kernels are pure: a `State`
goes in, a `State` and an `Info` come out. Random numbers come from torch's global generator, so that a seed or a resumed run repeats them.

Neal, "MCMC using Hamiltonian dynamics", Handbook of Markov Chain Monte Carlo, 2011; Betancourt, "A conceptual introduction to Hamiltonian
Monte Carlo", 2017.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Size, Tensor

from vaekit.errors import InputError

__all__ = ["DIVERGENT", "Info", "Kernel", "Layout", "LogDensity", "State", "drawn_momentum", "kinetic", "leapfrog", "start", "where"]

LogDensity = Callable[[Tensor], Tensor]
"""Positions ``[K, B, D]`` -> log p up to a constant, ``[K, B]``; the example at ``[k, b]`` must not see the others."""

DIVERGENT = 1000.0
"""An energy error beyond so many nats means that the integrator has left the trajectory (Betancourt, 2017)."""


class State(NamedTuple):
    """Where the chains are: z ``[K, B, D]``, log p(z) ``[K, B]`` and its gradient ``[K, B, D]``.

    Attributes:
        z: positions, ``[K, B, D]``.
        log_p: up to a constant, nats, ``[K, B]``.
        grad: of log p in z, ``[K, B, D]``.
    """

    z: Tensor
    log_p: Tensor
    grad: Tensor


class Info(NamedTuple):
    """What one transition did, ``[K, B]`` each.

    Attributes:
        accept: acceptance statistic, the mean of min(1, exp(-energy error)) over the points that were proposed.
        energy_error: H at the end of the trajectory less H at its start; at the end of the last doubling for `NUTS`.
        divergent: the energy error was not finite, or beyond 1000 nats; such points are never accepted.
        leapfrogs: leapfrog steps taken, int64.
    """

    accept: Tensor
    energy_error: Tensor
    divergent: Tensor
    leapfrogs: Tensor


class Kernel(abc.ABC):
    """A transition that leaves p(z) as it is. Its settings are the attributes of a frozen dataclass.

    Implementing a Kernel:
        1. Draw a momentum with `drawn_momentum`, move with `leapfrog`, choose each chain by ``torch.where``.
        2. A point that is not finite has probability 0: it is rejected and reported as divergent, never returned.
        3. ``preferred`` acceptance is what a warm-up aims at where nothing else is said.
    """

    @property
    @abc.abstractmethod
    def preferred(self) -> float:
        """The acceptance statistic to adapt the step size to."""

    @abc.abstractmethod
    def step(self, log_density: LogDensity, state: State, epsilon: Tensor, m: Tensor) -> tuple[State, Info]:
        """One transition of every chain.

        Args:
            log_density: of positions ``[K, B, D]``.
            state: from `start` or from the transition before.
            epsilon: step size, broadcastable with ``[K, B]``.
            m: inverse mass, broadcastable with ``[K, B, D]``.
        """


def start(log_density: LogDensity, z: Tensor) -> State:
    """The state at z ``[K, B, D]`` of the density ``log_density``.

    Raises:
        InputError: inference mode; z has another shape; a log-density that has another, does not depend on z differentiably, or is not
            finite at z.
    """
    if torch.is_inference_mode_enabled():
        raise InputError(
            "torch.inference_mode() is on and records no gradients, which a chain follows: use torch.no_grad(), "
            "or Trainer(inference_mode=False)"
        )
    if z.dim() != 3:
        raise InputError(f"positions of shape {list(z.shape)}: chains are [K, B, D]; Layout joins other events into one")
    state = _evaluated(log_density, z)
    if not bool((state.log_p.isfinite() & state.grad.isfinite().all(-1)).all()):
        bad = int((~(state.log_p.isfinite() & state.grad.isfinite().all(-1))).sum())
        raise InputError(
            f"the log-density or its gradient is not finite at the start of {bad} of {state.log_p.numel()} chains: start elsewhere"
        )
    return state


def _evaluated(log_density: LogDensity, z: Tensor) -> State:
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        log_p = log_density(z)
        if log_p.shape != z.shape[:2]:
            raise InputError(f"the log-density of chains {list(z.shape)} is {list(log_p.shape)}: it must be [K, B] = {list(z.shape[:2])}")
        grad = torch.autograd.grad(log_p.sum(), z, allow_unused=True)[0] if log_p.requires_grad else None
    if grad is None:
        raise InputError(
            "the log-density has no gradient in z, which Hamiltonian Monte Carlo follows: it needs continuous latents and a "
            "differentiable density; for discrete latents use RWS, WakeSleep or another score-function objective"
        )
    return State(z.detach(), log_p.detach(), grad)


def kinetic(r: Tensor, m: Tensor) -> Tensor:
    """The kinetic energy sum_d m_d r_d^2 / 2, ``[K, B]``, of momenta r ``[K, B, D]`` and inverse masses m."""
    return 0.5 * (m * r.square()).sum(-1)


def drawn_momentum(z: Tensor, m: Tensor) -> Tensor:
    """r ~ N(0, 1 / m), ``[K, B, D]`` as z; m is the inverse mass, broadcastable with it."""
    return torch.randn(z.shape, dtype=z.dtype, device=z.device) / m.sqrt()


def leapfrog(log_density: LogDensity, state: State, r: Tensor, epsilon: Tensor, m: Tensor, *, steps: int = 1) -> tuple[State, Tensor]:
    """``steps`` leapfrog steps from (z, r): reversible, volume preserving, energy error O(epsilon^2). A negative epsilon goes back.

    A chain that becomes infinite or NaN stays where it last was finite with a log-density of -inf: it will be rejected.

    Args:
        log_density: z ``[K, B, D]`` -> log p up to a constant, ``[K, B]``.
        state: where the chains are.
        r: momenta, ``[K, B, D]``.
        epsilon: step sizes, ``[K, B]`` or what broadcasts with it.
        m: inverse masses, broadcastable with r.
        steps: how many.

    Raises:
        InputError: a log-density of another shape, or without a gradient in z.
    """
    epsilon = epsilon.unsqueeze(-1)
    lost = torch.zeros_like(state.log_p, dtype=torch.bool)
    for _ in range(steps):
        half = r + 0.5 * epsilon * state.grad
        z = state.z + epsilon * m * half
        good = z.isfinite().all(-1, keepdim=True)
        new = _evaluated(log_density, torch.where(good, z, state.z))
        fine = new.log_p.isfinite() & new.grad.isfinite().all(-1) & good.squeeze(-1) & ~lost
        lost = ~fine
        state = where(fine, new, state)
        r = torch.where(fine.unsqueeze(-1), half + 0.5 * epsilon * state.grad, r)
    return State(state.z, state.log_p.masked_fill(lost, -torch.inf), state.grad), r


def where(choice: Tensor, a: State, b: State) -> State:
    """a where ``choice [K, B]`` holds, else b."""
    wide = choice.unsqueeze(-1)
    return State(torch.where(wide, a.z, b.z), torch.where(choice, a.log_p, b.log_p), torch.where(wide, a.grad, b.grad))


@dataclass(frozen=True)
class Layout:
    """How the latents ``[K, B, *]`` of one or several levels lie in one vector ``[K, B, D]``.

    Attributes:
        events: the event shape of each level.

    >>> layout = Layout(((2,), (1, 3)))
    >>> z = layout.split(torch.arange(5.0).view(1, 1, 5))
    >>> [t.tolist() for t in z], torch.equal(layout.join(z), torch.arange(5.0).view(1, 1, 5))
    ([[[[0.0, 1.0]]], [[[[2.0, 3.0, 4.0]]]]], True)
    """

    events: tuple[tuple[int, ...], ...]

    @staticmethod
    def of(z: Sequence[Tensor]) -> Layout:
        """The layout of latents ``[K, B, *]``.

        Raises:
            InputError: no level, or a tensor without the two leading dimensions.
        """
        if not z or any(t.dim() < 2 for t in z):
            raise InputError(f"latents of shapes {[list(t.shape) for t in z]}: give [K, B, *] for each level")
        return Layout(tuple(tuple(t.shape[2:]) for t in z))

    @property
    def sizes(self) -> list[int]:
        """Numbers per level; D is their sum."""
        return [Size(event).numel() for event in self.events]

    def join(self, z: Sequence[Tensor]) -> Tensor:
        """``[K, B, *]`` per level -> ``[K, B, D]``."""
        return torch.cat([t.reshape(*t.shape[:2], -1) for t in z], -1)

    def split(self, z: Tensor) -> tuple[Tensor, ...]:
        """``[..., D]`` -> ``[..., *]`` per level."""
        return tuple(
            t.unflatten(-1, event) if event else t.squeeze(-1) for t, event in zip(z.split(self.sizes, -1), self.events, strict=True)
        )
