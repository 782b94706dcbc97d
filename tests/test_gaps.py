"""Gap anatomy: every part against probabilistic PCA, where it is known, and a model of one latent, where quadrature knows it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal, kl_divergence

from oracles import PPCA, LinearLadder
from vaekit import VAE, Conditional, heads, priors
from vaekit.data.core import Split
from vaekit.dist import DiagGaussian
from vaekit.errors import InputError
from vaekit.evaluate.estimates import LogLikelihood
from vaekit.evaluate.gaps import Gaps, _result, gaps
from vaekit.infer.svi import amortised, log_weights, svi, widened
from vaekit.models import LatentModel
from vaekit.quantise import FSQ, UniformCodes
from vaekit.types import Batch

f64 = torch.float64


class Known:
    """PPCA on x that float32 holds exactly: log p(x), the exact posterior and the exact bound of any Gaussian q, given some entries."""

    def __init__(self, latent: int = 3, data: int = 5, seed: int = 1, mask: Tensor | None = None) -> None:
        torch.manual_seed(seed)  # of x
        self.oracle = PPCA(latent, data, seed)
        self.x = self.oracle.x.float().double()
        self.mask = torch.ones_like(self.x, dtype=torch.bool) if mask is None else mask
        with torch.no_grad():
            self.log_px = torch.stack([self.oracle.evidence(x, m.nonzero().flatten()) for x, m in zip(self.x, self.mask, strict=True)])
        w, inverse = self.oracle.likelihood.weight.detach(), 1 / self.oracle.likelihood.cov.detach().diagonal()
        self.precision = torch.eye(latent, dtype=f64) + torch.einsum("dj,bd,dk->bjk", w, inverse * self.mask, w)
        residual = torch.where(self.mask, self.x - self.oracle.likelihood.bias.detach(), 0.0) * inverse
        self.mean = torch.linalg.solve(self.precision, residual @ w)

    def bound(self, q: Distribution) -> Tensor:
        """L[q] of each example, exactly."""
        q = MultivariateNormal(q.mean, torch.diag_embed(q.variance)) if isinstance(q, DiagGaussian) else q
        return self.log_px - kl_divergence(q, MultivariateNormal(self.mean, precision_matrix=self.precision))

    @property
    def best(self) -> Tensor:
        """L of the best diagonal Gaussian: the exact mean, the variances 1 / precision_ii."""
        return self.log_px - 0.5 * (self.precision.diagonal(dim1=-2, dim2=-1).log().sum(-1) - torch.logdet(self.precision))

    @property
    def batch(self) -> Batch:
        return Batch(self.x, mask=self.mask)

    @property
    def split(self) -> Split:
        return Split(self.x, mask=self.mask, prepare=torch.Tensor.double)


def within(values: Tensor, expected: Tensor, se: Tensor, *, short: float = 0.0, widest: float = 0.05) -> None:
    """Every |z| below 4 and their mean square as standard normal numbers have it. A search may end ``short`` of the best: the value may lie
    so much below the expected one (above it for a negative ``short``) without counting. Errors above ``widest`` would let anything pass.
    """
    off = values - expected
    inside = (off < 0) & (off > -short) if short >= 0 else (off > 0) & (off < -short)
    z = torch.where(inside, 0.0, off + short * (off.sign() == -1.0 if short > 0 else off.sign() == 1.0)) / se
    assert float(z.abs().max()) < 4, z
    assert float(z.square().mean()) < 3, z
    assert float(se.max()) < widest, se


@pytest.fixture(scope="module")
def known() -> Known:
    return Known()


@pytest.fixture(scope="module")
def found(known: Known) -> Gaps:
    return gaps(known.oracle.model(), known.split, samples=20_000, steps=1500, draws=16, richer=heads.FullGaussian(3), seed=3)


SHORT = 0.004
"""Nats by which a search of 1500 steps may end below the best member: checked without noise in the first test."""


def test_the_search_finds_the_best_diagonal_gaussian(known: Known) -> None:
    model = known.oracle.model()
    start = amortised(model, known.batch)
    torch.testing.assert_close(known.bound(start.q), known.oracle.elbo(known.x).detach())  # the encoder's q as numbers is the same q
    assert bool((known.best - known.bound(start.q) > 0.5).all())  # far from the best
    end = svi(model, known.batch, start, steps=1500, samples=16)
    short = known.best - known.bound(end.q)
    assert bool((short > -1e-9).all()) and bool((short < SHORT).all()), short
    assert bool(end.settled.all()) and bool((end.steps < 1500).all()) and len(end.steps.unique()) > 1  # each example by itself
    torch.testing.assert_close(end.q.mean, known.mean, rtol=0, atol=0.05)
    torch.testing.assert_close(end.q.variance, 1 / known.precision.diagonal(dim1=-2, dim2=-1), rtol=0.1, atol=0)


def test_each_part_is_the_known_one(known: Known, found: Gaps) -> None:
    elbo = known.oracle.elbo(known.x).detach()
    within(found.elbo.values, elbo, found.elbo.mc_se)
    within(found.local.values, known.best, found.local.mc_se, short=SHORT)
    within(found.amortisation.values, known.best - elbo, found.amortisation.mc_se, short=SHORT)
    within(found.approximation.values, known.log_px - known.best, found.approximation.mc_se, short=-SHORT)
    within(found.inference.values, known.log_px - elbo, found.inference.mc_se)
    within(found.log_px.values, known.log_px, found.log_px.mc_se.clamp(min=1e-3))
    assert float((known.log_px - known.best).min()) > 0.1  # there is something to find
    for part, exact in ((found.amortisation, known.best - elbo), (found.approximation, known.log_px - known.best)):
        assert abs(part.mean - float(exact.mean())) < 4 * part.mc_error + SHORT < 0.04


def test_a_full_covariance_closes_all_of_it(known: Known, found: Gaps) -> None:
    left = known.log_px - found.richer.values
    assert bool((left.abs() < 0.02).all()), left
    within(found.closed.values, known.log_px - known.best, found.closed.mc_se, short=0.02)


def test_a_flow_closes_most_of_it(known: Known) -> None:
    model = known.oracle.model()
    local = svi(model, known.batch, amortised(model, known.batch), steps=400)
    start = widened(local, heads.TriangularSylvester(3, flows=2))
    same = (log_weights(model, known.batch, q, 100, seed=1) for q in (local, start))
    torch.testing.assert_close(*same)  # it begins as the same q
    end = svi(model, known.batch, start, steps=400)
    bound = log_weights(model, known.batch, end, 2000, seed=1)
    left = known.log_px - bound.mean(0)
    assert bool((left > -4 * bound.std(0) / 2000**0.5).all())
    assert bool((left < 0.3 * (known.log_px - known.best)).all()), left


def test_parts_add_up_for_every_example(found: Gaps) -> None:
    assert torch.equal(found.inference.values, found.approximation.values + found.amortisation.values)
    torch.testing.assert_close(found.inference.values, found.log_px.values - found.elbo.values, rtol=0, atol=1e-12)
    left = found.log_px.values - found.richer.values
    torch.testing.assert_close(found.closed.values + left, found.approximation.values, rtol=0, atol=1e-12)


def test_no_approximation_gap_where_the_posterior_is_diagonal() -> None:
    known = Known(2, 4)
    with torch.no_grad():
        known.oracle.likelihood.weight.copy_(torch.tensor([[1.0, 0.0], [0.5, 0.0], [0.0, 0.7], [0.0, -1.0]], dtype=f64))
        known.log_px, w = known.oracle.evidence(known.x), known.oracle.likelihood.weight
        noise = known.oracle.likelihood.cov.diagonal()
        known.precision = (torch.eye(2, dtype=f64) + (w.mT / noise) @ w).expand(6, 2, 2)
        known.mean = torch.linalg.solve(known.precision, (known.x - known.oracle.likelihood.bias) / noise @ w)
    found = gaps(known.oracle.model(), known.split, samples=10_000, steps=600, draws=16, richer=heads.Planar(2, flows=1))
    assert bool((found.approximation.values.abs() < 0.01).all()), found.approximation.values
    assert bool((found.closed.values.abs() < 0.01).all())
    elbo = known.oracle.elbo(known.x).detach()
    within(found.amortisation.values, known.log_px - elbo, found.amortisation.mc_se, short=0.01, widest=0.1)
    assert "encoder does not find" in found.sentence


def test_an_exact_posterior_leaves_no_gap(known: Known) -> None:
    found = gaps(known.oracle.exact(range(5)), known.split, samples=50, steps=40, richer=heads.Planar(3, flows=1))
    assert torch.equal(found.elbo.values.sub(known.log_px).abs() < 1e-9, torch.ones(6, dtype=torch.bool))  # log w is constant
    assert float(found.inference.values.abs().max()) < 0.01  # and no step is better than none
    assert "No inference gap is seen" in found.sentence


def test_masked_entries_play_no_part() -> None:
    mask = torch.rand(6, 5, generator=torch.Generator().manual_seed(0)) < 0.6
    mask[:, 0] = True
    known = Known(mask=mask)
    broken = torch.where(mask, known.x, torch.full_like(known.x, torch.nan))
    model = known.oracle.model()
    start = amortised(model, Batch(broken, mask=mask))
    end = svi(model, Batch(broken, mask=mask), start, steps=1000, samples=16)
    short = known.best - known.bound(end.q)
    assert bool((short > -1e-9).all()) and bool((short < 0.01).all()), short


class Curved(nn.Module):
    """p(x | z) = N((z^2 - 1, z), 0.5^2): one latent with a posterior that is no Gaussian."""

    def forward(self, z: Tensor) -> Distribution:
        return DiagGaussian(torch.cat([z.square() - 1, z], -1), torch.full((2,), 0.5, dtype=z.dtype).log())


def curved_bound(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """L[N(mean, scale^2)] by the trapezoid rule in units of q, ``[B]``."""
    u = torch.linspace(-9, 9, 721, dtype=f64).unsqueeze(-1)
    q = torch.exp(Normal(torch.zeros((), dtype=f64), 1.0).log_prob(u)) * 18 / 720
    z = mean + log_scale.exp() * u
    log_joint = Normal(torch.zeros((), dtype=f64), 1.0).log_prob(z) + Curved()(z.unsqueeze(-1)).log_prob(x)
    return (q * log_joint).sum(0) + log_scale + 0.5 * torch.log(torch.tensor(2 * torch.pi * torch.e))


def test_one_latent_against_quadrature() -> None:
    torch.manual_seed(1)
    x = torch.tensor([[-0.4, 0.2], [-0.8, 0.1], [-0.6, -0.3], [-0.9, 0.5], [0.5, 0.3]], dtype=f64).float().double()
    model = VAE(priors.StandardNormal(1), Conditional(nn.Linear(2, 2), heads.Gaussian(1)), Curved()).double()
    with torch.no_grad():
        model.posterior.net.weight.copy_(torch.tensor([[0.1, 0.9], [0.0, 0.0]]))
        model.posterior.net.bias.copy_(torch.tensor([0.0, -2.0]))
    z = torch.linspace(-8, 8, 4001, dtype=f64).unsqueeze(-1)
    joint = Normal(torch.zeros((), dtype=f64), 1.0).log_prob(z) + Curved()(z.unsqueeze(-1)).log_prob(x)
    log_px = torch.logsumexp(joint, 0) + torch.log(torch.tensor(16 / 4000, dtype=f64))
    q = model.posterior(x)
    elbo = curved_bound(x, q.mean[:, 0], q.log_scale[:, 0]).detach()
    # the best Gaussian: every start is climbed, the bound has more than one top
    mean = torch.tensor([-1.2, -0.5, 0.0, 0.5, 1.2], dtype=f64).repeat_interleave(5).requires_grad_()
    scale = torch.full((25,), -1.0, dtype=f64, requires_grad=True)
    optimiser = torch.optim.LBFGS([mean, scale], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = -curved_bound(x.repeat(5, 1), mean, scale).sum()
        value.backward()
        return value

    optimiser.step(loss)
    tops = curved_bound(x.repeat(5, 1), mean, scale).detach().view(5, 5)
    found = gaps(model, Split(x, prepare=torch.Tensor.double), samples=10_000, steps=600, draws=16, richer=heads.Radial(1, flows=3))
    within(found.elbo.values, elbo, found.elbo.mc_se)
    nearest = tops.gather(0, (tops - found.local.values).abs().argmin(0, keepdim=True))[0]  # a local search ends at one of the tops
    within(found.local.values, nearest, found.local.mc_se, short=0.005)
    one = slice(4)  # posteriors with one mode
    within(found.log_px.values[one], log_px[one], found.log_px.mc_se[one])
    within(found.approximation.values[one], (log_px - nearest)[one], found.approximation.mc_se[one], short=-0.005)
    assert float((log_px - nearest)[one].mean()) > 0.02
    assert bool((found.richer.values < log_px + 4 * found.richer.mc_se).all())
    assert float(found.closed.values[one].sum() / found.approximation.values[one].sum()) > 0.25
    # two modes: q sits on one of them, and so do its samples; the estimate of log p(x) lies low, and is not believed
    assert float(log_px[4] - nearest[4]) > 0.1 and float(found.log_px.values[4] - log_px[4]) < 0.05
    assert "For 1 of 5 examples the largest weights have a Pareto tail" in " ".join(found.doubts)


class Mode(nn.Module):
    """A network that is random in training mode and counts the passes it sees in it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.trained = net, 0

    def forward(self, z: Tensor) -> Tensor:
        self.trained += self.training
        return torch.nn.functional.dropout(self.net(z), 0.5, self.training)


