"""Point at data, and get what training needs: a data set, and what is in it."""

from __future__ import annotations

import sys
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vaekit.data.arrays import arrays, divided
from vaekit.data.core import DataSet, Split
from vaekit.data.sparse import SparseRows
from vaekit.data.tables.beside import beside_of, columns_beside, context_beside
from vaekit.data.tables.cells import Name, several
from vaekit.data.tables.counts import Counts, read_h5ad, read_sparse_npz
from vaekit.data.tables.delimited import SIGNATURES
from vaekit.data.tables.infer import Kind
from vaekit.data.tables.needs import is_frame, pandas
from vaekit.data.tables.pictures import read_images
from vaekit.data.tables.pixels import Pixels, in_channels
from vaekit.data.tables.read import read_noted
from vaekit.data.tables.schema import Schema
from vaekit.errors import InputError

__all__ = ["Description", "Found", "described", "frame_of", "inspect", "rows_of", "what"]

CLASSES = "images have labels where each lies in the folder of its class, or where an .npz file holds y"
OBS = "counts have such columns in the obs of an .h5ad file"
ROWS, LABELS = ("x", "images", "data"), ("y", "label", "labels", "target")
Description = Schema | Pixels | Counts
"""What was found in data: of a table, images or counts."""


@dataclass(frozen=True, eq=False)
class Found:
    """What `inspect` found.

    Attributes:
        data: the rows in three splits, as the model will see them: of a table the encoded numbers, with a mask where values are missing.
        schema: what they are: a `Schema` of a table, `Pixels` of images, `Counts` of a matrix of counts.
        notes: what there is to say of how it was read, a line each.
    """

    data: DataSet
    schema: Description
    notes: tuple[str, ...] = ()

    def describe(self) -> str:
        """What was found and why, and the notes."""
        sizes = {"training": self.data.train, "validation": self.data.valid, "test": self.data.test}
        rows = ", ".join(f"{len(split)} {name}" for name, split in sizes.items() if split is not None)
        return "\n".join([f"{self.data.name}: {rows} rows", self.schema.describe(), *(f"note: {note}" for note in self.notes)])


def described(stored: Mapping[str, Any]) -> Description:
    """The description that ``to_json`` of one gave, whichever it was.

    Raises:
        InputError: it is none, of another format, or damaged.
    """
    readers: dict[Any, Callable[[Mapping[str, Any]], Description]] = {
        "table": Schema.from_json,
        "images": Pixels.from_json,
        "counts": Counts.from_json,
    }
    what = stored.get("what")
    if what not in readers:
        raise InputError(f"a description of {what!r}: this version knows {', '.join(readers)}")
    return readers[what](stored)


