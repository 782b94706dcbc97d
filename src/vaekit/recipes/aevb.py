"""The experiments of the first paper on variational autoencoders (Kingma and Welling, "Auto-Encoding Variational Bayes", ICLR 2014).

One hidden layer of tanh units on each side, a Gaussian encoder, all parameters drawn from a normal distribution of standard deviation .01,
Adagrad on batches of 100, one sample, and a standard normal prior on the parameters: the objective is that of the paper's eq. 8 divided
by the number of data points N, so that the prior becomes a weight decay of 1 / N. Adagrad first sums the squared gradients of 100
batches, as in the authors' code (`vaekit.train.WarmAdagrad`).
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from torch import nn

from vaekit import data, heads, priors
from vaekit.conditional import Conditional
from vaekit.heads import Head
from vaekit.models import VAE
from vaekit.nn import Layer, mlp
from vaekit.objectives import ELBO
from vaekit.recipes.core import Recipe
from vaekit.train import Training, WarmAdagrad

__all__ = ["freyfaces", "mnist", "network"]

MNIST = 50_000
FREY = 1565


def network(latent: int, hidden: int, px: Head, scale: float = 0.01) -> VAE:
    """VAE of ``latent`` dimensions with the likelihood ``px``; encoder and decoder of one hidden layer of tanh units; every weight and
    bias ~ N(0, scale^2)."""
    q = heads.Gaussian(latent)
    layers = [Layer(hidden, nn.Tanh)]
    model = VAE(
        prior=priors.StandardNormal(latent),
        posterior=Conditional(mlp(px.event_shape, layers, q.features), q, event_dim=len(px.event_shape)),
        likelihood=Conditional(mlp(latent, layers, px.features), px),
    )
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=scale)
    return model


def mnist(
    latent: int = 20,
    hidden: int = 500,
    lr: float = 0.01,
    warmup: int = 100,
    scale: float = 0.01,
    batch_size: int = 100,
    epochs: int = 200,
) -> Recipe:
    """The first VAE on grey MNIST: tanh 784-500-20, Bernoulli, Adagrad; published bound -104.8 nats after 1e7 samples.

    50,000 training images: 200 epochs are the 1e7 samples.

    Args:
        latent: latent dimensions N_z.
        hidden: width of the one hidden layer on each side.
        lr: step size of Adagrad; the paper took the best of .01, .02 and .1 on the first training samples.
        warmup: batches whose squared gradients Adagrad sums before its first update.
        scale: standard deviation of the initial parameters.
        batch_size: examples per step.
        epochs: passes over the training set.
    """
    model = network(latent, hidden, heads.Bernoulli((1, 28, 28)), scale)
    optimiser = partial(WarmAdagrad, lr=lr, warmup=warmup, weight_decay=1 / MNIST)
    return Recipe(
        model, partial(data.mnist_grey, 60_000 - MNIST), ELBO(), Training(epochs=epochs, batch_size=batch_size, optimiser=optimiser)
    )


def freyfaces(
    latent: int = 10,
    hidden: int = 200,
    lr: float = 0.01,
    warmup: int = 100,
    scale: float = 0.01,
    batch_size: int = 100,
    epochs: int = 6400,
    decoder: Literal["gaussian", "contaminated"] = "gaussian",
) -> Recipe:
    """The first VAE on Frey faces: tanh 560-200-10, Gaussian with learned variances; published bound 1171 nats after 1e7 samples.

    1565 training images: 6400 epochs are the 1e7 samples. Bounds are densities of x in [0, 1].

    Args:
        latent: latent dimensions N_z.
        hidden: width of the one hidden layer on each side.
        lr: step size of Adagrad; the paper took the best of .01, .02 and .1 on the first training samples.
        warmup: batches whose squared gradients Adagrad sums before its first update.
        scale: standard deviation of the initial parameters.
        batch_size: examples per step.
        epochs: passes over the training set.
        decoder: "gaussian", as in the paper: means and variances from the network; "contaminated", as in the authors' code: a variance
            for each pixel, and a uniform density beside the Gaussian.
    """
    shape = (1, 28, 20)
    px = heads.Gaussian(shape, mean=nn.Sigmoid()) if decoder == "gaussian" else heads.GaussianContaminated(shape)
    model = network(latent, hidden, px, scale)
    training = Training(epochs=epochs, batch_size=batch_size, optimiser=partial(WarmAdagrad, lr=lr, warmup=warmup, weight_decay=1 / FREY))
    return Recipe(model, data.frey_faces, ELBO(), training)
