"""What a sweep is asked for, and ``sweep.json``, which keeps it."""

from __future__ import annotations

import itertools
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vaekit.errors import InputError
from vaekit.files import explained, write_bytes
from vaekit.launch import command_line, source_of
from vaekit.recipes.core import RecipeFunction
from vaekit.recipes.flags import complete, typed
from vaekit.runs import Config, PathLike

__all__ = ["FORMAT", "MOST", "Plan", "check", "check_source", "configs", "continued", "keep_source", "open_sweep", "sweep_line"]

FORMAT = 1
MOST = 10_000
"""Cells of a sweep, at most."""


@dataclass(frozen=True)
class Plan:
    """What ``sweep.json`` holds: the values of each flag that was given, the seeds, and what holds for all cells.

    Attributes:
        recipe: by its name.
        arguments: the values of each flag.
        seeds: of the cells.
        device: asked for; None for the recipe's.
        precision: as the device.
        at_once: models in one batched program; None for what is fastest.
        format: of this file.
        command: that makes this sweep again.
        created: when.
        versions: of vaekit, Python and the packages that compute, by their names.
    """

    recipe: str
    arguments: Mapping[str, tuple[Any, ...]]
    seeds: tuple[int, ...]
    device: str | None = None
    precision: str | None = None
    at_once: int | None = None
    format: int = FORMAT
    command: str = ""
    created: str = ""
    versions: Mapping[str, str] | None = None

    @property
    def swept(self) -> tuple[str, ...]:
        """The flags that have several values."""
        return tuple(name for name, values in self.arguments.items() if len(values) > 1)

    def cells(self) -> list[tuple[str, dict[str, Any], int]]:
        """Folder, arguments and seed of each cell, the seed changing fastest."""
        found = []
        for values in itertools.product(*self.arguments.values()):
            arguments = dict(zip(self.arguments, values, strict=True))
            words = [f"{name.replace('_', '-')}-{_word(arguments[name])}" for name in self.swept]
            found += [("_".join([*words, f"seed-{seed}"]), arguments, seed) for seed in self.seeds]
        return found


def open_sweep(path: PathLike) -> tuple[Path, Plan]:
    """A sweep's folder and what was asked.

    Raises:
        InputError: no such folder, no or a damaged ``sweep.json``, another format.
    """
    folder, file = Path(path), Path(path) / "sweep.json"
    if not file.is_file():
        raise InputError(f"{folder} is no sweep: it has no sweep.json; without --resume one is started")
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        if raw["format"] != FORMAT:
            raise InputError(f"{folder} was written in sweep format {raw['format']}, and this vaekit reads {FORMAT}")
        arguments = {name: tuple(tuple(v) if isinstance(v, list) else v for v in values) for name, values in raw["arguments"].items()}
        return folder, Plan(**raw | {"arguments": arguments, "seeds": tuple(raw["seeds"])})
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file} is damaged ({type(error).__name__}: {error}): restore it, or sweep again") from error


def continued(
    recipe: str,
    function: RecipeFunction,
    arguments: Mapping[str, Sequence[Any]] | None,
    *,
    seeds: Sequence[int] | None,
    out: PathLike | None,
    precision: str | None,
    at_once: int | None,
) -> tuple[Path, Plan]:
    """The sweep to resume, after a look that it is the one that is meant: ``recipe`` (``function``), and ``arguments``, ``seeds``,
    ``precision`` and ``at_once`` as they were, where they are given.

    Raises:
        InputError: no folder, or one that was started with something else.
    """
    if out is None:
        raise InputError("--resume needs to know which sweep: add --out SWEEP")
    path, plan = open_sweep(out)
    asked: dict[str, Any] = {name: tuple(values) for name, values in (arguments or {}).items()}
    common = {"seed": None if seeds is None else tuple(seeds), "precision": precision, "at_once": at_once}
    asked |= {name: value for name, value in common.items() if value is not None}
    started = {**plan.arguments, "seed": plan.seeds, "precision": plan.precision, "at_once": plan.at_once}
    if plan.recipe != recipe:
        raise InputError(f"{path} was started with recipe {plan.recipe}, not {recipe}")
    for name, value in asked.items():
        if started.get(name) != value:
            raise InputError(
                f"{path} was started with other values of --{name.replace('_', '-')}: leave the flag out, or start a new sweep"
            )
    begun = any((path / name / "checkpoints").exists() for name, _, _ in plan.cells())
    if not begun:  # it may have been killed before the copy stood
        keep_source(function, path)
    check_source(function, path)
    return path, plan