def small(head: heads.Head | None = None) -> LatentModel:
    torch.manual_seed(0)
    q = heads.Gaussian(2) if head is None else head
    decoder = Conditional(Mode(nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 6))), heads.Bernoulli(6))
    return VAE(priors.StandardNormal(2), Conditional(nn.Linear(6, q.features), q), decoder)


def data(n: int = 5) -> Split:
    return Split((torch.rand(n, 6, generator=torch.Generator().manual_seed(1)) < 0.5).float())


def test_nothing_is_left_behind() -> None:
    model = small()
    model.train()
    model.likelihood.head.eval()
    modes = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    next(model.parameters()).grad = marked = torch.ones_like(next(model.parameters()))
    state = torch.get_rng_state()
    first = gaps(model, data(), samples=20, steps=20)
    assert torch.equal(torch.get_rng_state(), state)
    assert modes == [module.training for module in model.modules()] and model.likelihood.net.trained == 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    grads = [parameter.grad for parameter in model.parameters()]
    assert grads[0] is marked and bool((marked == 1).all()) and not any(g is not None for g in grads[1:])
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert not first.estimates.requires_grad
    torch.manual_seed(99)
    assert torch.equal(gaps(model, data(), samples=20, steps=20).estimates, first.estimates)  # the seed alone decides
    assert not torch.equal(gaps(model, data(), samples=20, steps=20, seed=1).estimates, first.estimates)
    end = svi(model, Batch(data().x), amortised(model, Batch(data().x)), steps=3)
    state = torch.get_rng_state()
    log_weights(model.eval(), Batch(data().x), end, 3, seed=0)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_search_leaves_the_mode() -> None:
    model = small().train()
    modes = [module.training for module in model.modules()]
    svi(model, Batch(data().x), amortised(model, Batch(data().x)), steps=3)
    assert modes == [module.training for module in model.modules()] and model.likelihood.net.trained == 0


