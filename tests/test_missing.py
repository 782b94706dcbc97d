"""Values missing not at random: exact log p(x_obs, m) by quadrature, imputation, and fits to censored data."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from oracles import PPCA
from vaekit import ELBO, IWAE, VAE, Batch, Conditional, bounds, dist, heads, priors
from vaekit.apps.impute import impute
from vaekit.cli import main
from vaekit.data.tables import Schema
from vaekit.dist import log_prob_observed
from vaekit.errors import InputError
from vaekit.heads.missing import MaskNetwork, SelfMasking
from vaekit.launch import load
from vaekit.models import NotAtRandom, from_q, with_mask

pd = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")

f64 = torch.float64
SLOPES, BIASES, COLUMNS = [-1.5, 0.8], [0.3, 1.0], (2, 0)


def masking() -> SelfMasking:
    model = SelfMasking(3, COLUMNS).double()
    with torch.no_grad():
        model.scaled.copy_(torch.tensor([SLOPES, BIASES]) / 10)
    return model


def rows(oracle: PPCA) -> Batch:
    """Six rows; of three of them the last value is missing."""
    mask = torch.ones(6, 3, dtype=torch.bool)
    mask[::2, 2] = False
    return Batch(torch.where(mask, oracle.x, torch.full_like(oracle.x, math.nan)), mask=mask)


def quadrature(oracle: PPCA, batch: Batch, masks: SelfMasking) -> tuple[Tensor, Tensor]:
    """log p(x_obs, m) and E[x_2 | x_obs, m] of each row, exact, on a grid over x_2; differentiable in the parameters."""
    mean, cov = oracle.joint()
    mean, cov = mean[-3:], cov[-3:, -3:]
    grid = torch.linspace(-40, 40, 20001, dtype=f64)
    found = []
    for x, m in zip(batch.x, batch.mask if batch.mask is not None else [], strict=True):
        whole = torch.stack([x[0].expand(len(grid)), x[1].expand(len(grid)), grid], 1)
        at = whole if not m[2] else x.expand(len(grid), 3)
        log_pm = 0.0
        for n, d in enumerate(COLUMNS):
            logit = masks.slope[n] * at[:, d] + masks.bias[n]
            log_pm = log_pm + nn.functional.logsigmoid(logit if m[d] else -logit)
        log_p = torch.distributions.MultivariateNormal(mean, cov).log_prob(at) + log_pm
        if m[2]:
            found.append(torch.stack([log_p[0], x[2]]))
            continue
        log_p = log_p + math.log(float(grid[1] - grid[0]))
        found.append(torch.stack([log_p.logsumexp(0), (log_p.softmax(0) * grid).sum()]))
    values = torch.stack(found)
    return values[:, 0], values[:, 1]


@pytest.fixture(scope="module")
def oracle() -> PPCA:
    return PPCA(latent=1, data=3, seed=1)


def exact(oracle: PPCA, batch: Batch, masks: nn.Module) -> NotAtRandom:
    """The model with the exact posterior given the first two entries."""
    inner = oracle.exact([0, 1])
    return NotAtRandom(inner, masks)


# ---- the bound


def test_the_bound_reaches_log_p_of_observed_values_and_mask(oracle: PPCA) -> None:
    batch, masks = rows(oracle), masking()
    model, (expected, _) = exact(oracle, batch, masks), quadrature(oracle, batch, masks)
    torch.manual_seed(0)
    t = model.infer(batch, 20_000)
    error = bounds.iwae(t.log_w) - expected
    assert error.abs().max() < 0.02, error
    ignored = bounds.iwae(oracle.exact([0, 1]).infer(batch, 20_000).log_w)
    assert (expected - ignored).abs().min() > 0.05  # the mask has a probability of its own
    found = torch.stack(
        [IWAE(k)(model, Batch(*(None if p is None else p.repeat(4000, 1) for p in batch))).bound.mean() for k in (1, 5, 50)]
    )
    assert found[0] < found[1] < found[2] < expected.mean() + 0.02
    assert found[1] > found[0] + 0.05


def test_the_gradient_of_the_bound_is_that_of_the_likelihood(oracle: PPCA) -> None:
    batch = rows(oracle)
    masks = masking()
    parameters = [*masks.parameters(), *oracle.likelihood.parameters()]  # the decoder's too: by u, it hears of the mask
    expected = torch.autograd.grad(quadrature(oracle, batch, masks)[0].sum(), parameters)
    torch.manual_seed(0)
    found = torch.autograd.grad(IWAE(20_000)(exact(oracle, batch, masks), batch).surrogate.sum(), parameters)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(-one, other, atol=0.12, rtol=0.03)


def test_the_level_of_what_is_missing_has_no_rate_and_is_no_code(oracle: PPCA) -> None:
    batch, masks = rows(oracle), masking()
    model, inner = exact(oracle, batch, masks), oracle.exact([0, 1])
    torch.manual_seed(0)
    t = model.infer(batch, 4)
    assert t.rate.shape == (4, 6, 1) and [level.informed for level in t.levels] == [True, False]
    torch.testing.assert_close(model.score(batch, t.z).log_w, t.log_w)
    torch.testing.assert_close(t.log_px - t.rate.sum(-1), t.log_w)
    assert torch.equal(model.embed(batch), inner.embed(batch))
    assert ELBO()(model, batch).bound.shape == (6,)  # type: ignore[union-attr]
    full = oracle.x
    torch.manual_seed(1)
    whole = model.infer(Batch(full), 3).log_w
    torch.manual_seed(1)
    torch.testing.assert_close(model.infer(Batch(full, mask=torch.ones_like(full, dtype=torch.bool)), 3).log_w, whole)
    other = full.clone()
    other[::2, 2] = 1e6  # nothing sees the value of what is missing
    torch.manual_seed(2)
    one = model.infer(batch, 3).log_w
    torch.manual_seed(2)
    torch.testing.assert_close(model.infer(Batch(other, mask=batch.mask), 3).log_w, one)


def test_samples_and_reconstructions_are_of_the_data(oracle: PPCA) -> None:
    model = exact(oracle, rows(oracle), masking())
    torch.manual_seed(0)
    x = model.sample(20_000, mean=False)
    mean, cov = oracle.joint()
    torch.testing.assert_close(x.mean(0), mean[-3:].detach(), atol=0.05, rtol=0)
    torch.testing.assert_close(torch.cov(x.T), cov[-3:, -3:].detach(), atol=0.08, rtol=0.05)
    assert model.reconstruct(rows(oracle)).shape == (6, 3) and model.dream(4).log_w.shape == (1, 4)
    alike = model.sample(5, mean=True), model.sample(5, mean=True)
    assert alike[0].shape == (5, 3)


def test_temperature_is_of_the_codes_and_unseen_values_are_drawn_as_they_are(oracle: PPCA) -> None:
    model = exact(oracle, rows(oracle), masking())
    noise = oracle.likelihood.cov.detach()
    _, cov = oracle.joint()
    for temperature in (0.0, 0.5):
        torch.manual_seed(0)
        x = model.sample(20_000, temperature=temperature, mean=False)
        expected = noise + temperature**2 * (cov[-3:, -3:].detach() - noise)
        torch.testing.assert_close(torch.cov(x.T), expected, atol=0.05, rtol=0.05)
    columns = [heads.Column("gaussian"), heads.Column("student"), heads.Column("bernoulli")]
    px = heads.Columns(columns)
    inner = VAE(priors.StandardNormal(2), Conditional(nn.Linear(6, 4), heads.Gaussian(2)), Conditional(nn.Linear(2, px.features), px))
    assert NotAtRandom(inner, SelfMasking(3, [0, 1])).sample(5, temperature=0.5, mean=False).isfinite().all()  # whose u has no scale


# ---- imputation


def test_imputation_has_the_mean_given_that_it_is_missing(oracle: PPCA) -> None:
    batch, masks = rows(oracle), masking()
    _, expected = quadrature(oracle, batch, masks)
    made = impute(exact(oracle, batch, masks), batch, samples=8192, draws=400, coverage=0.9)
    plain = impute(oracle.exact([0, 1]), batch, samples=8192)
    gone = ~batch.mask  # type: ignore[operator]
    assert (made.mean[:, 2] - expected)[gone[:, 2]].abs().max() < 0.03
    assert (plain.mean[:, 2] - expected)[gone[:, 2]].min() < -0.2  # at random would be too low: large values are missing
    assert (made.draws[:, :, 2].mean(0) - expected)[gone[:, 2]].abs().max() < 0.2
    assert torch.equal(made.mean[~gone], batch.x[~gone]) and torch.equal(made.draws[:, ~gone], batch.x[~gone].expand(400, -1))
    assert made.lower is not None and made.upper is not None
    inside = (made.draws >= made.lower) & (made.draws <= made.upper)
    assert 0.85 < inside[:, gone].double().mean() < 0.95


# ---- columns of several kinds


def test_columns_that_cannot_be_drawn_with_a_gradient_stay_where_they_are() -> None:
    torch.manual_seed(0)
    columns = [
        heads.Column("categorical", size=3),
        heads.Column("gaussian"),
        heads.Column("poisson"),
        heads.Column("student", loc=2.0, scale=3.0),
    ]
    px = heads.Columns(columns)
    layer = px.input_layer()
    inner = VAE(
        priors.StandardNormal(2),
        Conditional(nn.Sequential(layer, nn.Linear(layer.features, 4)), heads.Gaussian(2)),
        Conditional(nn.Linear(2, px.features), px),
        view=with_mask,
    )
    x = torch.tensor([[2.0, 0.3, 4.0, -0.7], [0.0, 1.3, 0.0, 0.2]])
    mask = torch.tensor([[True, False, True, True], [True, True, True, False]])
    model = NotAtRandom(inner, SelfMasking(4, [1, 3]))
    t = model.infer(Batch(x, mask=mask), 5)
    assert [z.shape[-1] for z in t.z] == [2, 2]
    assert isinstance(t.px, dist.Missing) and t.px.places is not None and t.px.places.tolist() == [1, 3]
    expected = log_prob_observed(t.px.px, x, mask) + 2 * math.log(0.5)
    torch.testing.assert_close(t.log_px, expected)  # at slope 0 and bias 0
    drawn = t.px.sample()
    assert torch.equal(drawn[..., [1, 3]], t.z[1]) and (drawn[..., 0] == drawn[..., 0].round()).all()
    t.log_w.sum().backward()  # gradients reach the decoder and the mask
    assert all(p.grad is not None for p in model.parameters())
    made = impute(model, Batch(x, mask=mask & torch.tensor([False, True, True, True])), samples=64, draws=3, coverage=0.8)
    assert torch.isin(made.mean[:, 0], torch.arange(3.0)).all() and made.lower is not None and made.lower[:, 0].isnan().all()


def test_masks_that_are_none() -> None:
    for columns in ((), (3,), (1, 1)):
        with pytest.raises(InputError, match="columns from 0 to 2"):
            SelfMasking(3, columns)
    with pytest.raises(InputError, match="-1, 0"):
        SelfMasking(3, [0], sign=2)
    with pytest.raises(InputError, match="share between 0 and 1"):
        SelfMasking(3, [0], observed=[1.0])


def test_models_of_the_mask_are_bernoullis() -> None:
    torch.manual_seed(0)
    x, m = torch.randn(4, 5, 6, dtype=f64), torch.rand(4, 5, 3) < 0.5
    network = MaskNetwork(3, [0, 2], nn.Linear(6, 2).double())
    for model, sign in ((masking(), 0), (SelfMasking(3, [1], sign=-1).double(), -1), (network, 0)):
        parts = model(x, m)
        assert parts.shape == (4, 5, 3)
        torch.testing.assert_close(parts.exp() + model(x, ~m).exp(), torch.where(parts == 0, 2.0, torch.ones_like(parts)))
        if sign:
            larger = model(torch.cat([x[..., :3] + 1, x[..., 3:]], -1), torch.ones_like(m))
            assert (larger[..., 1] < model(x, torch.ones_like(m))[..., 1]).all()
    seen = masking()(x, torch.ones_like(m)).detach()
    np.testing.assert_allclose(seen[..., 2], stats.logistic.logcdf(-1.5 * x[..., 2] + 0.3), rtol=1e-6)
    assert (seen[..., 1] == 0).all()


def test_where_the_posterior_is_the_prior_nothing_else_changes() -> None:
    torch.manual_seed(0)
    inner = VAE(priors.StandardNormal(2), Conditional(nn.Linear(3, 4), heads.Gaussian(2)), Conditional(nn.Linear(2, 6), heads.Gaussian(3)))
    t = inner.infer(Batch(torch.randn(4, 3)), 2)
    assert all(level.informed for level in t.levels) and t.rate.shape == (2, 4, 1)
    levels, _ = inner.unroll(from_q(1), Batch(torch.randn(4, 3)))
    assert levels[0].informed


# ---- fits of censored tables, by the command line


def censored(n: int, seed: int) -> tuple[Any, Any]:
    """A table of five columns of two factors, and the same with a and c seen only where they lie below their means."""
    r = np.random.default_rng(seed)
    weight = np.array([[1.0, 0.3], [0.8, -0.6], [-0.5, 1.0], [0.9, 0.4], [0.2, 1.1]])
    x = r.normal(size=(n, 2)) @ weight.T + 0.3 * r.normal(size=(n, 5)) + np.array([1.0, -2.0, 0.0, 3.0, 0.0])
    seen = np.ones_like(x, dtype=bool)
    for d in (0, 2):
        seen[:, d] = x[:, d] <= x[:, d].mean()
    return tuple(pd.DataFrame(np.where(mask, x, np.nan), columns=list("abcde")) for mask in (np.ones_like(seen), seen))


def vaekit(*words: object) -> int:
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("censored")
    censored(1200, 0)[1].to_csv(folder / "t.csv", index=False)
    kinds = [word for name in "abcde" for word in ("--kind", f"{name}=continuous")]
    for kind in ("at-random", "self-masking"):
        flags = ["--missing", kind, "--latent", 2, "--hidden", 64, "--epochs", 50, "--out", folder / kind]
        assert vaekit("train", folder / "t.csv", *kinds, *flags) == 0
    return folder


def test_a_model_of_the_mask_recovers_what_was_censored(runs: Path) -> None:
    truth, table = censored(1200, 0)
    gone, error, shift = table.isna().to_numpy(), {}, {}
    for kind in ("at-random", "self-masking"):
        _, recipe = load(runs / kind)
        assert recipe.known is not None and isinstance(recipe.known.schema, Schema)
        x, mask = recipe.known.schema.encode(table)
        made = recipe.known.schema.decode_array(impute(recipe.model, Batch(x.nan_to_num(), mask=mask), samples=128).mean)
        apart = (made - truth.to_numpy()) / truth.std().to_numpy()
        error[kind], shift[kind] = np.sqrt((apart[gone] ** 2).mean()), apart.mean(0)[[0, 2]]
    assert (table.mean() - truth.mean())["a"] / truth["a"].std() < -0.7  # of the observed values
    assert (shift["at-random"] < -0.35).all() and (abs(shift["self-masking"]) < 0.2).all()
    assert error["self-masking"] < 0.6 * error["at-random"]
    model = load(runs / "self-masking")[1].model
    assert isinstance(model, NotAtRandom) and isinstance(model.missing, SelfMasking)
    assert model.missing.columns == (0, 2) and (model.missing.slope < -0.5).all()  # it has found that large values are missing


def test_samples_are_of_all_values_and_every_command_works(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth, run = censored(1200, 0)[0], runs / "self-masking"
    for words in (("evaluate", "--samples", 5), ("evaluate", "--diagnose"), ("reconstruct",), ("embed",), ("report",)):
        assert vaekit(words[0], run, *words[1:]) == 0, capsys.readouterr().err
    assert "KL of level" not in capsys.readouterr().out and json.loads((run / "evaluation.json").read_text())["test"]["latent_dim"] == 2
    for command in ("traverse", "interpolate"):
        assert vaekit(command, run) == 0, capsys.readouterr().err
    for words in (("--n", 4000), ("--n", 20, "--mean"), ("--n", 20, "--temperature", "0.5")):
        assert vaekit("sample", run, *words, "--out", runs / "made.csv") == 0
        made = pd.read_csv(runs / "made.csv")
        assert list(made.columns) == list("abcde") and not made.isna().any().any()
        if len(made) == 4000:  # and not of the observed ones alone
            assert (abs(made.mean() - truth.mean()) / truth.std() < 0.35).all()
    assert np.load(run / "embedding-test.npz")["z"].shape[1] == 2


def test_a_network_of_the_whole_row_and_a_context(runs: Path, tmp_path: Path) -> None:
    table = censored(100, 1)[1].assign(g=np.arange(100) % 3)
    table.to_csv(tmp_path / "t.csv", index=False)
    flags = ["--kind", "g=categorical", "--condition", "g", "--missing", "not-at-random", "--epochs", 2, "--hidden", 8]
    assert vaekit("train", tmp_path / "t.csv", *flags, "--out", tmp_path / "run") == 0
    model = load(tmp_path / "run")[1].model
    assert isinstance(model, NotAtRandom) and isinstance(model.missing, MaskNetwork)
    assert vaekit("sample", tmp_path / "run", "--where", "g=2", "--n", 7) == 0
    made = pd.read_csv(tmp_path / "run" / "samples.csv")
    assert (made["g"] == 2).all() and vaekit("evaluate", tmp_path / "run", "--samples", 3) == 0


def test_mistakes_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, gaps = censored(60, 2)
    whole.to_csv(tmp_path / "whole.csv", index=False)
    city = np.where(np.arange(60) % 4 == 0, None, np.array(["x", "y", "z"])[np.arange(60) % 3])
    gaps.assign(city=city).to_csv(tmp_path / "t.csv", index=False)
    for words, said in (
        (["whole.csv", "--missing", "self-masking"], "this table misses none"),
        (["t.csv", "--missing", "not-at-random"], 'column "city" misses 25.0% of its values and is categorical (Categorical)'),
        (["t.csv", "--missing", "censored"], 'no option "censored"'),
    ):
        assert vaekit("train", tmp_path / words[0], *words[1:], "--out", tmp_path / "run") == 2
        err = capsys.readouterr().err
        assert said in err and err.count("\n") == 1 and not (tmp_path / "run").exists()
