"""Scores of representations whose score is known: exact tables, perfect, shared, split, turned and meaningless codes.

Statistical tests have fixed seeds and say how many samples they take; a z-score beyond 4.5 fails.
"""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from oracles import PPCA, LinearLadder, z_score
from vaekit import data, heads, priors
from vaekit.data import DataSet, Factor, Split
from vaekit.dist import DiagGaussian
from vaekit.errors import InputError
from vaekit.evaluate import disentangle as d
from vaekit.evaluate.disentangle.fixed import _Draws
from vaekit.evaluate.disentangle.predict import _descend, importance, predictability
from vaekit.models import VAE

SIZES = (4, 5, 6)


def grid(*sizes: int, times: int = 1) -> Tensor:
    """Every combination, ``times`` over."""
    return torch.cartesian_prod(*[torch.arange(n) for n in sizes]).repeat(times, 1)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def turned(degrees: float, factors: Tensor) -> Tensor:
    """Two factors, standardised, turned by an angle."""
    z = factors.float()
    z = (z - z.mean(0)) / z.std(0)
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return z @ torch.tensor([[c, s], [-s, c]])


PERFECT = {
    "as they are": lambda f: f.float(),
    "permuted and scaled": lambda f: f[:, [2, 0, 1]] * torch.tensor([-3.0, 0.01, 50.0]) + 7,
    "with a dead code": lambda f: torch.cat([f.float(), torch.full((len(f), 1), 0.3)], 1),
    "in float64": lambda f: f.double(),
}


@pytest.mark.parametrize("name", PERFECT)
def test_perfect_codes_have_every_score(name):
    factors = grid(*SIZES, times=4)
    z = PERFECT[name](factors)
    assert d.mig(z, factors) == pytest.approx(1)
    assert d.modularity(z, factors) == pytest.approx(1)
    assert d.sap(z, factors) == pytest.approx(1)
    assert d.dci(z, factors) == pytest.approx((1, 1, 1), abs=1e-6)
    assert d.factor_vae_score(z, factors, votes=300) == (1, 0)
    assert d.beta_vae_score(z, factors, votes=300) == (1, 0)
    assert d.gaussian_correlation(z) == pytest.approx(0, abs=1e-9)


def test_codes_of_noise_are_at_chance():
    """2,400 rows, 4 codes: no gap, no importance, and the voting scores within 4.5 errors of 1/3."""
    factors = grid(*SIZES, times=20)
    z = noise(len(factors), 4)
    assert d.mig(z, factors) < 0.02 and d.sap(z, factors) < 0.01
    assert d.dci(z, factors)[:2] == (0, 0) and abs(d.dci(z, factors).informativeness) < 0.01
    for score in (d.factor_vae_score, d.beta_vae_score):
        value, se = score(z, factors)
        assert abs(value - 1 / 3) < 4.5 * se and se == pytest.approx(math.sqrt(2 / 9 / 2000), rel=0.05)


# --- mutual information -----------------------------------------------------------------------------------------------------------------


def joint_entropy(*columns: np.ndarray) -> float:
    _, n = np.unique(np.stack(columns, 1), axis=0, return_counts=True)
    p = n / n.sum()
    return float(-(p * np.log(p)).sum())


