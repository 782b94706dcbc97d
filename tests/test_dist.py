"""Densities against closed forms, extended precision, enumeration and quadrature."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal

from tables import legendre
from vaekit import dist
from vaekit.dist.numeric import log_shrink
from vaekit.errors import InputError

f64 = torch.float64


# Bernoulli


def test_bernoulli_is_the_binary_cross_entropy_with_k_samples_against_one_batch():
    torch.manual_seed(0)
    logits, x = torch.randn(3, 4, 2, 5, dtype=f64), torch.rand(4, 2, 5, dtype=f64)
    p = torch.sigmoid(logits)
    expected = (x * p.log() + (1 - x) * (1 - p).log()).sum((-2, -1))
    d = dist.Bernoulli(logits, 2)
    assert d.batch_shape == (3, 4) and d.event_shape == (2, 5)
    torch.testing.assert_close(d.log_prob(x), expected)
    torch.testing.assert_close(dist.log_prob_parts(d, x).sum((-2, -1)), expected)


def test_bernoulli_stays_exact_for_large_logits():
    logits = torch.tensor([-300.0, -100.0, 100.0, 300.0], requires_grad=True)
    x = torch.tensor([1.0, 0.0, 0.0, 1.0])
    parts = dist.log_prob_parts(dist.Bernoulli(logits), x)
    torch.testing.assert_close(parts, torch.tensor([-300.0, 0.0, -100.0, 0.0]))
    (grad,) = torch.autograd.grad(parts.sum(), logits)
    torch.testing.assert_close(grad, torch.tensor([1.0, 0.0, -1.0, 0.0]))


def test_bernoulli_grey_value_is_an_expected_log_mass():
    d = dist.Bernoulli(torch.tensor([0.4]))
    log_p1, log_p0 = d.log_prob(torch.ones(1)), d.log_prob(torch.zeros(1))
    torch.testing.assert_close(d.log_prob(torch.tensor([0.3])), 0.3 * log_p1 + 0.7 * log_p0)
    assert d.support.check(torch.tensor([0.3])) and not d.support.check(torch.tensor([1.2]))


def test_bernoulli_samples_and_moments():
    torch.manual_seed(0)
    d = dist.Bernoulli(torch.tensor([[-2.0, 0.5]]))
    x = d.sample((40_000,))
    assert x.dtype == torch.float32 and set(x.unique().tolist()) == {0.0, 1.0}
    p = torch.tensor([[1 / (1 + math.exp(2)), 1 / (1 + math.exp(-0.5))]])
    torch.testing.assert_close(d.mean, p)
    torch.testing.assert_close(d.variance, p * (1 - p))
    assert ((x.mean(0) - p) / (p * (1 - p) / len(x)).sqrt()).abs().max() < 4
    torch.testing.assert_close(d.entropy(), -(p * p.log() + (1 - p) * (1 - p).log()).sum(-1))
    assert torch.equal(d.mode, torch.tensor([[0.0, 1.0]]))


# Continuous Bernoulli

LOGITS = [0.0, 1e-30, 1e-6, 1e-3, 0.05, 0.11, 0.5, 0.99, 1.01, 3.0, 10.0, 16.0, 20.0, 40.0, 80.0]


def _log_normaliser(eta: float) -> tuple[float, float, float]:
    """A(eta), A' and A'' to 60 digits and more."""
    mpmath.mp.dps = 150
    e = mpmath.mpf(eta)
    if e == 0:
        return 0.0, 0.5, 1 / 12
    a = mpmath.log(mpmath.expm1(e) / e)
    return float(a), float(1 / (1 - mpmath.exp(-e)) - 1 / e), float(1 / e**2 - 1 / (4 * mpmath.sinh(e / 2) ** 2))


@pytest.mark.parametrize("dtype, tolerance, relative", [(torch.float32, 4e-7, 8e-6), (f64, 1e-14, 4e-12)])
def test_continuous_bernoulli_value_gradient_and_moments_against_60_digits(dtype, tolerance, relative):
    eta = torch.tensor([s * v for v in LOGITS for s in (1, -1)], dtype=dtype, requires_grad=True)
    exact = torch.tensor([_log_normaliser(v) for v in eta.tolist()], dtype=f64)
    x = torch.tensor(0.375, dtype=dtype)
    log_p = dist.log_prob_parts(dist.ContinuousBernoulli(eta), x)
    (grad,) = torch.autograd.grad(log_p.sum(), eta)
    scale = 1 + eta.detach().double().abs()  # the rounding of x eta itself
    assert ((log_p.double() - (0.375 * eta.double() - exact[:, 0])).abs() / scale).max() < tolerance
    assert (grad.double() - (0.375 - exact[:, 1])).abs().max() < tolerance
    d = dist.ContinuousBernoulli(eta.detach())
    assert (d.mean.double() - exact[:, 1]).abs().max() < tolerance
    assert ((d.variance.double() - exact[:, 2]).abs() / exact[:, 2]).max() < relative


