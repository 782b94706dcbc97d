r"""How probable the rows of new data are under a trained run, which of their values are strange, and alarms of a known rate.

Scores are :math:`\log p(x_{obs})` by importance samples, in nats of the data as they are, with noise that is the same for every row and
every call: a row's score depends on the row alone.

>>> import tempfile
>>> from vaekit import commands, scoring
>>> folder = tempfile.TemporaryDirectory()
>>> run = commands.train("digits", {"epochs": 1, "hidden": 8}, out=f"{folder.name}/run")
>>> scoring.score(run, None, f"{folder.name}/scores.csv", split="test", samples=8).log_px.shape
(300,)
"""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vaekit.apps.conformal import Conformal
from vaekit.apps.weighted import check_explained, explained, log_evidence
from vaekit.conditional import Conditional
from vaekit.data.core import Split
from vaekit.data.tables import Counts, Schema, rows_of, sized
from vaekit.data.tables.needs import pandas
from vaekit.errors import InputError
from vaekit.evaluate.passes import batches, device_of, dtype_of
from vaekit.files import write_bytes
from vaekit.heads import Columns
from vaekit.launch import load
from vaekit.models.core import LatentModel
from vaekit.outputs import TABLES, place, write_frame
from vaekit.recipes.core import Recipe
from vaekit.report import UNTRAINED
from vaekit.runs import PathLike, Run
from vaekit.types import Batch

__all__ = ["Scores", "given", "score", "whole"]

Array = npt.NDArray[np.float64]
AT_ONCE = 1024
"""Rows that are read together."""
EXPLAINED = 4000
"""Columns, at most, that are explained: each takes two more passes over the rows."""


@dataclass(frozen=True, eq=False)
class Scores:
    """What `score` found of N rows.

    Attributes:
        path: the file.
        log_px: log p(x_obs), ``[N]``, nats.
        parts: log p(x_d | x_rest), ``[N, D]``, NaN where nothing was observed; None where it was not asked for.
        p_values: conformal, ``[N]``, by the run's own test rows; None where no alarms were asked for.
        alarms: bool ``[N]``, or None.
        held_out: how many test rows they are by.
    """

    path: Path
    log_px: Array
    parts: Array | None
    p_values: Array | None
    alarms: npt.NDArray[np.bool_] | None
    held_out: int


def given(run: Run, recipe: Recipe, path: Path) -> Split:
    """All rows of other data, after a look that they are like the run's own.

    Raises:
        InputError: the run's data are those of a recipe; data that cannot be read or do not fit.
    """
    if recipe.known is None:
        raise InputError(f"{run.path} was trained by {run.config.recipe} on its own data, and cannot read {path}: choose a split of those")
    rows, notes = rows_of(path, recipe.known.schema)
    for note in notes:
        warnings.warn(f"{path}: {note}.", stacklevel=3)
    return sized(rows) if isinstance(recipe.known.schema, Counts) else rows


def score(
    run: PathLike | Run,
    source: PathLike | None,
    out: PathLike,
    *,
    split: str | None = None,
    samples: int = 128,
    explain: bool = False,
    alpha: float | None = None,
    seed: int = 0,
    device: str = "auto",
    trust: bool = False,
) -> Scores:
    """log p(x) of every row of new data, written beside its number to a table.

    Its columns are ``row``, ``log_px``, with ``alpha`` ``p_value`` and ``alarm``, and with ``explain`` one for each column of the data.

    Args:
        run: a trained run.
        source: data like the run's own: a file or folder; None where a ``split`` is given.
        out: a .csv or .parquet file; a .npy one takes log p(x) alone.
        split: "train", "valid" or "test" of the run's own data.
        samples: K, importance samples of each row; more make the score larger and closer to log p(x).
        explain: log p(x_d | x_rest) of each value too: how strange it is, given the rest of its row.
        alpha: the rate of false alarms. Alarms are conformal (`vaekit.apps.conformal.Conformal`) by the test rows of the run's own data,
            which training has not seen. Rows with other values missing are compared by the density of their standardised values, so that
            no unit matters.
        seed: of the samples.
        device: "auto", "cpu" or "cuda".
        trust: execute the recipe file that the run folder holds.

    Raises:
        InputError: as `load`; both or neither of data and a split; data that do not fit; too few test rows for this alpha; to be explained
            are rows of images, of more than 4000 columns, of several levels of latents, or of a model of the mask.
    """
    target = place(Path(out), *TABLES, ".npy")
    if (source is None) == (split is None):
        raise InputError("say what to score: a file or folder like the run's own data, or a split of them with --split test")
    if target.suffix.lower() == ".npy" and (explain or alpha is not None):
        raise InputError(f"{target} would hold one number a row: write alarms and explanations to a .csv or .parquet file")
    run, recipe = load(run, trust=trust, device=device)
    if not recipe.objective.trains_q:
        raise InputError(f"{run.path}: {UNTRAINED}")
    model, rows = recipe.model, recipe.data().split(split) if split is not None else given(run, recipe, Path(source or ""))
    if alpha is not None and split == "test":
        raise InputError("alarms are by the run's test rows, and cannot judge these: score other data")
    if explain:
        _check_explained(model, rows, samples, seed)
    judge = None if alpha is None else Conformal(-_scored(model, recipe.data().split("test"), samples, seed)[1])
    if judge is not None and alpha is not None:
        judge.alarms([0.0], alpha)  # what can never alarm is refused before the work
    log_px, alike = _scored(model, rows, samples, seed)
    parts = _explained(model, rows, samples, seed) if explain else None
    p_values = None if judge is None else judge.p_values(-alike)
    alarms = None if judge is None or alpha is None else judge.alarms(-alike, alpha)
    found = Scores(target, log_px, parts, p_values, alarms, 0 if judge is None else len(judge.scores))
    _write_scores(found, _names(recipe, 0 if parts is None else parts.shape[1]))
    return found