def test_batches_do_not_matter_beyond_noise() -> None:
    model = small()
    kwargs = {"samples": 4000, "steps": 300, "richer": heads.FullGaussian(2)}
    joint, apart = gaps(model, data(), **kwargs), gaps(model, data(), batch_size=2, **kwargs)
    for name in ("elbo", "amortisation", "approximation", "closed"):
        a, b = getattr(joint, name), getattr(apart, name)
        allowed = 4 * (a.mc_se.square() + b.mc_se.square()).sqrt() + (0.0 if name == "elbo" else 0.02)
        assert bool(((a.values - b.values).abs() < allowed).all()) and float(allowed.max()) < 0.15, name


def test_every_head_can_be_searched() -> None:
    batch = Batch(data().x)
    for head in (
        heads.FullGaussian(2),
        heads.MixtureGaussian(2, 2),
        heads.Planar(2, flows=2),
        heads.IAF(2, flows=2, hidden=(8,), context=3),
        heads.GaussianShared(2, scale=0.5),
    ):
        model = small(head)
        start = amortised(model, batch)
        torch.testing.assert_close(start.q.log_prob(torch.zeros(2)), model.posterior(batch.x).log_prob(torch.zeros(2)))
        end = svi(model, batch, start, steps=150)
        before, after = (log_weights(model, batch, local, 500, seed=2) for local in (start, end))
        gain = after - before
        assert bool((gain.mean(0) >= -3 * gain.std(0) / 500**0.5).all()), head
        assert float(gain.mean()) > 0.02, head
        wider = widened(end, heads.Radial(2, flows=1))
        torch.testing.assert_close(log_weights(model, batch, wider, 500, seed=2), after, rtol=0, atol=1e-4)


