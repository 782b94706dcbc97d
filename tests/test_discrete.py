"""Discrete latents: densities by enumeration and quadrature, objectives against the enumerated ELBO and its gradient.

A z-score beyond 4.5 fails, with the seeds and sample sizes as stated.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import RelaxedBernoulli, RelaxedOneHotCategorical

from oracles import z_score
from tables import DISCRETE, Discrete, two_steps
from vaekit import dist, evaluate, fit, heads, priors
from vaekit.conditional import Conditional
from vaekit.data import Split
from vaekit.dist import BinConcrete, Concrete, OneHot, relaxed
from vaekit.errors import InputError
from vaekit.models import VAE, Ladder, LatentModel, Rung, from_relaxed, from_straight_through
from vaekit.nn import mlp
from vaekit.objectives import ELBO, IWAE, Exponential, Linear, Relaxed, StraightThrough
from vaekit.train import Training
from vaekit.types import Batch

f64 = torch.float64
DATA = 5
rows = pytest.mark.parametrize("row", DISCRETE.values(), ids=DISCRETE)

OBJECTIVES = {
    "concrete": lambda: Relaxed(temperature=0.6, prior_temperature=0.4),
    "concrete-3-samples": lambda: Relaxed(3, temperature=0.6),
    "gumbel-softmax": lambda: Relaxed(temperature=0.6, closed_form=True),
    "straight-through-gumbel": lambda: Relaxed(temperature=0.6, straight_through=True),
    "straight-through-gumbel-sampled-kl": lambda: Relaxed(2, temperature=0.6, straight_through=True, closed_form=False),
    "straight-through": lambda: StraightThrough(),
    "straight-through-sampled-kl": lambda: StraightThrough(2, closed_form=False),
}
objectives = pytest.mark.parametrize("objective", [make() for make in OBJECTIVES.values()], ids=OBJECTIVES)


def model_of(row: Discrete, seed: int = 0) -> VAE:
    """float64, away from uniform, with a decoder that is no linear function of z."""
    torch.manual_seed(seed)
    event = row.states().shape[1:]
    likelihood = Conditional(mlp(tuple(event), [8], DATA), heads.Bernoulli(DATA), event_dim=len(event))
    model = VAE(row.prior(), row.posterior(DATA), likelihood).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.7)
    return model


def data(n: int = 2) -> Tensor:
    return torch.randint(2, (n, DATA), generator=torch.Generator().manual_seed(1)).to(f64)


def exact_elbo(model: LatentModel, row: Discrete, x: Tensor) -> Tensor:
    """E_q[log p(x, z) - log q(z | x)] by enumeration, ``[B]``, differentiable."""
    states = row.states().to(f64).unsqueeze(1)
    t = model.score(Batch(x), states.expand(-1, len(x), *states.shape[2:]))
    return (t.log_qz.exp() * t.log_w).sum(0)


# --- the discrete distributions -------------------------------------------------------------------------------------------------------


@rows
def test_mass_is_one_and_samples_follow_it(row: Discrete) -> None:
    """30,000 draws of 4 posteriors: each state's frequency, and mean and entropy against their sums."""
    torch.manual_seed(0)
    q, states = row.posterior(DATA).double()(torch.randn(4, DATA, dtype=f64)), row.states().to(f64)
    mass = q.log_prob(states.unsqueeze(1)).exp()
    torch.testing.assert_close(mass.sum(0), torch.ones(4, dtype=f64))
    z = q.sample((30_000,))
    same = (z.unsqueeze(0) == states[:, None, None]).flatten(3).all(-1)
    assert same.any(0).all()
    assert z_score(same.to(f64).transpose(0, 1), mass).abs().max() < 4.5
    torch.testing.assert_close(q.mean, torch.tensordot(mass.mT, states, 1))
    torch.testing.assert_close(q.entropy(), -(mass * mass.log()).sum(0))
    torch.testing.assert_close(q.mode, states[mass.argmax(0)]) if isinstance(q, OneHot) else None
    torch.testing.assert_close(q.variance, torch.tensordot(mass.mT, states.square(), 1) - q.mean.square())
    assert q.expand((7, 4)).log_prob(states[0]).shape == (7, 4) and q.support.check(z).all()


