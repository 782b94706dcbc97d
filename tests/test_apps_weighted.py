"""Scores, explanations and imputations beside what probabilistic PCA knows in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from oracles import PPCA, Full, given_entries
from vaekit.apps.impute import _quantiles, impute
from vaekit.apps.network import build
from vaekit.apps.weighted import explained, log_evidence, traces
from vaekit.conditional import Conditional
from vaekit.errors import InputError
from vaekit.heads import Column, Columns, Gaussian, GaussianFixed
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


def test_blocks_are_of_the_widest_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(GaussianFixed(2, 1.0), StandardNormal, 3, [64], seed=0)
    monkeypatch.setattr("vaekit.apps.weighted.CHUNK", 64 * 8 * 5)
    assert len(list(traces(model, Batch(torch.zeros(20, 2)), 8, 0))) == 4


def test_an_absurd_entry_is_named_where_its_density_underflows(oracle: PPCA) -> None:
    x = oracle.x.clone()
    x[0, 2] = 1e200
    found = explained(oracle.model(), Batch(x), 16, 0)
    assert not found.parts.isnan().any() and found.parts[0, 2] == -math.inf and found.parts[0, [0, 1, 3]].eq(0).all()
    assert found.rest[0, 2].isfinite() and found.rest[0, [0, 1, 3]].isneginf().all()
    torch.testing.assert_close(found.log_px[1:, None] - found.rest[1:], found.parts[1:])


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


def test_intervals_of_rows_that_miss_different_entries_are_those_of_each_row_alone(oracle: PPCA) -> None:
    x = oracle.x[:3]
    mask = torch.tensor([[True, False, True, False], [False, False, True, True], [True, True, True, True]])
    model = [oracle.model(), oracle.model()]
    whole = impute(model, Batch(x, mask=mask), samples=64, coverage=0.8)
    for b in range(3):
        alone = impute(model, Batch(x[b : b + 1], mask=mask[b : b + 1]), samples=64, coverage=0.8)
        for ends, own in ((whole.lower, alone.lower), (whole.upper, alone.upper)):
            assert ends is not None and own is not None
            torch.testing.assert_close(ends[b], own[0], rtol=1e-12, atol=1e-12)
            assert torch.equal(ends[b][mask[b]], x[b][mask[b]])
    assert whole.lower is not None and whole.upper is not None and (whole.lower < whole.upper)[~mask].all()


def test_weighted_quantiles_are_where_the_weights_add_up() -> None:
    """Of 1..10 with the weights 1..10 over 55: the sum first reaches 0.1 at 3 (6/55) and 0.9 at 10 (45/55 at 9), in whatever order."""
    mixed = torch.tensor([[3.0, 7, 1, 10, 5, 2, 9, 4, 8, 6], [6.0, 4, 2, 8, 10, 1, 3, 5, 7, 9]]).mT
    low, high = _quantiles(mixed, mixed, 0.8)
    assert low.eq(3).all() and high.eq(10).all()
    low, high = _quantiles(mixed.bfloat16(), torch.ones_like(mixed), 0.79)
    assert low.eq(2).all() and high.eq(9).all()


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


def test_a_draw_of_a_table_is_a_sample_of_its_rows(oracle: PPCA) -> None:
    """500 rows that are all the same: the values drawn for them spread as p(x_mis | x_obs) does, and their mean hardly moves."""
    x = oracle.x[:1].expand(500, -1)
    batch = Batch(torch.where(MASK, x, math.nan), mask=MASK.expand_as(x))
    draws = impute(oracle.exact([0, 2]), batch, samples=1024, draws=200).draws[..., ~MASK]
    mean, cov = conditional(oracle, x, [0, 2], [1, 3])
    torch.testing.assert_close(draws.var(1).mean(0), cov.diagonal(), rtol=0.1, atol=0)
    torch.testing.assert_close(draws.mean(1).var(0), cov.diagonal() / 500, rtol=0.5, atol=0)
    torch.testing.assert_close(draws.mean((0, 1)), mean[0], atol=0.1, rtol=0)


def test_blocks_of_rows_and_draws_that_share_a_sample_have_their_own_values(oracle: PPCA, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 2 samples hundreds of draws take the same z_k; with a block to a row every block has the same z_k."""
    monkeypatch.setattr("vaekit.apps.weighted.CHUNK", 1)
    x = oracle.x[:1].expand(3, -1)
    draws = impute([approximate(oracle)] * 2, Batch(torch.where(MASK, x, math.nan), mask=MASK.expand_as(x)), samples=2, draws=101).draws
    assert draws.shape == (101, 3, 4)
    for d in (1, 3):
        assert len(draws[..., d].unique()) == 303


