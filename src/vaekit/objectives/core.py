"""What training asks of an objective.

A gradient surrogate and a reported value are different numbers. An objective returns both, named: ``surrogate`` is minimised,
``bound`` is what is reported, compared and stopped early on.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from numbers import Integral
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from vaekit.errors import InputError
from vaekit.models.core import LatentModel
from vaekit.objectives.schedules import Schedule
from vaekit.types import Batch

__all__ = ["Loss", "Objective", "samples", "terms"]


class Loss(NamedTuple):
    """surrogate ``[B]``: differentiate and minimise its mean. bound ``[B]``: nats, a lower bound on log p(x), None where there is none.
    logs: detached terms, ``[B]`` each, that are averaged and written down apart."""

    surrogate: Tensor
    bound: Tensor | None
    logs: Mapping[str, Tensor]


class Objective(nn.Module, abc.ABC):
    """(model, batch, step) -> `Loss`. Objectives live outside models, so that any of them trains any model.

    Implementing an Objective:
        1. Get a trace: ``model.infer(batch, k)``, ``model.dream(n)`` or ``model.score(batch, z)``.
        2. Return per-example values ``[B]``: never a mean over the batch, never a mean over pixels.
        3. ``bound`` is the unweighted bound whatever the surrogate is; ``logs`` start from ``terms(log_px, rate)``.
        4. Settings are public attributes: a resumed run must have the same ones. What changes while training goes into buffers, or into
           attributes with an underscore.
    """

    schedules: tuple[Schedule, ...] = ()
    """The schedules that the objective itself follows, so that one longer than the run is noticed; a penalty lists its own."""
    trains_q: ClassVar[bool] = True
    """Whether q(z | x) learns; if not, what is read off the encoder of a run (codes, KL, reconstructions) means nothing."""

    compiles: ClassVar[bool] = False
    """Whether a step is tensor operations alone, the same ones at every step once the schedules have settled: then a long run may compile
    it. A promise of this very class, which a subclass does not inherit but makes anew."""

    per_example: ClassVar[bool] = False
    """Whether each example's surrogate, bound and logs depend on the model, the step, that example and its own noise alone, and a step
    leaves nothing behind: then the batch may be divided over processes. A promise as `compiles`."""

    @abc.abstractmethod
    def forward(self, model: LatentModel, batch: Batch, step: int = 0) -> Loss:
        """step counts optimiser steps from 0; schedules depend on it and on nothing else."""


def terms(log_px: Tensor, rate: Tensor) -> dict[str, Tensor]:
    """The bound's terms, detached, means over K, ``[B]`` each: ``log_px`` and one ``rate_l`` a level, counted from the top.

    Args:
        log_px: ``[K, B]``.
        rate: ``trace.rate`` or ``trace.kl``, ``[K or 1, B, L]``.
    """
    rates = rate.detach().mean(0)
    return {"log_px": log_px.detach().mean(0)} | {f"rate_{n}": rates[:, n] for n in range(rates.shape[-1])}


def samples(objective: str, k: object) -> int:
    """k, the number of samples per example; ``objective`` is named in the message.

    Raises:
        InputError: it is no whole number, or less than 1.
    """
    if isinstance(k, bool) or not isinstance(k, Integral):
        raise InputError(f"{objective}(k={k!r}): k counts samples, so give a whole number")
    if k < 1:
        raise InputError(f"{objective}(k={k}): at least 1 sample is needed")
    return int(k)
