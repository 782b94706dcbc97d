"""Gaussians compared and fitted: every KL between two of them, both projections of a density, and the Laplace approximation."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal

from oracles import PPCA
from vaekit import priors
from vaekit.dist import DiagGaussian, closed_form_kl, full_gaussian
from vaekit.errors import InputError
from vaekit.infer.fit import fit_density
from vaekit.infer.laplace import laplace
from vaekit.infer.project import TrapezoidRule, kl_by_quadrature, moment_match
from vaekit.types import Batch

f64 = torch.float64
MEAN, COV = torch.tensor([0.5, -1.0], dtype=f64), torch.tensor([[1.0, 1.2], [1.2, 2.0]], dtype=f64)
BOX = TrapezoidRule((-10.0, -12.0), (10.0, 12.0), 161)
LINE = TrapezoidRule((-12.0,), (12.0,), 2401)


def gaussian(kind: str, seed: int, dtype: torch.dtype) -> tuple[torch.distributions.Distribution, Tensor, Tensor]:
    """A Gaussian of 3 dimensions, batch shape (4,) or (), with its mean and covariance in float64."""
    g = torch.Generator().manual_seed(seed)
    loc, root = torch.randn(4, 3, generator=g, dtype=f64), torch.randn(4, 3, 3, generator=g, dtype=f64)
    scale = 0.3 + torch.rand(4, 3, generator=g, dtype=f64)
    if kind == "standard":
        return priors.StandardNormal(3).to(dtype)(), torch.zeros(3, dtype=f64), torch.eye(3, dtype=f64)
    if kind == "full":
        cov = root @ root.mT + 0.2 * torch.eye(3, dtype=f64)
        return full_gaussian(loc.to(dtype), cov.to(dtype)), loc, cov
    own = DiagGaussian(loc.to(dtype), scale.log().to(dtype))
    return own if kind == "diagonal" else Independent(Normal(own.loc, own.scale), 1), loc, torch.diag_embed(scale.square())


KINDS = ("standard", "diagonal", "torch diagonal", "full")


@pytest.mark.parametrize("dtype", [torch.float32, f64])
@pytest.mark.parametrize(("first", "second"), list(itertools.product(KINDS, KINDS)))
def test_kl_of_every_pair_of_gaussians_is_the_matrix_formula(first, second, dtype) -> None:
    (q, mq, sq), (p, mp, sp) = gaussian(first, 0, dtype), gaussian(second, 1, dtype)
    distance = mp - mq
    trace = torch.linalg.solve(sp, sq).diagonal(dim1=-2, dim2=-1).sum(-1)
    square = (distance * torch.linalg.solve(sp.expand(*distance.shape[:-1], 3, 3), distance)).sum(-1)
    expected = 0.5 * (trace + square - 3 + torch.logdet(sp) - torch.logdet(sq))
    kl = closed_form_kl(q, p)
    tight = {"rtol": 1e-10, "atol": 1e-12} if dtype == f64 else {"rtol": 2e-4, "atol": 1e-4}
    torch.testing.assert_close(kl, expected.to(dtype), **tight)
    torch.testing.assert_close(closed_form_kl(q, q), torch.zeros(q.batch_shape, dtype=dtype), rtol=0, atol=1e-4 if dtype != f64 else 1e-12)


def test_kl_of_two_gaussians_by_quadrature_both_ways() -> None:
    q, p = full_gaussian(MEAN, COV), full_gaussian(torch.zeros(2, dtype=f64), torch.tensor([[0.7, -0.3], [-0.3, 1.0]], dtype=f64))
    for a, b in ((q, p), (p, q)):
        expected = closed_form_kl(a, b).item()
        assert kl_by_quadrature(a.log_prob, b.log_prob, BOX) == pytest.approx(expected, abs=1e-9)
        assert kl_by_quadrature(lambda z, a=a: a.log_prob(z) + 3, lambda z, b=b: b.log_prob(z) - 50, BOX) == pytest.approx(
            expected, abs=1e-9
        )


def test_kl_where_a_density_is_zero() -> None:
    """Uniform on [-1, 1], nodes in the middle of cells: KL(u || N) in closed form, and KL(N || u) is infinite."""
    rule = TrapezoidRule((-8.0005,), (8.0005,), 16002)

    def uniform(z: Tensor) -> Tensor:
        return torch.where(z[:, 0].abs() < 1, 0.0, -math.inf)

    def normal(z: Tensor) -> Tensor:
        return -0.5 * z[:, 0].square()

    assert kl_by_quadrature(uniform, normal, rule) == pytest.approx(0.5 * math.log(2 * math.pi) + 1 / 6 - math.log(2), abs=1e-6)
    assert kl_by_quadrature(normal, uniform, rule) == math.inf


@pytest.mark.parametrize(
    ("loc", "covariance", "message"),
    [
        (torch.zeros(2), torch.ones(2, 2), "not positive definite, smallest eigenvalue .*leave out the directions"),
        (torch.zeros(2), torch.tensor([[1.0, 2.0], [2.0, 1.0]]), "smallest eigenvalue -1"),
        (torch.zeros(2), torch.zeros(2, 2), "not positive definite"),
        (torch.zeros(2), torch.tensor([[1.0, 0.5], [0.4, 1.0]]), "not symmetric: .* by up to 0.1"),
        (torch.zeros(2), torch.tensor([[1.0, math.nan], [0.4, 1.0]]), "NaN or infinite"),
        (torch.zeros(3), torch.eye(2), r"mean \[3\], covariance \[2, 2\]"),
        (torch.zeros(2), torch.ones(2), r"covariance \[2\]"),
    ],
)
def test_a_covariance_that_is_none_is_refused(loc: Tensor, covariance: Tensor, message: str) -> None:
    for dtype in (torch.float32, f64):
        with pytest.raises(InputError, match=message):
            full_gaussian(loc.to(dtype), covariance.to(dtype))


# --- both projections onto diagonal Gaussians, whose optima are known -----------------------------------------------------------------


def test_the_diagonal_optima_of_both_directions() -> None:
    """Reverse: variances 1 / (Sigma^-1)_ii. Forward: Sigma_ii. There the gradient of the closed form vanishes, and only there."""
    p = full_gaussian(MEAN, COV)
    reverse, forward = 1 / torch.linalg.inv(COV).diagonal(), COV.diagonal()
    for variances, kl in ((reverse, lambda q: closed_form_kl(q, p)), (forward, lambda q: closed_form_kl(p, q))):
        for factor, optimal in ((1.0, True), (1.3, False)):
            loc, log_scale = MEAN.clone().requires_grad_(), (0.5 * (factor * variances).log()).requires_grad_()
            slopes = torch.cat(torch.autograd.grad(kl(DiagGaussian(loc, log_scale)), (loc, log_scale)))
            assert (slopes.abs().max() < 1e-12) == optimal
    torch.testing.assert_close(moment_match(p.log_prob, BOX).variance, forward, rtol=1e-9, atol=0)
    torch.manual_seed(0)
    family = priors.DiagNormal(2).double()
    fit_density(family, p.log_prob, steps=400, samples=64, lr=0.05, log_z=0.0)
    torch.testing.assert_close((2 * family.log_scale).exp().detach(), reverse, rtol=0.03, atol=0)
    torch.testing.assert_close(family.loc.detach(), MEAN, rtol=0, atol=0.03)
    assert (forward / reverse).min() > 3  # so that neither could pass for the other


def test_moments_of_a_mixture() -> None:
    means, covs, w = torch.stack([MEAN, -MEAN]), torch.stack([COV, torch.eye(2, dtype=f64)]), torch.tensor([0.3, 0.7], dtype=f64)
    parts = [full_gaussian(m, c) for m, c in zip(means, covs, strict=True)]

    def log_density(z: Tensor) -> Tensor:
        return torch.logsumexp(torch.stack([d.log_prob(z) for d in parts]) + w.log()[:, None], 0) - 20.0

    mean = w @ means
    cov = (w[:, None, None] * (covs + means[:, :, None] * means[:, None, :])).sum(0) - torch.outer(mean, mean)
    q = moment_match(log_density, BOX)
    torch.testing.assert_close((q.mean, q.covariance_matrix), (mean, cov), rtol=1e-9, atol=1e-9)
    best = kl_by_quadrature(log_density, q.log_prob, BOX)
    for scale, shift in ((1.1, 0.0), (0.9, 0.0), (1.0, 0.1)):
        other = full_gaussian(mean + shift, scale * cov)
        assert kl_by_quadrature(log_density, other.log_prob, BOX) > best + 1e-4


def test_quadratures_that_cannot_be_right_are_refused() -> None:
    def wide(z: Tensor) -> Tensor:
        return -0.5 * z.square().sum(-1)

    for rule, density, message in [
        (TrapezoidRule((-3.0,), (3.0,), 61), wide, "outermost nodes: .* cuts it off"),
        (TrapezoidRule((-40.0,), (40.0,), 61), lambda z: wide(z - 0.1), "0.75 of the nodes' distance 1.33: use more points"),
        (LINE, lambda z: z, r"gave shape \[2401, 1\] .* must give \[2401\]"),
        (LINE, lambda z: wide(z) * math.nan, "no finite number"),
        (LINE, lambda z: wide(z) - math.inf, "no finite number"),
    ]:
        with pytest.raises(InputError, match=message):
            moment_match(density, rule)
    for low, high, points in [
        ((), (), 9),
        ((0.0,), (0.0,), 9),
        ((0.0,), (1.0, 1.0), 9),
        ((0.0,), (1.0,), 2),
        ((0.0,) * 3, (1.0,) * 3, 300),
    ]:
        with pytest.raises(InputError, match="TrapezoidRule"):
            TrapezoidRule(low, high, points)


# --- Laplace --------------------------------------------------------------------------------------------------------------------------


def sigmoid_posterior(z: Tensor) -> Tensor:
    """log of exp(-z^2 / 2) sigmoid(20 z + 4) (Bishop, figure 10.1)."""
    return -0.5 * z[..., 0].square() + torch.nn.functional.logsigmoid(20 * z[..., 0] + 4)


@pytest.mark.parametrize("start", [torch.zeros(2), torch.full((2,), 1e3), torch.tensor([[3, -2], [0, 0]])])
def test_laplace_is_exact_on_a_gaussian(start: Tensor) -> None:
    p = full_gaussian(MEAN, COV)
    q = laplace(lambda z: p.log_prob(z) - 7, start)
    assert q.batch_shape == start.shape[:-1] and not q.mean.requires_grad
    torch.testing.assert_close(q.mean, MEAN.expand(start.shape), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(q.covariance_matrix, COV.expand(*start.shape, 2), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(p.log_prob(q.mean) - 7 - q.log_prob(q.mean), torch.full(start.shape[:-1], -7.0, dtype=f64))


def test_laplace_gives_the_exact_posterior_and_evidence_of_a_linear_model() -> None:
    """All six examples at once, z [K = 1, B, D]."""
    oracle = PPCA()
    model, batch = oracle.model(), Batch(oracle.x)
    q = laplace(lambda z: model.log_joint(batch, z), torch.zeros(1, 6, 2))
    exact = oracle.exact().infer(batch).levels[0].q
    torch.testing.assert_close(q.mean[0], exact.mean)
    torch.testing.assert_close(q.covariance_matrix[0], exact.covariance_matrix)
    torch.testing.assert_close((model.log_joint(batch, q.mean) - q.log_prob(q.mean))[0], oracle.evidence(oracle.x))


@pytest.mark.parametrize("start", [0.0, -1.0, 2.0, -6.0, 50.0])
def test_laplace_of_the_sigmoid_posterior_by_bisection(start: float) -> None:
    """The mode solves z = 20 s(z), s = sigmoid(-20 z - 4); the curvature there is 1 + 400 s (1 - s)."""
    low, high = -1.0, 1.0
    for _ in range(200):
        z = 0.5 * (low + high)
        s = 1 / (1 + math.exp(20 * z + 4))
        low, high = (z, high) if 20 * s > z else (low, z)
    q = laplace(sigmoid_posterior, torch.tensor([start]))
    assert q.mean.item() == pytest.approx(z, abs=1e-12)
    assert q.variance.item() == pytest.approx(1 / (1 + 400 * s * (1 - s)), rel=1e-10)


def test_the_variational_gaussian_of_the_sigmoid_posterior() -> None:
    """The optimum of KL(q || p) by fit_density, against L-BFGS on the quadrature of the same integral; Laplace is worse in that direction
    and the moments are best in the other."""
    x = torch.linspace(-9, 9, 721, dtype=f64)
    w = torch.softmax(-0.5 * x.square(), 0)
    at = torch.tensor([0.5, -0.5], dtype=f64, requires_grad=True)  # mean, log standard deviation
    search = torch.optim.LBFGS([at], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-16, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        value = -at[1] - w @ sigmoid_posterior((at[0] + at[1].exp() * x).unsqueeze(-1))
        value.backward()
        return value

    search.step(loss)
    torch.manual_seed(0)
    family = priors.DiagNormal(1).double()
    fit_density(family, sigmoid_posterior, steps=800, samples=128, lr=0.05)
    got = torch.stack([family.loc[0], family.log_scale[0]]).detach()
    torch.testing.assert_close(got, at.detach(), rtol=0, atol=0.02)
    near, moments = laplace(sigmoid_posterior, torch.zeros(1)), moment_match(sigmoid_posterior, LINE)
    best = full_gaussian(at[:1].detach(), (2 * at[1:]).exp().detach().unsqueeze(0))
    reverse = {q: kl_by_quadrature(q.log_prob, sigmoid_posterior, LINE) for q in (best, near, moments)}
    forward = {q: kl_by_quadrature(sigmoid_posterior, q.log_prob, LINE) for q in (best, near, moments)}
    assert reverse[best] < min(reverse[near], reverse[moments]) - 0.01
    assert forward[moments] < min(forward[near], forward[best]) - 0.01
    integral = kl_by_quadrature(best.log_prob, sigmoid_posterior, LINE)
    entropy_form = loss().item() - 0.5 * math.log(2 * math.pi * math.e) + LINE.log_integral(sigmoid_posterior(LINE.nodes)).item()
    assert integral == pytest.approx(entropy_form, abs=1e-9)


def test_laplace_of_a_hard_surface() -> None:
    """Rosenbrock's valley: the mode (1, 1), the curvature known, far from the start."""

    def valley(z: Tensor) -> Tensor:
        return -((1 - z[..., 0]).square() + 100 * (z[..., 1] - z[..., 0].square()).square())

    q = laplace(valley, torch.tensor([[-1.2, 1.0], [3.0, -4.0]]))
    torch.testing.assert_close(q.mean, torch.ones(2, 2, dtype=f64), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(q.precision_matrix[0], torch.tensor([[802.0, -400.0], [-400.0, 200.0]], dtype=f64))


def test_laplace_refuses_what_has_no_maximum() -> None:
    def saddle(z: Tensor) -> Tensor:
        return -z[..., 0].square() + z[..., 1].square() - z[..., 1].pow(4)

    with pytest.raises(InputError, match="no maximum: -log p has the curvatures -2, 2, which must all be positive"):
        laplace(saddle, torch.tensor([1.0, 0.0]))
    assert laplace(saddle, torch.tensor([1.0, 1e-3])).mean[1].item() == pytest.approx(0.5**0.5, abs=1e-12)
    for density, start, message in [
        (lambda z: z.sum(-1), torch.zeros(2), "no maximum after|NaN or infinite"),
        (lambda z: z.square().sum(-1), torch.ones(1), "no maximum after|NaN or infinite"),
        (lambda z: -z[..., 0].square(), torch.ones(2), "curvatures 0, 2"),
        (lambda z: -z.abs().sum(-1), torch.ones(1), "no maximum after 200 Newton steps, the largest slope is still 1"),
        (lambda z: z.log().sum(-1), -torch.ones(1), "NaN or infinite at the start"),
        (lambda z: -z.square(), torch.ones(2), r"gave float64 \[2\] .* must give float64 \[\]"),
        (lambda z: -z.float().square().sum(-1), torch.ones(2), "gave float32"),
        (lambda z: torch.zeros(z.shape[:-1], dtype=f64), torch.ones(2), "does not depend on z"),
        (lambda z: -z.square().sum(-1), torch.tensor(1.0), r"give \[\*batch, D\]"),
    ]:
        with pytest.raises(InputError, match=message):
            laplace(density, start)


def test_a_gaussian_family_can_be_full() -> None:
    p = MultivariateNormal(MEAN, COV)
    torch.manual_seed(0)
    family = priors.FullNormal(2).double()
    assert fit_density(family, p.log_prob, steps=600, samples=64, lr=0.05, log_z=0.0).kl < 1e-3
    assert closed_form_kl(family(), p).item() < 1e-3
