"""Wake-sleep and reweighted wake-sleep against exact gradients: closed forms on probabilistic PCA, enumeration on Bernoulli latents.

A z-score beyond 4.5 fails; seeds and sample sizes are stated.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from oracles import PPCA, LinearLadder, batch, given_entries, z_score
from test_oracles import all_states, discrete
from vaekit import Conditional, heads, priors
from vaekit.errors import InputError
from vaekit.models import VAE, Ladder, LatentModel, Rung
from vaekit.objectives import RWS, Objective, WakeSleep
from vaekit.priors import VampPrior
from vaekit.types import Batch

OBJECTIVES = {
    "wake-sleep": WakeSleep,
    "rws": lambda: RWS(4),
    "rws-sleep": lambda: RWS(4, wake_phi=False, sleep_phi=True),
    "rws-both": lambda: RWS(4, sleep_phi=True),
}


def gradients(objective: Objective, model: LatentModel, b: Batch, parameters: list[Tensor], n: int) -> list[Tensor]:
    """n draws of the ascent direction, ``[n, *]`` per parameter."""
    draws = [torch.autograd.grad(-objective(model, b).surrogate.mean(), parameters) for _ in range(n)]
    return [torch.stack(d) for d in zip(*draws, strict=True)]


def agree(draws: list[Tensor], exact: tuple[Tensor, ...] | list[Tensor]) -> None:
    for got, want in zip(draws, exact, strict=True):
        assert z_score(got, want).abs().max() < 4.5


def theta(oracle: PPCA) -> list[Tensor]:
    return list(oracle.likelihood.parameters())


# --- probabilistic PCA: exact gradients in closed form -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OBJECTIVES)
def test_theta_gradient_is_that_of_the_evidence_at_the_exact_posterior(name):
    """For any K: the weights are then equal. (q has no parameter here.) 300 draws of 6 examples, 50 times over."""
    oracle = PPCA()
    exact = torch.autograd.grad(oracle.evidence(oracle.x).mean(), theta(oracle))
    model, many = oracle.exact(), Batch(oracle.x.repeat(50, 1))
    objective = OBJECTIVES[name]()
    agree(gradients(objective, model, many, theta(oracle), 300), exact)
    with torch.no_grad():
        torch.testing.assert_close(objective(model, many).bound, oracle.evidence(many.x), rtol=0, atol=1e-9)


def test_wake_theta_gradient_is_that_of_the_elbo():
    """z ~ q held fixed: in theta the gradient is the ELBO's at any q. 300 draws of 6 examples, 50 times over."""
    oracle = PPCA()
    exact = torch.autograd.grad(oracle.elbo(oracle.x).mean(), theta(oracle))
    agree(gradients(WakeSleep(), oracle.model(), Batch(oracle.x.repeat(50, 1)), theta(oracle), 300), exact)


def expected_log_q(oracle: PPCA) -> Tensor:
    """E_{p(x, z)} log q(z | x) in closed form; its gradient in q is that of -E_{p(x)} KL(p(z | x) || q(z | x))."""
    mean, cov = oracle.joint()
    n = oracle.latent
    w, b = oracle.encoder.weight, oracle.encoder.bias
    back = torch.cat([torch.eye(n, dtype=torch.float64), -w], 1)  # z - W x - b as a linear map of (z, x)
    m = back @ mean.detach() - b
    second = back @ cov.detach() @ back.mT + m[:, None] * m[None, :]
    log_scale = oracle.encoder.log_scale
    return -0.5 * (second.diagonal() * torch.exp(-2 * log_scale)).sum() - log_scale.sum()


