"""Vector-quantised autoencoders."""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

from torch.optim import Adam

from vaekit import data, heads
from vaekit.conditional import Conditional
from vaekit.models import VAE
from vaekit.nn import vq_decoder, vq_encoder
from vaekit.objectives import VQ
from vaekit.quantise import FSQ, Codebook, Quantiser, UniformCodes
from vaekit.recipes.core import Recipe
from vaekit.train import Training

__all__ = ["cifar10", "fsq"]

SHAPE = (3, 32, 32)
VARIANCE = 0.0632
"""Of the training pixels / 255. A Gaussian of half of it makes -log p(x | z) the published reconstruction error, summed over the pixels."""


def cifar10(
    codes: int = 512,
    dimensions: int = 64,
    hidden: int = 128,
    learn: Literal["ema", "gradient"] = "ema",
    revive: float | None = None,
    lr: float = 3e-4,
    batch_size: int = 32,
    epochs: int = 7,
) -> Recipe:
    """VQ-VAE on CIFAR-10 (van den Oord et al., 2017), 8 x 8 codes; published squared error / variance .056 after 10,000 steps.

    The network, the averages (decay .99) and the commitment (.25) of Sonnet's example. The prior over codes is uniform, and samples of
    it are no images: a learned prior comes second, see the gallery.

    Args:
        codes: code vectors.
        dimensions: of each.
        hidden: channels of the networks.
        learn: code vectors by moving averages or by gradient.
        revive: share of equal use at or below which a code is re-initialised from the data, such as 0.1; none for never.
        lr: learning rate of Adam.
        batch_size: examples per step.
        epochs: passes over the training set, of 1563 steps with the default batch.
    """
    quantiser = Codebook(codes, dimensions, decay=0.99 if learn == "ema" else None, revive=revive)
    return _quantised(quantiser, hidden, lr, batch_size, epochs)


def fsq(levels: tuple[int, ...] = (8, 5, 5, 5), hidden: int = 128, lr: float = 3e-4, batch_size: int = 32, epochs: int = 7) -> Recipe:
    """The network of vq:cifar10 with finite scalar quantisation (Mentzer et al., 2024): no codebook to learn or to lose.

    Args:
        levels: of each number of a code; their product is the number of codes.
        hidden: channels of the networks.
        lr: learning rate of Adam.
        batch_size: examples per step.
        epochs: passes over the training set.
    """
    return _quantised(FSQ(levels), hidden, lr, batch_size, epochs)


def _quantised(quantiser: Quantiser, hidden: int, lr: float, batch_size: int, epochs: int) -> Recipe:
    grid = (SHAPE[1] // 4, SHAPE[2] // 4)
    encoder = vq_encoder(SHAPE, dimensions=quantiser.dimensions, hidden=hidden)
    decoder = vq_decoder(quantiser.dimensions, SHAPE, hidden=hidden)
    model = VAE(
        prior=UniformCodes(quantiser, grid),
        posterior=Conditional(encoder, heads.Quantised(quantiser, grid), event_dim=3),
        likelihood=Conditional(decoder, heads.GaussianFixed(SHAPE, math.sqrt(VARIANCE / 2)), event_dim=3),
    )
    return Recipe(model, data.cifar10, VQ(), Training(epochs=epochs, batch_size=batch_size, optimiser=partial(Adam, lr=lr)))
