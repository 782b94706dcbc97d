"""Chains against targets whose every moment is known.

Statistical tests use fixed seeds and many independent chains: the mean over a chain is one observation, so that a z-score needs no
estimate of the autocorrelation. A z-score beyond 4.5 fails.
"""

from __future__ import annotations

import itertools
import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from oracles import PPCA, LinearLadder, batch, given_entries, z_score
from vaekit import Conditional, heads, priors
from vaekit.dist import Mixture
from vaekit.errors import InputError
from vaekit.infer import HMC, NUTS, DualAveraging, Kernel, Layout, Warmup, leapfrog, log_posterior, nudged, r_hat, sample, start
from vaekit.infer.nuts import _closed
from vaekit.models import VAE
from vaekit.types import Batch

KERNELS: dict[str, Kernel] = {"hmc": HMC(leapfrogs=5, jitter=0.4), "nuts": NUTS()}
ONE = torch.tensor(1.0, dtype=torch.float64)
STEP = {1: 0.6, 2: 0.5}  # large enough to reject often, by the number of levels


def posterior(oracle: PPCA | LinearLadder) -> MultivariateNormal:
    """p(z | x) of all latents joined, batch shape [B]; from the joint covariance."""
    n = oracle.joint()[0].numel() - 4
    gain, a, cov = given_entries(*oracle.joint(), range(n), range(0), range(4), n)
    return MultivariateNormal((oracle.x @ gain.mT + a).detach(), cov.detach())


def target(oracle: PPCA | LinearLadder) -> tuple[Layout, object]:
    layout = Layout(((2,),) * oracle.levels)
    density = log_posterior(oracle.model(), batch(oracle))
    return layout, lambda z: density(layout.split(z))


@pytest.fixture(params=[PPCA, LinearLadder], ids=["ppca", "ladder"])
def oracle(request: pytest.FixtureRequest) -> PPCA | LinearLadder:
    return request.param()


# --- the integrator -------------------------------------------------------------------------------------------------------------------


def test_leapfrog_is_reversible_and_keeps_volume(oracle):
    """Back with the momentum reversed, or with the step reversed; and |d(z', r') / d(z, r)| = 1."""
    layout, density = target(oracle)
    z = torch.randn(3, 6, sum(layout.sizes), dtype=torch.float64)
    r, epsilon = torch.randn_like(z), torch.full((3, 6), 0.3, dtype=torch.float64)
    state = start(density, z)
    end, r_end = leapfrog(density, state, r, epsilon, ONE, steps=7)
    assert (end.z - z).abs().min() > 1e-3
    for back in (leapfrog(density, end, -r_end, epsilon, ONE, steps=7), leapfrog(density, end, r_end, -epsilon, ONE, steps=7)):
        torch.testing.assert_close(back[0].z, z)
        torch.testing.assert_close(back[0].log_p, state.log_p)
    torch.testing.assert_close(leapfrog(density, end, -r_end, epsilon, ONE, steps=7)[1], -r)

    def flow(v: Tensor) -> Tensor:  # a quartic, whose flow is no linear map
        z, r = v.split(2)
        for _ in range(3):
            half = r - 0.5 * 0.2 * z**3
            z = z + 0.2 * half
            r = half - 0.5 * 0.2 * z**3
        return torch.cat([z, r])

    v = torch.randn(4, dtype=torch.float64)
    quartic = start(lambda z: -0.25 * (z**4).sum(-1), v[:2].view(1, 1, 2))
    got, momentum = leapfrog(quartic_density, quartic, v[2:].view(1, 1, 2), 0.2 * ONE, ONE, steps=3)
    torch.testing.assert_close(torch.cat([got.z[0, 0], momentum[0, 0]]), flow(v))
    assert torch.linalg.det(torch.autograd.functional.jacobian(flow, v)).item() == pytest.approx(1, abs=1e-12)


def quartic_density(z: Tensor) -> Tensor:
    return -0.25 * (z**4).sum(-1)


@pytest.mark.parametrize("kind", ["gaussian", "network"])
def test_energy_error_is_of_second_order(kind):
    """Over a fixed time the error falls 4-fold when the step halves: the slope in logarithms is 2 within 0.05."""
    torch.manual_seed(1)
    if kind == "gaussian":
        density = target(PPCA())[1]
        z = torch.randn(200, 6, 2, dtype=torch.float64)
    else:
        px = heads.Bernoulli(5)
        decoder = Conditional(nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 5)), px).double()
        model = VAE(priors.StandardNormal(2).double(), nn.Identity(), decoder)
        density = log_posterior(model, Batch((torch.rand(6, 5) < 0.5).double()))
        z = torch.randn(200, 6, 2, dtype=torch.float64)
    state, r = start(density, z), torch.randn_like(z)
    errors = []
    steps = [8, 16, 32, 64]
    for n in steps:
        end, momentum = leapfrog(density, state, r, 2.0 / n * ONE, ONE, steps=n)
        change = 0.5 * (momentum.square() - r.square()).sum(-1) - end.log_p + state.log_p
        errors.append(change.square().mean().sqrt().log().item())
    slopes = [(a - b) / math.log(2) for a, b in itertools.pairwise(errors)]
    assert slopes[-1] == pytest.approx(2, abs=0.05), slopes


