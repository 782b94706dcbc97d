"""One pass over a data set without touching the model's mode, its gradients or anybody's random numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from vaekit.data.core import Split
from vaekit.models.core import LatentModel
from vaekit.tensors import evaluating, seed_noise
from vaekit.types import Batch

__all__ = ["CHUNK", "batches", "device_of", "dtype_of", "fitting", "observing"]

CHUNK = 4_000_000
"""Numbers of x-shaped memory that examples read, or samples decoded, at once may take: 16 MB, which stays in the last-level cache of common
processors."""


@contextmanager
def observing(model: LatentModel, seed: int) -> Iterator[None]:
    """Evaluation mode, no gradients, the global generators seeded for the duration; everything is put back afterwards."""
    device = device_of(model)
    with evaluating(model), torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
        seed_noise(seed, device)
        yield


def device_of(model: LatentModel) -> torch.device:
    """Where the model's tensors lie; the CPU for a model without any."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


def dtype_of(model: LatentModel) -> torch.dtype | None:
    """The floating dtype that the model computes in; None for a model without floating tensors."""
    return next((t.dtype for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()), None)


def fitting(split: Split, most: int) -> int:
    """How many examples to take at a time: ``most``, or fewer where they are so wide that they would exceed `CHUNK`."""
    return max(1, min(most, CHUNK // split.shape.numel()))


def batches(split: Split, size: int, device: torch.device, *, dtype: torch.dtype | None = None) -> Iterator[Batch]:
    """The split in order, ``size`` examples at a time; ``dtype``, see `dtype_of`, is that of x where x is floating."""
    for rows in torch.arange(len(split)).split(size):
        batch = split.batch(rows).to(device)
        c = None if batch.c is None else batch.c.to(dtype)
        yield batch._replace(x=batch.x.to(dtype), c=c) if batch.x.is_floating_point() else batch
