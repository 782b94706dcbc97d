"""The commands that train. As in `vaekit.cli`, torch is imported only once it is needed."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from vaekit import torchrun
from vaekit.errors import InputError, NonFiniteError

if TYPE_CHECKING:
    from vaekit.recipes.core import RecipeFunction

__all__ = ["MAX_SEED", "sweep_command", "train_command"]

MAX_SEED = 2**63 - 1


def train_command(
    context: typer.Context,
    out: Annotated[Path | None, typer.Option(help="The run folder; by default runs/<recipe or data>-<n>.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out, bit for bit.")] = False,
    seed: Annotated[int | None, typer.Option(help="Of weights, order and noise; 1 by default.", min=0, max=MAX_SEED)] = None,
    device: Annotated[str | None, typer.Option(help='"auto" takes a GPU where there is one; by default the recipe\'s.')] = None,
    precision: Annotated[str | None, typer.Option(help="32-true, 64-true, bf16-mixed or auto; by default the recipe's.")] = None,
    compile: Annotated[
        bool | None, typer.Option("--compile/--no-compile", help="One program of each step; by default in long runs.")
    ] = None,
    replay: Annotated[
        int | None, typer.Option(help="Steps that start as one, on a GPU as a CUDA graph; by default each by itself.", min=1)
    ] = None,
    devices: Annotated[int | None, typer.Option(help="Processes that train together, a device each.", min=1)] = None,
    strategy: Annotated[str | None, typer.Option(help="ddp, or fsdp to divide the weights over the devices.")] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write TensorBoard events beside the CSV.")] = False,
) -> None:
    """Train on data of yours, or train a recipe.

    Data are a .csv, .tsv, .parquet, .npy, .npz or .h5ad file, or a folder or .zip of images; what they hold is looked up, and said.
    A recipe is a name of vaekit list or, as path.py:function, one of yours.
    vaekit train PATH --help and vaekit train RECIPE --help show the recipe's own flags.
    """
    asked = _asked(context)
    if asked is None:
        return
    from vaekit.recipes.core import outside
    from vaekit.recipes.flags import parse
    from vaekit.runs import open_run

    recipe, function, flags, fixed = asked
    arguments = _and_fixed(parse(function, flags, also=_own(context)), fixed)
    rank = torchrun.this_rank()
    if devices is not None and devices > 1 and rank is None:
        if resume and out is not None:
            open_run(out)  # each process alone would begin a run that is not there
        options = [word for name, value in context.params.items() for word in _flag(name, value)]
        raise typer.Exit(torchrun.start(["train", *options, *context.args], devices))

    from vaekit import commands

    if rank is not None and rank.number > 0:  # the first process says all of it
        warnings.simplefilter("ignore")
    with _without_subnormals():
        run = commands.train(
            recipe,
            arguments,
            out=out,
            resume=resume,
            seed=seed,
            device=device,
            precision=precision,
            compile=compile,
            replay=replay,
            devices=devices,
            strategy=strategy,
            tensorboard=tensorboard,
            say=lambda found: print(found, flush=True),
        )
    if rank is not None and rank.number > 0:
        return
    end = run.config.end
    if end is not None and end["best"] is not None and end["epochs"] < end["planned"]:
        print(f"stopped after epoch {end['epochs']} of {end['planned']}; the weights are those of the best bound, epoch {end['best']}")
    name = shlex.quote(str(run.path)) + (" --trust" if outside(recipe) else "")
    print(f"{run.path}\nnext: vaekit evaluate {name} && vaekit report {name}")


def sweep_command(
    context: typer.Context,
    out: Annotated[Path | None, typer.Option(help="The sweep's folder; by default sweeps/<recipe>-<n>.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the sweep in --out, bit for bit.")] = False,
    seed: Annotated[str | None, typer.Option(help="One or several, as 1,2,3 or 0..9; 1 by default.")] = None,
    device: Annotated[str | None, typer.Option(help='"auto" takes a GPU where there is one; by default the recipe\'s.')] = None,
    precision: Annotated[str | None, typer.Option(help="32-true, 64-true, bf16-mixed or auto; by default the recipe's.")] = None,
    at_once: Annotated[int | None, typer.Option(help="Models in one batched program; by default what is fastest.", min=1)] = None,
    ray: Annotated[
        str | None, typer.Option(help="Spread over a Ray cluster: its HOST:PORT, auto, or local for one of this machine.")
    ] = None,
) -> None:
    """Train a recipe for several flag values and seeds.

    A run for every combination of the values, and a table and a figure of their ends with errors over seeds.
    Values have commas between them, or of whole numbers first..last; values that have commas themselves have a slash between them.
    vaekit sweep RECIPE --help shows the recipe's own flags.
    """
    asked = _asked(context)
    if asked is None:
        return
    from vaekit import commands
    from vaekit.recipes.core import outside
    from vaekit.recipes.flags import parse_many, values

    recipe, function, flags, fixed = asked
    arguments = _and_fixed(parse_many(function, flags, also=_own(context)), {name: (value,) for name, value in fixed.items()})
    seeds = None if seed is None else values("seed", int, seed)
    if any(not 0 <= one <= MAX_SEED for one in seeds or ()):
        raise InputError(f"--seed {seed}: a seed is a whole number from 0 to {MAX_SEED}")
    with _without_subnormals():
        done = commands.sweep(
            recipe, arguments, seeds=seeds, out=out, resume=resume, device=device, precision=precision, at_once=at_once, ray=ray
        )
    print((done.path / "table.txt").read_text(encoding="utf-8"), end="")
    finished = next((run for run in done.runs if run.config.state == "finished"), None)
    trust = " --trust" if outside(recipe) else ""
    print(f"{done.path}" + ("" if finished is None else f"\nnext: vaekit evaluate {shlex.quote(str(finished.path))}{trust}"))
    if done.failed:
        name, why = next(iter(done.failed.items()))
        more = f" (and {len(done.failed) - 1} more: log.txt)" if len(done.failed) > 1 else ""
        raise NonFiniteError(f"{len(done.failed)} of {len(done.runs)} cells failed; {name}: {why}{more}")


class _Asked(NamedTuple):
    recipe: str
    function: RecipeFunction
    flags: list[str]
    """Those that are not the command's own."""
    fixed: dict[str, str]
    """Arguments that are no flags: where the data are."""