def inspect(
    source: Any,
    *,
    overrides: Mapping[Name, Kind] | None = None,
    drop: Name | Sequence[Name] = (),
    condition: Name | Sequence[Name] = (),
    valid: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    name: str | None = None,
    schema: Description | None = None,
) -> Found:
    """Look at data and make them ready: what they are, how each value is distributed and why, and a seeded division into three splits.

    The schema is of all rows: held-out rows have the categories and the range of the others, and their standardisation.

    Args:
        source: the path of a ``.csv``, ``.tsv``, ``.parquet``, ``.npy``, ``.npz`` or ``.h5ad`` file, of a folder or a ``.zip`` of images; a
            DataFrame, a scipy sparse matrix of counts, an AnnData, or an array: ``[N, D]`` is a table, ``[N, H, W]`` and
            ``[N, C, H, W]`` are images.
        overrides, drop: as in `Schema.infer`; of tables only.
        condition: what is given, and becomes the context c of each row: columns of a table, "label" of images (their classes), columns
            of ``obs`` of counts.
        valid, test, seed: as in `vaekit.data.arrays`.
        name: of the data set; by default that of the file.
        schema: what an earlier look has found, which these data are to fit; None to look anew.

    Raises:
        InputError: what cannot be read, encoded or divided, in one line that names the file, the column and the row.

    >>> found = inspect(np.random.default_rng(0).poisson(3.0, (200, 2)), seed=1)
    >>> print(found.describe())
    table: 160 training, 20 validation, 20 test rows
    column  kind   likelihood  missing  because
    x0      count  Poisson     -        whole numbers from 0 to 8, variance 0.95 times the mean
    x1      count  Poisson     -        whole numbers from 0 to 10, variance 0.98 times the mean
    """
    share: dict[str, Any] = {"valid": valid, "test": test, "seed": seed}
    drop, condition = several(drop), several(condition)
    chosen = bool(overrides or drop)
    given = _given(source, bool(condition) if schema is None else schema.context is not None)
    if isinstance(source, str | Path):
        name = name or Path(source).name.partition(".")[0] or Path(source).resolve().name
    source, label, notes = given.values, given.label, given.notes
    if is_frame(source) or (isinstance(source, np.ndarray) and source.ndim == 2):
        inferred = Schema.infer(source, overrides=overrides, drop=drop, condition=condition) if schema is None else schema
        table = _same(Schema, inferred, "this is a table")
        notes = notes if schema is None else (*notes, *table.check(source))
        x, mask = table.encode(source)
        _enough(len(x), share)
        c = table.encode_context(source)
        return Found(arrays(x, mask=mask, label=label, c=c, name=name or "table", **share), table, notes)
    if chosen:
        raise InputError("overrides and drop are for the columns of a table, and this is none")
    if isinstance(source, np.ndarray) and source.ndim in (3, 4):
        x4, turned = in_channels(source)
        if schema is None:
            schema = replace(Pixels.infer(x4), given=columns_beside(given.beside, condition, CLASSES, kind="categorical"))
        pixels = _same(Pixels, schema, "these are images")
        pixels.check(x4)
        c = context_beside(pixels.context, given.beside, CLASSES)
        _enough(len(x4), share)
        data = arrays(x4, label=label, c=c, name=name or "images", **share)
        labelled = DataSet(data.name, train=data.train, test=data.test, valid=data.valid, label_names=given.label_names)
        return Found(labelled, pixels, (*notes, *turned))
    if isinstance(source, np.ndarray):
        raise InputError(f"an array of shape {list(source.shape)}: give a table [N, D] or images [N, C, H, W]")
    source = _sparse(source)
    if schema is None:
        schema = replace(Counts.infer(source, names=given.names), given=columns_beside(given.beside, condition, OBS))
    counts = _same(Counts, schema, "these are counts")
    counts.check(source, names=given.names)
    c = context_beside(counts.context, given.beside, OBS)
    _enough(source.shape[0], share)
    rows = Split(SparseRows.of(source), label=None if label is None else torch.from_numpy(label), c=c)
    return Found(divided(rows, {"test": test, "valid": valid}, seed, name or "counts"), counts, notes)


def rows_of(source: Any, schema: Description) -> tuple[Split, tuple[str, ...]]:
    """All rows of ``source``, as `inspect` takes them, as a model of ``schema`` sees them, and what there is to say of them.

    Raises:
        InputError: they cannot be read, or do not fit.
    """
    given = _given(source, schema.context is not None)
    path = source if isinstance(source, str | Path) else "this"
    label = None if given.label is None else torch.from_numpy(given.label)
    if is_frame(given.values) or (isinstance(given.values, np.ndarray) and given.values.ndim == 2):
        table = _same(Schema, schema, f"{path} holds a table")
        notes = table.check(given.values)
        x, mask = table.encode(given.values)
        c = table.encode_context(given.values)
        return Split(x, label=label, mask=None if bool(mask.all()) else mask, c=c), (*given.notes, *notes)
    if isinstance(given.values, np.ndarray):
        pixels = _same(Pixels, schema, f"{path} holds images")
        x4, turned = in_channels(given.values)
        pixels.check(x4)
        c = context_beside(pixels.context, given.beside, CLASSES)
        return Split(torch.from_numpy(x4), label=label, c=c), (*given.notes, *turned)
    counts = _same(Counts, schema, f"{path} holds counts")
    counts.check(given.values, names=given.names)
    c = context_beside(counts.context, given.beside, OBS)
    return Split(SparseRows.of(given.values), label=label, c=c), given.notes


def frame_of(path: Path) -> Any:
    """The table in a file as a DataFrame; the columns of an array are called x0, x1, ...

    Raises:
        InputError: it cannot be read, or holds no table.
    """
    values = _read(path).values
    if isinstance(values, np.ndarray) and values.ndim == 2:
        return pandas("a table").DataFrame(values, columns=[f"x{d}" for d in range(values.shape[1])])
    if not is_frame(values):
        raise InputError(f"{path} holds no table: give a .csv, .tsv, .parquet, .npy or .npz file of one")
    return values


