"""Each figure of a diagnosis against a known answer, and each fault, put in on purpose, named by a finding that a healthy model lacks."""

from __future__ import annotations

import itertools
import json
import math
import re
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, Laplace, MultivariateNormal, Normal, StudentT

from oracles import PPCA, LinearLadder, z_score
from vaekit import ELBO, VAE, Conditional, Training, data, fit, heads, priors
from vaekit.data.core import DataSet, Split
from vaekit.dist import Bernoulli, ContinuousBernoulli, DiagGaussian, DiscretisedLogistic, Flow, Transform
from vaekit.errors import InputError
from vaekit.evaluate import Diagnosis, advise, aggregate, diagnose, evaluate, latents, residuals
from vaekit.evaluate.aggregate import bhattacharyya, cross_log_prob, mss, mws
from vaekit.evaluate.calibration import Intervals, place
from vaekit.evaluate.codes import usage
from vaekit.models import LatentModel
from vaekit.nn import Layer, mlp
from vaekit.objectives import Beta, Linear
from vaekit.quantise import Codebook, UniformCodes
from vaekit.train.collapse import collapsed, warn_of_collapse
from vaekit.types import Batch
from vaekit.viz import information, intervals, rate_distortion

PRIOR = DiagGaussian(torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))


# --- the posteriors together


def even(q: DiagGaussian, k: int) -> Tensor:
    """K points at equal steps of the probability of each one-dimensional posterior: a rule of quadrature, ``[K, N, 1]``."""
    u = (torch.arange(k, dtype=torch.float64) + 0.5) / k
    return q.mean + q.scale * torch.special.ndtri(u).view(-1, 1, 1)


def gaussians(*pairs: tuple[float, float]) -> DiagGaussian:
    loc, scale = torch.tensor(pairs, dtype=torch.float64).T.unsqueeze(-1)
    return DiagGaussian(loc, scale.log())


def test_information_and_gap_against_quadrature_of_a_mixture() -> None:
    """Five posteriors in one dimension; the densities of the oracle are scipy's formula on a grid and not the package's."""
    pairs = ((-1.5, 0.3), (-1.2, 0.5), (0.1, 0.2), (0.4, 1.1), (2.0, 0.7))
    t = torch.linspace(-12, 12, 200_001, dtype=torch.float64)

    def density(m: float, s: float) -> Tensor:
        return torch.exp(-((t - m) ** 2) / (2 * s * s)) / (s * math.sqrt(2 * math.pi))

    parts = torch.stack([density(m, s) for m, s in pairs])
    mixture, prior = parts.mean(0), density(0, 1)
    information = torch.trapezoid(torch.special.xlogy(parts, parts / mixture).nan_to_num().mean(0), t)
    gap = torch.trapezoid(mixture * (mixture / prior).log(), t)
    q = gaussians(*pairs)
    z = even(q, 20_000)
    found = aggregate([q], z, PRIOR.log_prob(z))
    assert found.mutual_information == pytest.approx(float(information), abs=2e-4)
    assert found.gap == pytest.approx(float(gap), abs=2e-3)
    assert found.rate == pytest.approx(found.mutual_information + found.gap, abs=1e-12)
    closed = torch.distributions.kl_divergence(Normal(q.mean, q.scale), Normal(0.0, 1.0)).mean()
    assert found.rate == pytest.approx(float(closed), abs=2e-3)
    assert 0 < found.mutual_information < found.ceiling == math.log(5)


def test_information_of_a_linear_gaussian_channel() -> None:
    """z | x ~ N(a x, s^2), x ~ N(0, 1): I = log(1 + a^2 / s^2) / 2 and q(z) = N(0, a^2 + s^2), up to the errors of 4000 draws."""
    torch.manual_seed(0)
    a, s = 1.0, 0.3
    q = DiagGaussian(a * torch.randn(4000, 1, dtype=torch.float64), torch.full((1,), math.log(s), dtype=torch.float64))
    z = q.sample((1,))
    found = aggregate([q], z, PRIOR.log_prob(z))
    v = a * a + s * s
    for value, se, want in (
        (found.mutual_information, found.mutual_information_se, 0.5 * math.log(1 + a * a / (s * s))),
        (found.gap, found.gap_se, 0.5 * (v - 1 - math.log(v))),
        (found.rate, found.rate_se, 0.5 * (v - 1 - math.log(s * s))),
    ):
        assert se < 0.02 and abs(value - want) < 3 * se, (value, want, se)


