"""Path-derivative and score-function objectives against exact gradients: PPCA, the linear ladder, the enumerable Bernoulli model.

Statistical tests use fixed seeds and say how many samples they take; a z-score beyond 4.5 fails (about 7 in a million per comparison).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from oracles import PPCA, Full, LinearLadder, batch, z_score
from tables import POSTERIORS
from test_oracles import all_states, discrete
from vaekit import bounds, heads, priors
from vaekit.conditional import Conditional
from vaekit.data import Split
from vaekit.dist import Bernoulli, Categorical, closed_form_kl, draw
from vaekit.errors import InputError
from vaekit.models import VAE, Ladder, LatentModel, Rung
from vaekit.objectives import ELBO, IWAE, NVIL, REINFORCE, RWS, STL, VIMCO, DReG, LeaveOneOut, Objective, RunningMean
from vaekit.quantise import Codebook, UniformCodes
from vaekit.train import Training, fit
from vaekit.types import Batch

f64 = torch.float64
ORACLES = {"ppca": PPCA, "ladder": LinearLadder}
PATHS: dict[str, Callable[[], Objective]] = {"stl": STL, "stl-3": lambda: STL(3), "dreg-1": lambda: DReG(1)}
SCORES: dict[str, Callable[[int], Objective]] = {
    "reinforce": lambda d: REINFORCE(),
    "reinforce-2": lambda d: REINFORCE(2),
    "running-mean": lambda d: REINFORCE(baseline=_warm(RunningMean(), -4.0)),
    "leave-one-out": lambda d: REINFORCE(3, baseline=LeaveOneOut()),
    "nvil": lambda d: _nvil(d, normalise=False),
    "nvil-normalised": lambda d: _nvil(d, normalise=True),
}
"""x's dimensions -> an objective whose bound is the ELBO."""
SCALE = 2.5  # what _nvil(normalise=True) divides the encoder's gradient by


def _warm(baseline: RunningMean, value: float) -> RunningMean:
    baseline(torch.full((1, 1), value, dtype=f64))
    return baseline


def _nvil(d: int, *, normalise: bool) -> NVIL:
    """With a baseline network of random weights, a running mean of -1 and a running standard deviation of 2.5."""
    with torch.random.fork_rng():
        torch.manual_seed(8)
        nvil = NVIL(nn.Linear(d, 1, dtype=f64), 2, normalise=normalise)
    nvil._mean.update(torch.tensor(-1.0))
    nvil._variance.update(torch.tensor(SCALE**2))
    return nvil


@pytest.fixture(params=ORACLES, ids=list(ORACLES))
def oracle(request: pytest.FixtureRequest) -> PPCA | LinearLadder:
    torch.manual_seed(0)
    return ORACLES[request.param]()


def draws(objective: Objective, model: LatentModel, many: Batch, parameters: Sequence[Tensor], n: int) -> list[Tensor]:
    """n gradients of minus the surrogate's mean, ``[n, *]`` for each parameter."""
    found = [torch.autograd.grad(-objective(model, many).surrogate.mean(), parameters) for _ in range(n)]
    return [torch.stack(one) for one in zip(*found, strict=True)]


class Learned(nn.Module):
    """N(A c + a, L L^T) with parameters, started at an exact posterior (A, a, S)."""

    def __init__(self, a_matrix: Tensor, a: Tensor, cov: Tensor) -> None:
        super().__init__()
        self.a_matrix, self.a, self.tril = nn.Parameter(a_matrix), nn.Parameter(a), nn.Parameter(torch.linalg.cholesky(cov))

    def forward(self, c: Tensor) -> MultivariateNormal:
        return MultivariateNormal(c @ self.a_matrix.mT + self.a, scale_tril=self.tril.tril(), validate_args=False)


def exact_and_learned(oracle: PPCA | LinearLadder) -> tuple[LatentModel, list[nn.Parameter]]:
    """The model with posteriors that are exact and have parameters, and these."""
    parts = [Learned(m.a_matrix, m.a, m.tril @ m.tril.mT) for m in oracle.exact().modules() if isinstance(m, Full)]
    return oracle.model(*parts), [p for part in parts for p in part.parameters()]


# --- sharp: at the exact posterior a path gradient is 0, draw by draw -----------------------------------------------------------------