@pytest.mark.parametrize("objective", [WakeSleep(), RWS(3, wake_phi=False, sleep_phi=True)], ids=["wake-sleep", "rws"])
def test_sleep_phi_gradient_is_exact(objective):
    """-grad E_p(x) KL(p(z|x) || q), over dreams: 300 draws of 300; and it is no gradient at all at the best q of the family."""
    oracle = PPCA()
    phi = list(oracle.encoder.parameters())
    value = expected_log_q(oracle)
    exact = torch.autograd.grad(value, phi)
    assert max(g.abs().max() for g in exact) > 0.1
    many = Batch(oracle.x.repeat(50, 1))
    draws = gradients(objective, oracle.model(), many, phi, 300)
    agree(draws, exact)
    # the closed form against its definition: the same up to a constant in q, E log p(z | x)
    gain, a, s = given_entries(*oracle.joint(), range(2), range(0), range(4), 2)
    x = MultivariateNormal(oracle.joint()[0][2:], oracle.joint()[1][2:, 2:]).sample((200_000,))
    kl = torch.distributions.kl_divergence(
        MultivariateNormal(x @ gain.mT + a, s), MultivariateNormal(x @ oracle.encoder.weight.mT + oracle.encoder.bias, oracle.encoder.cov)
    )
    for got, want in zip(torch.autograd.grad(-kl.mean(), phi), exact, strict=True):
        torch.testing.assert_close(got, want, rtol=0.02, atol=0.02)


# --- Bernoulli latents: gradients by enumeration --------------------------------------------------------------------------------------


def enumerated(kind: str) -> tuple[LatentModel, Batch, Tensor, Tensor]:
    """The model, 4 examples, and log p(x, z), log q(z | x) of all states, ``[N, 4]``."""
    model, sizes = discrete(kind)
    xs = torch.tensor(list(itertools.product([0.0, 1.0], repeat=5)), dtype=torch.float64)[[3, 9, 17, 28]]
    t = model.score(Batch(xs), all_states(sizes, 4))
    return model, Batch(xs), t.log_joint, t.log_qz


def parts(model: LatentModel) -> tuple[list[Tensor], list[Tensor]]:
    """theta and phi; the weight of the top prior has no input and hence no gradient."""
    named = {name: p for name, p in model.named_parameters() if name not in ("prior.linear.weight", "rungs.0.prior.linear.weight")}
    return [p for name, p in named.items() if "posterior" not in name], [p for name, p in named.items() if "posterior" in name]


@pytest.mark.parametrize("kind", ["flat", "ladder"])
def test_rws_gradients_at_large_k_are_those_of_the_evidence_and_of_the_inclusive_kl(kind):
    """K = 2,000, 200 draws: theta follows log p(x), phi follows -KL(p(z|x) || q)."""
    model, b, log_joint, log_q = enumerated(kind)
    theta, phi = parts(model)
    posterior = log_joint.softmax(0).detach()
    exact_theta = torch.autograd.grad(log_joint.logsumexp(0).mean(), theta)
    exact_phi = torch.autograd.grad((posterior * log_q).sum(0).mean(), phi)
    assert max(g.abs().max() for g in exact_theta) > 0.05 and max(g.abs().max() for g in exact_phi) > 0.02
    agree(gradients(RWS(2_000), model, b, theta + phi, 200), [*exact_theta, *exact_phi])


def test_the_bias_of_rws_falls_as_one_over_k():
    """The exact expectation, over all 8^K states of z_1 ... z_K: it falls, and K times the bias is steady within 25% from K = 2 to 5."""
    torch.manual_seed(3)
    model, b, log_joint, log_q = enumerated("flat")
    theta, _ = parts(model)
    log_joint, log_q = log_joint[:, :1], log_q[:, :1]
    score = torch.stack([torch.cat([g.flatten() for g in torch.autograd.grad(v, theta, retain_graph=True)]) for v in log_joint[:, 0]])
    exact = (log_joint.softmax(0) * score).sum(0).detach()
    w, q = (log_joint - log_q).exp()[:, 0].detach(), log_q.exp()[:, 0].detach()
    bias = {}
    for k in (1, 2, 4, 5):
        states = torch.cartesian_prod(*[torch.arange(8)] * k).view(-1, k)
        mass = q[states].prod(-1)
        mean = ((mass.unsqueeze(-1) * w[states] / w[states].sum(-1, keepdim=True)).unsqueeze(-1) * score[states]).sum((0, 1))
        bias[k] = (mean - exact).norm().item()
    assert bias[1] > bias[2] > bias[4] > bias[5] > 0
    assert 5 * bias[5] == pytest.approx(2 * bias[2], rel=0.25)
    # and the objective has these very expectations: K = 2, 400 draws of the example 500 times over
    states = torch.cartesian_prod(torch.arange(8), torch.arange(8))
    weight = w[states] / w[states].sum(-1, keepdim=True)
    want = ((q[states].prod(-1, keepdim=True) * weight).unsqueeze(-1) * score[states]).sum((0, 1))
    draws = gradients(RWS(2), model, Batch(b.x[:1].repeat(500, 1)), theta, 400)
    assert z_score(torch.cat([d.flatten(1) for d in draws], 1), want).abs().max() < 4.5
    assert z_score(torch.cat([d.flatten(1) for d in draws], 1), exact).abs().max() > 4.5  # sharp enough to see the bias


