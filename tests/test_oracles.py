"""The core against models whose answers are known: evidence, bounds, gradients, invariances.

Statistical tests use fixed seeds and say how many samples they take; a z-score beyond 4.5 fails (about 7 in a million per comparison).
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import (
    AffineTransform,
    Bernoulli,
    Independent,
    MultivariateNormal,
    Normal,
    SigmoidTransform,
    TransformedDistribution,
)

from oracles import PPCA, Full, LinearLadder, batch, z_score
from tables import OBJECTIVES, Bound
from vaekit import bounds
from vaekit.dist import DiagGaussian, centre, closed_form_kl, log_prob_observed
from vaekit.errors import InputError
from vaekit.models import VAE, Ladder, Rung, at_centre, from_p, from_q, given, prefix
from vaekit.objectives import ELBO, IWAE, Beta, Capacity, Cyclical, FreeBits, Linear
from vaekit.priors import StandardNormal
from vaekit.types import Batch

ORACLES = {"ppca": PPCA, "ladder": LinearLadder}


def objectives(where: Callable[[Bound], bool] = lambda row: True) -> pytest.MarkDecorator:
    rows = {name: row for name, row in OBJECTIVES.items() if where(row)}
    return pytest.mark.parametrize("row", rows.values(), ids=rows)


@pytest.fixture(params=ORACLES, ids=list(ORACLES))
def oracle(request: pytest.FixtureRequest) -> PPCA | LinearLadder:
    torch.manual_seed(0)
    return ORACLES[request.param]()


# --- sharp: with the exact posterior every log-weight is the evidence ---------------------------------------------------------------


def test_exact_posterior_makes_log_w_the_evidence(oracle):
    log_w = oracle.exact().infer(batch(oracle), k=7).log_w
    torch.testing.assert_close(log_w, oracle.evidence(oracle.x).expand(7, -1), rtol=0, atol=1e-9)


@objectives(lambda row: row.tight)
def test_bound_is_tight_at_the_exact_posterior(oracle, row):
    loss = row.make()(oracle.exact(), batch(oracle))
    torch.testing.assert_close(loss.bound, oracle.evidence(oracle.x), rtol=0, atol=1e-9)


@objectives(lambda row: row.evidence)
def test_gradient_of_the_evidence_at_the_exact_posterior(oracle, row):
    """There the mean gradient of the bound in the model's parameters is that of log p(x): 60 means over 5 copies of 6 examples."""
    parameters = [oracle.likelihood.weight, oracle.likelihood.bias, oracle.likelihood.log_scale]
    exact = torch.autograd.grad(oracle.evidence(oracle.x).mean(), parameters)
    model, objective, many = oracle.exact(), row.make(), Batch(oracle.x.repeat(5, 1))
    draws = [torch.autograd.grad(-objective(model, many).surrogate.mean(), parameters) for _ in range(60)]
    for got, want in zip(zip(*draws, strict=True), exact, strict=True):
        assert z_score(torch.stack(got), want).abs().max() < 4.5


# --- the imperfect posterior: exact ELBO, its gradient, and the order of the bounds ---------------------------------------------------


@objectives(lambda row: row.elbo)
def test_elbo_is_unbiased(oracle, row):
    """20,000 draws of each of 6 examples."""
    objective, model = row.make(), oracle.model()
    with torch.no_grad():
        many = Batch(oracle.x.repeat(20_000, 1))
        got = objective(model, many).bound.view(20_000, -1)
        assert z_score(got, oracle.elbo(oracle.x)).abs().max() < 4.5


@objectives()
def test_the_bound_is_a_lower_bound(oracle, row):
    """Its mean over 4,000 draws of each of 6 examples does not exceed log p(x)."""
    with torch.no_grad():
        got = row.make()(oracle.model(), Batch(oracle.x.repeat(4_000, 1))).bound.view(4_000, -1)
    assert z_score(got, oracle.evidence(oracle.x).detach()).max() < 4.5