def test_equal_posteriors_tell_nothing_and_distant_ones_everything() -> None:
    n, m = 40, 10
    torch.manual_seed(0)
    same = gaussians(*[(0.5, 0.8)] * n)
    z = same.sample((3,))
    found = aggregate([same], z, PRIOR.log_prob(z), minibatch=m)
    assert found.mutual_information == pytest.approx(0, abs=1e-10) and found.overlap == pytest.approx(1) == found.nearest
    assert found.gap == pytest.approx(found.rate) and found.stratified == pytest.approx(0, abs=1e-10)
    assert found.weighted == pytest.approx(math.log(n))
    apart = gaussians(*[(100.0 * i, 1.0) for i in range(n)])
    z = apart.sample((3,))
    found = aggregate([apart], z, PRIOR.log_prob(z), minibatch=m)
    assert found.mutual_information == pytest.approx(math.log(n)) == found.stratified == found.ceiling
    assert found.overlap == found.nearest == 0 and found.weighted == pytest.approx(math.log(n * m))


def test_minibatch_estimators_against_the_paper() -> None:
    """Chen et al. (2018), appendix C: the weights as printed, over every minibatch and every order of it."""
    n, m = 5, 3  # M + 1 = 3 in the paper's count: x_i and two others
    torch.manual_seed(1)
    log_q = torch.randn(n, dtype=torch.float64)
    q = log_q.exp()
    stratified, weighted = [], []
    for others in itertools.combinations(range(1, n), m - 1):
        batch = [0, *others]
        stratified.append(mss(log_q[batch], n).exp())
        weighted.append(mws(log_q[batch], n).exp())
        big = m - 1
        orders = [
            q[0] / n + sum(q[j] for j in order[:-1]) / big + (n - big) / (n * big) * q[order[-1]]
            for order in itertools.permutations(others)
        ]
        assert stratified[-1] == pytest.approx(float(torch.stack(orders).mean()))
        assert weighted[-1] == pytest.approx(float(q[batch].sum() / (n * m)))
    assert torch.stack(stratified).mean() == pytest.approx(float(q.mean()))  # without bias for q(z)
    full = gaussians((-1.0, 0.5), (0.0, 0.7), (0.5, 0.2))
    z = full.sample((4,))
    found = aggregate([full], z, PRIOR.log_prob(z), minibatch=3)  # all there is: nothing is left to chance
    assert found.stratified == pytest.approx(found.mutual_information)


def test_a_minibatch_is_its_own_example_and_others_at_random() -> None:
    """With M = 2 the mean of MSS over seeds is that over the N - 1 partners of each example."""
    q = gaussians((-1.0, 0.5), (0.0, 0.7), (0.5, 0.2), (3.0, 1.0))
    torch.manual_seed(0)
    z = q.sample((1,))
    log_p, log_q = PRIOR.log_prob(z), cross_log_prob([q], z[0])
    own = log_q.diagonal()
    want = torch.stack([own[i] - mss(log_q[i, [i, j]], 4) for i in range(4) for j in range(4) if i != j]).mean()
    drawn = torch.tensor([aggregate([q], z, log_p, minibatch=2, seed=seed).stratified for seed in range(300)])
    assert abs(float(z_score(drawn, want))) < 3.5
    assert len({round(float(d), 6) for d in drawn}) > 3


