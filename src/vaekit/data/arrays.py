"""A data set from arrays, in memory or in files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vaekit.data.core import DataSet, Split
from vaekit.data.disk import FileRows, plain
from vaekit.errors import InputError

__all__ = ["arrays", "divided", "last_rows", "on_disk", "permutation"]


def permutation(n: int, seed: int) -> Tensor:
    """A seeded random order of 0..n-1, int64 ``[n]``: ``numpy.random.RandomState(seed).permutation(n)``.

    RandomState is numpy's frozen generator: its stream is the same in every version, so a split drawn today is drawn again in ten
    years. torch and numpy's newer Generator promise no such thing.

    Raises:
        InputError: a seed outside of 0 ... 2^32 - 1.

    >>> permutation(5, seed=0)
    tensor([2, 0, 1, 3, 4])
    """
    if not 0 <= seed < 2**32:
        raise InputError(f"a split cannot be drawn with seed {seed}; give a seed from 0 to 4294967295")
    return torch.from_numpy(np.random.RandomState(seed).permutation(n).astype(np.int64, copy=False))


def arrays(
    x: npt.ArrayLike | Tensor,
    *,
    label: npt.ArrayLike | Tensor | None = None,
    mask: npt.ArrayLike | Tensor | None = None,
    c: Tensor | None = None,
    valid: float | npt.ArrayLike | Tensor = 0.1,
    test: float | npt.ArrayLike | Tensor = 0.1,
    seed: int = 0,
    name: str = "arrays",
) -> DataSet:
    """A data set from numpy arrays or tensors, with validation and test rows drawn at random or given; too large for memory: `on_disk`.

    Args:
        x: rows ``[N, *]``. The shape is kept as given: grey images need their channel axis, ``[N, 1, H, W]``. uint8 is an image in
            bytes and becomes x / 255; every other dtype keeps its values (cast a uint8 table to float first). float64 is stored
            as float32. A NaN, like an entry masked in a numpy masked array, is a missing entry: it gets mask False and is never filled in.
        label: integers ``[N]``, one class a row of x; given test or valid arrays have none (build a `DataSet` for that).
        mask: bool ``[N, *]``, True where x is observed.
        c: the context of each row, float32 ``[N, C]``; given test or valid arrays have none.
        valid, test: how many rows of x to hold out: a fraction in (0, 1), rounded to the nearest count; a count; or an array of
            rows to use instead. ``valid=0`` means no validation split; there is always a test split.
        seed: of `permutation`, whose first rows are the test split, the next the validation split, and the rest the training
            split, in that order. Nothing is permuted when nothing is drawn.
        name: of the data set.

    Raises InputError for text, objects or complex numbers, for infinite values, for labels that do not fit, and for empty splits.

    >>> data = arrays(np.arange(20.0).reshape(10, 2), label=np.arange(10), valid=2, test=0.3)
    >>> len(data.train), len(data.valid), len(data.test), data.test.label
    (5, 2, 3, tensor([2, 8, 4]))
    """
    held = {what: _split(size, what) if np.ndim(size) > 0 else size for what, size in (("test", test), ("valid", valid))}
    return divided(_split(x, "x", label=label, mask=mask, c=c), held, seed, name)


def on_disk(
    x: Path | str,
    *,
    label: npt.ArrayLike | Tensor | None = None,
    mask: Path | str | None = None,
    missing: bool = False,
    valid: float | Path | str | npt.ArrayLike | Tensor = 0.1,
    test: float | Path | str | npt.ArrayLike | Tensor = 0.1,
    seed: int = 0,
    name: str | None = None,
) -> DataSet:
    """A data set whose rows stay in a ``.npy`` file: `arrays` for what does not fit into memory.

    A run gives the same weights, bit for bit, as with ``arrays(numpy.load(x), ...)``: the same rows are drawn for each split, and each
    batch is read from the file when its turn comes (`vaekit.fit` reads ahead in a thread). In memory are 8 bytes a row for the split and 8
    for the order of an epoch, and at most 256 MiB of the file. It must not change meanwhile: a run that sees that it did stops, and one
    that is just copying rows from what is being cut off is ended by the system (a bus error); its checkpoints remain.

    What `arrays` and `fit` look at in every row (that values are finite, and within the support of the likelihood; the checksum by which a
    resumed run knows its data) is looked at in a sample here: all of a small file, else 64 MiB from its first row to its last, see
    `FileRows.sample`. A NaN elsewhere stops the run at the step that meets it; a finite value outside of the support
    elsewhere is trained on.

    Args:
        x: the file, as `numpy.save` writes it (`numpy.lib.format.open_memmap` for one that never was in memory): ``[N, *]`` in C order.
        label: integers ``[N]``, in memory.
        mask: a ``.npy`` file, bool ``[N, *]``, True where x is observed.
        missing: a NaN is a missing entry. (In memory that needs not be said, because every value is looked at.)
        valid, test, seed: as in `arrays`; a path is a file of rows to use instead.
        name: of the data set; by default that of the file.

    Raises InputError for a file that cannot be read row by row, and for what `arrays` refuses.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/x.npy", np.arange(20.0).reshape(10, 2))
    ...     data = on_disk(f"{folder}/x.npy", valid=2, test=0.3)
    >>> data.name, data.train, data.valid.batch(torch.tensor([0])).x
    ('x', Split(5 rows of [2], float32, in a file), tensor([[18., 19.]]))
    """
    rows = FileRows(x)
    if missing and mask is not None:
        raise InputError("missing=True and a mask both say which entries are missing; give one of them")
    seen = FileRows(mask) if mask is not None else rows.observed() if missing and rows.is_floating_point() else None
    splits = Split(rows, label=None if label is None else _labels(label), mask=seen)
    held = {what: _given(size, what, missing) for what, size in (("test", test), ("valid", valid))}
    return divided(splits, held, seed, Path(x).stem if name is None else name)


def _given(size: Any, what: str, missing: bool) -> Any:
    """An array of rows, or a file of them, as a split; an amount as it is."""
    if isinstance(size, str | Path):
        rows = FileRows(size)
        return Split(rows, mask=rows.observed() if missing and rows.is_floating_point() else None)
    return _split(size, what) if np.ndim(size) > 0 else size


def divided(rows: Split, wanted: dict[str, Any], seed: int, name: str) -> DataSet:
    """Rows as a data set called ``name``: "test" and "valid" of ``wanted`` are splits, or amounts that are drawn from the rows.

    Raises:
        InputError: no test rows, or none left to train on.
    """
    n = len(rows)
    held = {split: size for split, size in wanted.items() if isinstance(size, Split)}
    counts = {split: _count(size, n, split) for split, size in wanted.items() if split not in held}
    drawn = {split: count for split, count in counts.items() if count > 0}
    rest = n - sum(drawn.values())
    if "test" not in held and "test" not in drawn:
        raise InputError(
            f"test={wanted['test']!r} leaves no test rows; hold out at least one of the {n} rows, or give an array of test rows"
        )
    if rest <= 0:
        raise InputError(f"{' and '.join(f'{k}={v}' for k, v in drawn.items())} rows leave none of {n} for training; hold out fewer")
    train = rows
    if drawn:
        *parts, train = (rows.take(index) for index in permutation(n, seed).split([*drawn.values(), rest]))
        held |= dict(zip(drawn, parts, strict=True))
    return DataSet(name, train=train, test=held["test"], valid=held.get("valid"))


def last_rows(train: Split, valid: int) -> tuple[Split, Split | None]:
    """The training split ``train`` without its last ``valid`` rows, and those rows as a split (None for 0): how official sets are held
    out.

    Raises:
        InputError: ``valid`` is negative, or leaves no row.
    """
    n = len(train)
    if not 0 <= valid < n:
        raise InputError(f"valid={valid} cannot be held out of {n} training rows; give a count from 0 to {n - 1}")
    if valid == 0:
        return train, None
    return train.head(n - valid), train.take(torch.arange(n - valid, n))


def _count(size: Any, n: int, split: str) -> int:
    """The number of rows that a fraction or a count asks for."""
    whole = isinstance(size, int | np.integer) and not isinstance(size, bool)
    if not (whole and size >= 0) and not (isinstance(size, float | np.floating) and 0 <= size < 1):
        raise InputError(f"{split}={size!r} is no amount of rows; give a fraction in (0, 1), a count of at least 0 or an array of rows")
    count = int(size) if whole else round(float(size) * n)
    if size > 0 and count == 0:
        raise InputError(f"{split}={size} of {n} rows is less than one row; give a larger fraction or a count")
    return count


def _split(x: Any, what: str, *, label: Any = None, mask: Any = None, c: Tensor | None = None) -> Split:
    """Rows as a split: tensors that share no memory with the caller's, and a mask where entries are missing."""
    rows = _tensor(x, what)
    seen = torch.ones_like(rows, dtype=torch.bool) if mask is None else _tensor(mask, "mask")
    if seen.shape != rows.shape or seen.dtype != torch.bool:
        raise InputError(f"the mask is {str(seen.dtype)[6:]} {list(seen.shape)}; it must be bool {list(rows.shape)}, as the data")
    if isinstance(x, np.ma.MaskedArray):
        seen &= torch.from_numpy(~np.ma.getmaskarray(x))
    if rows.is_floating_point():
        seen &= ~rows.isnan()
    labels = None if label is None else _labels(label)
    return Split(rows, label=labels, mask=None if mask is None and bool(seen.all()) else seen, c=c)


def _tensor(x: Any, what: str) -> Tensor:
    if isinstance(x, Tensor):
        rows = x.detach().clone()
        return rows.to(torch.float32) if rows.dtype == torch.float64 else rows
    return plain(np.asarray(x), what, copy=True)


def _labels(label: Any) -> Tensor:
    labels = _tensor(label, "label")
    if labels.is_floating_point():
        raise InputError(f"labels are {str(labels.dtype)[6:]} numbers; give one integer class a row")
    return labels.to(torch.int64)