@objectives(lambda row: row.elbo)
def test_elbo_gradients_are_unbiased(oracle, row):
    """Every parameter, encoder and decoder: 200 means over 50 copies of 6 examples."""
    objective, model = row.make(), oracle.model()
    parameters = list(model.parameters())
    exact = torch.autograd.grad(oracle.elbo(oracle.x).mean(), parameters)
    many = Batch(oracle.x.repeat(50, 1))
    draws = [torch.autograd.grad(-objective(model, many).surrogate.mean(), parameters) for _ in range(200)]
    for got, want in zip(zip(*draws, strict=True), exact, strict=True):
        assert z_score(torch.stack(got), want).abs().max() < 4.5


def test_bounds_rise_with_k_to_the_evidence(oracle):
    """Means over 4,000 draws: L_1 < L_5 < L_50 < log p(x), each step by more than 4 standard errors of the paired difference, and the
    gap left at K = 2000 is under 2% of the gap at K = 1."""
    model, evidence = oracle.model(), oracle.evidence(oracle.x).detach()
    with torch.no_grad():
        log_w = model.infer(Batch(oracle.x.repeat(4_000, 1)), k=50).log_w.view(50, 4_000, -1)
        values = [bounds.iwae(log_w[:k].flatten(1)).view(4_000, -1).mean(-1) for k in (1, 5, 50)]
        for low, high in itertools.pairwise(values):
            assert z_score(high - low, 0.0) > 4
        assert z_score(values[-1], evidence.mean()) < -4
        tight = bounds.iwae(model.infer(Batch(oracle.x.repeat(50, 1)), k=2_000).log_w)
    assert abs(tight.mean() - evidence.mean()) < 0.02 * (evidence.mean() - oracle.elbo(oracle.x).mean())


def test_iwae_two_samples_against_quadrature():
    """E log (w_1 + w_2)/2 and its gradient by two-dimensional Gauss-Hermite quadrature, one latent dimension; 400 means of 200 draws."""
    oracle = PPCA(latent=1, data=2, seed=3)
    x, model = oracle.x[:1], oracle.model()
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    eps, mass = torch.tensor(nodes), torch.tensor(weights / weights.sum())
    q = model.posterior(x)
    z = (q.loc + eps[:, None] * q.scale).unsqueeze(1)  # [60, 1, 1]
    log_w = model.score(Batch(x), z).log_w.squeeze(1)
    pair = torch.logaddexp(log_w[:, None], log_w[None, :]) - np.log(2)
    exact = (mass[:, None] * mass[None, :] * pair).sum()
    parameters = list(model.parameters())
    gradient = torch.autograd.grad(exact, parameters)
    many, objective = Batch(x.repeat(200, 1)), IWAE(2)
    losses = [objective(model, many) for _ in range(400)]
    assert z_score(torch.stack([loss.bound.mean() for loss in losses]), exact.detach()).abs() < 4.5
    draws = [torch.autograd.grad(-loss.surrogate.mean(), parameters) for loss in losses]
    for got, want in zip(zip(*draws, strict=True), gradient, strict=True):
        assert z_score(torch.stack(got), want).abs().max() < 4.5


def test_closed_form_kl_has_the_lower_variance(oracle):
    model, many = oracle.model(), Batch(oracle.x[:1].repeat(4_000, 1))
    with torch.no_grad():
        t = model.infer(many, 1)
        assert z_score((t.rate - t.kl)[0], 0.0).abs().max() < 4.5
        assert (t.kl.var(1) < t.rate.var(1)).all()


# --- enumeration: discrete latents ----------------------------------------------------------------------------------------------------


class Bits(nn.Module):
    """Independent Bernoulli variables with logits W c + b."""

    def __init__(self, n: int, d: int) -> None:
        super().__init__()
        self.linear = nn.Linear(n, d, dtype=torch.float64)

    def forward(self, c: Tensor | None = None) -> Independent:
        h = self.linear.bias if c is None else self.linear(c)
        return Independent(Bernoulli(logits=h, validate_args=False), 1, validate_args=False)