def test_latents_of_any_shape() -> None:
    torch.manual_seed(0)
    q, px = heads.Gaussian((2, 1, 2)), heads.Bernoulli(6)
    decoder = Conditional(nn.Sequential(nn.Flatten(), nn.Linear(4, 6)), px, event_dim=3)
    model = VAE(priors.StandardNormal((2, 1, 2)), Conditional(nn.Linear(6, q.features), q), decoder)
    for head in (None, heads.FullGaussian(4)):
        found = gaps(model, data(3), samples=200, steps=60, richer=head)
        assert found.estimates.shape == (4, 3) and bool((found.richer.values > found.elbo.values).all())


def test_a_posterior_without_a_head() -> None:
    class Torch(nn.Module):
        def forward(self, x: Tensor) -> Distribution:
            return Independent(Normal(x[:, :2], 0.5 + x[:, 2:4]), 1)

    model = VAE(priors.StandardNormal(2), Torch(), small().likelihood)
    start = amortised(model, Batch(data().x))
    q = Torch()(data().x)
    torch.testing.assert_close((start.q.mean, start.q.variance), (q.mean, q.variance))
    exact = Known(2, 4, seed=0)
    full = amortised(exact.oracle.exact(), exact.batch).q
    torch.testing.assert_close(full.covariance_matrix, torch.linalg.inv(exact.precision))