def test_overlap_against_quadrature() -> None:
    t = torch.linspace(-30, 30, 100_001, dtype=torch.float64)
    pairs = ((-1.0, 0.5), (0.3, 0.5), (0.3, 4.0))
    q = gaussians(*pairs)
    found = bhattacharyya(q, q)
    for (i, (m, s)), (j, (n, r)) in itertools.product(enumerate(pairs), enumerate(pairs)):
        exponent = ((t - m) / s) ** 2 + ((t - n) / r) ** 2
        product = torch.exp(-exponent / 4) / math.sqrt(2 * math.pi * s * r)
        assert float(found[i, j]) == pytest.approx(float(torch.trapezoid(product, t)), abs=1e-9)
    both = DiagGaussian(q.mean.expand(3, 2), q.log_scale.expand(3, 2))  # independent dimensions: the product
    torch.testing.assert_close(bhattacharyya(both, both), found.square())
    z = q.sample((1,))
    whole = aggregate([q], z, PRIOR.log_prob(z))
    assert whole.overlap == pytest.approx(float(found[[0, 0, 1], [1, 2, 2]].mean()))
    assert whole.nearest == pytest.approx(float((found[0, 2] + found[1, 2] + found[2, 1]) / 3))  # the wide one is next to both


@pytest.mark.parametrize("scale", [0.3, 1e-6])
def test_densities_of_all_pairs(scale: float) -> None:
    """By matrix products, by differences where those would round, and of a distribution without a short way."""
    torch.manual_seed(0)
    loc, log_scale = 1 + torch.randn(6, 3, dtype=torch.float64), math.log(scale) + 0.3 * torch.randn(6, 3, dtype=torch.float64)
    z = loc[:4] + log_scale[:4].exp() * torch.randn(4, 3, dtype=torch.float64)
    want = Normal(loc, log_scale.exp()).log_prob(z.unsqueeze(1)).sum(-1)
    halves = [DiagGaussian(loc[:2], log_scale[:2]), DiagGaussian(loc[2:], log_scale[2:])]
    torch.testing.assert_close(cross_log_prob(halves, z), want, rtol=1e-9, atol=1e-5)
    full = [MultivariateNormal(loc, scale_tril=torch.diag_embed(log_scale.exp()))]
    torch.testing.assert_close(cross_log_prob(full, z), want, rtol=1e-9, atol=1e-5)
    fields = [DiagGaussian(q.mean.unsqueeze(1), q.log_scale.unsqueeze(1), 2) for q in halves]  # events of more dimensions
    torch.testing.assert_close(cross_log_prob(fields, z.unsqueeze(1)), want, rtol=1e-9, atol=1e-5)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    q = [DiagGaussian(torch.randn(n, 2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)) for n in (7, 5)]
    z = torch.cat([one.sample((3,)) for one in q], 1)
    log_p = Independent(Normal(torch.zeros(2), 1.0), 1).log_prob(z)
    whole = aggregate(q, z, log_p, minibatch=4)
    monkeypatch.setattr(sys.modules["vaekit.evaluate.aggregate"], "CHUNK", 30)
    for name, value in vars(aggregate(q, z, log_p, minibatch=4)).items():
        assert value == pytest.approx(getattr(whole, name), rel=1e-12), name


def test_what_aggregate_refuses() -> None:
    q = gaussians((0.0, 1.0), (1.0, 1.0))
    z = q.sample((2,))
    for posteriors, points, m in (([q, q], z, 2), ([q], z, 1), ([gaussians((0.0, 1.0))], z[:, :1], 2)):
        with pytest.raises(InputError):
            aggregate(posteriors, points, PRIOR.log_prob(points), minibatch=m)


# --- intervals


@pytest.mark.parametrize("times", [1.0, 2.0])
def test_coverage_of_a_known_gaussian(times: float) -> None:
    """Data from the model, latents from the exact posterior: nominal coverage; with sigma doubled that of twice the interval."""
    oracle = PPCA()
    with torch.no_grad():
        model = oracle.exact()
        torch.manual_seed(3)
        split = Split(model.sample(3000, mean=False))
        oracle.likelihood.log_scale += math.log(times)
    found = diagnose(model, split, samples=1).calibration
    assert found is not None and found.nominal == (0.5, 0.8, 0.95) and sum(found.places) == pytest.approx(1)
    normal = Normal(0.0, 1.0)
    for mass, inside, se in zip(found.nominal, found.coverage, found.coverage_se, strict=True):
        half = normal.icdf(torch.tensor(0.5 + mass / 2))
        want = float(2 * normal.cdf(times * half) - 1)
        assert se == pytest.approx(math.sqrt(want * (1 - want) / (3000 * 4)), rel=0.15)  # four independent entries each
        assert abs(inside - want) < 3.5 * math.sqrt(want * (1 - want) / (3000 * 4)), (mass, inside, want)