def discrete(kind: str) -> tuple[VAE | Ladder, tuple[int, ...]]:
    torch.manual_seed(3)
    if kind == "flat":
        return VAE(Bits(1, 3), Bits(5, 3), Bits(3, 5)), (3,)
    rungs = [Rung(Bits(1, 2), Bits(5, 2)), Rung(Bits(2, 3), Bits(2 + 5, 3))]
    return Ladder([nn.Identity(), nn.Identity()], rungs, Bits(3, 5)), (2, 3)


def all_states(sizes: tuple[int, ...], n: int) -> tuple[Tensor, ...]:
    states = torch.tensor(list(itertools.product([0.0, 1.0], repeat=sum(sizes))), dtype=torch.float64)
    return tuple(z.unsqueeze(1).expand(-1, n, -1) for z in states.split(sizes, -1))


@pytest.mark.parametrize("kind", ["flat", "ladder"])
def test_enumerated_bernoulli_model(kind):
    """p(x) summed over all x is 1, q(z|x) over all z is 1, and the sampled ELBO has the enumerated mean (20,000 draws)."""
    model, sizes = discrete(kind)
    xs = torch.tensor(list(itertools.product([0.0, 1.0], repeat=5)), dtype=torch.float64)
    with torch.no_grad():
        t = model.score(Batch(xs), all_states(sizes, len(xs)))
        log_px = t.log_joint.logsumexp(0)
        assert log_px.exp().sum().item() == pytest.approx(1, abs=1e-12)
        torch.testing.assert_close(t.log_qz.logsumexp(0), torch.zeros(32, dtype=torch.float64), rtol=0, atol=1e-12)
        elbo = (t.log_qz.exp() * t.log_w).sum(0)
        assert (elbo <= log_px).all()
        drawn = model.infer(Batch(xs[11:12].repeat(20_000, 1)), reparam=False).log_w[0]
    assert z_score(drawn, elbo[11]).abs() < 4.5


def test_objective_refuses_a_posterior_without_reparameterised_sample():
    model, _ = discrete("flat")
    with pytest.raises(InputError, match="no reparameterised sample"):
        ELBO()(model, Batch(torch.ones(2, 5, dtype=torch.float64)))


# --- invariances ----------------------------------------------------------------------------------------------------------------------


def test_score_of_inferred_latents_reproduces_log_w(oracle):
    model = oracle.model()
    t = model.infer(batch(oracle), k=4)
    again = model.score(batch(oracle), t.z)
    torch.testing.assert_close(again.log_w, t.log_w, rtol=0, atol=1e-12)
    torch.testing.assert_close(model.log_joint(batch(oracle), t.z), t.log_px + t.log_pz, rtol=0, atol=1e-12)
    torch.testing.assert_close(t.log_px - t.rate.sum(-1), t.log_w, rtol=0, atol=1e-12)


def test_permuting_and_chunking_k_changes_nothing(oracle):
    log_w = oracle.model().infer(batch(oracle), k=100).log_w.detach()
    shuffled = log_w[torch.randperm(100)]
    for bound in (bounds.elbo, bounds.iwae, bounds.ess, lambda w: bounds.renyi(w, 0.5)):
        torch.testing.assert_close(bound(shuffled), bound(log_w))
    for size in (1, 7, 100):
        w = bounds.Weights.empty(log_w.shape[1])
        for chunk in log_w.split(size):
            w = w.update(chunk)
        for got, want in ((w.elbo, bounds.elbo(log_w)), (w.iwae, bounds.iwae(log_w)), (w.ess, bounds.ess(log_w))):
            torch.testing.assert_close(got, want)


def test_flat_model_equals_one_level_ladder():
    oracle = PPCA()
    flat = oracle.model()
    ladder = Ladder([nn.Identity()], [Rung(flat.prior, flat.posterior)], flat.likelihood)
    for row in OBJECTIVES.values():
        losses = []
        for model in (flat, ladder):
            torch.manual_seed(5)
            losses.append(row.make()(model, batch(oracle)))
        assert torch.equal(losses[0].surrogate, losses[1].surrogate)
        assert torch.equal(losses[0].bound, losses[1].bound)


