"""Evaluation against models whose likelihood is known, and findings against faults put in on purpose."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from oracles import PPCA, LinearLadder
from vaekit import VAE, Conditional, heads, priors
from vaekit.data.core import Split
from vaekit.errors import InputError
from vaekit.evaluate import advise, evaluate, latents, likelihood, residuals
from vaekit.evaluate.likelihood import Evaluation
from vaekit.models.core import LatentModel


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
    assert found.nll == pytest.approx(-float(exact)) and found.bits_per_dim == pytest.approx(found.nll / (2 * math.log(2)))


def test_samples_are_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pass holds more than the chunk allows, every sample is drawn once, and the caller's noise and mode are as they were."""
    oracle = PPCA()
    split, model = oracle_split(oracle, 30), oracle.model().train()
    drawn: list[int] = []
    infer = LatentModel.infer
    monkeypatch.setattr(
        LatentModel, "infer", lambda self, batch, k=1, **more: (drawn.append(k * batch.size), infer(self, batch, k, **more))[1]
    )
    monkeypatch.setattr(likelihood, "CHUNK", 4 * 10 * 7)
    before = torch.get_rng_state()
    found = evaluate(model, split, samples=100, batch_size=10, seed=4)
    assert max(drawn) == 70 and sum(drawn) == 30 * 100
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


def test_findings() -> None:
    from dataclasses import replace

    from vaekit.evaluate import Residuals

    def sentences(test: Evaluation, **more: object) -> str:
        return " | ".join(f"{finding.severity}: {finding.sentence}" for finding in advise(test, **more))

    assert advise(HEALTHY, train=replace(HEALTHY, elbo=-99.0), residuals=Residuals(0.1, 0.1, 1.0)) == []
    assert "warning: All 10 latent dimensions are inactive" in sentences(replace(HEALTHY, active_units=0))
    assert "info: 3 of 10 latent dimensions are inactive" in sentences(replace(HEALTHY, active_units=7))
    assert "warning: 8 of 10" in sentences(replace(HEALTHY, active_units=2))
    assert "overfits: the ELBO is 12.0 +- 1.4 nats higher" in sentences(HEALTHY, train=replace(HEALTHY, elbo=-88.0))
    assert advise(HEALTHY, train=replace(HEALTHY, elbo=-88.0, elbo_se=5.0)) == []  # within three standard errors
    assert "too wide: 1 on average where the residuals are 0.1" in sentences(HEALTHY, residuals=Residuals(0.1, 1.0, 0.1))
    assert "too narrow" in sentences(HEALTHY, residuals=Residuals(0.5, 0.1, 5.0))
    assert "effective size 1.5 of 500" in sentences(replace(HEALTHY, ess=1.5))
    assert "Only 20 examples" in sentences(replace(HEALTHY, examples=20))