@pytest.mark.parametrize("make", [*PATHS.values(), lambda: DReG(5)], ids=[*PATHS, "dreg-5"])
def test_path_gradient_is_zero_at_the_exact_posterior(oracle, make):
    model, encoder = exact_and_learned(oracle)
    loss = make()(model, batch(oracle))
    torch.testing.assert_close(loss.bound, oracle.evidence(oracle.x), rtol=0, atol=1e-9)
    for gradient in torch.autograd.grad(loss.surrogate.mean(), encoder):
        assert gradient.tril().abs().max() < 1e-9 if gradient.dim() == 2 else gradient.abs().max() < 1e-9
    with_score = torch.autograd.grad(IWAE(5)(model, batch(oracle)).surrogate.mean(), encoder)
    assert min(gradient.abs().max() for gradient in with_score) > 1e-3


# --- unbiased: exact gradients of the ELBO --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(PATHS))
def test_path_gradients_are_unbiased(oracle, name):
    """Every parameter, encoder and decoder: 200 means over 50 copies of 6 examples."""
    model = oracle.model()
    parameters = list(model.parameters())
    exact = torch.autograd.grad(oracle.elbo(oracle.x).mean(), parameters)
    for got, want in zip(draws(PATHS[name](), model, Batch(oracle.x.repeat(50, 1)), parameters, 200), exact, strict=True):
        assert z_score(got, want).abs().max() < 4.5


@pytest.mark.parametrize("name", list(SCORES))
def test_score_gradients_are_unbiased(oracle, name):
    """As above; what is remembered stands still. NVIL's normalisation divides the encoder's gradient, and nothing else's."""
    objective, model = SCORES[name](4).eval(), oracle.model()
    parameters = dict(model.named_parameters())
    exact = torch.autograd.grad(oracle.elbo(oracle.x).mean(), list(parameters.values()))
    found = draws(objective, model, Batch(oracle.x.repeat(50, 1)), list(parameters.values()), 200)
    encoder = {id(p) for p in oracle.encoder.parameters()}
    for parameter, got, want in zip(parameters.values(), found, exact, strict=True):
        divided = SCALE if name == "nvil-normalised" and id(parameter) in encoder else 1.0
        assert z_score(got * divided, want).abs().max() < 4.5


@pytest.mark.parametrize("kind", ["flat", "ladder"])
@pytest.mark.parametrize("name", list(SCORES))
def test_score_gradients_of_discrete_latents_are_unbiased(kind, name):
    """Against the enumerated ELBO's gradient; 200 means over 100 copies of 3 examples."""
    model, sizes = discrete(kind)
    xs = torch.tensor([[1, 0, 1, 1, 0], [0, 0, 0, 1, 0], [1, 1, 1, 1, 1]], dtype=f64)
    objective = SCORES[name](5).eval()
    parameters = [p for key, p in model.named_parameters() if "prior.linear.weight" not in key or "rungs.1" in key]
    t = model.score(Batch(xs), all_states(sizes, 3))
    exact = torch.autograd.grad((t.log_qz.exp() * t.log_w).sum(0).mean(), parameters)
    names = {id(p): key for key, p in model.named_parameters()}
    for parameter, got, want in zip(parameters, draws(objective, model, Batch(xs.repeat(100, 1)), parameters, 200), exact, strict=True):
        divided = SCALE if name == "nvil-normalised" and "posterior" in names[id(parameter)] else 1.0
        assert z_score(got * divided, want).abs().max() < 4.5


@pytest.mark.parametrize("name", [*PATHS, *SCORES])
def test_bound_is_the_elbo(oracle, name):
    """20,000 draws of each of 6 examples, without gradients, as validation asks for it."""
    objective = PATHS[name]() if name in PATHS else SCORES[name](4).eval()
    with torch.no_grad():
        got = objective(oracle.model(), Batch(oracle.x.repeat(20_000, 1))).bound.view(20_000, -1)
    assert z_score(got, oracle.elbo(oracle.x)).abs().max() < 4.5


