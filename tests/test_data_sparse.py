"""Sparse rows against the same rows dense: read, taken, moved, trained on; and what is found in a matrix of counts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import coo_array, csc_array, csr_array, save_npz
from torch import nn

from vaekit import VAE, Conditional, Training, fit, heads, priors
from vaekit.data import SparseRows, Split, arrays, tables
from vaekit.data.tables import Counts
from vaekit.errors import InputError
from vaekit.train.identity import checksum

DENSE = np.random.default_rng(0).poisson(0.3, (50, 7))
DENSE[3] = 0
DENSE[:, 2] = 0


@pytest.mark.parametrize("form", [csr_array, csc_array, coo_array])
def test_rows_are_those_of_the_dense_matrix(form: type) -> None:
    rows = SparseRows.of(form(DENSE))
    dense = torch.from_numpy(DENSE).float()
    assert (rows.shape, rows.dtype, len(rows), rows.dim(), rows.numel()) == (torch.Size([50, 7]), torch.float32, 50, 2, 350)
    for index in (torch.arange(50), torch.tensor([3, 3, 49, 0]), torch.tensor([], dtype=torch.int64)):
        assert torch.equal(rows.read(index), dense[index])
        assert torch.equal(rows.take(index).read(torch.arange(len(index))), dense[index])
    assert torch.equal(rows.head(4).read(torch.tensor([3, 1])), dense[[3, 1]])
    assert torch.equal(rows.to("cpu").read(torch.tensor([5])), dense[[5]])
    for index in ([50], [-1]):
        with pytest.raises(IndexError):
            rows.read(torch.tensor(index))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_are_filled_in_on_a_gpu() -> None:
    split = Split(SparseRows.of(csr_array(DENSE))).to("cuda")
    batch = split.batch(torch.tensor([4, 0, 4]))
    assert batch.x.device.type == "cuda" and torch.equal(batch.x.cpu(), torch.from_numpy(DENSE).float()[[4, 0, 4]])


def test_entries_that_are_there_twice_are_summed_and_the_callers_matrix_stays() -> None:
    twice = csr_array((np.array([1.0, 2.0, 4.0]), np.array([1, 1, 0]), np.array([0, 2, 3])), shape=(2, 3))
    assert torch.equal(SparseRows.of(twice).read(torch.arange(2)), torch.tensor([[0.0, 3.0, 0.0], [4.0, 0.0, 0.0]]))
    assert twice.nnz == 3
    with pytest.raises(InputError, match="1 entries of the sparse matrix are not finite"):
        SparseRows.of(csr_array(np.array([[0.0, np.nan]])))


def test_a_split_of_sparse_rows_is_that_of_dense_ones() -> None:
    sparse, dense = Split(SparseRows.of(csr_array(DENSE))), Split(torch.from_numpy(DENSE).float())
    index = torch.tensor([4, 0, 4])
    assert torch.equal(sparse.batch(index).x, dense.batch(index).x) and checksum(sparse) == checksum(dense)
    assert "sparse" in repr(sparse) and torch.equal(sparse.take(index).batch(torch.arange(3)).x, dense.take(index).x)
    assert torch.equal(torch.cat(list(sparse.glance(20))), torch.arange(50))


def test_inspecting_divides_sparse_rows_as_dense_ones_are_divided() -> None:
    found = tables.inspect(csr_array(DENSE), seed=3)
    data, dense = found.data, arrays(DENSE, seed=3)
    for name in ("train", "valid", "test"):
        split, other = data.split(name), dense.split(name)
        assert isinstance(split.x, SparseRows) and torch.equal(split.batch(torch.arange(len(split))).x, other.x.float())


def test_training_on_sparse_rows_ends_with_the_weights_of_dense_ones() -> None:
    data = tables.inspect(csr_array((DENSE > 0).astype(np.int64)), seed=1).data
    dense = arrays((DENSE > 0).astype(np.float32), seed=1)
    weights = []
    for one in (data, dense):
        torch.manual_seed(0)
        encoder, decoder = Conditional(nn.Linear(7, 4), heads.Gaussian(2)), Conditional(nn.Linear(2, 7), heads.Bernoulli(7))
        model = VAE(priors.StandardNormal(2), encoder, decoder)
        fit(model, one, training=Training(epochs=2, batch_size=8, compile=False))
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*weights)


# ---- what is found in counts


def made(kind: str, seed: int) -> csr_array:
    """300 cells of sizes that differ by a factor of ten, 80 genes."""
    r = np.random.default_rng(seed)
    rate = r.lognormal(0, 0.6, (300, 1)) * r.gamma(1.0, 1.5, 80)
    if kind == "Poisson":
        return csr_array(r.poisson(rate))
    spread = r.poisson(rate * r.gamma(2.0, 0.5, rate.shape))
    return csr_array(spread if kind == "NegativeBinomial" else spread * (r.random(rate.shape) < 0.7))


@pytest.mark.parametrize("kind", ["Poisson", "NegativeBinomial", "ZeroInflatedNegativeBinomial"])
@pytest.mark.parametrize("seed", range(4))
def test_counts_are_told_apart_though_rows_differ_in_size(kind: str, seed: int) -> None:
    found = Counts.infer(made(kind, seed))
    assert found.likelihood == kind, found.because


def test_the_overdispersion_is_the_one_that_made_the_counts() -> None:
    because = Counts.infer(made("NegativeBinomial", 0)).because
    assert float(because.partition("overdispersion ")[2].partition(";")[0]) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("form", [csr_array, csc_array, coo_array])
@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32", "bool"])
def test_what_is_found_does_not_depend_on_how_a_matrix_is_stored(form: type, dtype: str) -> None:
    """Zeros that are stored and counts in parts, which in uint8 and bool wrap or saturate when they are summed."""
    counts = made("NegativeBinomial", 1).toarray()
    parts = (counts > 0).astype(np.int64) if dtype == "bool" else np.minimum(counts, 200)
    row, column = (grid.ravel() for grid in np.indices(parts.shape))
    entries = (np.tile(parts.ravel(), 2), (np.tile(row, 2), np.tile(column, 2)))
    stored = coo_array((entries[0].astype(dtype), entries[1]), shape=parts.shape)
    matrix = stored
    if form is not coo_array:  # tocsr() would sum them
        whole = form((np.arange(parts.size) + 1).reshape(parts.shape))
        indptr, indices = 2 * whole.indptr, np.repeat(whole.indices, 2)
        matrix = form((np.repeat(parts.ravel()[whole.data - 1], 2).astype(dtype), indices, indptr), shape=parts.shape)
    assert matrix.nnz == 2 * parts.size
    found, dense = Counts.infer(matrix), Counts.infer(csr_array(2 * parts))
    assert (found.likelihood, found.because) == (dense.likelihood, dense.because)
    assert torch.equal(SparseRows.of(matrix).read(torch.arange(300)), torch.from_numpy(2 * parts).float())
    assert matrix.nnz == 2 * parts.size  # the caller's stays


def test_halves_that_are_stored_twice_are_a_count() -> None:
    matrix = csr_array((np.array([0.5, 0.5, 3.0]), np.array([1, 1, 0]), np.array([0, 2, 3])), shape=(2, 2))
    assert "row totals 1 to 3" in Counts.infer(matrix).because


@pytest.mark.parametrize(("dtype", "value"), [("int64", 2**24 + 1), ("uint64", 2**50 + 1), ("float64", 2.0**24 + 1)])
def test_counts_that_float32_rounds_are_refused_with_their_place(dtype: str, value: float) -> None:
    matrix = csr_array(np.array([[0, 3, 1], [5, 0, value], [1, 1, 2**24]], dtype=dtype))
    with pytest.raises(InputError, match=f"holds {int(value)} in row 1, column 2.*16777216"):
        Counts.infer(matrix)
    if dtype != "float64":
        with pytest.raises(InputError, match=f"holds {int(value)} in row 1, column 2"):
            SparseRows.of(matrix)
    with pytest.raises(InputError, match=r"holds 9\.2\d*e\+18 in row 0, column 0"):  # would be negative in int64
        SparseRows.of(csr_array(np.array([[2**63 + 2**40]], dtype=np.uint64)))


def test_new_counts_are_checked() -> None:
    names = ("A1", "B2", "C3")
    matrix = csr_array(np.random.default_rng(0).poisson(2.0, (40, 3)))
    found = Counts.infer(matrix, names=names)
    assert found.check(matrix, names=names) == ()
    assert tables.described(json.loads(json.dumps(found.to_json()))) == found and "counts [3]" in found.describe()
    for other, called, message in (
        (csr_array(np.ones((2, 4))), (), "has 4 columns, and the model was trained on 3"),
        (matrix, ("A1", "C3", "B2"), 'column 1 is "C3", and was "B2" .* in this order'),
        (matrix, ("A1", "B3", "C3"), 'column 1 is "B3", and was "B2" .*did you mean'),
        (csr_array(np.array([[0, 0.5, 1]])), (), r'holds 0.5 in row 0, column 1 \("B2"\)'),
    ):
        with pytest.raises(InputError, match=message):
            found.check(other, names=called)


def test_sparse_archives_of_scipy_and_of_parts(tmp_path: Path) -> None:
    matrix = csr_array(DENSE)
    save_npz(tmp_path / "a.npz", matrix)
    save_npz(tmp_path / "b.npz", csc_array(DENSE))
    np.savez(
        tmp_path / "c.npz",
        data=matrix.data.astype("uint16"),
        indices=matrix.indices.astype("uint16"),
        indptr=matrix.indptr,
        shape=np.array(DENSE.shape),
        genes=np.array([f"g{i}" for i in range(7)]),
    )
    found = [tables.inspect(tmp_path / name) for name in ("a.npz", "b.npz", "c.npz")]
    for one in found:
        assert torch.equal(one.data.train.batch(torch.arange(40)).x, found[0].data.train.batch(torch.arange(40)).x)
    assert isinstance(found[2].schema, Counts) and found[2].schema.names[6] == "g6"
    np.savez(tmp_path / "d.npz", data=matrix.data, indices=matrix.indices + 3, indptr=matrix.indptr, shape=np.array(DENSE.shape))
    with pytest.raises(InputError, match="damaged sparse matrix"):
        tables.inspect(tmp_path / "d.npz")


def test_pbmc_3k_is_overdispersed_and_never_dense(data_dir: Path) -> None:
    """2700 x 32738: dense it would be 354 MB."""
    found = tables.inspect(data_dir / "pbmc" / "pbmc3k_counts.npz")
    assert isinstance(found.schema, Counts) and found.schema.likelihood == "NegativeBinomial" and found.schema.names[0] == "MIR1302-10"
    assert [len(found.data.split(name)) for name in ("train", "valid", "test")] == [2160, 270, 270]
    total = 0
    for name in ("train", "valid", "test"):
        rows = found.data.split(name).x
        assert isinstance(rows, SparseRows)
        total += int(rows.values.double().sum())
    assert total == 6_390_631  # as the matrix was published


def test_an_annotated_matrix_in_a_file_and_in_memory(tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata")
    adata = anndata.AnnData(csr_array(DENSE.astype(np.float32)))
    adata.var_names = [f"g{i}" for i in range(7)]
    adata.write_h5ad(tmp_path / "cells.h5ad")
    dense = anndata.AnnData(DENSE.astype(np.float32), var=adata.var)
    dense.write_h5ad(tmp_path / "dense.h5ad")
    for source in (adata, tmp_path / "cells.h5ad", tmp_path / "dense.h5ad"):
        found = tables.inspect(source)
        assert isinstance(found.schema, Counts) and found.schema.names == tuple(adata.var_names)
        assert torch.equal(
            found.data.train.batch(torch.arange(40)).x, tables.inspect(csr_array(DENSE)).data.train.batch(torch.arange(40)).x
        )
    (tmp_path / "cells.h5ad").write_bytes((tmp_path / "cells.h5ad").read_bytes()[:2000])
    with pytest.raises(InputError, match=r"cells.h5ad is no whole \.h5ad file"):
        tables.inspect(tmp_path / "cells.h5ad")
