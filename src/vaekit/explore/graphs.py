r"""A table's decoder as graphs that say what p(x | z) is, column by column, in numbers that a page can read.

Each row is ``[4 D + sum C_d]`` numbers: for every column its centre and three parameters of its kind, then the probabilities of the columns
of classes (two of a binary one).

=============================  =============================================================
Kind                           Parameters
=============================  =============================================================
``gaussian``                   mean, standard deviation
``student``                    location, scale, degrees of freedom
``continuous_bernoulli``       logit
``discretised_logistic``       location, scale
counts                         mean and inverse dispersion of the base, probability of more zeros
=============================  =============================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaekit.apps.export.layout import Field, look
from vaekit.apps.export.parts import Part, PartModule, Score, build
from vaekit.dist import (
    Bernoulli,
    Categorical,
    Columns,
    ContinuousBernoulli,
    DiagGaussian,
    DiscretisedLogistic,
    NegativeBinomial,
    Poisson,
    StudentT,
    ZeroInflated,
    centre,
)
from vaekit.dist.columns import in_order
from vaekit.errors import InputError
from vaekit.models.core import LatentModel
from vaekit.models.picks import given
from vaekit.types import Batch

__all__ = ["Given", "Layout", "Rows", "program", "row_of"]

NO_DISPERSION = 1e30
"""Inverse dispersion of a Poisson distribution."""


@dataclass(frozen=True)
class Layout:
    """The ``groups`` (which columns each part of p(x | z) has) and ``sizes`` (the number of classes of each column, 0 where it has none): a
    graph is made with these as plain numbers."""

    groups: tuple[tuple[int, ...], ...]
    sizes: tuple[int, ...]


@singledispatch
def _numbers(d: Distribution) -> tuple[Tensor, ...]:
    """Its parameters ``[*batch, n]``, up to three."""
    raise InputError(f"columns of {type(d).__name__} have no form on the page")


@_numbers.register
def _(d: DiagGaussian) -> tuple[Tensor, ...]:
    return (d.loc, d.log_scale.exp())


@_numbers.register
def _(d: StudentT) -> tuple[Tensor, ...]:
    return (d.loc, d.log_scale.exp(), d.df)


@_numbers.register
def _(d: ContinuousBernoulli) -> tuple[Tensor, ...]:
    return (d.logits,)


@_numbers.register
def _(d: DiscretisedLogistic) -> tuple[Tensor, ...]:
    return (d.loc, d.log_scale.exp())


@_numbers.register
def _(d: Poisson) -> tuple[Tensor, ...]:
    return (d.mean, torch.full_like(d.mean, NO_DISPERSION))


@_numbers.register
def _(d: NegativeBinomial) -> tuple[Tensor, ...]:
    return (d.mean, d.log_r.exp())


@_numbers.register
def _(d: ZeroInflated) -> tuple[Tensor, ...]:
    return (*_numbers(d.base), torch.sigmoid(d.logit))


@_numbers.register(Bernoulli)
@_numbers.register(Categorical)
def _(d: Bernoulli | Categorical) -> tuple[Tensor, ...]:
    return ()


def row_of(px: Distribution, table: Layout) -> Tensor:
    """What a page reads of p(x | z), ``[*batch, 4 D + sum C_d]``, with the columns of ``table``.

    Raises:
        InputError: p(x | z) is no row of columns.
    """
    if not isinstance(px, Columns):
        raise InputError(f"p(x | z) is no row of columns but {type(px).__name__}")
    wide: list[list[Tensor]] = [[], [], [], []]
    classes: dict[int, Tensor] = {}
    for part, index in zip(px.parts, table.groups, strict=True):
        middle = centre(part)
        found = [t.expand_as(middle) for t in _numbers(part)]
        for values, t in zip(wide, [middle, *found, *[torch.zeros_like(middle)] * (3 - len(found))], strict=True):
            values.append(t)
        for place, d in enumerate(index):
            if isinstance(part, Bernoulli):
                classes[d] = torch.stack([torch.sigmoid(-part.logits[..., place]), torch.sigmoid(part.logits[..., place])], -1)
            elif isinstance(part, Categorical):
                classes[d] = part.probs[..., : table.sizes[d], place]
    return torch.cat([*(in_order(values, px.order) for values in wide), *(classes[d] for d in sorted(classes))], -1)


class Rows(PartModule):
    """z ``[B, D]`` -> `row_of` p(x | z), with the columns of ``table``."""

    outputs = ("rows",)

    def __init__(self, model: LatentModel, batch: Batch, table: Layout) -> None:
        super().__init__(model)
        layout, _ = look(model, batch)
        self.layout, self.table = layout, table
        self.inputs = (Field("z", (batch.size, layout.latent), 0, "float32", "latents"),)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        (z,) = self.layout.split(tensors[0])
        _, px = self.model.unroll(given(z))
        return (row_of(px, self.table)[0],)


class Given(PartModule):
    """x, mask and noise -> log w_k = log p(x_obs, z_k) - log q(z_k | x_obs), nats ``[K, B]``, and `row_of` each p(x | z_k):
    ``score`` with the columns of ``table``."""

    outputs = ("log_w", "rows")

    def __init__(self, score: Score, table: Layout) -> None:
        super().__init__(score.model)
        self.score, self.table, self.inputs = score, table, score.inputs

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        t = self.score.trace(*tensors)
        return t.log_w, row_of(t.px, self.table)


def program(part: Part, model: LatentModel, batch: Batch, samples: int, table: Layout) -> PartModule:
    """A ``part`` of the model: the encoder as every model's, the decoder as `Rows`, in place of the score `Given`, both of ``table``."""
    if part == "decoder":
        return Rows(model, batch, table)
    made = build(part, model, batch, samples)
    return Given(made, table) if isinstance(made, Score) else made
