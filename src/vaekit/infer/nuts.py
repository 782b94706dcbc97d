r"""The no-U-turn sampler, batched: a trajectory that doubles until it turns back, and a point of it drawn by its weight.

.. math:: p(z_i) \propto \exp(-H(z_i, r_i)) \quad \text{along the trajectory}; \qquad
          \text{turned:} \; \rho \cdot m r_{left} \le 0 \;\text{or}\; \rho \cdot m r_{right} \le 0, \quad
          \rho = \sum_i r_i - \tfrac12 (r_{left} + r_{right})

All chains double in step; one that has turned or diverged waits for the others. Within a doubling the binary tree is walked leaf by leaf:
only the left ends of the subtrees that are still open are kept, at most one per depth (Phan, Pradhan and Jankowiak, 2019).

Hoffman and Gelman, "The No-U-Turn Sampler", JMLR 2014; Betancourt, "A conceptual introduction to Hamiltonian Monte Carlo", 2017 (the
multinomial form); Phan et al., "Composable Effects for Flexible and Accelerated Probabilistic Programming in NumPyro", 2019.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from vaekit.errors import InputError
from vaekit.infer.core import DIVERGENT, Info, Kernel, LogDensity, State, drawn_momentum, kinetic, leapfrog, where

__all__ = ["NUTS"]


class _Tree(NamedTuple):
    """A trajectory: its outer end in the direction of growth, the point drawn from it, and its sums."""

    end: State
    r: Tensor  # momentum at the end
    drawn: State
    log_w: Tensor  # log of the summed weights, relative to the start
    rho: Tensor  # summed momenta
    turned: Tensor
    divergent: Tensor
    accept: Tensor  # summed over leaves
    leaves: Tensor
    error: Tensor  # of the last leaf


@dataclass(frozen=True)
class NUTS(Kernel):
    """At most 2^depth - 1 leapfrog steps a transition.

    Attributes:
        depth: the most doublings.

    Raises:
        InputError: no doubling.

    >>> from vaekit.infer import start
    >>> _ = torch.manual_seed(0)
    >>> target = lambda z: -0.5 * z.square().sum(-1)
    >>> state, one = start(target, torch.zeros(1, 3, 2)), torch.tensor(1.0)
    >>> state, info = NUTS().step(target, state, 0.1 * one, one)
    >>> state.z.shape, bool((info.leapfrogs > 10).all())
    (torch.Size([1, 3, 2]), True)
    """

    depth: int = 10

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise InputError(f"NUTS(depth={self.depth}): a trajectory needs at least 1 doubling")

    @property
    def preferred(self) -> float:
        return 0.8

    def step(self, log_density: LogDensity, state: State, epsilon: Tensor, m: Tensor) -> tuple[State, Info]:
        r = drawn_momentum(state.z, m)
        energy = kinetic(r, m) - state.log_p
        epsilon = epsilon.expand(state.log_p.shape)
        left, right = (state, r), (state, r)
        drawn, log_w, rho = state, torch.zeros_like(state.log_p), r
        growing = torch.ones_like(state.log_p, dtype=torch.bool)
        divergent, leaves = torch.zeros_like(growing), torch.zeros_like(growing, dtype=torch.int64)
        accept, error = torch.zeros_like(state.log_p), torch.zeros_like(state.log_p)
        for depth in range(self.depth):
            if not bool(growing.any()):
                break
            forward = torch.rand_like(log_w) < 0.5
            end, r_end = where(forward, right[0], left[0]), torch.where(forward.unsqueeze(-1), right[1], left[1])
            tree = _grown(log_density, end, r_end, torch.where(forward, epsilon, -epsilon), m, energy, depth, growing)
            whole = growing & ~tree.turned & ~tree.divergent
            # Biased towards the new half (Betancourt, 2017, appendix A.3.2); a half that turned or diverged inside is not to be drawn from.
            drawn = where(whole & (torch.rand_like(log_w) < torch.exp((tree.log_w - log_w).clamp(max=0))), tree.drawn, drawn)
            left, right = _moved(growing & ~forward, tree, left), _moved(growing & forward, tree, right)
            log_w = torch.where(growing, torch.logaddexp(log_w, tree.log_w), log_w)
            rho = torch.where(growing.unsqueeze(-1), rho + tree.rho, rho)
            accept, leaves = accept + tree.accept, leaves + tree.leaves
            error = torch.where(growing, tree.error, error)
            divergent = divergent | tree.divergent
            growing = whole & ~_turned(left[1], right[1], rho, m)
        return drawn, Info(accept / leaves, error, divergent, leaves)


def _grown(
    log_density: LogDensity, state: State, r: Tensor, epsilon: Tensor, m: Tensor, energy: Tensor, depth: int, growing: Tensor
) -> _Tree:
    """The 2^depth leaves beyond an end of the trajectory; fewer where a subtree turns or a leaf diverges."""
    zero, zeros = torch.zeros_like(state.log_p), torch.zeros_like(r)
    no = torch.zeros_like(growing)
    tree = _Tree(state, r, state, zero - torch.inf, zeros, no, no, zero, torch.zeros_like(no, dtype=torch.int64), zero)
    opened: dict[int, tuple[Tensor, Tensor]] = {}  # momentum at the first leaf of an open subtree, and the sum of momenta up to it
    for n in range(2**depth):
        live = growing & ~tree.turned & ~tree.divergent
        if not bool(live.any()):
            break
        tree = _with_leaf(log_density, tree, epsilon, m, energy, live)
        turned = tree.turned
        if n % 2 == 0:
            opened[(n // 2).bit_count()] = (tree.r, tree.rho)
        for slot in _closed(n):
            first, up_to = opened[slot]
            turned = turned | (live & _turned(first, tree.r, tree.rho - up_to + first, m))
        tree = tree._replace(turned=turned)
    return tree


def _with_leaf(log_density: LogDensity, tree: _Tree, epsilon: Tensor, m: Tensor, energy: Tensor, live: Tensor) -> _Tree:
    """One more leapfrog step where ``live``."""
    wide = live.unsqueeze(-1)
    new, r = leapfrog(log_density, tree.end, tree.r, epsilon, m)
    error = torch.nan_to_num(kinetic(r, m) - new.log_p - energy, nan=torch.inf)
    divergent = live & (error > DIVERGENT)
    fine = live & ~divergent
    log_w = torch.where(fine, torch.logaddexp(tree.log_w, -error), tree.log_w)
    drawn = fine & (torch.rand_like(log_w).log() < -error - log_w)  # each leaf by its weight among those so far
    return _Tree(
        end=where(fine, new, tree.end),
        r=torch.where(wide, r, tree.r),
        drawn=where(drawn, new, tree.drawn),
        log_w=log_w,
        rho=torch.where(wide, tree.rho + r, tree.rho),
        turned=tree.turned,
        divergent=tree.divergent | divergent,
        accept=tree.accept + torch.where(live, torch.exp(-error.clamp(min=0)), 0.0),
        leaves=tree.leaves + live,
        error=torch.where(live, error, tree.error),
    )


def _closed(n: int) -> Iterator[int]:
    """The open subtrees that leaf n closes: as many as the binary n has trailing ones, from the innermost out."""
    top = (n // 2).bit_count()
    count = (~n & (n + 1)).bit_length() - 1
    return iter(range(top, top - count, -1))


def _turned(first: Tensor, last: Tensor, rho: Tensor, m: Tensor) -> Tensor:
    """Whether the trajectory between two momenta has turned back at either end, ``[K, B]``."""
    rho = rho - 0.5 * (first + last)
    return ((m * first * rho).sum(-1) <= 0) | ((m * last * rho).sum(-1) <= 0)


def _moved(grew: Tensor, tree: _Tree, end: tuple[State, Tensor]) -> tuple[State, Tensor]:
    return where(grew, tree.end, end[0]), torch.where(grew.unsqueeze(-1), tree.r, end[1])