def test_examples_do_not_see_each_other(oracle):
    model = oracle.model()
    t = model.infer(batch(oracle), k=3)
    for i in range(len(oracle.x)):
        alone = model.score(Batch(oracle.x[i : i + 1]), [z[:, i : i + 1] for z in t.z])
        torch.testing.assert_close(alone.log_w[:, 0], t.log_w[:, i], rtol=0, atol=1e-12)


# --- masks: missing entries -----------------------------------------------------------------------------------------------------------


def test_all_ones_mask_equals_none(oracle):
    model = oracle.model()
    t = model.infer(batch(oracle), k=3)
    masked = model.score(Batch(oracle.x, mask=torch.ones_like(oracle.x, dtype=torch.bool)), t.z)
    assert torch.equal(masked.log_w, t.log_w)


@pytest.mark.parametrize("entries", [[0, 2], [3]])
def test_masked_log_w_is_the_evidence_of_the_observed_entries(oracle, entries):
    """With the exact posterior given the observed entries; NaN stands in the missing ones."""
    mask = torch.zeros_like(oracle.x, dtype=torch.bool)
    mask[:, entries] = True
    incomplete = Batch(torch.where(mask, oracle.x, torch.nan), mask=mask)
    log_w = oracle.exact(entries).infer(incomplete, k=5).log_w
    torch.testing.assert_close(log_w, oracle.evidence(oracle.x, torch.tensor(entries)).expand(5, -1), rtol=0, atol=1e-9)


def test_missing_entries_have_no_gradient(oracle):
    mask = torch.ones_like(oracle.x, dtype=torch.bool)
    mask[:, 1] = False
    x = oracle.x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(ELBO()(oracle.model(), Batch(x, mask=mask)).surrogate.sum(), x)
    assert (gradient[:, 1] == 0).all() and (gradient[:, 0] != 0).all()


def test_mask_is_refused_where_the_likelihood_does_not_factorise():
    oracle = PPCA()
    model = VAE(StandardNormal(2).double(), oracle.encoder, Full(torch.eye(4, 2).double(), oracle.x[0], torch.eye(4).double()))
    with pytest.raises(InputError, match="does not factorise"):
        ELBO()(model, Batch(oracle.x, mask=torch.ones_like(oracle.x, dtype=torch.bool)))


# --- generation -----------------------------------------------------------------------------------------------------------------------


def test_ancestral_samples_have_the_exact_moments(oracle):
    """Mean and covariance of 100,000 x ~ p(x) against the marginal."""
    torch.manual_seed(2)
    mean, cov = oracle.joint()
    n = oracle.likelihood.bias.numel()
    x = oracle.model().sample(100_000, mean=False)
    assert z_score(x, mean[-n:].detach()).abs().max() < 4.5
    centred = x - mean[-n:].detach()
    assert z_score(centred[:, :, None] * centred[:, None, :], cov[-n:, -n:].detach()).abs().max() < 4.5


def test_dream_pairs_x_with_the_latents_that_made_it(oracle):
    """E[x z_1'] over 50,000 dreams is the joint covariance; q is scored at these z."""
    torch.manual_seed(2)
    mean, cov = oracle.joint()
    n = oracle.likelihood.bias.numel()
    t = oracle.model().dream(50_000)
    z, x = t.z[0][0], t.batch.x - mean[-n:].detach()
    assert z_score(x[:, :, None] * z[:, None, :], cov[-n:, : z.shape[-1]].detach()).abs().max() < 4.5
    torch.testing.assert_close(t.log_qz, oracle.model().score(t.batch, t.z).log_qz)


def test_temperature_scales_the_noise():
    oracle = LinearLadder()
    model = oracle.model()
    torch.manual_seed(0)
    hot = model.trace(from_p(1, 20_000, temperature=0.5)).z[0][0]
    assert z_score(hot.square(), 0.25).abs().max() < 4.5
    cold = model.trace(from_p(1, 3, temperature=0.0)).z
    torch.testing.assert_close(cold[1][0], oracle.lower.bias.expand(3, -1))
    for bad in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match=f"temperature {bad}: it must be 0 or more and finite"):
            from_p(1, 3, temperature=bad)