def test_both_phases_of_phi_are_averaged():
    model, b, _, _ = enumerated("flat")
    _, phi = parts(model)
    results = {}
    for name, flags in {"wake": (True, False), "sleep": (False, True), "both": (True, True)}.items():
        torch.manual_seed(1)
        loss = RWS(5, wake_phi=flags[0], sleep_phi=flags[1])(model, b)
        results[name] = torch.autograd.grad(loss.surrogate.mean(), phi)
        assert ("log_q_dream" in loss.logs) == flags[1]
    for wake, sleep, both in zip(*results.values(), strict=True):
        torch.testing.assert_close(both, 0.5 * (wake + sleep))


# --- bounds, separation, refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [PPCA, LinearLadder])
def test_bounds_are_the_elbo_and_that_of_iwae(make):
    """20,000 draws: WakeSleep reports the ELBO; RWS(4) reports L_4, above the ELBO and below log p(x)."""
    oracle = make()
    many = Batch(oracle.x.repeat(20_000, 1))
    with torch.no_grad():
        elbo = WakeSleep()(oracle.model(), many).bound.view(20_000, -1)
        assert z_score(elbo, oracle.elbo(oracle.x)).abs().max() < 4.5
        iwae = RWS(4)(oracle.model(), many).bound.view(20_000, -1)
        assert (z_score(iwae, oracle.elbo(oracle.x)) > 4.5).all() and (z_score(iwae, oracle.evidence(oracle.x)) < 0).all()


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("make", [PPCA, LinearLadder])
def test_each_term_reaches_its_own_parameters(name, make):
    """The decoder's gradient is that of the weighted log p(x, z), the encoder's that of log q, with the samples held fixed."""
    oracle = make()
    model, b = oracle.model(), batch(oracle)
    objective = OBJECTIVES[name]()
    torch.manual_seed(2)
    loss = objective(model, b)
    torch.manual_seed(2)
    k = 1 if name == "wake-sleep" else 4
    t = model.infer(b, k, reparam=False)
    w = t.log_w.detach().softmax(0)
    named = dict(model.named_parameters())
    theta = [p for n, p in named.items() if "posterior" not in n]
    phi = [p for n, p in named.items() if "posterior" in n]
    assert theta and phi
    want = torch.autograd.grad((w * t.log_joint).sum(0).mean(), theta)
    for got, exact in zip(torch.autograd.grad(-loss.surrogate.mean(), theta, retain_graph=True), want, strict=True):
        torch.testing.assert_close(got, exact)
    log_q = []
    if name in ("rws", "rws-both"):
        log_q.append((w * t.log_qz).sum(0))
    if name != "rws":
        log_q.append(model.dream(6).log_qz[0])
    want = torch.autograd.grad(torch.stack(log_q).mean(), phi)
    for got, exact in zip(torch.autograd.grad(-loss.surrogate.mean(), phi), want, strict=True):
        torch.testing.assert_close(got, exact)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_shared_parameters_are_refused(name):
    q = heads.Gaussian(2)
    posterior = Conditional(nn.Linear(6, q.features), q)
    likelihood = Conditional(nn.Linear(2, 6), heads.Bernoulli(6))
    b = Batch(torch.rand(4, 6))
    vamp = VAE(VampPrior(posterior, torch.rand(3, 6)), posterior, likelihood)
    with pytest.raises(InputError, match=r"posterior\.net\.weight is a parameter of both p\(x, z\) and q\(z \| x\)"):
        OBJECTIVES[name]()(vamp, b)
    with torch.no_grad(), pytest.raises(InputError, match="of both"):
        OBJECTIVES[name]()(vamp, b)
    separate = VAE(VampPrior(Conditional(nn.Linear(6, q.features), q), torch.rand(3, 6)), posterior, likelihood)
    objective = OBJECTIVES[name]()
    torch.manual_seed(0)
    first = objective(separate, b).surrogate
    torch.manual_seed(0)
    assert torch.equal(first, objective(separate, b).surrogate)  # looking changes no step
    with pytest.raises(InputError, match="of both"):  # another model is looked at again
        objective(vamp, b)


