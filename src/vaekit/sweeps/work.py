"""The training of a sweep: cells that are alike together, the others one after another."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from vaekit.data.core import DataSet
from vaekit.errors import InputError, NonFiniteError
from vaekit.files import explained, write_bytes, write_json
from vaekit.launch import build, source_of, train
from vaekit.recipes.core import Recipe, RecipeFunction, find
from vaekit.runs import Config, PathLike, Run, claim, create, open_run, versions
from vaekit.sweeps.plan import Plan, check, configs, continued, sweep_line
from vaekit.sweeps.results import Sweep, write_results
from vaekit.train import TextLog, Training
from vaekit.train.alike import difference
from vaekit.train.grouping import alone_because, partners
from vaekit.train.loop import Fitted
from vaekit.train.process import locked
from vaekit.train.program import NotTogetherError
from vaekit.train.stack import Cell
from vaekit.train.together import fit_together

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
    size: int | None = None,
) -> Sweep:
    """Train every combination of the arguments' values with every seed.

    Args:
        recipe: as for `vaekit.commands.train`.
        arguments: values of the recipe's own parameters, a sequence each; what is left out keeps its default.
        seeds: of weights, order and noise; (1,) by default.
        out: the sweep's folder; by default the next free ``sweeps/<recipe>-<n>``.
        resume: continue the sweep in ``out``: what has ended is left alone, what was interrupted goes on to the same end, bit for bit.
        device, precision: as for `vaekit.commands.train`.
        size: how many models at once, where they can be trained as one; see `vaekit.train.together.fit_together`.

    Raises:
        InputError: as `vaekit.commands.train`; no value, more than `MOST` cells, a folder in use, settings that differ from the sweep's.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the message has the line to continue with.
    """
    function = find(recipe)
    if resume:
        path, plan = continued(recipe, function, arguments, seeds=seeds, out=out, precision=precision)
        plan = plan if device is None else replace(plan, device=device)
    else:
        plan = Plan(recipe, {name: tuple(values) for name, values in (arguments or {}).items()}, tuple(seeds or (1,)), device, precision)
        check(plan, function)
        Training(device=device or "auto").torch_device()
        for number, config in enumerate(configs(plan, function, Path()).values()):  # refuses before anything is written
            cell = build(function, config)
            if number == 0:
                with torch.random.fork_rng(devices=[]):
                    cell.data()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        plan = replace(plan, command=sweep_line(plan, out), created=now, versions=versions())
        path = claim(plan.recipe, out=None if out is None else Path(out), root=Path("sweeps"))
        write_json(path / "sweep.json", asdict(plan))
        source = source_of(function)
        if source is not None:
            with explained(path):
                write_bytes(path / "recipe.py", source.read_bytes())
    with locked(path):
        work = Work(path, plan, function, size)
        try:
            work.run()
        except KeyboardInterrupt as stop:
            words, _, _ = str(stop).partition("; continue with:")
            line = shlex.join(["vaekit", "sweep", plan.recipe, "--out", str(path), "--resume"])
            raise KeyboardInterrupt(f"{words or 'interrupted'}; continue with: {line}") from stop
        runs = tuple(open_run(path / name) for name, _, _ in plan.cells())
        failed = {run.name: str((run.config.end or {}).get("error", "")) for run in runs if run.config.state == "failed"}
        done = Sweep(path, plan, runs, failed)
        write_results(done)
    return done


class Work:
    """The training of a sweep's cells."""

    def __init__(self, path: Path, plan: Plan, function: RecipeFunction, size: int | None) -> None:
        self.path, self.plan, self.function, self.size = path, plan, function, size
        self.log = TextLog(path / "log.txt")
        self.configs = configs(plan, function, path)
        self.sets: list[tuple[Any, DataSet]] = []

    def run(self) -> None:
        """Train what has not ended."""
        groups, single = self._groups()
        for group, data in groups:
            self._together(group, data)
        for name, why in single.items():
            if self._open(name) is None:
                self.log.note(f"{name} alone: {why}")
        for name in self.configs:  # those of no group, and those that a group could not bring to their end
            run = self._open(name)
            if run is None or run.config.state not in ("finished", "failed"):
                self._alone(name, run)

    def _groups(self) -> tuple[list[tuple[dict[str, Cell], DataSet]], dict[str, str]]:
        """Cells that are alike, with their data; and those that are not trained with others, with the reason."""
        groups: list[tuple[dict[str, Cell], Any]] = []
        single: dict[str, str] = {}
        for name, config in self.configs.items():
            recipe = build(self.function, config)
            cell = Cell(recipe.model, recipe.objective, self._training(recipe, config), self.path / name)
            why = alone_because(cell)
            if why is not None:
                single[name] = why
                continue
            for group, data in groups:
                if difference(data, recipe.data) is None and partners(next(iter(group.values())), cell) is not None:
                    group[name] = cell
                    break
            else:
                groups.append(({name: cell}, recipe.data))
        single |= {name: "no other cell is like it" for group, _ in groups if len(group) == 1 for name in group}
        return [(group, self._data(data)) for group, data in groups if len(group) > 1], single

    def _together(self, group: dict[str, Cell], data: DataSet) -> None:
        names = list(group)
        runs = [self._open(name) for name in names]
        states = [None if run is None else run.config.state for run in runs]
        if not any(state in (None, "training") for state in states):
            return

        def done(number: int, end: Fitted | NonFiniteError) -> None:
            run = open_run(self.path / names[number])
            if isinstance(end, NonFiniteError):
                run.save(state="lost", end={"error": str(end)})
                self.log.note(f"{names[number]}: {end}")
            else:
                best = next((int(row["epoch"]) for row in end.history if row["step"] == end.best_step), None)
                ends = {"epochs": len(end.history), "planned": group[names[number]].training.epochs, "best": best, "kept": len(end.history)}
                run.save(state="finished", end=ends)

        def begin() -> None:
            for name, run in zip(names, runs, strict=True):
                if run is None:
                    self._clear(name)
                    config = replace(self.configs[name], precision=group[name].training.precision)
                    create(config, out=self.path / name, source=source_of(self.function))

        self.log.note(f"{names[0]} and {len(names) - 1} others have one structure")
        try:
            fit_together(
                list(group.values()),
                data,
                resume=True,
                finished=[i for i, state in enumerate(states) if state == "finished"],
                lost=[i for i, state in enumerate(states) if state in ("lost", "failed")],
                size=self.size,
                begin=begin,
                done=done,
                note=self.log.note,
            )
        except NotTogetherError as why:
            self.log.note(f"{names[0]} and {len(names) - 1} others one at a time: {why}")

    def _alone(self, name: str, run: Run | None) -> None:
        """`vaekit.commands.train`; a cell that a group has lost goes on from its last checkpoint, to its end or to what is wrong."""
        config = self.configs[name]
        if run is None:
            self._clear(name)
        try:
            with torch.random.fork_rng(devices=[]):  # data drawn from the global generator are the same for every cell
                self._train(name, config, run)
        except NonFiniteError as error:
            open_run(self.path / name).save(state="failed", end={"error": str(error)})
            self.log.note(f"{name}: {error}")
        except InputError as error:
            if run is not None:
                raise
            # refused before it began, which leaves no folder behind; the other cells may be fine
            create(config, out=self.path / name, source=source_of(self.function)).save(state="failed", end={"error": str(error)})
            self.log.note(f"{name}: {error}")

    def _train(self, name: str, config: Config, run: Run | None) -> None:
        train(
            self.plan.recipe,
            dict(config.arguments),
            out=self.path / name,
            resume=run is not None,
            seed=config.seed,
            device=self.plan.device,
            precision=self.plan.precision if run is None else None,  # a run knows what "auto" has meant for it
        )

    def _training(self, recipe: Recipe, config: Config) -> Training:
        training = recipe.training
        precision = config.precision or training.precision
        return replace(training, seed=config.seed, device=self.plan.device or training.device, precision=precision).resolved()

    def _data(self, function: Any) -> DataSet:
        """Read once for all cells that read the same."""
        for known, data in self.sets:
            if difference(known, function) is None:
                return data
        with torch.random.fork_rng(devices=[]):
            self.sets.append((function, function()))
        return self.sets[-1][1]

    def _clear(self, name: str) -> None:
        """Remove what a start that was killed has left of a cell: a folder without its run.json. One that holds checkpoints stays."""
        if not (self.path / name / "checkpoints").exists():
            shutil.rmtree(self.path / name, ignore_errors=True)

    def _open(self, name: str) -> Run | None:
        return open_run(self.path / name) if (self.path / name / "run.json").is_file() else None
