"""log p(x) by importance sampling against models whose evidence is known, and the shape of the weights' tail against its definition."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from oracles import PPCA, LinearLadder
from vaekit import VAE, Conditional, dist, heads, matmul, priors
from vaekit.data.core import Split
from vaekit.errors import InputError
from vaekit.evaluate import doubts, evaluate, k_hat, log_likelihood, stream
from vaekit.evaluate.estimates import LogLikelihood
from vaekit.evaluate.importance import Spread
from vaekit.evaluate.pareto import Tail, gpd_fit, tail_length
from vaekit.models import code_model
from vaekit.quantise import FSQ, UniformCodes

Oracle = PPCA | LinearLadder


@pytest.fixture(params=[PPCA, LinearLadder])
def oracle(request: pytest.FixtureRequest) -> Oracle:
    torch.manual_seed(0)
    made: Oracle = request.param()
    return made


def pixels(entries: int = 784, hidden: int = 40) -> VAE:
    """A flat network with a Bernoulli likelihood, float32."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(entries, hidden), nn.ReLU(), nn.Linear(hidden, 8))
    decoder = nn.Sequential(nn.Linear(4, hidden), nn.ReLU(), nn.Linear(hidden, entries))
    return VAE(priors.StandardNormal(4), Conditional(encoder, heads.Gaussian(4)), Conditional(decoder, heads.Bernoulli(entries)))


# --- the estimate and its error -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "samples"), [("iwae", 2_000), ("elbo", 200)])
def test_estimates_lie_within_their_own_errors(oracle: Oracle, method: str, samples: int) -> None:
    """250 trials of 6 examples: 95% intervals hold the exact log p(x) (the exact ELBO) 93 to 97 times of 100 (the binomial error of 1500
    is 0.6 points), and the stated errors are the spread over trials within 10%."""
    trials = Split(oracle.x.repeat(250, 1))
    exact = (oracle.evidence(oracle.x) if method == "iwae" else oracle.elbo(oracle.x)).detach().repeat(250)
    found = log_likelihood(oracle.model(), trials, samples=samples, method=method, seed=0)  # type: ignore[arg-type]
    z = (found.log_px - exact) / found.mc_se
    assert 0.93 < float((z.abs() < 1.96).double().mean()) < 0.97
    assert abs(float(z.mean())) < 0.2  # below log p(x) by half the variance: 0.5 mc_se^2, which is small here
    ratio = found.log_px.view(250, 6).std(0) / found.mc_se.view(250, 6).square().mean(0).sqrt()
    assert (ratio - 1).abs().max() < 0.2 and abs(float(ratio.mean()) - 1) < 0.1


def test_the_exact_posterior_needs_no_samples(oracle: Oracle) -> None:
    found = log_likelihood(oracle.exact(), Split(oracle.x), samples=30)
    torch.testing.assert_close(found.log_px, oracle.evidence(oracle.x).detach())
    torch.testing.assert_close(found.ess, torch.full((6,), 30.0, dtype=torch.float64))
    assert float(found.mc_se.max()) < 1e-6 and doubts(found) == []
    assert (found.method, found.samples, found.seed, len(found)) == ("iwae", 30, 0, 6)


def test_log_likelihood_and_evaluate_are_one_loop(oracle: Oracle) -> None:
    split = Split(oracle.x.repeat(25, 1))
    each = log_likelihood(oracle.model(), split, samples=300, seed=3)
    whole = evaluate(oracle.model(), split, samples=300, seed=3)
    assert whole.nll == pytest.approx(-each.mean, rel=1e-12) and whole.nll_se == pytest.approx(each.se, rel=1e-9)
    assert whole.ess == pytest.approx(float(each.ess.mean()), rel=1e-9) and whole.bits_per_dim == pytest.approx(each.bits_per_dim)
    assert whole.elbo == pytest.approx(log_likelihood(oracle.model(), split, samples=300, seed=3, method="elbo").mean, rel=1e-12)


def test_missing_entries_are_left_out_and_counted(oracle: Oracle) -> None:
    mask = torch.tensor([True, True, False, False]).expand(6, 4).clone()
    found = log_likelihood(oracle.exact([0, 1]), Split(oracle.x.masked_fill(~mask, math.nan), mask=mask), samples=4)
    torch.testing.assert_close(found.log_px, oracle.evidence(oracle.x, torch.tensor([0, 1])).detach())
    assert found.entries.tolist() == [2] * 6


