"""From a recipe's name to a trained run folder, and from a run folder back to a trained model."""

from __future__ import annotations

import inspect
import shlex
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from vaekit.data.tables import Known
from vaekit.errors import InputError
from vaekit.recipes.core import Recipe, RecipeFunction, find, outside
from vaekit.recipes.flags import complete, takes_known, typed
from vaekit.runs import Config, PathLike, Run, create, open_run, read_known
from vaekit.torchrun import leave_resume_line, this_rank
from vaekit.train import TensorBoard, Training, fit, load_weights
from vaekit.train.checks import check_divisible
from vaekit.train.fabric import check_processes
from vaekit.train.process import locked

__all__ = ["build", "command_line", "load", "resume_line", "source_of", "train"]

GRACE = 2.0
"""Seconds that other processes leave to the first to clear away what it has begun, when all refuse the same: torch ends all with one."""


def train(
    recipe: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    out: PathLike | None = None,
    resume: bool = False,
    seed: int | None = None,
    device: str | None = None,
    precision: str | None = None,
    compile: bool | None = None,
    replay: int | None = None,
    devices: int | None = None,
    strategy: str | None = None,
    tensorboard: bool = False,
    say: Callable[[str], None] | None = None,
) -> Run:
    """Train a recipe into a new run folder, or continue one.

    Args:
        recipe: a name of `list_all`, or ``path.py:function``.
        arguments: the recipe's own parameters; what is left out keeps its default, or on resuming what the run was started with.
        out: the run folder; by default the next free ``runs/<recipe>-<n>``, or ``runs/<data>-<n>``.
        resume: continue the run in ``out``, bit for bit as if it had never stopped. Under torchrun a run that has not begun is begun, so
            that one command line starts it and starts it again.
        seed: of the initial weights, the order of the data and all noise; 1 by default, as in pytorch/examples, whatever the recipe's
            ``Training`` says: the weights are drawn before there is one.
        device: "auto", "cpu", "cuda" or "cuda:1"; by default the recipe's.
        precision: "32-true", "64-true", "bf16-mixed" or "auto" (see `Training`); by default the recipe's.
        compile: make one program of each step, or not; by default the recipe's, see `Training`.
        replay: steps that start as one; by default the recipe's, see `Training`.
        devices: processes that train together; by default as many as torchrun has started, or the recipe's. It may change on resuming,
            which then is no longer bit for bit.
        strategy: "ddp" or "fsdp"; by default the recipe's.
        tensorboard: write TensorBoard events beside the CSV.
        say: told, before training, what was found in data of your own, and how they will be modelled.

    Raises:
        InputError: unknown names or arguments, a folder in use, settings that differ from the run's, unreadable data.
        NonFiniteError: a term became NaN or infinite; the last good checkpoint is kept.
    """
    function, rank = find(recipe), this_rank()
    resume = resume and (rank is None or out is None or Path(out, "run.json").is_file())
    if resume:
        given = None if precision is None else Training(precision=precision, device=device or "auto").resolved().precision
        run = _continued(recipe, function, arguments or {}, out=out, seed=seed, precision=given, compile=compile, replay=replay)
        device = device or run.config.device or None
    else:
        seed = 1 if seed is None else seed
        config = Config(recipe, complete(function, arguments or {}), seed=seed, precision=precision or "", compile=compile, replay=replay)
        config = replace(config, device=device or "", devices=devices or (1 if rank is None else rank.size), strategy=strategy or "ddp")
        run = Run(Path(), replace(config, command=command_line(recipe, arguments or {}, config, out)))
    plan = build(function, run.config, read_known(run) if resume and takes_known(function) else None)
    if say is not None and plan.known is not None and not resume:
        say(plan.known.describe())
    precision = run.config.precision or plan.training.precision
    settings = replace(
        plan.training,
        seed=run.config.seed,
        device=device or plan.training.device,
        precision=precision,
        compile=plan.training.compile if run.config.compile is None else run.config.compile,
        replay=run.config.replay or plan.training.replay,
        devices=devices or (plan.training.devices if rank is None else rank.size),
        strategy=strategy or plan.training.strategy,
    ).resolved()
    check_processes(settings)
    if settings.devices > 1:
        check_divisible(plan.model, plan.objective)
    run = Run(run.path, replace(run.config, precision=settings.precision, devices=settings.devices, strategy=settings.strategy))
    data = plan.data()
    if rank is not None and rank.number > 0:  # the first process keeps the folder
        place = None if out is None else Path(out)
        try:
            fit(plan.model, data, objective=plan.objective, training=settings, out=place, resume=resume)
        except InputError:
            time.sleep(GRACE)
            raise
        return run
    if not resume:  # only now that all of it is known to exist
        run = create(run.config, out=None if out is None else Path(out), source=source_of(function), known=plan.known)
    leave_resume_line(resume_line(run))
    try:
        loggers = [TensorBoard(run.path / "tensorboard")] if tensorboard else []
        fitted = fit(plan.model, data, objective=plan.objective, training=settings, out=run.path, resume=resume, loggers=loggers)
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"{str(stop) or 'interrupted'}; continue with: {resume_line(run)}") from stop
    except InputError as error:
        if any((run.path / "checkpoints").glob("step-*")):
            raise InputError(f"{error}; then continue with: {resume_line(run)}") from error
        if not resume:  # nothing was trained: leave nothing behind, unless another process has begun to train there
            with suppress(InputError), locked(run.path):
                shutil.rmtree(run.path, ignore_errors=True)
        raise
    best = next((int(row["epoch"]) for row in fitted.history if row["step"] == fitted.best_step), None)
    kept = best if settings.patience is not None and best is not None else len(fitted.history)  # the epoch whose weights these are
    return run.save(state="finished", end={"epochs": len(fitted.history), "planned": settings.epochs, "best": best, "kept": kept})


