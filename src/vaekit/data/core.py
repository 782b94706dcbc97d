"""A `Split` is N stored rows and the function that turns them into model input; a `DataSet` is two or three splits.

Rows are kept in their stored form (bytes for images), which is four times smaller than float32, and become float32 batch by batch:
``Split.batch`` is one ``index_select`` and one ``prepare``, on whichever device the rows lie. Rows too many for memory stay in their
file (`FileRows`, made by `vaekit.data.on_disk`) and are read batch by batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from vaekit.data.disk import FileRows
from vaekit.data.stored import StoredRows
from vaekit.errors import InputError, nearest
from vaekit.types import Batch

__all__ = ["Prepare", "Rows", "Split", "DataSet", "Factor", "to_float"]

Prepare = Callable[[Tensor], Tensor]
"""Stored rows ``[B, *]`` -> float32 input of the model ``[B, *]``."""
Rows = Tensor | StoredRows  # [N, *], a tensor, or rows that become one batch by batch
CHUNK = 2**22  # values looked at at a time

DTYPES = (
    *(torch.uint8, torch.bool),
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.int8, torch.int16, torch.int32, torch.int64),
)


def to_float(x: Tensor) -> Tensor:
    """uint8 (an image in bytes) -> float32 x / 255 in [0, 1]; every other dtype (bool, floats, counts) -> float32, values unchanged.

    >>> to_float(torch.tensor([0, 51, 255], dtype=torch.uint8)), to_float(torch.tensor([0, 51, 255]))
    (tensor([0.0000, 0.2000, 1.0000]), tensor([  0.,  51., 255.]))
    """
    return x.to(torch.float32).div_(255) if x.dtype == torch.uint8 else x.to(torch.float32)


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """N rows of one split.

    Attributes:
        x: stored rows ``[N, *]``: uint8, bool, a float or a signed integer dtype. Observed entries are finite in float32; of rows in a
            file that is looked at in the rows of their `sample`.
        label: int64 ``[N]``, or None.
        prepare: stored rows ``[B, *]`` -> float32 model input ``[B, *]``. A module-level function, so that a split can be pickled to
            worker processes. It may draw from torch's global random generator (dynamic binarisation does).
        mask: bool ``[N, *]`` as x, True where x is observed; None where all of it is.
        c: float32 ``[N, C]``, the context that p(x | z, c) and q(z | x, c) are conditioned on (classes as one-hot columns, say), all of it
            finite; None without one. It stays in memory where x lies in a file.

    Raises InputError for no rows, a dtype without a float32 value, a label, mask or context of the wrong shape or dtype, and values that
    are not finite in an observed place.

    >>> split = Split(torch.arange(12, dtype=torch.uint8).view(3, 1, 2, 2), label=torch.tensor([7, 8, 9]))
    >>> split
    Split(3 rows of [1, 2, 2], uint8, labelled)
    >>> batch = split.batch(torch.tensor([2, 0]))
    >>> batch.x.shape, batch.x.dtype, batch.index
    (torch.Size([2, 1, 2, 2]), torch.float32, tensor([2, 0]))
    """

    x: Rows
    label: Tensor | None = None
    prepare: Prepare = to_float
    mask: Rows | None = None
    c: Tensor | None = None

    def __post_init__(self) -> None:
        x, label, mask, c = self.x, self.label, self.mask, self.c
        if x.dtype not in DTYPES:
            raise InputError(f"data of dtype {x.dtype} has no float32 value; give uint8, bool, a float or a signed integer dtype")
        if x.dim() < 2:
            raise InputError(f"data of shape {list(x.shape)} has no event axis; give rows [N, *], for one number a row x[:, None]")
        if x.numel() == 0:
            raise InputError(f"a split of shape {list(x.shape)} is empty; it needs at least one row of at least one value")
        if label is not None and (label.dtype != torch.int64 or label.shape != x.shape[:1]):
            raise InputError(f"labels are {_name(label)} {list(label.shape)}; {len(x)} rows need int64 [{len(x)}], one label a row")
        if mask is not None and (mask.dtype != torch.bool or mask.shape != x.shape):
            raise InputError(f"the mask is {_name(mask)} {list(mask.shape)}; it must be bool {list(x.shape)}, as the data")
        if c is not None and (c.dtype != torch.float32 or c.dim() != 2 or len(c) != len(x) or c.shape[1] < 1):
            raise InputError(f"the context c is {_name(c)} {list(c.shape)}; {len(x)} rows need float32 [{len(x)}, C]")
        if c is not None and not bool(c.isfinite().all()):
            row = int((~c.isfinite()).any(1).nonzero()[0])
            raise InputError(
                f"the context c of row {row} is not finite; what is conditioned on must be known: leave out the row or the column"
            )
        if isinstance(x, FileRows) and x.is_floating_point():
            for index in self.glance():
                _check_finite(x.read(index), None if mask is None else _picked(mask, index), index)
        elif isinstance(x, Tensor) and x.is_floating_point():
            _check_finite(x, mask if mask is None or isinstance(mask, Tensor) else mask.read(torch.arange(len(x))))

    def __len__(self) -> int:
        return self.x.shape[0]

    def __repr__(self) -> str:
        extras = (", labelled" if self.label is not None else "") + (", with missing entries" if self.mask is not None else "")
        extras += f", with a context of {self.c.shape[1]}" if self.c is not None else ""
        extras += ", in a file" if isinstance(self.x, FileRows) else ", sparse" if isinstance(self.x, StoredRows) else ""
        return f"{type(self).__name__}({len(self)} rows of {list(self.shape)}, {_name(self.x)}{extras})"

    @property
    def shape(self) -> torch.Size:
        """The shape of one event, ``*``."""
        return self.x.shape[1:]

    def batch(self, index: Tensor) -> Batch:
        """The rows ``index`` (int64 ``[B]``, in any order, repeats allowed), prepared: x float32 ``[B, *]``, with c, mask and index."""
        return self.prepared(self.pick(index))

    def pick(self, index: Tensor) -> Batch:
        """The rows ``index`` ``[B]`` as they are stored, ``[B, *]``, with context, mask and index. Nothing is drawn, so that another
        thread may do it."""
        mask = None if self.mask is None else _picked(self.mask, index)
        c = None if self.c is None else _picked(self.c, index)
        return Batch(_picked(self.x, index), c, mask, index.to(self.x.device))

    def prepared(self, rows: Batch) -> Batch:
        """Stored rows that were picked, as model input."""
        return rows._replace(x=self.prepare(rows.x))

    def glance(self, values: int = CHUNK) -> Iterator[Tensor]:
        """The rows to look at before they are used, int64 ``[B]`` on the CPU, about so many values at a time: all of rows in memory, of
        rows in a file their `FileRows.sample`."""
        rows = self.x.sample() if isinstance(self.x, StoredRows) else torch.arange(len(self))
        return iter(rows.split(max(1, values // self.shape.numel())))

    def to(self, device: torch.device | str) -> Split:
        """The same split on another device."""
        return Split(
            self.x.to(device),
            label=None if self.label is None else self.label.to(device),
            prepare=self.prepare,
            mask=None if self.mask is None else self.mask.to(device),
            c=None if self.c is None else self.c.to(device),
        )

    def head(self, n: int) -> Split:
        """The first n rows (a view)."""
        if not 1 <= n <= len(self):
            raise InputError(f"cannot take the first {n} rows of {len(self)}; ask for 1 to {len(self)}")
        return Split(
            _head(self.x, n),
            label=None if self.label is None else self.label[:n],
            prepare=self.prepare,
            mask=None if self.mask is None else _head(self.mask, n),
            c=None if self.c is None else self.c[:n],
        )

    def take(self, index: Tensor) -> Split:
        """The rows ``index`` (int64 ``[M]``), in that order: a copy, of rows in a file a view."""
        return Split(
            _taken(self.x, index),
            label=None if self.label is None else self.label.index_select(0, index.to(self.label.device)),
            prepare=self.prepare,
            mask=None if self.mask is None else _taken(self.mask, index),
            c=None if self.c is None else _picked(self.c, index),
        )


@dataclass(frozen=True)
class Factor:
    """A factor that the data were made by: its name, its number of values, ``size``, and whether they are ``ordered`` (a size is, a
    shape is not)."""

    name: str
    size: int
    ordered: bool = True


@dataclass(frozen=True, eq=False)
class DataSet:
    """A named data set: training and test splits, and a validation split ``valid`` where there is one, of one event shape.

    ``label_names[label]`` is the name of a class, where classes have names. Where the data were made by known ``factors``, the label is
    the number of a combination of their values, the last factor changing fastest (`vaekit.data.factor_values` takes it apart).

    Raises:
        InputError: splits of different shapes or context widths; labels that the factors or the names of classes do not have.

    >>> x = torch.rand(6, 2, generator=torch.Generator().manual_seed(0))
    >>> data = DataSet("toy", train=Split(x[:4]), test=Split(x[4:]))
    >>> data.shape, len(data.split("test"))
    (torch.Size([2]), 2)
    """

    name: str
    train: Split
    test: Split
    valid: Split | None = None
    label_names: tuple[str, ...] | None = None
    factors: tuple[Factor, ...] = ()

    def __post_init__(self) -> None:
        combinations = math.prod(factor.size for factor in self.factors)
        for name, split in self._splits().items():
            if split.shape != self.train.shape:
                raise InputError(f'"{self.name}": {name} rows have shape {list(split.shape)}, train rows {list(self.train.shape)}')
            widths = [0 if s.c is None else s.c.shape[1] for s in (split, self.train)]
            if widths[0] != widths[1]:
                raise InputError(f'"{self.name}": {name} rows have a context of {widths[0]} numbers, train rows one of {widths[1]}')
            if self.factors and (split.label is None or int(split.label.min()) < 0 or int(split.label.max()) >= combinations):
                raise InputError(
                    f'"{self.name}": {len(self.factors)} factors have {combinations} combinations, and the {name} rows need labels from 0 '
                    f"to {combinations - 1} that number them"
                )
            if self.label_names is None or split.label is None:
                continue
            low, high = int(split.label.min()), int(split.label.max())
            if low < 0 or high >= len(self.label_names):
                raise InputError(
                    f'"{self.name}": {name} labels run from {low} to {high}, but there are {len(self.label_names)} label names'
                )

    def _splits(self) -> dict[str, Split]:
        named = {"train": self.train, "valid": self.valid, "test": self.test}
        return {name: split for name, split in named.items() if split is not None}

    @property
    def shape(self) -> torch.Size:
        """The shape of one event, ``*``."""
        return self.train.shape

    def split(self, name: str) -> Split:
        """The split called "train", "valid" or "test".

        Raises:
            InputError: the data set has no such split.
        """
        splits = self._splits()
        if name == "valid" and name not in splits:
            raise InputError(f'"{self.name}" has no validation split; hold one out when it is read (valid=...), or use "train" or "test"')
        if name not in splits:
            raise InputError(f'"{self.name}" has no split "{name}"; {nearest(name, splits)}')
        return splits[name]


def _picked(rows: Rows, index: Tensor) -> Tensor:
    return rows.read(index) if isinstance(rows, StoredRows) else rows.index_select(0, index.to(rows.device))


def _taken(rows: Rows, index: Tensor) -> Rows:
    return rows.take(index) if isinstance(rows, StoredRows) else _picked(rows, index)


def _head(rows: Rows, n: int) -> Rows:
    return rows.head(n) if isinstance(rows, StoredRows) else rows[:n]


def _name(x: Rows) -> str:
    return str(x.dtype).removeprefix("torch.")


def _check_finite(x: Tensor, mask: Tensor | None, index: Tensor | None = None) -> None:
    # compared in float32, which is what the model will see: NaN, infinities and float64 values beyond 3.4e38 all fail
    fine = x.abs() <= torch.finfo(torch.float32).max
    if mask is not None:
        fine |= ~mask
    if not bool(fine.all()):
        row = int((~fine).flatten(1).any(1).nonzero()[0])
        count = int((~fine).sum())
        raise InputError(
            f"{count} values are not finite in float32, the first in row {row if index is None else int(index[row])}; correct them, or "
            "mark them missing with a mask"
        )