def test_place_in_a_distribution() -> None:
    torch.manual_seed(0)
    eta = torch.tensor([-60.0, -3.0, -1e-4, 0.0, 1e-4, 2e-3, 3.0, 60.0], dtype=torch.float64).unsqueeze(0)
    u = torch.rand(500, 8, dtype=torch.float64)
    grey = ContinuousBernoulli(eta)
    torch.testing.assert_close(place(grey, grey.icdf(u)), u, rtol=0, atol=1e-6)
    for inner in (Normal(torch.tensor([[1.0, -2.0]]), 0.5), Laplace(torch.tensor([[0.0, 3.0]]), 2.0)):
        v = torch.rand(7, 1, 2)
        torch.testing.assert_close(place(Independent(inner, 1), inner.icdf(v)), v)
    assert place(Bernoulli(torch.zeros(1, 3)), torch.ones(1, 3)) is None
    assert place(Independent(StudentT(torch.tensor([[5.0]])), 1), torch.zeros(1, 1)) is None
    assert place(MultivariateNormal(torch.zeros(1, 2), torch.eye(2)), torch.zeros(1, 2)) is None


def test_the_place_of_a_grey_level_is_drawn_within_its_mass() -> None:
    levels = torch.arange(5.0).unsqueeze(-1) / 4
    mass = DiscretisedLogistic(torch.tensor([0.4]), torch.tensor([-1.5]), bins=5).log_prob(levels).exp()
    edges = torch.cat([torch.zeros(1), mass.cumsum(0)])
    assert edges[-1] == pytest.approx(1)
    torch.manual_seed(0)
    u = place(DiscretisedLogistic(torch.full((4000, 5, 1), 0.4), torch.tensor(-1.5), bins=5), levels)
    assert u is not None
    low, high = u.amin((0, 2)), u.amax((0, 2))
    torch.testing.assert_close(low, edges[:-1], rtol=0, atol=2e-3)
    torch.testing.assert_close(high, edges[1:], rtol=0, atol=2e-3)


def test_missing_entries_are_in_no_interval() -> None:
    px = DiagGaussian(torch.zeros(1, 3, 2), torch.zeros(2))
    x = torch.tensor([[0.0, 9.0], [0.0, 0.0], [9.0, 9.0]])
    mask = torch.tensor([[True, False], [True, True], [False, False]])
    whole = Intervals()
    whole.add(px, Batch(x, mask=mask))
    found = whole.result()
    assert found is not None and found.coverage == (1.0, 1.0, 1.0) and found.places[10] == 1


# --- one pass


@pytest.mark.parametrize("make", [PPCA, LinearLadder])
def test_one_pass_gives_what_the_separate_ones_give(make: type) -> None:
    oracle = make()
    model = oracle.model()
    torch.manual_seed(3)
    split = Split(model.sample(700, mean=False))
    encoded: list[int] = []
    first = model.posterior if make is PPCA else model.bottom_up[0]
    hook = first.register_forward_hook(lambda module, given, out: encoded.append(len(given[0])))
    before = torch.get_rng_state()
    found = diagnose(model, split, samples=40)
    hook.remove()
    assert sum(encoded) == 700 and torch.equal(torch.get_rng_state(), before)
    assert found.test is not None and found.latents is not None and found.residuals is not None and found.aggregate is not None
    assert found.test.elbo == pytest.approx(float(oracle.elbo(split.x).detach().mean()), abs=0.01)
    apart, plain = latents(model, split), evaluate(model, split, samples=2)
    torch.testing.assert_close(found.latents.z, apart.z)
    torch.testing.assert_close(found.latents.offset, apart.offset)
    assert found.latents.sizes == apart.sizes and found.test.active_units == plain.active_units
    assert found.latents.kl is not None and apart.kl is not None
    torch.testing.assert_close(found.latents.kl, apart.kl, rtol=0.05, atol=1e-3)
    separate = residuals(model, split)
    assert separate is not None and found.residuals.sigma == pytest.approx(separate.sigma)
    assert found.residuals.standardised == pytest.approx(separate.standardised, rel=0.02)
    assert found.test.bits_per_dim == pytest.approx(found.test.nll / (4 * math.log(2)))
    assert found.aggregate.rate == pytest.approx(found.test.rates[0], abs=5 * found.aggregate.rate_se)  # of the top level
    assert found.aggregate.samples == 2000 // 700
    json.dumps(found.as_dict(), allow_nan=False)