class Fixed(nn.Module):
    """q(z | x) = N(0, I) of one dimension: what p(z) is."""

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(len(x), 2)


class Classed(nn.Module):
    """Three classes of which 0 and 2 are likely at either side and 1 never; three in order; a number; a coin."""

    def forward(self, z: Tensor) -> Tensor:
        side = torch.where(z[:, 0] > -0.4, 6.0, -6.0)  # 0.66 of z ~ N(0, 1)
        return torch.stack([-side, torch.full_like(side, -9.0), side, side, z[:, 0], torch.full_like(side, -4.0), 0 * side, 0 * side], 1)


def classed() -> tuple[LatentModel, Batch]:
    head = Columns([Column("categorical", size=3), Column("ordinal", size=3), Column("gaussian"), Column("categorical", size=2)])
    model = VAE(StandardNormal(1), Conditional(Fixed(), Gaussian(1)), Conditional(Classed(), head), view=lambda b: b.input.nan_to_num())
    return model, Batch(torch.full((2, 4), math.nan), mask=torch.zeros(2, 4, dtype=torch.bool))


def test_a_missing_class_is_the_likeliest_one_and_not_one_in_between() -> None:
    model, batch = classed()
    found = impute(model, batch, samples=1024, coverage=0.9, draws=300)
    assert found.lower is not None and found.upper is not None
    assert found.mean[:, :2].eq(2).all() and abs(float(found.mean[0, 2])) < 0.05
    assert found.lower[:, 0].isnan().all() and found.upper[:, 0].isnan().all()
    assert found.lower[:, 1].eq(0).all() and found.upper[:, 1].eq(2).all()
    assert found.lower[0, 2] == pytest.approx(-1.65, abs=0.1) and found.upper[0, 2] == pytest.approx(1.65, abs=0.1)
    assert (found.draws[..., 0] != 1).all() and 0.55 < float((found.draws[..., 0] == 2).float().mean()) < 0.75
    seen = Batch(torch.tensor([[1.0, 1.0, 0.0, 0.0]]), mask=torch.tensor([[True, False, False, False]]))
    part = impute(model, seen, samples=64, coverage=0.9)
    assert part.mean[0, 0] == 1 and part.lower is not None and part.lower[0, 0] == 1


class At(nn.Module):
    """x = ``value``, up to a thousandth, whatever z is."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, z: Tensor) -> Tensor:
        return torch.tensor([self.value, -14.0]).expand(len(z), 2)


def test_draws_of_several_models_are_of_each_in_its_share() -> None:
    several = [VAE(StandardNormal(1), Conditional(Fixed(), Gaussian(1)), Conditional(At(v), Gaussian(1))) for v in (-5.0, 1.0, 5.0)]
    draws = impute(several, Batch(torch.zeros(50, 1), mask=torch.zeros(50, 1, dtype=torch.bool)), samples=8, draws=60).draws
    for value in (-5, 1, 5):
        assert 0.3 < float(draws.round().eq(value).float().mean()) < 0.37


def test_the_seed_governs_likelihoods_that_draw_from_torchs_own_generator() -> None:
    model, batch = classed()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = impute(model, batch, samples=64, draws=40, seed=3).draws
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(impute(model, batch, samples=64, draws=40, seed=3).draws, first)
    assert not torch.equal(impute(model, batch, samples=64, draws=40, seed=4).draws[..., 0], first[..., 0])


def test_numbers_out_of_range(oracle: PPCA) -> None:
    for wrong in ({"samples": 0}, {"draws": -1}, {"coverage": 1.0}):
        with pytest.raises(InputError, match=str(*wrong.values())):
            impute(oracle.model(), masked(oracle), **wrong)
