"""The two rivals that the first paper on variational autoencoders measured itself against: wake-sleep and Monte Carlo EM.

The network and its settings are those of `vaekit.recipes.aevb` (Kingma and Welling, "Auto-Encoding Variational Bayes", ICLR 2014, section 5
and appendix E).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from vaekit import data, heads
from vaekit.data.core import DataSet
from vaekit.errors import InputError
from vaekit.infer import HMC
from vaekit.objectives import MCEM, WakeSleep
from vaekit.recipes.aevb import network
from vaekit.recipes.core import Recipe
from vaekit.train import Training, WarmAdagrad

__all__ = ["mcem", "wake_sleep"]

ROWS = 50_000


def wake_sleep(
    latent: int = 20,
    hidden: int = 500,
    rows: int = ROWS,
    lr: float = 0.02,
    warmup: int = 100,
    scale: float = 0.01,
    batch_size: int = 100,
    epochs: int = 200,
) -> Recipe:
    """Wake-sleep on grey MNIST: tanh 784-500-20, Bernoulli, Adagrad; published test bound -108.3 nats after 1e7 samples.

    50,000 training images: 200 epochs are the 1e7 samples. A dream is drawn for each image of a batch.

    Args:
        latent: latent dimensions N_z.
        hidden: width of the one hidden layer on each side.
        rows: training images, the first ones.
        lr: step size of Adagrad; the paper took the best of .01, .02 and .1 on the first training samples.
        warmup: batches whose squared gradients Adagrad sums before its first update.
        scale: standard deviation of the initial parameters.
        batch_size: examples per step.
        epochs: passes over the training set.

    Raises:
        InputError: ``rows`` below 1, or more than there are.
    """
    _check(rows)
    model = network(latent, hidden, heads.Bernoulli((1, 28, 28)), scale)
    training = Training(epochs=epochs, batch_size=batch_size, optimiser=partial(WarmAdagrad, lr=lr, warmup=warmup, weight_decay=1 / rows))
    return Recipe(model, partial(_mnist, rows), WakeSleep(), training)


def mcem(
    latent: int = 3,
    hidden: int = 100,
    rows: int = 1000,
    leapfrogs: int = 10,
    updates: int = 5,
    lr: float = 0.1,
    warmup: int = 100,
    batch_size: int = 100,
    epochs: int = 333,
) -> Recipe:
    """Monte Carlo EM on grey MNIST: tanh 3-100-784, Bernoulli, HMC; published test log p(x) -143.9 nats after 5e6 samples, N = 1000.

    Ten leapfrog steps at 90% acceptance, then five weight updates on the same z: an epoch counts for fifteen times its images. The
    encoder that the model has beside is not trained.

    Args:
        latent: latent dimensions.
        hidden: width of the one hidden layer.
        rows: training images N, the first ones; a chain is kept for each.
        leapfrogs: leapfrog steps per transition of the chains.
        updates: weight updates per transition.
        lr: step size of Adagrad.
        warmup: batches whose squared gradients Adagrad sums before its first update.
        batch_size: examples per step.
        epochs: passes over the training set.

    Raises:
        InputError: ``rows`` below 1, or more than there are.
    """
    _check(rows)
    model = network(latent, hidden, heads.Bernoulli((1, 28, 28)))
    optimiser = partial(WarmAdagrad, lr=lr, warmup=warmup, weight_decay=1 / rows)
    training = Training(epochs=epochs, batch_size=batch_size, repeat=updates, optimiser=optimiser)
    return Recipe(model, partial(_mnist, rows), MCEM(rows, latent, kernel=HMC(leapfrogs), updates=updates, warmup=0), training)


def _check(rows: int) -> None:
    """Before the weight decay of 1 / rows."""
    if not 1 <= rows <= ROWS:
        raise InputError(f"{rows} training images were asked for; choose from 1 to {ROWS}")


def _mnist(rows: int) -> DataSet:
    """The first ``rows`` training images of grey MNIST and the test images; none for validation, which would take longer than an epoch."""
    full = data.mnist_grey()
    return replace(full, train=full.train.head(rows))
