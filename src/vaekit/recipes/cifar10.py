"""Natural images of 32 x 32 pixels in ten classes (Krizhevsky, 2009)."""

from __future__ import annotations

from functools import partial

from torch import nn
from torch.optim import Adam

from vaekit import data, heads, priors
from vaekit.conditional import Conditional
from vaekit.models import VAE
from vaekit.nn import resnet_decoder, resnet_encoder
from vaekit.objectives import ELBO
from vaekit.recipes.core import Recipe
from vaekit.train import Training

__all__ = ["network", "resnet"]


def network(size: int = 32, latent: int = 256, width: int = 64, scale: float = 1.0) -> VAE:
    """ResNet-18 VAE of colour images of ``size`` x ``size`` pixels, a multiple of 8; ``latent`` dimensions, stages of 1, 2, 4 and 8
    times ``width`` channels; sigma starts at ``scale``."""
    shape = (3, size, size)
    widths = (width, 2 * width, 4 * width, 8 * width)
    q, px = heads.Gaussian(latent), heads.GaussianShared(shape, scale=scale)
    encoder = nn.Sequential(resnet_encoder(shape, widths=widths), nn.Linear(widths[-1], q.features))
    return VAE(
        prior=priors.StandardNormal(latent),
        posterior=Conditional(encoder, q, event_dim=3),
        likelihood=Conditional(resnet_decoder(latent, shape, widths=widths[::-1]), px),
    )


def resnet(latent: int = 256, width: int = 64, scale: float = 1.0, lr: float = 1e-4, batch_size: int = 256, epochs: int = 50) -> Recipe:
    """ResNet-18 VAE on CIFAR-10: mirrored decoder, Gaussian with one learned scale, Monte Carlo KL.

    Four stages of two residual blocks of 1, 2, 4, 8 times ``width`` channels on each side. On a processor an epoch takes long: a
    ``--width`` of 16 and few epochs show that it learns. Adam moves log sigma by at most about ``lr`` a step: from 1 to 0.1 are
    23,000 steps of 1e-4, fewer from a ``--scale`` near the spread of the pixels, 0.25.

    Args:
        latent: latent dimensions.
        width: channels of the first stage.
        scale: sigma to start from.
        lr: learning rate of Adam.
        batch_size: examples per step.
        epochs: passes over the training set.
    """
    training = Training(epochs=epochs, batch_size=batch_size, optimiser=partial(Adam, lr=lr))
    return Recipe(network(latent=latent, width=width, scale=scale), data.cifar10, ELBO(closed_form=False), training)