def test_deterministic_for_a_seed_and_whatever_the_chunks() -> None:
    oracle = PPCA()
    model, split = oracle.model(), Split(PPCA().x)
    a, b, c = (diagnose(model, split, samples=3, seed=seed).as_dict() for seed in (0, 0, 1))
    assert a == b != c


def test_a_flow_without_inverse_has_no_mixture() -> None:
    class Doubled(Transform):
        def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
            return 2 * z, torch.full(z.shape[:-1], 2 * math.log(2))

    class Bent(nn.Module):
        def forward(self, x: Tensor) -> Flow:
            return Flow(DiagGaussian(x[:, :2], torch.zeros(2)), [Doubled()])

    torch.manual_seed(0)
    model = VAE(priors.StandardNormal(2), Bent(), Conditional(nn.Linear(2, 3), heads.Bernoulli(3)))
    found = diagnose(model, Split(torch.rand(30, 3).round()))
    assert found.aggregate is None and found.calibration is None and found.latents is not None and found.latents.kl is None
    assert "no inverse (Doubled)" in found.left_out[0] and "Bernoulli" in found.left_out[1]


def test_costly_posteriors_are_compared_for_some_examples_from_all_over() -> None:
    torch.manual_seed(0)
    q, px = heads.Bernoulli(3), heads.Bernoulli(4)
    model = VAE(priors.Bernoulli(3), Conditional(nn.Linear(4, 3), q), Conditional(nn.Linear(3, 4), px))
    x = torch.rand(2400, 4).round()
    x[800:] = x[0]  # sorted: most of it the same
    found = diagnose(model, Split(x), samples=1)
    assert found.aggregate is not None and found.aggregate.examples == 800  # every third batch of 100
    rows = torch.cat([x[i : i + 100] for i in range(0, 2400, 300)])
    p = torch.sigmoid(model.posterior.net(rows)).detach()
    states = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)))
    mass = (states * p.unsqueeze(1) + (1 - states) * (1 - p.unsqueeze(1))).prod(-1)  # [N, 8]
    want = float((mass * (mass / mass.mean(0)).log()).sum(1).mean())
    assert abs(found.aggregate.mutual_information - want) < 4 * found.aggregate.mutual_information_se
    assert found.aggregate.overlap is None and "of 800 of the examples" in found.left_out[0]


def test_requests_that_make_no_sense() -> None:
    oracle = PPCA()
    with pytest.raises(InputError, match="--samples 0"):
        diagnose(oracle.model(), Split(oracle.x), samples=0)
    same = nn.Identity()
    copy = VAE(priors.StandardNormal(2), Conditional(same, heads.Point(2)), Conditional(same, heads.GaussianFixed(2, 1.0)))
    with pytest.raises(InputError, match="is a point and has no density"):
        diagnose(copy, Split(torch.randn(10, 2)))
    one = diagnose(oracle.model(), Split(oracle.x[:1]))
    assert one.aggregate is None and "there is one" in one.left_out[0]


# --- faults


def plane(n: int, seed: int, noise: float = 0.2) -> Split:
    """Eight measurements of two causes."""
    w = torch.randn(2, 8, generator=torch.Generator().manual_seed(7))
    g = torch.Generator().manual_seed(seed)
    return Split(torch.randn(n, 2, generator=g) @ w + noise * torch.randn(n, 8, generator=g))


def linear(px: heads.core.Head, latent: int = 2) -> LatentModel:
    torch.manual_seed(0)
    q = heads.Gaussian(latent)
    return VAE(priors.StandardNormal(latent), Conditional(nn.Linear(8, q.features), q), Conditional(nn.Linear(latent, px.features), px))


def trained(model: LatentModel, rows: Split, beta: float = 1.0, epochs: int = 25) -> LatentModel:
    training = Training(epochs, 100, optimiser=partial(torch.optim.Adam, lr=0.03), device="cpu")
    return fit(model, rows, objective=ELBO(penalty=Beta(beta)), training=training, progress=False).model


