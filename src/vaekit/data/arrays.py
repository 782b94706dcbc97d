"""A data set from arrays in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vaekit.data.core import DataSet, Split
from vaekit.errors import InputError

__all__ = ["arrays", "last_rows", "permutation"]


def permutation(n: int, seed: int) -> Tensor:
    """A seeded random order of 0..n-1, int64 ``[n]``: ``numpy.random.RandomState(seed).permutation(n)``.

    RandomState is numpy's frozen generator: its stream is the same in every version, so a split drawn today is drawn again in ten
    years. torch and numpy's newer Generator promise no such thing.

    >>> permutation(5, seed=0)
    tensor([2, 0, 1, 3, 4])
    """
    if not 0 <= seed < 2**32:
        raise InputError(f"a split cannot be drawn with seed {seed}; give a seed from 0 to 4294967295")
    return torch.from_numpy(np.random.RandomState(seed).permutation(n).astype(np.int64))


def arrays(
    x: npt.ArrayLike | Tensor,
    *,
    label: npt.ArrayLike | Tensor | None = None,
    mask: npt.ArrayLike | Tensor | None = None,
    valid: float | npt.ArrayLike | Tensor = 0.1,
    test: float | npt.ArrayLike | Tensor = 0.1,
    seed: int = 0,
    name: str = "arrays",
) -> DataSet:
    """A data set from numpy arrays or tensors, with validation and test rows drawn at random or given.

    Args:
        x: rows ``[N, *]``. The shape is kept as given: grey images need their channel axis, ``[N, 1, H, W]``. uint8 is an image in
            bytes and becomes x / 255; every other dtype keeps its values (cast a uint8 table to float first). float64 is stored
            as float32. A NaN, like an entry masked in a numpy masked array, is a missing entry: it gets mask False and is never filled in.
        label: integers ``[N]``, one class a row of x; given test or valid arrays have none (build a `DataSet` for that).
        mask: bool ``[N, *]``, True where x is observed.
        valid, test: how many rows of x to hold out: a fraction in (0, 1), rounded to the nearest count; a count; or an array of
            rows to use instead. ``valid=0`` means no validation split; there is always a test split.
        seed: of `permutation`, whose first rows are the test split, the next the validation split, and the rest the training
            split, in that order. Nothing is permuted when nothing is drawn.

    Raises InputError for text, objects or complex numbers, for infinite values, for labels that do not fit, and for empty splits.

    >>> data = arrays(np.arange(20.0).reshape(10, 2), label=np.arange(10), valid=2, test=0.3)
    >>> len(data.train), len(data.valid), len(data.test), data.test.label
    (5, 2, 3, tensor([2, 8, 4]))
    """
    rows = _split(x, "x", label=label, mask=mask)
    n = len(rows)
    wanted = {"test": test, "valid": valid}
    held = {split: _split(size, split) for split, size in wanted.items() if np.ndim(size) > 0}
    counts = {split: _count(size, n, split) for split, size in wanted.items() if split not in held}
    drawn = {split: count for split, count in counts.items() if count > 0}
    rest = n - sum(drawn.values())
    if "test" not in held and "test" not in drawn:
        raise InputError(f"test={test!r} leaves no test rows; hold out at least one of the {n} rows, or give an array of test rows")
    if rest <= 0:
        raise InputError(f"{' and '.join(f'{k}={v}' for k, v in drawn.items())} rows leave none of {n} for training; hold out fewer")
    train = rows
    if drawn:
        *parts, train = (rows.take(index) for index in permutation(n, seed).split([*drawn.values(), rest]))
        held |= dict(zip(drawn, parts, strict=True))
    return DataSet(name, train=train, test=held["test"], valid=held.get("valid"))


def last_rows(train: Split, valid: int) -> tuple[Split, Split | None]:
    """The training split without its last ``valid`` rows, and those rows as a split (None for 0): how official sets are held out."""
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


def _split(x: Any, what: str, *, label: Any = None, mask: Any = None) -> Split:
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
    return Split(rows, label=labels, mask=None if mask is None and bool(seen.all()) else seen)


def _tensor(x: Any, what: str) -> Tensor:
    if isinstance(x, Tensor):
        rows = x.detach().clone()
    else:
        array = np.asarray(x)
        if array.dtype.kind not in "buif":
            raise InputError(f"{what} holds {array.dtype} values; give numbers or booleans (encode text and categories as numbers first)")
        if array.dtype.kind == "f" and array.dtype.itemsize > 8:
            array = array.astype(np.float64)
        if array.dtype.kind == "u" and array.dtype.itemsize > 1:  # torch can hardly compute with wider unsigned integers
            array = array.astype(np.int64)
        rows = torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C", copy=True))
    return rows.to(torch.float32) if rows.dtype == torch.float64 else rows


def _labels(label: Any) -> Tensor:
    labels = _tensor(label, "label")
    if labels.is_floating_point():
        raise InputError(f"labels are {str(labels.dtype)[6:]} numbers; give one integer class a row")
    return labels.to(torch.int64)
