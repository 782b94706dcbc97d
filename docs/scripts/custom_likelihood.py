"""A likelihood that vaekit lacks: angles, by the von Mises distribution."""

import math

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent

from vaekit import VAE, Conditional, Training, data, evaluate, fit, heads, priors
from vaekit.nn import mlp


class Angle(torch.distributions.VonMises):
    """With an exact normaliser: torch's is a polynomial, good to seven digits."""

    def log_prob(self, x: Tensor) -> Tensor:
        kappa = self.concentration
        log_norm = torch.log(2 * math.pi * torch.special.i0e(kappa))  # less kappa
        return kappa * (torch.cos(x - self.loc) - 1) - log_norm


class VonMises(heads.Head):
    """p(x | h) = prod_d exp(kappa_d cos(x_d - mu_d)) / (2 pi I_0(kappa_d))."""

    def __init__(self, event_shape: int | tuple[int, ...]) -> None:
        super().__init__(event_shape, parts=3)  # three numbers for each angle

    def distribution(self, h: Tensor) -> Distribution:
        cosine, sine, log_kappa = self.split(h, 3)
        px = Angle(torch.atan2(sine, cosine), log_kappa.exp(), validate_args=False)
        return Independent(px, len(self.event_shape))  # all angles of an example


# When 1,000 people go to bed and get up, on a clock of 24 hours as angles from
# -pi to pi, which meet at midnight. Put your own angles here, an array [N, D].
random = torch.Generator().manual_seed(0)
bed = 24 + 1.5 * torch.randn(1000, generator=random)
up = bed + 8 + 0.5 * torch.randn(1000, generator=random)
times = data.arrays((torch.stack([bed, up], 1) % 24 - 12) / 12 * math.pi)

for px in (VonMises(2), heads.Gaussian(2)):
    torch.manual_seed(0)
    q = heads.Gaussian(2)
    model = VAE(
        prior=priors.StandardNormal(2),
        posterior=Conditional(mlp(2, [64], q.features), q),
        likelihood=Conditional(mlp(2, [64], px.features), px),
    )
    fit(model, times, training=Training(epochs=60, batch_size=50), progress=False)
    found = evaluate.evaluate(model, times.test, samples=200)
    log_px = f"{-found.nll:.2f} +- {found.nll_se:.2f} nats"
    print(f"{type(px).__name__}: log p(x) of a test row is at least {log_px}")
