"""Your own data: a table, images, or a matrix of counts, with the likelihood that suits each column or pixel.

``vaekit train PATH`` looks at what lies there, says what it found, and trains the recipe of its kind. What was found is kept in the run
folder, so that a trained model is opened without its data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Adam

from vaekit import heads, priors
from vaekit.conditional import Conditional
from vaekit.data.core import DataSet
from vaekit.data.tables import Column, Counts, Description, Known, Pixels, Schema, inspect, with_sizes
from vaekit.data.tables.cells import Name
from vaekit.data.tables.infer import Kind
from vaekit.dist.counts import FEW, MANY
from vaekit.errors import InputError
from vaekit.heads.counts import Count
from vaekit.models import VAE, with_context, with_mask
from vaekit.nn import Layer, LogCounts, PassLast, conv_decoder, conv_encoder, mlp
from vaekit.objectives import ELBO, IWAE, Objective
from vaekit.recipes.core import Recipe
from vaekit.train import Training

__all__ = ["counts", "images", "table"]

STEPS = 5000
"""Steps of training, about, where nobody says how many epochs: between 10 and 500 epochs, and fewer where validation says so."""
MISSING_K = 5
"""Samples per example in the bound where values are missing."""
PIXELS = 32 * 32
"""Above so many pixels an image has convolutions."""


def table(
    path: str,
    latent: int | None = None,
    hidden: int = 128,
    k: int | None = None,
    lr: float = 3e-3,
    batch_size: int = 128,
    epochs: int | None = None,
    patience: int | None = None,
    kind: tuple[str, ...] = (),
    drop: tuple[str, ...] = (),
    known: Known | None = None,
) -> Recipe:
    """VAE of a table: every column by its own likelihood, in nats of the data as they are, missing values never filled in.

    The encoder sees which values are there; the bound is of the observed ones (MIWAE: Mattei and Frellsen, ICML 2019). Two hidden layers
    on each side, early stopping.

    Args:
        path: a .csv, .tsv, .parquet, .npy or .npz file.
        latent: latent dimensions; by default as many as columns, from 2 to 16.
        hidden: width of the two hidden layers on each side.
        k: samples per example in the bound; by default 5 where values are missing, else 1.
        lr: learning rate of Adam.
        batch_size: examples per step.
        epochs: passes over the training rows, at most; by default about 5000 steps.
        patience: stop so many epochs after the best; by default a tenth of the epochs, at least 10.
        kind: name=kind, of columns whose kind is not to be inferred: a kind, a likelihood, or levels as low<middle<high.
        drop: names of columns to leave out.
    """
    overrides, dropped = _overrides(kind), tuple(drop)
    known, data = _look(path, known, overrides=overrides, drop=dropped)
    schema = _as(Schema, known.schema, path, "table")
    columns = [head_column(column, floor) for column, floor in zip(schema.modelled, known.floors, strict=True)]
    latent = min(16, max(2, len(columns))) if latent is None else latent
    px, q = heads.Columns(columns), heads.Gaussian(latent)
    layer, layers = px.input_layer(), [Layer(hidden, nn.SiLU)] * 2
    decoder = mlp(latent, layers, px.features)
    _start(decoder, px, known.start)
    model = VAE(
        prior=priors.StandardNormal(latent),
        posterior=Conditional(nn.Sequential(layer, mlp(layer.features, layers, q.features)), q),
        likelihood=Conditional(decoder, px),
        view=with_mask,
    )
    missing = any(column.missing for column in schema.modelled)
    return Recipe(model, data, _bound(k, missing), _training(known, lr, batch_size, epochs, patience), known)


def images(
    path: str,
    latent: int = 32,
    hidden: int = 256,
    net: Literal["auto", "mlp", "conv"] = "auto",
    likelihood: Literal["auto", "Bernoulli", "ContinuousBernoulli", "DiscretisedLogistic"] = "auto",
    k: int = 1,
    lr: float = 1e-3,
    batch_size: int = 128,
    epochs: int | None = None,
    patience: int | None = None,
    known: Known | None = None,
) -> Recipe:
    """VAE of images: Bernoulli for two values, discretised logistic for bytes, continuous Bernoulli for floats in [0, 1].

    Two hidden layers on each side, above 32 x 32 pixels convolutions that halve the image down to 4 to 7 pixels; early stopping.

    Args:
        path: a folder or .zip of images, all of one size, or a .npy or .npz file.
        latent: latent dimensions.
        hidden: width of the hidden layers, of "mlp"; a quarter of it the channels of the first stage, of "conv".
        net: of both sides.
        likelihood: of each pixel; by default as the pixels say.
        k: samples per example in the bound.
        lr: learning rate of Adam.
        batch_size: examples per step.
        epochs: passes over the training images, at most; by default about 5000 steps.
        patience: stop so many epochs after the best; by default a tenth of the epochs, at least 10.
    """
    known, data = _look(path, known)
    pixels = _as(Pixels, known.schema, path, "images")
    if likelihood not in ("auto", pixels.likelihood):
        pixels = _pixels_as(pixels, likelihood)
        known = replace(known, schema=pixels)
    shape, q = pixels.shape, heads.Gaussian(latent)
    px = _pixel_head(pixels)
    encoder: nn.Module
    decoder: nn.Module
    if net == "conv" or (net == "auto" and shape[1] * shape[2] > PIXELS):
        stages = max(2, math.ceil(math.log2(max(shape[1:]) / 7)))
        channels = [min(256, max(1, hidden // 8) * 2**n) for n in range(stages)]
        encoder = conv_encoder(shape, channels=channels, features=q.features)
        decoder = conv_decoder(latent, shape, channels=channels[::-1], parts=px.features // math.prod(shape))
    else:
        layers = [Layer(hidden, nn.SiLU)] * 2
        encoder, decoder = mlp(shape, layers, q.features), mlp(latent, layers, px.features)
    model = VAE(priors.StandardNormal(latent), Conditional(encoder, q, event_dim=3), Conditional(decoder, px))
    return Recipe(model, data, _bound(k, False), _training(known, lr, batch_size, epochs, patience), known)


def counts(
    path: str,
    latent: int = 10,
    hidden: int = 128,
    likelihood: Literal["auto", "Poisson", "NegativeBinomial", "ZeroInflatedPoisson", "ZeroInflatedNegativeBinomial"] = "auto",
    k: int = 1,
    lr: float = 1e-3,
    batch_size: int = 128,
    epochs: int | None = None,
    patience: int | None = None,
    known: Known | None = None,
) -> Recipe:
    """VAE of a matrix of counts, such as cells by genes: the counts of a row given its total, which scales their means.

    The logarithm of the total is the context c of p(x | z, c) and q(z | x, c); rows become dense a batch at a time. After Lopez et al.,
    "Deep generative modeling for single-cell transcriptomics", 2018.

    Args:
        path: a .h5ad file, or a sparse matrix as scipy.sparse.save_npz writes it.
        latent: latent dimensions.
        hidden: width of the two hidden layers on each side.
        likelihood: of each count; by default as the counts say.
        k: samples per example in the bound.
        lr: learning rate of Adam.
        batch_size: examples per step.
        epochs: passes over the training rows, at most; by default about 5000 steps.
        patience: stop so many epochs after the best; by default a tenth of the epochs, at least 10.
    """
    known, read = _look(path, known)
    schema = _as(Counts, known.schema, path, "counts")
    if likelihood not in ("auto", schema.likelihood):
        schema = replace(schema, likelihood=likelihood, because=f"chosen by the user; {schema.because}")
        known = replace(known, schema=schema)

    def data() -> DataSet:
        return with_sizes(read())

    q, px = heads.Gaussian(latent), COUNTS[schema.likelihood](schema.width, sized=True)
    layers = [Layer(hidden, nn.SiLU)] * 2
    decoder = mlp(latent, layers, px.features - 1)
    _shift(decoder, torch.tensor(known.start))
    model = VAE(
        prior=priors.StandardNormal(latent),
        posterior=Conditional(nn.Sequential(LogCounts(), mlp(schema.width + 1, layers, q.features)), q),
        likelihood=Conditional(PassLast(decoder), px),
        view=with_context,
        context=1,
    )
    sizes = torch.tensor(known.sizes).unsqueeze(1)
    training = _training(known, lr, batch_size, epochs, patience)
    if float(sizes.median().exp()) < FEW * schema.width and batch_size * schema.width >= MANY:
        training = replace(training, compile=False)  # a compiled step treats every entry as a count, the plain one those that are
    return Recipe(model, data, _bound(k, False), training, known, sizes)


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


def _look(
    path: str, known: Known | None, *, overrides: dict[Name, Kind] | None = None, drop: Sequence[Name] = ()
) -> tuple[Known, Callable[[], DataSet]]:
    """What is known of the data, looked at now where nothing is, and what reads them."""
    if known is None:
        found = inspect(path, overrides=overrides, drop=drop)
        return Known.of(found), lambda: found.data
    schema = known.schema
    return known, lambda: inspect(path, schema=schema).data


D = TypeVar("D", Schema, Pixels, Counts)


def _as(kind: type[D], schema: Description, path: str, recipe: str) -> D:
    """The schema, if it is what the recipe is for."""
    if not isinstance(schema, kind):
        named = {Schema: "table", Pixels: "images", Counts: "counts"}[type(schema)]
        raise InputError(f"own:{recipe} is not for {path}, which holds {named}: vaekit train {path} takes own:{named}")
    return schema


def _overrides(kinds: Sequence[str]) -> dict[Name, Kind]:
    """name=kind, or name=low<middle<high, by the names.

    >>> _overrides(["age=count", "size=s<m<l", "stars=1<2<3"])
    {'age': 'count', 'size': ('s', 'm', 'l'), 'stars': (1, 2, 3)}
    """
    found: dict[Name, Kind] = {}
    for word in kinds:
        name, equals, kind = word.rpartition("=")
        if not equals or not name or not kind:
            raise InputError(f'--kind {word}: give a column and its kind, as "age=count", or its levels, as "size=small<medium<large"')
        if name in found:
            raise InputError(f'--kind {word}: column "{name}" is given a kind twice')
        levels = kind.split("<")
        whole = all(level.lstrip("-").isdigit() for level in levels)
        found[name] = kind if len(levels) == 1 else tuple(int(level) for level in levels) if whole else tuple(levels)
    return found


def _start(decoder: nn.Sequential, px: heads.Columns, start: Sequence[float]) -> None:
    """Let the rates of counts begin at their means: a network takes long to reach e^6 from e^0."""
    shift, place = torch.zeros(px.features), 0
    for head, group, width in zip(px.heads, px.groups, px.widths, strict=True):
        if isinstance(head, Count):
            shift[place : place + len(group)] = torch.tensor([start[d] for d in group])
        place += width
    _shift(decoder, shift)


def _shift(decoder: nn.Sequential, shift: Tensor) -> None:
    """Add to the first of the last layer's biases."""
    last = decoder[-1]
    if isinstance(last, nn.Linear):
        with torch.no_grad():
            last.bias[: len(shift)] += shift


