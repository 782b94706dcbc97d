r"""The missing values of a table, filled in by a trained run: :math:`E[x_{mis} | x_{obs}]`, draws and intervals (`vaekit.apps.impute`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from vaekit.apps.impute import impute as impute_batch
from vaekit.data.tables import Schema, fields_of, frame_of, rows_of
from vaekit.data.tables.needs import pandas
from vaekit.errors import InputError
from vaekit.files import write_bytes
from vaekit.launch import load
from vaekit.outputs import TABLES, place, write_frame
from vaekit.report import UNTRAINED
from vaekit.runs import PathLike, Run
from vaekit.scoring import whole

__all__ = ["Filled", "impute"]

Holes = Mapping[Any, npt.NDArray[np.bool_]]
"""Which cells of each column are missing, ``[N]``."""


@dataclass(frozen=True)
class Filled:
    """What `impute` wrote: the table without holes, then one file for each draw, then the intervals; how many cells it filled, and how many
    cells of columns that the model is conditioned on it left missing.

    Attributes:
        paths: the files written.
        rows: of the table.
        cells: filled.
        left: left missing.
    """

    paths: tuple[Path, ...]
    rows: int
    cells: int
    left: int


def impute(
    run: PathLike | Run,
    source: PathLike,
    out: PathLike,
    *,
    draws: int = 0,
    coverage: float | None = None,
    samples: int = 512,
    seed: int = 0,
    device: str = "auto",
    trust: bool = False,
) -> Filled:
    """A table with its missing values filled in; every other cell, and every column that the run does not know, stays as it was.

    So do columns that the model is conditioned on: p(x | z, c) has no distribution of c, and a missing category that is given stays
    missing.

    Numbers are filled with their conditional mean E[x_mis | x_obs], of a positive column (one that is modelled by its logarithm) with
    exp E[log x_mis | x_obs], rounded where the column holds whole numbers; classes with the most probable one.

    Args:
        run: a run that was trained on a table.
        source: a table like it, as .csv, .tsv, .parquet, .npy or .npz.
        out: the .csv or .parquet file to write. A .csv one of a text file has its encoding, separator and line ends, and each field that
            is not filled as it is written there. Draws go beside it: filled.csv, filled-1.csv, filled-2.csv, ...
        draws: M tables for multiple imputation, the missing values of each row drawn jointly from p(x_mis | x_obs). What is computed from
            each of them varies as what is missing leaves open (Rubin, "Multiple Imputation for Nonresponse in Surveys", 1987).
        coverage: probability of intervals, such as 0.9, which go to filled-intervals.csv: row, column, value, lower, upper, and ess, the
            effective number of importance samples behind the row.
        samples: K, importance samples of each row.
        seed, device, trust: as in `vaekit.scoring.score`.

    Raises:
        InputError: as `load`; a run of images or counts; a table that does not fit.
    """
    target = place(Path(out), *TABLES)
    run, recipe = load(run, trust=trust, device=device)
    if not recipe.objective.trains_q:
        raise InputError(f"{run.path}: {UNTRAINED}")
    if recipe.known is None or not isinstance(recipe.known.schema, Schema):
        raise InputError(f"{run.path} was not trained on a table, and missing values are filled in tables alone")
    schema, frame = recipe.known.schema, frame_of(Path(source))
    batch = whole(recipe.model, rows_of(frame, schema)[0])
    found = impute_batch(recipe.model, batch, samples=samples, draws=draws, coverage=coverage, seed=seed)
    c = None if batch.c is None else batch.c.cpu()
    gone = {column.name: frame[column.name].isna().to_numpy() for column in schema.columns if column.missing < 1}
    holes = {name: missing for name, missing in gone.items() if name not in schema.condition}
    made = [schema.decode(x.cpu(), c) for x in (found.mean, *found.draws)]
    fields = fields_of(Path(source)) if target.suffix.lower() == ".csv" else None
    places = [target, *(target.with_name(f"{target.stem}-{m + 1}{target.suffix}") for m in range(draws))]
    for values, where in zip(made, places, strict=True):
        if fields is None:
            write_frame(_filled(frame, values, holes), where)
        else:
            write_bytes(where, fields.filled(values, holes))
    if found.lower is not None and found.upper is not None:
        places.append(target.with_name(f"{target.stem}-intervals{target.suffix}"))
        decoded = [schema.decode(end.cpu(), c) for end in (found.mean, found.lower, found.upper)]
        write_frame(_intervals(schema, decoded, found.ess, holes), places[-1])
    cells, left = (int(sum(gone[name].sum() for name in names)) for names in (holes, gone.keys() - holes.keys()))
    return Filled(tuple(places), len(frame), cells, left)


def _filled(frame: Any, found: Any, holes: Holes) -> Any:
    """The table with its holes filled from one without."""
    pd = pandas()

    result = frame.copy()
    for name, missing in holes.items():
        if not missing.any():
            continue
        made = found[name]
        made.index = frame.index
        if isinstance(made.dtype, pd.CategoricalDtype) or missing.all() or frame[name].dtype == object:
            merged = made.astype(object).where(missing, frame[name].astype(object))
            result[name] = merged if made.dtype == object else merged.astype(made.dtype)
        else:  # numbers and dates in the dtype that they have here
            merged = frame[name].astype(object).mask(missing, made.astype(object))
            try:
                result[name] = merged.astype(frame[name].dtype)
            except (TypeError, ValueError):  # whole numbers here, where training had broken ones
                result[name] = merged.astype(made.dtype)
    return result


def _intervals(schema: Schema, ends: Sequence[Any], ess: Tensor, holes: Holes) -> Any:
    """A row for each cell that was filled, its values as text: they are of all columns. Of a class without an order the ends are empty."""
    pd = pandas()

    mean, lower, upper = ends
    parts = []
    for column in schema.modelled:
        (at,) = np.nonzero(holes[column.name])
        cells = {"value": mean[column.name], "lower": lower[column.name], "upper": upper[column.name]}
        parts.append(
            pd.DataFrame(
                {"row": at, "column": column.name}
                | {key: values.iloc[at].astype("string").to_numpy() for key, values in cells.items()}
                | {"ess": ess.cpu().numpy()[at].round(1)}
            )
        )
    return pd.concat(parts, ignore_index=True).sort_values("row", kind="stable", ignore_index=True)