@pytest.mark.parametrize("eta", [-80.0, -16.0, -0.5, 1e-4, 0.0, 2.0, 17.0, 80.0])
def test_continuous_bernoulli_integrates_to_one(eta):
    x, log_w = legendre(80)
    d = dist.ContinuousBernoulli(torch.tensor([eta], dtype=f64))
    assert torch.logsumexp(d.log_prob(x.unsqueeze(-1)) + log_w, 0).abs() < 1e-12


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 3e-5), (f64, 2e-9)])
def test_continuous_bernoulli_icdf_and_its_gradient_against_60_digits(dtype, tolerance):
    mpmath.mp.dps = 60
    for eta in [s * v for v in (1e-6, 0.01, 0.09, 0.11, 0.9, 5.0, 30.0, 80.0) for s in (1, -1)]:
        leaf = torch.tensor(eta, dtype=dtype, requires_grad=True)
        for u in (0.001, 0.25, 0.9):
            ut = torch.tensor(u, dtype=dtype)
            x = dist.ContinuousBernoulli(leaf, 0).icdf(ut)
            (grad,) = torch.autograd.grad(x, leaf)
            e, v = mpmath.mpf(leaf.item()), mpmath.mpf(ut.item())
            w = 1 + v * mpmath.expm1(e)
            exact, slope = mpmath.log(w) / e, v * mpmath.exp(e) / (w * e) - mpmath.log(w) / e**2
            assert abs(x.item() - float(exact)) < tolerance and abs(grad.item() - float(slope)) < tolerance, (eta, u)


def test_continuous_bernoulli_samples_stay_in_the_interval_at_extreme_logits():
    torch.manual_seed(0)
    eta = torch.tensor([-100.0, -80.0, 0.0, 80.0, 100.0])
    d = dist.ContinuousBernoulli(eta)
    x = d.rsample((20_000,))
    assert x.isfinite().all() and d.support.check(x).all()
    assert ((x.mean(0) - d.mean) / (d.variance / len(x)).sqrt()).abs().max() < 4


def test_log_shrink_gradcheck_across_its_seam():
    a = torch.tensor([0.3, 0.999, 1.001, 4.0], dtype=f64, requires_grad=True)
    assert torch.autograd.gradcheck(log_shrink, a)


# Categorical


def test_categorical_is_torchs_per_entry_for_float_and_integer_classes():
    torch.manual_seed(0)
    logits = torch.randn(3, 2, 5, 4, 6)  # K, B, classes, *event
    x = torch.randint(5, (2, 4, 6))
    d = dist.Categorical(logits, 2)
    theirs = Independent(torch.distributions.Categorical(logits=logits.movedim(-3, -1)), 2)
    assert d.batch_shape == (3, 2) and d.event_shape == (4, 6)
    torch.testing.assert_close(d.log_prob(x), theirs.log_prob(x))
    torch.testing.assert_close(d.log_prob(x.float()), theirs.log_prob(x))
    torch.testing.assert_close(d.entropy(), theirs.entropy())
    assert torch.equal(dist.centre(d), logits.argmax(-3).float())
    assert d.sample((7,)).shape == (7, 3, 2, 4, 6) and d.sample().dtype == torch.float32
    assert d.support.check(x.float()).all() and not d.support.check(x + 0.5).any() and not d.support.check(x + 5).any()
    one = dist.Categorical(logits[0, 0], 2)
    assert one.log_prob(torch.randint(5, (9, 8, 4, 6))).shape == (9, 8)


# Gaussians