def _pixels_as(pixels: Pixels, likelihood: str) -> Pixels:
    """With another likelihood, which their values must be of."""
    if likelihood == "Bernoulli":
        raise InputError(f"--likelihood Bernoulli is for images of two values, and these have more ({pixels.because}): binarise them")
    if likelihood == "DiscretisedLogistic" and pixels.dtype != "uint8":
        raise InputError(f"--likelihood DiscretisedLogistic is for images in bytes, and these are {pixels.dtype}: take ContinuousBernoulli")
    return replace(pixels, likelihood=likelihood, because=f"chosen by the user; {pixels.because}")


def _pixel_head(pixels: Pixels) -> heads.Head:
    if pixels.likelihood == "DiscretisedLogistic":
        return heads.DiscretisedLogistic(pixels.shape)
    return (heads.Bernoulli if pixels.likelihood == "Bernoulli" else heads.ContinuousBernoulli)(pixels.shape)


def _bound(k: int | None, missing: bool) -> Objective:
    k = (MISSING_K if missing else 1) if k is None else k
    return ELBO() if k == 1 else IWAE(k)


def _training(known: Known, lr: float, batch_size: int, epochs: int | None, patience: int | None) -> Training:
    """Epochs from the data's size, and early stopping where there are validation rows."""
    train, valid, _ = known.rows
    epochs = min(500, max(10, round(STEPS / math.ceil(train / batch_size)))) if epochs is None else epochs
    patience = max(10, epochs // 10) if patience is None else patience
    return Training(epochs, batch_size, optimiser=partial(Adam, lr=lr), clip=100.0, patience=patience if valid else None)