def _and_fixed(arguments: dict[str, Any], fixed: dict[str, Any]) -> dict[str, Any]:
    if twice := arguments.keys() & fixed.keys():
        raise InputError(f"--{min(twice)} is given twice: the data are named without it")
    return {**fixed, **arguments}


def _asked(context: typer.Context) -> _Asked | None:
    """What the words say; None where help was wanted, which is then printed."""
    wants_help = "--help" in context.args
    recipe, *flags = [word for word in context.args if word != "--help"] or ["-"]
    command = f"vaekit {context.info_name}"
    if recipe.startswith("-"):
        if not wants_help:
            raise InputError(f"which recipe? {command} RECIPE; vaekit list shows them")
        print(context.get_help())
        return None
    from vaekit.recipes.core import find
    from vaekit.recipes.flags import describe

    fixed: dict[str, str] = {}
    if _is_data(recipe):
        from vaekit.data.tables import what

        path = Path(recipe)
        if not path.exists() and not wants_help:
            raise InputError(f"there is no file or folder {recipe}")
        recipe, fixed = f"own:{what(path)}", {"path": str(path.resolve())}
    function = find(recipe)
    if wants_help:
        print(f"{command} {recipe}: {describe(function)}\n\n{context.get_help()}")
        return None
    return _Asked(recipe, function, flags, fixed)


DATA = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz", ".parquet", ".pq", ".npy", ".npz", ".h5ad", ".zip")


def _is_data(word: str) -> bool:
    """Whether this is a path of data and no recipe: by its ending or a slash, or because it is there and no recipe is called so."""
    from vaekit.recipes.core import names, outside

    if outside(word) is not None:
        return False
    return word.lower().endswith(DATA) or "/" in word or (Path(word).exists() and word not in names())


def _own(context: typer.Context) -> list[str]:
    """The command's own flags."""
    return [f"--{name.replace('_', '-')}" for name in context.params]


@contextmanager
def _without_subnormals() -> Iterator[None]:
    """Averages that decay towards 0 end in subnormal numbers, which cost Adam a third of its time. Threads inherit this only from a
    process that set it before they began, so it is for the command line, which owns its process, and not for `fit`."""
    import torch

    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _flag(name: str, value: object) -> list[str]:
    """An option of ``train`` as it stands on the command line."""
    if isinstance(value, bool):
        return [f"--{name}"] if value else ["--no-compile"] if name == "compile" else []
    return [] if value is None else [f"--{name}", str(value)]