def test_log_px_that_is_given(known: Known) -> None:
    own = gaps(known.oracle.model(), known.split, samples=200, steps=50)
    nan = torch.full((6,), torch.nan, dtype=f64)
    se = torch.full((6,), 0.3, dtype=f64)
    given = LogLikelihood("ais", 16, known.log_px, se, nan, nan, nan, 0)
    found = gaps(known.oracle.model(), known.split, samples=200, steps=50, log_likelihood=given)
    assert torch.equal(found.log_px.values, known.log_px) and found.log_likelihood is given
    assert torch.equal(found.amortisation.values, own.amortisation.values)
    assert torch.equal(found.amortisation.mc_se, own.amortisation.mc_se)
    torch.testing.assert_close(found.inference.mc_se, (se.square() + found.elbo.mc_se.square()).sqrt())


def test_monte_carlo_errors_are_honest() -> None:
    """2000 examples with log-weights of one distribution, correlated between the three q: the parts spread as their errors say (to 2%)."""
    k, n = 500, 2000
    common, own = torch.randn(k, n, dtype=f64), torch.randn(3, k, n, dtype=f64)
    log_w = torch.stack([common + 0.3 * own[0] - 5, 0.8 * common + 0.3 * own[1] - 3, 0.6 * common + 0.2 * own[2] - 2])
    found = _result(log_w, torch.ones(n), torch.ones(n, dtype=torch.bool), None, 0)
    for name in ("elbo", "local", "richer", "log_px", "amortisation", "approximation", "closed", "inference"):
        part = getattr(found, name)
        ratio = float(part.values.std() / part.mc_se.square().mean().sqrt())
        assert abs(ratio - 1) < 0.06, (name, ratio)
    assert float(found.amortisation.mc_se.mean()) < 0.6 * float(found.elbo.mc_se.mean())  # the shared part has gone
    torch.testing.assert_close(found.log_px.mc_se, found.log_likelihood.mc_se)


def gaps_of(estimates: list[float], se: float = 0.01) -> Gaps:
    nan = torch.full((4,), torch.nan, dtype=f64)
    table = torch.tensor(estimates, dtype=f64).unsqueeze(-1).expand(4, 4)
    covariance = se**2 * torch.eye(4, dtype=f64).expand(4, 4, 4)
    likelihood = LogLikelihood("elbo", 10, table[3], nan, nan, nan, nan, 0)
    return Gaps(table, covariance, likelihood, torch.ones(4, dtype=torch.bool))


