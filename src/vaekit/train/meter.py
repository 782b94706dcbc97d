"""Running sums on the device: nothing is read until somebody asks, so that a step never waits for the GPU."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from vaekit.errors import InputError
from vaekit.objectives.core import Loss

__all__ = ["Meter", "named", "values_of"]


class Meter:
    """Means over examples of named values ``[B]`` (or one number for the whole batch), summed in float64.

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
        names = tuple(values)
        size = max(v.numel() for v in values.values())
        sums = torch.stack([v.detach().expand(size) for v in values.values()]).sum(1, dtype=torch.float64)
        if self.total is None:
            self.names, self.total = names, sums
        elif names == self.names:
            self.total = self.total + sums
        else:
            changed = f"from {', '.join(self.names)} to {', '.join(names)}"
            raise InputError(f"what the objective logs changed {changed}; log the same names at every step")
        self.count += size

    def finite(self, first: int) -> bool:
        """Whether the first so many values have been finite all along: a sum never recovers. Waits for the device."""
        return self.total is not None and all(map(math.isfinite, self.total[:first].tolist()))

    def means(self) -> dict[str, float]:
        """Waits for the device."""
        if self.total is None:
            return {}
        return {name: total / self.count for name, total in zip(self.names, self.total.tolist(), strict=True)}


def values_of(loss: Loss, norm: Tensor | None = None) -> dict[str, Tensor]:
    """What is averaged over an epoch, the values that must stay finite first."""
    values = {"surrogate": loss.surrogate}
    if norm is not None:
        values["grad_norm"] = norm
    if loss.bound is not None:
        values["bound"] = loss.bound
    return values | dict(loss.logs)


def named(part: str, means: Mapping[str, float]) -> dict[str, float]:
    """The names as they stand in a row: ``part/name``."""
    return {f"{part}/{name}": value for name, value in means.items()}
