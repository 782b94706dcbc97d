r"""How the rate enters what is minimised: surrogate = -(log p(x | z) - penalty), penalty a function of the rate ``[K, B, L]`` and the step.

The bound that is reported never changes with it.
"""

from __future__ import annotations

import abc
from typing import ClassVar

import torch
from torch import Tensor, nn

from vaekit.errors import InputError
from vaekit.objectives.schedules import Schedule, as_schedule

__all__ = ["Beta", "Capacity", "FreeBits", "Penalty"]


class Penalty(nn.Module, abc.ABC):
    """(rate ``[K or 1, B, L]`` nats, step) -> penalty ``[K or 1, B]``.

    Implementing a Penalty: write ``forward``, and list the schedules it follows in ``schedules``, so that a warm-up longer than the run
    is noticed.
    """

    schedules: tuple[Schedule, ...] = ()
    compiles: ClassVar[bool] = False
    """As `Objective.compiles`."""
    per_example: ClassVar[bool] = False
    """As `Objective.per_example`."""

    @abc.abstractmethod
    def forward(self, rate: Tensor, step: int) -> Tensor:
        """The penalty in nats."""


def _weight(name: str, weight: float | Schedule) -> Schedule:
    """``weight`` as a schedule.

    Raises:
        InputError: a number below 0, with which the surrogate would reward the rate.
    """
    if isinstance(weight, int | float) and not weight >= 0:
        raise InputError(f"{name}(weight={weight}): a weight below 0 rewards the rate without end: give 0 or more")
    return as_schedule(weight)


class Beta(Penalty):
    r"""beta * sum_l rate_l (Higgins et al., "beta-VAE", ICLR 2017); beta may be a schedule: ``Beta(Linear(0, 1, 10_000))`` warms up.

    Args:
        weight: beta, a number or a schedule.

    Raises:
        InputError: a ``weight`` below 0.

    >>> Beta(4.0)(torch.ones(1, 2, 3), step=0)
    tensor([[12., 12.]])
    """

    compiles = True
    per_example = True

    def __init__(self, weight: float | Schedule = 1.0) -> None:
        super().__init__()
        self.weight = _weight("Beta", weight)
        self.schedules = (self.weight,)

    def forward(self, rate: Tensor, step: int) -> Tensor:
        return self.weight(step) * rate.sum(-1)


class FreeBits(Penalty):
    r"""sum_l max(lambda, mean over the batch of rate_l): no gradient on a level that costs less than lambda nats on average
    (Kingma et al., 2016, eq. 15, groups = levels).

    Each example keeps its own rate where the level's mean is above lambda, and lambda where it is below, so that the batch mean is the
    equation's.

    Args:
        nats: lambda, free nats per level.
        weight: factor on the sum, a number or a schedule.

    Raises:
        InputError: ``nats`` is negative.

    >>> FreeBits(0.5)(torch.tensor([[[0.1, 2.0], [0.3, 4.0]]]), step=0)
    tensor([[2.5000, 4.5000]])
    """

    compiles = True

    def __init__(self, nats: float, weight: float | Schedule = 1.0) -> None:
        super().__init__()
        if nats < 0:
            raise InputError(f"FreeBits({nats}): the free nats per level cannot be negative")
        self.nats = nats
        self.weight = _weight("FreeBits", weight)
        self.schedules = (self.weight,)

    def forward(self, rate: Tensor, step: int) -> Tensor:
        above = rate.mean((0, 1), keepdim=True) > self.nats
        return self.weight(step) * torch.where(above, rate, torch.full_like(rate, self.nats)).sum(-1)


class Capacity(Penalty):
    r"""gamma * | mean over the batch of the total rate - C |, C a schedule (Burgess et al., "Understanding disentangling", 2018, eq. 8).

    The mean of the batch stands in every example, so that the batch mean is the equation's and does not depend on the batch size.

    Args:
        gamma: weight of the distance, positive.
        nats: C, a number or a schedule.

    Raises:
        InputError: ``gamma`` is not positive.

    >>> Capacity(10.0, 3.0)(torch.tensor([[[1.0], [3.0]]]), step=0)
    tensor([[10., 10.]])
    """

    compiles = True

    def __init__(self, gamma: float, nats: float | Schedule) -> None:
        super().__init__()
        if gamma <= 0:
            raise InputError(f"Capacity(gamma={gamma}): gamma must be positive, or the rate has no weight at all")
        self.gamma = gamma
        self.nats = as_schedule(nats)
        self.schedules = (self.nats,)

    def forward(self, rate: Tensor, step: int) -> Tensor:
        total = rate.sum(-1)
        return (self.gamma * (total.mean() - self.nats(step)).abs()).expand_as(total)
