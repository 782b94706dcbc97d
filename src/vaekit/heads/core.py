"""A head turns the numbers that a network gives into a distribution: ``[*batch, features] -> Distribution``."""

from __future__ import annotations

import abc
import math

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaekit.errors import InputError

__all__ = ["Head"]


class Head(nn.Module, abc.ABC):
    """``[*batch, features] -> p(.)`` with batch shape ``[*batch]`` and event shape ``event_shape``.

    ``features`` is the width that the network before it must have. Parameters are cast to float32 here, so that log-densities are
    float32 whatever the networks' precision (float64 stays float64).

    Args:
        event_shape: shape of one example, an int for a vector.
        parts: parameters per entry of the event: ``features = parts * size``, unless ``features`` is given.
        features: numbers per example, where they are no multiple of the event's size.

    Implementing a Head:
        1. Call ``super().__init__(event_shape, parts=...)``.
        2. Write ``distribution(h)`` for ``h [*batch, features]``; ``self.split(h, parts)`` gives a ``[*batch, *event]`` tensor per part.
        3. Add one row to the table in ``tests/tables.py``.

    Raises:
        InputError: an empty dimension in ``event_shape``.
    """

    def __init__(self, event_shape: int | tuple[int, ...], *, parts: int = 1, features: int | None = None) -> None:
        super().__init__()
        self.event_shape = (event_shape,) if isinstance(event_shape, int) else tuple(event_shape)
        if any(n < 1 for n in self.event_shape):
            raise InputError(f"{type(self).__name__}: event shape {self.event_shape} has an empty dimension")
        self.features = parts * self.size if features is None else features

    @property
    def size(self) -> int:
        """Number of entries of one event."""
        return math.prod(self.event_shape)

    @abc.abstractmethod
    def distribution(self, h: Tensor) -> Distribution:
        """h ``[*batch, features]``, float32 or float64."""

    def forward(self, h: Tensor) -> Distribution:
        """The distribution with parameters h ``[*batch, features]``.

        Raises:
            InputError: the network's width is not ``features``.
        """
        if h.shape[-1] != self.features:
            raise InputError(
                f"{type(self).__name__}({self.event_shape}) takes {self.features} numbers per example and the network gives {h.shape[-1]}: "
                f"set the network's last width to {self.features}"
            )
        return self.distribution(h if h.dtype == torch.float64 else h.float())

    def split(self, h: Tensor, parts: int) -> tuple[Tensor, ...]:
        """``parts`` tensors ``[*batch, *event]`` from ``[*batch, parts * size]``: each parameter's values lie together, as channels do."""
        if parts == 1:
            return (h.unflatten(-1, self.event_shape),)  # the gradient of unbind would copy it
        return h.unflatten(-1, (parts, *self.event_shape)).unbind(h.dim() - 1)

    def extra_repr(self) -> str:
        return f"event_shape={self.event_shape}, features={self.features}"