def normalised(decoder: nn.Module) -> VAE:
    """With batch normalisation in the encoder."""
    encoder = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3), nn.Linear(3, 4))
    return VAE(priors.StandardNormal(2), Conditional(encoder, heads.Gaussian(2)), Conditional(decoder, heads.GaussianOptimal(6)))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_looking_for_shared_parameters_moves_no_statistics(name):
    torch.manual_seed(0)
    model, b = normalised(nn.Linear(2, 6)), Batch(torch.rand(8, 6))
    start = {key: t.clone() for key, t in model.state_dict().items()}
    objective, after = OBJECTIVES[name](), []
    for _ in range(2):  # only the first step looks
        model.load_state_dict(start)
        torch.manual_seed(1)
        objective(model, b)
        after.append({key: t.clone() for key, t in model.state_dict().items()})
    assert all(torch.equal(t, after[1][key]) for key, t in after[0].items())
    assert all(module.training for module in model.modules())


def test_inference_mode_which_has_no_gradients_is_not_taken_for_a_look():
    posterior = Conditional(nn.Linear(6, 4), heads.Gaussian(2))
    shared = VAE(VampPrior(posterior, torch.rand(3, 6)), posterior, Conditional(nn.Linear(2, 6), heads.Bernoulli(6)))
    objective, b = WakeSleep(), Batch(torch.rand(4, 6))
    with torch.inference_mode():
        objective.eval()(shared, b)  # as Trainer.validate does before Trainer.fit
    with pytest.raises(InputError, match="is a parameter of both"):
        objective.train()(shared, b)


def test_a_ladder_with_a_learned_merge_is_refused():
    def gaussian(n: int, d: int) -> Conditional:
        return Conditional(nn.Linear(n, 2 * d), heads.Gaussian(d))

    class Merge(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)

        def forward(self, h: Tensor | None, z: Tensor) -> Tensor:
            return self.linear(z)

    def ladder(merge: nn.Module | None) -> Ladder:
        rungs = [Rung(priors.StandardNormal(2), gaussian(6, 2), merge), Rung(gaussian(2, 2), gaussian(8, 2))]
        return Ladder([nn.Identity(), nn.Identity()], rungs, Conditional(nn.Linear(2, 6), heads.Bernoulli(6)))

    b = Batch(torch.rand(4, 6))
    assert WakeSleep()(ladder(None), b).surrogate.shape == (4,)
    with pytest.raises(InputError, match=r"rungs\.0\.merge\.linear\.weight is a parameter of both"):
        WakeSleep()(ladder(Merge()), b)


def test_wrong_requests_say_why():
    with pytest.raises(InputError, match="at least 1"):
        RWS(0, wake_phi=False, sleep_phi=True)
    with pytest.raises(InputError, match="never trains q"):
        RWS(5, wake_phi=False)
    with pytest.raises(InputError, match=r"RWS\(k=1, wake_phi=True\).*WakeSleep"):
        RWS(1)
    assert RWS(1, wake_phi=False, sleep_phi=True).k == 1


@pytest.mark.parametrize("name", OBJECTIVES)
def test_they_compile_to_one_graph(name):
    torch._dynamo.reset()
    oracle = PPCA()
    objective, model = OBJECTIVES[name](), oracle.model()
    torch.manual_seed(4)
    eager = objective(model, batch(oracle))
    torch.manual_seed(4)
    compiled = torch.compile(objective, fullgraph=True, backend="eager")(model, batch(oracle))
    torch.testing.assert_close(compiled.surrogate, eager.surrogate)
