"""The commands that give a model away. They import torch only when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, get_args

import typer

from vaekit.errors import InputError, nearest

__all__ = ["export_command", "push_command"]

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", show_default=False)]
Trust = Annotated[bool, typer.Option("--trust", help="Execute the recipe file that the run folder holds.")]


def export_command(
    run: RunFolder,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder.", show_default=False)],
    format: Annotated[str, typer.Option(help="onnx or torch.")] = "onnx",
    parts: Annotated[str, typer.Option(help="Of encoder, decoder and score.")] = "encoder,decoder,score",
    samples: Annotated[int, typer.Option(help="Importance samples of the score.")] = 64,
    trust: Trust = False,
) -> None:
    """Encoder, decoder and score as ONNX or torch.export files."""
    from vaekit import exporting
    from vaekit.apps.export import PARTS, Format, Part

    chosen: list[Part] = []
    for word in parts.split(","):
        match = next((part for part in PARTS if part == word), None)
        if match is None:
            raise InputError(f'--parts: there is no part "{word}": {nearest(word, PARTS)}')
        chosen.append(match)
    kind: Format | None = next((one for one in get_args(Format) if one == format), None)
    if kind is None:
        raise InputError(f'--format "{format}": {nearest(format, get_args(Format))}')
    made = exporting.export(run, out, format=kind, parts=chosen, samples=samples, trust=trust)
    for file in made.files:
        print(f"{file.path}  differs from the model by at most {file.difference:.1e} ({file.relative:.1e} of max(1, |value|))")
    print(f"{made.path / 'vaekit.json'}  inputs, outputs, versions")


def push_command(
    run: RunFolder,
    where: Annotated[str, typer.Argument(metavar="WHERE", help="A new folder, or hf://owner/name.", show_default=False)],
    license: Annotated[str, typer.Option(help="Of the model: mit, apache-2.0, ...")] = "unknown",
    public: Annotated[bool, typer.Option("--public", help="Make a new repository for all to see.")] = False,
) -> None:
    """Weights and a model card, to a folder or a hub."""
    from vaekit import hub

    print(hub.push(run, where, license=license, public=public))
