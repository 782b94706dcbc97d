"""Counts, mostly zeros: what is computed where they are, estimates of models given a size, and a process whose entropy is known."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import optimize, sparse, stats
from torch import Tensor
from torch.distributions import Distribution

from benchmarks.cells import Share, groups, purity
from benchmarks.count_process import GENES, Process, entropy_of_totals
from vaekit import dist, fit
from vaekit.compiling import together
from vaekit.data.core import Split
from vaekit.data.sparse import SparseRows
from vaekit.data.tables import inspect, sized, with_sizes
from vaekit.dist import counts
from vaekit.errors import InputError
from vaekit.evaluate import embed, evaluate, log_likelihood, passes, stream
from vaekit.evaluate.stream import CHUNK
from vaekit.models import VAE
from vaekit.recipes import own
from vaekit.recipes.core import Recipe
from vaekit.types import Batch

SHAPE = (2, 4, 50)  # [K, B, D]


def parameters() -> tuple[Tensor, Tensor, Tensor]:
    """log mu and the logit of a zero ``[K, B, D]``, log r ``[D]``."""
    torch.manual_seed(0)
    mean, logit = torch.randn(SHAPE, dtype=torch.float64), torch.randn(SHAPE, dtype=torch.float64)
    return mean.requires_grad_(), logit.requires_grad_(), torch.randn(50, dtype=torch.float64).requires_grad_()


MADE: dict[str, Any] = {
    "Poisson": lambda m, z, r: dist.Poisson(m),
    "NegativeBinomial": lambda m, z, r: dist.NegativeBinomial(m, r),
    "one dispersion": lambda m, z, r: dist.NegativeBinomial(m, r[:1]),
    "ZeroInflatedPoisson": lambda m, z, r: dist.ZeroInflated(dist.Poisson(m), z),
    "ZeroInflatedNegativeBinomial": lambda m, z, r: dist.ZeroInflated(dist.NegativeBinomial(m, r), z),
}


def few() -> Tensor:
    """Counts ``[B, D]`` of which a tenth is not 0."""
    x = torch.poisson(torch.full(SHAPE[1:], 3.0), generator=torch.Generator().manual_seed(1)).double()
    return x * (torch.rand(x.shape, generator=torch.Generator().manual_seed(2)) < 0.1)


@pytest.mark.parametrize("name", MADE)
def test_only_what_is_counted_is_computed_and_nothing_changes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, seen = few(), []
    for function in ("_poisson", "_negative_binomial"):
        real = getattr(counts, function)

        def counted(k: Tensor, *others: Tensor, real: Any = real) -> Tensor:
            seen.append(k.numel())
            found: Tensor = real(k, *others)
            return found

        monkeypatch.setattr(counts, function, counted)

    def found() -> list[Tensor]:
        given = parameters()
        d = MADE[name](*given)
        loss = (d.log_prob(x) * torch.tensor([[1.0], [2.0]])).sum()
        grads = torch.autograd.grad(loss, given, allow_unused=True)
        return [dist.log_prob_parts(d, x), d.log_prob(x), *(g for g in grads if g is not None)]

    dense = found()
    assert seen == [200] * 3 and dense[0].shape == SHAPE
    monkeypatch.setattr(counts, "MANY", 1)
    sparser = found()
    assert seen[3:] == [2 * int((x > 0).sum())] * 3
    for a, b in zip(dense, sparser, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    with together():  # a vectorised function cannot choose by what x holds
        d: Distribution = MADE[name](*parameters())
        vectorised = torch.vmap(lambda row: dist.log_prob_parts(d, row))(x[None])
    torch.testing.assert_close(vectorised[0], dense[0])
    vectorised = torch.vmap(lambda row: dist.log_prob_parts(d, row))(x[None])  # nor can one of the user's own
    torch.testing.assert_close(vectorised[0], dense[0])
    small = MADE[name](*(p.detach().float() for p in parameters()))
    torch.testing.assert_close(dist.log_prob_parts(small, x), dense[0], rtol=1e-4, atol=1e-4)  # x in float64, parameters in float32
    seen.clear()
    dist.log_prob_parts(MADE[name](*parameters()), x + 1)
    assert seen == [200]


def test_broken_and_negative_values_are_as_unlikely_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.zeros(40)
    x[:3] = torch.tensor([float("nan"), -1.0, 2.0])
    d = dist.NegativeBinomial(torch.zeros(40), torch.zeros(40))
    dense = dist.log_prob_parts(d, x)
    monkeypatch.setattr(counts, "MANY", 1)
    torch.testing.assert_close(dist.log_prob_parts(d, x), dense)


# ---- a recipe of wide, sparse counts


def saved(matrix: Any, folder: Path) -> str:
    sparse.save_npz(folder / "x.npz", sparse.csr_array(matrix))
    return str(folder / "x.npz")


def wide(rows: int = 60, columns: int = 3000) -> Any:
    """Counts of which row 0 and column 0 are zeros."""
    x = np.random.default_rng(0).poisson(0.05, (rows, columns))
    x[0] = 0
    x[:, 0] = 0
    return x


def test_a_model_given_a_size_decodes_without_encoding_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = own.counts(saved(wide(), tmp_path), hidden=8, latent=2)
    model, split, k = recipe.model, recipe.data().train, 7
    assert isinstance(model, VAE)
    calls, shapes, decode = [], [], stream._decode
    model.posterior.register_forward_hook(lambda *_: calls.append(1))

    def noted(model: Any, batch: Batch, z: Tensor) -> Tensor:
        shapes.append(z.shape)
        found = decode(model, batch, z)
        torch.testing.assert_close(found, model.score(batch, z).log_px)
        return found

    monkeypatch.setattr(stream, "_decode", noted)
    found = evaluate(model, split, samples=k)
    assert sum(shape[0] * shape[1] for shape in shapes) == k * len(split)
    assert all(shape[0] * shape[1] * 3000 <= CHUNK for shape in shapes)
    assert len(calls) == 2 + len(shapes)  # once for the estimates and once for the active units, besides those of the check above
    assert np.isfinite(found.nll) and found.nll <= -found.elbo


def test_samples_of_wide_rows_are_decoded_one_at_a_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recipe = own.counts(saved(wide(), tmp_path), hidden=4, latent=2)
    sizes, decode = [], stream._decode

    def noted(model: Any, batch: Batch, z: Tensor) -> Tensor:
        sizes.append(z.shape[0] * batch.x.numel())
        return decode(model, batch, z)

    monkeypatch.setattr(stream, "_decode", noted)
    monkeypatch.setattr(stream, "CHUNK", 60 * 3000)
    evaluate(recipe.model, recipe.data().train, samples=40)
    assert max(sizes) <= 60 * 3000 and len(sizes) == 40


def test_a_file_is_looked_at_and_divided_without_being_dense(tmp_path: Path) -> None:
    rows, columns, entries = 2000, 400_000, 100_000  # 3.2 GB dense
    r = np.random.default_rng(0)
    places = (r.integers(0, rows, entries), r.integers(0, columns, entries))
    path = saved(sparse.coo_array((r.poisson(2.0, entries) + 1, places), shape=(rows, columns)), tmp_path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    data = with_sizes(inspect(path).data)
    batch = data.train.batch(torch.arange(4))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert batch.x.shape == (4, columns) and batch.c is not None and torch.allclose(batch.x.sum(1).clamp(min=1).log(), batch.c[:, 0])
    assert after - before < 0.2 * rows * columns * 4 / 1024  # KiB


def test_wide_rows_are_embedded_in_small_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = own.counts(saved(wide(), tmp_path), hidden=4, latent=2)
    split = recipe.data().train
    whole = embed(recipe.model, split)
    sizes: list[int] = []
    recipe.model.get_submodule("posterior").register_forward_hook(lambda module, given, q: sizes.append(len(given[0])))
    monkeypatch.setattr(passes, "CHUNK", 7 * 3000 + 1)
    torch.testing.assert_close(embed(recipe.model, split), whole)
    assert max(sizes) == 7 and sum(sizes) == len(split)


def test_a_row_and_a_column_of_zeros_are_handled(tmp_path: Path) -> None:
    recipe = own.counts(saved(wide(), tmp_path), hidden=8, latent=2, epochs=2, likelihood="ZeroInflatedNegativeBinomial")
    assert recipe.training.compile is False  # mostly zeros
    data = recipe.data()
    fit(recipe.model, data, objective=recipe.objective, training=recipe.training, progress=False)
    every = sized(Split(SparseRows.of(sparse.csr_array(wide()))))
    assert every.c is not None and float(every.c[0]) == 0.0
    found = log_likelihood(recipe.model, every, samples=5)
    assert bool(found.log_px.isfinite().all()) and found.log_px[0] > found.log_px[1:].max()
    assert float(recipe.model.sample(20, context=torch.tensor([5.0]))[:, 0].max()) < 0.1  # its share begins at half a count


def test_small_or_full_counts_may_be_compiled(tmp_path: Path) -> None:
    assert own.counts(saved(wide(60, 40), tmp_path)).training.compile is None
    assert own.counts(saved(wide() + 1, tmp_path)).training.compile is None


@pytest.mark.parametrize("matrix", [wide() / 7.0, np.log1p(wide())], ids=["normalised", "logarithmic"])
def test_what_is_no_count_is_refused(matrix: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no counts: give the raw counts, not normalised, scaled or logarithmic ones") as error:
        own.counts(saved(matrix, tmp_path))
    assert "\n" not in str(error.value)


# ---- a process whose entropy is known


def trained(process: Process, folder: Path, likelihood: str) -> Recipe:
    torch.manual_seed(0)
    path = saved(process.draw(2000, 1)[0], folder)
    recipe = own.counts(path, likelihood=likelihood, latent=2, hidden=64, lr=5e-3, epochs=30)  # type: ignore[arg-type]
    fit(recipe.model, recipe.data(), objective=recipe.objective, training=recipe.training, progress=False)
    return recipe


def test_the_exact_likelihood_of_the_process_is_exact() -> None:
    """Against the mean over draws of z of scipy's probabilities."""
    process, rng = Process.of(0, zeros=0.2), np.random.default_rng(0)
    x, size = process.draw(2, 3)
    flat = Process(process.a, 0.05 * process.w, process.r, 0.2)
    mu = size[:, None, None] * np.exp(flat.a + flat.w * rng.normal(size=(2, 4000, 2)).repeat(GENES // 2, axis=2))
    p = np.log(0.2 * (x == 0)[:, None] + 0.8 * stats.nbinom(flat.r, flat.r / (flat.r + mu)).pmf(x[:, None]))
    for row, parts in enumerate(p):
        halves = [parts[:, :100].sum(1), parts[:, 100:].sum(1)]
        estimate = sum(np.log(np.mean(np.exp(half - half.max()))) + half.max() for half in halves)
        errors = [np.std(np.exp(half - half.max())) / np.mean(np.exp(half - half.max())) / 4000**0.5 for half in halves]
        assert abs(estimate - flat.log_prob(x, size)[row]) < 4 * np.hypot(*errors) < 0.5


@pytest.mark.parametrize("likelihood, zeros", [("NegativeBinomial", 0.0), ("ZeroInflatedNegativeBinomial", 0.3)])
def test_held_out_nats_come_near_the_entropy(likelihood: str, zeros: float, tmp_path: Path) -> None:
    process = Process.of(0, zeros=zeros)
    recipe = trained(process, tmp_path, likelihood)
    x, size = process.draw(200, 2)
    exact = process.log_prob(x, size)
    found = log_likelihood(recipe.model, sized(Split(torch.tensor(x).float())), samples=100).log_px.numpy()
    over, entropy = float((exact - found).mean()), -float(exact.mean())
    assert -entropy_of_totals(x) < over < 0.03 * entropy, (over, entropy)
    assert np.corrcoef(exact, found)[0, 1] > 0.98


# ---- what the measurement itself is checked by


def test_one_dispersion_per_gene_is_the_likeliest() -> None:
    rng = np.random.default_rng(0)
    size = rng.uniform(50, 200, 300)
    share = np.array([0.2, 0.3, 0.1, 0.4])
    x = rng.poisson(rng.gamma(np.array([0.5, 2.0, 8.0, 1.0]), size[:, None] * share / np.array([0.5, 2.0, 8.0, 1.0])))
    held = rng.poisson(size[:20, None] * share)
    fitted = Share.of(sparse.csr_array(x), size)
    for gene in range(4):
        means = size * fitted.share[gene]

        def cost(log_r: float, gene: int = gene, means: Any = means) -> float:
            return -float(stats.nbinom(np.exp(log_r), np.exp(log_r) / (np.exp(log_r) + means)).logpmf(x[:, gene]).sum())

        assert abs(fitted.log_r[gene] - optimize.minimize_scalar(cost, bounds=(-8, 8), method="bounded").x) < 0.01
    r = np.exp(fitted.log_r)
    means = size[:20, None] * fitted.share
    np.testing.assert_allclose(fitted.log_prob(sparse.csr_array(held), size[:20]), stats.nbinom(r, r / (r + means)).logpmf(held).sum(1))
    np.testing.assert_allclose(fitted.poisson(sparse.csr_array(held), size[:20]), stats.poisson(means).logpmf(held).sum(1))


def test_the_share_of_neighbours_of_the_same_group() -> None:
    points = np.array([[0.0], [0.1], [0.2], [5.0], [5.1], [5.2]])
    assert purity(points, np.array([0, 0, 0, 1, 1, 1]), k=2).tolist() == [1.0] * 6
    assert purity(points, np.array([0, 0, 1, 1, 1, 0]), k=2).tolist() == [0.5, 0.5, 0, 0.5, 0.5, 0]
    assert purity(points, np.array([0, 0, 1, 1, 1, 0]), k=2, of=np.array([2, 3])).tolist() == [0, 0.5]


def test_a_group_is_that_of_the_strongest_markers() -> None:
    assert groups(np.array([[2.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 3.0, 3.5]])).tolist() == [0, -1, 2]
