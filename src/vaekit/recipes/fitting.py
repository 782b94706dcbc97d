"""The likelihoods that suit columns, pixels and counts, and how long to train: the parts of which recipes for one's own data are made."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Adam

from vaekit import heads
from vaekit.data.tables import Column, Known, Pixels
from vaekit.errors import InputError
from vaekit.heads.counts import Count
from vaekit.objectives import ELBO, IWAE, Objective
from vaekit.train import Training

__all__ = ["COUNTS", "bound_of", "head_column", "pixel_head", "pixels_as", "shift_biases", "start_at", "training_of"]

STEPS = 5000
"""Steps of training, about, where nobody says how many epochs: between 10 and 500 epochs, and fewer where validation says so."""
MISSING_K = 5
"""Samples per example in the bound where values are missing."""

LIKELIHOODS = {
    "Gaussian": "gaussian",
    "LogNormal": "gaussian",
    "StudentT": "student",
    "ContinuousBernoulli": "continuous_bernoulli",
    "Bernoulli": "bernoulli",
    "Categorical": "categorical",
    "Ordinal": "ordinal",
    "Poisson": "poisson",
    "NegativeBinomial": "negative_binomial",
    "ZeroInflatedPoisson": "zero_inflated_poisson",
    "ZeroInflatedNegativeBinomial": "zero_inflated_negative_binomial",
}
COUNTS: dict[str, Callable[..., Count]] = {
    "Poisson": heads.Poisson,
    "NegativeBinomial": heads.NegativeBinomial,
    "ZeroInflatedPoisson": heads.ZeroInflatedPoisson,
    "ZeroInflatedNegativeBinomial": heads.ZeroInflatedNegativeBinomial,
}


def head_column(column: Column, floor: float) -> heads.Column:
    """The likelihood of a column of a schema, ``floor`` the smallest standard deviation of its encoded numbers."""
    name = LIKELIHOODS[column.likelihood]
    kind = heads.columns.KINDS[name]
    return heads.Column(
        name,
        loc=column.loc if kind.scales else 0.0,
        scale=column.scale if kind.scales else 1.0,
        log=column.log,
        size=column.size if kind.least else 0,
        min_scale=floor if kind.logs else 0.0,
    )


def start_at(decoder: nn.Sequential, px: heads.Columns, start: Sequence[float]) -> None:
    """Let the rates of counts that ``decoder`` gives begin at their means, ``start`` by column: a network takes long to reach e^6 from
    e^0."""
    shift, place = torch.zeros(px.features), 0
    for head, group, width in zip(px.heads, px.groups, px.widths, strict=True):
        if isinstance(head, Count):
            shift[place : place + len(group)] = torch.tensor([start[d] for d in group])
        place += width
    shift_biases(decoder, shift)


def shift_biases(decoder: nn.Sequential, shift: Tensor) -> None:
    """Add ``shift`` ``[n]`` to the first n biases of the last layer of ``decoder``."""
    last = decoder[-1]
    if isinstance(last, nn.Linear):
        with torch.no_grad():
            last.bias[: len(shift)] += shift


def pixels_as(pixels: Pixels, likelihood: str) -> Pixels:
    """``pixels`` with another likelihood, which their values must be of.

    Raises:
        InputError: they are not.
    """
    if likelihood == "Bernoulli":
        raise InputError(f"--likelihood Bernoulli is for images of two values, and these have more ({pixels.because}): binarise them")
    if likelihood == "DiscretisedLogistic" and pixels.dtype != "uint8":
        raise InputError(f"--likelihood DiscretisedLogistic is for images in bytes, and these are {pixels.dtype}: take ContinuousBernoulli")
    return replace(pixels, likelihood=likelihood, because=f"chosen by the user; {pixels.because}")


def pixel_head(pixels: Pixels) -> heads.Head:
    """The head that the likelihood of the pixels names."""
    if pixels.likelihood == "DiscretisedLogistic":
        return heads.DiscretisedLogistic(pixels.shape)
    return (heads.Bernoulli if pixels.likelihood == "Bernoulli" else heads.ContinuousBernoulli)(pixels.shape)


def bound_of(k: int | None, missing: bool) -> Objective:
    """The bound of ``k`` samples, by default 1, or more where values are ``missing``: the ELBO, or the IWAE bound."""
    k = (MISSING_K if missing else 1) if k is None else k
    return ELBO() if k == 1 else IWAE(k)


def training_of(known: Known, lr: float, batch_size: int, epochs: int | None, patience: int | None) -> Training:
    """Adam with rate ``lr``; ``epochs`` by default from the data's size, and early stopping after ``patience`` epochs, by default a
    tenth of them, where there are validation rows."""
    train, valid, _ = known.rows
    epochs = min(500, max(10, round(STEPS / math.ceil(train / batch_size)))) if epochs is None else epochs
    patience = max(10, epochs // 10) if patience is None else patience
    return Training(epochs, batch_size, optimiser=partial(Adam, lr=lr), clip=100.0, patience=patience if valid else None)
