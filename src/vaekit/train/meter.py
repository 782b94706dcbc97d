"""Running sums on the device: nothing is read until somebody asks, so that a step never waits for the GPU."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from vaekit.errors import InputError
from vaekit.objectives.core import Loss

__all__ = ["Meter", "Sums", "named", "summed", "values_of"]


class Sums(NamedTuple):
    """What a step adds to the epoch's means: names, float64 sums ``[n]`` (``total``), and the number of examples, ``rows``."""

    names: tuple[str, ...]
    total: Tensor
    rows: int


class Meter:
    """Means over examples of named values ``[B]`` (or one number for the whole batch), summed in float64.

    Args:
        names: of what was summed so far.
        total: their sums, float64 ``[n]``.
        count: of examples.

    >>> meter = Meter()
    >>> meter.add({"bound": torch.tensor([1.0, 2.0])})
    >>> meter.add({"bound": torch.tensor([6.0])})
    >>> meter.means()
    {'bound': 3.0}
    """

    def __init__(self, names: tuple[str, ...] = (), total: Tensor | None = None, count: int = 0) -> None:
        self.names = names
        self.total = total
        self.count = count

    def add(self, values: Mapping[str, Tensor]) -> None:
        """One batch. The names and their order are those of the first."""
        self.accumulate(*summed(values))

    def accumulate(self, names: tuple[str, ...], sums: Tensor, count: int) -> None:
        """One batch, by the float64 sums ``[n]`` of ``names`` over its ``count`` examples.

        Raises:
            InputError: other names than before.
        """
        if self.total is None:
            self.names, self.total = names, sums
        elif names == self.names:
            self.total = self.total + sums
        else:
            changed = f"from {', '.join(self.names)} to {', '.join(names)}"
            raise InputError(f"what the objective logs changed {changed}; log the same names at every step")
        self.count += count

    def finite(self) -> bool:
        """Whether surrogate, gradient norm and bound have been finite all along: a sum never recovers. Waits for the device."""
        sums = dict(zip(self.names, [] if self.total is None else self.total.tolist(), strict=True))
        return bool(sums) and all(math.isfinite(sums.get(name, 0.0)) for name in ("surrogate", "grad_norm", "bound"))

    def means(self) -> dict[str, float]:
        """Waits for the device."""
        if self.total is None:
            return {}
        return {name: total / self.count for name, total in zip(self.names, self.total.tolist(), strict=True)}


def summed(values: Mapping[str, Tensor]) -> tuple[tuple[str, ...], Tensor, int]:
    """Names, float64 sums over the batch ``[n]`` (one number for the whole batch counts once an example), and the batch's size."""
    size = max(v.numel() for v in values.values())
    return tuple(values), torch.stack([v.detach().expand(size) for v in values.values()]).sum(1, dtype=torch.float64), size


def values_of(loss: Loss, norm: Tensor | None = None) -> dict[str, Tensor]:
    """What is averaged over an epoch, ``[B]`` or one number each: what ``loss`` holds, and the gradient's ``norm``."""
    values = {"surrogate": loss.surrogate}
    if norm is not None:
        values["grad_norm"] = norm
    if loss.bound is not None:
        values["bound"] = loss.bound
    return values | dict(loss.logs)


def named(part: str, means: Mapping[str, float]) -> dict[str, float]:
    """``means`` by the names that they have in a row: ``part/name``."""
    return {f"{part}/{name}": value for name, value in means.items()}
