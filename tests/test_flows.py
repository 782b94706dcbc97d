"""Amortised flows: log-determinants against autograd, inverses, derivatives, the published formulas, fits to known densities."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, StudentT
from zuko.distributions import NormalizingFlow

from oracles import z_score
from tables import POSTERIORS, legendre
from vaekit import dist, heads, priors
from vaekit.conditional import Conditional, Learned
from vaekit.data.densities import energy, log_normaliser
from vaekit.errors import InputError
from vaekit.infer.fit import fit_density
from vaekit.models import VAE
from vaekit.objectives import ELBO
from vaekit.types import Batch

f64 = torch.float64
D = 4


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=f64)


def triangular(n: int, size: float, m: int = D) -> dist.Triangular:
    return dist.Triangular(size * randn(n, m, m), size * randn(n, m, m), randn(n, m))


# n sets of parameters; `size` is the scale of those that a constraint is put on.
TRANSFORMS: dict[str, Callable[[int, float], dist.Invertible]] = {
    "planar": lambda n, size: dist.Planar(randn(n, D), size * randn(n, D), randn(n)),
    "radial": lambda n, size: dist.Radial(randn(n, D), randn(n), size * randn(n)),
    "householder": lambda n, size: dist.Householder(size * randn(n, D)),
    "reversal": lambda n, size: dist.Reversal(),
    "triangular": triangular,
    "sylvester_1": lambda n, size: dist.Sylvester(dist.orthonormal(randn(n, D, 1)), triangular(n, size, 1)),
    "sylvester_3": lambda n, size: dist.Sylvester(dist.orthonormal(randn(n, D, 3)), triangular(n, size, 3)),
    "sylvester_4": lambda n, size: dist.Sylvester(dist.orthonormal(randn(n, D, D)), triangular(n, size)),
}
transforms = pytest.mark.parametrize("make", TRANSFORMS.values(), ids=TRANSFORMS)
FLOWS = [name for name in POSTERIORS if isinstance(POSTERIORS[name](6, 2).head, heads.FlowHead | heads.IAF)]


@transforms
@pytest.mark.parametrize("size", [1.0, 4.0])
def test_log_determinant_is_autograd_s(make: Callable[[int, float], dist.Invertible], size: float) -> None:
    f, z = make(40, size), randn(40, D)
    y, log_det = f.forward(z)
    jacobian = torch.autograd.functional.jacobian(lambda v: f.forward(v)[0].sum(0), z).movedim(1, 0)
    assert y.shape == z.shape and log_det.shape == (40,)
    torch.testing.assert_close(log_det, torch.linalg.slogdet(jacobian)[1], atol=1e-9, rtol=1e-9)


@transforms
def test_inverse_undoes_forward(make: Callable[[int, float], dist.Invertible]) -> None:
    f, z = make(50, 1.0), 2 * randn(20, 50, D)
    torch.testing.assert_close(f.inverse(f.forward(z)[0]), z, atol=1e-8, rtol=0)
    far = 30 * randn(20, 50, D)
    torch.testing.assert_close(f.forward(f.inverse(far))[0], far, atol=1e-8, rtol=0)


@transforms
def test_at_the_border_of_the_constraints_it_is_still_one_to_one(make: Callable[[int, float], dist.Invertible]) -> None:
    """Numbers about 10: 1 + w . u, alpha + beta and 1 + r r~ come down to 1e-10, where z to 8 digits is more than y in float64 holds."""
    f, z = make(50, 10.0), randn(20, 50, D)
    y, log_det = f.forward(z)
    assert log_det.isfinite().all()
    scale = 1 + y.abs().amax()
    assert ((f.forward(f.inverse(y))[0] - y).abs() / scale).max() < 1e-9


@pytest.mark.parametrize("wu", [-1 + 1e-9, -0.5, 0.0, 1.0, 300.0])
def test_planar_inverse_for_every_strength(wu: float) -> None:
    """Around the flattest point too, where y' = 1 + w . u: |dx| <= rounding / y'."""
    t = torch.linspace(-4, 4, 801, dtype=f64).unsqueeze(-1)
    wanted = torch.tensor([wu], dtype=f64)
    f = dist.Planar(torch.ones(1, dtype=f64), torch.log(torch.expm1(wanted + 1)) - math.log(math.e - 1), torch.tensor(0.0, dtype=f64))
    torch.testing.assert_close(f.u, wanted, atol=1e-13, rtol=1e-13)
    x = f.inverse(t)
    assert (x.diff(dim=0) > 0).all()
    torch.testing.assert_close(x + wu * torch.tanh(x), t, atol=1e-12, rtol=1e-12)


# --- the published formulas, written as they stand -----------------------------------------------------------------------------------


def test_planar_is_the_paper_s() -> None:
    w, u, b, z = randn(9, D), randn(9, D), randn(9), randn(9, D)
    f = dist.Planar(w, u, b)
    for i in range(9):
        wu = w[i] @ u[i]
        m = -1 + torch.log1p((math.e - 1) * torch.exp(wu))
        u_hat = u[i] + (m - wu) * w[i] / (w[i] @ w[i])
        assert w[i] @ u_hat > -1
        torch.testing.assert_close(f.forward(z)[0][i], z[i] + u_hat * torch.tanh(w[i] @ z[i] + b[i]))
        psi = (1 - torch.tanh(w[i] @ z[i] + b[i]) ** 2) * w[i]
        torch.testing.assert_close(f.forward(z)[1][i], torch.log(abs(1 + u_hat @ psi)))


def test_radial_is_the_paper_s() -> None:
    at, a, g, z = randn(9, D), randn(9), randn(9), randn(9, D)
    alpha = torch.log1p((math.e - 1) * torch.exp(a))
    beta = alpha * (torch.log1p((math.e - 1) * torch.exp(g)) - 1)
    r = (z - at).norm(dim=-1)
    h = 1 / (alpha + r)
    y, log_det = dist.Radial(at, a, g).forward(z)
    torch.testing.assert_close(y, z + (beta * h).unsqueeze(-1) * (z - at))
    torch.testing.assert_close(log_det, (D - 1) * torch.log(1 + beta * h) + torch.log(1 + beta * h - beta * h**2 * r))


def test_sylvester_is_the_paper_s() -> None:
    q, r, r_tilde, b, z = dist.orthonormal(randn(9, D, 3)), randn(9, 3, 3), randn(9, 3, 3), randn(9, 3), randn(9, D)
    y, log_det = dist.Sylvester(q, dist.Triangular(r, r_tilde, b)).forward(z)
    torch.testing.assert_close(q.mT @ q, torch.eye(3, dtype=f64).expand(9, 3, 3))
    for i in range(9):
        upper, upper_tilde = (m[i].triu(1) + m[i].diagonal().tanh().diag() for m in (r, r_tilde))
        a = upper_tilde @ q[i].mT @ z[i] + b[i]
        torch.testing.assert_close(y[i], z[i] + q[i] @ upper @ torch.tanh(a))
        small = torch.eye(3, dtype=f64) + (1 - torch.tanh(a) ** 2).diag() @ upper_tilde @ upper  # |I_D + A B| = |I_M + B A|
        torch.testing.assert_close(log_det[i], torch.linalg.slogdet(small)[1])


def test_householder_is_a_reflection() -> None:
    v = randn(D)
    matrix = dist.Householder(v).forward(torch.eye(D, dtype=f64))[0]
    torch.testing.assert_close(matrix, torch.eye(D, dtype=f64) - 2 * torch.outer(v, v) / (v @ v))
    torch.testing.assert_close(torch.linalg.det(matrix), torch.tensor(-1.0, dtype=f64))
    torch.testing.assert_close(dist.Householder(torch.zeros(D)).forward(torch.ones(D))[0], torch.ones(D))


def test_householder_posterior_is_a_gaussian_with_a_full_covariance() -> None:
    head = heads.Householder(3, flows=2).double()
    h, z = randn(7, head.features), randn(7, 3)
    q = head(h)
    for i in range(7):
        eye = torch.eye(3, dtype=f64)
        first, second = (eye - 2 * torch.outer(v, v) / (v @ v) for v in (h[i, 6:9] + eye[0], h[i, 9:] + eye[0]))
        factor = second @ first @ (0.5 * h[i, 3:6]).exp().diag()
        exact = MultivariateNormal(second @ first @ h[i, :3], factor @ factor.mT)
        torch.testing.assert_close(q.log_prob(z)[i], exact.log_prob(z[i]))


def test_orthonormal_columns_are_smooth_where_lapack_s_change_their_sign() -> None:
    path = torch.stack([torch.tensor([[e, 0.3], [1.0, 0.2], [0.5, -2.0]], dtype=f64) for e in (-1e-6, 1e-6)])
    q = dist.orthonormal(path)
    torch.testing.assert_close(q[0], q[1], atol=1e-5, rtol=0)
    assert torch.autograd.gradcheck(dist.orthonormal, randn(2, 4, 3).requires_grad_())


# --- distributions ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FLOWS)
def test_density_of_an_outside_point_has_exact_derivatives(name: str) -> None:
    """In the point and in every parameter that the network gives, for several samples, two examples."""
    head = POSTERIORS[name](6, 2).head.double()
    h, z = (0.7 * randn(2, head.features)).requires_grad_(), (1.5 * randn(3, 2, 2)).requires_grad_()
    assert torch.autograd.gradcheck(lambda h, z: head(h).log_prob(z), (h, z), atol=1e-6)


@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_s_shapes_centre_and_temperature(name: str) -> None:
    head = POSTERIORS[name](6, 2).head.double()
    q = head(0.7 * randn(5, head.features))
    wide = q.expand((3, 5))
    z, log_q = dist.draw(wide, torch.Size((7,)))
    assert z.shape == (7, 3, 5, 2) and log_q.shape == wide.log_prob(z).shape == (7, 3, 5)
    assert q.sample((7,)).shape == (7, 5, 2) and not q.sample().requires_grad
    still = dist.tempered(q, 0.0).sample((2,))
    torch.testing.assert_close(still, dist.centre(q).expand(2, -1, -1))
    torch.testing.assert_close(dist.tempered(q, 1.0).log_prob(z), q.log_prob(z))


@pytest.mark.parametrize("name", FLOWS)
def test_heads_start_as_a_gaussian_and_every_number_moves_them(name: str) -> None:
    head = {"iaf_head": heads.IAF(3, flows=2, hidden=(8,), context=4)}.get(name, POSTERIORS[name](6, 3).head).double()
    h = torch.zeros(1, head.features, dtype=f64)
    z = randn(50, 1, 3)
    torch.testing.assert_close(head(h).log_prob(z), priors.StandardNormal(3).double()().log_prob(z))
    h = (h + 0.3 * torch.randn_like(h)).requires_grad_()
    x, log_q = dist.draw(head(h), torch.Size((50,)))
    (grad,) = torch.autograd.grad((x.sin().prod(-1) + log_q).sum(), h)
    assert grad.isfinite().all()
    if not isinstance(head, heads.IAF):  # its last layers start at 0, so that the context does not count yet
        assert (grad != 0).all()


def test_householder_sylvester_has_its_reflections_product_as_q() -> None:
    head = heads.HouseholderSylvester(3, flows=1, reflections=2).double()
    h, z = randn(1, head.features), randn(5, 1, 3)
    first, second, rest = h[0, 6:].split([3, 3, 15])
    eye = torch.eye(3, dtype=f64)
    h1, h2 = (eye - 2 * torch.outer(v, v) / (v @ v) for v in (first + eye[0], second + eye[1]))
    q = h1 @ h2
    matrix, diagonal, b = rest.split([9, 3, 3])
    matrix = matrix.view(3, 3)
    inside = dist.Triangular(matrix, matrix.mT.triu(1) + torch.diag(1 + diagonal), b)
    wanted = dist.Sylvester(q, inside).forward(z)
    got = head(h)
    torch.testing.assert_close(got.push(z), wanted)


def test_iaf_is_autoregressive_and_sees_its_context() -> None:
    """dz_T / dz_0 of each step is triangular, in opposite orders; a sample takes one pass through each network, a density D."""
    head = POSTERIORS["iaf_head"](6, 4).head.double()
    q = head(randn(head.features))
    assert isinstance(q, NormalizingFlow)
    steps = list(reversed(head.transform(randn(3)).transforms))
    for order, step in enumerate(steps):
        jacobian = torch.autograd.functional.jacobian(step, randn(4))
        other = jacobian.triu(1) if order == 1 else jacobian.tril(-1)
        assert (other == 0).all() and (jacobian != 0).sum() == 10
    passes: list[int] = []
    for step in head.transform.transforms:
        step.hyper.register_forward_hook(lambda *_: passes.append(1))
    z, _ = dist.draw(q, torch.Size((3,)))
    assert len(passes) == 2
    q.log_prob(z)
    assert len(passes) >= 2 + 2 * 4
    h = randn(head.features)
    moved = h.clone()
    moved[-1] += 1
    z = randn(4)
    assert not torch.equal(head(h).log_prob(z), head(moved).log_prob(z))


class Sink(dist.Transform):
    """Adds a cube of the first coordinate to the second, and does not tell how to undo it."""

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return z + torch.stack([torch.zeros_like(z[..., 0]), z[..., 0] ** 3], -1), z.new_zeros(z.shape[:-1])


class Sunk(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> dist.Flow:
        base = heads.Gaussian(2)(self.net(x))
        return dist.Flow(base, [Sink()])


def test_a_flow_without_inverse_trains_and_refuses_outside_points() -> None:
    model = VAE(priors.StandardNormal(2), Sunk(), Conditional(nn.Linear(2, 6), heads.Bernoulli(6)))
    batch = Batch(torch.randint(2, (8, 6)).float())
    loss = ELBO(3)(model, batch)
    loss.surrogate.mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    refused = r"a flow with no inverse \(Sink\) was asked for the density of an outside point"
    for ask in (
        lambda: model.score(batch, torch.zeros(1, 8, 2)),
        lambda: model.infer(batch, reparam=False),
        lambda: model.embed(batch),
        lambda: model.dream(3),
    ):
        with pytest.raises(InputError, match=refused):
            ask()


def test_flow_posteriors_compile_to_one_graph() -> None:
    for name in ("planar", "orthogonal_sylvester"):
        model = VAE(priors.StandardNormal(2), POSTERIORS[name](6, 2), Conditional(nn.Linear(2, 6), heads.Bernoulli(6)))
        batch = Batch(torch.ones(4, 6))
        torch._dynamo.reset()
        torch.manual_seed(0)
        compiled = torch.compile(ELBO(2), fullgraph=True, backend="eager")(model, batch).surrogate
        torch.manual_seed(0)
        torch.testing.assert_close(compiled, ELBO(2)(model, batch).surrogate)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: heads.Planar(2, flows=0), r"Planar\(flows=0\): at least 1"),
        (lambda: heads.Radial(2, flows=0), r"Radial\(flows=0\)"),
        (lambda: heads.Householder(2, flows=0), r"Householder\(flows=0\)"),
        (lambda: heads.OrthogonalSylvester(2, flows=1, columns=3), r"OrthogonalSylvester\(columns=3\): Q has from 1 to 2 orthonormal"),
        (lambda: heads.HouseholderSylvester(2, flows=1, reflections=0), r"HouseholderSylvester\(reflections=0\)"),
        (lambda: heads.TriangularSylvester(2, flows=-1), r"TriangularSylvester\(flows=-1\)"),
        (lambda: heads.IAF(2, flows=0, hidden=(8,), context=1), r"IAF\(flows=0\)"),
        (lambda: heads.IAF(2, flows=1, hidden=(8,), context=0), r"IAF\(context=0\)"),
        (lambda: heads.Planar(0, flows=1), r"event shape \(0,\) has an empty dimension"),
        (lambda: dist.Flow(StudentT(torch.ones(3)), []), r"StudentT has events \[\], and a flow takes vectors"),
        (lambda: energy(5), r"energy\(5\): the four"),
        (lambda: fit_density(priors.StandardNormal(2), energy(1)[0]), r"StandardNormal has no parameters to fit"),
        (lambda: fit_density(priors.DiagNormal(2), energy(1)[0], steps=0), r"steps=0"),
        (lambda: fit_density(priors.DiagNormal(2), lambda z: z), r"shape \[256, 2\]; it must be \[256\]"),
        (lambda: fit_density(priors.DiagNormal(2), lambda z: z.sum(-1).log()), "not finite at a sample"),
    ],
)
def test_wrong_arguments_are_told(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


# --- fits to known densities ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_energies_have_mass_one(number: int) -> None:
    """By Gauss-Legendre quadrature in cells of width 1/2, which has nothing in common with the trapezoid rule behind log Z."""
    log_p, log_z = energy(number)
    x, log_w = legendre(16)
    line = (torch.arange(-7, 7, 0.5, dtype=f64).unsqueeze(-1) + 0.5 * x).flatten()
    weight = (0.5 * log_w.exp()).repeat(28)
    mass = (log_p(torch.cartesian_prod(line, line)) - log_z).exp().view(len(line), -1)
    assert (weight @ mass @ weight).item() == pytest.approx(1, abs=1e-6)


def test_energies_are_the_published_ones() -> None:
    x, y = 0.7, -0.4
    w1, w2, w3 = math.sin(2 * math.pi * x / 4), 3 * math.exp(-0.5 * ((x - 1) / 0.6) ** 2), 3 / (1 + math.exp(-(x - 1) / 0.3))

    def e(v: float, s: float) -> float:
        return math.exp(-0.5 * (v / s) ** 2)

    u = [
        0.5 * ((math.hypot(x, y) - 2) / 0.4) ** 2 - math.log(e(x - 2, 0.6) + e(x + 2, 0.6)),
        0.5 * ((y - w1) / 0.4) ** 2,
        -math.log(e(y - w1, 0.35) + e(y - w1 + w2, 0.35)),
        -math.log(e(y - w1, 0.4) + e(y - w1 + w3, 0.35)),
    ]
    for number in range(1, 5):
        got = energy(number)[0](torch.tensor([x, y], dtype=f64))
        assert got.item() == pytest.approx(-u[number - 1], rel=1e-12)
    assert log_normaliser(lambda z: torch.zeros_like(z[..., 0]), half_width=2.0, n=5) == pytest.approx(math.log(25.0))


def test_fit_density_finds_the_best_member_of_a_family() -> None:
    """A correlated Gaussian of correlation r by a diagonal one: variances 1 - r^2 and KL = -log(1 - r^2) / 2, as known in closed form."""
    r = 0.8
    target = MultivariateNormal(torch.zeros(2), torch.tensor([[1.0, r], [r, 1.0]]))

    def unnormalised(z: Tensor) -> Tensor:
        return target.log_prob(z) + 3.0

    family = priors.DiagNormal(2)
    result = fit_density(family, unnormalised, steps=400, lr=0.05, log_z=3.0)
    torch.testing.assert_close((2 * family.log_scale).exp().detach(), torch.full((2,), 1 - r * r), atol=0.03, rtol=0)
    assert abs(result.kl - -0.5 * math.log(1 - r * r)) < 4 * result.se + 2e-3 and 0 < result.se < 0.02
    assert len(result.history) == 400 and sum(result.history[-20:]) / 20 < result.history[0]
    full = priors.FullNormal(2)
    exact = fit_density(full, unnormalised, steps=400, lr=0.05)
    assert abs(exact.kl) < 1e-3 and exact.log_z == pytest.approx(3.0, abs=0.01)


def test_estimated_divergence_has_the_stated_error() -> None:
    """The estimate that shares its samples with log Z, over 60 draws of q: its spread, known to 9%, is its standard error."""
    family = Learned(heads.Gaussian(1))
    with torch.no_grad():
        family.h.copy_(torch.tensor([0.3, 0.2]))
    log_p = priors.StandardNormal(1)().log_prob
    runs = [fit_density(family, log_p, steps=1, samples=1, lr=0.0) for _ in range(60)]
    kls = torch.tensor([run.kl for run in runs], dtype=f64)
    se = torch.tensor([run.se for run in runs], dtype=f64).mean()
    variance = math.exp(0.2)
    exact = 0.5 * (variance + 0.09 - 1 - 0.2)
    assert z_score(kls, exact).abs() < 4.5 and (kls.std() / se - 1).abs() < 0.35


def test_planar_flows_bend_a_gaussian_onto_the_ring() -> None:
    """Energy 1 has two modes on a ring: the best Gaussian stays more than half a nat away, eight planar flows come closer by far."""
    log_p, log_z = energy(1)
    gaussian = fit_density(priors.FullNormal(2), log_p, steps=250, lr=0.03, log_z=log_z)
    flow = fit_density(Learned(heads.Planar(2, flows=8)), log_p, steps=300, samples=128, lr=0.03, log_z=log_z)
    assert gaussian.kl > 0.5 and flow.kl < 0.5 * gaussian.kl, (gaussian.kl, flow.kl)