def _scored(model: LatentModel, rows: Split, samples: int, seed: int) -> tuple[Array, Array]:
    """log p(x_obs) of each row, ``[N]``; and with the volume log |du/dx|, at the column's centre, of the values that are missing in a
    table, with which all rows are compared in u."""
    head, device, dtype = _columns(model), device_of(model), dtype_of(model)
    log_px, alike = [torch.zeros(0)], [torch.zeros(0)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # of data that are drawn anew at each read
        for batch in batches(rows, AT_ONCE, device, dtype=dtype):
            log_px.append(log_evidence(model, batch, samples, seed).double().cpu())
            missing = None if head is None or batch.mask is None else (~batch.mask).double() @ head.offset
            alike.append(log_px[-1] if missing is None else log_px[-1] + missing.cpu())
    return torch.cat(log_px).numpy(), torch.cat(alike).numpy()


def _columns(model: LatentModel) -> Columns | None:
    """The head of a table."""
    heads = [part.head for part in model.modules() if isinstance(part, Conditional) and isinstance(part.head, Columns)]
    return heads[0] if heads else None


def _check_explained(model: LatentModel, rows: Split, samples: int, seed: int) -> None:
    """What cannot be explained is refused before the work."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first = whole(model, rows.head(1))
    check_explained(model, first)
    if first.x.shape[1] > EXPLAINED:
        raise InputError(
            f"{first.x.shape[1]} columns are to be explained, by {2 * samples} samples each, and at most {EXPLAINED} are: leave out "
            "--explain, or train on fewer columns"
        )


def _explained(model: LatentModel, rows: Split, samples: int, seed: int) -> Array:
    batch = whole(model, rows)
    parts = explained(model, batch, samples, seed).parts.double()
    found: Array = (parts if batch.mask is None else parts.masked_fill(~batch.mask, torch.nan)).cpu().numpy()
    return found


def whole(model: LatentModel, rows: Split) -> Batch:
    """All rows as one batch."""
    return next(batches(rows, max(1, len(rows)), device_of(model), dtype=dtype_of(model)))


def _names(recipe: Recipe, count: int) -> list[str]:
    """Of the columns that are explained."""
    if recipe.known is not None and isinstance(recipe.known.schema, Schema):
        return [str(column.name) for column in recipe.known.schema.modelled][:count]
    if recipe.known is not None and isinstance(recipe.known.schema, Counts) and recipe.known.schema.names:
        return list(recipe.known.schema.names)[:count]
    return [f"x{d}" for d in range(count)]


def _write_scores(found: Scores, names: Sequence[str]) -> None:
    if found.path.suffix.lower() == ".npy":
        buffer = io.BytesIO()
        np.save(buffer, found.log_px, allow_pickle=False)
        write_bytes(found.path, buffer.getvalue())
        return
    columns: dict[str, npt.NDArray[Any]] = {"row": np.arange(len(found.log_px)), "log_px": found.log_px}
    columns |= {} if found.p_values is None or found.alarms is None else {"p_value": found.p_values, "alarm": found.alarms}
    columns |= {} if found.parts is None else {f"log_px of {name}": found.parts[:, d] for d, name in enumerate(names)}
    if found.path.suffix.lower() == ".parquet":
        write_frame(pandas("writing .parquet").DataFrame(columns), found.path)
        return
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in zip(*(column.tolist() for column in columns.values()), strict=True):
        writer.writerow(["" if value != value else value for value in row])  # NaN of what was not observed
    write_bytes(found.path, text.getvalue().encode())
