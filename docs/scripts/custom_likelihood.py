"""A likelihood that vaekit lacks: angles, by the von Mises distribution, which is the normal distribution of the circle."""

import math

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent

from vaekit import VAE, Conditional, Training, data, evaluate, fit, heads, priors
from vaekit.nn import mlp


class Angle(torch.distributions.VonMises):
    """torch's own with an exact normaliser, where torch has a polynomial that is good to seven digits."""

    def log_prob(self, x: Tensor) -> Tensor:
        kappa = self.concentration
        return kappa * (torch.cos(x - self.loc) - 1) - torch.log(2 * math.pi * torch.special.i0e(kappa))


class VonMises(heads.Head):
    """p(x | h) = prod_d exp(kappa_d cos(x_d - mu_d)) / (2 pi I_0(kappa_d)), for angles x in radians."""

    def __init__(self, event_shape: int | tuple[int, ...]) -> None:
        super().__init__(event_shape, parts=3)  # the network gives three numbers for each angle

    def distribution(self, h: Tensor) -> Distribution:
        cosine, sine, log_kappa = self.split(h, 3)
        px = Angle(torch.atan2(sine, cosine), log_kappa.exp(), validate_args=False)
        return Independent(px, len(self.event_shape))  # one density for all angles of an example


# When 1,000 people go to bed and get up, on a clock of 24 hours as angles from -pi to pi: bedtime is around midnight, where these meet.
random = torch.Generator().manual_seed(0)
bed = 24 + 1.5 * torch.randn(1000, generator=random)
up = bed + 8 + 0.5 * torch.randn(1000, generator=random)
times = data.arrays((torch.stack([bed, up], 1) % 24 - 12) / 12 * math.pi)


def evaluated(px: heads.Head) -> evaluate.Evaluation:
    """Train a model with this likelihood; its figures on the test rows."""
    torch.manual_seed(0)
    q = heads.Gaussian(2)
    model = VAE(priors.StandardNormal(2), Conditional(mlp(2, [64], q.features), q), Conditional(mlp(2, [64], px.features), px))
    fit(model, times, training=Training(epochs=60, batch_size=50), progress=False)
    return evaluate.evaluate(model, times.test, samples=200)


for px in (VonMises(2), heads.Gaussian(2)):
    found = evaluated(px)
    print(f"{type(px).__name__}: log p(x) of a test row is at least {-found.nll:.2f} +- {found.nll_se:.2f} nats")
