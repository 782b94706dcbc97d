"""Evaluation against models whose likelihood is known, and findings against faults put in on purpose."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from oracles import PPCA, LinearLadder
from vaekit import VAE, Conditional, heads, priors
from vaekit.data.core import Split
from vaekit.dist import DiagGaussian, DiscretisedLogisticMixture
from vaekit.errors import InputError
from vaekit.evaluate import Latents, Measure, Residuals, advise, evaluate, latents, measure, residuals, stream
from vaekit.evaluate.likelihood import Evaluation


def oracle_split(oracle: PPCA | LinearLadder, n: int = 200) -> Split:
    """Rows from the model itself, float64 as the oracles are, of values that float32 holds exactly."""
    torch.manual_seed(3)
    with torch.no_grad():
        return Split(oracle.model().sample(n, mean=False).float().double())


@pytest.mark.parametrize("make", [PPCA, LinearLadder])
def test_numbers_against_the_exact_evidence(make: type) -> None:
    """200 examples, K = 2000: NLL and ELBO within their exact values and Monte Carlo error; the standard errors are those of the data."""
    oracle = make()
    split = oracle_split(oracle)
    exact = oracle.evidence(split.x).detach()
    found = evaluate(oracle.model(), split, samples=2_000, batch_size=64)
    assert found.nll == pytest.approx(-float(exact.mean()), abs=0.01)
    assert found.nll_se == pytest.approx(float(exact.std()) / 200**0.5, rel=0.02)
    elbo = oracle.elbo(split.x).detach()
    assert found.elbo == pytest.approx(float(elbo.mean()), abs=0.01)
    assert found.elbo < -found.nll
    assert found.elbo == pytest.approx(found.log_px - sum(found.rates))
    assert len(found.rates) == oracle.levels and found.latent_dim == 2 * oracle.levels
    assert found.bits_per_dim == pytest.approx(found.nll / (4 * math.log(2)))
    assert 1 < found.ess < 2_000 and (found.examples, found.samples) == (200, 2_000)


def test_exact_posterior_uses_every_sample() -> None:
    oracle = PPCA()
    split = oracle_split(oracle, 20)
    found = evaluate(oracle.exact(), split, samples=50)
    assert found.ess == pytest.approx(50) and found.nll == pytest.approx(-found.elbo)
    assert found.nll == pytest.approx(-oracle.evidence(split.x).mean().item())


def test_missing_entries_are_left_out_and_not_counted() -> None:
    oracle = PPCA()
    split = oracle_split(oracle, 50)
    mask = torch.zeros_like(split.x, dtype=torch.bool)
    mask[:, :2] = True
    found = evaluate(oracle.exact([0, 1]), Split(split.x, mask=mask), samples=3)
    exact = oracle.evidence(split.x, torch.tensor([0, 1])).mean()
    assert found.nll == pytest.approx(-exact.item()) and found.bits_per_dim == pytest.approx(found.nll / (2 * math.log(2)))


def test_samples_are_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pass holds more than the chunk allows, every sample is drawn once, and the caller's noise and mode are as they were."""
    oracle = PPCA()
    split, model = oracle_split(oracle, 30), oracle.model().train()
    drawn: list[int] = []
    model.likelihood.register_forward_pre_hook(lambda module, args: drawn.append(args[0][..., 0].numel()))
    monkeypatch.setattr(stream, "CHUNK", 4 * 10 * 7)
    before = torch.get_rng_state()
    found = evaluate(model, split, samples=100, batch_size=10, seed=4)
    assert max(drawn) == 70 and sum(drawn) == 30 * (100 + 2)  # one more at the centre of q, one for the active units
    assert torch.equal(torch.get_rng_state(), before) and model.training
    assert evaluate(model, split, samples=100, batch_size=10, seed=4) == found
    assert evaluate(model, split, samples=100, batch_size=10, seed=5).nll != found.nll