@rows
def test_kl_is_the_enumerated_one(row: Discrete) -> None:
    torch.manual_seed(0)
    q, states = row.posterior(DATA).double()(torch.randn(4, DATA, dtype=f64)), row.states().to(f64).unsqueeze(1)
    p = row.prior().double()
    with torch.no_grad():
        p.logits.normal_()
    log_q = q.log_prob(states)
    torch.testing.assert_close(dist.closed_form_kl(q, p()), (log_q.exp() * (log_q - p().log_prob(states))).sum(0))
    torch.testing.assert_close(dist.closed_form_kl(q, q), torch.zeros(4, dtype=f64), atol=1e-12, rtol=0)


def test_one_hot_masks_need_the_whole_variable() -> None:
    torch.manual_seed(0)
    d = OneHot(torch.randn(4, 2, 3))
    z = d.sample()
    mask = torch.tensor([[True] * 3, [True, True, False]]).expand(4, 2, 3)
    torch.testing.assert_close(dist.log_prob_observed(d, z, mask), dist.log_prob_parts(d, z)[:, 0, 0])
    assert not d.support.check(torch.full((4, 2, 3), 1 / 3)).any()


def test_bernoulli_kl_of_large_logits() -> None:
    q, p = dist.Bernoulli(torch.tensor([[300.0], [-300.0], [300.0]])), dist.Bernoulli(torch.tensor([[300.0], [300.0], [0.0]]))
    torch.testing.assert_close(dist.closed_form_kl(q, p), torch.tensor([0.0, 300.0, math.log(2)]))


# --- their relaxations ----------------------------------------------------------------------------------------------------------------

LAMBDAS = pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])


