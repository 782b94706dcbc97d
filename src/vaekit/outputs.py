"""What the commands give out: pictures as .png, tables as .csv or .parquet, anything as .npy, a diagnosis as text."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from vaekit import viz
from vaekit.data.tables import Known, Schema
from vaekit.errors import InputError
from vaekit.evaluate import Diagnosis
from vaekit.files import explained, write_bytes
from vaekit.runs import Run
from vaekit.viz.figure import Figure

__all__ = ["TABLES", "check_suffix", "default_path", "diagnosis_text", "place", "save", "save_table", "suffixes", "write_frame"]

TABLES = (".csv", ".parquet")


def suffixes(known: Known | None) -> tuple[str, ...]:
    """The kinds of files that examples are written to."""
    return (*TABLES, ".npy") if known is not None and isinstance(known.schema, Schema) else (".png", ".npy")


def check_suffix(path: Path, *kinds: str) -> None:
    """Refuse a file of another kind than ``kinds``, endings as ".csv"."""
    if path.suffix.lower() not in kinds:
        raise InputError(f'--out {path}: writes {" or ".join(kinds)}, not "{path.suffix}"')


def place(out: Path, *kinds: str) -> Path:
    """The file to write, of one of ``kinds``, after a look whether it can be: said before the work, not after it.

    Raises:
        InputError: another kind of file, a folder, or a place that is not there.
    """
    if kinds and out.suffix.lower() not in kinds:
        raise InputError(f'{out}: writes {" or ".join(kinds)}, not "{out.suffix}"')
    with explained(out):
        if out.is_dir():
            raise IsADirectoryError
        out.parent.stat()
    return out


def _prepare(path: Path) -> None:
    """Make the folder of a default place; the folder of a place that was asked for must be there."""
    if path.parent.name == "figures":
        with explained(path):
            path.parent.mkdir(exist_ok=True)


def save(
    x: Tensor,
    target: Path,
    draw: Callable[[], Figure] | None = None,
    *,
    rows: bool = False,
    known: Known | None = None,
    c: Tensor | None = None,
) -> None:
    """To ``target``: x ``[N, *]``, or in ``rows`` ``[R, S, *]``, as .npy; as a table where it is one, of rows with a context ``c`` with its
    columns; or as the figure that ``draw`` makes, by default the bare images.

    Raises:
        InputError: examples that are no pictures, for a picture.
    """
    if target.suffix.lower() in TABLES and known is not None and isinstance(known.schema, Schema):
        save_table(x.flatten(0, 1) if rows else x, known.schema, target, c)
        return
    if target.suffix.lower() == ".npy":
        buffer = io.BytesIO()
        np.save(buffer, x.numpy(), allow_pickle=False)
        _prepare(target)
        write_bytes(target, buffer.getvalue())
        return
    _images_only(x[0] if rows else x, target)
    _prepare(target)
    if draw is None:
        viz.save_png(x, target, scale=max(2, 64 // x.shape[-1]), gap=viz.gap_for(x.shape[-1]))
    else:
        write_bytes(target, viz.png(draw()))


def save_table(x: Tensor, schema: Schema, target: Path, c: Tensor | None = None) -> None:
    """Encoded rows x ``[N, D]``, with contexts c ``[N, C]`` where they have any, as a table with the columns, dtypes and categories that
    ``schema`` had from the original, in a .csv or .parquet file ``target``."""
    _prepare(target)
    write_frame(schema.decode(x, c), target)


def write_frame(frame: Any, target: Path) -> None:
    """A DataFrame ``frame`` as a .csv or .parquet file ``target``."""
    if target.suffix.lower() == ".csv":
        found = frame.to_csv(index=False).encode()
    else:
        buffer = io.BytesIO()
        frame.to_parquet(buffer, index=False)
        found = buffer.getvalue()
    write_bytes(target, found)


def default_path(run: Run, name: str, x: Tensor, known: Known | None = None) -> Path:
    """Where a command writes x under ``name``. In the run's figures: a picture where x ``[N, *]`` are images; a table in the run folder."""
    if suffixes(known)[0] == ".csv":
        return run.path / f"{name}.csv"
    return run.figures / f"{name}{'.png' if _are_images(x) else '.npy'}"


def diagnosis_text(found: Diagnosis, split: str) -> str:
    """The figures of ``found``, then a sentence on each thing that stands out."""
    lines = []
    if found.test is not None:
        lines.append(f"{found.test.examples} {split} examples, {found.test.samples} samples of z each")
    entries = found.entries()
    width = max((len(entry.name) for entry in entries), default=0)
    for name, value, error, unit in entries:
        shown = value if isinstance(value, str) else f"{value:.4g}" if error is None else f"{value:.2f} +- {error:.2f}"
        lines.append(f"  {name:<{width}}  {shown} {unit}".rstrip())
    lines += [f"  {reason}" for reason in found.left_out]
    lines += [f"{severity}: {sentence}" for severity, sentence in found.findings] or ["nothing looks wrong"]
    return "\n".join(lines)


def _are_images(x: Tensor) -> bool:
    return x.dim() == 4 and x.shape[1] in (1, 3)


def _images_only(x: Tensor, target: Path) -> None:
    if not _are_images(x):
        raise InputError(f"--out {target}: examples of shape {list(x.shape[1:])} are no pictures; write them as .npy")
