"""What ``vaekit fidelity`` does: the rows that ``vaekit sample`` makes of a table, or another synthetic table, beside the run's own."""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaekit.apps import fidelity as apps
from vaekit.commands import sample
from vaekit.data.core import Split
from vaekit.data.tables import Schema, frame_of
from vaekit.errors import InputError
from vaekit.files import write_json
from vaekit.launch import load
from vaekit.models import LatentModel, NotAtRandom
from vaekit.runs import PathLike, Run

__all__ = ["fidelity"]


def fidelity(
    run: PathLike | Run,
    table: PathLike | None = None,
    *,
    n: int | None = None,
    split: str = "test",
    seed: int = 0,
    trust: bool = False,
) -> apps.Fidelity:
    """`vaekit.apps.fidelity.fidelity` of a synthetic table, a split of the run's data that it was not trained on, and its training rows.

    Every column is looked at, those too that the model is conditioned on. Complete columns that the run's have gaps in are compared with
    gaps: by the run's own model of the mask, m ~ p(m | x), where it has one (``missing`` "self-masking" or "not-at-random"), so that
    shares of missing values are its own too; else as gaps depend on other columns in the training rows (`vaekit.apps.gaps`).

    Args:
        run: of a table.
        table: a .csv, .tsv or .parquet file with the columns of the run's own, whoever made it; by default rows that `commands.sample`
            draws, and then the result is kept in ``fidelity.json``, beside the split and the seed.
        n: how many to draw; by default as many as there are training rows, up to 10,000.
        split: "test" or "valid", to compare with.
        seed: of the rows that are drawn, and of what `vaekit.apps.fidelity.fidelity` draws.
        trust: execute the recipe file that the run folder holds.

    Raises:
        InputError: as `load`; a run of something else than a table; both a table and a number of rows; the training rows as a split; a
            table that does not fit.
    """
    run, recipe = load(run, trust=trust, device="cpu")
    if recipe.known is None or not isinstance(recipe.known.schema, Schema):
        raise InputError(f"{run.path} was trained by {run.config.recipe}, and only a table has columns to compare: give a run of own:table")
    if table is not None and n is not None:
        raise InputError(f"--n {n} says how many rows to draw, and {table} holds those to compare: leave out one")
    if split == "train":
        raise InputError("the training rows are no rows to compare with: a copy of them would be perfect; take --split test or valid")
    schema, data = recipe.known.schema, recipe.data()
    whole = replace(schema, condition=())
    real, train = (whole.encode(_frame(schema, rows))[0] for rows in (data.split(split), data.train))
    if table is not None:
        given = frame_of(Path(table))
        for note in whole.check(given):
            warnings.warn(f"{table}: {note}.", stacklevel=2)
        return _compared(recipe.model, schema, whole.encode(given)[0], real, train, seed)
    with tempfile.TemporaryDirectory() as folder:  # through the file, as whoever gets the table sees it
        path = sample(run, n=min(10_000, len(train)) if n is None else n, seed=seed, out=Path(folder, "rows.parquet"), trust=trust)[1]
        made = frame_of(path)
    found = _compared(recipe.model, schema, whole.encode(made)[0], real, train, seed)
    write_json(run.path / "fidelity.json", {"split": split, "seed": seed} | found.as_dict())
    return found


def _compared(model: LatentModel, schema: Schema, made: Tensor, real: Tensor, train: Tensor, seed: int) -> apps.Fidelity:
    """Of rows of all columns, those that ``model`` is conditioned on too."""
    whole = replace(schema, condition=())
    if not isinstance(model, NotAtRandom):
        return apps.fidelity(whole, made, real, train, seed=seed)
    modelled = [d for d, column in enumerate(whole.modelled) if column.name not in schema.condition]
    given, complete = made[:, modelled], ~made[:, modelled].isnan().any(0)
    told = made.clone()
    told[:, modelled] = given.masked_fill(~_told(model, given, seed) & complete, torch.nan)
    found = apps.fidelity(whole, told, real, train, seed=seed)
    note = "gaps of complete columns are drawn from the run's model of the mask, which assumes that it is right"
    return replace(found, notes=(note, *found.notes))


def _told(model: NotAtRandom, x: Tensor, seed: int) -> Tensor:
    """m ~ p(m | x), bool ``[N, D]``; True in columns whose mask is not modelled."""
    known = ~x.isnan()
    with torch.no_grad():
        p = model.missing(torch.cat([x.nan_to_num(), known.to(x.dtype)], -1), torch.ones_like(known)).exp()
    return torch.rand(p.shape, generator=torch.Generator().manual_seed(seed)) < p


def _frame(schema: Schema, split: Split) -> Any:
    """All of the rows, as the table has them."""
    batch = split.batch(torch.arange(len(split)))
    return schema.decode(batch.x if batch.mask is None else batch.x.masked_fill(~batch.mask, torch.nan), batch.c)