def test_one_example_has_no_standard_error() -> None:
    oracle = PPCA()
    found = evaluate(oracle.model(), oracle_split(oracle, 1), samples=3).as_dict()
    assert found["nll_se"] is None and found["elbo_se"] is None and isinstance(found["nll"], float)


def test_latents_against_their_definition() -> None:
    """KL per dimension against torch's, averaged unevenly sized batches; a dimension that ignores x is inactive."""
    oracle = PPCA()
    with torch.no_grad():
        oracle.encoder.weight[1] = 0
    split, model = oracle_split(oracle, 50), oracle.model()
    found = latents(model, split, batch_size=20)
    q = model.posterior(split.x)
    torch.testing.assert_close(found.z, q.loc)
    want = kl_divergence(Normal(q.loc, q.scale), Normal(0.0, 1.0)).mean(0)
    torch.testing.assert_close(found.kl, want.detach())
    assert found.active.tolist() == [True, False] and found.sizes == (2,)
    assert evaluate(model, split, samples=2).active_units == 1
    ladder = LinearLadder()
    assert latents(ladder.model(), oracle_split(ladder, 30)).sizes == (2, 2)


def test_no_kl_per_dimension_where_dimensions_are_not_independent() -> None:
    oracle = PPCA()
    assert latents(oracle.exact(), oracle_split(oracle, 20)).kl is None


def test_residuals_say_whether_the_variance_fits() -> None:
    """Data from the model itself: standardised residuals near those of q's extra spread; sigma wrong by 3 is off by 3."""
    oracle = PPCA()
    split = oracle_split(oracle, 4_000)
    fits = residuals(oracle.exact(), split)
    assert fits is not None and fits.standardised == pytest.approx(1, abs=0.03)
    with torch.no_grad():
        model = oracle.exact()
        oracle.likelihood.log_scale += math.log(3)
    wide = residuals(model, split)
    assert wide is not None and wide.standardised == pytest.approx(fits.standardised / 3, rel=0.02)
    assert wide.sigma == pytest.approx(3 * fits.sigma, rel=1e-6)
    bernoulli = VAE(
        priors.StandardNormal(2), Conditional(nn.Linear(4, 4), heads.Gaussian(2)), Conditional(nn.Linear(2, 4), heads.Bernoulli(4))
    )
    assert residuals(bernoulli, Split(torch.rand(10, 4))) is None


def test_wrong_requests() -> None:
    oracle = PPCA()
    with pytest.raises(InputError, match="--samples 0"):
        evaluate(oracle.model(), oracle_split(oracle, 5), samples=0)
    with torch.no_grad():
        oracle.likelihood.bias[0] = math.nan
    with pytest.raises(InputError, match="5 of 5 examples is not finite"):
        evaluate(oracle.model(), Split(torch.zeros(5, 4, dtype=torch.float64)), samples=2)


HEALTHY = Evaluation(
    examples=1000, samples=500, elbo=-100.0, elbo_se=1.0, nll=95.0, nll_se=1.0, ess=100.0, bits_per_dim=0.2, log_px=-80.0, log_px_se=1.0,
    rates=(20.0,), rates_se=(0.1,), active_units=10, latent_dim=10, seed=0,
)  # fmt: skip


def sentences(test: Evaluation, **more: object) -> str:
    return " | ".join(f"{finding.severity}: {finding.sentence}" for finding in advise(test, **more))