def what(path: Path) -> str:
    """Whether a file or folder holds a "table", "images" or "counts"; what arrays hold is looked up in them.

    Raises:
        InputError: there is no such file, or it cannot be read.
    """
    ending = path.suffix.lower()
    if path.exists() and (path.is_dir() or ending == ".zip"):
        return "images"
    if ending not in (".npy", ".npz"):
        return "counts" if ending == ".h5ad" else "table"
    values = _read(path).values
    if not isinstance(values, np.ndarray):
        return "counts"
    return "table" if values.ndim < 3 else "images"


D = TypeVar("D", Schema, Pixels, Counts)


def _same(kind: type[D], schema: Description, found: str) -> D:
    """The schema, if it is of the kind that was found."""
    if not isinstance(schema, kind):
        named = {Schema: "a table", Pixels: "images", Counts: "counts"}[type(schema)]
        raise InputError(f"{found}, and the model was trained on {named}: give data of that kind")
    return schema


def _sparse(source: Any) -> Any:
    from scipy.sparse import csr_array, issparse

    if isinstance(source, np.ndarray) and source.ndim == 2:
        return csr_array(source)
    if not issparse(source):
        raise InputError(
            f"a {type(source).__name__} cannot be inspected: give a path, a DataFrame, an array, a sparse matrix or an AnnData"
        )
    return source


def _enough(n: int, share: dict[str, Any]) -> None:
    least = 2 + (share["valid"] > 0)
    if n < least:
        raise InputError(
            f"{n} rows cannot be divided into training, validation and test rows: give at least {least}, and some hundreds to learn from"
        )


@dataclass(frozen=True, eq=False)
class _Source:
    """What a path leads to."""

    values: Any
    label: npt.NDArray[np.int64] | None = None
    label_names: tuple[str, ...] | None = None
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    obs: Any = None

    @property
    def beside(self) -> dict[Name, Any]:
        return beside_of(self.label, self.label_names, self.obs)


def _given(source: Any, obs: bool) -> _Source:
    if isinstance(source, str | Path):
        return _read(Path(source), obs)
    if "anndata" in sys.modules and isinstance(source, sys.modules["anndata"].AnnData):
        return _Source(_sparse(source.X), names=tuple(map(str, source.var_names)), obs=source.obs)
    return _Source(source.detach().cpu().numpy() if isinstance(source, Tensor) else source)


def _read(path: Path, obs: bool = False) -> _Source:
    """The data in a file or folder, by its name; with ``obs`` what stands beside the rows of an .h5ad file too."""
    if not path.exists():
        raise InputError(f"there is no file or folder {path}")
    ending = path.suffix.lower()
    if path.is_dir() or ending == ".zip":
        images, label, label_names, notes = read_images(path)
        return _Source(images, label, label_names, notes=tuple(notes))
    if ending == ".h5ad":
        values, names, beside = read_h5ad(path, obs=obs)
        return _Source(values, names=names, obs=beside)
    if ending in (".npy", ".npz"):
        return _numpy(path)
    frame, notes = read_noted(path)
    return _Source(frame, notes=tuple(notes))


def _numpy(path: Path) -> _Source:
    """An array, the parts of a sparse matrix, or an archive of x (X, images, data) with perhaps y (label, labels)."""
    try:
        loaded = np.load(path, allow_pickle=False)
        found = {"x": loaded} if isinstance(loaded, np.ndarray) else {key: loaded[key] for key in loaded.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        with path.open("rb") as file:
            start = file.read(8)
        held = next((f"by its first bytes it is {what}" for mark, what in SIGNATURES.items() if start.startswith(mark)), "it is damaged")
        why = "it holds Python objects" if "pickle" in str(error) and start.startswith(b"\x93NUMPY") else held
        raise InputError(
            f"{path} is no {path.suffix} file of numbers that can be read ({why}): write it with numpy.save or savez"
        ) from error
    sparse = read_sparse_npz(path, found)
    if sparse is not None:
        return _Source(sparse[0], names=sparse[1])
    keys = [key for key in found if key.lower() in ROWS] or [key for key in found if found[key].ndim > 1]
    if len(keys) != 1:
        held = ", ".join(f"{key} {list(value.shape)}" for key, value in found.items()) or "nothing"
        raise InputError(f"{path} holds {held}: give an archive of one array called x, and perhaps its labels y")
    x = found[keys[0]]
    marked = next((key for key in found if key.lower() in LABELS), None)
    if marked is None or found[marked].shape != x.shape[:1] or found[marked].dtype.kind not in "iub":
        besides = [key for key in found if key != keys[0]]
        return _Source(x, notes=(f"{', '.join(besides)} in {path.name} left out",) if besides else ())
    return _Source(x, found[marked].astype(np.int64))