@pytest.fixture(scope="module")
def healthy() -> Diagnosis:
    model = trained(linear(heads.GaussianShared(8)), plane(1000, 0))
    return diagnose(model, plane(500, 1), train=plane(1000, 0))


def said(found: Diagnosis, severity: str = "") -> str:
    return " | ".join(f.sentence for f in found.findings if f.severity == severity or not severity)


def test_a_healthy_model_is_not_blamed(healthy: Diagnosis) -> None:
    assert {f.severity for f in healthy.findings} <= {"info"}, said(healthy)
    assert healthy.test is not None and healthy.test.active_units == 2
    assert healthy.calibration is not None and healthy.calibration.coverage == pytest.approx((0.5, 0.8, 0.95), abs=0.03)
    assert healthy.aggregate is not None and 1 < healthy.aggregate.mutual_information < healthy.aggregate.ceiling - 0.5


def test_collapse_is_named() -> None:
    with pytest.warns(UserWarning, match="level 0 has collapsed: its rate has stayed below 0.1 nats for 200 steps"):
        model = trained(linear(heads.GaussianShared(8)), plane(1000, 0), beta=50, epochs=30)
    found = diagnose(model, plane(500, 1), train=plane(1000, 0))
    assert "All 2 latent dimensions are inactive" in said(found, "warning")
    assert (
        found.aggregate is not None and found.aggregate.mutual_information < 0.1 and found.aggregate.overlap == pytest.approx(1, abs=0.05)
    )


@pytest.mark.filterwarnings("ignore:level 0 has collapsed")
@pytest.mark.parametrize(("sigma", "way"), [(3.0, "too wide"), (0.02, "too narrow")])
def test_an_untrained_variance_is_named(sigma: float, way: str, healthy: Diagnosis) -> None:
    model = trained(linear(heads.GaussianFixed(8, sigma)), plane(1000, 0))
    found = diagnose(model, plane(500, 1))
    assert f"The decoder's standard deviation is {way}: {sigma:.3g} on average" in said(found, "warning")
    assert "standard deviation" not in said(healthy)


def test_an_untrained_scale_of_grey_levels_is_named_by_its_intervals() -> None:
    class Levels(nn.Module):
        """Discretised logistics about 1/2 with a scale that is wrong by ``times``."""

        def __init__(self, times: float) -> None:
            super().__init__()
            self.log_scale = nn.Parameter(torch.tensor(math.log(0.05 * times)))

        def forward(self, z: Tensor) -> DiscretisedLogistic:
            return DiscretisedLogistic(torch.full((*z.shape[:2], 6), 0.5), self.log_scale, bins=256)

    torch.manual_seed(0)
    x = Levels(1.0)(torch.zeros(1, 400, 1)).sample()[0]
    q = Conditional(nn.Linear(6, 2), heads.Gaussian(1))
    for times, way in ((1.0, ""), (3.0, "too wide"), (1 / 3, "too narrow")):
        found = diagnose(VAE(priors.StandardNormal(1), q, Levels(times)), Split(x))
        assert found.residuals is None and found.calibration is not None
        assert (f"p(x | z) is {way}: its scale does not fit" in said(found, "warning")) == bool(way)
        assert ("intervals of p(x | z)" in said(found)) == bool(way)


def digits_model() -> LatentModel:
    torch.manual_seed(0)
    q, px = heads.Gaussian(8), heads.Bernoulli((1, 8, 8))
    encoder, decoder = mlp((1, 8, 8), [Layer(256, nn.ReLU)], q.features), mlp(8, [Layer(256, nn.ReLU)] * 2, px.features)
    return VAE(priors.StandardNormal(8), Conditional(encoder, q, event_dim=3), Conditional(decoder, px))


def test_overfitting_on_500_images_is_named() -> None:
    sets = data.digits()
    rows, model = sets.train.take(torch.arange(500)), digits_model()
    few = Training(3, 50, optimiser=partial(torch.optim.Adam, lr=2e-3), device="cpu")
    early = diagnose(fit(model, rows, training=few, progress=False).model, sets.test, train=rows, samples=2)
    many = Training(50, 50, optimiser=partial(torch.optim.Adam, lr=5e-3), device="cpu")
    late = diagnose(fit(model, rows, training=many, progress=False).model, sets.test, train=rows, samples=2)
    assert "overfits" in said(late, "warning") and "overfits" not in said(early)
    assert late.train is not None and late.test is not None and late.train.examples == 300  # as many as there are test images