@pytest.mark.parametrize("kind", ["bernoulli", "categorical"])
def test_closed_form_kl_of_discrete_latents(kind):
    """Against the sum over all states, q with batch [3] and p with [] and [5, 3]."""
    torch.manual_seed(0)
    classes = 2 if kind == "bernoulli" else 3

    def make(*batch_shape: int) -> torch.distributions.Distribution:
        if kind == "bernoulli":
            return Bernoulli(torch.randn(*batch_shape, 4, dtype=f64))
        return Categorical(torch.randn(*batch_shape, classes, 4, dtype=f64))

    states = torch.tensor(list(itertools.product(range(classes), repeat=4)), dtype=f64)
    q = make(3)
    for p in (make(), make(5, 3)):
        z = states.view(-1, *(1,) * max(1, len(p.batch_shape)), 4)
        want = (q.log_prob(z).exp() * (q.log_prob(z) - p.log_prob(z))).sum(0)
        torch.testing.assert_close(closed_form_kl(q, p), want)


# --- unbiased: exact gradients of the K-sample bound ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["flat", "ladder"])
def test_vimco_against_all_pairs(kind):
    """E log (w_1 + w_2)/2 over all 2^D x 2^D pairs of latents; 400 means over 100 copies of 2 examples."""
    model, sizes = discrete(kind)
    xs = torch.tensor([[1, 0, 1, 1, 0], [0, 1, 0, 1, 1]], dtype=f64)
    parameters = [p for key, p in model.named_parameters() if "prior.linear.weight" not in key or "rungs.1" in key]
    t = model.score(Batch(xs), all_states(sizes, 2))
    mass, log_w = t.log_qz.exp(), t.log_w
    pair = torch.logaddexp(log_w[:, None], log_w[None, :]) - np.log(2)
    bound = (mass[:, None] * mass[None, :] * pair).sum((0, 1))
    exact = torch.autograd.grad(bound.mean(), parameters)
    objective, many = VIMCO(2), Batch(xs.repeat(100, 1))
    for got, want in zip(draws(objective, model, many, parameters, 400), exact, strict=True):
        assert z_score(got, want).abs().max() < 4.5
    with torch.no_grad():
        got = torch.stack([objective(model, many).bound.view(100, 2).mean(0) for _ in range(100)])
    assert z_score(got, bound.detach()).abs().max() < 4.5


@pytest.mark.parametrize("make", [DReG, VIMCO])
def test_two_samples_against_quadrature(make):
    """Bound and gradient by two-dimensional Gauss-Hermite quadrature, one latent dimension; 400 means of 200 draws."""
    oracle = PPCA(latent=1, data=2, seed=3)
    x, model = oracle.x[:1], oracle.model()
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    eps, mass = torch.tensor(nodes), torch.tensor(weights / weights.sum())
    q = model.posterior(x)
    log_w = model.score(Batch(x), (q.loc + eps[:, None] * q.scale).unsqueeze(1)).log_w.squeeze(1)
    pair = torch.logaddexp(log_w[:, None], log_w[None, :]) - np.log(2)
    exact = (mass[:, None] * mass[None, :] * pair).sum()
    parameters = list(model.parameters())
    gradient = torch.autograd.grad(exact, parameters)
    torch.manual_seed(0)
    many, objective = Batch(x.repeat(200, 1)), make(2)
    for got, want in zip(draws(objective, model, many, parameters, 400), gradient, strict=True):
        assert z_score(got, want).abs().max() < 4.5
    with torch.no_grad():
        assert z_score(torch.stack([objective(model, many).bound.mean() for _ in range(400)]), exact.detach()).abs() < 4.5


@pytest.mark.parametrize("make", [DReG, VIMCO])
def test_gradient_of_five_samples_is_the_iwae_s(oracle, make):
    """Levels and all: 200 means over 50 copies of 6 examples each, against as many of IWAE's."""
    model, many = oracle.model(), Batch(oracle.x.repeat(50, 1))
    parameters = list(model.parameters())
    ours, theirs = (draws(objective, model, many, parameters, 200) for objective in (make(5), IWAE(5)))
    for got, want in zip(ours, theirs, strict=True):
        z = (got.mean(0) - want.mean(0)) / ((got.var(0) + want.var(0)) / 200).sqrt()
        assert z.abs().max() < 4.5


