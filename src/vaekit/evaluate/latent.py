"""Where a data set lies in latent space, and which latent dimensions carry anything."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vaekit.data.core import Split
from vaekit.dist import DiagGaussian, gaussian_kl_parts
from vaekit.evaluate.passes import batches, device_of, dtype_of, fitting, observing
from vaekit.models.core import LatentModel
from vaekit.models.picks import Level, at_centre
from vaekit.train.collapse import ACTIVE
from vaekit.train.collapse import offset as offset_of
from vaekit.types import Batch

__all__ = ["ACTIVE", "Latents", "active", "embed", "latents", "offsets"]


@dataclass(frozen=True)
class Latents:
    """A data set in latent space.

    Attributes:
        z: centres of q(z | x), levels joined from the top down, ``[N, D]``.
        kl: mean over the data of KL(q_d || p_d) per dimension in nats, ``[D]``; None where q or p is not a diagonal Gaussian, so that
            a KL per dimension does not exist.
        sizes: dimensions of each level.
        offset: `offsets` of the same examples, ``[N, D]``.
    """

    z: Tensor
    kl: Tensor | None
    sizes: tuple[int, ...]
    offset: Tensor

    @property
    def variance(self) -> Tensor:
        """Variance over the data of each `offset`, ``[D]``; under N(0, I) that of the posterior mean."""
        return self.offset.var(0, correction=0)

    @property
    def active(self) -> Tensor:
        """bool ``[D]``: `variance` above `ACTIVE`."""
        return self.variance > ACTIVE


def active(offset: Tensor) -> int:
    """Number of active dimensions of `offsets` ``[N, D]``."""
    return int((offset.var(0, correction=0) > ACTIVE).sum())


def embed(model: LatentModel, split: Split, *, batch_size: int = 500) -> Tensor:
    """The centre of q(z | x) for every example in order, ``[N, D]``, on the CPU."""
    with observing(model, 0):
        return torch.cat(
            [model.embed(batch).cpu() for batch in batches(split, fitting(split, batch_size), device_of(model), dtype=dtype_of(model))]
        )


def offsets(model: LatentModel, split: Split, *, batch_size: int = 500) -> Tensor:
    """How far the centre of q lies from that of p at the same state above, for every example, ``[N, D]``, on the CPU.

    Where p is a diagonal Gaussian the unit is its standard deviation. Under N(0, I) it is the posterior mean; where q is p it is 0.
    """
    with observing(model, 0):
        return torch.cat(
            [_offset(model, batch) for batch in batches(split, fitting(split, batch_size), device_of(model), dtype=dtype_of(model))]
        )


def latents(model: LatentModel, split: Split, *, seed: int = 0, batch_size: int = 500) -> Latents:
    """`Latents` of a split; levels below the top are conditioned on one sample of the levels above."""
    centres, offset, kls, weights = [], [], [], []
    sizes: tuple[int, ...] = ()
    with observing(model, seed):
        for batch in batches(split, fitting(split, batch_size), device_of(model), dtype=dtype_of(model)):
            centres.append(model.embed(batch).cpu())
            offset.append(_offset(model, batch))
            levels = [level for level in model.infer(batch).levels if level.informed]
            sizes = tuple(level.z[0, 0].numel() for level in levels)
            kls.append([_kl_per_dimension(level) for level in levels])
            weights.append(batch.size)
    if any(kl is None for row in kls for kl in row):
        return Latents(torch.cat(centres), None, sizes, torch.cat(offset))
    rows = torch.stack([torch.cat([kl for kl in row if kl is not None]) for row in kls])
    weight = torch.tensor(weights, dtype=rows.dtype)
    return Latents(torch.cat(centres), (rows * weight[:, None]).sum(0) / weight.sum(), sizes, torch.cat(offset))


def _centred(model: LatentModel, batch: Batch) -> list[Level]:
    return [level for level in model.trace(at_centre(), batch).levels if level.informed]


def _offset(model: LatentModel, batch: Batch) -> Tensor:
    with torch.no_grad():
        return torch.cat([offset_of(level)[0].flatten(1) for level in _centred(model, batch)], -1).cpu()


def _kl_per_dimension(level: Level) -> Tensor | None:
    if not (isinstance(level.q, DiagGaussian) and isinstance(level.p, DiagGaussian)):
        return None
    kl = gaussian_kl_parts(level.q, level.p)
    n = len(level.q.event_shape)
    return kl.flatten(kl.dim() - n).flatten(0, -2).mean(0).cpu()