def load(run: PathLike | Run, *, trust: bool = False, device: str = "auto") -> tuple[Run, Recipe]:
    """A run's recipe with the trained weights, in evaluation mode.

    Args:
        run: a run folder.
        trust: run the copied recipe file of a run whose recipe came from outside the package: that is executing code from the folder.
        device: "auto" takes a GPU where there is one.

    Raises:
        InputError: no or a damaged run, no weights yet, weights of another network, a recipe file without ``trust``.
    """
    if not isinstance(run, Run):
        run = open_run(Path(run))
    name, file = run.config.recipe, outside(run.config.recipe)
    if file is not None:  # by what run.json says, not by what lies in the folder: a run must not point to code elsewhere
        if not trust:
            raise InputError(f"{run.path} was trained by {name}, whose copy {run.copy} would be executed: read it, then add --trust")
        if not run.copy.is_file():
            raise InputError(f"{run.path} has lost {run.copy.name}, the copy of {name} that rebuilds it: put it back")
        name = f"{run.copy}:{file[1]}" if file[1] else str(run.copy)
    function = find(name)
    recipe = build(function, run.config, read_known(run) if takes_known(function) else None)
    if not run.weights.is_file():
        why = f"has lost {run.weights.name}; make it anew" if run.config.state == "finished" else "has no weights yet; finish its training"
        raise InputError(f"{run.path} {why} with: {resume_line(run)}")
    load_weights(recipe.model, run.weights)
    recipe.model.to(Training(device=device).torch_device()).eval()
    return run, recipe


def build(function: RecipeFunction, config: Config, known: Known | None = None) -> Recipe:
    """Call the recipe ``function`` under the run's seed, with the arguments in ``config`` and what the run knows of its data; what torch
    or the recipe refuses becomes one line.

    Raises:
        InputError: the recipe refuses its arguments, or torch does.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        try:
            recipe = function(**config.arguments) if known is None else function(**config.arguments, known=known)
            recipe.training.build(recipe.model.parameters())  # a learning rate below 0 is refused here, before anything is written
        except InputError:
            raise
        except (ValueError, TypeError, RuntimeError) as error:
            raise InputError(f"{config.recipe} cannot be built with these arguments: {error}") from error
    return recipe


def _continued(
    name: str,
    function: RecipeFunction,
    arguments: Mapping[str, Any],
    *,
    out: PathLike | None,
    seed: int | None,
    precision: str | None,
    compile: bool | None,
    replay: int | None,
) -> Run:
    """The run to resume, after a look that it is the one that is meant."""
    if out is None:
        raise InputError("--resume needs to know which run: add --out RUN")
    run = open_run(Path(out))
    if run.config.recipe != name:
        raise InputError(f"{run.path} was started with recipe {run.config.recipe}, not {name}")
    complete(function, {**run.config.arguments, **arguments})  # refuses unknown names
    source = source_of(function)
    if source is not None and not (run.copy.is_file() and source.read_bytes() == run.copy.read_bytes()):
        raise InputError(f"{source} has changed since {run.path} was started with it: put it back as {run.copy} is, or start a new run")
    common = {"seed": seed, "precision": precision, "compile": compile, "replay": replay}
    asked = {**arguments, **{key: value for key, value in common.items() if value is not None}}
    started = {**run.config.arguments, **{key: getattr(run.config, key) for key in common}}
    for key, value in asked.items():
        if value != started.get(key):
            raise InputError(
                f"{run.path} was started with --{key.replace('_', '-')} {started.get(key)}, and a resumed run cannot change it to {value}"
            )
    return run


def source_of(function: RecipeFunction) -> Path | None:
    """The file of a recipe from outside the package."""
    return None if function.__module__.startswith("vaekit.") else Path(inspect.getfile(function))


def command_line(recipe: str, arguments: Mapping[str, Any], config: Config, out: PathLike | None) -> str:
    """The command that makes this run again: ``recipe``, the ``arguments`` that were given, and the settings in ``config``."""
    words = ["vaekit", "train", recipe]
    for name, value in arguments.items():
        words.append(f"--{name.replace('_', '-')}={typed(value)}")
    words += [f"--seed={config.seed}"]
    words += [f"--precision={config.precision}"] if config.precision else []
    words += [] if config.compile is None else ["--compile" if config.compile else "--no-compile"]
    words += [] if config.replay is None else [f"--replay={config.replay}"]
    words += _together(config)
    words += [] if out is None else ["--out", str(out)]
    return shlex.join(words)


def resume_line(run: Run) -> str:
    """The command that continues this run."""
    words = ["vaekit", "train", run.config.recipe, "--out", str(run.path), "--resume"]
    return shlex.join(words + _together(run.config))


def _together(config: Config) -> list[str]:
    """The flags for the device and for several processes."""
    words = ["--device", config.device] if config.device else []
    words += ["--devices", str(config.devices)] if config.devices > 1 else []
    return words + (["--strategy", config.strategy] if config.strategy != "ddp" else [])