@pytest.mark.parametrize("name", ["gaussian", "full_gaussian", "mixture_gaussian", "maf", "iaf", "radial", "householder"])
def test_path_gradients_of_any_posterior(name):
    """Flows, mixtures, a VampPrior made of the encoder: STL has the ELBO's mean gradient, DReG the IWAE's; 100 means over 100 copies."""
    torch.manual_seed(1)
    q = POSTERIORS[name](6, 2).double()
    likelihood = Conditional(nn.Linear(2, 12), heads.Gaussian(6)).double()
    model = VAE(priors.VampPrior(q, torch.rand(3, 6, dtype=f64)), q, likelihood)
    many = Batch(torch.randn(1, 6, dtype=f64).repeat(100, 1))
    parameters = [p for p in model.parameters() if p.requires_grad]
    for ours, theirs in ((STL(), ELBO(closed_form=False)), (DReG(4), IWAE(4))):
        found = [draws(objective, model, many, parameters, 100) for objective in (ours, theirs)]
        for got, want in zip(*found, strict=True):
            se = ((got.var(0) + want.var(0)) / 100).sqrt().clamp(min=1e-12)
            assert ((got.mean(0) - want.mean(0)) / se).abs().max() < 4.5


def test_dreg_of_one_sample_is_stl(oracle):
    """To the last digits, decoder and encoder."""
    model = oracle.model()
    parameters = list(model.parameters())
    found = []
    for objective in (STL(), DReG(1)):
        torch.manual_seed(3)
        found.append(torch.autograd.grad(objective(model, batch(oracle)).surrogate.mean(), parameters))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


# --- variance: what the estimators are for --------------------------------------------------------------------------------------------


class PerExample(nn.Module):
    """The encoder with an offset of its mean for every row, whose gradient is one draw each."""

    def __init__(self, encoder: nn.Module, rows: int) -> None:
        super().__init__()
        self.encoder, self.offset = encoder, nn.Parameter(torch.zeros(rows, 2, dtype=f64))

    def forward(self, x: Tensor) -> torch.distributions.Distribution:
        q = self.encoder(x)
        return type(q)(q.loc + self.offset, q.log_scale)


def per_example(objective: Objective, rows: int = 20_000) -> Tensor:
    """Encoder gradients of one PPCA example, ``[rows, 2]``."""
    torch.manual_seed(11)
    oracle = PPCA()
    posterior = PerExample(oracle.encoder, rows)
    surrogate = objective(oracle.model(posterior), Batch(oracle.x[:1].expand(rows, -1))).surrogate
    (gradient,) = torch.autograd.grad(-surrogate.sum(), posterior.offset)
    return gradient


def test_signal_to_noise_of_dreg_rises_with_k_and_iwae_s_falls():
    """Slopes 1/2 and -1/2 of log SNR over log K from 16 to 64 (Rainforth et al., 2018; Tucker et al., 2019); 20,000 draws each."""
    slopes = {}
    for make in (IWAE, DReG):
        snr = []
        for k in (16, 64):
            g = per_example(make(k))
            variance = g.var(0).sum()
            snr.append(0.5 * ((g.mean(0).square().sum() - variance / len(g)) / variance).log().item())
        slopes[make] = (snr[1] - snr[0]) / np.log(4)
    assert -0.75 < slopes[IWAE] < -0.35 and 0.4 < slopes[DReG] < 0.6, slopes


def test_order_of_the_variances():
    """For one PPCA example and K = 3, 20,000 draws: paths beat scores, a baseline beats none, and the closed form the sampled KL."""
    variance = {
        name: per_example(objective.eval()).var(0).sum().item()
        for name, objective in {
            "closed": ELBO(3),
            "sampled": ELBO(3, closed_form=False),
            "stl": STL(3),
            "reinforce": REINFORCE(3),
            "left out": REINFORCE(3, baseline=LeaveOneOut()),
            "mean": REINFORCE(3, baseline=_warm(RunningMean(), -7.0)),
        }.items()
    }
    order = ["stl", "closed", "sampled", "left out", "mean", "reinforce"]
    assert sorted(variance, key=variance.__getitem__) == order, variance


# --- what is learned and remembered ----------------------------------------------------------------------------------------------------


def test_running_mean_looks_back_and_stands_still_in_evaluation():
    baseline = RunningMean(0.8)
    values = [-50.0, -40.0, -45.0]
    weight = np.array([0.8**2, 0.8, 1.0])
    assert [float(baseline(torch.full((2, 3), v))) for v in values][:2] == pytest.approx([0.0, -50.0])
    want = (weight * values).sum() / weight.sum()
    assert float(baseline.eval()(torch.zeros(2, 3))) == pytest.approx(want, rel=1e-6)
    assert float(baseline(torch.zeros(2, 3))) == pytest.approx(want, rel=1e-6)


