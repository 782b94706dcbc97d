"""The command line. It imports torch only when a command needs it, so that ``vaekit --help`` answers at once."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from vaekit import __version__, torchrun
from vaekit.cli_compare import compare_command
from vaekit.cli_explore import explore_command
from vaekit.cli_files import bar, compress_command, decompress_command
from vaekit.cli_newdata import impute_command, score_command
from vaekit.cli_sharing import export_command, push_command
from vaekit.cli_tables import fidelity_command
from vaekit.cli_training import MAX_SEED, sweep_command, train_command
from vaekit.errors import InputError, LostRankError, NonFiniteError

__all__ = ["EXITS", "app", "main"]

app = typer.Typer(
    name="vaekit",
    help="Variational autoencoders: from data to a trained model you can look at.",
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
)

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", show_default=False)]
Data = Annotated[Path | None, typer.Option(help="Data like the run's own, instead of a split: a file or folder.", show_default=False)]
Trust = Annotated[bool, typer.Option("--trust", help="Execute the recipe file that the run folder holds.")]
Device = Annotated[str, typer.Option(help='"auto" takes a GPU where there is one.')]


def _version(asked: bool) -> None:
    if asked:
        print(f"vaekit {__version__}")
        raise typer.Exit


@app.callback()
def _root(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False) -> None:
    pass


@app.command("list")
def list_command() -> None:
    """Recipes and data sets, a line each."""
    from vaekit.commands import list_all

    groups = list_all()
    width = max(len(name) for group in groups.values() for name in group)
    for title, group in groups.items():
        print(f"{title}:")
        for name, summary in group.items():
            print(f"  {name:<{width}}  {summary}")


PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
"""Flags that are the recipe's."""

app.command("train", context_settings=PASSED_ON, options_metavar="PATH|RECIPE [--flag value ...] [--out RUN] [--resume]")(train_command)
app.command("sweep", context_settings=PASSED_ON, options_metavar="RECIPE [--flag 1,2,4 ...] [--seed 0..9] [--out SWEEP] [--resume]")(
    sweep_command
)


