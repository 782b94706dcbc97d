"""The commands that compress, and the progress bar of all. They import torch only when they run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from vaekit.errors import InputError

__all__ = ["bar", "compress_command", "decompress_command"]

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", show_default=False)]
Trust = Annotated[bool, typer.Option("--trust", help="Execute the recipe file that the run folder holds.")]


def compress_command(
    run: RunFolder,
    paths: Annotated[list[Path], typer.Argument(metavar="[IN] OUT", help="A .npy, .npz or IDX file of rows; the file to write.")],
    split: Annotated[str | None, typer.Option(help="train, valid or test of the run's own data, in place of IN.")] = None,
    key: Annotated[str | None, typer.Option(help="Which array of a .npz file.")] = None,
    size: Annotated[int, typer.Option(help="Rows that the networks see at a time.", min=1)] = 64,
    verify: Annotated[bool, typer.Option("--verify/--no-verify", help="Decode before writing.")] = True,
    trust: Trust = False,
) -> None:
    """Pack discrete data without loss, at the model's bound."""
    from vaekit import packing

    if len(paths) > 2:
        raise InputError(f"vaekit compress takes a file of rows and the file to write, and was given {len(paths)} files")
    source = paths[0] if len(paths) == 2 else None
    with bar("compressing") as watch:
        done = packing.compress(run, source, paths[-1], split=split, key=key, size=size, verify=verify, trust=trust, watch=watch)
    print(f"{done.examples} examples, {done.bytes} bytes: {done.bits_per_value:.4f} bits a value, {done.raw / done.bytes:.1f} times less")
    print(done.path)


def decompress_command(
    run: RunFolder,
    source: Annotated[Path, typer.Argument(metavar="IN", help="A file that vaekit compress wrote.", show_default=False)],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A .npy or .npz file to write.", show_default=False)],
    trust: Trust = False,
) -> None:
    """The very array that was compressed, as .npy or .npz."""
    from vaekit import packing

    with bar("decompressing") as watch:
        print(packing.decompress(run, source, out, trust=trust, watch=watch).path)


@contextmanager
def bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on a terminal, silence elsewhere."""
    from tqdm import tqdm

    with tqdm(desc=title, unit="example", leave=False, disable=not sys.stderr.isatty()) as bar:

        def watch(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield watch