def test_vimco_s_stand_in_is_the_geometric_mean():
    """One dominant weight among large negative ones: L_{-k} by its definition, in float64."""
    from vaekit.objectives.score import _others

    log_w = torch.tensor([[-700.0], [-1.0], [-705.0], [-702.0]], dtype=f64)
    want = []
    for k in range(4):
        others = torch.cat([log_w[:k], log_w[k + 1 :]])
        want.append(torch.cat([others, others.mean(0, keepdim=True)]).logsumexp(0) - np.log(4))
    torch.testing.assert_close(_others(log_w), torch.stack(want))


def test_nvil_learns_its_baseline_with_the_model_and_keeps_it_over_evaluation():
    """A baseline of x leaves less error than the mean alone where log p(x) differs from example to example."""
    torch.manual_seed(0)
    oracle = PPCA()
    x = oracle.model().sample(400, mean=False).float()
    objective = NVIL(nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 1)))
    start = [p.clone() for p in objective.net.parameters()]
    training = Training(epochs=20, batch_size=50, optimiser=lambda p: torch.optim.Adam(p, lr=1e-2))
    fitted = fit(oracle.model().float(), Split(x), objective=objective, training=training, progress=False)
    assert all(not torch.equal(p, q) for p, q in zip(start, objective.net.parameters(), strict=True))
    bound = [row["train/bound"] for row in fitted.history]
    assert bound[-1] > bound[0]
    with torch.no_grad():
        before = float(objective._mean.value())
        loss = objective.eval()(fitted.model, Batch(x))
        assert float(objective._mean.value()) == before
        assert loss.logs["baseline_error"].mean() < 0.7 * loss.bound.var()


@pytest.mark.parametrize("name", list(SCORES))
def test_evaluation_mode_changes_nothing(oracle, name):
    objective = SCORES[name](4).eval()
    state = {key: value.clone() for key, value in objective.state_dict().items()}
    with torch.no_grad():
        objective(oracle.model(), batch(oracle))
    assert all(torch.equal(value, state[key]) for key, value in objective.state_dict().items())
    objective.train()(oracle.model(), batch(oracle))
    changed = any(not torch.equal(value, state[key]) for key, value in objective.state_dict().items())
    assert changed == bool(state)


def test_logs_are_the_same_at_every_step(oracle):
    for objective in (STL(2), DReG(2), REINFORCE(baseline=RunningMean()), NVIL(nn.Linear(4, 1, dtype=f64)), VIMCO(2)):
        first, second = (objective(oracle.model(), batch(oracle), step) for step in (0, 1))
        assert list(first.logs) == list(second.logs)
        rates = [f"rate_{n}" for n in range(oracle.levels)]
        assert list(first.logs)[: 1 + oracle.levels] == ["log_px", *rates]
        for value in (first.surrogate, first.bound, *first.logs.values()):
            assert value.shape == (6,)
        assert not any(value.requires_grad for value in (first.bound, *first.logs.values()))


# --- requests that cannot be met ------------------------------------------------------------------------------------------------------


class NoInverse(torch.distributions.TransformedDistribution):
    """Draws and knows the density of what it drew; any other point it refuses."""

    def log_prob(self, value: Tensor) -> Tensor:
        raise InputError("a planar flow has no inverse")


def test_requests_that_cannot_be_met_say_why():
    oracle = PPCA()
    bits, _ = discrete("flat")
    ones = Batch(torch.ones(2, 5, dtype=f64))
    for objective in (STL(), DReG(3)):
        with pytest.raises(InputError, match="no reparameterised sample"):
            objective(bits, ones)
    for make, k in itertools.product((STL, DReG, REINFORCE, VIMCO), (0, 2.5)):
        with pytest.raises(InputError, match="at least 1 sample|whole number"):
            make(k)
    with pytest.raises(InputError, match=r"VIMCO\(k=1\): a sample's baseline is made of the other samples; take k of 2 or more"):
        VIMCO(1)
    with pytest.raises(InputError, match="LeaveOneOut with k=1"):
        REINFORCE(1, baseline=LeaveOneOut())(bits, ones)
    with pytest.raises(InputError, match=r"baseline=\.\.\.\) is a Linear: .* NVIL\(net\)"):
        REINFORCE(baseline=nn.Linear(4, 1))
    with pytest.raises(InputError, match=r"NVIL\(net=3\) is no module"):
        NVIL(3)
    with pytest.raises(InputError, match=r"gives \[2, 3\] for 2 examples"):
        NVIL(nn.Linear(5, 3, dtype=f64))(bits, ones)
    for decay in (-0.1, 1.0):
        with pytest.raises(InputError, match=rf"RunningMean\(decay={decay}\)"):
            RunningMean(decay)
    with pytest.raises(InputError, match=r"NVIL\(decay=1.5\)"):
        NVIL(nn.Linear(5, 1), decay=1.5)
    assert torch.isfinite(DReG(3)(oracle.model(), batch(oracle)).bound).all()