@app.command("evaluate")
def evaluate_command(
    run: RunFolder,
    samples: Annotated[int | None, typer.Option(help="Importance samples per example; 5000, with --diagnose 5.")] = None,
    diagnose: Annotated[bool, typer.Option("--diagnose", help="What is wrong with the model, instead of its likelihood.")] = False,
    split: Annotated[str | None, typer.Option(help="train, valid or test; test by default.")] = None,
    data: Data = None,
    seed: Annotated[int, typer.Option(help="Of the samples.", min=0, max=MAX_SEED)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
    device: Device = "auto",
    trust: Trust = False,
) -> None:
    """Likelihood and bound with errors, or a diagnosis."""
    import json

    from vaekit import commands

    if diagnose and data is not None:
        raise InputError("--diagnose compares a split with the training rows of its run: leave out --data")
    if diagnose:
        from vaekit.outputs import diagnosis_text

        with bar("diagnosing") as watch:
            found = commands.diagnose(
                run, samples=5 if samples is None else samples, split=split or "test", seed=seed, device=device, trust=trust, watch=watch
            )
        print(json.dumps(found.as_dict(), allow_nan=False) if as_json else diagnosis_text(found, split or "test"))
        return
    samples = 5000 if samples is None else samples
    with bar("evaluating") as watch:
        result = commands.evaluate(run, samples=samples, split=split, data=data, seed=seed, device=device, trust=trust, watch=watch)
    if as_json:
        print(json.dumps(result.as_dict(), allow_nan=False))
        return
    of = (split or "test") if data is None else data.name
    print(f"{result.examples} {of} examples, {result.samples} importance samples each; nats per example")
    print(f"  negative log-likelihood  at most {result.nll:.2f} +- {result.nll_se:.2f}")
    print(f"  evidence lower bound     {result.elbo:.2f} +- {result.elbo_se:.2f}")
    print(f"  reconstruction           {result.log_px:.2f} +- {result.log_px_se:.2f}")
    for n, (rate, se) in enumerate(zip(result.rates, result.rates_se, strict=True)):
        name = "KL(q(z | x) || p(z))" if len(result.rates) == 1 else f"KL of level {n}"
        print(f"  {name:<24} {rate:.2f} +- {se:.2f}")
    print(f"  bits per dimension       {result.bits_per_dim:.4f}")
    print(f"  effective sample size    {result.ess:.1f} of {result.samples}")
    print(f"  active dimensions        {result.active_units} of {result.latent_dim}")


@app.command("sample")
def sample_command(
    run: RunFolder,
    n: Annotated[int, typer.Option("--n", help="How many.")] = 64,
    temperature: Annotated[float, typer.Option(help="Scale of the prior's noise; 1 is the model's own.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the samples.", min=0, max=MAX_SEED)] = 0,
    draw: Annotated[
        bool | None,
        typer.Option("--draw/--mean", help="Draw x ~ p(x | z), or show its mean: by default the mean of images, a draw of rows."),
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="column=value that is given, of a model trained with --condition; may come again.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="A .png or .npy file, of a table .csv, .parquet or .npy; by default in the run.")] = None,
    trust: Trust = False,
) -> None:
    """Decode z ~ p(z): means of p(x | z), or draws."""
    from vaekit import commands

    mean = None if draw is None else not draw
    print(commands.sample(run, n=n, temperature=temperature, seed=seed, mean=mean, where=where or (), out=out, trust=trust)[1])


@app.command("reconstruct")
def reconstruct_command(
    run: RunFolder,
    n: Annotated[int | None, typer.Option("--n", help="How many; 16 by default.")] = None,
    split: Annotated[str, typer.Option(help="train, valid or test.")] = "test",
    seed: Annotated[int | None, typer.Option(help="Take them at random; by default the first ones.", min=0, max=MAX_SEED)] = None,
    out: Annotated[Path | None, typer.Option(help="A .png or .npy file; by default in RUN/figures.")] = None,
    trust: Trust = False,
) -> None:
    """Examples beside their reconstructions."""
    from vaekit import commands

    print(commands.reconstruct(run, n=n, split=split, seed=seed, out=out, trust=trust)[1])


@app.command("interpolate")
def interpolate_command(
    run: RunFolder,
    rows: Annotated[str | None, typer.Option(help="Examples, two a line: 0,5,3,8; by default the first ten.")] = None,
    steps: Annotated[int, typer.Option(help="Frames of a line, its ends included.")] = 9,
    arc: Annotated[bool, typer.Option("--arc", help="Along an arc about the prior's mean instead of a straight line.")] = False,
    split: Annotated[str, typer.Option(help="train, valid or test.")] = "test",
    out: Annotated[Path | None, typer.Option(help="A .png or .npy file; by default in RUN/figures.")] = None,
    trust: Trust = False,
) -> None:
    """Decode the lines between the latents of pairs of examples."""
    from vaekit import commands

    print(commands.interpolate(run, rows=_numbers("--rows", rows), steps=steps, arc=arc, split=split, out=out, trust=trust)[1])


@app.command("traverse")
def traverse_command(
    run: RunFolder,
    dimensions: Annotated[int | None, typer.Option(help="How many, largest KL first; up to 8 by default.")] = None,
    steps: Annotated[int, typer.Option(help="Values of each, from the prior's 2% to its 98% quantile.")] = 9,
    row: Annotated[int | None, typer.Option(help="Through this example's latents; by default the prior's centre.")] = None,
    split: Annotated[str, typer.Option(help="train, valid or test.")] = "test",
    out: Annotated[Path | None, typer.Option(help="A .png or .npy file; by default in RUN/figures.")] = None,
    trust: Trust = False,
) -> None:
    """Move one latent dimension at a time and decode."""
    from vaekit import commands

    print(commands.traverse(run, dimensions=dimensions, steps=steps, row=row, split=split, out=out, trust=trust)[1])


@app.command("embed")
def embed_command(
    run: RunFolder,
    split: Annotated[str | None, typer.Option(help="train, valid or test; test by default.")] = None,
    data: Data = None,
    out: Annotated[Path | None, typer.Option(help="A .npz file; by default RUN/embedding-<name>.npz.")] = None,
    device: Device = "auto",
    trust: Trust = False,
) -> None:
    """Posterior means z, with labels, as .npz."""
    from vaekit import commands

    print(commands.embed(run, split=split, data=data, out=out, device=device, trust=trust)[1])


@app.command("report")
def report_command(run: RunFolder, trust: Trust = False) -> None:
    """Figures, numbers and findings in RUN/report.html."""
    from vaekit import commands

    print(commands.report(run, trust=trust))


app.command("explore")(explore_command)
app.command("compare")(compare_command)
app.command("compress")(compress_command)
app.command("decompress")(decompress_command)
app.command("score")(score_command)
app.command("impute")(impute_command)
app.command("fidelity")(fidelity_command)
app.command("export")(export_command)
app.command("push")(push_command)


def _numbers(flag: str, words: str | None) -> list[int] | None:
    try:
        return None if words is None else [int(word) for word in words.split(",")]
    except ValueError:
        raise InputError(f'{flag} takes whole numbers with commas between them, not "{words}"') from None


UsageError: type[Exception] = typer.BadParameter.__bases__[0]  # typer keeps click to itself; this is click's UsageError


EXITS = {
    0: "done",
    1: "training failed: a loss that was not finite, a process of several that died, or a cell of a sweep",
    2: "what was asked cannot be done: a flag, a file, a recipe, data that do not fit",
    torchrun.LOST: "a process that torchrun started ended because another one had; nothing was wrong with itself",
    130: "interrupted, by Ctrl-C; a run goes on with --resume",
    141: "what read the output went away, as head does",
}
"""What each exit status means."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit status, one of `EXITS`.

    Whatever a person can cause is one line on standard error; a traceback is a fault of vaekit.
    """
    words = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    torchrun.quiet()
    try:
        # Not app(words): typer's own main would swallow Ctrl-C and report success.
        command = typer.main.get_command(app)
        with command.make_context("vaekit", list(words)) as context:
            command.invoke(context)
            sys.stdout.flush()
    except typer.Exit as done:
        return done.exit_code
    except UsageError as error:
        return _fail(_usage(error), 2)
    except (InputError, NonFiniteError) as error:
        return _fail(str(error), 2 if isinstance(error, InputError) else 1)
    except BrokenPipeError:  # vaekit list | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        return _fail(f"{error.filename or 'a file'}: {error.strerror or error}", 2)
    except LostRankError as error:
        return _fail(str(error), torchrun.LOST)
    except (KeyboardInterrupt, typer.Abort) as error:
        return _fail(str(error) or "interrupted", 130)
    return 0


def _fail(message: str, status: int) -> int:
    line = " ".join(message.split())
    if torchrun.last_words(line, status):
        print(f"vaekit: {line}", file=sys.stderr)
    return status


def _usage(error: Exception) -> str:
    """click's message as one line, with the nearest command where one was not found."""
    message = error.format_message()  # type: ignore[attr-defined]
    first, _, rest = message.partition("\n")
    return f"{first} {rest}".strip().rstrip(".")


if __name__ == "__main__":
    sys.exit(main())
