"""Handwritten digits of 28 x 28 pixels (LeCun, Cortes and Burges)."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torch.optim import Adam

from vaekit import data, heads, priors
from vaekit.conditional import Conditional
from vaekit.models import VAE, Ladder, Rung
from vaekit.nn import Layer, glorot_, mlp
from vaekit.objectives import ELBO, IWAE, Beta, Cosine, Linear, Stages
from vaekit.recipes.core import Recipe
from vaekit.train import Training

__all__ = ["bbans", "example", "grey", "iwae", "ladder"]

SHAPE = (1, 28, 28)
STEPS = 60_000


def example(latent: int = 20, hidden: int = 400, k: int = 1, lr: float = 1e-3, batch_size: int = 128, epochs: int = 10) -> Recipe:
    """The network of pytorch/examples: 784-400-20, Bernoulli on grey MNIST; published test -ELBO 105.6 nats.

    Adam, batch 128, ten epochs over the 60,000 training images; the encoder gives mean and log-variance. Networks in bfloat16 where the
    device multiplies that in hardware, which leaves the bound as it is; ``--precision 32-true`` for float32.

    Args:
        latent: latent dimensions.
        hidden: width of the one hidden layer on each side.
        k: samples per example in the bound.
        lr: learning rate of Adam.
        batch_size: examples per step.
        epochs: passes over the training set.
    """
    q, px = heads.Gaussian(latent), heads.Bernoulli(SHAPE)
    model = VAE(
        prior=priors.StandardNormal(latent),
        posterior=Conditional(mlp(SHAPE, [hidden], q.features), q, event_dim=3),
        likelihood=Conditional(mlp(latent, [hidden], px.features), px),
    )
    training = Training(epochs=epochs, batch_size=batch_size, optimiser=partial(Adam, lr=lr), precision="auto")
    return Recipe(model, data.mnist_grey, ELBO(k), training)


def iwae(latent: int = 50, hidden: int = 200, k: int = 50, batch_size: int = 20, stages: int = 8) -> Recipe:
    """Importance weighted autoencoder 784-200-200-50 on dynamic MNIST (Burda et al., 2016); published NLL 84.78 nats at k = 50.

    tanh, Glorot initialisation, Adam with eps 1e-4; stage i = 0, 1, ... makes 3^i passes at 1e-3 * 10^(-i/7). Eight stages are the 3280
    passes of the paper, days on a processor; four stages (40 passes) are a start.

    Args:
        latent: latent dimensions.
        hidden: width of the two hidden layers on each side.
        k: importance samples per example.
        batch_size: examples per step.
        stages: stages of the learning-rate schedule.
    """
    layers = [Layer(hidden, nn.Tanh)] * 2
    q, px = heads.Gaussian(latent), heads.Bernoulli(SHAPE)
    model = VAE(
        prior=priors.StandardNormal(latent),
        posterior=Conditional(glorot_(mlp(SHAPE, layers, q.features)), q, event_dim=3),
        likelihood=Conditional(glorot_(mlp(latent, layers, px.features)), px),
    )
    passes = [3**i for i in range(stages)]
    steps = -(-STEPS // batch_size)
    schedule = Stages(
        ends=tuple(steps * sum(passes[: i + 1]) for i in range(stages - 1)),
        values=tuple(10 ** (-i / 7) for i in range(stages)),
    )
    training = Training(
        epochs=sum(passes),
        batch_size=batch_size,
        optimiser=partial(Adam, lr=1e-3, eps=1e-4),
        schedule=schedule,
    )
    return Recipe(model, data.mnist_dynamic, IWAE(k), training)


def ladder(
    top: int = 16, bottom: int = 32, hidden: int = 256, lr: float = 1e-3, batch_size: int = 128, epochs: int = 50, warmup: int = 10
) -> Recipe:
    """Two-level ladder on dynamic MNIST: z_1 from the top, z_2 given z_1, batch normalisation, KL warm-up.

    After Sonderby et al. (2016): without the warm-up the top level stays inactive.

    Args:
        top: dimensions of z_1.
        bottom: dimensions of z_2.
        hidden: width of the hidden layers.
        lr: learning rate of Adam.
        batch_size: examples per step.
        epochs: passes over the training set.
        warmup: epochs over which the weight of the KL rises from 0 to 1; 0 for none.
    """
    layers = [Layer(hidden, nn.LeakyReLU, norm=nn.BatchNorm1d)] * 2
    px = heads.Bernoulli(SHAPE)

    def gaussian(inputs: int, size: int) -> Conditional:
        head = heads.Gaussian(size)
        return Conditional(mlp(inputs, layers, head.features), head)

    model = Ladder(
        bottom_up=[mlp(SHAPE, layers, hidden), mlp(hidden, layers, hidden)],
        rungs=[
            Rung(priors.StandardNormal(top), gaussian(hidden, top)),
            Rung(gaussian(top, bottom), gaussian(top + hidden, bottom)),
        ],
        likelihood=Conditional(mlp(bottom, layers, px.features), px),
    )
    beta = Beta(Linear(0, 1, warmup * -(-STEPS // batch_size)) if warmup else 1.0)
    training = Training(epochs=epochs, batch_size=batch_size, optimiser=partial(Adam, lr=lr))
    return Recipe(model, data.mnist_dynamic, ELBO(penalty=beta), training)


def bbans(latent: int = 40, hidden: int = 100, lr: float = 1e-3, batch_size: int = 100, epochs: int = 20) -> Recipe:
    """The network of BB-ANS: 784-100-40 on statically binarised MNIST (Townsend et al., 2019); published .19 bits per pixel.

    Adam, batch 100, twenty passes. What `vaekit compress` makes of it is in the benchmarks.

    Args:
        latent: latent dimensions.
        hidden: width of the one hidden layer on each side.
        lr: learning rate of Adam.
        batch_size: examples per step.
        epochs: passes over the training set.
    """
    q, px = heads.Gaussian(latent), heads.Bernoulli(SHAPE)
    model = VAE(
        prior=priors.StandardNormal(latent),
        posterior=Conditional(mlp(SHAPE, [hidden], q.features), q, event_dim=3),
        likelihood=Conditional(mlp(latent, [hidden], px.features), px),
    )
    training = Training(epochs=epochs, batch_size=batch_size, optimiser=partial(Adam, lr=lr))
    return Recipe(model, data.mnist_static, ELBO(), training)


def grey(latent: int = 40, hidden: int = 400, components: int = 16, lr: float = 2e-3, batch_size: int = 100, epochs: int = 10) -> Recipe:
    """Grey MNIST as it is, 256 levels a pixel, for lossless compression: which of 16 learned level distributions a pixel follows.

    784-400-400-40, `heads.SharedLevels`, whose first component, black, starts with most of the weight. The learning rate falls to 0 along a
    cosine.

    Args:
        latent: latent dimensions.
        hidden: width of the two hidden layers on each side.
        components: level distributions that all pixels share, at least 2.
        lr: learning rate of Adam at the start.
        batch_size: examples per step.
        epochs: passes over the training set.
    """
    q, px = heads.Gaussian(latent), heads.SharedLevels(SHAPE, components=components)
    decoder = mlp(latent, [hidden, hidden], px.features)
    mostly_black = torch.zeros(components, px.size)
    mostly_black[0] = 3.0
    *_, bias = decoder[-1].parameters()
    bias.data += mostly_black.flatten()
    model = VAE(
        prior=priors.StandardNormal(latent),
        posterior=Conditional(mlp(SHAPE, [hidden, hidden], q.features), q, event_dim=3),
        likelihood=Conditional(decoder, px),
    )
    steps = epochs * -(-STEPS // batch_size)
    training = Training(epochs=epochs, batch_size=batch_size, optimiser=partial(Adam, lr=lr), schedule=Cosine(1, 0, steps))
    return Recipe(model, data.mnist_grey, ELBO(), training)