def test_prefix_holds_the_top_and_samples_the_rest():
    """Given z_1, the second level follows p(z_2 | z_1) or q(z_2 | z_1, x): 20,000 draws against each conditional's mean and scale."""
    oracle = LinearLadder()
    model = oracle.model()
    top = torch.tensor([[[1.5, -0.5]]], dtype=torch.float64)
    torch.manual_seed(0)
    n = 20_000
    with torch.no_grad():
        below = model.trace(prefix(top.expand(1, n, -1), from_p(1, n))).z
        assert (below[0] == top).all()
        want = oracle.lower(top[0])
        assert z_score(below[1][0], want.loc[0]).abs().max() < 4.5
        assert z_score(((below[1][0] - want.loc[0]) / want.scale).square(), 1.0).abs().max() < 4.5
        b = Batch(oracle.x[:1])
        below = model.trace(prefix(top.expand(n, 1, -1), from_q(n)), b).z
        want = oracle.encoder[1](torch.cat([top[0], oracle.x[:1]], -1))
        assert z_score(below[1][:, 0], want.loc[0]).abs().max() < 4.5


def test_centre_is_the_posterior_mean_and_reconstruction_its_decoding():
    oracle = PPCA()
    model = oracle.exact()
    z = model.embed(batch(oracle))
    posterior = model.posterior(oracle.x)
    assert isinstance(posterior, MultivariateNormal)
    torch.testing.assert_close(z, posterior.mean)
    want = (z @ oracle.likelihood.weight.mT + oracle.likelihood.bias).detach()
    torch.testing.assert_close(model.reconstruct(batch(oracle)), want)


# --- objectives: what is minimised and what is reported -------------------------------------------------------------------------------


def test_penalties_change_the_surrogate_and_never_the_bound(oracle):
    model = oracle.model()
    torch.manual_seed(1)
    plain = ELBO()(model, batch(oracle))
    rate = torch.stack([v for key, v in sorted(plain.logs.items()) if key.startswith("rate")], -1)
    low = float(rate.mean(0).min())
    cases = {
        Beta(4.0): 4 * rate.sum(-1),
        Beta(Linear(0, 1, 10)): 0.3 * rate.sum(-1),
        Beta(Cyclical(0, 1, 8, cycles=2)): rate.sum(-1),
        FreeBits(0.0): rate.sum(-1),
        FreeBits(1e6): torch.full_like(rate.sum(-1), 1e6 * oracle.levels),
        Capacity(3.0, 0.5): (3 * (rate.sum(-1).mean() - 0.5).abs()).expand(len(rate)),
    }
    if oracle.levels == 2:  # lambda between the two levels' rates: the smaller one is held at it, the larger one counts
        mid = float(rate.mean(0).mean())
        cases[FreeBits(mid)] = torch.where(rate.mean(0) > mid, rate, torch.full_like(rate, mid)).sum(-1)
        assert low < mid
    for penalty, want in cases.items():
        torch.manual_seed(1)
        loss = ELBO(penalty=penalty)(model, batch(oracle), step=3)
        torch.testing.assert_close(loss.bound, plain.bound)
        torch.testing.assert_close(loss.surrogate, want - loss.logs["log_px"])


def test_free_bits_below_the_threshold_leave_no_gradient_from_the_rate(oracle):
    torch.manual_seed(1)
    model = oracle.model()
    loss = ELBO(penalty=FreeBits(1e6))(model, batch(oracle))
    torch.manual_seed(1)
    reconstruction = -model.infer(batch(oracle)).log_px.mean()
    parameters = list(oracle.encoder.parameters())
    for a, b in zip(torch.autograd.grad(loss.surrogate.mean(), parameters), torch.autograd.grad(reconstruction, parameters), strict=True):
        torch.testing.assert_close(a, b)