def test_one_sample_knows_no_error(oracle: Oracle) -> None:
    for method in ("iwae", "elbo"):
        found = log_likelihood(oracle.model(), Split(oracle.x), samples=1, method=method)  # type: ignore[arg-type]
        assert found.mc_se.isnan().all() and found.k_hat.isnan().all() and found.ess.tolist() == [1] * 6 and found.log_px.isfinite().all()


# --- streams ------------------------------------------------------------------------------------------------------------------------


def test_the_chunk_changes_nothing(oracle: Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 14 samples (7 of a ladder), the last of each block shorter: less than a tile, one, many, all at once, bit for bit."""
    monkeypatch.setattr(stream, "CHUNK", 4 * 100 * 7)
    split = Split(oracle.x.repeat(18, 1)[:103])
    found = [log_likelihood(oracle.model(), split, samples=60, seed=5, chunk=chunk) for chunk in (None, 1, 3, 7, 20, 60, 1000)]
    for other in found[1:]:
        for name in ("log_px", "mc_se", "ess", "k_hat"):
            assert torch.equal(getattr(found[0], name), getattr(other, name)), name
    assert not torch.equal(found[0].log_px, log_likelihood(oracle.model(), split, samples=60, seed=6).log_px)
    assert len(set(found[0].log_px[::6].tolist())) == 18  # every copy of a row has noise of its own, in every block


def test_the_error_of_the_elbo_in_a_stream() -> None:
    """Pieces of different sizes and means, far from 0, against the standard deviation of all of them."""
    log_w = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) + torch.arange(500).unsqueeze(-1) / 50 - 5000
    spread = Spread.empty()
    for part in log_w.split([1, 9, 300, 190]):
        spread = spread.update(part)
    torch.testing.assert_close(spread.standard_error, log_w.double().std(0) / math.sqrt(500), rtol=1e-9, atol=0)


def flip(x: Tensor) -> Tensor:
    return torch.bernoulli(x)


def test_the_chunk_changes_no_data_that_are_drawn_anew() -> None:
    """float32 pixels, binarised as they are fetched; matrix products of other sizes may round differently."""
    split = Split(torch.rand(30, 784), prepare=flip)
    model = pixels()
    found = [log_likelihood(model, split, samples=400, seed=1, chunk=chunk).log_px for chunk in (None, 10, 400)]
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-6, atol=0)
    assert torch.equal(found[0], log_likelihood(model, split, samples=400, seed=1).log_px)


def rows_of(module: nn.Module) -> list[int]:
    """The rows (samples times examples) of every call of a module, as they come."""
    seen: list[int] = []
    module.register_forward_hook(lambda module, args, out: seen.append(math.prod(args[0].shape[:-1])))
    return seen


@pytest.mark.parametrize("chunk", [None, 5, 500])
def test_x_is_encoded_once(chunk: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "CHUNK", 784 * 100 * 50)
    model = pixels()
    encoded, decoded = rows_of(model.posterior.net), rows_of(model.likelihood.net)
    log_likelihood(model, Split(torch.rand(130, 784)), samples=220, chunk=chunk)
    assert encoded == [100, 30]
    assert sum(decoded) == 130 * (220 + 1) and max(decoded) <= 100 * max(50, chunk or 50)
    assert chunk != 5 or max(decoded) == 100 * 5


class Largest(TorchDispatchMode):
    """The largest tensor that any operation made; one of bytes is never written to (`stream.blocks`)."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.numel = max(self.numel, *(t.numel() for t in tree_leaves(out) if isinstance(t, Tensor) and t.dtype != torch.uint8), 0)
        return out


def test_memory_does_not_grow_with_samples(oracle: Oracle) -> None:
    """K = 20,000 and K = 200,000: 2.4 million numbers of x would be [K, B, *]; no tensor is larger than a tile of 20,000 latents, x and the
    features joined with it."""
    found = {}
    for samples in (20_000, 200_000):
        with Largest() as largest:
            log_likelihood(oracle.model(), Split(oracle.x[:3]), samples=samples)
        found[samples] = largest.numel
    assert found[20_000] == found[200_000] <= 393_216  # that of the trial product of `matmul`, which no data enter


def test_everything_is_put_back(oracle: Oracle) -> None:
    model = oracle.model().train()
    noise, precision = torch.get_rng_state(), torch.get_float32_matmul_precision()
    done: list[tuple[int, int]] = []
    log_likelihood(model, Split(oracle.x.repeat(20, 1)), samples=2, watch=lambda n, of: done.append((n, of)))
    with torch.no_grad():
        oracle.likelihood.bias[0] = math.nan
    with pytest.raises(InputError, match=r"6 of 6 examples is not finite \(first: row 0\)"):
        log_likelihood(model, Split(oracle.x), samples=2)
    assert done == [(100, 120), (120, 120)] and model.training and torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), noise) and torch.get_float32_matmul_precision() == precision


