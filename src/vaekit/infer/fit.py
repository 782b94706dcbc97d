r"""Variational inference without data: a family of distributions fitted to a density that is known up to its normaliser.

.. math:: KL(q \| p) = E_q[\log q(z) - \log \tilde p(z)] + \log Z, \qquad p = \tilde p / Z
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Size, Tensor, nn

from vaekit.dist import draw
from vaekit.errors import InputError
from vaekit.tensors import logmeanexp

__all__ = ["FitResult", "fit_density"]

EVALUATION = 20_000
"""Samples behind the reported divergence."""


@dataclass(frozen=True)
class FitResult:
    """What `fit_density` found, in nats.

    Attributes:
        kl: KL(q || p) after the last step, from 20,000 new samples.
        se: its standard error.
        log_z: log Z as given or, from the same samples, as estimated.
        history: KL(q || p) as each step's samples estimate it, before the step.
    """

    kl: float
    se: float
    log_z: float
    history: tuple[float, ...]


def fit_density(
    family: nn.Module,
    log_density: Callable[[Tensor], Tensor],
    *,
    steps: int = 2000,
    samples: int = 256,
    lr: float = 1e-2,
    warmup: int = 0,
    log_z: float | None = None,
) -> FitResult:
    """Minimise KL(q || p) over the parameters of ``family`` by Adam on reparameterised samples; the family is left fitted.

    The step size falls from ``lr`` to 0 along a cosine. The divergence is the reverse one, which can be small where q covers one
    mode of several: an estimated normaliser (``log_z=None``) then misses the others too, and the divergence seems smaller than it is.

    Args:
        family: ``() -> Distribution`` with parameters: a prior, `Learned` with any head, a zuko flow.
        log_density: log p~, ``[samples, *event] -> [samples]``, differentiable.
        steps: of the optimiser.
        samples: per step, from torch's global generator.
        lr: first step size.
        warmup: steps over which the weight of log p~ rises from 0 to 1, so that q finds distant modes before it settles.
        log_z: log Z, where it is known.

    Raises:
        InputError: no steps or samples; a family without parameters or without reparameterised samples; a density of another shape, or one
            that is not finite where q lies.

    >>> from torch.distributions import Independent, Normal
    >>> from vaekit import priors
    >>> _ = torch.manual_seed(0)
    >>> family = priors.DiagNormal(2)
    >>> result = fit_density(family, Independent(Normal(torch.tensor([1.0, -1.0]), 0.5), 1).log_prob, steps=300, lr=0.05, log_z=0.0)
    >>> result.kl < 0.01, family.loc.detach()
    (True, tensor([ 1.0..., -1.0...]))
    """
    if steps < 1 or samples < 1:
        raise InputError(f"fit_density(steps={steps}, samples={samples}): at least 1 of each")
    parameters = [parameter for parameter in family.parameters() if parameter.requires_grad]
    if not parameters:
        raise InputError(f"fit_density: {type(family).__name__} has no parameters to fit")
    optimiser = torch.optim.Adam(parameters, lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    history = []
    for step in range(steps):
        z, log_q = draw(family(), Size([samples]))
        log_p = _checked(log_density(z), log_q)
        weight = min(1.0, (step + 1) / warmup) if warmup else 1.0
        optimiser.zero_grad()
        (log_q - weight * log_p).mean().backward()
        optimiser.step()
        schedule.step()
        history.append(float((log_q - log_p).detach().mean()))
    with torch.no_grad():
        z, log_q = draw(family(), Size([EVALUATION]))
        log_w = (_checked(log_density(z), log_q) - log_q).double()
    influence = -log_w
    if log_z is None:
        log_z = float(logmeanexp(log_w))
        influence = influence + torch.exp(log_w - log_z)  # the estimate of log Z errs with the same samples
    kl, se = log_z - float(log_w.mean()), float(influence.std()) / math.sqrt(EVALUATION)
    return FitResult(kl, se, log_z, tuple(value + log_z for value in history))


def _checked(log_p: Tensor, log_q: Tensor) -> Tensor:
    if log_p.shape != log_q.shape:
        raise InputError(
            f"fit_density: the log-density of {log_q.shape[0]} points has shape {list(log_p.shape)}; it must be {list(log_q.shape)}"
        )
    if not bool(log_p.detach().isfinite().all()):
        raise InputError("fit_density: the log-density is not finite at a sample of q; it must be finite everywhere")
    return log_p
