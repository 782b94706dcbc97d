r"""What lies between a density that can be sampled and the posterior, and one step of Hamiltonian Monte Carlo on the way.

.. math:: \log f_\beta(z) = \log f_0(z) + \beta \, \delta(z), \qquad \delta(z) = \log p(x, z) - \log f_0(z)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from vaekit.errors import InputError
from vaekit.infer.core import DIVERGENT, Layout
from vaekit.infer.hmc import HMC
from vaekit.infer.target import scored
from vaekit.models.core import LatentModel
from vaekit.models.picks import from_p
from vaekit.types import Batch

__all__ = ["Path", "Point", "Terms", "point", "posterior_path", "prior_path", "transition"]

Terms = Callable[[Tensor], tuple[Tensor, Tensor]]
"""z ``[K, B, D]`` -> log f_0(z) and delta(z), ``[K, B]`` each."""


@dataclass(frozen=True)
class Path:
    """What lies between f_0 and the target; `prior_path` and `posterior_path` make one of a model, any two densities may.

    Attributes:
        terms: z ``[K, B, D]`` -> log f_0(z), normalised, and delta(z) = log f_1(z) - log f_0(z), ``[K, B]`` each.
        draw: k -> z ``[k, B, D]`` ~ f_0, from torch's global generator.
        layout: how z is split into levels.
    """

    terms: Terms
    draw: Callable[[int], Tensor]
    layout: Layout


def prior_path(model: LatentModel, batch: Batch) -> Path:
    """From p(z), the joint prior of all levels: delta = log p(x | z). q plays no part.

    Raises:
        InputError: at the first use, a level that is discrete or bounded.
    """
    context = None if batch.c is None else batch
    with torch.no_grad():
        layout = Layout.of(model.trace(from_p(1, batch.size), context).z)

    def terms(z: Tensor) -> tuple[Tensor, Tensor]:
        t = scored(model, batch, layout.split(z))
        return t.log_pz, t.log_px

    def drawn(k: int) -> Tensor:
        with torch.no_grad():
            return layout.join(model.trace(from_p(k, batch.size), context).z)

    return Path(terms, drawn, layout)


def posterior_path(model: LatentModel, batch: Batch) -> Path:
    """From q(z | x): delta = log p(x, z) - log q(z | x), so that two temperatures are plain importance sampling from q.

    A flat model encodes x once. Below the top of a ladder q depends on the latents above, and the inference networks run at every step.

    Raises:
        InputError: a level that is discrete or bounded, a q without a density.
    """
    with torch.no_grad():
        first = model.infer(batch)
        layout = Layout.of(first.z)
        scored(model, batch, first.z)  # refuses what has no gradient
        _ = first.log_qz
    q = first.levels[0].q

    def flat(z: Tensor) -> tuple[Tensor, Tensor]:
        t = scored(model, batch, layout.split(z))
        log_q: Tensor = q.log_prob(t.z[0])  # type: ignore[union-attr]  # log_qz above has seen it
        return log_q, t.log_joint - log_q

    def deep(z: Tensor) -> tuple[Tensor, Tensor]:
        t = model.score(batch, layout.split(z))
        log_q = t.log_qz
        return log_q, t.log_joint - log_q

    def drawn(k: int) -> Tensor:
        with torch.no_grad():
            return layout.join(model.infer(batch, k).z)

    return Path(flat if len(first.levels) == 1 else deep, drawn, layout)


class Point(NamedTuple):
    """z ``[K, B, D]`` with both terms ``[K, B]`` and their gradients: all that any temperature needs to know about it.

    Attributes:
        z: ``[K, B, D]``.
        log_0: log f_0(z), ``[K, B]``.
        delta: log f_1(z) - log f_0(z), ``[K, B]``.
        grad_0: of log f_0 in z, ``[K, B, D]``.
        grad_delta: of delta in z, ``[K, B, D]``.
    """

    z: Tensor
    log_0: Tensor
    delta: Tensor
    grad_0: Tensor
    grad_delta: Tensor

    def log_f(self, beta: float) -> Tensor:
        """log f_beta(z) = log f_0(z) + beta delta(z), ``[K, B]`` nats."""
        return self.log_0 + beta * self.delta

    def grad(self, beta: float) -> Tensor:
        """The gradient of `log_f` in z, ``[K, B, D]``."""
        return self.grad_0 + beta * self.grad_delta


def transition(terms: Terms, at: Point, beta: float, epsilon: Tensor, kernel: HMC) -> tuple[Point, Tensor]:
    """`HMC` at one temperature with step sizes ``[B]``; also the acceptance statistic ``[K, B]``.

    The model is evaluated once a leapfrog step, for both terms: the point that a transition ends with serves the next temperature.

    Args:
        terms: of the path.
        at: where the chains are.
        beta: the temperature, 0 ... 1.
        epsilon: step sizes, ``[B]``.
        kernel: leapfrog steps and their jitter.
    """
    epsilon = epsilon.expand(at.delta.shape)
    if kernel.jitter:
        epsilon = epsilon * (1 + kernel.jitter * (2 * torch.rand_like(at.delta) - 1))
    epsilon = epsilon.unsqueeze(-1)
    r = torch.randn_like(at.z)
    before = 0.5 * r.square().sum(-1) - at.log_f(beta)
    new = at
    r = r + 0.5 * epsilon * at.grad(beta)
    for n in range(kernel.leapfrogs):
        z = new.z + epsilon * r
        good = z.isfinite().all(-1, keepdim=True)  # where not, r is beyond all bounds too, and stays so: its energy rejects it
        new = point(terms, torch.where(good, z, at.z))
        r = r + (epsilon if n < kernel.leapfrogs - 1 else 0.5 * epsilon) * new.grad(beta)
    error = 0.5 * r.square().sum(-1) - new.log_f(beta) - before
    error = torch.nan_to_num(error, nan=torch.inf, posinf=torch.inf)
    accept = torch.exp(-error.clamp(min=0)).masked_fill(error > DIVERGENT, 0)
    chosen = torch.rand_like(accept) < accept
    wide = chosen.unsqueeze(-1)
    return Point(*(torch.where(wide if a.dim() == 3 else chosen, a, b) for a, b in zip(new, at, strict=True))), accept


def point(terms: Terms, z: Tensor) -> Point:
    """Both terms and gradients at z ``[K, B, D]``; what it returns is detached.

    Raises:
        InputError: densities of another shape than ``[K, B]``, or an initial one without a gradient in z.
    """
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        log_0, delta = terms(z)
        if not log_0.shape == delta.shape == z.shape[:2]:
            raise InputError(
                f"the densities of chains {list(z.shape)} are {list(log_0.shape)} and {list(delta.shape)}: they must be [K, B] = "
                f"{list(z.shape[:2])}"
            )
        if not log_0.requires_grad:
            raise InputError(
                "the initial density has no gradient in z, which Hamiltonian Monte Carlo follows: it needs continuous latents, and "
                "torch.no_grad() rather than torch.inference_mode()"
            )
        grad_0 = _gradient(log_0, z)
        grad_delta = _gradient(delta, z)
    return Point(z.detach(), log_0.detach(), delta.detach(), grad_0, grad_delta)


def _gradient(y: Tensor, z: Tensor) -> Tensor:
    found = torch.autograd.grad(y.sum(), z, retain_graph=True, allow_unused=True)[0] if y.requires_grad else None
    return torch.zeros_like(z) if found is None else found  # a decoder that ignores z
