"""How a sweep begins, goes on and ends."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from vaekit.files import write_json
from vaekit.launch import build
from vaekit.recipes.core import RecipeFunction, find
from vaekit.runs import PathLike, claim, open_run, versions
from vaekit.sweeps.cluster import connected
from vaekit.sweeps.plan import Plan, check, configs, continued, keep_source, sweep_line
from vaekit.sweeps.results import Sweep, write_results
from vaekit.sweeps.work import Work
from vaekit.train import TextLog, Training
from vaekit.train.process import locked

__all__ = ["sweep"]


def sweep(
    recipe: str,
    arguments: Mapping[str, Sequence[Any]] | None = None,
    *,
    seeds: Sequence[int] | None = None,
    out: PathLike | None = None,
    resume: bool = False,
    device: str | None = None,
    precision: str | None = None,
    at_once: int | None = None,
    ray: str | None = None,
) -> Sweep:
    """Train every combination of the arguments' values with every seed.

    Args:
        recipe: as for `vaekit.commands.train`.
        arguments: values of the recipe's own parameters, a sequence each; what is left out keeps its default.
        seeds: of weights, order and noise; (1,) by default.
        out: the sweep's folder; by default the next free ``sweeps/<recipe>-<n>``.
        resume: continue the sweep in ``out``: what has ended is left alone, what was interrupted goes on to the same end, bit for bit.
        device, precision: as for `vaekit.commands.train`.
        at_once: how many models one program trains at once, where it can; see `vaekit.train.together.fit_together`.
        ray: spread the work over a Ray cluster: "local" begins one on this machine and ends it, "auto" is the one that runs here,
            "HOST:PORT" another. The folder in which this is called and the sweep's must be there, at the same places, on all its
            machines. A sweep may go on with or without it.

    Raises:
        InputError: as `vaekit.commands.train`; no value, more than `MOST` cells, a folder in use, settings that differ from the sweep's;
            no Ray, no cluster, a machine of it that does not see the folder.
        LostRankError: a process of the cluster ended before its time; the others have gone on to their ends.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the message has the line to continue with.
    """
    function = find(recipe)
    with ExitStack() as stack:
        if resume:
            path, plan = continued(recipe, function, arguments, seeds=seeds, out=out, precision=precision, at_once=at_once)
            plan = plan if device is None else replace(plan, device=device)
            cluster = None if ray is None else stack.enter_context(connected(ray, plan.device))
        else:
            given = {name: tuple(values) for name, values in (arguments or {}).items()}
            plan = Plan(recipe, given, tuple(seeds or (1,)), device, precision, at_once)
            _check(plan, function, here=ray is None)
            cluster = None if ray is None else stack.enter_context(connected(ray, device))  # refused before anything is written
            path, plan = _begin(plan, function, out)
        stack.enter_context(locked(path))
        words = ["vaekit", "sweep", plan.recipe, "--out", str(path), "--resume", *([] if ray is None else ["--ray", ray])]
        resume_line, work = shlex.join(words), Work(path, plan, function, note=TextLog(path / "log.txt").note)
        try:
            if cluster is None:
                work.run()
            else:
                cluster.train(work, resume_line=resume_line)
        except KeyboardInterrupt as stop:
            said, _, _ = str(stop).partition("; continue with:")
            raise KeyboardInterrupt(f"{said or 'interrupted'}; continue with: {resume_line}") from stop
    runs = tuple(open_run(path / name) for name, _, _ in plan.cells())
    failed = {run.name: str((run.config.end or {}).get("error", "")) for run in runs if run.config.state == "failed"}
    done = Sweep(path, plan, runs, failed)
    write_results(done)
    return done


def _check(plan: Plan, function: RecipeFunction, *, here: bool) -> None:
    """Refuse what can be refused before anything is written: every cell is built, and the data of the first are read."""
    check(plan, function)
    if here:
        Training(device=plan.device or "auto").torch_device()
    for number, config in enumerate(configs(plan, function, Path()).values()):
        cell = build(function, config)
        if number == 0:
            with torch.random.fork_rng(devices=[]):
                cell.data()


def _begin(plan: Plan, function: RecipeFunction, out: PathLike | None) -> tuple[Path, Plan]:
    """Make the sweep's folder."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    plan = replace(plan, command=sweep_line(plan, out), created=now, versions=versions())
    path = claim(plan.recipe, out=None if out is None else Path(out), root=Path("sweeps"))
    write_json(path / "sweep.json", asdict(plan))
    keep_source(function, path)
    return path, plan
