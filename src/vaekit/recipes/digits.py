"""Handwritten digits of 8 x 8 pixels, shipped with scikit-learn: nothing to download, trained in seconds."""

from __future__ import annotations

from functools import partial

from torch import nn
from torch.optim import Adam

from vaekit import data, heads, priors
from vaekit.conditional import Conditional
from vaekit.models import VAE
from vaekit.nn import Layer, mlp
from vaekit.objectives import ELBO
from vaekit.recipes.core import Recipe
from vaekit.train import Training

__all__ = ["digits"]


def digits(latent: int = 16, hidden: int = 256, k: int = 1, lr: float = 2e-3, batch_size: int = 64, epochs: int = 200) -> Recipe:
    """VAE of 8 x 8 digits: the 17 grey levels as discretised logistics, two hidden layers, early stopping.

    A pixel is a whole number from 0 to 16, and that is what is scored: log-likelihoods are log-probabilities of the images as they are.
    The encoder drops a fifth of its hidden units, for 1297 images are few.

    Args:
        latent: latent dimensions; 2 adds the decoder's manifold to the report.
        hidden: width of the two hidden layers on each side.
        k: samples per example in the bound.
        lr: learning rate of Adam.
        batch_size: examples per step.
        epochs: passes over the training set, at most: training stops 30 epochs after the best one.
    """
    shape = (1, 8, 8)
    q, px = heads.Gaussian(latent), heads.DiscretisedLogistic(shape, bins=17)
    model = VAE(
        prior=priors.StandardNormal(latent),
        posterior=Conditional(mlp(shape, [Layer(hidden, nn.SiLU, dropout=0.2)] * 2, q.features), q, event_dim=len(shape)),
        likelihood=Conditional(mlp(latent, [Layer(hidden, nn.SiLU)] * 2, px.features), px),
    )
    training = Training(epochs=epochs, batch_size=batch_size, optimiser=partial(Adam, lr=lr), patience=30)
    return Recipe(model, data.digits, ELBO(k), training)
