"""The training of a sweep's cells: those that are alike together, the others one after another."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from vaekit.data.core import DataSet
from vaekit.data.tables import Known
from vaekit.errors import InputError, NonFiniteError
from vaekit.launch import build, source_of, train
from vaekit.recipes.core import RecipeFunction
from vaekit.runs import Config, Run, create, open_run
from vaekit.sweeps.groups import Group, noted, write_note
from vaekit.sweeps.plan import Plan, configs
from vaekit.train.alike import difference
from vaekit.train.grouping import alone_because, partners
from vaekit.train.loop import Fitted
from vaekit.train.program import NotTogetherError
from vaekit.train.stack import Cell
from vaekit.train.together import fit_together

__all__ = ["ENDED", "Work"]

ENDED = ("finished", "failed")
"""States of a cell that has come to its end."""


class Work:
    """The training of cells of a sweep.

    Args:
        path: the sweep's folder.
        plan: what was asked.
        function: the recipe.
        note: told what is trained how.
        names: folders of the cells; None for all.
    """

    def __init__(
        self,
        path: Path,
        plan: Plan,
        function: RecipeFunction,
        *,
        note: Callable[[str], None],
        names: Collection[str] | None = None,
    ) -> None:
        self.path, self.plan, self.function, self.note = path, plan, function, note
        self.configs = {name: config for name, config in configs(plan, function, path).items() if names is None or name in names}
        self.sets: list[tuple[Any, DataSet]] = []
        self.known: dict[str, Known | None] = {}  # what was found in the data of a cell

    def run(self) -> None:
        """Train what has not ended."""
        groups, single = self.groups()
        for group in groups:
            self._together(group)
        for name, why in single.items():
            if self.open(name) is None:
                self.note(f"{name} alone: {why}")
        for name in self.configs:  # those of no group, and those that a group could not bring to their end
            run = self.open(name)
            if run is None or run.config.state not in ENDED:
                self._alone(name, run)

    def groups(self) -> tuple[list[Group], dict[str, str]]:
        """Cells that are alike, those that were begun together first; and those that are not trained with others, with the reason.

        Raises:
            InputError: what was noted of a group is damaged.
        """
        begun = [group for name in self.configs if (group := noted(self.path, name)) is not None]
        known = {name for group in begun for name in group.names}
        if not known <= self.configs.keys() or len(known) < sum(len(group.names) for group in begun):
            raise InputError(f"{self.path} has notes of cells trained together that are not its own: restore them, or sweep again")
        alike: list[tuple[Cell, Any, list[str]]] = []
        single: dict[str, str] = {}
        for name in self.configs:
            if name in known:
                continue
            cell, data = self._cell(name)
            why = alone_because(cell)
            if why is not None:
                single[name] = why
                continue
            for first, known_data, names in alike:
                if difference(known_data, data) is None and partners(first, cell) is not None:
                    names.append(name)
                    break
            else:
                alike.append((cell, data, [name]))
        single |= {names[0]: "no other cell is like it" for _, _, names in alike if len(names) == 1}
        return [*begun, *(Group(tuple(names), self.plan.at_once) for _, _, names in alike if len(names) > 1)], single

    def open(self, name: str) -> Run | None:
        """A cell's run, None where it has not begun."""
        return open_run(self.path / name) if (self.path / name / "run.json").is_file() else None

    def _together(self, group: Group) -> None:
        names = group.names
        runs = [self.open(name) for name in names]
        states = [None if run is None else run.config.state for run in runs]
        if not any(state in (None, "training") for state in states):
            return
        cells, functions = zip(*map(self._cell, names), strict=True)

        def done(number: int, end: Fitted | NonFiniteError) -> None:
            run = open_run(self.path / names[number])
            if isinstance(end, NonFiniteError):
                run.save(state="lost", end={"error": str(end)})
                self.note(f"{names[number]}: {end}")
            else:
                best = next((int(row["epoch"]) for row in end.history if row["step"] == end.best_step), None)
                planned = cells[number].training.epochs
                ends = {"epochs": len(end.history), "planned": planned, "best": best, "kept": len(end.history)}
                run.save(state="finished", end=ends)

        def begin(size: int) -> None:
            for name, cell, run in zip(names, cells, runs, strict=True):
                if run is None:
                    self._create(name, replace(self.configs[name], precision=cell.training.precision))
            write_note(self.path, Group(names, size))

        self.note(f"{names[0]} and {len(names) - 1} others have one structure")
        try:
            fit_together(
                cells,
                self._data(functions[0]),
                resume=True,
                finished=[i for i, state in enumerate(states) if state == "finished"],
                lost=[i for i, state in enumerate(states) if state in ("lost", "failed")],
                size=group.at_once,
                begin=begin,
                done=done,
                note=self.note,
            )
        except NotTogetherError as why:
            self.note(f"{names[0]} and {len(names) - 1} others one at a time: {why}")

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
            self.note(f"{name}: {error}")
        except InputError as error:
            if run is not None:
                raise
            # refused before it began, which leaves no folder behind; the other cells may be fine
            self._create(name, config).save(state="failed", end={"error": str(error)})
            self.note(f"{name}: {error}")

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

    def _cell(self, name: str) -> tuple[Cell, Any]:
        """What is trained, and what reads its data."""
        config = self.configs[name]
        recipe = build(self.function, config)
        self.known[name] = recipe.known
        training = recipe.training
        device, precision = self.plan.device or training.device, config.precision or training.precision
        training = replace(training, seed=config.seed, device=device, precision=precision).resolved()
        return Cell(recipe.model, recipe.objective, training, self.path / name), recipe.data

    def _data(self, function: Any) -> DataSet:
        """Read once for all cells that read the same."""
        for known, data in self.sets:
            if difference(known, function) is None:
                return data
        with torch.random.fork_rng(devices=[]):
            self.sets.append((function, function()))
        return self.sets[-1][1]

    def _create(self, name: str, config: Config) -> Run:
        """Begin a cell's folder."""
        self._clear(name)
        return create(config, out=self.path / name, source=source_of(self.function), known=self.known.get(name))

    def _clear(self, name: str) -> None:
        """Remove what a start that was killed has left of a cell: a folder without its run.json.

        Raises:
            InputError: it holds checkpoints, which a start does not leave before the run.json.
        """
        folder = self.path / name
        if (folder / "checkpoints").exists():
            raise InputError(f"{folder} has lost its run.json and holds checkpoints: put it back, or remove the folder to train it again")
        shutil.rmtree(folder, ignore_errors=True)
