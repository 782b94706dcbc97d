"""The command that writes a page to look at a latent space with. It imports torch only when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vaekit.cli_files import bar
from vaekit.cli_training import MAX_SEED

__all__ = ["explore_command"]

MAPS = ("pca", "umap")


def explore_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="A .html file; by default RUN/explorer.html.", show_default=False)] = None,
    split: Annotated[str, typer.Option(help="train, valid or test: whose rows are on the map.")] = "train",
    points: Annotated[int, typer.Option(help="Rows on the map, at most.", min=1)] = 60_000,
    samples: Annotated[int, typer.Option(help="Importance samples of each row's likelihood.", min=1)] = 8,
    seed: Annotated[int, typer.Option(help="Of the rows and the samples.", min=0, max=MAX_SEED)] = 0,
    map_: Annotated[str, typer.Option("--map", help="pca, or umap for a map that keeps neighbours together too (the extra umap).")] = "pca",
    open_it: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    trust: Annotated[bool, typer.Option("--trust", help="Execute the recipe file that the run folder holds.")] = False,
) -> None:
    """The latent space as one page, the model inside it."""
    from vaekit.errors import InputError, nearest
    from vaekit.explore import explore

    if map_ not in MAPS:
        raise InputError(f'--map "{map_}": {nearest(map_, MAPS)}')
    with bar("scoring") as watch:
        path = explore(run, out=out, split=split, points=points, samples=samples, seed=seed, umap=map_ == "umap", trust=trust, watch=watch)
    print(f"{path}  {path.stat().st_size / 1e6:.1f} MB, opens from the disk and asks nobody for anything")
    if open_it:
        import webbrowser

        webbrowser.open(path.resolve().as_uri())