# --- the kernels leave the posterior as it is, and find it ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", KERNELS)
def test_one_transition_keeps_the_posterior(name, oracle):
    """20,000 exact samples of each of 6 posteriors, one transition at a step size that rejects often: mean and covariance stay."""
    _, density = target(oracle)
    exact = posterior(oracle)
    z = exact.sample((20_000,))
    state, info = KERNELS[name].step(density, start(density, z), STEP[oracle.levels] * ONE, ONE)
    moved = state.z - exact.mean
    assert (moved - (z - exact.mean)).abs().mean() > 0.1  # it has not simply stayed
    assert info.accept.mean() < 0.98
    assert z_score(moved, 0.0).abs().max() < 4.5
    assert z_score(moved.unsqueeze(-1) * moved.unsqueeze(-2), exact.covariance_matrix).abs().max() < 4.5


@pytest.mark.parametrize("name", KERNELS)
def test_posterior_moments(name, oracle):
    """1,000 chains of 12 draws, after a warm-up of 20 from the prior on: means and covariances by z-score over the chains."""
    exact = posterior(oracle)
    model = oracle.model()
    init = tuple(torch.randn(1_000, 6, 2, dtype=torch.float64) for _ in range(oracle.levels))
    got = sample(partial(model.log_joint, batch(oracle)), init, KERNELS[name], warmup=Warmup(20, epsilon=0.2), draws=12, seed=1)
    z = torch.cat(list(got.z), -1) - exact.mean  # [S, K, B, D]
    assert z_score(z.mean(0), 0.0).abs().max() < 4.5
    assert z_score((z.unsqueeze(-1) * z.unsqueeze(-2)).mean(0), exact.covariance_matrix).abs().max() < 4.5
    assert got.divergences.sum() == 0


@pytest.mark.parametrize("name", KERNELS)
def test_two_modes_get_their_shares(name):
    """A mixture 0.3 N(-1.5, 0.5^2) + 0.7 N(1.5, 0.8^2): 2,000 exact starts and 5 transitions keep the share of the left mode."""
    weights, loc = torch.tensor([0.3, 0.7]).double(), torch.tensor([[-1.5], [1.5]]).double()
    scale = torch.tensor([[0.5], [0.8]]).double()
    component = torch.multinomial(weights, 2_000, replacement=True)
    z = (loc[component] + scale[component] * torch.randn(2_000, 1).double()).unsqueeze(1)

    def density(z: Tensor) -> Tensor:
        parts = -0.5 * ((z.unsqueeze(-2) - loc) / scale).square() - scale.log()
        return (parts.squeeze(-1) + weights.log()).logsumexp(-1)

    left = 0.3 * 0.5 * (1 + math.erf(1.5 / 0.5 / 2**0.5)) + 0.7 * 0.5 * (1 - math.erf(1.5 / 0.8 / 2**0.5))
    got = sample(density, z, KERNELS[name], warmup=Warmup(0, epsilon=0.7), draws=5, seed=2)
    crossed = (got.z[-1].sign() != z.sign()).double().mean()
    assert crossed > 0.1
    assert z_score((got.z[-1] < 0).double().squeeze(), left).abs() < 4.5


def test_nuts_stops_where_it_turns_back():
    """On N(0, 1) a trajectory is about half a period, 3 to 13 units of time: with step 0.1, 15 to 127 leapfrog steps, none divergent."""
    density = lambda z: -0.5 * z.square().sum(-1)  # noqa: E731
    got = sample(density, torch.randn(200, 1, 3), NUTS(), warmup=Warmup(0, epsilon=0.1), draws=5, seed=0)
    assert got.leapfrogs.min() >= 15 and got.leapfrogs.max() <= 127
    assert got.accept.min() > 0.99
    short = sample(density, torch.randn(200, 1, 3), NUTS(depth=2), warmup=Warmup(0, epsilon=0.1), draws=5, seed=0)
    assert (short.leapfrogs == 3).all()


