"""Your own data: a table, images, or a matrix of counts, with the likelihood that suits each column or pixel.

``vaekit train PATH`` looks at what lies there, says what it found, and trains the recipe of its kind. What was found is kept in the run
folder, so that a trained model is opened without its data.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import torch
from torch import nn

from vaekit import heads, priors
from vaekit.conditional import Conditional
from vaekit.data.core import DataSet
from vaekit.data.tables import Counts, Known, Pixels, Schema, with_sizes
from vaekit.dist.counts import FEW, MANY
from vaekit.models import VAE, LatentModel, NotAtRandom, plain_input, with_context, with_mask, with_mask_and_context
from vaekit.nn import Layer, LogCounts, PassLast, conv_decoder, conv_encoder, mlp
from vaekit.recipes.contexts import context_width, flat_with_context
from vaekit.recipes.core import Recipe
from vaekit.recipes.fitting import COUNTS, bound_of, head_column, pixel_head, pixels_as, shift_biases, start_at, training_of
from vaekit.recipes.gaps import MASK_K, mask_model
from vaekit.recipes.look import look, overrides_of, schema_as

__all__ = ["counts", "images", "table"]

PIXELS = 32 * 32
"""Above so many pixels an image has convolutions."""
COMPILED_FROM = 8000
"""Steps from which a table's are compiled. A program of several kinds of columns takes as long to compile as some 5000 steps take as they
come, and early stopping ends most runs before that."""


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
    condition: tuple[str, ...] = (),
    missing: Literal["at-random", "self-masking", "not-at-random"] = "at-random",
    known: Known | None = None,
) -> Recipe:
    """VAE of a table: every column by its own likelihood, in nats of the data as they are, missing values never filled in.

    The encoder sees which values are there; the bound is of the observed ones (MIWAE: Mattei and Frellsen, ICML 2019). Two hidden layers
    on each side, early stopping.

    Args:
        path: a .csv, .tsv, .parquet, .npy or .npz file.
        latent: latent dimensions; by default as many as columns, from 2 to 16.
        hidden: width of the two hidden layers on each side.
        k: samples per example in the bound; by default 5 where values are missing, 20 where their mask is modelled, else 1.
        lr: learning rate of Adam.
        batch_size: examples per step.
        epochs: passes over the training rows, at most; by default about 5000 steps.
        patience: stop so many epochs after the best; by default a tenth of the epochs, at least 10.
        kind: name=kind, of columns whose kind is not to be inferred: a kind, a likelihood, or levels as low<middle<high.
        drop: names of columns to leave out.
        condition: names of columns that are given and not modelled, as p(x | z, c) and q(z | x, c); may come again.
        missing: what is assumed of missing values: that whether one is missing depends on what was observed alone; on its own value, by a
            logistic function; or on all values of the row, by a network. The last two model the mask, and their nats are of it too.
    """
    known, data = look(path, known, overrides=overrides_of(kind), drop=drop, condition=condition)
    schema = schema_as(Schema, known.schema, path, "table")
    columns = [head_column(column, floor) for column, floor in zip(schema.modelled, known.floors, strict=True)]
    latent = min(16, max(2, len(columns))) if latent is None else latent
    px, q, c = heads.Columns(columns), heads.Gaussian(latent), context_width(schema)
    layer, layers = px.input_layer(extra=c), [Layer(hidden, nn.SiLU)] * 2
    decoder = mlp(latent + c, layers, px.features)
    start_at(decoder, px, known.start)
    model: LatentModel = VAE(
        prior=priors.StandardNormal(latent),
        posterior=Conditional(nn.Sequential(layer, mlp(layer.features, layers, q.features)), q),
        likelihood=Conditional(decoder, px),
        view=with_mask_and_context if c else with_mask,
        context=c,
    )
    if missing != "at-random":
        model, k = NotAtRandom(model, mask_model(missing, schema, px, hidden)), MASK_K if k is None else k
    gaps = any(column.missing for column in schema.modelled)
    training = training_of(known, lr, batch_size, epochs, patience)
    if training.epochs * math.ceil(known.rows[0] / batch_size) < COMPILED_FROM:
        training = replace(training, compile=False)
    return Recipe(model, data, bound_of(k, gaps), training, known, known.contexts())


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
    condition: tuple[str, ...] = (),
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
        condition: "label", the class of each image (its folder, or y of an .npz file), as p(x | z, c) and q(z | x, c).
    """
    known, data = look(path, known, condition=condition)
    pixels = schema_as(Pixels, known.schema, path, "images")
    if likelihood not in ("auto", pixels.likelihood):
        pixels = pixels_as(pixels, likelihood)
        known = replace(known, schema=pixels)
    shape, q, c = pixels.shape, heads.Gaussian(latent), context_width(pixels)
    px = pixel_head(pixels)
    encoder: nn.Module
    decoder: nn.Module
    convolutions = net == "conv" or (net == "auto" and shape[1] * shape[2] > PIXELS)
    if convolutions:
        stages = max(2, math.ceil(math.log2(max(shape[1:]) / 7)))
        channels = [min(256, max(1, hidden // 8) * 2**n) for n in range(stages)]
        encoder = conv_encoder((shape[0] + c, *shape[1:]), channels=channels, features=q.features)
        decoder = conv_decoder(latent + c, shape, channels=channels[::-1], parts=px.features // math.prod(shape))
    else:
        layers = [Layer(hidden, nn.SiLU)] * 2
        encoder = mlp(math.prod(shape) + c if c else shape, layers, q.features)
        decoder = mlp(latent + c, layers, px.features)
    model = VAE(
        prior=priors.StandardNormal(latent),
        posterior=Conditional(encoder, q, event_dim=3 if convolutions or not c else 1),
        likelihood=Conditional(decoder, px),
        view=plain_input if not c else with_context if convolutions else flat_with_context,
        context=c,
    )
    return Recipe(model, data, bound_of(k, False), training_of(known, lr, batch_size, epochs, patience), known, known.contexts())


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
    condition: tuple[str, ...] = (),
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
        condition: columns of obs of an .h5ad file that are given besides the total, such as the batch; may come again.
    """
    known, read = look(path, known, condition=condition)
    schema = schema_as(Counts, known.schema, path, "counts")
    if likelihood not in ("auto", schema.likelihood):
        schema = replace(schema, likelihood=likelihood, because=f"chosen by the user; {schema.because}")
        known = replace(known, schema=schema)

    def data() -> DataSet:
        return with_sizes(read())

    q, px, c = heads.Gaussian(latent), COUNTS[schema.likelihood](schema.width, sized=True), context_width(schema)
    layers = [Layer(hidden, nn.SiLU)] * 2
    decoder = mlp(latent + c, layers, px.features - 1)
    shift_biases(decoder, torch.tensor(known.start))
    model = VAE(
        prior=priors.StandardNormal(latent),
        posterior=Conditional(nn.Sequential(LogCounts(c + 1), mlp(schema.width + c + 1, layers, q.features)), q),
        likelihood=Conditional(PassLast(decoder), px),
        view=with_context,
        context=c + 1,
    )
    training = training_of(known, lr, batch_size, epochs, patience)
    if math.exp(known.sizes[len(known.sizes) // 2]) < FEW * schema.width and batch_size * schema.width >= MANY:
        training = replace(training, compile=False)  # a compiled step treats every entry as a count, the plain one those that are
    return Recipe(model, data, bound_of(k, False), training, known, known.contexts())