def test_quantised_latents_are_refused():
    """Their sample has a gradient, so that DReG would weigh it by w^2 (1 / K of the right one); their log q = 0 has none, so that the
    score of the encoder would be 0."""
    codes = Codebook(4, 2)
    decoder = Conditional(nn.Sequential(nn.Flatten(-2), nn.Linear(4, 5)), heads.Bernoulli(5), event_dim=2)
    model = VAE(UniformCodes(codes, (2,)), Conditional(nn.Linear(5, 4), heads.Quantised(codes, (2,))), decoder)
    ones = Batch(torch.ones(3, 5))
    for objective in (STL(), DReG(3)):
        with pytest.raises(InputError, match=r"^Quantised has no reparameterised sample.* use VQ\(\)$"):
            objective(model, ones)
    for objective in (REINFORCE(), NVIL(nn.Linear(5, 1)), VIMCO(3), RWS(3)):
        with pytest.raises(InputError, match=r"^Quantised is certain of its codes.* never train the encoder: use VQ\(\)$"):
            objective(model, ones)
    with torch.no_grad():
        assert model.infer(ones, reparam=False).log_w.shape == (1, 3)


def test_a_posterior_that_scores_no_given_point_is_refused():
    @draw.register
    def _(d: NoInverse, shape: torch.Size, reparam: bool = True) -> tuple[Tensor, Tensor]:
        z = d.base_dist.rsample(shape)
        return z, d.base_dist.log_prob(z)

    class Posterior(nn.Module):
        def forward(self, x: Tensor) -> NoInverse:
            return NoInverse(PPCA().encoder(x), [], validate_args=False)

    oracle = PPCA()
    model = oracle.model(Posterior())
    assert ELBO(closed_form=False)(model, batch(oracle)).bound.shape == (6,)
    for objective in (STL(), DReG(3)):
        with pytest.raises(
            InputError, match=r"STL and DReG need log q\(z \| x\) at a z held fixed; ELBO and IWAE do without: a planar flow has no inverse"
        ):
            objective(model, batch(oracle))


def test_dropout_between_levels_is_refused_while_training():
    """The second pass would leave out other units; a flat model needs none, and in evaluation nothing is left out."""
    torch.manual_seed(0)

    def gaussian(n: int, d: int) -> Conditional:
        return Conditional(nn.Sequential(nn.Linear(n, 8), nn.Dropout(0.2), nn.Linear(8, 2 * d)), heads.Gaussian(d))

    top = Rung(priors.StandardNormal(2), gaussian(6, 2))
    deep = Ladder([nn.Identity(), nn.Identity()], [top, Rung(gaussian(2, 2), gaussian(8, 2))], gaussian(2, 6))
    b = Batch(torch.randn(4, 6))
    for objective in (STL(), DReG(2)):
        with pytest.raises(InputError, match=r"rungs.0.posterior.net.1 is dropout"):
            objective(deep.train(), b)
        assert objective(deep.eval(), b).bound.shape == (4,)
        assert objective(VAE(top.prior, top.posterior, gaussian(2, 6)).train(), b).bound.shape == (4,)


def test_bounds_of_three_samples_agree(oracle):
    """IWAE, DReG and VIMCO report one number for the same noise; STL and REINFORCE the plain mean."""
    model = oracle.model()
    found = []
    for objective in (IWAE(3), DReG(3), VIMCO(3), STL(3), REINFORCE(3)):
        torch.manual_seed(2)
        found.append(objective(model, batch(oracle)).bound)
    torch.manual_seed(2)
    log_w = model.infer(batch(oracle), 3).log_w
    for got in found[:3]:
        torch.testing.assert_close(got, bounds.iwae(log_w))
    for got in found[3:]:
        torch.testing.assert_close(got, bounds.elbo(log_w))