def test_the_walk_over_the_tree_checks_every_subtree():
    """Against the definition: leaf n closes the subtrees of 2, 4, ... leaves that end at it, and their first leaves are still kept."""
    for depth in range(1, 7):
        opened: dict[int, int] = {}
        for n in range(2**depth):
            if n % 2 == 0:
                opened[(n // 2).bit_count()] = n
            sizes = [2**k for k in range(1, depth + 1) if (n + 1) % 2**k == 0]
            assert [opened[slot] for slot in _closed(n)] == [n + 1 - size for size in sizes]


def test_chains_are_independent_of_each_other():
    """A chain with a density of NaN everywhere but its start, or a wild step size, changes no other chain's path."""
    oracle = PPCA()
    _, density = target(oracle)
    z = torch.randn(2, 6, 2, dtype=torch.float64)
    for kernel in (HMC(), NUTS(depth=5)):
        results = []
        for wild in (0.3, 1e6):
            epsilon = torch.full((2, 6), 0.3, dtype=torch.float64)
            epsilon[0, 0] = wild
            torch.manual_seed(4)
            results.append(kernel.step(density, start(density, z), epsilon, ONE))
        rest = torch.ones(2, 6, dtype=torch.bool)
        rest[0, 0] = False
        (calm, _), (state, info) = results
        if isinstance(kernel, HMC):  # NUTS takes more random numbers where a tree grows longer
            assert torch.equal(calm.z[rest], state.z[rest])
        assert torch.equal(state.z[0, 0], z[0, 0]) and info.divergent[0, 0] and not info.divergent[rest].any()
        assert state.z.isfinite().all() and info.accept[0, 0] < 1e-6


@pytest.mark.parametrize("kernel", [HMC(jitter=0.0), NUTS()], ids=["hmc", "nuts"])
def test_a_cliff_is_a_rejection_and_never_a_nan(kernel):
    """log p = log z, NaN or -inf beyond 0: the chains stay on the positive side, and exp(-z) z has mean 2 (1,000 chains of 30)."""
    got = sample(
        lambda z: (z.log() - z).sum(-1), 2 * torch.ones(1_000, 1, 1, dtype=torch.float64), kernel, warmup=Warmup(50), draws=30, seed=0
    )
    assert got.z.isfinite().all() and (got.z > 0).all()
    assert z_score(got.z.mean(0).flatten(), 2.0).abs() < 4.5
    assert got.divergences.sum() > 0


# --- adaptation -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("target_rate", "per_chain", "steps"), [(0.6, False, 300), (0.9, False, 300), (0.9, True, 800)])
def test_dual_averaging_reaches_its_acceptance(target_rate, per_chain, steps):
    """Scales from 0.1 to 10 over the examples: the mean acceptance after the warm-up is the target within 0.05, and the steps
    follow the scales."""
    scale = torch.tensor([0.1, 1.0, 10.0]).view(1, 3, 1)
    warmup = Warmup(steps, target=target_rate, per_chain=per_chain)  # one chain alone is noisier than 20
    got = sample(lambda z: -0.5 * (z / scale).square().sum(-1), scale * torch.randn(20, 3, 10), HMC(), warmup=warmup, draws=100, seed=0)
    assert (got.accept.mean(0) - target_rate).abs().max() < 0.05
    sizes = got.epsilon.log().mean(0).exp() / scale.flatten()
    assert sizes.max() / sizes.min() < 1.5
    assert got.epsilon.shape == (20, 3) and (per_chain or (got.epsilon == got.epsilon[:1]).all())


def test_the_simple_rule_reaches_its_acceptance():
    epsilon, state = torch.tensor(0.01), start(lambda z: -0.5 * z.square().sum(-1), torch.randn(10, 20, 10))
    accepted = []
    for _ in range(300):
        state, info = HMC().step(lambda z: -0.5 * z.square().sum(-1), state, epsilon, torch.tensor(1.0))
        epsilon = nudged(epsilon, info.accept.mean(), 0.9)
        accepted.append(info.accept.mean())
    assert torch.stack(accepted[-150:]).mean() == pytest.approx(0.9, abs=0.02)


def test_dual_averaging_is_that_of_the_paper():
    """Equation 6 written out for three steps."""
    adapting, lacks = DualAveraging.begin(torch.tensor(0.2, dtype=torch.float64)), 0.0
    log_bar = 0.0
    for t, a in enumerate([0.3, 0.9, 0.5], 1):
        adapting = adapting.update(torch.tensor(a, dtype=torch.float64), 0.8)
        lacks += 0.8 - a
        log_epsilon = math.log(2.0) - math.sqrt(t) / 0.05 / (t + 10) * lacks
        log_bar = t**-0.75 * log_epsilon + (1 - t**-0.75) * log_bar
    assert adapting.epsilon.log().item() == pytest.approx(log_epsilon)
    assert adapting.final.log().item() == pytest.approx(log_bar)


def test_adapted_mass_follows_the_variances():
    scale = torch.tensor([0.3, 1.0, 3.0])
    got = sample(
        lambda z: -0.5 * (z / scale).square().sum(-1),
        scale * torch.randn(200, 1, 3),
        NUTS(),
        warmup=Warmup(60, mass=True),
        draws=20,
        seed=0,
    )
    assert (got.inverse_mass[0, 0] / scale.square()).log().abs().max() < 0.2
    assert z_score((got.z / scale).square().mean(0).squeeze(1), 1.0).abs().max() < 4.5
    assert got.leapfrogs.mean() < 8  # as on a round target


# --- the rest -------------------------------------------------------------------------------------------------------------------------


def test_seed_thinning_and_shapes():
    model = LinearLadder().model()
    b = Batch(LinearLadder().x)
    init = (torch.zeros(3, 6, 2, dtype=torch.float64),) * 2
    torch.manual_seed(9)
    noise = torch.get_rng_state()
    a = sample(log_posterior(model, b), init, HMC(), draws=4, thin=3, warmup=Warmup(5), seed=7)
    assert torch.equal(torch.get_rng_state(), noise)
    c = sample(log_posterior(model, b), init, HMC(), draws=12, warmup=Warmup(5), seed=7)
    assert [t.shape for t in a.z] == [(4, 3, 6, 2)] * 2
    assert all(torch.equal(s, t[2::3]) for s, t in zip(a.z, c.z, strict=True))


def test_log_posterior_is_log_joint_without_q():
    oracle = PPCA()
    z = torch.randn(3, 6, 2, dtype=torch.float64)
    mask = torch.rand(6, 4) < 0.6
    for b in (batch(oracle), Batch(oracle.x, mask=mask)):
        torch.testing.assert_close(log_posterior(oracle.model(), b)(z), oracle.model().log_joint(b, z))

    class Unused(nn.Module):
        def forward(self, x: Tensor) -> None:
            raise AssertionError("q was run")

    assert log_posterior(oracle.model(Unused()), batch(oracle))(z).shape == (3, 6)


def test_what_has_no_gradient_is_refused():
    x = torch.ones(2, 5)
    binary = VAE(
        lambda: torch.distributions.Independent(torch.distributions.Bernoulli(torch.full((3,), 0.5)), 1), nn.Identity(), nn.Identity()
    )
    with pytest.raises(InputError, match=r"level 0: p\(z\) = Independent\(Bernoulli\) is discrete.*RWS or WakeSleep"):
        log_posterior(binary, Batch(x))(torch.zeros(1, 2, 3))
    bounded = VAE(lambda: torch.distributions.Independent(torch.distributions.Beta(torch.ones(3), 1.0), 1), nn.Identity(), nn.Identity())
    with pytest.raises(InputError, match="is bounded.*prior on all real numbers"):
        log_posterior(bounded, Batch(x))(torch.full((1, 2, 3), 0.5))
    with pytest.raises(InputError, match="no gradient in z"):
        sample(lambda z: torch.zeros(z.shape[:2]), torch.zeros(1, 1, 2))
    mixed = VAE(priors.GaussianMixture(3, 2), nn.Identity(), Conditional(nn.Linear(3, 5), heads.Bernoulli(5)))
    assert isinstance(mixed.prior(), Mixture)
    assert log_posterior(mixed, Batch(x))(torch.zeros(1, 2, 3)).shape == (1, 2)


def test_wrong_requests_say_why():
    def fine(z: Tensor) -> Tensor:
        return -z.square().sum(-1)

    for make, match in (
        (lambda: HMC(leapfrogs=0), "leapfrogs=0"),
        (lambda: HMC(jitter=1.0), "jitter=1.0"),
        (lambda: NUTS(depth=0), "depth=0"),
        (lambda: Warmup(-1), "steps=-1"),
        (lambda: Warmup(epsilon=0.0), "epsilon=0.0"),
        (lambda: Warmup(target=1.0), "target=1.0"),
        (lambda: sample(fine, torch.zeros(1, 1, 2), draws=0), "draws=0"),
        (lambda: sample(fine, torch.zeros(2)), r"shapes \[\[2\]\]"),
        (lambda: sample(lambda z: -z.square().sum(), torch.zeros(1, 1, 2)), r"is \[\]: it must be \[K, B\] = \[1, 1\]"),
        (lambda: sample(lambda z: z.log().sum(-1), torch.zeros(3, 1, 2)), "not finite at the start of 3 of 3 chains"),
        (lambda: start(fine, torch.zeros(2, 3)), r"shape \[2, 3\]"),
        (lambda: r_hat(torch.zeros(3, 2, 1)), "at least 4"),
    ):
        with pytest.raises(InputError, match=match):
            make()
    with torch.inference_mode(), pytest.raises(InputError, match=r"inference_mode\(\) is on .* use torch.no_grad\(\)"):
        sample(fine, torch.zeros(1, 1, 2), draws=1)
