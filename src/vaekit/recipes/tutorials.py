"""The networks of the tutorials: fully connected, from layer descriptors, with a Gaussian likelihood of fixed sigma on MNIST.

With sigma fixed, -log p(x | z) = |x - mu|^2 / (2 sigma^2) + constant. The default sigma = 1 / sqrt(2) makes that the squared error summed
over the pixels, which is what these tutorials minimise; a weight a on the KL beside it is, up to a factor, the bound of the model with
sigma sqrt(a). (A loss that *averages* the squared error over the 784 pixels is the same as a weight 784 times larger on the KL.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from torch import Tensor, nn
from torch.optim import Adam

from vaekit import data, heads, priors
from vaekit import nn as nets
from vaekit.conditional import Conditional
from vaekit.data.core import DataSet, to_float
from vaekit.errors import InputError
from vaekit.models import VAE
from vaekit.objectives import ELBO, Beta, Reconstruction
from vaekit.recipes.core import Recipe
from vaekit.train import Training

__all__ = ["autoencoder", "dense", "mlp", "mnist_signed", "signed"]

SHAPE = (1, 28, 28)
SIGMA = 0.5**0.5


def mlp(
    latent: int = 28,
    hidden: tuple[int, ...] = (196, 49),
    alpha: float = 1.0,
    sigma: float = SIGMA,
    momentum: float = 0.7,
    lr: float = 1e-3,
    batch_size: int = 128,
    epochs: int = 10,
) -> Recipe:
    """MLP VAE 784-196-49-28: batch normalisation (momentum 0.7), LeakyReLU, tanh output for MNIST in [-1, 1].

    The same model and objective train in a ``lightning.Trainer`` of your own: `vaekit.train.lightning.LightningVAE`. The bound that is
    reported has weight 1 on the KL, whatever alpha is.

    Args:
        latent: latent dimensions.
        hidden: widths of the encoder's hidden layers; the decoder mirrors them.
        alpha: weight on the KL.
        sigma: standard deviation of the likelihood, for pixels from -1 to 1.
        momentum: weight of the newest batch in the running averages of batch normalisation.
        lr: learning rate of Adam.
        batch_size: examples per step.
        epochs: passes over the training set.

    Raises:
        InputError: ``momentum`` is not above 0 and at most 1.
    """
    if not 0 < momentum <= 1:
        raise InputError(f"--momentum {momentum}: the weight of the newest batch is above 0 and at most 1")
    layers = [nets.Layer(width, nn.LeakyReLU, norm=partial(nn.BatchNorm1d, momentum=momentum)) for width in hidden]
    model = _network(layers, heads.Gaussian(latent), heads.GaussianFixed(SHAPE, sigma, mean=nn.Tanh()))
    return Recipe(model, mnist_signed, ELBO(penalty=Beta(alpha)), _training(lr, batch_size, epochs))


def dense(
    latent: int = 2,
    hidden: tuple[int, ...] = (400,),
    weight: float = 1.0,
    sigma: float = SIGMA,
    lr: float = 1e-3,
    batch_size: int = 128,
    epochs: int = 20,
) -> Recipe:
    """Fully connected VAE from layer descriptors, 784-400-2 on grey MNIST, Gaussian of fixed sigma, weight on the KL.

    Two latent dimensions can be looked at: the report shows where the test set lies and what the decoder makes of the plane.

    Args:
        latent: latent dimensions.
        hidden: widths of the encoder's hidden layers; the decoder mirrors them.
        weight: on the KL, the "distribution loss rate"; the reported bound has weight 1.
        sigma: standard deviation of the likelihood, for pixels from 0 to 1.
        lr: learning rate of Adam.
        batch_size: examples per step.
        epochs: passes over the training set.
    """
    model = _network([nets.Layer(width) for width in hidden], heads.Gaussian(latent), heads.GaussianFixed(SHAPE, sigma, mean=nn.Sigmoid()))
    return Recipe(model, data.mnist_grey, ELBO(penalty=Beta(weight)), _training(lr, batch_size, epochs))


def autoencoder(
    latent: int = 2,
    hidden: tuple[int, ...] = (400,),
    sigma: float = SIGMA,
    lr: float = 1e-3,
    batch_size: int = 128,
    epochs: int = 20,
) -> Recipe:
    """Plain autoencoder, the network of tutorials:dense: the encoder gives one point, the loss is the squared error.

    It has no bound and no likelihood. Its samples decode z ~ N(0, I), which its codes were never made to match.

    Args:
        latent: dimensions of the code.
        hidden: widths of the encoder's hidden layers; the decoder mirrors them.
        sigma: standard deviation of the likelihood, for pixels from 0 to 1; it only scales the loss.
        lr: learning rate of Adam.
        batch_size: examples per step.
        epochs: passes over the training set.
    """
    model = _network([nets.Layer(width) for width in hidden], heads.Point(latent), heads.GaussianFixed(SHAPE, sigma, mean=nn.Sigmoid()))
    return Recipe(model, data.mnist_grey, Reconstruction(), _training(lr, batch_size, epochs))


def mnist_signed() -> DataSet:
    """Grey MNIST with pixels in [-1, 1]."""
    grey = data.mnist_grey()
    train, test = replace(grey.train, prepare=signed), replace(grey.test, prepare=signed)
    return DataSet("mnist_signed", train=train, test=test, label_names=grey.label_names)


def signed(x: Tensor) -> Tensor:
    """A `Prepare`: bytes to [-1, 1].

    >>> import torch
    >>> signed(torch.tensor([0, 51, 255], dtype=torch.uint8))
    tensor([-1.0000, -0.6000,  1.0000])
    """
    return to_float(x).mul_(2).sub_(1)


def _network(layers: Sequence[nets.Layer], q: heads.Head, px: heads.Head) -> VAE:
    """Encoder and decoder of the same hidden layers, mirrored, under these heads."""
    return VAE(
        prior=priors.StandardNormal(q.size),
        posterior=Conditional(nets.mlp(SHAPE, layers, q.features), q, event_dim=3),
        likelihood=Conditional(nets.mlp(q.size, layers[::-1], px.features), px),
    )


def _training(lr: float, batch_size: int, epochs: int) -> Training:
    return Training(epochs=epochs, batch_size=batch_size, optimiser=partial(Adam, lr=lr))
