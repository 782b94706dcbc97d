"""What travels through the package: a batch of data.

Shapes everywhere: ``K`` samples, ``B`` examples, ``L`` levels, ``*`` an event; always ``[K, B, *]``.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vaekit.errors import InputError

__all__ = ["Batch"]


class Batch(NamedTuple):
    """A minibatch. A named tuple, so that Fabric, DDP, ``torch.compile`` and pytrees see through it.

    Attributes:
        x: the data, ``[B, *]``; its floating dtype is the networks' input dtype.
        c: context to condition on, ``[B, *]``, or None.
        mask: bool, ``[B, *]`` as x, True where x is observed; None where all of it is. Missing entries of x may hold anything, NaN too.
        index: ``[B]``, the row of each example in its data set, or None.

    >>> batch = Batch(torch.tensor([[1.0, float("nan")]]), mask=torch.tensor([[True, False]]))
    >>> batch.input
    tensor([[1., 0.]])
    """

    x: Tensor
    c: Tensor | None = None
    mask: Tensor | None = None
    index: Tensor | None = None  # type: ignore[assignment]  # nobody looks for a tensor by tuple.index

    @property
    def size(self) -> int:
        """B, the number of examples."""
        return self.x.shape[0]

    @property
    def input(self) -> Tensor:
        """What an encoder sees: x with its missing entries set to 0, ``[B, *]``.

        Raises:
            InputError: the mask is not bool, or not of x's shape.
        """
        if self.mask is None:
            return self.x
        if self.mask.dtype != torch.bool or self.mask.shape != self.x.shape:
            raise InputError(
                f"the mask is {str(self.mask.dtype)[6:]} {list(self.mask.shape)}: it must be bool, True where x is observed, and "
                f"{list(self.x.shape)}, as x"
            )
        return torch.where(self.mask, self.x, torch.zeros_like(self.x))

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        x, *others = self
        return Batch(x.to(device), *(None if t is None else t.to(device) for t in others))