@pytest.mark.parametrize("dead", [True, False])
def test_a_dead_codebook_is_named(dead: bool) -> None:
    torch.manual_seed(0)
    book = Codebook(16, 2)
    with torch.no_grad():
        book.vectors.copy_(torch.randn(16, 2))
        if dead:
            book.vectors[2:] += 1000.0
    q = heads.Quantised(book, (4,))
    decoder = Conditional(nn.Sequential(nn.Flatten(), nn.Linear(8, 6)), heads.GaussianFixed(6, 1.0), event_dim=2)
    model = VAE(UniformCodes(book, (4,)), Conditional(nn.Linear(6, 8), q), decoder)
    x = torch.randn(300, 6) * 3
    found = diagnose(model, Split(x))
    (use,) = found.codes
    chosen = q(model.posterior.net(x)).codes.flatten()
    frequency = torch.bincount(chosen, minlength=16) / len(chosen)
    assert use.draws == 1200 and use.used == len(chosen.unique()) and use.expected == pytest.approx(16)
    assert use.perplexity == pytest.approx(float(torch.exp(-torch.special.xlogy(frequency, frequency).sum())), rel=1e-5)
    assert ("14 of 16 codes are dead" in said(found, "warning")) == dead and ("dead" in said(found)) == dead
    assert found.test is not None and found.test.rates[0] == pytest.approx(4 * math.log(16), rel=1e-5)
    assert found.aggregate is not None  # the fields of codes that differ: log(N / count) on average
    counts = chosen.view(300, 4).unique(dim=0, return_inverse=True, return_counts=True)
    want = (300 / counts[2][counts[1]]).log().mean()
    assert found.aggregate.mutual_information == pytest.approx(float(want), rel=1e-5)


def test_few_draws_do_not_make_a_codebook_dead(healthy: Diagnosis) -> None:
    few = usage(0, torch.tensor([1] * 10 + [0] * 502))  # ten draws show ten codes
    assert few.expected == pytest.approx(10, abs=0.1) and few.dead == 502
    many = usage(1, torch.tensor([1000] * 10 + [0] * 502))
    assert healthy.test is not None
    (finding,) = (f for f in advise(healthy.test, codes=(few, many)) if "dead" in f.sentence)
    assert "502 of 512 codes of level 1 are dead: 10,000 draws used 10 (perplexity 10.0)" in finding.sentence


BROKEN: dict[str, tuple[Callable[[LatentModel], object], str]] = {
    "the posterior's scale": (lambda m: m.posterior.net.bias[2:].fill_(800), r"level 0: z is infinite for 100 of 100 examples"),
    "the decoder's weights": (
        lambda m: m.likelihood.net.weight[3, 0].fill_(math.nan),
        r"1 of 16 values of likelihood.net.weight are NaN",
    ),
    "the decoder's scale": (lambda m: m.likelihood.head.log_scale.fill_(-100), r"log p\(x \| z\) is infinite"),
    "the prior": (lambda m: setattr(m, "prior", Spike()), r"level 0: log p\(z\) is infinite"),
}


class Spike(nn.Module):
    def forward(self) -> DiagGaussian:
        return DiagGaussian(torch.zeros(2), torch.full((2,), -80.0))


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_not_finite_is_named(case: str) -> None:
    harm, words = BROKEN[case]
    model = linear(heads.GaussianShared(8))
    with torch.no_grad():
        harm(model)
    found = diagnose(model, plane(250, 1), train=plane(100, 0))
    text = said(found, "error")
    assert len(found.findings) in (1, 2) and all(f.severity == "error" for f in found.findings)
    assert re.search(words, text), text
    assert found.test is None and found.aggregate is None
    assert "nan" not in json.dumps(found.as_dict(), allow_nan=False)
    if case == "the posterior's scale":
        assert "The largest weight is posterior.net.bias, up to 800" in text
        assert "log_scale of q(z | x) at level 0, up to 4" in text
    if case == "the decoder's scale":
        assert "weight is likelihood.head.log_scale, up to 100" in text