def test_sentences() -> None:
    encoder = gaps_of([-10, -6, -5.5, -5]).sentence
    assert "lies 5.00 nats below log p(x) (amortisation 4.00, approximation 1.00, of which a richer q closes 0.50), most of it " in encoder
    assert "encoder does not find the best q" in encoder
    assert "too narrow: a richer posterior, such as a flow, usually helps" in gaps_of([-10, -9, -6, -5]).sentence
    assert "richer still" in gaps_of([-10, -9, -8.5, -5]).sentence
    assert "about as much" in gaps_of([-10, -7.5, -6, -5]).sentence
    assert "No inference gap" in gaps_of([-5, -5, -5, -5.0]).sentence
    assert gaps_of([-10, -9, -6, -5]).doubts == []
    assert "failed there" in gaps_of([-9, -10, -6, -5]).doubts[0]
    short = gaps(small(), data(), samples=20, steps=5)
    assert "still rose when the steps ran out" in str(short)
    assert short.as_dict()["inference"]["mean"] == short.inference.mean
    assert gaps(small(), data(1), samples=1, steps=1).as_dict()["elbo"]["se"] is None


def discrete() -> LatentModel:
    px = Conditional(nn.Linear(2, 6), heads.Bernoulli(6))
    return VAE(priors.Bernoulli(2), Conditional(nn.Linear(6, 2), heads.Bernoulli(2)), px)


def quantised() -> LatentModel:
    codes = FSQ((3, 3))
    return VAE(UniformCodes(codes, ()), Conditional(nn.Linear(6, 2), heads.Quantised(codes, ())), small().likelihood)


def ladder() -> LatentModel:
    return LinearLadder().model().float()


class Odd(nn.Module):
    def forward(self, x: Tensor) -> Distribution:
        return Independent(torch.distributions.Laplace(x[:, :2], 1.0), 1)


REFUSED = {
    "no samples": ({"samples": 0}, small, r"gaps\(samples=0\): at least 1"),
    "no steps": ({"steps": 0}, small, r"gaps\(steps=0\): at least 1"),
    "no draws": ({"draws": 0}, small, r"gaps\(draws=0\): at least 1"),
    "empty batches": ({"batch_size": 0}, small, r"gaps\(batch_size=0\)"),
    "a point": ({}, lambda: small(heads.Point(2)), "q.z . x. is a point and has no density.*reconstruction"),
    "a quantiser": ({}, quantised, "certain of one code.*reconstruction"),
    "discrete latents": ({}, discrete, r"Bernoulli has no reparameterised sample.*takes continuous latents"),
    "several levels": ({}, ladder, "a model of 2 levels.*use a flat model"),
    "an unknown posterior": ({}, lambda: VAE(priors.StandardNormal(2), Odd(), small().likelihood), r"Independent\(Laplace\).*Conditional"),
    "a head of another size": ({"richer": heads.Planar(3, flows=1)}, small, r"Planar\(3\): the model has 2 latent numbers"),
    "shared weights": ({"richer": heads.IAF(2, flows=1, hidden=(4,), context=1)}, small, "by IAF: give a head whose every number"),
    "no flow": ({"richer": heads.Gaussian(2)}, small, "by Gaussian: give a head"),
    "full on a flow": ({"richer": heads.FullGaussian(2)}, lambda: small(heads.Planar(2, flows=1)), "diagonal Gaussians, not q = Flow"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_in_one_line(case: str) -> None:
    change, model, match = REFUSED[case]
    x = Split(torch.rand(3, 4)) if case == "several levels" else data(3)
    with pytest.raises(InputError, match=match) as error:
        gaps(model(), x, **change)
    assert "\n" not in str(error.value)


def test_refusals_of_the_search() -> None:
    model, batch = small(), Batch(data(3).x)
    start = amortised(model, batch)
    for change, match in (({"steps": 0}, r"svi\(steps=0"), ({"samples": 0}, "samples=0"), ({"lr": 0.0}, r"svi\(lr=0.0\)")):
        with pytest.raises(InputError, match=match):
            svi(model, batch, start, **change)
    with pytest.raises(InputError, match=r"log_weights\(k=0"):
        log_weights(model, batch, start, 0, seed=0)
    with torch.inference_mode(), pytest.raises(InputError, match="inference_mode"):
        svi(model, batch, start)
    with pytest.raises(InputError, match="log p.x. of 2 examples was given and the split has 3"):
        nan = torch.zeros(2)
        gaps(model, data(3), log_likelihood=LogLikelihood("ais", 1, nan, nan, nan, nan, nan, 0))