def test_bounds_keep_their_digits():
    """Log-weights of the size of an image's, in float32, and Renyi's alpha next to 1 and beyond."""
    torch.testing.assert_close(bounds.ess(torch.full((7, 1), -123456.7)), torch.tensor([7.0]))
    log_w = torch.tensor([[-100.0], [-101.0], [-103.0]])
    for alpha in (1 - 1e-7, 1 + 1e-7):
        torch.testing.assert_close(bounds.renyi(log_w, alpha), bounds.elbo(log_w), rtol=0, atol=1e-3)
    exact = torch.logsumexp(-2.0 * log_w.double(), 0) - np.log(3)
    torch.testing.assert_close(bounds.renyi(log_w, 3.0).double(), exact / -2.0)
    with pytest.raises(InputError, match="finite"):
        bounds.renyi(log_w, float("-inf"))


def test_bounds_of_constant_weights():
    log_w = torch.full((4, 2), -3.0)
    for value in (bounds.elbo(log_w), bounds.iwae(log_w), bounds.renyi(log_w, 0.3), bounds.renyi(log_w, 1.0)):
        torch.testing.assert_close(value, torch.full((2,), -3.0))
    torch.testing.assert_close(bounds.ess(log_w), torch.full((2,), 4.0))
    uneven = torch.tensor([[0.0, -1.0], [2.0, -7.0]])
    torch.testing.assert_close(bounds.iwae(uneven), torch.log(uneven.exp().mean(0)))
    assert (bounds.elbo(uneven) < bounds.renyi(uneven, 0.5)).all() and (bounds.renyi(uneven, 0.5) < bounds.iwae(uneven)).all()


@objectives()
def test_objectives_compile_to_one_graph(oracle, row):
    torch._dynamo.reset()
    objective, model = row.make(), oracle.model()
    torch.manual_seed(4)
    eager = copy.deepcopy(objective)(model, batch(oracle))  # what it remembers must not be there already
    torch.manual_seed(4)
    compiled = torch.compile(objective, fullgraph=True, backend="eager")(model, batch(oracle))
    torch.testing.assert_close(compiled.surrogate, eager.surrogate)


# --- requests that cannot be met ------------------------------------------------------------------------------------------------------


def test_wrong_requests_say_why(oracle):
    model = oracle.model()
    with pytest.raises(InputError, match="at least 1"):
        ELBO(0)
    with pytest.raises(InputError, match="at least 1"):
        IWAE(0)
    with pytest.raises(InputError, match="at least 1"):
        model.sample(0)
    with pytest.raises(InputError, match="needs a batch"):
        model.trace(from_q(1))
    with pytest.raises(InputError, match="no data to score"):
        _ = model.trace(from_p(1, 2)).log_px
    with pytest.raises(InputError, match="no posterior"):
        _ = model.trace(from_p(1, 2)).log_qz
    with pytest.raises(InputError, match="as many bottom-up modules as rungs"):
        Ladder([], [], nn.Identity())
    if oracle.levels == 2:
        with pytest.raises(InputError, match=r"asks for level 1"):
            model.trace(given(torch.zeros(1, 6, 2, dtype=torch.float64)), batch(oracle))


class Plain(nn.Module):
    """A posterior that forgets to say which dimensions form one event."""

    def forward(self, x: Tensor) -> Normal:
        return Normal(x[:, :1], torch.ones_like(x[:, :1]))


