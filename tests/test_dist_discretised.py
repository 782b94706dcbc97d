"""Discretised logistics against enumeration, extended precision and PixelCNN++'s own formula."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
from torch import Tensor

from vaekit import dist

f64 = torch.float64

EXTREMES = [
    (m, s) for m in (-3.0, -0.001, 0.0, 0.1, 0.5, 127.3 / 255, 127.5 / 255, 1.0, 4.0) for s in (-70.0, -30.0, -9.0, -4.0, 0.0, 9.0, 70.0)
]


@pytest.mark.parametrize("bins", [2, 5, 256])
def test_discretised_logistic_has_mass_one_for_extreme_parameters(bins):
    parameters = torch.tensor(EXTREMES, requires_grad=True)
    d = dist.DiscretisedLogistic(parameters[:, :1], parameters[:, 1:], bins=bins)
    x = (torch.arange(bins) / (bins - 1)).reshape(-1, 1, 1)
    log_mass = d.log_prob(x)
    total = log_mass.double().exp().sum(0)
    assert (total - 1).abs().max() < 1e-5
    (grad,) = torch.autograd.grad(log_mass.clamp(min=-1e4).sum(), parameters)
    assert grad.isfinite().all()


def test_discretised_logistic_against_60_digits_in_both_tails():
    mpmath.mp.dps = 60

    def sigmoid(v: mpmath.mpf) -> mpmath.mpf:
        return 1 / (1 + mpmath.exp(-v))

    h = mpmath.mpf(1) / 510
    for k in (0, 1, 100, 254, 255):
        for loc, log_scale in ((0.4, -1.0), (0.4, -4.0), (-0.7, -3.5), (1.9, -4.5), (0.5, 3.0)):
            parameters = torch.tensor([loc, log_scale], requires_grad=True)
            log_p = dist.log_prob_parts(dist.DiscretisedLogistic(parameters[0], parameters[1], 0), torch.tensor(k / 255))
            (grad,) = torch.autograd.grad(log_p, parameters)

            def exact(m: mpmath.mpf, t: mpmath.mpf, k: int = k) -> mpmath.mpf:
                upper = mpmath.mpf(1) if k == 255 else sigmoid((mpmath.mpf(k) / 255 + h - m) / mpmath.exp(t))
                lower = mpmath.mpf(0) if k == 0 else sigmoid((mpmath.mpf(k) / 255 - h - m) / mpmath.exp(t))
                return mpmath.log(upper - lower)

            m, t = (mpmath.mpf(v) for v in parameters.tolist())
            slopes = [mpmath.diff(exact, (m, t), order) for order in ((1, 0), (0, 1))]
            assert log_p.item() == pytest.approx(float(exact(m, t)), rel=1e-5, abs=1e-5)
            assert grad.tolist() == pytest.approx([float(v) for v in slopes], rel=2e-4, abs=1e-4)


def test_discretised_logistic_samples_follow_its_masses():
    torch.manual_seed(0)
    d = dist.DiscretisedLogistic(torch.tensor([0.1]), torch.tensor([-1.5]), bins=6)
    x = d.sample((50_000,))
    assert d.support.check(x).all() and not d.support.check(torch.tensor([0.25])).any()
    grid = (torch.arange(6) / 5).unsqueeze(-1)
    mass = d.log_prob(grid).exp()
    observed = torch.bincount((x * 5).round().long().flatten(), minlength=6) / len(x)
    assert ((observed - mass) / (mass * (1 - mass) / len(x)).sqrt()).abs().max() < 4
    torch.testing.assert_close(d.mean, (mass.unsqueeze(-1) * grid).sum(0))


def _pixelcnn(x: Tensor, logits: Tensor, means: Tensor, log_scales: Tensor, c: Tensor, bins: int) -> Tensor:
    """PixelCNN++'s log-mass of one RGB pixel, channel by channel, in its own units: x, means [M, 3] in [-1, 1]."""
    half = 1 / (bins - 1)
    total = logits.log_softmax(0)
    shifted = torch.stack([means[:, 0], means[:, 1] + c[:, 0] * x[0], means[:, 2] + c[:, 1] * x[0] + c[:, 2] * x[1]], 1)
    for channel in range(3):
        s = log_scales[:, channel].exp()
        upper = torch.ones_like(s) if x[channel] > 0.999 else torch.sigmoid((x[channel] + half - shifted[:, channel]) / s)
        lower = torch.zeros_like(s) if x[channel] < -0.999 else torch.sigmoid((x[channel] - half - shifted[:, channel]) / s)
        total = total + (upper - lower).log()
    return total.logsumexp(0)


def test_discretised_mixture_is_pixelcnn():
    torch.manual_seed(0)
    m, bins = 4, 8
    logits, loc, log_s = torch.randn(m, dtype=f64), torch.randn(m, 3, dtype=f64), torch.randn(m, 3, dtype=f64) - 1
    c = torch.randn(m, 3, dtype=f64).tanh()
    image = (m, 3, 1, 1)
    d = dist.DiscretisedLogisticMixture(
        logits.reshape(m, 1, 1),
        0.5 + 0.5 * loc.reshape(image),
        log_s.reshape(image) - math.log(2),
        coefficients=c.reshape(image),
        bins=bins,
    )
    for _ in range(20):
        x = torch.randint(bins, (3,)).double() / (bins - 1)
        torch.testing.assert_close(d.log_prob(x.reshape(3, 1, 1)), _pixelcnn(2 * x - 1, logits, loc, log_s, c, bins))


def test_discretised_mixture_samples_follow_its_masses_and_its_factor_is_the_pixel():
    torch.manual_seed(0)
    n, bins = 60_000, 3
    parameters = [torch.randn(2, 1, 1), torch.rand(2, 3, 1, 1), torch.randn(2, 3, 1, 1) - 1, torch.randn(2, 3, 1, 1)]
    d = dist.DiscretisedLogisticMixture(parameters[0], parameters[1], parameters[2], coefficients=parameters[3], bins=bins)
    assert d.batch_shape == () and dist.log_prob_parts(d, d.sample((5,))).shape == (5, 1, 1, 1)
    x = d.sample((n,))
    assert d.support.check(x).all()
    code = (x.flatten(1) * 2).round().long() @ torch.tensor([9, 3, 1])
    observed = torch.bincount(code, minlength=27) / n
    grid = torch.cartesian_prod(*[torch.tensor([0.0, 0.5, 1.0])] * 3).reshape(27, 3, 1, 1)
    mass = d.log_prob(grid).exp()
    z = (observed - mass) / (mass * (1 - mass) / n).sqrt().clamp(min=1 / n)
    assert z.abs().max() < 4.5
    masked = dist.log_prob_observed(d, torch.zeros(3, 1, 1), torch.tensor([True, True, False]).reshape(3, 1, 1))
    assert masked == 0  # a pixel with a missing channel is missing


def test_discretised_mixture_mean_is_near_the_mean_for_small_scales():
    torch.manual_seed(0)
    logits, loc, c = torch.randn(3, 1, 1), 0.3 + 0.4 * torch.rand(3, 3, 1, 1), 0.5 * torch.randn(3, 3, 1, 1).tanh()
    d = dist.DiscretisedLogisticMixture(logits, loc, torch.full((3, 3, 1, 1), -5.0), coefficients=c)
    x = d.sample((20_000,))
    assert (x.mean(0) - d.mean).abs().max() < 0.008
    assert d.expand((4, 2)).sample((3,)).shape == (3, 4, 2, 3, 1, 1)
