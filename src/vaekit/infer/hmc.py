r"""Hamiltonian Monte Carlo: L leapfrog steps, then Metropolis's decision.

.. math:: \Pr(\text{accept}) = \min(1, \exp(H(z, r) - H(z', r')))

Duane, Kennedy, Pendleton and Roweth, "Hybrid Monte Carlo", Physics Letters B, 1987; Neal, 2011.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vaekit.errors import InputError
from vaekit.infer.core import DIVERGENT, Info, Kernel, LogDensity, State, drawn_momentum, kinetic, leapfrog, where

__all__ = ["HMC"]


@dataclass(frozen=True)
class HMC(Kernel):
    """L leapfrog steps of size epsilon and one decision per chain.

    Attributes:
        leapfrogs: L.
        jitter: each transition of each chain takes epsilon * U(1 - jitter, 1 + jitter): a trajectory of a fixed length can be a period of
            the motion and go nowhere (Neal, 2011, section 3.2). 0 for none.

    Raises:
        InputError: L < 1, or a jitter outside [0, 1).

    >>> from vaekit.infer import start
    >>> _ = torch.manual_seed(0)
    >>> target = lambda z: -0.5 * z.square().sum(-1)
    >>> state, one = start(target, torch.zeros(1, 3, 2)), torch.tensor(1.0)
    >>> state, info = HMC().step(target, state, 0.1 * one, one)
    >>> state.z.shape, bool((info.accept > 0.99).all())
    (torch.Size([1, 3, 2]), True)
    """

    leapfrogs: int = 10
    jitter: float = 0.1

    def __post_init__(self) -> None:
        if self.leapfrogs < 1:
            raise InputError(f"HMC(leapfrogs={self.leapfrogs}): a trajectory needs at least 1 step")
        if not 0 <= self.jitter < 1:
            raise InputError(f"HMC(jitter={self.jitter}): the share by which the step size varies lies in [0, 1); 0 for a fixed one")

    @property
    def preferred(self) -> float:
        return 0.9

    def step(self, log_density: LogDensity, state: State, epsilon: Tensor, m: Tensor) -> tuple[State, Info]:
        r = drawn_momentum(state.z, m)
        epsilon = epsilon.expand(state.log_p.shape)
        if self.jitter:
            epsilon = epsilon * (1 + self.jitter * (2 * torch.rand_like(state.log_p) - 1))
        before = kinetic(r, m) - state.log_p
        new, r = leapfrog(log_density, state, r, epsilon, m, steps=self.leapfrogs)
        error = torch.nan_to_num(kinetic(r, m) - new.log_p - before, nan=torch.inf)
        accept = torch.exp(-error.clamp(min=0))
        chosen = where(torch.rand_like(accept) < accept, new, state)
        return chosen, Info(accept, error, error > DIVERGENT, torch.full_like(error, self.leapfrogs, dtype=torch.int64))