# --- refusals -----------------------------------------------------------------------------------------------------------------------


def test_wrong_requests(oracle: Oracle) -> None:
    model, split = oracle.model(), Split(oracle.x)
    with pytest.raises(InputError, match=r"^log_likelihood\(samples=0\): at least 1"):
        log_likelihood(model, split, samples=0)
    with pytest.raises(InputError, match=r"^log_likelihood\(chunk=-2\): at least 1"):
        log_likelihood(model, split, chunk=-2)
    with pytest.raises(InputError, match=r'^log_likelihood\(method="iwea"\).*did you mean "iwae"'):
        log_likelihood(model, split, method="iwea")  # type: ignore[arg-type]


def test_annealing_has_the_same_door(oracle: Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(sys.modules["vaekit.evaluate.log_likelihood"], "annealed_log_likelihood", lambda *_, **kwargs: asked.append(kwargs))
    log_likelihood(oracle.model(), Split(oracle.x), method="ais", seed=4)
    log_likelihood(oracle.model(), Split(oracle.x), method="ais", samples=3)
    assert asked == [{"samples": 16, "seed": 4, "watch": None}, {"samples": 3, "seed": 0, "watch": None}]
    with pytest.raises(InputError, match=r'method="ais", chunk=5\): chains have'):
        log_likelihood(oracle.model(), Split(oracle.x), method="ais", chunk=5)


def test_models_without_a_likelihood_are_refused() -> None:
    split, same = Split(torch.rand(5, 2)), nn.Identity()
    point = VAE(priors.StandardNormal(2), Conditional(same, heads.Point(2)), Conditional(same, heads.GaussianFixed(2, 1.0)))
    with pytest.raises(InputError, match=r"^q\(z \| x\) is a point .*vaekit.evaluate.reconstruction"):
        log_likelihood(point, split, samples=2)
    fsq = FSQ((5, 5))
    codes = UniformCodes(fsq, ())
    quantised = VAE(codes, Conditional(same, heads.Quantised(fsq, ())), Conditional(same, heads.GaussianFixed(2, 1.0)))
    with pytest.raises(InputError, match=r"^q\(z \| x\) is certain of one code.*vaekit.evaluate.reconstruction"):
        log_likelihood(quantised, split, samples=2)
    found = log_likelihood(code_model(UniformCodes(fsq, (2, 2))), Split(torch.zeros(3, 2, 2)), samples=2)
    torch.testing.assert_close(found.log_px, torch.full((3,), -4 * math.log(25), dtype=torch.float64))
    assert found.mc_se.tolist() == [0.0] * 3


# --- the shape of the tail ----------------------------------------------------------------------------------------------------------


def reference_k(log_w: np.ndarray) -> float:
    """k-hat of one example by the formulas of the two papers, in loops over plain numbers."""
    n = len(log_w)
    m = math.ceil(min(n / 5, 3 * math.sqrt(n)))
    w = sorted(math.exp(v - max(log_w)) for v in log_w)
    y = [v - w[n - m - 1] for v in w[n - m :]]
    g = 30 + int(math.sqrt(m))
    star = y[int(m / 4 + 0.5) - 1]
    theta = [1 / y[-1] + (1 - math.sqrt(g / (j - 0.5))) / (3 * star) for j in range(1, g + 1)]
    lik = []
    for t in theta:
        k = sum(math.log(1 - t * v) for v in y) / m
        lik.append(m * (math.log(-t / k) - k - 1))
    weight = [1 / sum(math.exp(b - a) for b in lik) for a in lik]
    best = sum(t * a for t, a in zip(theta, weight, strict=True))
    k = sum(math.log(1 - best * v) for v in y) / m
    return (m * k + 10 * 0.5) / (m + 10)


def test_k_hat_against_the_papers_in_plain_loops() -> None:
    g = torch.Generator().manual_seed(0)
    for samples in (21, 100, 225, 1000):
        log_w = torch.randn(samples, 4, generator=g, dtype=torch.float64) * torch.tensor([0.1, 1.0, 3.0, 10.0]) - 700
        want = [reference_k(column) for column in log_w.numpy().T]
        torch.testing.assert_close(k_hat(log_w), torch.tensor(want, dtype=torch.float64), rtol=1e-9, atol=1e-9)


def quantiles(k: float, n: int) -> Tensor:
    """Exact quantiles of the generalised Pareto distribution with sigma = 1, ascending, ``[n, 1]``."""
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    return (-torch.log1p(-u) if k == 0 else torch.expm1(-k * torch.log1p(-u)) / k).unsqueeze(-1)


@pytest.mark.parametrize("k", [-0.5, -0.25, 0.0, 0.3, 0.5, 0.7, 1.0])
def test_the_shape_is_recovered_from_exact_quantiles(k: float) -> None:
    y = quantiles(k, 2_000)
    got = float(gpd_fit(y))
    assert got == pytest.approx(k, abs=0.02)
    torch.testing.assert_close(gpd_fit(1e-7 * y), gpd_fit(y), rtol=1e-9, atol=1e-12)
    stats = pytest.importorskip("scipy.stats")
    if k >= 0:  # below, the likelihood is unbounded where its support ends
        without_prior = (got * 2_010 - 5) / 2_000
        assert without_prior == pytest.approx(stats.genpareto.fit(y.numpy().ravel(), floc=0)[0], abs=0.01)


def test_k_hat_needs_neither_order_nor_level() -> None:
    log_w = 2 * torch.randn(500, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = k_hat(log_w)
    assert torch.equal(k_hat(log_w.flip(0)), found)
    torch.testing.assert_close(k_hat(log_w - 5000), found, rtol=1e-6, atol=1e-6)
    assert k_hat(torch.zeros(100, 1)).tolist() == [-math.inf]
    assert k_hat(log_w[:20]).isnan().all() and k_hat(log_w[:21]).isfinite().all()


@pytest.mark.parametrize("s", [0.3, 0.5, 0.8])
def test_k_hat_of_a_posterior_that_is_too_narrow(s: float) -> None:
    """Weights N(0, 1) / N(0, s) have k = 1 - s exactly (P(w > t) falls as t^(-1/(1-s)), up to logarithms, which lower k-hat a little)."""
    z = torch.randn(200_000, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * math.sqrt(s)
    found = k_hat(-0.5 * z.square() * (1 - 1 / s))
    assert (found - (1 - s)).abs().max() < 0.12


def test_a_stream_keeps_only_the_largest() -> None:
    log_w = torch.randn(3_000, 5, generator=torch.Generator().manual_seed(3))
    want = k_hat(log_w)
    for size in (1, 51, 999, 3_000):
        tail = Tail(3_000)
        held = 0
        for part in log_w.split(size):
            tail.add(part)
            held = max(held, sum(len(t) for t in tail._kept))
        assert torch.equal(tail.k_hat, want) and held <= max(4 * (tail_length(3_000) + 1), 3_000 if size == 3_000 else 0)
    with pytest.raises(InputError, match="no weights"):
        Tail(3).k_hat  # noqa: B018


def test_doubts() -> None:
    """A posterior with a tenth of the true variance: k = 0.9, and three in ten are told; one that fits is not doubted."""
    oracle = PPCA(latent=6, data=8)
    split = Split(oracle.x)
    fine = log_likelihood(oracle.exact(range(8)), split, samples=500)
    assert doubts(fine) == []
    with torch.no_grad():
        oracle.encoder.log_scale -= 1.5
    bad = log_likelihood(oracle.model(), split, samples=500)
    said = doubts(bad)
    assert bad.k_hat.min() > 0.7 and said[0].startswith("For 6 of 6 examples the largest weights") and "cannot be trusted" in said[0]
    one = replace(fine, ess=fine.ess.index_fill(0, torch.tensor([2]), 9.0))
    assert [s.split(" the 500")[0] for s in doubts(one)] == ["For 1 of 6 examples"] and 'method="ais"' in doubts(one)[0]
    assert "annealing steps" in doubts(replace(one, method="ais"))[0] and doubts(replace(bad, method="elbo")) == []


# --- speed that changes no number ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-6), (torch.float64, 1e-13)])
@pytest.mark.parametrize(
    ("logits", "x", "event_dim"),
    [
        ((9, 60, 784), (60, 784), 1),
        ((1, 600, 1, 28, 28), (600, 1, 28, 28), 3),
        ((6, 1, 80_000), (2, 80_000), 1),
        ((410_000,), (410_000,), 1),
    ],
)
def test_bernoulli_in_blocks(logits: tuple[int, ...], x: tuple[int, ...], event_dim: int, dtype: torch.dtype, rtol: float) -> None:
    """Against torch's own in float64; logits up to 60 in size, where a product of sigmoids of l itself would underflow; grey x too."""
    g = torch.Generator().manual_seed(0)
    l = (torch.randn(logits, generator=g) * 12).to(dtype)
    for value in (torch.rand(x, generator=g), torch.rand(x, generator=g).round()):
        want = (value.double() * l.double() - nn.functional.softplus(l.double(), threshold=1000)).flatten(-event_dim).sum(-1)
        got = dist.Bernoulli(l, event_dim).log_prob(value)
        assert got.dtype == dtype and got.shape == want.shape
        torch.testing.assert_close(got.double(), want, rtol=rtol, atol=0)


def test_bernoulli_keeps_its_gradient() -> None:
    l = torch.randn(600, 784, requires_grad=True)
    x = torch.rand(600, 784)
    (got,) = torch.autograd.grad(dist.Bernoulli(l).log_prob(x).sum(), l)
    torch.testing.assert_close(got, x - torch.sigmoid(l))


@pytest.fixture
def precision() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


def test_the_matrix_product_is_as_exact_as_before(precision: None, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    a, b = torch.randn(700, 400), torch.randn(784, 400)
    with matmul.matching_matmul(cpu):
        assert ((a @ b.mT).double() - a.double() @ b.double().mT).abs().max() < 1e-4  # of sums of 400 terms: bfloat16 is off by 0.1
    assert torch.get_float32_matmul_precision() == "highest"
    monkeypatch.setattr(matmul, "_agrees", lambda: False)
    with matmul.matching_matmul(cpu):
        assert torch.get_float32_matmul_precision() == "highest"
    with pytest.raises(ValueError), matmul.matching_matmul(cpu):
        raise ValueError
    monkeypatch.setattr(matmul, "_agrees", lambda: True)
    with matmul.matching_matmul(torch.device("cuda")):
        assert torch.get_float32_matmul_precision() == "highest"  # there it would be TF32
    torch.set_float32_matmul_precision("high")
    with matmul.matching_matmul(cpu):
        assert torch.get_float32_matmul_precision() == "high"  # a choice of the program's is left alone


def test_a_bfloat16_product_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert matmul._agrees()
    product = Tensor.__matmul__

    def rounded(a: Tensor, b: Tensor) -> Tensor:
        return product(a, b) if a.dtype == torch.float64 else product(a.bfloat16(), b.bfloat16()).float()

    monkeypatch.setattr(Tensor, "__matmul__", rounded)
    assert not matmul._agrees()


def test_what_it_prints() -> None:
    ones = torch.ones(4, dtype=torch.float64)
    found = LogLikelihood("iwae", 50, -90 * ones, 0.1 * ones, 20 * ones, 0.1 * ones, 784 * ones, 0)
    assert found.mc_error == pytest.approx(0.05) and found.bits_per_dim == pytest.approx(90 / (784 * math.log(2)))


def test_data_that_are_binarised_anew_are_the_same_for_every_estimator() -> None:
    """An error over examples would hide it: each example's estimates must be of the same x, whatever the size of the batches."""
    torch.manual_seed(0)
    model = VAE(
        priors.StandardNormal(2),
        Conditional(nn.Linear(6, 4), heads.Gaussian(2)),
        Conditional(nn.Linear(2, 6), heads.Bernoulli(6)),
    )
    grey = Split(torch.rand(120, 6), prepare=torch.bernoulli)
    seen = [torch.cat([trace.batch.x for trace in stream.blocks(model, grey, size, 3) if trace.batch]) for size in (7, 40, 100, 1000)]
    assert all(torch.equal(x, seen[0]) for x in seen) and set(seen[0].unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(seen[0], torch.cat([t.batch.x for t in stream.blocks(model, grey, 40, 4) if t.batch]))


def test_a_tail_that_underflows_is_doubted() -> None:
    log_w = torch.full((1000, 1), -800.0, dtype=torch.float64)
    log_w[:15] = 0.3 * torch.randn(15, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert k_hat(log_w).item() == math.inf
    assert k_hat(log_w[:20]).isnan().all()


def test_the_probe_is_of_single_precision_whatever_the_default() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        seen: list[torch.dtype] = []
        product = Tensor.__matmul__
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Tensor, "__matmul__", lambda a, b: seen.append(a.dtype) or product(a, b))
            matmul._agrees()
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.float32 in seen


def test_infinite_logits_and_no_samples_in_the_fast_path() -> None:
    logits, x = torch.randn(600, 784), torch.zeros(600, 784)
    logits[0, 0], logits[1, 1] = math.inf, math.inf
    x[1, 1] = 0.5
    with torch.no_grad():
        found = dist.Bernoulli(logits).log_prob(x)
    assert found[:2].tolist() == [-math.inf, -math.inf] and bool(found[2:].isfinite().all())
    assert dist.Bernoulli(torch.randn(1, 600, 784)).log_prob(torch.rand(0, 600, 784)).shape == (0, 600)
