"""Binary and categorical latents on static MNIST, with every estimator of the encoder's gradient.

The networks on which the estimators were compared in the literature (Maddison, Mnih and Teh, ICLR 2017; Tucker et al., "REBAR", NeurIPS
2017; Yin and Zhou, "ARM", ICLR 2019): one layer of 200 binary latents with a learned prior, without hidden layers ("linear") or with two of
200 tanh units on each side ("nonlinear"). Latents enter the decoder as -1 and 1, pixels the encoder less their mean. Weights start
as in Glorot and Bengio (AISTATS 2010) and every pixel at the share of ones: from torch's default, of a third of the variance and with
pixels at one half, the nonlinear networks ignore their latents at first and are 30 nats behind after three epochs.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

from torch import Tensor, nn
from torch.optim import Adam

from vaekit import data, heads, priors
from vaekit.conditional import Conditional
from vaekit.errors import InputError
from vaekit.models import VAE
from vaekit.nn import Layer, glorot_, mlp
from vaekit.objectives import NVIL, REINFORCE, RWS, VIMCO, Exponential, Objective, Relaxed, StraightThrough, WakeSleep
from vaekit.recipes.core import Recipe
from vaekit.train import Training

__all__ = ["categorical", "mnist"]

SHAPE = (1, 28, 28)
STEPS = 50_000
MEAN = 0.13
"""Share of the pixels of MNIST that are 1."""

Estimator = Literal["reinforce", "wake_sleep", "nvil", "concrete", "gumbel", "straight_through", "gumbel_straight_through", "vimco", "rws"]


class Shifted(nn.Module):
    """scale (x - offset)."""

    def __init__(self, offset: float, scale: float = 1.0) -> None:
        super().__init__()
        self.offset = offset
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * (x - self.offset)

    def extra_repr(self) -> str:
        return f"offset={self.offset}, scale={self.scale}"


def mnist(
    kind: Literal["linear", "nonlinear"] = "nonlinear",
    estimator: Estimator = "gumbel",
    units: int = 200,
    k: int = 0,
    lr: float = 1e-3,
    batch_size: int = 50,
    epochs: int = 100,
) -> Recipe:
    """200 binary latents on static MNIST; published test -ELBO with the Concrete relaxation 107.3 (linear) and 99.6 nats (nonlinear).

    Estimators: reinforce (without a baseline), wake_sleep, nvil (with a learned one), concrete (temperatures 2/3 and 1/2,
    relaxed densities), gumbel (the same sample at temperature 1/2 with the KL in closed form), straight_through,
    gumbel_straight_through, vimco and rws (k samples).

    Args:
        kind: linear, or two hidden layers of tanh units on each side.
        estimator: of the encoder's gradient.
        units: latents, and width of the hidden layers.
        k: samples per example; 0 for 5 with vimco and rws, which need several, and for 1 with the others.
        lr: learning rate of Adam.
        batch_size: examples per step.
        epochs: passes over the training set, of 1000 steps each.

    Raises:
        InputError: several samples for an estimator that takes one.
    """
    q = heads.Bernoulli(units)
    model = _model(kind, priors.Bernoulli(units), q, units)
    return _recipe(model, _objective(estimator, k), lr=lr, batch_size=batch_size, epochs=epochs)


def categorical(
    variables: int = 20,
    classes: int = 10,
    hidden: int = 200,
    start: float = 1.0,
    end: float = 0.5,
    lr: float = 1e-3,
    batch_size: int = 50,
    epochs: int = 100,
) -> Recipe:
    """Categorical latents on static MNIST by the Gumbel-softmax, its temperature annealed (Jang et al., 2017).

    Args:
        variables: latents.
        classes: classes of each.
        hidden: width of the two hidden layers on each side.
        start: temperature at the first step; the same as end for a constant one.
        end: temperature from the middle of the run on.
        lr: learning rate of Adam.
        batch_size: examples per step.
        epochs: passes over the training set.
    """
    shape = (variables, classes)
    model = _model("nonlinear", priors.OneHot(shape), heads.OneHot(shape), hidden)
    half = max(1, epochs * -(-STEPS // batch_size) // 2)
    objective = Relaxed(temperature=end if start == end else Exponential(start, end, half), closed_form=True)
    return _recipe(model, objective, lr=lr, batch_size=batch_size, epochs=epochs)


def _model(kind: str, prior: nn.Module, q: heads.Head, hidden: int) -> VAE:
    px = heads.Bernoulli(SHAPE)
    layers = [Layer(hidden, nn.Tanh)] * (2 if kind == "nonlinear" else 0)
    encoder = nn.Sequential(Shifted(MEAN), mlp(SHAPE, layers, q.features))
    decoder = nn.Sequential(Shifted(0.5, 2.0), mlp(q.event_shape, layers, px.features))
    glorot_(encoder)
    glorot_(decoder)
    biases = [p for p in decoder.parameters() if p.ndim == 1]
    nn.init.constant_(biases[-1], math.log(MEAN / (1 - MEAN)))
    return VAE(prior, Conditional(encoder, q, event_dim=len(SHAPE)), Conditional(decoder, px, event_dim=len(q.event_shape)))


def _objective(estimator: str, k: int) -> Objective:
    several = k or 5
    one = k or 1
    if estimator == "reinforce":
        return REINFORCE(one)
    if estimator == "wake_sleep":
        if k > 1:
            raise InputError(f"wake_sleep takes one sample and --k is {k}: use --estimator rws for several")
        return WakeSleep()
    if estimator == "nvil":
        return NVIL(nn.Sequential(Shifted(MEAN), mlp(SHAPE, [Layer(100, nn.Tanh)], 1)), one)
    if estimator == "concrete":
        return Relaxed(one, temperature=2 / 3, prior_temperature=1 / 2)
    if estimator == "gumbel":
        return Relaxed(one, temperature=1 / 2, closed_form=True)
    if estimator == "straight_through":
        return StraightThrough(one)
    if estimator == "gumbel_straight_through":
        return Relaxed(one, temperature=1 / 2, straight_through=True)
    return VIMCO(several) if estimator == "vimco" else RWS(several)


def _recipe(model: VAE, objective: Objective, *, lr: float, batch_size: int, epochs: int) -> Recipe:
    training = Training(epochs=epochs, batch_size=batch_size, optimiser=partial(Adam, lr=lr))
    return Recipe(model, data.mnist_static, objective, training)
