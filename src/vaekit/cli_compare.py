"""The command that sets runs side by side. It imports torch only when it runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vaekit.cli_files import bar
from vaekit.cli_training import MAX_SEED
from vaekit.text import measured

if TYPE_CHECKING:
    from vaekit.comparing import Comparison, Term

__all__ = ["compare_command"]


def compare_command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN ...", help="Two or more run folders.", show_default=False)],
    samples: Annotated[int, typer.Option(help="Importance samples per example.", min=1)] = 100,
    split: Annotated[str, typer.Option(help="train, valid or test.")] = "test",
    seed: Annotated[int, typer.Option(help="Of the samples.", min=0, max=MAX_SEED)] = 0,
    out: Annotated[Path | None, typer.Option(help="A .html page with the curves too.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
    device: Annotated[str, typer.Option(help='"auto" takes a GPU where there is one.')] = "auto",
    trust: Annotated[bool, typer.Option("--trust", help="Execute the recipe files that the run folders hold.")] = False,
) -> None:
    """Runs side by side: settings, numbers, paired differences."""
    import json

    from vaekit.comparing import compare

    with bar("evaluating") as one:

        def watch(run: str, done: int, total: int) -> None:
            one(done, total)

        found = compare(runs, split=split, samples=samples, seed=seed, out=out, device=device, trust=trust, watch=watch)
    if as_json:
        print(json.dumps(found.as_dict(), allow_nan=False, default=str))
        return
    print("\n".join(_text(found, split)))
    if out is not None:
        print(out)


def _text(found: Comparison, split: str) -> list[str]:
    """Settings, numbers, differences and notes."""

    def row(terms: Sequence[Term]) -> list[str]:
        return [measured(t.value, t.error) for t in terms]

    settings = [[name, *("-" if value is None else str(value) for value in values)] for name, values in found.settings.items()]
    numbers = [[name, *row(terms)] for name, terms in found.terms.items()]
    less = [[name, "", *row(terms)] for name, terms in found.differences.items()]
    examples, samples = ("/".join(map(str, dict.fromkeys(counts))) for counts in (found.examples, found.samples))
    paired = "of each example, paired" if all(d.paired for ds in found.differences.values() for d in ds) else "of the means, not paired"
    blocks = [
        ("what differs", settings or [["nothing", *("" for _ in found.runs)]]),
        (f"nats per example: {examples} {split} examples, {samples} importance samples each", numbers),
        (f"less {found.runs[0]}, {paired}", less),
    ]
    width = [max(len(cells[n]) for _, rows in blocks for cells in [["", *found.runs], *rows]) for n in range(1 + len(found.runs))]
    lines = [_line(["", *found.runs], width)]
    for title, rows in blocks:
        lines += [title, *(_line(["  " + cells[0], *cells[1:]], [width[0] + 2, *width[1:]]) for cells in rows)]
    return [*lines, *(f"warning: {note}" for note in found.notes)]


def _line(cells: Sequence[str], width: Sequence[int]) -> str:
    return "  ".join(cell.ljust(w) if n == 0 else cell.rjust(w) for n, (cell, w) in enumerate(zip(cells, width, strict=True))).rstrip()
