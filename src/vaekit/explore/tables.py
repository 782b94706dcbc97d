"""What a page shows of a table: its columns in their own units, the rows on the map, and the model as graphs that take missing values."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vaekit.apps.export.core import write_checked
from vaekit.apps.weighted import fixed_noise
from vaekit.conditional import Conditional
from vaekit.data.core import Split
from vaekit.data.tables import Column, Continuous, Count, Date, HeavyTailed, Positive, Schema, UnitInterval
from vaekit.data.tables.dates import NANOSECONDS
from vaekit.data.tables.numbers import limits
from vaekit.errors import InputError
from vaekit.evaluate.passes import batches, device_of, dtype_of
from vaekit.explore.graphs import Layout, program
from vaekit.explore.pack import Block, gzipped
from vaekit.heads import Columns
from vaekit.models import LatentModel, NotAtRandom
from vaekit.recipes.core import Recipe
from vaekit.types import Batch

__all__ = ["COLUMNS", "SAMPLES", "columns_of", "graphs", "row_values"]

SAMPLES = 512
"""Importance samples of what a page says of columns given others: those of ``vaekit impute``, by the noise of its seed 0."""
PROBE = 5
"""Rows that the graphs are checked on, 512 samples each."""
COLUMNS = 256
"""For each of which the page's form has a line, at most."""


def columns_of(recipe: Recipe) -> tuple[Column, ...]:
    """The modelled columns of the table that a recipe was made for; none where its data are no table.

    Raises:
        InputError: the model is not one of rows of these columns alone; too many of them.
    """
    if recipe.known is None or not isinstance(recipe.known.schema, Schema):
        return ()
    columns = recipe.known.schema.modelled
    if isinstance(recipe.model, NotAtRandom) or _head(recipe.model) is None:
        raise InputError(
            "explore: the model has a model of the mask, which the page's form has no place for: train with --missing at-random, or use "
            "vaekit impute and report"
        )
    if len(columns) > COLUMNS:
        raise InputError(f"explore: the page shows tables of up to {COLUMNS} columns, and this one has {len(columns)}: use vaekit report")
    return columns


def row_values(columns: tuple[Column, ...], model: LatentModel, shown: Split, blocks: dict[str, Block]) -> dict[str, Any]:
    """The rows on the map, NaN where a value is missing, and what a page needs to show and to take them in their own units.

    Args:
        columns: the D of the model.
        model: of a table.
        shown: the rows on the map.
        blocks: gets ``rows`` ``[N, D]``.
    """
    found = []
    for batch in batches(shown, 4096, device_of(model), dtype=dtype_of(model)):
        x = batch.x if batch.mask is None else batch.x.masked_fill(~batch.mask, torch.nan)
        found.append(x.cpu().numpy().astype("<f4"))
    rows = np.concatenate(found)
    blocks["rows"] = Block.of(rows)
    head = _head(model)
    kinds = [] if head is None else [column.kind for column in head.columns]
    return {
        "kind": "table",
        "range": [0.0, 1.0],
        "levels": None,
        "columns": [_column(column, kind, rows[:, d]) for d, (column, kind) in enumerate(zip(columns, kinds, strict=True))],
    }


def graphs(model: LatentModel, columns: tuple[Column, ...], shown: Split, blocks: dict[str, Block]) -> dict[str, Any]:
    """Encoder, decoder and conditional as ONNX, each checked against the model; the noise of the last.

    Args:
        columns: the D of the model.
        model: of a table.
        shown: rows to check the graphs with.
        blocks: gets the graphs and the noise.

    Raises:
        InputError: a part has no graph.
    """
    probe = next(batches(shown.head(min(PROBE, len(shown))), PROBE, device_of(model), dtype=dtype_of(model)))
    rows = torch.arange(max(3, probe.size)) % probe.size
    mask = torch.ones_like(probe.x, dtype=torch.bool) if probe.mask is None else probe.mask
    mask = mask & ~torch.eye(probe.x.shape[1], dtype=torch.bool)[torch.arange(probe.size) % probe.x.shape[1]]  # something is missing
    probe = Batch(torch.where(mask, probe.x, torch.zeros_like(probe.x))[rows], mask=mask[rows])
    head = _head(model)
    table = Layout(() if head is None else head.groups, tuple(column.size for column in columns))
    stated: dict[str, Any] = {}
    for part in ("encoder", "decoder", "score"):
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            made = program(part, model, probe, SAMPLES, table)
            noise = {
                field.name: fixed_noise(0, SAMPLES)(
                    "normal" if field.name == "eps" else "uniform", (SAMPLES, 1, field.shape[2]), 1, probe.x
                )
                for field in made.inputs
                if field.name in ("eps", "u")
            }
            known = {"x": probe.x, "mask": probe.mask, **{name: t.expand(-1, probe.size, -1) for name, t in noise.items()}}
            z = model.embed(probe)
            tensors = tuple(z if (t := known.get(field.name)) is None else t for field in made.inputs)
            path = Path(folder, f"{part}.onnx")
            try:
                _, _, outputs = write_checked(made, tensors, path)
            except InputError as error:
                raise InputError(f"explore: the {part} has no graph that a page could run: {error}") from error
            data = path.read_bytes()
        blocks[part] = Block("bytes", [len(data)], gzipped(data))
        stated[part] = [field.name for field in outputs]
        for name, t in noise.items():
            blocks[name] = Block.of(t.numpy().astype("<f4"))
    return {**stated, "score": {"samples": SAMPLES, "noise": list(noise)}, "unscored": None}


def _head(model: LatentModel) -> Columns | None:
    found = [part.head for part in model.modules() if isinstance(part, Conditional) and isinstance(part.head, Columns)]
    return found[0] if found else None


def _decimals(column: Column) -> int | None:
    """Places after the point that the column's values have; None where any."""
    if isinstance(column, Count) or limits(column.dtype) is not None:
        return 0
    return column.decimals if isinstance(column, Continuous | HeavyTailed | Positive | UnitInterval) else None


def _column(column: Column, kind: str, u: Any) -> dict[str, Any]:
    """A column in plain values. Its numbers are f(x) = loc + scale u, f the logarithm or nothing; of dates milliseconds since 1970."""
    seen = u[np.isfinite(u)]
    low, high = (float(seen.min()), float(seen.max())) if len(seen) else (-1.0, 1.0)
    stated: dict[str, Any] = {
        "name": str(column.name),
        "kind": kind,
        "size": column.size,
        "categories": [str(value) for value in column.categories],
        "ordered": column.kind == "ordinal",
        "loc": column.loc,
        "scale": column.scale,
        "log": column.log,
        "decimals": _decimals(column),
        "low": low,
        "high": high if high > low else low + 1.0,
        "because": column.because,
    }
    if isinstance(column, Date):
        unit = NANOSECONDS[column.resolution] / 1e6
        stated |= {"loc": column.loc * unit, "scale": column.scale * unit, "date": column.resolution, "unit": unit}
    return stated
