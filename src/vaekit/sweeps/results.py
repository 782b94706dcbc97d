"""What a sweep has found: the final bound of each setting, mean and standard error over its seeds."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaekit import viz
from vaekit.errors import InputError
from vaekit.files import write_bytes
from vaekit.recipes.flags import typed
from vaekit.runs import Run
from vaekit.sweeps.plan import Plan
from vaekit.train import read_csv
from vaekit.viz.figure import Figure

__all__ = ["Row", "Sweep", "as_csv", "as_text", "figure", "rows", "write_results"]

TERMS = ("bound", "surrogate")
"""What a table shows, where it is logged; the second where there is no first."""


@dataclass(frozen=True)
class Sweep:
    """A sweep that has ended.

    Attributes:
        path: its folder.
        plan: what was asked.
        runs: the cells' run folders, in the order of ``plan.cells()``.
        failed: why a cell was given up, by the name of its folder.
    """

    path: Path
    plan: Plan
    runs: tuple[Run, ...]
    failed: Mapping[str, str]


@dataclass(frozen=True)
class Row:
    """One setting of a sweep.

    Attributes:
        setting: the values of the swept flags.
        n: seeds that came to their end.
        failed: seeds that did not.
        found: of ``train/bound`` and ``valid/bound``, nats (of the surrogate where there is no bound): mean over the seeds and its
            standard error, NaN for fewer than two seeds.
    """

    setting: Mapping[str, Any]
    n: int
    failed: int
    found: Mapping[str, tuple[float, float]]


def rows(sweep: Sweep) -> list[Row]:
    """A row for each setting, in the order of the sweep.

    Raises:
        InputError: a run's metrics are damaged.
    """
    settings: dict[tuple[Any, ...], list[dict[str, float] | None]] = {}
    for (_, arguments, _), run in zip(sweep.plan.cells(), sweep.runs, strict=True):
        key = tuple(arguments[name] for name in sweep.plan.swept)
        settings.setdefault(key, []).append(_end(run))
    found = []
    for key, ends in settings.items():
        there = [end for end in ends if end is not None]
        names = [f"{part}/{term}" for part in ("train", "valid") for term in TERMS]
        values = {name: [end[name] for end in there if name in end] for name in names}
        measures = {name: _mean(v) for name, v in values.items() if v and not (name.endswith("surrogate") and values[_bound(name)])}
        found.append(Row(dict(zip(sweep.plan.swept, key, strict=True)), len(there), len(ends) - len(there), measures))
    return found


def as_csv(table: Sequence[Row]) -> str:
    """``table.csv``: numbers are written so that reading them gives the same bits; an error that does not exist is empty."""
    measures, buffer = _measures(table), io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    columns = [column for name in measures for column in (name, f"{name}_se")]
    writer.writerow([*(table[0].setting if table else ()), "n", "failed", *columns])
    for row in table:
        cells = [value for name in measures for value in row.found.get(name, (math.nan, math.nan))]
        numbers = ["" if math.isnan(value) else repr(value) for value in cells]
        writer.writerow([*map(typed, row.setting.values()), row.n, row.failed, *numbers])
    return buffer.getvalue()


def as_text(table: Sequence[Row]) -> str:
    """The same for people."""
    measures = _measures(table)
    lines = [[*(table[0].setting if table else ()), "seeds", *measures]]
    for row in table:
        shown = [_shown(*row.found.get(name, (math.nan, math.nan))) for name in measures]
        seeds = f"{row.n}" + (f" ({row.failed} failed)" if row.failed else "")
        lines.append([*map(typed, row.setting.values()), seeds, *shown])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def figure(sweep: Sweep, table: Sequence[Row]) -> Figure:
    """Each measure in ``table``, the rows of ``sweep``, against the flag that has the most values, a line for each setting of the
    others."""
    plan, measures = sweep.plan, _measures(table)
    flag = max(plan.swept, key=lambda name: len(plan.arguments[name]), default=None)
    x = [None] if flag is None else list(plan.arguments[flag])
    others = [name for name in plan.swept if name != flag]
    keys = list(dict.fromkeys(tuple(row.setting[name] for name in others) for row in table))
    at = {(tuple(row.setting[name] for name in others), None if flag is None else row.setting[flag]): row for row in table}
    missing = (math.nan, math.nan)
    panels = {}
    for name in measures:
        cells = [[at[key, value].found.get(name, missing) for value in x] for key in keys]
        panels[name] = ([[mean for mean, _ in line] for line in cells], [[error for _, error in line] for line in cells])
    seeds = len(plan.seeds)
    return viz.settings(
        [value if isinstance(value, int | float) and not isinstance(value, bool) else typed(value) for value in x] if flag else ["all"],
        panels,
        flag=flag or "setting",
        lines=[", ".join(f"{name} {typed(value)}" for name, value in zip(others, key, strict=True)) for key in keys],
        title=f"{plan.recipe}: the end of training" + (f", mean of {seeds} seeds and its standard error" if seeds > 1 else ""),
        unit="nats",
    )


def write_results(sweep: Sweep) -> list[Row]:
    """Write ``table.csv``, ``table.txt`` and ``sweep.png`` (where anything came to its end); the rows."""
    table = rows(sweep)
    write_bytes(sweep.path / "table.csv", as_csv(table).encode())
    write_bytes(sweep.path / "table.txt", (as_text(table) + "\n").encode())
    if _measures(table):
        write_bytes(sweep.path / "sweep.png", viz.png(figure(sweep, table)))
    return table


def _end(run: Run) -> dict[str, float] | None:
    """The row of the weights that were kept; None where training did not come to its end."""
    if run.config.state != "finished":
        return None
    history, end = read_csv(run.path / "metrics.csv"), run.config.end or {}
    if not history:
        raise InputError(f"{run.path} has lost the rows of its metrics.csv: train it again")
    return next((row for row in history if row["epoch"] == end.get("kept")), history[-1])


def _mean(values: Sequence[float]) -> tuple[float, float]:
    if not all(map(math.isfinite, values)):  # of which statistics would make a traceback
        return math.nan, math.nan
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return statistics.fmean(values), error


def _bound(name: str) -> str:
    return f"{name.partition('/')[0]}/bound"


def _measures(table: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in table for name in row.found))


def _shown(mean: float, error: float) -> str:
    return "" if math.isnan(mean) else f"{mean:.2f}" + ("" if math.isnan(error) else f" +- {error:.2f}")
