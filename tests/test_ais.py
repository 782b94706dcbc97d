"""Annealed importance sampling against models whose evidence is known.

Statistical tests use fixed seeds and thousands of independent chains; a z-score beyond 4.5 fails. Step sizes are mostly set by hand, and so
large that a fair share of the proposals is rejected: an error in the decision or in the integrator shows.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal

from oracles import PPCA, LinearLadder, batch, given_entries, imperfect, z_score
from vaekit import VAE, Conditional, heads, priors
from vaekit.bounds import iwae
from vaekit.data.core import Split
from vaekit.errors import InputError
from vaekit.evaluate import Annealing, annealed_log_likelihood, bdmc, side_by_side, stream
from vaekit.evaluate.log_likelihood import log_likelihood
from vaekit.infer import HMC, Adaptive, Layout, Path, Plan, ais, linear, plan, posterior_path, prior_path, refreshed, reverse_ais, sigmoidal
from vaekit.types import Batch

PATHS = {"prior": prior_path, "posterior": posterior_path}
STEP = {PPCA: 0.9, LinearLadder: 0.8}  # about a quarter of the proposals is rejected


def same(x: Tensor) -> Tensor:
    """Keeps float64 rows as they are."""
    return x


def gentle(kind: type[PPCA] | type[LinearLadder], d: int) -> PPCA | LinearLadder:
    """The oracle in d dimensions a level and 2 d of data, with weights that annealing in a few steps can follow, and a q that is near."""
    oracle = kind(d, 2 * d) if kind is PPCA else kind(d, d, 2 * d)
    g = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for affine in (oracle.likelihood, getattr(oracle, "lower", None)):
            if affine is not None:
                affine.weight.mul_(0.5 if d == 2 else 0.1)
        if isinstance(oracle, PPCA):
            exact = (given_entries(*oracle.joint(), range(d), range(0), range(2 * d), d),)
        else:
            exact = oracle.posteriors(range(2 * d))
        for encoder, wanted in zip([oracle.encoder] if isinstance(oracle, PPCA) else oracle.encoder, exact, strict=True):
            imperfect(encoder, wanted, g)
            encoder.weight.lerp_(wanted[0], 0.0 if d == 2 else 0.7)
        mean, cov = (m[-2 * d :] for m in oracle.joint())
        oracle.x = mean + torch.randn(6, 2 * d, generator=g, dtype=torch.float64) @ torch.linalg.cholesky(cov[:, -2 * d :]).mT
    return oracle


@pytest.fixture(params=[(PPCA, 2), (PPCA, 10), (LinearLadder, 2), (LinearLadder, 10)], ids=["ppca-2", "ppca-10", "ladder-2", "ladder-10"])
def oracle(request: pytest.FixtureRequest) -> PPCA | LinearLadder:
    return gentle(*request.param)


def of(oracle: PPCA | LinearLadder, rows: int = 2, copies: int = 1) -> tuple[Batch, Tensor]:
    """The first examples, each so many times, and their exact log p(x)."""
    x = oracle.x[:rows].repeat_interleave(copies, 0)
    return Batch(x), oracle.evidence(x).detach()


def fixed(betas: Tensor, epsilon: float, size: int, leapfrogs: int = 3) -> Plan:
    return Plan(betas, torch.full((len(betas), size), epsilon, dtype=torch.float64), HMC(leapfrogs, jitter=0.3))


def entries(oracle: PPCA | LinearLadder) -> range:
    return range(oracle.x.shape[1])


# --- schedules ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("betas", [linear(2), linear(7), sigmoidal(2), sigmoidal(8), sigmoidal(1000), sigmoidal(9, delta=9.0)])
def test_schedules_rise_from_0_to_1(betas):
    assert betas[0] == 0
    assert betas[-1] == 1
    assert (betas.diff() > 0).all()
    assert betas.dtype == torch.float64
    torch.testing.assert_close(betas, 1 - betas.flip(0))


def test_sigmoidal_is_the_published_one():
    """beta_t = (s_t - s_1) / (s_T - s_1), s_t = sigma(4 (2 t / T - 1)): by hand for five."""
    s = [1 / (1 + math.exp(-4 * u)) for u in (-1, -0.5, 0, 0.5, 1)]
    assert sigmoidal(5).tolist() == pytest.approx([(v - s[0]) / (s[4] - s[0]) for v in s])


def test_adaptive_step_of_a_gaussian():
    """Where delta ~ N(., s^2) the conditional effective sample size is K exp(-(s step)^2)."""
    torch.manual_seed(0)
    delta = 3 + 20 * torch.randn(200_000, 1, dtype=torch.float64)
    for drop in (0.01, 0.2):
        assert Adaptive(drop).after(0.25, delta) == pytest.approx(0.25 + math.sqrt(-math.log(1 - drop)) / 20, rel=0.02, abs=0)
    assert Adaptive(0.01).after(0.25, 1e-3 * delta) == 1.0
    dead = torch.cat([delta, torch.full_like(delta[:1000], -math.inf)])  # these are lost whatever the step
    assert Adaptive(0.01).after(0.25, dead) == pytest.approx(Adaptive(0.01).after(0.25, delta), rel=1e-6, abs=0)


def test_adaptive_plan_spends_its_drop():
    oracle = gentle(PPCA, 10)
    data, _ = of(oracle)
    made = {drop: plan(prior_path(oracle.model(), data), Adaptive(drop), kernel=HMC(3)) for drop in (0.04, 0.01)}
    assert all(p.betas[0] == 0 and p.betas[-1] == 1 and (p.betas.diff() > 0).all() for p in made.values())
    assert all(p.epsilon.shape == (len(p.betas), 2) for p in made.values())
    assert len(made[0.01].betas) / len(made[0.04].betas) == pytest.approx(2, rel=0.2)  # a step's length goes as sqrt(drop)
    with pytest.raises(InputError, match="after 5 temperatures: allow it more"):
        plan(prior_path(oracle.model(), data), Adaptive(0.01), kernel=HMC(3), most=5)


# --- exact weights --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("kind", [PPCA, LinearLadder])
def test_two_temperatures_are_plain_importance_sampling(kind, start):
    oracle = kind()
    model, data = oracle.model(), batch(oracle)
    path = start(model, data)
    torch.manual_seed(3)
    z = path.draw(5)
    trace = model.score(data, path.layout.split(z))
    torch.manual_seed(3)
    found = ais(path, 5, fixed(linear(2), 0.3, 6))
    assert torch.equal(found.z, z)
    assert found.accept.shape == (0, 6)
    torch.testing.assert_close(found.log_w, (trace.log_px if start is prior_path else trace.log_w).detach(), rtol=1e-12, atol=1e-12)
    assert torch.equal(reverse_ais(path, z, fixed(linear(2), 0.3, 6)).log_w, found.log_w)


@pytest.mark.parametrize("kind", [PPCA, LinearLadder])
def test_from_the_exact_posterior_every_weight_is_the_evidence(kind):
    oracle = kind()
    path = posterior_path(oracle.exact(), batch(oracle))
    expected = oracle.evidence(oracle.x).detach().expand(4, -1)
    there = ais(path, 4, fixed(sigmoidal(6), 0.4, 6))
    back = reverse_ais(path, there.z, fixed(sigmoidal(6), 0.4, 6))
    torch.testing.assert_close(there.log_w, expected)
    torch.testing.assert_close(back.log_w, expected)
    assert (there.z - back.z).abs().max() > 0.1  # they did move


def test_one_evaluation_of_the_model_per_leapfrog():
    oracle = PPCA()
    path = prior_path(oracle.model(), batch(oracle))
    calls = []
    counting = Path(lambda z: (calls.append(1), path.terms(z))[1], path.draw, path.layout)
    ais(counting, 2, fixed(linear(6), 0.3, 6, leapfrogs=3))
    assert len(calls) == 1 + 4 * 3


# --- unbiased, from below and from above ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", PATHS.values(), ids=PATHS)
def test_forward_is_unbiased_and_below(oracle, start):
    """E[w] = p(x); E[log w] < log p(x) by more than its error."""
    data, exact = of(oracle)
    path = start(oracle.model(), data)
    found = ais(path, 3000, fixed(sigmoidal(8), STEP[type(oracle)], 2))
    assert z_score(torch.exp(found.log_w - exact), 1.0).abs().max() < 4.5
    assert z_score(found.log_w, exact).max() < -4.5
    assert 0.5 < found.accept.mean() < 0.9
    k10 = iwae(found.log_w.view(10, 300, 2))
    assert (z_score(k10, exact) < 2).all()
    assert (k10.mean(0) > found.log_w.mean(0)).all()


@pytest.mark.parametrize("start", PATHS.values(), ids=PATHS)
def test_reverse_is_unbiased_and_above(oracle, start):
    """E[1 / w] = 1 / p(x) from exact posterior samples; E[log w] > log p(x)."""
    data, exact = of(oracle)
    path = start(oracle.model(), data)
    z = posterior_path(oracle.exact(entries(oracle)), data).draw(3000)
    found = reverse_ais(path, z, fixed(sigmoidal(8), STEP[type(oracle)], 2))
    assert z_score(torch.exp(exact - found.log_w), 1.0).abs().max() < 4.5
    assert z_score(found.log_w, exact).min() > 4.5
    assert found.accept.shape == (6, 2)


@pytest.mark.parametrize("refresh", [0, 8])
def test_chains_from_one_exact_sample_are_still_unbiased(refresh):
    """Three reverse chains from the same z, 1500 times: the mean of their 1 / w is one observation."""
    oracle = gentle(PPCA, 2)
    data, exact = of(oracle, rows=1, copies=1500)
    path, steps = prior_path(oracle.model(), data), fixed(sigmoidal(3), 0.9, 1500)
    z = posterior_path(oracle.exact(), data).draw(1).expand(3, -1, -1)
    found = reverse_ais(path, refreshed(path, z, steps, refresh), steps)
    ratio = torch.exp(exact - found.log_w)
    assert z_score(ratio.mean(0), 1.0).abs() < 4.5
    shared = torch.corrcoef(found.log_w)[0, 1]
    assert shared > 0.1 if refresh == 0 else shared < 0.1  # the copies part


def test_refreshing_leaves_the_posterior_as_it_is():
    oracle = gentle(LinearLadder, 2)
    data, _ = of(oracle, rows=1)
    exact = posterior_path(oracle.exact(), data)
    z = refreshed(prior_path(oracle.model(), data), exact.draw(4000), fixed(linear(3), 1.0, 1), 3)
    like = exact.draw(100_000)
    assert z_score(z[:, 0], like.mean((0, 1))).abs().max() < 4.5
    assert z_score((z[:, 0] - like.mean((0, 1))).square(), like.var((0, 1))).abs().max() < 4.5


def test_half_of_a_gaussian():
    """f_1 is 0 below 0: such chains weigh nothing, and none of the others ends there. The normaliser is 1/2."""

    def terms(z: Tensor) -> tuple[Tensor, Tensor]:
        return Normal(0.0, 1.0).log_prob(z).sum(-1), torch.where(z[..., 0] > 0, 0.0, -math.inf).to(z)

    path = Path(terms, lambda k: torch.randn(k, 1, 1, dtype=torch.float64), Layout(((1,),)))
    found = ais(path, 4000, fixed(linear(4), 1.0, 1))
    w = found.log_w.exp()
    assert not w.isnan().any()
    assert z_score(w, 0.5).abs() < 4.5
    assert (found.z[..., 0][w > 0] > 0).all()


def test_infinite_steps_are_rejected():
    oracle = PPCA()
    found = ais(prior_path(oracle.model(), batch(oracle)), 3, fixed(linear(4), 1e200, 6))
    assert found.z.isfinite().all()
    assert found.log_w.isfinite().all()
    assert (found.accept == 0).all()


def test_observed_entries():
    """With a mask E[w] is the density of the observed entries; what lies in the others does not matter."""
    oracle = gentle(LinearLadder, 2)
    mask = torch.tensor([[True, False, True, True]]).expand(2, -1)
    x = torch.where(mask, oracle.x[:2], torch.nan)
    exact = oracle.evidence(oracle.x[:2], torch.tensor([0, 2, 3])).detach()
    found = annealed_log_likelihood(oracle.model(), Split(x, mask=mask, prepare=same), samples=400, annealing=Annealing(20, leapfrogs=3))
    assert ((found.log_px - exact) / found.mc_se).abs().max() < 4.5
    assert found.mc_se.max() < 0.1
    assert found.entries.tolist() == [3, 3]


# --- the plan -------------------------------------------------------------------------------------------------------------------------


def test_plan_holds_the_acceptance_at_every_temperature():
    oracle = PPCA(4, 8)
    path = prior_path(oracle.model(), Batch(oracle.x))
    for temperatures in (12, 150):  # fewer and more than are visited
        made = plan(path, sigmoidal(temperatures), kernel=HMC(3, jitter=0.5), chains=32)
        assert made.epsilon.shape == (temperatures, 6)
        accept = ais(path, 200, made).accept
        assert 0.76 < accept.mean() < 0.85
        assert accept.mean(1).min() > 0.65
    assert made.epsilon[1].mean() > 2 * made.epsilon[-1].mean()  # the posterior is narrower than the prior


def test_backward_plan_mirrors_forward():
    made = fixed(sigmoidal(5), 0.1, 2)._replace(epsilon=torch.arange(5.0).view(5, 1))
    assert made.backward.betas.tolist() == made.betas.tolist()[::-1]
    assert made.backward.epsilon.flatten().tolist() == [4, 3, 2, 1, 0]
    assert all(torch.equal(a, b) for a, b in zip(made.backward.backward[:2], made[:2], strict=True))


# --- over a data set ------------------------------------------------------------------------------------------------------------------

SMALL = Annealing(30, leapfrogs=2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_annealed_log_likelihood(dtype):
    oracle = gentle(PPCA, 10)
    exact = oracle.evidence(oracle.x).detach()
    split = Split(oracle.x, prepare=same)
    seen: list[tuple[int, int]] = []
    model = oracle.model().to(dtype).train()
    before = torch.get_rng_state()
    found = annealed_log_likelihood(model, split, samples=200, annealing=SMALL, seed=1, batch_size=4, watch=lambda *a: seen.append(a))
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    assert ((found.log_px - exact) / found.mc_se).abs().max() < 4.5
    assert 0.01 < found.mc_se.max() < 0.2
    assert (found.method, found.samples, found.seed, found.log_px.dtype) == ("ais", 200, 1, torch.float64)
    assert found.entries.tolist() == [20] * 6
    assert found.k_hat.isfinite().all()
    assert seen == [(4, 6), (6, 6)]


def test_the_same_for_a_seed_and_another_for_another(monkeypatch):
    oracle = gentle(PPCA, 2)
    split = Split(oracle.x, prepare=same)
    quick = Annealing(5, leapfrogs=2)
    a, b, c = (annealed_log_likelihood(oracle.model(), split, samples=7, annealing=quick, seed=s).log_px for s in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.isclose(a, c).any()
    monkeypatch.setattr(stream, "ROWS", 300)  # 50 chains of each of the six at a time
    few = annealed_log_likelihood(oracle.model(), split, samples=120, annealing=Annealing(20, leapfrogs=2))
    assert few.ess.max() > 60
    assert ((few.log_px - oracle.evidence(oracle.x).detach()) / few.mc_se).abs().max() < 4.5
    assert annealed_log_likelihood(oracle.model(), split, samples=1, annealing=quick).mc_se.isnan().all()


@pytest.mark.parametrize("start", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("kind", [PPCA, LinearLadder])
def test_sandwich_holds_the_evidence(kind, start):
    oracle = gentle(kind, 2)
    annealing = Annealing(3, leapfrogs=1, start=start, chains=2, refresh=10)
    found = bdmc(oracle.model(), 900, samples=2, annealing=annealing, seed=2, batch_size=900)
    exact = oracle.evidence(found.x).detach()
    assert z_score(found.lower.log_px - exact, 0.0) < -2
    assert z_score(found.upper.log_px - exact, 0.0) > 2
    assert z_score(torch.exp(found.lower.log_px - exact), 1.0).abs() < 4.5
    assert z_score(torch.exp(exact - found.upper.log_px), 1.0).abs() < 4.5  # the mean of 1 / w, not of w
    assert found.width == pytest.approx(float((found.upper.log_px - found.lower.log_px).mean()))
    assert found.width_se == pytest.approx(float(found.widths.std() / 900**0.5))
    assert 4 * found.width_se < found.width < 2
    assert found.temperatures == 3
    assert f"{found.width:.3f} +- {found.width_se:.3f} nats apart" in str(found)
    # the examples are the model's own: mean and covariance of x
    mean, cov = (m[-4:] for m in oracle.joint())
    assert z_score(found.x, mean.detach()).abs().max() < 4.5
    assert z_score((found.x - mean.detach()).square(), cov[:, -4:].diagonal().detach()).abs().max() < 4.5


def test_upper_averages_the_inverse_weights():
    """From the exact posterior w is p(x) throughout, and both bounds with it."""
    oracle = LinearLadder()
    found = bdmc(oracle.exact(), 5, samples=3, annealing=Annealing(4, leapfrogs=1, start=posterior_path, refresh=1), batch_size=2)
    exact = oracle.evidence(found.x).detach()
    torch.testing.assert_close(found.lower.log_px, exact)
    torch.testing.assert_close(found.upper.log_px, exact)
    assert found.upper.mc_se.max() < 1e-6
    assert found.upper.ess == pytest.approx(torch.full((5,), 3.0))


def test_side_by_side():
    oracle = gentle(PPCA, 2)
    split = Split(oracle.x, prepare=same)
    found = side_by_side(oracle.model(), split, samples=5, importance_samples=50, n=8, annealing=Annealing(6, leapfrogs=2), seed=3)
    torch.testing.assert_close(found.iwae.log_px, log_likelihood(oracle.model(), split, samples=50, seed=3).log_px)
    assert found.gain == pytest.approx(found.ais.mean - found.iwae.mean)
    assert found.gain_error == pytest.approx(math.hypot(found.ais.mc_error, found.iwae.mc_error))
    assert len(found.simulated.x) == 8
    assert f"{found.gain:.3f} +- {found.gain_error:.3f}" in str(found)


# --- refusals -------------------------------------------------------------------------------------------------------------------------


def flat(prior: nn.Module, posterior: heads.Head) -> VAE:
    d = posterior.event_shape[0]
    return VAE(prior, Conditional(nn.Linear(3, posterior.features), posterior), Conditional(nn.Linear(d, 3), heads.Bernoulli(3)))


@pytest.mark.parametrize(
    ("call", "pattern"),
    [
        (lambda m, s: annealed_log_likelihood(m, s, samples=0), "samples=0: annealing needs at least 1"),
        (lambda m, s: annealed_log_likelihood(m, s, batch_size=0), "batch_size=0"),
        (lambda m, s: bdmc(m, 0), "n=0: annealing needs at least 1"),
        (lambda m, s: bdmc(m, 2, samples=-1), "samples=-1"),
        (lambda m, s: Annealing(1), r"Annealing\(temperatures=1\): at least 2"),
        (lambda m, s: Annealing(leapfrogs=0), r"Annealing\(leapfrogs=0\)"),
        (lambda m, s: Annealing(refresh=-1), r"Annealing\(refresh=-1\)"),
        (lambda m, s: sigmoidal(1), "1 temperature"),
        (lambda m, s: sigmoidal(5, delta=0.0), "the slope is positive"),
        (lambda m, s: Adaptive(0.0), r"Adaptive\(drop=0.0\)"),
        (lambda m, s: plan(prior_path(m, Batch(s.x)), torch.tensor([0.0, 0.5, 0.9])), "rise from exactly 0 to exactly 1"),
        (lambda m, s: plan(prior_path(m, Batch(s.x)), torch.tensor([0.0, 0.5, 0.5, 1.0])), "rise from exactly 0 to exactly 1"),
        (lambda m, s: plan(prior_path(m, Batch(s.x)), linear(3), chains=0), r"plan\(chains=0\)"),
        (lambda m, s: ais(prior_path(m, Batch(s.x)), 0, fixed(linear(2), 0.1, 4)), r"ais\(k=0\)"),
        (lambda m, s: annealed_log_likelihood(flat(priors.Bernoulli(4), heads.Bernoulli(4)), s), "is discrete, so log p"),
        (lambda m, s: bdmc(flat(priors.Bernoulli(4), heads.Bernoulli(4)), 2), "is discrete, so log p"),
        (lambda m, s: annealed_log_likelihood(flat(priors.StandardNormal(2), heads.Point(2)), s), "is a point and has no density"),
        (lambda m, s: bdmc(flat(priors.StandardNormal(2), heads.Point(2)), 2), "is a point and has no density"),
    ],
)
def test_refusals(call, pattern):
    torch.manual_seed(0)
    with pytest.raises(InputError, match=pattern) as caught:
        call(flat(priors.StandardNormal(2), heads.Gaussian(2)), Split(torch.ones(4, 3)))
    assert "\n" not in str(caught.value)


def test_inference_mode_is_refused():
    model, split = flat(priors.StandardNormal(2), heads.Gaussian(2)), Split(torch.ones(4, 3))
    with torch.inference_mode(), pytest.raises(InputError, match="inference_mode"):
        annealed_log_likelihood(model, split, samples=2, annealing=Annealing(3))


def test_damaged_weights_are_named():
    model = flat(priors.StandardNormal(2), heads.Gaussian(2))
    with torch.no_grad():
        model.likelihood.net.bias.fill_(math.nan)
    with pytest.raises(InputError, match="likelihood of 4 of 4 examples is not finite"):
        annealed_log_likelihood(model, Split(torch.ones(4, 3)), samples=2, annealing=Annealing(3, leapfrogs=1))
