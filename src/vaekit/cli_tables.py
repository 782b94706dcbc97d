"""The commands that are for tables alone. They import torch only when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vaekit.cli_training import MAX_SEED

__all__ = ["fidelity_command"]


def fidelity_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder of a table.", show_default=False)],
    table: Annotated[
        Path | None, typer.Argument(metavar="[TABLE]", help="A synthetic table; by default rows are drawn.", show_default=False)
    ] = None,
    n: Annotated[int | None, typer.Option("--n", help="How many to draw; as many as training rows.", show_default=False)] = None,
    split: Annotated[str, typer.Option(help="test or valid, to compare with.")] = "test",
    seed: Annotated[int, typer.Option(help="Of all that is drawn.", min=0, max=MAX_SEED)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
    trust: Annotated[bool, typer.Option("--trust", help="Execute the recipe file that the run folder holds.")] = False,
) -> None:
    """A synthetic table beside real rows: like them, no copies?"""
    import json

    from vaekit.synthetic import fidelity

    found = fidelity(run, table, n=n, split=split, seed=seed, trust=trust)
    print(json.dumps(found.as_dict(), allow_nan=False) if as_json else found.describe())