def keep_source(function: RecipeFunction, path: Path) -> None:
    """Copy the file of the recipe ``function``, if it is from outside the package, into the sweep's folder, unless there is a copy."""
    source, copy = source_of(function), path / "recipe.py"
    if source is not None and not copy.exists():
        with explained(path):
            write_bytes(copy, source.read_bytes())


def check_source(function: RecipeFunction, path: Path) -> None:
    """Whether the recipe ``function`` is still what the sweep was started with.

    Raises:
        InputError: its file is another one, or the sweep has lost its copy.
    """
    source, copy = source_of(function), path / "recipe.py"
    if source is None:
        return
    if not copy.is_file():
        raise InputError(f"{path} has lost {copy.name}, the copy of {source} as it was: put it back, or start a new sweep")
    if source.read_bytes() != copy.read_bytes():
        raise InputError(f"{source} has changed since {path} was started with it: put it back as {copy} is, or start a new sweep")


def check(plan: Plan, function: RecipeFunction) -> None:
    """Whether the recipe ``function`` takes what the plan gives it.

    Raises:
        InputError: a flag without a value or that the recipe does not have; too many cells; two with the same folder.
    """
    for name, values in [*plan.arguments.items(), ("seed", plan.seeds)]:
        if not values:
            raise InputError(f"--{name.replace('_', '-')} has no value: give one or several")
    complete(function, {name: values[0] for name, values in plan.arguments.items()})
    count = math.prod(map(len, plan.arguments.values())) * len(plan.seeds)
    if count > MOST:
        raise InputError(f"these flags make {count} cells; a sweep has at most {MOST}: give fewer values")
    names = [name for name, _, _ in plan.cells()]
    if len(set(names)) < len(names):
        raise InputError("two cells would have the same folder: give values that differ in more than signs")


def configs(plan: Plan, function: RecipeFunction, path: Path) -> dict[str, Config]:
    """What ``run.json`` of each cell of ``plan``, for the recipe ``function``, will hold, by its folder."""
    found = {}
    for name, arguments, seed in plan.cells():
        config = Config(plan.recipe, complete(function, arguments), seed=seed, precision=plan.precision or "")
        found[name] = replace(config, command=command_line(plan.recipe, arguments, config, path / name))
    return found


def _word(value: object) -> str:
    """A value as part of a folder's name."""
    text = f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else typed(value)
    return "".join(c if c.isalnum() or c in ".+-," else "-" for c in text)


def sweep_line(plan: Plan, out: PathLike | None) -> str:
    """The command that makes the sweep of ``plan`` again."""
    words = ["vaekit", "sweep", plan.recipe]
    for name, values in plan.arguments.items():
        between = "/" if any(isinstance(value, tuple) for value in values) else ","
        words.append(f"--{name.replace('_', '-')}={between.join(map(typed, values))}")
    words.append(f"--seed={','.join(map(str, plan.seeds))}")
    words += [] if plan.device is None else [f"--device={plan.device}"]
    words += [] if plan.precision is None else [f"--precision={plan.precision}"]
    words += [] if plan.at_once is None else [f"--at-once={plan.at_once}"]
    words += [] if out is None else ["--out", str(out)]
    return shlex.join(words)
