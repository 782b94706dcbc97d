"""Where the noise of samples comes from: torch's global generators, unless a `Source` is put in their place.

Every density of vaekit that transforms noise of a fixed distribution asks here. So several models trained as one can each have the noise
that they would have alone, and the processes of one training run the noise of their own rows. For those, whoever draws something for each
example of a batch says where the examples lie (`along`): a shape does not tell, for a latent may have as many dimensions as a batch has
rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, Protocol

import torch
from torch import Tensor

__all__ = ["Kind", "Source", "along", "axis_of", "drawn_by", "normal", "uniform"]

Kind = Literal["normal", "uniform"]


class Source(Protocol):
    """What draws noise ``[*sample, *batch, *event]`` in place of torch's global generators. `axis_of` says which axis is the examples'."""

    def __call__(self, kind: Kind, shape: tuple[int, ...], event_dim: int, like: Tensor) -> Tensor:
        """Independent numbers of shape ``shape``, dtype and device of ``like``: N(0, 1), or uniform in [0, 1)."""


_sources: list[Source] = []
_axes: list[int] = []


@contextmanager
def drawn_by(source: Source) -> Iterator[None]:
    """Noise comes from ``source`` as long as this lasts.

    >>> with drawn_by(lambda kind, shape, event_dim, like: torch.full(shape, 0.5)):
    ...     normal((2,), torch.zeros(2))
    tensor([0.5000, 0.5000])
    """
    _sources.append(source)
    try:
        yield
    finally:
        _sources.pop()


@contextmanager
def along(axis: int) -> Iterator[None]:
    """What is drawn as long as this lasts has the examples of the batch, B, on this axis: 1 for latents ``[K, B, *]``, 0 for rows
    ``[B, *]``. What is drawn under no such word is not the examples' own."""
    _axes.append(axis)
    try:
        yield
    finally:
        _axes.pop()


def axis_of(shape: Sequence[int], event_dim: int) -> int | None:
    """The axis of the examples in noise of ``shape``, whose last ``event_dim`` axes are one event's; None where it has none.

    >>> with along(1):
    ...     axis_of((4, 5, 6), 1), axis_of((4, 5, 3, 6), 1), axis_of((5, 6), 1)  # [K, B, D], [K, B, M, D] of M components, [K, D]
    (1, 1, None)
    >>> axis_of((4, 5, 6), 1)
    """
    return _axes[-1] if _axes and _axes[-1] < len(shape) - event_dim else None


def normal(shape: Sequence[int], like: Tensor, event_dim: int = 1) -> Tensor:
    """Independent N(0, 1) numbers of ``shape``, with dtype and device of ``like``; the last ``event_dim`` axes are one event's."""
    if _sources:
        return _sources[-1]("normal", tuple(shape), event_dim, like)
    return torch.randn(tuple(shape), dtype=like.dtype, device=like.device)


def uniform(shape: Sequence[int], like: Tensor, event_dim: int = 1) -> Tensor:
    """Independent uniform numbers in [0, 1) of ``shape``, with dtype and device of ``like`` and ``event_dim`` as in `normal`."""
    if _sources:
        return _sources[-1]("uniform", tuple(shape), event_dim, like)
    return torch.rand(tuple(shape), dtype=like.dtype, device=like.device)