def test_findings() -> None:
    assert advise(HEALTHY, train=replace(HEALTHY, elbo=-99.0), residuals=Residuals(0.1, 0.1, 1.0)) == []
    assert "warning: All 10 latent dimensions are inactive" in sentences(replace(HEALTHY, active_units=0, rates=(0.02,)))
    assert "info: 3 of 10 latent dimensions are inactive" in sentences(replace(HEALTHY, active_units=7))
    assert "warning: 8 of 10" in sentences(replace(HEALTHY, active_units=2))
    assert "overfits: the ELBO is 12.0 +- 1.4 nats higher" in sentences(HEALTHY, train=replace(HEALTHY, elbo=-88.0))
    assert advise(HEALTHY, train=replace(HEALTHY, elbo=-88.0, elbo_se=5.0)) == []  # within three standard errors
    sure = replace(HEALTHY, elbo_se=0.01)
    for shift in (0.0, -3_000.0, 99.0):  # other units of x: both ELBOs move together, and the verdict stays
        moved = replace(sure, elbo=sure.elbo + shift)
        assert "overfits" in sentences(moved, train=replace(moved, elbo=moved.elbo + 2))
        assert advise(moved, train=replace(moved, elbo=moved.elbo + 1)) == []
    assert "too wide: 1 on average where the residuals are 0.1" in sentences(HEALTHY, residuals=Residuals(0.1, 1.0, 0.1))
    assert "too narrow" in sentences(HEALTHY, residuals=Residuals(0.5, 0.1, 5.0))
    assert "effective size 1.5 of 500" in sentences(replace(HEALTHY, ess=1.5))
    assert "Only 20 examples" in sentences(replace(HEALTHY, examples=20))


def test_a_level_is_called_collapsed_by_its_rate_and_by_name() -> None:
    none_active = replace(HEALTHY, active_units=0, rates=(3.5,))
    assert advise(none_active) == []  # 3.5 nats pass: nothing has collapsed, whatever the variances say
    assert "active" not in sentences(replace(HEALTHY, examples=9, active_units=0, rates=(0.0,)))
    ladder = replace(HEALTHY, rates=(1.575, 0.01), rates_se=(0.1, 0.01), active_units=2, latent_dim=5)
    assert sentences(ladder).startswith("warning: Level 1 (from the top, 0 to 1) has collapsed: its KL is 0.01 +- 0.01 nats")
    offset = torch.tensor([[-1.0, 1.0, 0.0, 0.0, 0.0], [1.0, -1.0, 0.0, 0.0, 0.0]])
    said = sentences(ladder, latents=Latents(offset, None, (2, 3), offset))
    assert said == sentences(ladder)  # the three dead ones are the collapsed level's
    said = sentences(ladder, latents=Latents(offset, None, (3, 2), offset))
    assert "info: 1 of 3 latent dimensions of the other levels are inactive" in said
    assert "All 5 latent dimensions are inactive" in sentences(replace(ladder, rates=(0.05, 0.01)))


