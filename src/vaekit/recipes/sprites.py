"""Squares, ellipses and hearts by known factors (`vaekit.data.sprites`): nothing to download, and disentanglement can be measured."""

from __future__ import annotations

from functools import partial

from torch.optim import Adam

from vaekit import data, heads, priors
from vaekit.conditional import Conditional
from vaekit.models import VAE
from vaekit.nn import conv_decoder, conv_encoder, mlp
from vaekit.objectives import BetaTC, FactorVAE
from vaekit.recipes.core import Recipe
from vaekit.train import Training

__all__ = ["beta_tc", "factor"]

SIZE = 32
FACTORS = {"scales": 4, "orientations": 8, "positions": 8}
ROWS = 4916  # of the training split that these make


def beta_tc(latent: int = 6, beta: float = 6.0, width: int = 16, lr: float = 2e-3, batch_size: int = 128, epochs: int = 60) -> Recipe:
    """beta-TC-VAE of 32 x 32 sprites by shape, scale, orientation, x and y; total correlation by minibatch-weighted sampling.

    After Chen et al. (2018), who train on the 737,280 images of dSprites and have published no number on these. Convolutions, Bernoulli.
    Scores: ``vaekit.evaluate.disentanglement(model, data.sprites())``.

    Args:
        latent: latent dimensions.
        beta: weight of the total correlation; 1 is the VAE.
        width: channels of the first convolution; the second and third have twice as many.
        lr: learning rate of Adam.
        batch_size: examples per step.
        epochs: passes over the training set.
    """
    training = Training(epochs=epochs, batch_size=batch_size, optimiser=partial(Adam, lr=lr))
    return Recipe(_network(latent, width), partial(data.sprites, SIZE, **FACTORS, binary=True), BetaTC(ROWS, beta), training)


def factor(latent: int = 6, gamma: float = 10.0, width: int = 16, lr: float = 2e-3, batch_size: int = 128, epochs: int = 60) -> Recipe:
    """FactorVAE of 32 x 32 sprites by shape, scale, orientation, x and y; total correlation by a discriminator.

    After Kim and Mnih (2018); the discriminator has three hidden layers of 64 and learns at the model's rate.

    Args:
        latent: latent dimensions.
        gamma: weight of the total correlation; 0 is the VAE.
        width: channels of the first convolution; the second and third have twice as many.
        lr: learning rate of Adam.
        batch_size: examples per step.
        epochs: passes over the training set.
    """
    training = Training(epochs=epochs, batch_size=batch_size, optimiser=partial(Adam, lr=lr))
    objective = FactorVAE(mlp(latent, [64, 64, 64], 1), gamma)
    return Recipe(_network(latent, width), partial(data.sprites, SIZE, **FACTORS, binary=True), objective, training)


def _network(latent: int, width: int) -> VAE:
    shape, channels = (1, SIZE, SIZE), (width, 2 * width, 2 * width)
    q, px = heads.Gaussian(latent), heads.Bernoulli(shape)
    return VAE(
        prior=priors.StandardNormal(latent),
        posterior=Conditional(conv_encoder(shape, channels=channels, features=q.features), q, event_dim=3),
        likelihood=Conditional(conv_decoder(latent, shape, channels=channels[::-1]), px),
    )
