"""What a model's own pass shows of it: what its distributions are, and how its latents and data are laid out in tensors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal

from vaekit.dist import Bernoulli, Categorical, DiagGaussian, DiscretisedLogistic, Missing, OneHot, centre, describe
from vaekit.errors import InputError
from vaekit.models.core import LatentModel, Trace
from vaekit.models.picks import Level, at_centre
from vaekit.types import Batch

__all__ = ["MEANING", "Field", "Layout", "described", "event_wide", "look"]


@singledispatch
def described(d: Distribution) -> dict[str, Tensor]:
    """The tensors ``[*batch, *event]`` that say what a distribution is, the first its `vaekit.dist.centre`; that alone where no more is
    known. A distribution for which more is known registers its own with ``@described.register``.

    >>> d = DiagGaussian(torch.zeros(3, 2), torch.zeros(3, 2))
    >>> {name: list(t.shape) for name, t in described(d).items()}
    {'mean': [3, 2], 'std': [3, 2]}
    """
    return {"centre": centre(d)}


@described.register
def _(d: Independent) -> dict[str, Tensor]:
    return described(d.base_dist)


@described.register(DiagGaussian)
@described.register(MultivariateNormal)
def _gaussian(d: DiagGaussian | MultivariateNormal) -> dict[str, Tensor]:
    return {"mean": d.mean, "std": d.variance.sqrt()}


@described.register(Bernoulli)
@described.register(OneHot)
def _discrete(d: Bernoulli | OneHot) -> dict[str, Tensor]:
    return {"mean": d.mean, "logits": d.logits}


@described.register
def _(d: Categorical) -> dict[str, Tensor]:
    return {"mode": centre(d), "logits": d.logits}


@described.register
def _(d: DiscretisedLogistic) -> dict[str, Tensor]:
    return {"centre": centre(d), "loc": d.loc, "log_scale": d.log_scale}


@described.register
def _(d: Missing) -> dict[str, Tensor]:
    return described(d.px)


MEANING = {
    "centre": "one point that stands for the distribution",
    "mean": "the mean",
    "mode": "the class of the largest probability",
    "std": "the standard deviation of each entry",
    "logits": "the logits: of 1, or of the classes",
    "loc": "the location of the logistic under the grid",
    "log_scale": "the logarithm of its scale",
    "log_px": "importance-weighted estimate of log p(x), of a model of the mask that of x and mask, nats",
}
"""Of what comes out."""


@dataclass(frozen=True)
class Field:
    """A tensor that goes in or comes out: its name, its shape with the place of B at ``batch``, and what it is.

    Attributes:
        name: of the tensor.
        shape: with the place of B at ``batch``.
        batch: which axis is that of the examples.
        dtype: as numpy calls it.
        meaning: what it is, in words.
    """

    name: str
    shape: tuple[int, ...]
    batch: int
    dtype: str
    meaning: str

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        shape = ["batch" if axis == self.batch else size for axis, size in enumerate(self.shape)]
        return {"name": self.name, "shape": shape, "dtype": self.dtype, "meaning": self.meaning}


@dataclass(frozen=True)
class Layout:
    """What a look at a model's own pass has shown: events and names of q and p of the levels that are codes of x (`Level.informed`), and
    the name of p(x | z).

    Attributes:
        events: event shapes of z, by level.
        posteriors: names of q, by level.
        priors: names of p(z_l | z_<l), by level.
        likelihood: name of p(x | z).
        outputs: names of what the encoder gives.
    """

    events: tuple[torch.Size, ...]
    posteriors: tuple[str, ...]
    priors: tuple[str, ...]
    likelihood: str
    outputs: tuple[str, ...]  # of the encoder

    @property
    def latent(self) -> int:
        """D, the dimensions of all levels."""
        return sum(event.numel() for event in self.events)

    def split(self, z: Tensor) -> list[Tensor]:
        """``[B, D]`` -> the levels' latents, ``[1, B, *]`` each."""
        parts = z.split([event.numel() for event in self.events], -1)
        return [part.reshape(1, -1, *event) for part, event in zip(parts, self.events, strict=True)]


def look(model: LatentModel, batch: Batch) -> tuple[Layout, Trace]:
    """The layout of a model, by its pass at the centre of q.

    Raises:
        InputError: a model without a posterior.
    """
    t = model.trace(at_centre(), batch)
    codes = [level for level in t.levels if level.informed]
    kinds = [tuple(event_wide(_q(level))) for level in codes]
    layout = Layout(
        events=tuple(level.z.shape[2:] for level in codes),
        posteriors=tuple(describe(_q(level)) for level in codes),
        priors=tuple(describe(level.p) for level in codes),
        likelihood=describe(t.px),
        outputs=kinds[0] if len(set(kinds)) == 1 else ("centre",),
    )
    return layout, t


def _q(level: Level) -> Distribution:
    if level.q is None:
        raise InputError("this model has no posterior q(z | x), so there is no encoder and no score to export")
    return level.q


def event_wide(q: Distribution) -> dict[str, Tensor]:
    """Of what describes q, the tensors of an event's shape: only those can be joined over levels."""
    found = described(q)
    shape = torch.Size([*q.batch_shape, *q.event_shape])
    return {name: t for name, t in found.items() if t.shape == shape}
