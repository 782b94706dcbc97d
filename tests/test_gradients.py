"""Moments of gradients and the naive likelihood against closed forms.

Statistical tests use fixed seeds and say how many samples they take; a z-score beyond 4.5 fails (about 7 in a million per comparison).
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from oracles import PPCA, Affine, LinearLadder, batch, z_score
from vaekit.data import Split
from vaekit.dist import DiagGaussian
from vaekit.errors import InputError
from vaekit.evaluate import gradient_moments, naive_log_likelihood
from vaekit.models import VAE
from vaekit.objectives import ELBO, IWAE, NVIL, REINFORCE, STL, DReG, RunningMean
from vaekit.priors import StandardNormal
from vaekit.types import Batch

f64 = torch.float64
MU, SIGMA = 0.8, 1.5


class Free(nn.Module):
    """q(z | x) = N(mu, sigma^2), whatever x."""

    def __init__(self) -> None:
        super().__init__()
        self.mu = nn.Parameter(torch.tensor([MU], dtype=f64))
        self.log_sigma = nn.Parameter(torch.tensor([SIGMA], dtype=f64).log())

    def forward(self, x: Tensor) -> DiagGaussian:
        return DiagGaussian(self.mu.expand(len(x), 1), self.log_sigma)


def lonely() -> VAE:
    """p(x | z) does not look at z, so that log w = log N(z; 0, 1) - log q(z) + const."""
    likelihood = Affine(1, 2, 1.0, torch.Generator().manual_seed(0))
    with torch.no_grad():
        likelihood.weight.zero_()
    likelihood.weight.requires_grad_(False)
    return VAE(StandardNormal(1).double(), Free(), likelihood)


ROWS = Batch(torch.zeros(4, 2, dtype=f64))


@pytest.mark.parametrize("name", ["sampled", "stl", "closed"])
def test_moments_of_a_gaussian_s_gradient(name):
    """With z = mu + sigma e the ELBO's gradient is -z in mu and 1 - sigma e z in log sigma; STL's -z + e / sigma and sigma e times it.
    Means over 4 examples, 1,500 draws."""
    objective = {"sampled": ELBO(closed_form=False), "stl": STL(), "closed": ELBO(closed_form=True)}[name]
    model = lonely()
    groups = {"mu": [model.posterior.mu], "log_sigma": [model.posterior.log_sigma]}
    found = gradient_moments(model, ROWS, objective, draws=1_500, parameters=groups, seed=1)
    a = 1 / SIGMA - SIGMA
    variance = {
        "sampled": {"mu": SIGMA**2 / 4, "log_sigma": (MU**2 * SIGMA**2 + 2 * SIGMA**4) / 4},
        "stl": {"mu": a**2 / 4, "log_sigma": (MU**2 * SIGMA**2 + 2 * (SIGMA * a) ** 2) / 4},
        "closed": {"mu": 0.0, "log_sigma": 0.0},
    }[name]
    mean = {"mu": -MU, "log_sigma": 1 - SIGMA**2}
    for key, moments in found.items():
        assert moments.draws == 1_500 and moments.mean.shape == moments.sd.shape == (1,)
        assert float(moments.mean) == pytest.approx(-mean[key], abs=4.5 * (variance[key] / 1_500) ** 0.5 + 1e-12)
        if name == "closed":
            assert moments.variance < 1e-20 and moments.norm == pytest.approx(abs(mean[key])) and moments.snr > 1e6
            continue
        assert abs(moments.variance - variance[key]) < 4.5 * moments.variance_se < 0.5 * variance[key]
        assert abs(moments.norm - abs(mean[key])) < 4.5 * moments.norm_se < 0.5 * abs(mean[key])
        snr = abs(mean[key]) / variance[key] ** 0.5
        assert abs(moments.snr - snr) < 4.5 * moments.snr_se < 0.5 * snr
        assert float(moments.sd) == pytest.approx(moments.variance**0.5)
        assert moments.seconds > 0 and moments.cost == pytest.approx(moments.variance * moments.seconds)


def test_standard_errors_are_those_of_repetition():
    """Over 40 seeds of 60 draws: the spread of each figure is its standard error, within a third (its own spread is a tenth)."""
    found = [gradient_moments(lonely(), ROWS, ELBO(closed_form=False), draws=60, seed=s)["posterior"] for s in range(40)]
    for key in ("variance", "norm"):
        spread = torch.tensor([getattr(m, key) for m in found]).std()
        claimed = torch.tensor([getattr(m, f"{key}_se") for m in found]).square().mean().sqrt()
        assert 0.67 < claimed / spread < 1.5, key


def test_pure_noise_has_the_floor_s_ratio():
    """Where the exact gradient is 0: sampled ELBO, q = p, 20 times 100 draws."""
    model = lonely()
    with torch.no_grad():
        model.posterior.mu.zero_()
        model.posterior.log_sigma.zero_()
    found = [gradient_moments(model, ROWS, ELBO(closed_form=False), draws=100, seed=s)["posterior"] for s in range(20)]
    snr = torch.tensor([m.snr for m in found])
    assert z_score(snr, found[0].snr_floor).abs() < 4.5
    norm2 = torch.tensor([m.norm**2 for m in found])
    assert norm2.mean() < found[0].variance / 100  # without the correction it would be this, on average


def test_groups_are_the_model_s_parts_and_the_mean_is_the_gradient():
    torch.manual_seed(0)
    oracle = PPCA()
    model = oracle.model()
    many = Batch(oracle.x.repeat(20, 1))
    found = gradient_moments(model, many, IWAE(1), draws=300)
    assert list(found) == ["posterior", "likelihood"]
    for name, part in model.named_children():
        if name in found:
            exact = torch.autograd.grad(-oracle.elbo(oracle.x).mean(), list(part.parameters()))
            z = (found[name].mean - torch.cat([g.flatten() for g in exact])) / (found[name].sd / 300**0.5)
            assert z.abs().max() < 4.5
    assert list(gradient_moments(LinearLadder().model(), batch(oracle), DReG(2), draws=20)) == ["rungs", "likelihood"]


def test_nothing_is_left_behind():
    """Gradients, modes, random numbers and what a baseline remembers are as they were; the same seed gives the same numbers."""
    oracle = PPCA()
    model = oracle.model()
    model.train()
    model.likelihood.eval()
    model.posterior.weight.grad = torch.ones_like(model.posterior.weight)
    objective = REINFORCE(baseline=RunningMean())
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, second = (gradient_moments(model, batch(oracle), objective, draws=20, seed=3)["posterior"] for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.mean, second.mean) and first.variance == second.variance
    assert model.training and not model.likelihood.training and objective.training and objective.baseline.training
    assert (model.posterior.weight.grad == 1).all() and model.likelihood.weight.grad is None
    assert float(objective.baseline._mean.weight) == 0
    nvil = NVIL(nn.Linear(4, 1, dtype=f64))
    groups = {"encoder": oracle.encoder.parameters(), "baseline": nvil.parameters()}
    assert list(gradient_moments(model, batch(oracle), nvil, draws=20, parameters=groups)) == ["encoder", "baseline"]


def test_gradient_requests_that_cannot_be_met_say_why():
    oracle = PPCA()
    with pytest.raises(InputError, match=r"draws=19\): the errors come from 10 blocks of draws, so take 20 or more"):
        gradient_moments(oracle.model(), batch(oracle), ELBO(), draws=19)
    with pytest.raises(InputError, match='the group "none" holds no parameter'):
        gradient_moments(oracle.model(), batch(oracle), ELBO(), draws=20, parameters={"none": []})
    frozen = oracle.model().requires_grad_(False)
    with pytest.raises(InputError, match="no parameter to train"):
        gradient_moments(frozen, batch(oracle), ELBO(), draws=20)


# --- the naive estimate of log p(x) ----------------------------------------------------------------------------------------------------


def float64_rows(oracle: PPCA | LinearLadder) -> tuple[Split, Tensor]:
    """A split comes back in float32, and is scored as that."""
    x = oracle.x.float()
    return Split(x), oracle.evidence(x.double()).detach()


@pytest.mark.parametrize("make", [PPCA, LinearLadder])
def test_naive_estimate_is_right_in_few_dimensions(make):
    """200,000 samples for each of 6 examples: within 4.5 of its own standard errors, and these are small."""
    torch.manual_seed(0)
    oracle = make()
    split, exact = float64_rows(oracle)
    found = naive_log_likelihood(oracle.model(), split, samples=200_000)
    assert ((found.log_px - exact) / found.se).abs().max() < 4.5
    assert found.se.max() < 0.05 and (found.ess < 200_000).all() and found.mean == pytest.approx(exact.mean().item(), abs=0.05)


@pytest.mark.parametrize("samples", [20, 500])
def test_naive_estimate_lies_below_on_average_and_its_error_is_honest_while_the_ess_is_large(samples):
    """1,000 repetitions: the mean error is -1/2 of the variance where that is small (Jensen, second order), the spread the one claimed."""
    torch.manual_seed(0)
    oracle = PPCA()
    split, exact = float64_rows(oracle)
    found = naive_log_likelihood(oracle.model(), Split(split.x.repeat(1_000, 1)), samples=samples, seed=2)
    error = found.log_px.view(1_000, 6) - exact
    if samples == 20:
        assert (z_score(error, 0.0) < -4.5).all()
        return
    wide = found.ess.view(1_000, 6).mean(0) > 50
    assert wide.any()
    assert z_score((error + 0.5 * error.var(0))[:, wide], 0.0).abs().max() < 4.5
    torch.testing.assert_close(error.std(0)[wide], found.se.view(1_000, 6).square().mean(0).sqrt()[wide], rtol=0.15, atol=0)


def test_naive_estimate_fails_as_the_latent_dimension_grows():
    torch.manual_seed(0)
    lost = []
    for d in (1, 8):
        oracle = PPCA(latent=d, data=16)
        split, exact = float64_rows(oracle)
        lost.append(float((exact - naive_log_likelihood(oracle.model(), split, samples=1_000).log_px).mean()))
    assert abs(lost[0]) < 0.5 and lost[1] > 3


def test_naive_estimate_does_not_depend_on_chunks_and_ignores_missing_entries():
    oracle = PPCA()
    x = oracle.x.float()
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[:, 1] = False
    split = Split(torch.where(mask, x, torch.nan), mask=mask)
    found = naive_log_likelihood(oracle.model(), split, samples=100_000)
    exact = oracle.evidence(x.double(), torch.tensor([0, 2, 3])).detach()
    assert ((found.log_px - exact) / found.se).abs().max() < 4.5
    other = naive_log_likelihood(oracle.model(), split, samples=100_000, chunk=777, batch_size=2, seed=1)
    assert ((found.log_px - other.log_px) / (found.se**2 + other.se**2).sqrt()).abs().max() < 4.5
    assert math.isnan(naive_log_likelihood(oracle.model(), split, samples=1).se[0])
    for bad in ({"samples": 0}, {"samples": 5, "batch_size": 0}, {"samples": 5, "chunk": 0}):
        with pytest.raises(InputError, match="at least 1 is needed"):
            naive_log_likelihood(oracle.model(), split, **bad)