class Shrunk(nn.Module):
    """N(m / 100, (s / 100)^2) where the wrapped module says N(m, s^2)."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *c: torch.Tensor) -> DiagGaussian:
        d = self.inner(*c)
        return DiagGaussian(d.mean / 100, d.log_scale - math.log(100))


def test_active_units_do_not_depend_on_the_units_of_z() -> None:
    oracle = PPCA()
    split = oracle_split(oracle, 50)
    plain = evaluate(oracle.model(), split, samples=2)
    model = oracle.model(Shrunk(oracle.encoder))
    model.prior = Shrunk(model.prior)
    small = evaluate(model, split, samples=2)
    assert plain.active_units == small.active_units == 2 and small.rates[0] == pytest.approx(plain.rates[0])


def test_a_level_whose_posterior_is_its_prior_has_no_active_units() -> None:
    """q(z_2 | z_1, x) = p(z_2 | z_1): the means of z_2 vary with x through z_1 alone, and its KL is 0."""
    oracle = LinearLadder()
    with torch.no_grad():
        second = oracle.encoder[1]
        second.weight.zero_()[:, :2] = oracle.lower.weight
        second.bias.copy_(oracle.lower.bias)
        second.log_scale.copy_(oracle.lower.log_scale)
    split, model = oracle_split(oracle, 50), oracle.model()
    found = evaluate(model, split, samples=50)
    assert found.rates[1] == pytest.approx(0, abs=1e-9) and found.rates[0] > 0.25
    assert found.active_units == 2 and latents(model, split).active.tolist() == [True, True, False, False]
    assert "Level 1 (from the top, 0 to 1) has collapsed" in sentences(found, latents=latents(model, split))


class Pixels(nn.Module):
    """Two components for two channels, whatever z is."""

    def forward(self, z: torch.Tensor) -> DiscretisedLogisticMixture:
        zeros = torch.zeros(*z.shape[:2], 2, 2, 2, 2)
        return DiscretisedLogisticMixture(zeros[..., 0, :, :], zeros, zeros, bins=2)


def test_bits_are_counted_over_the_entries_that_are_scored() -> None:
    """Every channel of two equally likely levels is one bit; a pixel that lacks a channel is not scored, nor counted."""
    model = VAE(priors.StandardNormal(1), Conditional(nn.Linear(8, 2), heads.Gaussian(1), event_dim=3), Pixels())
    model.posterior.net = nn.Sequential(nn.Flatten(), nn.Linear(8, 2))
    nn.init.zeros_(model.posterior.net[1].weight)
    nn.init.zeros_(model.posterior.net[1].bias)
    x = torch.zeros(3, 2, 2, 2)
    one_bit = evaluate(model, Split(x), samples=2).bits_per_dim
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[:, 0, 0, 0] = False
    found = evaluate(model, Split(x, mask=mask), samples=2)
    assert found.bits_per_dim == pytest.approx(one_bit)
    assert evaluate(model, Split(x, mask=torch.zeros_like(mask)), samples=2).as_dict()["bits_per_dim"] is None


@pytest.mark.parametrize(("entries", "want"), [(6, 200 * 100), (784, 50 * 100)])
def test_a_chunk_is_bounded_for_the_network_too(entries: int, want: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six columns: 20,000 latents at most reach the decoder, not 4 million / 6; 784 pixels: as x allows, in equal parts."""
    posterior = Conditional(nn.Linear(entries, 2), heads.Gaussian(1))
    model = VAE(priors.StandardNormal(1), posterior, Conditional(nn.Linear(1, entries), heads.Bernoulli(entries)))
    rows: list[int] = []
    forward = model.likelihood.forward
    monkeypatch.setattr(model.likelihood, "forward", lambda z: (rows.append(z[..., 0].numel()), forward(z))[1])
    evaluate(model, Split(torch.zeros(100, entries)), samples=210)
    assert max(rows) == want and sum(rows) >= 210 * 100


def test_a_float64_model_takes_float32_data() -> None:
    oracle = PPCA()
    split = oracle_split(oracle, 20)
    single = Split(split.x.float())
    assert evaluate(oracle.model(), single, samples=5) == evaluate(oracle.model(), split, samples=5)
    assert latents(oracle.model(), single).z.dtype == torch.float64 and residuals(oracle.model(), single) is not None


def test_what_the_likelihood_is_a_likelihood_of() -> None:
    def likelihood_of(head: nn.Module, x: torch.Tensor) -> Measure | None:
        q, px = heads.Gaussian(2), Conditional(nn.Linear(2, head.features), head)
        return measure(VAE(priors.StandardNormal(2), Conditional(nn.Linear(4, q.features), q), px), Split(x))

    binary, grey = torch.tensor([[0.0, 1.0, 1.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.2, 0.0]])
    assert likelihood_of(heads.Bernoulli(4), binary) is Measure.MASS
    assert likelihood_of(heads.Bernoulli(4), torch.cat([binary] * 600 + [grey])) is Measure.EXPECTED_MASS
    assert likelihood_of(heads.DiscretisedLogistic(4), grey) is Measure.MASS
    assert likelihood_of(heads.ContinuousBernoulli(4), grey) is Measure.DENSITY
    assert likelihood_of(heads.Gaussian(4), binary) is Measure.DENSITY
    assert advise(HEALTHY, measure=Measure.MASS) == []
    assert "info: The likelihood is a Bernoulli and x has grey values" in sentences(HEALTHY, measure=Measure.EXPECTED_MASS)
    assert "info: The likelihood is a density" in sentences(HEALTHY, measure=Measure.DENSITY)
