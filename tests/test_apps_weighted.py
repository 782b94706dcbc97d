"""Scores, explanations and imputations beside what probabilistic PCA knows in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from oracles import PPCA, Full, given_entries
from vaekit.apps.impute import impute
from vaekit.apps.weighted import explained, log_evidence, traces
from vaekit.errors import InputError
from vaekit.models import VAE, LatentModel
from vaekit.priors import StandardNormal
from vaekit.types import Batch

MASK = torch.tensor([True, False, True, False])


def conditional(oracle: PPCA, x: Tensor, seen: list[int], hidden: list[int]) -> tuple[Tensor, Tensor]:
    """Mean ``[B, H]`` and covariance ``[H, H]`` of the hidden entries given the seen ones."""
    with torch.no_grad():
        mean, cov = oracle.joint()
    mean, cov = mean[2:], cov[2:, 2:]
    gain = torch.linalg.solve(cov[seen][:, seen], cov[seen][:, hidden]).mT
    return mean[hidden] + (x[:, seen] - mean[seen]) @ gain.mT, cov[hidden][:, hidden] - gain @ cov[seen][:, hidden]


def approximate(oracle: PPCA) -> LatentModel:
    """The exact posterior given x_0 and x_2, moved by 0.3 and twice as wide in variance: the weights have to put it right."""
    with torch.no_grad():
        gain, a, s = given_entries(*oracle.joint(), range(2), range(0), [0, 2], 2)
    return oracle.model(Full(gain, a + 0.3, 2 * s))


@pytest.fixture
def oracle() -> PPCA:
    return PPCA()


def masked(oracle: PPCA) -> Batch:
    return Batch(torch.where(MASK, oracle.x, math.nan), mask=MASK.expand_as(oracle.x))


def test_one_sample_of_the_exact_posterior_is_the_evidence(oracle: PPCA) -> None:
    batch = masked(oracle)
    expected = oracle.evidence(oracle.x, torch.tensor([0, 2])).detach()
    torch.testing.assert_close(log_evidence(oracle.exact([0, 2]), batch, 1, 0), expected)


def test_the_score_of_an_imperfect_encoder_comes_to_the_evidence(oracle: PPCA) -> None:
    torch.testing.assert_close(
        log_evidence(oracle.model(), Batch(oracle.x), 4096, 0), oracle.evidence(oracle.x).detach(), atol=0.01, rtol=0
    )


def test_evenly_spread_noise_is_better_than_independent(oracle: PPCA) -> None:
    batch, exact = Batch(oracle.x), oracle.evidence(oracle.x).detach()
    even = torch.stack([log_evidence(oracle.model(), batch, 64, seed) for seed in range(40)]) - exact
    torch.manual_seed(0)
    with torch.no_grad():
        independent = torch.stack([oracle.model().infer(batch, 64).log_w.logsumexp(0) - math.log(64) for _ in range(40)]) - exact
    assert even.square().mean() < 0.5 * independent.square().mean()


def test_a_row_is_scored_alone_or_among_others_alike(oracle: PPCA) -> None:
    batch = Batch(oracle.x)
    before = torch.get_rng_state()
    whole = log_evidence(oracle.model(), batch, 32, 7)
    alone = torch.cat([log_evidence(oracle.model(), Batch(x[None]), 32, 7) for x in oracle.x.flip(0)]).flip(0)
    torch.testing.assert_close(whole, alone, rtol=1e-13, atol=1e-13)
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(whole, log_evidence(oracle.model(), batch, 32, 8))


def test_blocks_of_rows_change_nothing(oracle: PPCA, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = log_evidence(oracle.model(), Batch(oracle.x), 32, 0)
    monkeypatch.setattr("vaekit.apps.weighted.CHUNK", 4 * 32 * 2)
    assert len(list(traces(oracle.model(), Batch(oracle.x), 32, 0))) == 3
    torch.testing.assert_close(log_evidence(oracle.model(), Batch(oracle.x), 32, 0), whole, rtol=1e-13, atol=1e-13)


class Told(nn.Module):
    """The exact posterior whatever was observed: it reads the mask off NaN."""

    def __init__(self, oracle: PPCA) -> None:
        super().__init__()
        self.oracle = oracle

    def forward(self, x: Tensor) -> Distribution:
        entries = torch.arange(4)[~x[0].isnan()].tolist()
        with torch.no_grad():
            return Full(*given_entries(*self.oracle.joint(), range(2), range(0), entries, 2))(x.nan_to_num())


def seen_as_nan(batch: Batch) -> Tensor:
    return batch.x if batch.mask is None else torch.where(batch.mask, batch.x, math.nan)


@pytest.mark.parametrize("missing", [False, True])
def test_each_entry_given_the_others(oracle: PPCA, missing: bool) -> None:
    """An entry that is far out moves q(z | x): the weights of x alone would find it ordinary."""
    x = oracle.x.clone()
    x[0, 2] += 6
    model = VAE(StandardNormal(2).double(), Told(oracle), oracle.likelihood, view=seen_as_nan)
    observed = [0, 2] if missing else [0, 1, 2, 3]
    batch = Batch(torch.where(MASK, x, math.nan), mask=MASK.expand_as(x)) if missing else Batch(x)
    found = explained(model, batch, 2048, 0)
    for d in range(4):
        rest = torch.tensor([i for i in observed if i != d])
        exact = (oracle.evidence(x, torch.tensor(observed)) - oracle.evidence(x, rest)).detach()
        torch.testing.assert_close(found.parts[:, d], exact if d in observed else torch.zeros_like(exact), atol=0.02, rtol=0)
    assert float(found.parts[0, 2]) < -5 and (missing or int(found.parts[0].argmin()) == 2)


@pytest.mark.parametrize("exact", [True, False])
def test_missing_entries_have_their_conditional_mean_and_interval(oracle: PPCA, exact: bool) -> None:
    model = oracle.exact([0, 2]) if exact else approximate(oracle)
    mean, cov = conditional(oracle, oracle.x, [0, 2], [1, 3])
    scale = cov.diagonal().sqrt()
    found = impute(model, masked(oracle), samples=8192, coverage=0.9)
    assert found.lower is not None and found.upper is not None
    torch.testing.assert_close(found.mean[:, ~MASK], mean, atol=0.02, rtol=0)
    torch.testing.assert_close(found.lower[:, ~MASK], mean - 1.6449 * scale, atol=0.06, rtol=0)
    torch.testing.assert_close(found.upper[:, ~MASK], mean + 1.6449 * scale, atol=0.06, rtol=0)
    for part in (found.mean, found.lower, found.upper):
        assert torch.equal(part[:, MASK], oracle.x[:, MASK])


def test_draws_have_the_conditional_covariance(oracle: PPCA) -> None:
    """Jointly: entries drawn each by itself would have none of the covariance off the diagonal."""
    mask = torch.tensor([False, True, False, False])
    batch = Batch(torch.where(mask, oracle.x, math.nan), mask=mask.expand_as(oracle.x))
    found = impute(oracle.exact([1]), batch, samples=4096, draws=4096)
    mean, cov = conditional(oracle, oracle.x, [1], [0, 2, 3])
    correlation = cov / cov.diagonal().sqrt().outer(cov.diagonal().sqrt())
    assert float(correlation.triu(1).abs().max()) > 0.4
    torch.testing.assert_close(torch.cov(found.draws[:, 0, ~mask].mT), cov, atol=0.12, rtol=0)
    torch.testing.assert_close(found.draws[:, :, ~mask].mean(0), mean, atol=0.08, rtol=0)


def test_numbers_out_of_range(oracle: PPCA) -> None:
    for wrong in ({"samples": 0}, {"draws": -1}, {"coverage": 1.0}):
        with pytest.raises(InputError, match=str(*wrong.values())):
            impute(oracle.model(), masked(oracle), **wrong)