@LAMBDAS
def test_relaxed_bernoulli_density(temperature: float) -> None:
    """Total mass and E[z], E[z^2] by quadrature over y = logit z, against 40,000 draws; log p(z) against torch's."""
    torch.manual_seed(0)
    logits = torch.tensor([-1.3, 0.4, 3.0], dtype=f64)
    d = BinConcrete(logits, temperature, 0)
    y = torch.linspace(-150, 150, 60_001, dtype=f64).unsqueeze(-1)
    weights = d.log_prob_y(y).exp() * (300 / 60_000)
    torch.testing.assert_close(weights.sum(0), torch.ones(3, dtype=f64), atol=1e-9, rtol=0)
    z, log_q = dist.draw(d, torch.Size((40_000,)))
    for power in (1, 2):
        assert z_score(z**power, (weights * torch.sigmoid(y) ** power).sum(0)).abs().max() < 4.5
    theirs = RelaxedBernoulli(torch.tensor(temperature, dtype=f64), logits=logits)
    inside = ((z > 1e-9) & (z < 1 - 1e-9)).all(-1)
    torch.testing.assert_close(d.log_prob(z)[inside], theirs.log_prob(z)[inside], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(log_q[inside], theirs.log_prob(z)[inside], rtol=1e-6, atol=1e-6)


@LAMBDAS
def test_relaxed_one_hot_density(temperature: float) -> None:
    """The same for three classes: y = log softmax(a, b, 0) covers the simplex; 40,000 draws."""
    torch.manual_seed(0)
    logits = torch.tensor([[-1.0, 0.3, 0.9]], dtype=f64)
    d = Concrete(logits, temperature)
    reach, n = 12 + 18 / temperature, 1201
    line = torch.linspace(-reach, reach, n, dtype=f64)
    y = torch.cat([torch.cartesian_prod(line, line), torch.zeros(n * n, 1, dtype=f64)], -1).log_softmax(-1).unsqueeze(-2)
    weights = d.log_prob_y(y).exp() * (2 * reach / (n - 1)) ** 2
    torch.testing.assert_close(weights.sum(), torch.ones((), dtype=f64), atol=1e-4, rtol=0)
    z, log_q = dist.draw(d, torch.Size((40_000,)))
    torch.testing.assert_close(z.sum(-1), torch.ones(40_000, 1, dtype=f64))
    for power in (1, 2):
        assert z_score(z**power, (weights[:, None, None] * y.exp() ** power).sum(0)).abs().max() < 4.5
    theirs = RelaxedOneHotCategorical(torch.tensor(temperature, dtype=f64), logits=logits)
    inside = (z > 1e-9).all(-1)[:, 0]
    torch.testing.assert_close(d.log_prob(z)[inside], theirs.log_prob(z)[inside, 0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(log_q[inside], theirs.log_prob(z)[inside, 0], rtol=1e-6, atol=1e-6)


@rows
def test_nearest_vertex_is_a_draw_of_the_discrete_distribution(row: Discrete) -> None:
    """At any temperature, 30,000 draws; near 0 the relaxed sample is that vertex."""
    torch.manual_seed(0)
    q, states = row.posterior(DATA).double()(torch.randn(2, DATA, dtype=f64)), row.states().to(f64)
    mass = q.log_prob(states.unsqueeze(1)).exp()
    for temperature in (5.0, 1e-4):
        r = relaxed(q, temperature)
        y = r.rsample_y((30_000,))
        z, hard = r.value(y), r.hard(y)
        same = (hard.unsqueeze(0) == states[:, None, None]).flatten(3).all(-1).to(f64).transpose(0, 1)
        assert z_score(same, mass).abs().max() < 4.5
        assert r.support.check(z).all() and r.batch_shape == q.batch_shape and r.event_shape == q.event_shape
    assert ((z - hard).abs() < 1e-3).double().mean() > 0.99


@rows
def test_relaxation_gradients(row: Discrete) -> None:
    torch.manual_seed(0)
    event = row.states().shape[1:]
    h = torch.randn(2, event.numel(), dtype=f64, requires_grad=True)
    head = row.posterior(DATA).head
    y = relaxed(head(h.detach()), 0.7).rsample_y((3,)).requires_grad_()

    def path(v: Tensor) -> Tensor:
        torch.manual_seed(1)
        return relaxed(head(v), 0.7).rsample((3,))

    assert torch.autograd.gradcheck(lambda v, at: relaxed(head(v), 0.7).log_prob_y(at), (h, y))
    assert torch.autograd.gradcheck(path, h)


@rows
def test_relaxed_log_densities_keep_their_digits_in_float32(row: Discrete) -> None:
    """Logits up to 30 at temperature 0.05, where z is rounded to 0 or 1: the rate and its gradient are those of float64."""
    torch.manual_seed(0)
    event = row.states().shape[1:]
    h = 15 * torch.randn(64, event.numel())
    head = row.posterior(DATA).head
    y = relaxed(head(h), 0.05).rsample_y((5,))
    found = []
    for dtype in (torch.float32, f64):
        v = h.to(dtype).requires_grad_()
        rate = relaxed(head(v), 0.05).log_prob_y(y.to(dtype)) - relaxed(row.prior().to(dtype)(), 0.05).log_prob_y(y.to(dtype))
        found.append((rate.detach(), torch.autograd.grad(rate.sum(), v)[0]))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a.to(f64), b, rtol=1e-4, atol=2e-3)
    assert dist.draw(relaxed(head(h), 0.05), torch.Size())[1].isfinite().all()


def test_torch_s_own_discrete_distributions_are_relaxed_too() -> None:
    logits = torch.randn(4, 2, 3)
    bits = torch.distributions.Independent(torch.distributions.Bernoulli(logits=logits), 2)
    classes = torch.distributions.Independent(torch.distributions.OneHotCategorical(logits=logits), 1)
    y = torch.randn(4, 2, 3)
    torch.testing.assert_close(relaxed(bits, 0.5).log_prob_y(y), BinConcrete(logits, 0.5, 2).log_prob_y(y))
    torch.testing.assert_close(
        relaxed(classes, 0.5).log_prob_y(y.log_softmax(-1)), Concrete(logits, 0.5).log_prob_y(y.log_softmax(-1)), rtol=1e-4, atol=1e-4
    )


# --- picks ----------------------------------------------------------------------------------------------------------------------------


@rows
@pytest.mark.parametrize("pick", [from_relaxed(50, 0.5, straight_through=True), from_straight_through(50)], ids=["gumbel", "mean"])
def test_straight_through_values_are_discrete_and_scored_as_such(row: Discrete, pick: Callable) -> None:
    model, x = model_of(row), data()
    t = model.trace(pick, Batch(x))
    states = row.states().to(f64)
    assert (t.z[0].unsqueeze(0) == states[:, None, None]).flatten(3).all(-1).any(0).all()
    torch.testing.assert_close(t.log_w, model.score(Batch(x), t.z[0]).log_w)


def test_gradients_of_the_three_samples() -> None:
    """d E[z] / dl: the straight-through one is exactly p (1 - p); that of a relaxed sample is the derivative of its own mean, by
    quadrature, 40,000 draws, whether its value is hard or soft."""
    torch.manual_seed(0)
    logits = torch.tensor([-1.0, 0.5, 2.0], dtype=f64, requires_grad=True)
    p = dist.Bernoulli(torch.zeros(3, dtype=f64))
    q = dist.Bernoulli(logits.expand(40_000, 3).clone().detach().requires_grad_())

    def slope(pick: Callable) -> Tensor:
        return torch.autograd.grad(pick(0, q, p).z.sum(), q.logits)[0]

    exact = torch.sigmoid(logits) * torch.sigmoid(-logits)
    torch.testing.assert_close(slope(from_straight_through(1)), exact.detach().expand(40_000, -1))
    y = torch.linspace(-80, 80, 20_001, dtype=f64).unsqueeze(-1)
    for temperature in (0.5, 1.0):
        mean = (torch.sigmoid(y) * BinConcrete(logits, temperature, 0).log_prob_y(y).exp()).sum(0) * (160 / 20_000)
        (want,) = torch.autograd.grad(mean.sum(), logits)
        for hard in (False, True):
            got = slope(from_relaxed(1, temperature, straight_through=hard))
            assert z_score(got, want).abs().max() < 4.5
            assert z_score(got, exact.detach()).abs().max() > 4.5


# --- objectives against the enumerated model ------------------------------------------------------------------------------------------


@rows
@objectives
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_bound_is_the_discrete_elbo(row: Discrete, objective: nn.Module, training: bool) -> None:
    """10,000 values for each of 2 examples; a validation pass makes no graph."""
    model, x = model_of(row), data()
    objective.train(training)
    torch.manual_seed(0)
    with torch.no_grad():
        loss = objective(model, Batch(x.repeat(10_000, 1)))
        want = exact_elbo(model, row, x)
    assert z_score(loss.bound.view(10_000, -1), want).abs().max() < 4.5
    torch.testing.assert_close(loss.logs["log_px"] - loss.logs["rate_0"], loss.bound)
    if not training:
        torch.testing.assert_close(loss.surrogate, -loss.bound)


@rows
@pytest.mark.parametrize("closed_form", [False, True])
def test_the_surrogate_has_its_gradient_in_evaluation_mode_too(row: Discrete, closed_form: bool) -> None:
    """`evaluate.gradient_moments` differentiates there: what it measures is the noise that training has."""
    model, x = model_of(row), data()
    objective, parameters = Relaxed(temperature=0.6, closed_form=closed_form), list(model.parameters())
    found = []
    for training in (True, False):
        objective.train(training)
        torch.manual_seed(0)
        found.append(torch.autograd.grad(objective(model, Batch(x)).surrogate.mean(), parameters))
    for trained, evaluated in zip(*found, strict=True):
        assert torch.equal(trained, evaluated)


def bias(objective: nn.Module, row: Discrete, n: int = 60, copies: int = 200) -> tuple[float, float, Tensor, Tensor]:
    """The mean gradient, over n batches of ``copies`` each, against the exact one: the largest z-score, the distance of the two, and
    both for the posterior's parameters alone."""
    model, x = model_of(row), data()
    parameters = list(model.parameters())
    exact = torch.cat([g.flatten() for g in torch.autograd.grad(exact_elbo(model, row, x).mean(), parameters)])
    torch.manual_seed(0)
    many = Batch(x.repeat(copies, 1))
    draws = [torch.autograd.grad(-objective(model, many).surrogate.mean(), parameters) for _ in range(n)]
    got = torch.stack([torch.cat([g.flatten() for g in draw]) for draw in draws])
    worst = (got.mean(0) - exact).abs() / (got.std(0) / n**0.5 + 1e-10)  # the prior's gradient of a closed form has no noise
    own = torch.cat([torch.full((p.numel(),), name.startswith("posterior")) for name, p in model.named_parameters()])
    return float(worst.max()), float((got.mean(0) - exact).norm()), got.mean(0)[own], exact[own]


@rows
def test_bias_of_the_gumbel_softmax_falls_with_the_temperature(row: Discrete) -> None:
    """12,000 draws of 2 examples, all parameters: at lambda = 2 and 0.5 biased beyond doubt, and less and less."""
    (high, far, *_), (middle, nearer, *_), (_, near, *_) = (bias(Relaxed(temperature=t, closed_form=True), row) for t in (2.0, 0.5, 0.03))
    assert high > 20 and middle > 10
    assert far > 2 * nearer > 6 * near


def one_bit(temperature: float, prior_temperature: float) -> tuple[VAE, Tensor, Tensor, Tensor]:
    """A model of one bit and one x: log q(y), log p(y) and log p(x | z) on a quadrature of y = logit z, ``[Y]``, differentiable."""
    torch.manual_seed(2)
    likelihood = Conditional(mlp(1, [6], DATA), heads.Bernoulli(DATA))
    model = VAE(priors.Bernoulli(1), Conditional(nn.Linear(DATA, 1), heads.Bernoulli(1)), likelihood).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.7)
    y = torch.linspace(-120, 120, 20_001, dtype=f64).unsqueeze(-1)
    x = data(1)
    log_px = model.likelihood(torch.sigmoid(y).unsqueeze(1)).log_prob(x)[:, 0]
    log_q = relaxed(model.posterior(x), temperature).log_prob_y(y)
    return model, log_q, relaxed(model.prior(), prior_temperature).log_prob_y(y), log_px


def test_concrete_surrogate_is_the_relaxed_model_s_bound() -> None:
    """Value, gradient and evidence of the relaxed model against quadrature over y; 200 means of 200 draws."""
    h = 240 / 20_000
    model, log_q, log_p, log_px = one_bit(0.6, 0.4)
    bound = (log_q.exp() * (log_px + log_p - log_q)).sum() * h
    evidence = ((log_p + log_px).exp().sum() * h).log()
    parameters = list(model.parameters())
    exact = torch.autograd.grad(bound, parameters)
    torch.manual_seed(0)
    many, objective = Batch(data(1).repeat(200, 1)), Relaxed(temperature=0.6, prior_temperature=0.4)
    surrogates = [-objective(model, many).surrogate for _ in range(200)]
    assert z_score(torch.stack(surrogates).detach().flatten(), bound.detach()).abs() < 4.5
    draws = [torch.autograd.grad(s.mean(), parameters) for s in surrogates]
    for got, want in zip(zip(*draws, strict=True), exact, strict=True):  # where x is 0 a weight has the gradient 0, always
        assert z_score(torch.stack(got), want)[want != 0].abs().max() < 4.5
    assert bound < evidence
    with torch.no_grad():
        w = model.trace(from_relaxed(40_000, 0.6, prior_temperature=0.4), Batch(data(1))).log_w.exp()
    assert z_score(w, evidence.exp().detach()).abs() < 4.5


def test_reconstruction_gradient_is_unbiased_in_the_limit() -> None:
    """One bit, without noise: the gradient of E log p(x | z~) for the logit of q by quadrature over the logistic noise, at falling
    temperatures, against p (1 - p) (f(1) - f(0)); the drawn gradient at 0.5 (200 means of 200) is the quadrature's."""
    model, *_ = one_bit(1.0, 1.0)
    x = data(1)
    logit = model.posterior(x).logits.detach()[0].requires_grad_()
    noise = torch.linspace(-40, 40, 400_001, dtype=f64).unsqueeze(-1)
    mass = (-noise - 2 * nn.functional.softplus(-noise)).exp()[:, 0] * (80 / 400_000)
    f = model.likelihood(torch.tensor([[[0.0]], [[1.0]]], dtype=f64)).log_prob(x).detach()[:, 0]
    exact = float((torch.sigmoid(logit) * torch.sigmoid(-logit)).detach() * (f[1] - f[0]))

    def quadrature(temperature: float) -> float:
        z = torch.sigmoid((logit + noise) / temperature).unsqueeze(1)
        return float(torch.autograd.grad((mass * model.likelihood(z).log_prob(x)[:, 0]).sum(), logit)[0])

    errors = [abs(quadrature(t) - exact) for t in (1.0, 0.1, 0.01)]
    assert errors[0] > 0.05 * abs(exact) and errors[1] < errors[0] / 10 and errors[2] < errors[0] / 100
    torch.manual_seed(0)
    q, p = dist.Bernoulli(logit.detach().expand(40_000, 1).clone().requires_grad_()), model.prior()
    z = from_relaxed(1, 0.5)(0, q, p).z
    (drawn,) = torch.autograd.grad(model.likelihood(z).log_prob(x).sum(), q.logits)
    assert z_score(drawn, quadrature(0.5)).abs() < 4.5 < z_score(drawn, exact).abs()


def test_relaxed_rate_exceeds_the_discrete_one_at_every_temperature() -> None:
    """At equal temperatures it is the KL of two logistic variables whatever lambda: 20,000 draws of each."""
    model, x = model_of(DISCRETE["bernoulli"]), data(1)
    with torch.no_grad():
        lq, lp = model.posterior(x).logits[0], model.prior().logits
        u = torch.linspace(-60, 60, 60_001, dtype=f64).unsqueeze(-1)
        ours, theirs = (-(u - at) - 2 * nn.functional.softplus(-(u - at)) for at in (lq, lp))
        logistic = (ours.exp() * (ours - theirs)).sum() * 120 / 60_000
        for temperature in (0.01, 0.5, 2.0):
            t = model.trace(from_relaxed(20_000, temperature), Batch(x))
            assert z_score(t.rate[:, 0, 0], logistic).abs() < 4.5
        assert t.kl is not None and logistic > t.kl.sum() + 0.1


@rows
@pytest.mark.parametrize(
    "objective", [StraightThrough(), Relaxed(temperature=1.0, straight_through=True)], ids=["straight-through", "straight-through-gumbel"]
)
def test_straight_through_is_biased_and_points_the_right_way(row: Discrete, objective: nn.Module) -> None:
    worst, _, got, want = bias(objective, row)
    assert worst > 8
    assert torch.cosine_similarity(got, want, 0) > 0.8


@objectives
def test_objectives_train_a_ladder_of_torch_s_own_bernoullis(objective: nn.Module) -> None:
    """Two levels, q(z_2 | z_1, x): the bound is the enumerated ELBO (8,000 draws) and every parameter gets a gradient."""
    torch.manual_seed(3)

    class Bits(nn.Module):
        def __init__(self, n: int, d: int) -> None:
            super().__init__()
            self.linear = nn.Linear(n, d, dtype=f64)

        def forward(self, c: Tensor | None = None) -> torch.distributions.Distribution:
            h = self.linear.bias if c is None else self.linear(c)
            return torch.distributions.Independent(torch.distributions.Bernoulli(logits=h), 1, validate_args=False)

    rungs = [Rung(Bits(1, 2), Bits(DATA, 2)), Rung(Bits(2, 3), Bits(2 + DATA, 3))]
    model = Ladder([nn.Identity(), nn.Identity()], rungs, Bits(3, DATA))
    x = data(1)
    states = torch.tensor(list(itertools.product([0.0, 1.0], repeat=5)), dtype=f64).unsqueeze(1)
    with torch.no_grad():
        t = model.score(Batch(x), states.split((2, 3), -1))
        elbo = (t.log_qz.exp() * t.log_w).sum()
    torch.manual_seed(0)
    objective.train()
    loss = objective(model, Batch(x.repeat(8_000, 1)))
    assert z_score(loss.bound, elbo).abs() < 4.5
    loss.surrogate.mean().backward()
    used = [name for name, p in model.named_parameters() if p.grad is not None]
    assert all(".posterior." in name or "likelihood" in name or "prior" in name for name in used) and len(used) >= 9


@rows
@objectives
def test_discrete_models_do_what_other_models_do(row: Discrete, objective: nn.Module) -> None:
    """Training, scoring, embedding, reconstruction, generation, evaluation; the checks of fit accept them."""
    torch.manual_seed(0)
    model, x = model_of(row).float(), data(40).float()
    event = row.states().shape[1:]
    objective.train()
    two_steps(model, Batch(x), objective)
    with torch.no_grad():
        t = model.infer(Batch(x), 3)
    torch.testing.assert_close(model.score(Batch(x), t.z).log_w, t.log_w)
    assert model.embed(Batch(x)).shape == (40, event.numel()) and model.reconstruct(Batch(x)).shape == x.shape
    assert model.reconstruct(Batch(x), mean=False).unique().tolist() == [0, 1] and model.sample(5).shape == (5, DATA)
    assert model.dream(4).log_w.shape == (1, 4)
    fitted = fit(model, Split(x), objective=objective, training=Training(epochs=1, batch_size=16), progress=False)
    assert {"train/bound", "train/log_px", "train/rate_0"} <= set(fitted.history[-1])
    found = evaluate.evaluate(model, Split(x), samples=50)
    assert found.elbo <= -found.nll and found.latent_dim == event.numel()
    assert evaluate.latents(model, Split(x)).kl is None


@rows
def test_evaluation_is_the_enumerated_model(row: Discrete) -> None:
    """The ELBO of `evaluate` with 20,000 samples against the sum over all states."""
    model, x = model_of(row), data()
    with torch.no_grad():
        states = row.states().to(f64).unsqueeze(1)
        t = model.score(Batch(x), states.expand(-1, 2, *states.shape[2:]))
        q = t.log_qz.exp()
        elbo = (q * t.log_w).sum(0)
        spread = ((q * (t.log_w - elbo).square()).sum() / 4 / 20_000).sqrt()
        relative = ((q * t.log_w.exp().square()).sum(0) / t.log_joint.logsumexp(0).exp().square() - 1) / 20_000
    found = evaluate.evaluate(model, Split(x), samples=20_000)
    assert abs(found.elbo - elbo.mean()) / spread < 4.5
    assert abs(found.nll + t.log_joint.logsumexp(0).mean()) / (relative.sum() / 4).sqrt() < 4.5


@rows
@objectives
def test_objectives_compile_to_one_graph(row: Discrete, objective: nn.Module) -> None:
    torch._dynamo.reset()
    model, x = model_of(row), data()
    objective.train()
    torch.manual_seed(4)
    eager = objective(model, Batch(x))
    torch.manual_seed(4)
    compiled = torch.compile(objective, fullgraph=True, backend="eager")(model, Batch(x))
    torch.testing.assert_close(compiled.surrogate, eager.surrogate)
    torch.testing.assert_close(compiled.bound, eager.bound)


# --- temperatures that change ---------------------------------------------------------------------------------------------------------


def test_temperature_follows_its_schedule() -> None:
    model, x = model_of(DISCRETE["bernoulli"]), data()

    def surrogate(temperature: float | Exponential, step: int) -> Tensor:
        torch.manual_seed(0)
        return Relaxed(temperature=temperature)(model, Batch(x), step).surrogate

    torch.testing.assert_close(surrogate(Exponential(1.0, 0.25, 10), 5), surrogate(0.5, 0))
    torch.testing.assert_close(surrogate(Exponential(1.0, 0.25, 10), 99), surrogate(0.25, 0))
    assert not torch.allclose(surrogate(0.5, 0), surrogate(0.25, 0))


def test_temperature_is_written_down_and_too_long_a_schedule_noticed() -> None:
    model, split = model_of(DISCRETE["bernoulli"]).float(), Split(data(32).float())
    objective = Relaxed(temperature=Exponential(1.0, 0.25, 4))
    fitted = fit(model, split, objective=objective, training=Training(epochs=2, batch_size=16), progress=False)
    assert fitted.history[0]["train/schedule_0"] == pytest.approx(0.25**0.25)
    with pytest.warns(UserWarning, match=r"Relaxed: its schedule settles at step 100 and the run ends at step 2, where it is 0.986"):
        objective = Relaxed(temperature=Exponential(1.0, 0.25, 100))
        fit(model, split, objective=objective, training=Training(epochs=1, batch_size=16), progress=False)


# --- requests that cannot be met ------------------------------------------------------------------------------------------------------


@rows
@pytest.mark.parametrize("objective", [ELBO(), IWAE(2)], ids=["elbo", "iwae"])
def test_objectives_of_continuous_latents_name_those_of_discrete_ones(row: Discrete, objective: nn.Module) -> None:
    kind = "Bernoulli" if row is DISCRETE["bernoulli"] else "OneHot"
    with pytest.raises(InputError, match=f"{kind} has no reparameterised sample.*Relaxed, StraightThrough, NVIL, VIMCO, RWS"):
        fit(model_of(row).float(), Split(data(8).float()), objective=objective, training=Training(epochs=1), progress=False)


@objectives
def test_objectives_of_discrete_latents_refuse_continuous_ones(objective: nn.Module) -> None:
    q, px = heads.Gaussian(2), heads.Bernoulli(DATA)
    model = VAE(priors.StandardNormal(2), Conditional(nn.Linear(DATA, 4), q), Conditional(nn.Linear(2, DATA), px))
    with pytest.raises(InputError, match="DiagGaussian has no relaxation: only Bernoulli and OneHot"):
        fit(model, Split(data(8).float()), objective=objective, training=Training(epochs=1), progress=False)


def test_wrong_requests_say_why() -> None:
    for bad in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(InputError, match=rf"temperature {bad}: a relaxation needs a positive"):
            relaxed(dist.Bernoulli(torch.zeros(2)), bad)
    with pytest.raises(InputError, match=r"Relaxed\(temperature=0.0 at step 0\)"):
        Relaxed(temperature=0)
    with pytest.raises(InputError, match=r"Relaxed\(temperature=0 at step 9\)|Relaxed\(temperature=0.0 at step 9\)"):
        Relaxed(temperature=Linear(1, 0, 9))
    with pytest.raises(InputError, match=r"Relaxed\(prior_temperature=0.5\): only the relaxed densities have one"):
        Relaxed(prior_temperature=0.5, straight_through=True)
    with pytest.raises(InputError, match="at least 1 sample is needed"):
        StraightThrough(0)
    with pytest.raises(InputError, match="at least 1 is needed"):
        from_relaxed(0, 0.5)
    with pytest.raises(InputError, match="needs a batch x"):
        model_of(DISCRETE["bernoulli"]).trace(from_straight_through(1))
    with pytest.raises(InputError, match=r"level 0: q\(z \| x\) is OneHot and p\(z\) Bernoulli: give both one kind"):
        from_relaxed(1, 0.5)(0, OneHot(torch.zeros(4, 2, 3)), dist.Bernoulli(torch.zeros(2, 3), 2))
    for make in (heads.OneHot, priors.OneHot):
        with pytest.raises(InputError, match=r"OneHot\(6\): give \(variables, classes\)"):
            make(6)
        with pytest.raises(InputError, match="at least 2"):
            make((6, 1))


@pytest.mark.parametrize(
    ("posterior", "prior"),
    [
        (heads.Gaussian(6), priors.Bernoulli(6)),
        (heads.Bernoulli(6), priors.StandardNormal(6)),
        (heads.OneHot((2, 3)), priors.StandardNormal((2, 3))),
    ],
)
def test_a_density_is_not_compared_with_probabilities(posterior: heads.Head, prior: nn.Module) -> None:
    """Six fair bits have 4.16 nats of entropy; a Gaussian posterior under a Bernoulli prior used to report a fifth of that."""
    model = VAE(prior, Conditional(nn.Linear(6, posterior.features), posterior), Conditional(nn.Flatten(-2), heads.Bernoulli(6)))
    with pytest.raises(InputError, match="one has a density and the other probabilities"):
        model.infer(Batch(torch.ones(4, 6)), 1, reparam=False)


def test_what_is_discrete_is_told_through_independent() -> None:
    bits = dist.Bernoulli(torch.zeros(3), 0)
    assert dist.is_discrete(bits) and dist.is_discrete(torch.distributions.Independent(bits, 1))
    assert not dist.is_discrete(dist.relaxed(bits, 0.5)) and not dist.is_discrete(dist.DiagGaussian(torch.zeros(3), torch.zeros(3)))