def _gaussians(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(seed)
    scale_tril = torch.randn(3, 4, 4, dtype=f64).tril(-1) + torch.diag_embed(0.5 + torch.rand(3, 4, dtype=f64))
    return torch.randn(3, 4, dtype=f64), torch.randn(3, 4, dtype=f64) * 0.5, scale_tril


@pytest.mark.parametrize("q_full", [False, True])
@pytest.mark.parametrize("p_full", [False, True])
def test_gaussian_kl_against_monte_carlo_and_the_matrix_formula(q_full, p_full):
    pair, matrices = [], []
    for seed, full in ((0, q_full), (1, p_full)):
        loc, log_scale, scale_tril = _gaussians(seed)
        pair.append(MultivariateNormal(loc, scale_tril=scale_tril) if full else dist.DiagGaussian(loc, log_scale))
        matrices.append((loc, scale_tril @ scale_tril.mT if full else torch.diag_embed((2 * log_scale).exp())))
    q, p = pair
    kl = dist.closed_form_kl(q, p)
    (mq, sq), (mp, sp) = matrices
    inverse = torch.linalg.inv(sp)
    trace = (inverse @ sq).diagonal(dim1=-2, dim2=-1).sum(-1)
    difference = (mp - mq).unsqueeze(-1)
    distance = (difference.mT @ inverse @ difference).flatten(-3 + 1).squeeze(-1)
    expected = 0.5 * (trace + distance - 4 + torch.logdet(sp) - torch.logdet(sq))
    torch.testing.assert_close(kl, expected)
    z = q.rsample((40_000,))
    terms = q.log_prob(z) - p.log_prob(z)
    assert ((terms.mean(0) - expected) / (terms.std(0) / math.sqrt(len(z)))).abs().max() < 4


def test_diag_gaussian_is_independent_normal_over_any_event_dimensions():
    loc, log_scale, _ = _gaussians(0)
    x = torch.randn(5, 3, 4, dtype=f64)
    for n in (0, 1, 2):
        d, theirs = dist.DiagGaussian(loc, log_scale, n), Independent(Normal(loc, log_scale.exp()), n)
        assert d.batch_shape == theirs.batch_shape and d.event_shape == theirs.event_shape
        torch.testing.assert_close(d.log_prob(x), theirs.log_prob(x))
        torch.testing.assert_close(d.entropy(), theirs.entropy())
        torch.testing.assert_close(d.variance, theirs.variance)
    other = Independent(Normal(log_scale, loc.exp()), 0)
    kl = dist.closed_form_kl(dist.DiagGaussian(loc, log_scale, 0), dist.DiagGaussian(log_scale, loc, 0))
    torch.testing.assert_close(kl, torch.distributions.kl_divergence(Independent(Normal(loc, log_scale.exp()), 0), other))


def test_optimal_gaussian_is_the_maximum_and_its_gradient_that_of_the_maximum():
    torch.manual_seed(0)
    loc = torch.randn(3, 4, 5, dtype=f64, requires_grad=True)  # K, B, D
    x = torch.randn(4, 5, dtype=f64)
    d = dist.OptimalGaussian(loc, torch.zeros((), dtype=f64))
    total = d.log_prob(x).sum()
    for log_scale in torch.linspace(-1, 1, 21, dtype=f64):
        assert dist.DiagGaussian(loc, log_scale).log_prob(x).sum() <= total
    variance = (x - loc).square().mean()  # differentiated through, unlike in the class
    through = -0.5 * loc.numel() * (torch.log(2 * math.pi * variance) + 1)
    torch.testing.assert_close(total, through)
    torch.testing.assert_close(*(torch.autograd.grad(t, loc, retain_graph=True)[0] for t in (total, through)))


def test_optimal_gaussian_counts_observed_entries_only():
    torch.manual_seed(0)
    loc, x, mask = torch.randn(3, 4, 5), torch.randn(4, 5), torch.rand(4, 5) < 0.6
    seen: list[Tensor] = []
    d = dist.OptimalGaussian(loc, torch.zeros(()), record=seen.append)
    log_p = dist.log_prob_observed(d, torch.where(mask, x, torch.full_like(x, math.nan)), mask)
    residual = (x - loc)[:, mask]
    torch.testing.assert_close(seen, [residual.square().mean()])
    torch.testing.assert_close(log_p.sum(), -0.5 * residual.numel() * (torch.log(2 * math.pi * seen[0]) + 1))
    dist.log_prob_observed(d, x, None)
    assert len(seen) == 1
    nothing = dist.OptimalGaussian(loc, torch.tensor(0.3))
    assert torch.equal(dist.log_prob_observed(nothing, x, torch.zeros(4, 5, dtype=torch.bool)), torch.zeros(3, 4))


# What the core asks of any distribution


def test_tempered_scales_the_noise():
    loc, log_scale, scale_tril = _gaussians(0)
    for d in (dist.DiagGaussian(loc, log_scale), MultivariateNormal(loc, scale_tril=scale_tril)):
        torch.testing.assert_close(dist.tempered(d, 0.5).variance, 0.25 * d.variance)
        torch.testing.assert_close(dist.tempered(d, 0.5).mean, d.mean)
    assert torch.equal(dist.tempered(dist.DiagGaussian(loc, log_scale), 0.0).sample(), loc)
    bernoulli = dist.Bernoulli(loc)
    assert dist.tempered(bernoulli, 1.0) is bernoulli
    with pytest.raises(InputError, match="temperature 0.5: Bernoulli has no scale"):
        dist.tempered(bernoulli, 0.5)


def test_draw_refuses_a_gradient_that_would_be_wrong():
    with pytest.raises(InputError, match="Bernoulli has no reparameterised sample"):
        dist.draw(dist.Bernoulli(torch.zeros(3)), torch.Size((2,)))
    z, log_q = dist.draw(dist.Bernoulli(torch.zeros(3)), torch.Size((2,)), reparam=False)
    assert z.shape == (2, 3) and torch.allclose(log_q, torch.tensor(-3 * math.log(2)))


def test_sum_over_no_event_dimensions_is_no_sum():
    x = torch.tensor([0.2, 0.7])
    d = dist.Bernoulli(torch.zeros(2), 0)
    torch.testing.assert_close(d.log_prob(x), -F.binary_cross_entropy_with_logits(torch.zeros(2), x, reduction="none"))
    assert dist.log_prob_observed(d, x, torch.tensor([True, False]))[1] == 0
