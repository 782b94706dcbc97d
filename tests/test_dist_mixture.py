"""Mixtures, and the gradients of their samples, against torch, quadrature, finite differences and extended precision."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal

from vaekit import dist
from vaekit.dist.implicit import reparameterised
from vaekit.errors import InputError

f64 = torch.float64


def _mixture(c: int, d: int, dtype: torch.dtype = f64) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(3)
    return torch.randn(c, dtype=dtype) * 0.7, torch.randn(c, d, dtype=dtype) * 1.5, torch.randn(c, d, dtype=dtype) * 0.4 - 0.3


def _naive_log_prob(z: Tensor, logits: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    return (logits.softmax(0) * Normal(loc, scale).log_prob(z).sum(-1).exp()).sum().log()


def test_mixture_is_torchs_with_samples_and_moments():
    logits, loc, log_scale = _mixture(3, 2)
    d = dist.Mixture(logits, dist.DiagGaussian(loc, log_scale))
    theirs = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=logits), Independent(Normal(loc, log_scale.exp()), 1)
    )
    z = torch.randn(7, 5, 2, dtype=f64)
    torch.testing.assert_close(d.log_prob(z), theirs.log_prob(z))
    torch.testing.assert_close(d.mean, theirs.mean)
    torch.testing.assert_close(d.variance, theirs.variance)
    torch.testing.assert_close(dist.centre(d), theirs.mean)
    z = d.sample((40_000,))
    assert ((z.mean(0) - d.mean) / (d.variance / len(z)).sqrt()).abs().max() < 4
    square = (z - d.mean).square()
    assert ((square.mean(0) - d.variance) / (square.std(0) / 200)).abs().max() < 4
    warm = dist.tempered(d, 0.5)
    torch.testing.assert_close(
        [warm.mean, warm.log_prob(loc[0])], [theirs.mean, _naive_log_prob(loc[0], logits, loc, 0.5 * log_scale.exp())]
    )
    cold = dist.tempered(d, 0.0).sample((100,))
    assert (cold.unsqueeze(1) - loc).abs().amax(-1).amin(1).max() == 0  # every sample is some component's mean


def test_mixture_batches_broadcast_and_expand():
    logits, loc, log_scale = _mixture(3, 2)
    d = dist.Mixture(logits, dist.DiagGaussian(loc.expand(4, 3, 2), log_scale))
    assert d.batch_shape == (4,) and d.rsample((6,)).shape == (6, 4, 2) and d.sample().shape == (4, 2)
    assert d.expand((5, 4)).log_prob(torch.zeros(5, 4, 2)).shape == (5, 4)
    full = dist.Mixture(logits, MultivariateNormal(loc, torch.eye(2, dtype=f64)))
    assert not full.has_rsample and full.sample((6,)).shape == (6, 2)
    with pytest.raises(InputError, match="MultivariateNormal has no reparameterised sample"):
        full.rsample()
    with pytest.raises(InputError, match=r"\[4\] logits for DiagGaussian of batch shape \[3\]"):
        dist.Mixture(torch.zeros(4), dist.DiagGaussian(loc, log_scale))


def test_one_component_and_equal_components_are_plain_reparameterisation():
    torch.manual_seed(0)
    for c in (1, 4):
        loc = torch.randn(1, 3, dtype=f64).expand(c, 3).clone().requires_grad_()
        log_scale = torch.randn(1, 3, dtype=f64).expand(c, 3).clone().requires_grad_()
        logits = torch.randn(c, dtype=f64, requires_grad=True)
        z = dist.Mixture(logits, dist.DiagGaussian(loc, log_scale)).rsample((50,))
        weight = torch.randn(50, 3, dtype=f64)
        grads = torch.autograd.grad((weight * z).sum(), (logits, loc, log_scale))
        w = logits.softmax(0).unsqueeze(-1)
        torch.testing.assert_close(grads[0], torch.zeros_like(logits))
        torch.testing.assert_close(grads[1], w * weight.sum(0))
        torch.testing.assert_close(grads[2], w * (weight * (z - loc[0])).sum(0))


def _cdfs(z: Tensor, logits: Tensor, loc: Tensor, log_scale: Tensor) -> Tensor:
    """F_d(z_d | z_<d), dimension by dimension as in the equation."""
    log_w, out = logits.log_softmax(0), []
    for d in range(z.shape[0]):
        normal = Normal(loc[:, d], log_scale[:, d].exp())
        out.append((log_w.softmax(0) * normal.cdf(z[d])).sum())
        log_w = log_w + normal.log_prob(z[d])
    return torch.stack(out)


def test_implicit_derivative_keeps_every_conditional_cdf_constant():
    parameters = _mixture(4, 3)
    torch.manual_seed(1)
    for z in torch.randn(5, 3, dtype=f64) * 1.5:
        dz = torch.autograd.functional.jacobian(lambda a, b, c, z=z: reparameterised(z, a.log_softmax(0), b, c), parameters)
        by_z = torch.autograd.functional.jacobian(lambda v: _cdfs(v, *parameters), z)
        by_theta = torch.autograd.functional.jacobian(lambda a, b, c, z=z: _cdfs(z, a, b, c), parameters)
        for moved, direct in zip(dz, by_theta, strict=True):
            torch.testing.assert_close(torch.tensordot(by_z, moved, 1), -direct, atol=1e-10, rtol=1e-9)


def _integrand(z: Tensor) -> Tensor:
    return torch.sin(1.3 * z.sum(-1)) + 0.3 * z[..., 0].square() * z[..., -1].cos()


@pytest.mark.parametrize("d", [1, 2])
def test_mixture_gradients_agree_with_quadrature(d):
    """Gradient of E[f(z)] by 200,000 reparameterised samples; every entry by its z-score."""
    parameters = [p.requires_grad_() for p in _mixture(3, d)]
    line = torch.linspace(-12, 12, 401, dtype=f64)
    grid = torch.cartesian_prod(*[line] * d).reshape(-1, d)
    p = dist.Mixture(parameters[0], dist.DiagGaussian(*parameters[1:]))
    exact = torch.autograd.grad((p.log_prob(grid).exp() * _integrand(grid)).sum() * (24 / 400) ** d, parameters)
    n = 200_000
    torch.manual_seed(0)
    leaves = [v.detach().expand(n, *v.shape).clone().requires_grad_() for v in parameters]
    z = dist.Mixture(leaves[0], dist.DiagGaussian(*leaves[1:])).rsample()
    for estimate, true in zip(torch.autograd.grad(_integrand(z).sum(), leaves), exact, strict=True):
        error = estimate.std(0) / math.sqrt(n)
        assert ((estimate.mean(0) - true) / error).abs().max() < 4.5
        assert (true.abs() / error).max() > 30  # the test would see an error of a few percent


@pytest.mark.parametrize("z", [-25.0, -9.0, 0.3, 9.0, 25.0])
def test_implicit_derivative_in_float32_far_in_the_tails(z):
    mpmath.mp.dps = 400
    logits, loc, log_scale = torch.tensor([0.3, -0.2]), torch.tensor([[-1.0], [0.5]]), torch.tensor([[0.1], [0.4]])
    leaves = [t.requires_grad_() for t in (logits, loc, log_scale)]
    out = reparameterised(torch.tensor([z]), leaves[0].log_softmax(0), leaves[1], leaves[2])
    grads = torch.cat([g.flatten() for g in torch.autograd.grad(out.sum(), leaves)])

    def cdf(a: object, b: object, m: object, n: object, s: object, t: object, v: object = z) -> mpmath.mpf:
        w = [mpmath.exp(a), mpmath.exp(b)]
        parts = [mpmath.ncdf((mpmath.mpf(v) - c) / mpmath.exp(e)) for c, e in ((m, s), (n, t))]
        return (w[0] * parts[0] + w[1] * parts[1]) / (w[0] + w[1])

    at = [mpmath.mpf(v.item()) for t in leaves for v in t.flatten()]
    step = mpmath.mpf(10) ** -60

    def slope(n: int) -> mpmath.mpf:
        up, down = ([v + sign * step * (k == n) for k, v in enumerate(at)] for sign in (1, -1))
        return (cdf(*up) - cdf(*down)) / (2 * step)

    density = (cdf(*at, v=z + step) - cdf(*at, v=z - step)) / (2 * step)
    exact = torch.tensor([float(-slope(n) / density) for n in range(6)])
    torch.testing.assert_close(grads, exact, rtol=1e-4, atol=1e-5)
