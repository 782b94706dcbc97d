"""The commands that take a trained run to new data. They import torch only when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vaekit.cli_training import MAX_SEED
from vaekit.errors import InputError

__all__ = ["impute_command", "score_command"]

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", show_default=False)]
Seed = Annotated[int, typer.Option(help="Of the samples.", min=0, max=MAX_SEED)]
Device = Annotated[str, typer.Option(help='"auto" takes a GPU where there is one.')]
Trust = Annotated[bool, typer.Option("--trust", help="Execute the recipe file that the run folder holds.")]


def score_command(
    run: RunFolder,
    paths: Annotated[list[Path], typer.Argument(metavar="[IN] OUT", help="Data like the run's own; a .csv, .parquet or .npy to write.")],
    split: Annotated[str | None, typer.Option(help="train, valid or test of the run's own data, in place of IN.")] = None,
    samples: Annotated[int, typer.Option(help="Importance samples per example.", min=1)] = 128,
    explain: Annotated[bool, typer.Option("--explain", help="How strange each value is too, given the rest of its row.")] = False,
    alpha: Annotated[float | None, typer.Option(help="Raise alarms, false ones at this rate, as 0.01.")] = None,
    seed: Seed = 0,
    device: Device = "auto",
    trust: Trust = False,
) -> None:
    """log p(x) of each row, and which rows are strange."""
    from vaekit import scoring

    if len(paths) > 2:
        raise InputError(f"vaekit score takes data and the file to write, and was given {len(paths)} files")
    source = paths[0] if len(paths) == 2 else None
    found = scoring.score(
        run, source, paths[-1], split=split, samples=samples, explain=explain, alpha=alpha, seed=seed, device=device, trust=trust
    )
    n = len(found.log_px)
    error = f" +- {found.log_px.std(ddof=1) / n**0.5:.2f}" if n > 1 else ""
    print(f"{n} rows, log p(x) {found.log_px.mean():.2f}{error} nats a row" if n else "no rows")
    if found.alarms is not None:
        print(f"{found.alarms.sum()} alarms; of ordinary rows {alpha:.1%} would be, by {found.held_out} rows held out")
    print(found.path)


def impute_command(
    run: RunFolder,
    source: Annotated[Path, typer.Argument(metavar="IN", help="A table with missing values.", show_default=False)],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The .csv or .parquet file to write.", show_default=False)],
    draws: Annotated[int, typer.Option(help="Tables for multiple imputation, beside OUT.", min=0)] = 0,
    coverage: Annotated[float | None, typer.Option(help="Intervals of this probability, as 0.9, beside OUT.")] = None,
    samples: Annotated[int, typer.Option(help="Importance samples per row.", min=1)] = 512,
    seed: Seed = 0,
    device: Device = "auto",
    trust: Trust = False,
) -> None:
    """The missing values of a table, filled in."""
    from vaekit import filling

    done = filling.impute(run, source, out, draws=draws, coverage=coverage, samples=samples, seed=seed, device=device, trust=trust)
    left = f"; {done.left} of columns that the model is conditioned on stay missing" if done.left else ""
    print(f"{done.cells} missing values in {done.rows} rows filled{left}")
    for path in done.paths:
        print(path)