def test_a_scale_that_explodes_without_overflowing_is_named(healthy: Diagnosis) -> None:
    model = linear(heads.GaussianShared(8))
    with torch.no_grad():
        model.posterior.net.bias[2:].fill_(20)  # sigma = e^10
    assert "has exploded" in said(diagnose(model, plane(250, 1)), "warning") and "exploded" not in said(healthy)


def test_nan_in_the_data_is_not_blamed_on_the_model() -> None:
    rows = plane(250, 1)
    rows.x[130, 2] = math.nan
    (finding,) = diagnose(linear(heads.GaussianShared(8)), rows).findings
    assert "x is NaN for 1 of 100 examples (row 130)" in finding.sentence


# --- while training


def history(*rates: float, each: int = 50) -> list[dict[str, float]]:
    return [{"step": (i + 1) * each, "train/rate_0": 3.0, "train/rate_1": rate} for i, rate in enumerate(rates)]


def test_when_a_rate_counts_as_collapsed() -> None:
    assert collapsed(history(0.0, 0.0, 0.0), 1, 0) is None  # 150 steps
    assert collapsed(history(0.0, 0.0, 0.0, 0.0, 0.0), 1, 0) == 3
    assert collapsed(history(0.0, 0.0, 0.0, 0.2, 0.0, 0.0, 0.0, 0.0), 1, 0) == 7  # without interruption
    assert collapsed(history(*[0.0] * 8), 1, 120) == 6  # the epochs from step 150 on
    assert collapsed(history(*[0.0] * 8), 0, 0) is None and collapsed(history(0.05, each=500), 1, 0) == 0
    assert collapsed(history(*[math.nan] * 8), 1, 0) is None and collapsed([{"step": 1000}], 0, 0) is None


def test_the_warning_comes_once() -> None:
    rows = history(*[0.0] * 8, 1.0, *[0.0] * 8)
    heard = []
    for n in range(1, len(rows) + 1):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warn_of_collapse(rows[:n], 0)
        heard += [(n, str(w.message)) for w in caught]
    assert len(heard) == 1 and heard[0][0] == 4 and heard[0][1].startswith("level 1 has collapsed")


def test_collapse_is_told_once_also_when_a_run_is_resumed(tmp_path: Path) -> None:
    """And not while a warm-up is under way; the active units are logged at validation."""

    def run(epochs: int, resume: bool, folder: str, penalty: Beta) -> list[str]:
        sets = DataSet("plane", train=plane(400, 0), test=plane(10, 1), valid=plane(100, 2))
        training = Training(epochs, 10, optimiser=partial(torch.optim.Adam, lr=0.03), device="cpu")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fitted = fit(
                linear(heads.GaussianShared(8)),
                sets,
                objective=ELBO(penalty=penalty),
                training=training,
                out=tmp_path / folder,
                resume=resume,
                progress=False,
            )
        active.append([row["valid/active"] for row in fitted.history])
        return [str(w.message) for w in caught if "collapsed" in str(w.message)]

    active: list[list[float]] = []
    assert len(run(5, False, "a", Beta(50))) == 1 and run(6, True, "a", Beta(50)) == []
    assert active[-1][-1] == 0 and len(active[-1]) == 6
    assert run(5, False, "b", Beta(Linear(50, 50.1, 10))) == []  # settled too late for 200 steps to follow
    assert run(2, False, "c", Beta(1.0)) == [] and active[-1][-1] == 2


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: information(math.nan, 1.0, ceiling=2.0), "all must be finite nats"),
        (lambda: intervals([0.5, 0.5], nominal=[0.5]), "1 masses and 0 coverages"),
        (lambda: intervals([0.5, math.nan]), "places must be finite"),
        (lambda: rate_distortion([1.0, 2.0], [3.0]), "2 rates, 1 distortions"),
        (lambda: rate_distortion([1.0, math.inf], [3.0, 4.0]), "must be finite nats"),
    ],
)
def test_figures_that_cannot_be_drawn(draw: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        draw()
