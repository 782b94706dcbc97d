"""A matrix of counts, cells by genes, mostly zeros: read, looked at, and checked without being dense at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vaekit.data.sparse import EXACT, canonical, place_of
from vaekit.data.tables.columns import Column
from vaekit.data.tables.context import Context
from vaekit.data.tables.needs import needed
from vaekit.data.tables.stored import restored
from vaekit.data.tables.stored import stored as stored_column
from vaekit.errors import InputError, nearest

__all__ = ["FORMAT", "Counts", "read_h5ad", "read_sparse_npz"]

FORMAT = 1
EXPRESSED = 0.1  # mean count from which a gene says something of the spread
SPREAD = 0.01  # overdispersion beyond which counts are no Poisson's
PARTS = ("data", "indices", "indptr", "shape")


@dataclass(frozen=True)
class Counts:
    """What a matrix of counts ``[N, D]`` holds.

    Attributes:
        names: of its columns (genes), or empty.
        width: D.
        likelihood: of each count, given the size of its row.
        because: why.
        given: columns of ``obs`` that the model is conditioned on, besides the size of the row.
    """

    names: tuple[str, ...]
    width: int
    likelihood: str
    because: str
    given: tuple[Column, ...] = ()

    @property
    def context(self) -> Context | None:
        """What is conditioned on besides the size; None where nothing is."""
        return Context(self.given) if self.given else None

    @staticmethod
    def infer(matrix: Any, *, names: tuple[str, ...] = ()) -> Counts:
        """Of a scipy sparse matrix ``[N, D]``.

        With s_i the total of row i over the mean total and m_j the mean of column j, a Poisson has variance m_j + m_j^2 var(s), a negative
        binomial of overdispersion a has a m_j^2 (1 + var(s)) more; a is the ratio of the sums over columns of mean at least 0.1. A share of
        zeros beyond what that negative binomial has, by more than 2 percent, is zero inflation.

        Raises:
            InputError: negative, broken or infinite entries, or ones beyond 2^24, which float32 rounds; the row and the column are named.
        """
        csr = _whole(matrix, names)
        n, width = csr.shape
        totals = np.asarray(csr.sum(axis=1), dtype=np.float64).ravel()
        mean = np.asarray(csr.sum(axis=0), dtype=np.float64).ravel() / n
        if not totals.any():
            raise InputError(f"all {n} x {width} counts are 0: there is nothing to model")
        square = csr.copy()
        square.data **= 2
        variance = np.asarray(square.sum(axis=0)).ravel() / n - mean**2
        size = totals / totals.mean()
        used = mean >= min(EXPRESSED, mean.max())
        excess = float((variance - mean - mean**2 * size.var())[used].sum() / ((mean**2)[used].sum() * (1 + size.var())))
        spread = max(excess, 1e-9)
        seen = 1 - float(np.diff(csr.tocsc().indptr)[used].sum()) / (n * used.sum())
        expected = _zeros(mean[used], size, spread)
        zeros = f"{seen:.1%} zeros where a negative binomial has {expected:.1%}, in {int(used.sum())} columns of mean {EXPRESSED:g} or more"
        shape = f"{1 - csr.nnz / (n * width):.1%} of {n} x {width} counts are 0, row totals {totals.min():.0f} to {totals.max():.0f}"
        if excess <= SPREAD and seen <= expected + 0.02:
            return Counts(names, width, "Poisson", f"{shape}; variance as a Poisson's of these row totals (overdispersion {excess:.2g})")
        likelihood = "NegativeBinomial" if seen <= expected + 0.02 else "ZeroInflatedNegativeBinomial"
        return Counts(names, width, likelihood, f"{shape}; overdispersion {excess:.2g}; {zeros}")

    def check(self, matrix: Any, *, names: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Whether another matrix fits: as many columns, of the same names in the same order, and counts.

        Raises:
            InputError: it does not; the column is named.
        """
        if matrix.shape[1] != self.width:
            raise InputError(f"the matrix has {matrix.shape[1]} columns, and the model was trained on {self.width}: give these")
        if names and self.names and names != self.names:
            place = next(i for i, (new, old) in enumerate(zip(names, self.names, strict=True)) if new != old)
            hint = "in this order" if self.names[place] in names else nearest(self.names[place], names)
            raise InputError(f'column {place} is "{names[place]}", and was "{self.names[place]}" when the model was trained: {hint}')
        _whole(matrix, self.names)
        return ()

    def describe(self) -> str:
        """What was found, in a line."""
        given = "".join(f"\ngiven {column.name}: {column.because}" for column in self.given)
        return f"counts [{self.width}]: {self.likelihood}, because {self.because}{given}"

    def to_json(self) -> dict[str, Any]:
        """Plain values, for a JSON file."""
        return {
            "format": FORMAT,
            "what": "counts",
            "names": list(self.names),
            "width": self.width,
            "likelihood": self.likelihood,
            "because": self.because,
            **({"given": [stored_column(column) for column in self.given]} if self.given else {}),
        }

    @staticmethod
    def from_json(stored: Mapping[str, Any]) -> Counts:
        """What `to_json` gave.

        Raises:
            InputError: another format, or damaged.
        """
        if stored.get("format") != FORMAT or stored.get("what") != "counts":
            raise InputError(f"a description of format {stored.get('format')!r} of {stored.get('what')!r}: this reads {FORMAT} of 'counts'")
        try:
            given = tuple(restored(column) for column in stored.get("given", ()))
            return Counts(tuple(stored["names"]), int(stored["width"]), str(stored["likelihood"]), str(stored["because"]), given)
        except InputError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"the description is damaged ({type(error).__name__}: {error}): restore it, or train again") from error