def test_mutual_information_and_entropy_of_small_tables():
    """Against H(a) + H(b) - H(a, b) of the unique rows, for dependent columns of unequal sizes."""
    g = torch.Generator().manual_seed(1)
    factors = torch.stack([torch.randint(n, (200,), generator=g) for n in (2, 3, 7)], 1)
    codes = torch.stack([factors[:, 0] * 3 + factors[:, 1], (factors[:, 2] // 2), torch.randint(4, (200,), generator=g)], 1)
    found, h = d.mutual_information(codes, factors), d.entropy(factors)
    for f in range(3):
        b = factors[:, f].numpy()
        assert h[f].item() == pytest.approx(joint_entropy(b), abs=1e-12)
        for c in range(3):
            a = codes[:, c].numpy()
            assert found[c, f].item() == pytest.approx(joint_entropy(a) + joint_entropy(b) - joint_entropy(a, b), abs=1e-12)


def test_the_plug_in_bias_of_independent_codes():
    """2 N I is chi-squared with (A - 1)(B - 1) degrees of freedom: 400 codes of 5 bins, 4 values, 2,000 rows."""
    g = torch.Generator().manual_seed(0)
    codes, factor = torch.randint(5, (2000, 400), generator=g), torch.randint(4, (2000, 1), generator=g)
    found = 2 * 2000 * d.mutual_information(codes, factor)[:, 0]
    assert abs(z_score(found, 12.0)) < 4.5
    assert found.var().item() == pytest.approx(24, rel=0.3)


def test_mig_of_a_second_code_that_tells_half():
    """Codes f, f // 2 of four values: (log 4 - log 2) / log 4; a code of 40 values in 20 bins tells log 20 of log 40."""
    f = torch.arange(4).repeat(5)[:, None]
    assert d.mig(torch.cat([f, f // 2], 1).float(), f) == pytest.approx(0.5)
    assert d.mig((f // 2).float(), f) == pytest.approx(0.5)
    many = torch.arange(40)[:, None]
    assert d.mig(many.float(), many) == pytest.approx(math.log(20) / math.log(40))
    assert d.mig(many.float(), many, bins=40) == pytest.approx(1)


def test_two_codes_of_one_factor_have_no_gap_but_are_modular():
    factors = grid(4, 5)
    z = factors[:, [0, 0, 1, 1]] * torch.tensor([1.0, -2.0, 1.0, 3.0])
    assert d.mig(z, factors) == pytest.approx(0, abs=1e-12)
    assert d.sap(z, factors) == pytest.approx(0, abs=1e-12)
    assert d.modularity(z, factors) == pytest.approx(1)
    assert d.factor_vae_score(z, factors, votes=200)[0] == 1


def test_modularity_of_a_code_of_two_factors():
    """I = log 4 and log 2: 1 - (log 2 / log 4)^2 = 3/4; beside a pure code 7/8. A dead code is left out."""
    factors = grid(4, 2, times=3)
    both = factors[:, 0] * 2 + factors[:, 1]
    z = torch.stack([both, factors[:, 1], torch.zeros_like(both)], 1).float()
    assert d.modularity(z[:, :1], factors) == pytest.approx(0.75)
    assert d.modularity(z, factors) == pytest.approx(0.875)
    assert math.isnan(d.modularity(torch.zeros(24, 2), factors))
    with pytest.raises(InputError, match="there is one"):
        d.modularity(z, factors[:, :1])


# --- prediction -------------------------------------------------------------------------------------------------------------------------


def test_sap_of_a_sum_of_two_factors():
    """R^2 of z = a + 2 b with a and b: var a / (var a + 4 var b), 4 var b / (same); of z = b: 0 and 1."""
    factors = grid(4, 5)
    va, vb = ((n * n - 1) / 12 for n in (4, 5))
    z = torch.stack([factors[:, 0] + 2 * factors[:, 1], factors[:, 1]], 1).float()
    total = va + 4 * vb
    assert d.sap(z, factors) == pytest.approx((va / total + 1 - 4 * vb / total) / 2)


def test_sap_without_order_is_balanced_accuracy():
    """Values 0 and 1 alike, 2 apart: 2/3 right, however often each occurs; a code that tells nothing 1/3; any order of values will do."""
    factor = torch.tensor([0] * 50 + [1] * 3 + [2] * 7)[:, None]
    z = torch.cat([(factor == 2).float(), torch.zeros(60, 1), torch.tensor([5.0, -1.0, 2.0])[factor]], 1)
    torch.testing.assert_close(predictability(z, factor, [False])[:, 0], torch.tensor([2 / 3, 1 / 3, 1.0], dtype=torch.float64))
    with pytest.raises(InputError, match="one for each"):
        d.sap(z, factor, ordered=[True, False])


def test_dci_of_known_importances():
    """Factors a + 4 b and a, coded by a and b: importances sd(a), 4 sd(b) and sd(a), 0. The rows that are fitted are a sample, so to 3%."""
    ab = grid(4, 5, times=60)
    a, b = ab.unbind(1)
    found = d.dci(ab.float(), torch.stack([a + 4 * b, a], 1))
    sa, sb = math.sqrt(15 / 12), math.sqrt(24 / 12)
    table = torch.tensor([[sa, sa], [4 * sb, 0.0]], dtype=torch.float64)

    def h(*p: float) -> float:
        return -sum(x * math.log2(x) for x in p if x)

    total = float(table.sum())
    disentanglement = 4 * sb / total  # a's code is shared evenly and counts nothing
    share = sa / (sa + 4 * sb)
    completeness = ((sa + 4 * sb) * (1 - h(share, 1 - share)) + sa) / total
    assert d.disentanglement_of(table) == pytest.approx(disentanglement)
    assert d.completeness_of(table) == pytest.approx(completeness)
    assert found == pytest.approx((disentanglement, completeness, 1), rel=0.03)


def test_dci_of_turned_codes():
    """At 45 degrees every code has half of every factor: D and C are 0. At 20 degrees they lie between, and fall with the angle."""
    factors = grid(6, 6, times=100)
    half, some, none = (d.dci(turned(angle, factors), factors) for angle in (45, 20, 0))
    assert half.disentanglement < 0.01 and half.completeness < 0.01 and half.informativeness > 0.9
    assert 0.1 < some.disentanglement < 0.5 and none == pytest.approx((1, 1, 1))


def test_dci_sees_what_is_nonlinear_and_not_what_two_codes_tell_together():
    factors = grid(6, 7, times=10)
    z = torch.stack([(factors[:, 0] - 2.2).square(), (factors[:, 1] - 3.4).abs()], 1)
    assert d.dci(z, factors) == pytest.approx((1, 1, 1), abs=1e-6)
    bits = grid(2, 2, times=50)
    assert abs(d.dci(bits.float(), (bits[:, :1] ^ bits[:, 1:]).repeat(1, 2)).informativeness) < 0.1


def test_dci_ignores_codes_of_noise():
    """With ten codes of noise beside perfect ones, 2,400 rows: what they add is exactly 0."""
    factors = grid(*SIZES, times=20)
    found = d.dci(torch.cat([factors.float(), noise(len(factors), 10)], 1), factors, ordered=[False, True, True])
    assert found == pytest.approx((1, 1, 1), abs=1e-6)


def test_the_group_lasso_meets_its_optimality_conditions():
    """On correlated codes: where a block is used its gradient is -threshold times its direction, elsewhere it is shorter than that."""
    factors = grid(5, 6, times=10)
    z = torch.cat([turned(30, factors), factors[:, :1] + 0.5 * noise(300, 1), noise(300, 3, seed=2)], 1)
    x = torch.nn.functional.one_hot(d.binned(z, 6), 6).double().flatten(1)
    y = factors.double() - factors.double().mean(0)
    threshold = torch.full((6,), 0.3, dtype=torch.float64)
    w = _descend(x.mT @ x / 300, x.mT @ y / 300, threshold)
    size = importance(x, w, 6)
    assert 0 < int((size > 0).sum()) < 6
    residual = y - x @ w
    for i, part in enumerate(x.unflatten(1, (6, 6)).unbind(1)):
        fitted = part @ (part.mT @ residual / part.sum(0).clamp(min=1)[:, None])  # the projection of the residual
        own = part @ w.unflatten(0, (6, 6))[i]
        if size[i] > 0:
            torch.testing.assert_close(fitted, 0.3 * own / size[i], rtol=0, atol=1e-6)
        else:
            assert float(fitted.square().sum(1).mean().sqrt()) <= 0.3


# --- one factor fixed -------------------------------------------------------------------------------------------------------------------


def test_draws_share_one_value_of_one_factor():
    """20,000 draws from an uneven sample: the value is the same within a draw and as frequent as in the data; other factors keep theirs."""
    factors = torch.tensor([[0, 0]] * 5 + [[1, 0]] * 10 + [[1, 2]] * 25)
    fixed, rows = _Draws(factors, 0).batches(20_000, 4)
    values = factors[rows]  # [V, 4, 2]
    same = values.gather(2, fixed[:, None, None].expand(-1, 4, 1)).squeeze(2)
    assert (same == same[:, :1]).all()
    assert abs(z_score((same[fixed == 0][:, 0] == 1).double(), 35 / 40)) < 4.5
    assert abs(z_score((values[(fixed == 0) & (same[:, 0] == 1)][:, 1, 1] == 2).double(), 25 / 35)) < 4.5
    assert abs(z_score(fixed.double(), 0.5)) < 4.5
    fixed, first, second = _Draws(factors, 1).pairs(5000, 4)
    a, b = (factors[r].gather(2, fixed[:, None, None].expand(-1, 4, 1)).squeeze(2) for r in (first, second))
    assert (a == b).all() and (a != a[:, :1]).any()
    assert (
        abs(z_score((first != second).double().flatten(), 0.5 * (1 - (5 / 40 / 5 + 35 / 40 / 35) + 1 - (15 / 40 / 15 + 25 / 40 / 25))))
        < 4.5
    )


def test_turned_codes_and_the_voting_scores():
    """At 45 degrees both codes vary alike, whichever factor is fixed: chance. At 20 degrees neither score minds."""
    factors = grid(8, 8, times=5)
    for score in (d.factor_vae_score, d.beta_vae_score):
        value, se = score(turned(45, factors), factors)
        assert abs(value - 0.5) < 4.5 * se
        assert score(turned(20, factors), factors)[0] > 0.99


def test_factor_vae_score_of_one_code_for_two_factors():
    """z = (a, b) in one code and a dead one: every vote is the same, so half are right. Codes below ``least`` take no part."""
    factors = grid(4, 4, times=4)
    shared = (factors[:, :1] * 4 + factors[:, 1:]).float()
    value, se = d.factor_vae_score(torch.cat([shared, torch.zeros(64, 1)], 1), factors)
    assert abs(value - 0.5) < 4.5 * se
    faint = torch.cat([shared, 1e-3 * factors[:, :1]], 1)
    assert d.factor_vae_score(faint, factors)[0] == 1
    assert d.factor_vae_score(faint, factors, least=0.01)[0] == pytest.approx(0.5, abs=0.1)


# --- total correlation ------------------------------------------------------------------------------------------------------------------


def with_covariance(cov: Tensor, n: int = 500) -> Tensor:
    """Codes whose sample covariance is exactly ``cov``."""
    z = noise(n, len(cov)).double()
    z = z - z.mean(0)
    z = z @ torch.linalg.inv(torch.linalg.cholesky(z.mT @ z / n)).mT
    return z @ torch.linalg.cholesky(cov).mT


def test_gaussian_correlation_in_closed_form():
    cov = torch.tensor([[4.0, 1.0, 0.5], [1.0, 9.0, -2.0], [0.5, -2.0, 1.0]], dtype=torch.float64)
    z = with_covariance(cov)
    want = 0.5 * (cov.diagonal().log().sum() - torch.logdet(cov)).item()
    assert d.gaussian_correlation(z) == pytest.approx(want, abs=1e-9)
    assert d.gaussian_correlation(z * torch.tensor([1e3, -1e-3, 1.0])) == pytest.approx(want, abs=1e-9)
    assert d.gaussian_correlation(torch.cat([z, torch.ones(500, 1)], 1)) == pytest.approx(want, abs=1e-9)
    assert d.gaussian_correlation(torch.cat([z, z.sum(1, keepdim=True)], 1)) == math.inf


def test_posterior_correlation_against_quadrature():
    """The mixture of 4 posteriors in 2 dimensions on a grid of 400 x 400 points; 4 x 10,000 samples."""
    g = torch.Generator().manual_seed(3)
    q = DiagGaussian(4 * torch.randn(4, 2, generator=g).double(), 0.3 * torch.randn(4, 2, generator=g).double())
    x = torch.linspace(-18, 18, 400, dtype=torch.float64)
    one = torch.exp(-0.5 * ((x[:, None, None] - q.loc) / q.scale).square()) / q.scale / math.sqrt(2 * math.pi)  # [400, 4, 2]
    joint = torch.einsum("an,bn->ab", one[..., 0], one[..., 1]) / 4
    product = one[..., 0].mean(1)[:, None] * one[..., 1].mean(1)
    want = float((torch.xlogy(joint, joint) - torch.xlogy(joint, product)).sum()) * float(x[1] - x[0]) ** 2
    values = torch.tensor([d.posterior_correlation(q, samples=1000, seed=seed)[0] for seed in range(10)])
    assert want > 0.1 and abs(z_score(values, want)) < 4.5
    with pytest.raises(InputError, match="at least 2"):
        d.posterior_correlation(DiagGaussian(q.loc[:1], q.log_scale[:1]))


# --- a whole model ----------------------------------------------------------------------------------------------------------------------


class Reads(nn.Module):
    """q(z | x) = N(x A, 0.01^2): x holds the factors."""

    def __init__(self, a: Tensor) -> None:
        super().__init__()
        self.a = nn.Parameter(a)

    def forward(self, x: Tensor) -> DiagGaussian:
        z = x @ self.a
        return DiagGaussian(z, torch.full_like(z, math.log(0.01)))


def known(a: Tensor, sizes: tuple[int, ...] = SIZES) -> tuple[VAE, DataSet]:
    factors = grid(*sizes)
    split = Split(factors.float(), label=torch.arange(len(factors)))
    model = VAE(
        priors.StandardNormal(a.shape[1]), Reads(a), nn.Sequential(nn.Linear(a.shape[1], len(sizes)), heads.GaussianFixed(len(sizes), 1.0))
    )
    names = tuple(Factor(name, n) for name, n in zip("abc", sizes, strict=False))
    return model, DataSet("known", train=split, test=split, factors=names)


def test_all_scores_of_a_perfect_model():
    model, rows = known(torch.eye(3)[:, [1, 2, 0]] * torch.tensor([1.0, -2.0, 0.5]))
    torch.manual_seed(7)
    before = torch.get_rng_state()
    found = d.disentanglement(model, rows, resamples=5, seed=2)
    assert torch.equal(torch.get_rng_state(), before) and model.training
    for name in ("mig", "sap", "modularity", "disentanglement", "completeness", "informativeness", "factor_vae", "beta_vae"):
        value, se = getattr(found, name)
        # rows that are drawn again are no full grid: their codes are perfect, their factors not quite independent
        assert value == pytest.approx(1, abs=1e-6) and se < 0.02, name
    assert found.gaussian_tc.value == pytest.approx(0, abs=1e-6) and found.factors == ("a", "b", "c")
    assert found.tc is not None and abs(found.tc.value) < 4.5 * found.tc.se + 1e-3
    assert str(found.as_dict()) == str(d.disentanglement(model, rows, resamples=5, seed=2).as_dict())
    assert json.loads(json.dumps(found.as_dict()))["mig"]["value"] == pytest.approx(1)
    assert "mig              1.000 +- " in str(found) and found.chance == pytest.approx(1 / 3)


def test_scores_of_a_model_that_turns_two_factors():
    model, rows = known(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), (6, 6))
    found = d.disentanglement(model, rows, resamples=0)
    assert found.mig.value < 0.1 and found.disentanglement.value < 0.05 and math.isnan(found.mig.se)
    assert abs(found.factor_vae.value - found.chance) < 4.5 * found.factor_vae.se
    assert found.as_dict()["mig"] == {"value": found.mig.value, "se": None}


def test_the_bootstrap_s_error_is_that_of_new_samples():
    """MIG of noisy codes, 500 rows: the bootstrap's error against the spread over 150 samples, within a factor of 1.35."""
    from vaekit.evaluate.disentangle.score import _bootstrapped

    g = torch.Generator().manual_seed(0)

    def sample() -> tuple[Tensor, Tensor]:
        f = torch.randint(5, (500, 2), generator=g)
        return f + torch.randn(500, 2, generator=g), f

    def scores(z: Tensor, f: Tensor) -> dict[str, float]:
        return {"mig": d.mig(z, f)}

    spread = torch.tensor([d.mig(*sample()) for _ in range(150)]).std()
    errors = torch.tensor([_bootstrapped(scores, *sample(), 30, 0)["mig"].se for _ in range(12)]).mean()
    assert 1 / 1.35 < float(errors / spread) < 1.35


def test_levels_are_joined_and_have_no_single_aggregate():
    ladder = LinearLadder()
    split = Split(torch.randn(24, 4), label=torch.arange(24))
    rows = DataSet("rows", train=split, test=split, factors=(Factor("a", 4), Factor("b", 6), Factor("one", 1)))
    found = d.disentanglement(ladder.model(), rows, resamples=0)
    assert found.tc is None and found.information.shape == (4, 2) and found.factors == ("a", "b")


def test_wrong_requests_say_why():
    factors, z = grid(4, 5), grid(4, 5).float()
    model, rows = known(torch.eye(3))
    for pattern, ask in {
        r"give floats \[N, D\]": lambda: d.mig(factors, factors),
        r"of the 20 codes": lambda: d.mig(z, factors[:5]),
        r"float32 \[20, 2\]: give integers": lambda: d.sap(z, z),
        "NaN or infinite": lambda: d.mig(z / 0, factors),
        "one is -1": lambda: d.mig(z, factors - 1),
        "factor 1 has one value": lambda: d.mig(z[:3], factors[:3] * torch.tensor([1, 0]) + torch.tensor([[0, 0], [1, 0], [0, 0]])),
        "1 bins tell nothing": lambda: d.mig(z, factors, bins=1),
        "at least 8 rows": lambda: d.dci(z[:7], factors[:7] + torch.tensor([[0, 0], [1, 1]] + [[0, 0]] * 5)),
        "a variance takes 2 rows": lambda: d.factor_vae_score(z, factors, batch=1),
        "at least 1 pair": lambda: d.beta_vae_score(z, factors, batch=0),
        "no known factors": lambda: d.disentanglement(model, data.arrays(np.random.RandomState(0).rand(30, 3))),
        "rows=3": lambda: d.disentanglement(model, rows, rows=3),
        'no split "tset"': lambda: d.disentanglement(model, rows, split="tset"),
        "1 codes and 3 factors": lambda: d.disentanglement(known(torch.ones(3, 1))[0], rows),
    }.items():
        with pytest.raises(InputError, match=pattern) as error:
            ask()
        assert "\n" not in str(error.value)


def test_ppca_codes_of_unknown_factors_are_scored_in_float64():
    oracle = PPCA()
    split = Split(torch.randn(64, 4), label=torch.arange(64))
    rows = DataSet("rows", train=split, test=split, factors=(Factor("a", 8), Factor("b", 8)))
    assert d.disentanglement(oracle.model(), rows, resamples=0).tc is not None