def test_shapes_that_would_broadcast_are_refused():
    """Each of these would give a number, and a wrong one."""
    oracle = PPCA()
    b = batch(oracle)
    likelihood = oracle.likelihood
    narrow = PPCA(latent=1).encoder
    with pytest.raises(InputError, match=r"level 0: q\(z \| x\) = DiagGaussian has events \[1\], p\(z\) = DiagGaussian has \[2\]"):
        VAE(StandardNormal(2).double(), narrow, likelihood).infer(b)
    with pytest.raises(InputError, match=r"q\(z \| x\) = Normal has events \[\].*Independent"):
        VAE(StandardNormal(1).double(), Plain(), likelihood).infer(b)
    with pytest.raises(InputError, match=r"level 0: z .* must begin with \[K, B\]"):
        VAE(lambda: Normal(torch.zeros(1).double(), 1.0), Plain(), likelihood.__class__(1, 4, 1.0, torch.Generator())).infer(b, 3)
    model = oracle.model()
    with pytest.raises(InputError, match=r"shape \[6, 2\]; they must be \[K, B, 2\]"):
        model.score(b, model.embed(b))
    with pytest.raises(InputError, match="2 levels of latents were given and the model has 1"):
        model.score(b, [torch.zeros(1, 6, 2).double()] * 2)
    with pytest.raises(InputError, match="write Batch"):
        model.infer(oracle.x)
    with pytest.raises(InputError, match="takes no context"):
        model.infer(Batch(oracle.x, c=oracle.x))
    with pytest.raises(InputError, match="mask is float32"):
        model.infer(Batch(oracle.x, mask=torch.ones(6, 4)))


def test_centre_without_data_is_the_prior_s(oracle):
    t = oracle.model().trace(at_centre())
    assert [tuple(z.shape) for z in t.z] == [(1, 1, 2)] * oracle.levels
    assert (t.z[0] == 0).all()


def test_centre_of_a_transformed_and_of_a_meanless_distribution():
    base = DiagGaussian(torch.tensor([0.0, 1.0]), torch.zeros(2))
    moved = TransformedDistribution(base, [AffineTransform(1.0, 2.0), SigmoidTransform()])
    torch.testing.assert_close(centre(moved), torch.sigmoid(torch.tensor([1.0, 3.0])))

    class Meanless(torch.distributions.Distribution):
        pass

    with pytest.raises(InputError, match="Meanless has no mean"):
        centre(Meanless(validate_args=False))


def test_torch_s_own_gaussian_has_the_closed_form_too():
    ours = DiagGaussian(torch.randn(3, 2), torch.randn(3, 2))
    other = DiagGaussian(torch.randn(3, 2), torch.randn(3, 2))

    def torch_s(d: DiagGaussian) -> Independent:
        return Independent(Normal(d.loc, d.scale), 1)

    want = torch.distributions.kl_divergence(torch_s(ours), torch_s(other))
    torch.testing.assert_close(closed_form_kl(torch_s(ours), other), want)
    torch.testing.assert_close(closed_form_kl(ours, torch_s(other)), want)
    assert closed_form_kl(Independent(Bernoulli(torch.rand(3, 2)), 1), ours) is None


def test_masks_reach_through_nested_independents():
    x, mask = torch.randn(5, 3, 2), torch.rand(5, 3, 2) > 0.5
    d = Independent(DiagGaussian(torch.zeros(5, 3, 2), torch.zeros(5, 3, 2)), 1)
    nested = Independent(Independent(Normal(torch.zeros(5, 3, 2), 1.0), 1), 1)
    want = (Normal(0.0, 1.0).log_prob(x) * mask).sum((1, 2))
    torch.testing.assert_close(log_prob_observed(d, x, mask), want)
    torch.testing.assert_close(log_prob_observed(nested, x, mask), want)


def test_closed_form_is_insisted_on_only_where_there_is_one():
    oracle = PPCA()

    class Halves(nn.Module):
        def forward(self) -> torch.distributions.Distribution:
            z = torch.zeros(2, dtype=torch.float64)
            return torch.distributions.MixtureSameFamily(
                torch.distributions.Categorical(logits=z), DiagGaussian(torch.stack([z - 1, z + 1]), torch.zeros(2, 2, dtype=torch.float64))
            )

    model = VAE(Halves(), oracle.encoder, oracle.likelihood)
    assert ELBO()(model, batch(oracle)).bound.shape == (6,)
    with pytest.raises(InputError, match=r"level 0: KL\(DiagGaussian \|\| MixtureSameFamily\) has no closed form"):
        ELBO(closed_form=True)(model, batch(oracle))