def _whole(matrix: Any, names: tuple[str, ...]) -> Any:
    """As CSR in float64 of entries that are there once and are not 0, if they are counts."""
    if not matrix.shape[0] or not matrix.shape[1]:
        raise InputError(f"the matrix is empty: it has {matrix.shape[0]} rows and {matrix.shape[1]} columns")
    csr = canonical(matrix)
    with np.errstate(invalid="ignore"):
        wrong = (csr.data < 0) | (csr.data != np.rint(csr.data)) | ~np.isfinite(csr.data)
        beyond = csr.data > EXACT
    if not wrong.any() and not beyond.any():
        return csr
    entry = int(np.argmax(wrong if wrong.any() else beyond))
    row, column = place_of(csr, entry)
    named = f' ("{names[column]}")' if names else ""
    if not wrong.any():
        raise InputError(
            f"the matrix holds {csr.data[entry]:.16g} in row {row}, column {column}{named}, and counts beyond {EXACT} are not exact in "
            "float32: leave that column out"
        )
    raise InputError(
        f"the matrix holds {csr.data[entry]:g} in row {row}, column {column}{named}, and {int(wrong.sum())} entries that are no counts: "
        "give the raw counts, not normalised, scaled or logarithmic ones"
    )


def _zeros(mean: npt.NDArray[np.float64], size: npt.NDArray[np.float64], spread: float) -> float:
    """The share of zeros of negative binomials (1 + a s_i m_j)^(-1/a), over rows by 200 of them."""
    rows = np.sort(size)[np.linspace(0, len(size) - 1, min(len(size), 200)).astype(np.int64)]
    return float(np.exp(-np.log1p(spread * rows[:, None] * mean[None]) / spread).mean())


def read_sparse_npz(path: Path, found: Mapping[str, Any]) -> tuple[Any, tuple[str, ...]] | None:
    """The matrix in an ``.npz`` archive, its arrays in ``found``, as scipy.sparse.save_npz writes it or its parts alone, and its columns'
    names ("genes" or "names"), if there are; None where this is another archive.

    Raises:
        InputError: another format than csr and csc, or a damaged matrix.
    """
    from scipy.sparse import csc_array, csr_array

    if not all(part in found for part in PARTS):
        return None
    form = found["format"].tolist() if "format" in found else b"csr"
    form = form.decode("latin-1") if isinstance(form, bytes) else form
    if form not in ("csr", "csc"):
        raise InputError(f"{path} holds a sparse matrix of format {form}: save it with scipy.sparse.save_npz(path, matrix.tocsr())")
    try:
        shape = tuple(int(size) for size in found["shape"])
        if len(shape) != 2 or min(shape) < 0:
            raise ValueError(f"its shape is {list(shape)}, and not [N, D]")
        make = csr_array if form == "csr" else csc_array
        matrix = make((found["data"], found["indices"].astype(np.int64), found["indptr"].astype(np.int64)), shape=shape)
        matrix.check_format(full_check=True)
    except (ValueError, IndexError, TypeError, OverflowError) as error:
        raise InputError(f"{path} holds a damaged sparse matrix ({' '.join(str(error).split())}): write it again") from error
    key = next((key for key in ("genes", "names") if key in found and len(found[key]) == shape[1]), None)
    return matrix, tuple(map(str, found[key].tolist())) if key else ()


def read_h5ad(path: Path, *, obs: bool = False) -> tuple[Any, tuple[str, ...], Any]:
    """X of an AnnData file as a sparse matrix, the names of its variables, and the table ``obs`` of its rows where that is asked for, else
    None; the rest of the file is not read.

    Raises:
        InputError: it is no such file, or anndata is not installed.
    """
    from scipy.sparse import csr_array, issparse

    anndata = needed("anndata", f"reading {path.name}", package="anndata", extra="h5ad")
    h5py = needed("h5py", f"reading {path.name}", package="h5py", extra="h5ad")
    try:
        with h5py.File(path) as file:
            x, names = anndata.io.read_elem(file["X"]), anndata.io.read_elem(file["var"]).index
            rows = anndata.io.read_elem(file["obs"]) if obs else None
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is no whole .h5ad file with X and var ({' '.join(str(error).split())[:120]}): write it again") from error
    return x if issparse(x) else csr_array(np.asarray(x)), tuple(map(str, names)), rows
