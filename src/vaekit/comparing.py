r"""Several runs side by side: the settings that differ, every number with its error, and differences with theirs.

.. math:: \bar d = \frac1N \sum_i d_i, \qquad \mathrm{se}(\bar d) = \sqrt{\frac{\sum_i (d_i - \bar d)^2}{N (N - 1)}}, \qquad
          d_i = f_b(x_i) - f_a(x_i)

Of two runs that are evaluated on the same examples the difference is paired: what makes an example hard is hard for both and falls out, so
that its error is most often far below those of the two numbers. Of runs on different data it is the difference of the means, with
sqrt(se_a^2 + se_b^2).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaekit import viz
from vaekit.data.core import Split
from vaekit.data.tables import Schema
from vaekit.errors import InputError
from vaekit.evaluate import Finding, Measure, measure
from vaekit.evaluate.likelihood import each
from vaekit.evaluate.passes import batches
from vaekit.files import plain, write_bytes
from vaekit.launch import load
from vaekit.outputs import place
from vaekit.recipes.core import Recipe
from vaekit.report import UNTRAINED, logged
from vaekit.runs import PathLike, Run
from vaekit.viz import Findings, Number, Picture, Section, Table
from vaekit.viz.html import Cell

__all__ = ["Comparison", "Difference", "Term", "compare"]


@dataclass(frozen=True)
class Term:
    """A mean over examples and its standard error, nats.

    Attributes:
        value: the mean.
        error: its standard error.
    """

    value: float
    error: float


@dataclass(frozen=True)
class Difference(Term):
    """That of a run less that of the first run; ``paired`` where both are of the same examples."""

    paired: bool


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    Attributes:
        runs: the runs' names, distinct; all else is in their order.
        settings: what differs between them, setting -> values; None where a run has no such setting.
        examples, samples: N of each, K of each (1 where q(z | x) is a point).
        terms: "log p(x), at least", "evidence lower bound", "reconstruction", "KL" -> a mean for each run.
        differences: the same, less the first run's, of all but the first.
        notes: what keeps the numbers from being compared, a sentence each.
    """

    runs: tuple[str, ...]
    settings: Mapping[str, tuple[Any, ...]]
    examples: tuple[int, ...]
    samples: tuple[int, ...]
    terms: Mapping[str, tuple[Term, ...]]
    differences: Mapping[str, tuple[Difference, ...]]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: plain values, None for an error that one example alone cannot have."""
        found: dict[str, Any] = plain(asdict(self))
        return found


NAMES = ("log p(x), at least", "evidence lower bound", "reconstruction E log p(x | z)", "KL(q(z | x) || p(z))")


def compare(
    runs: Sequence[PathLike | Run],
    *,
    split: str = "test",
    samples: int = 100,
    seed: int = 0,
    out: PathLike | None = None,
    device: str = "auto",
    trust: bool = False,
    watch: Callable[[str, int, int], None] | None = None,
) -> Comparison:
    """Evaluate runs alike, on a split of each one's data, and set them side by side.

    Args:
        runs: two or more.
        split: "train", "valid" or "test".
        samples: K, importance samples of each example.
        seed: of the samples.
        out: a .html page with the tables and the curves of training.
        device: "auto", "cpu" or "cuda".
        trust: execute the recipe files that the run folders hold.
        watch: told (run, done, total) examples.

    Raises:
        InputError: as `load` and `vaekit.evaluate.evaluate`; fewer than two runs, or one of them twice; another kind of page.
    """
    if len(runs) < 2:
        raise InputError(f"{len(runs)} run given: compare two or more")
    target = None if out is None else place(Path(out), ".html")
    found: list[Run] = []
    values: list[Tensor] = []
    counts: list[int] = []
    examples: list[_Examples] = []
    measures: list[Measure | None] = []
    contexts: list[bool] = []
    notes: list[str] = []
    for where in runs:
        run, recipe = load(where, trust=trust, device=device)
        rows = recipe.data().split(split)
        name = str(run.path)
        if any(run.path.resolve() == other.path.resolve() for other in found):
            raise InputError(f"{name} is given twice: compare different runs")
        if not recipe.objective.trains_q:
            notes.append(f"{name}: {UNTRAINED}.")
        own = None if watch is None else (lambda done, total, name=name: watch(name, done, total))
        per_example, k = each(recipe.model, rows, samples=samples, seed=seed, watch=own)
        found.append(run)
        counts.append(k)
        values.append(torch.stack([per_example[:, 1], per_example[:, 0], per_example[:, 3], per_example[:, 4:].sum(1)]))
        examples.append(_Examples(_digest(rows), _table(recipe, rows)))
        contexts.append(rows.c is not None)
        measures.append(measure(recipe.model, rows.head(min(len(rows), 500))))
    same = [own.like(examples[0]) for own in examples]
    notes += _incomparable([str(run.path) for run in found], measures, same, contexts)
    result = Comparison(
        runs=_short(found),
        settings=_settings(found),
        examples=tuple(value.shape[1] for value in values),
        samples=tuple(counts),
        terms={name: tuple(Term(*_mean(value[n])) for value in values) for n, name in enumerate(NAMES)},
        differences={
            name: tuple(_difference(values[0][n], value[n], like) for value, like in zip(values[1:], same[1:], strict=True))
            for n, name in enumerate(NAMES)
        },
        notes=tuple(notes),
    )
    if target is not None:
        write_bytes(target, _page(found, result, split).encode())
    return result


def _mean(x: Tensor) -> tuple[float, float]:
    return float(x.mean()), float(x.std() / math.sqrt(len(x))) if len(x) > 1 else math.nan


def _difference(a: Tensor, b: Tensor, same: bool) -> Difference:
    if same:
        return Difference(*_mean(b - a), paired=True)
    (mean_a, se_a), (mean_b, se_b) = _mean(a), _mean(b)
    return Difference(mean_b - mean_a, math.hypot(se_a, se_b), paired=False)


@dataclass(frozen=True, eq=False)
class _Examples:
    """What tells whether two runs were scored on the same ones: as the model sees them, or of a table the columns as they were."""

    digest: str
    table: Mapping[Any, Any] | None

    def like(self, other: _Examples) -> bool:
        if self.digest == other.digest:
            return True
        if self.table is None or other.table is None or set(self.table) != set(other.table):
            return False
        return all(_alike(values, other.table[name]) for name, values in self.table.items())


def _digest(rows: Split) -> str:
    """Of data that are drawn anew at each read, that of one draw."""
    found = hashlib.sha256()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for batch in batches(rows, 1000, torch.device("cpu")):
            for part in (batch.x, batch.mask):
                found.update(b"-" if part is None else str(part.shape[1:]).encode() + part.contiguous().numpy().tobytes())
    return found.hexdigest()


def _table(recipe: Recipe, rows: Split) -> dict[Any, Any] | None:
    """The modelled columns in their own units, whatever kind each run takes them for."""
    if recipe.known is None or not isinstance(recipe.known.schema, Schema):
        return None
    batch = rows.batch(torch.arange(len(rows)))
    x = batch.x if batch.mask is None else batch.x.masked_fill(~batch.mask, torch.nan)
    return {column.name: column.decode(x[:, d].numpy()) for d, column in enumerate(recipe.known.schema.modelled)}


def _alike(a: Any, b: Any) -> bool:
    """Whether two columns are the same but for the rounding of their encodings."""
    if len(a) != len(b) or bool((a.isna() != b.isna()).any()):
        return False
    a, b = a.dropna(), b.dropna()
    if all(values.dtype.kind in "iuf" for values in (a, b)):
        return bool(np.allclose(a.astype(float), b.astype(float), rtol=1e-4, atol=1e-6 * float(a.astype(float).abs().max() or 1)))
    return bool((a.astype(str).to_numpy() == b.astype(str).to_numpy()).all())


def _incomparable(names: Sequence[str], measures: Sequence[Measure | None], same: Sequence[bool], contexts: Sequence[bool]) -> list[str]:
    notes = []
    if len(set(measures)) > 1:
        kinds = "; ".join(f"{name}: {'unknown' if kind is None else kind.value}" for name, kind in zip(names, measures, strict=True))
        notes.append(f"log p(x | z) is not the same kind of number in all runs, so that their nats do not compare ({kinds}).")
    if len(set(contexts)) > 1:
        told = ", ".join(name for name, given in zip(names, contexts, strict=True) if given)
        notes.append(f"Only some runs are given a context c ({told}): log p(x | c) is larger than log p(x) by what c tells of x.")
    if not all(same):
        notes.append("The runs' examples are not the same ones: differences between such runs are unpaired, and of different data.")
    return notes


def _short(runs: Sequence[Run]) -> tuple[str, ...]:
    """Folder names, or paths where two runs share one."""
    names = [run.name for run in runs]
    return tuple(names) if len(set(names)) == len(names) else tuple(str(run.path) for run in runs)


def _settings(runs: Sequence[Run]) -> dict[str, tuple[Any, ...]]:
    """Recipe, arguments, seed and precision where they differ, and the versions."""
    rows: list[dict[str, Any]] = []
    for run in runs:
        c = run.config
        own: dict[str, Any] = {"recipe": c.recipe} | dict(c.arguments) | {"seed": c.seed, "precision": c.precision}
        own |= {"epochs done": (c.end or {}).get("epochs"), "best epoch": (c.end or {}).get("best"), "state": c.state}
        rows.append(own | {f"version of {name}": version for name, version in (c.versions or {}).items()})
    names = dict.fromkeys(name for row in rows for name in row)
    found = {name: tuple(row.get(name) for row in rows) for name in names}
    return {name: values for name, values in found.items() if any(value != values[0] for value in values)}


def _page(runs: Sequence[Run], found: Comparison, split: str) -> str:
    alike = len(set(found.examples)) == 1 and len(set(found.samples)) == 1
    of = f"{found.examples[0]} {split} examples, {found.samples[0]} importance samples each" if alike else f"each of its own {split} data"
    numbers: list[list[Cell]] = [[name, *(Number(t.value, t.error, "nats") for t in terms)] for name, terms in found.terms.items()]
    less: list[list[Cell]] = [[name, *(Number(d.value, d.error, "nats") for d in ds)] for name, ds in found.differences.items()]
    paired = all(d.paired for ds in found.differences.values() for d in ds)
    settings = [[name, *("" if v is None else str(v) for v in values)] for name, values in found.settings.items()]
    drawn = {name: columns for name, run in zip(found.runs, runs, strict=True) if (columns := logged(run))}
    pictures: list[Picture | str] = []
    if any(term in columns for columns in drawn.values() for term in ("train/bound", "valid/bound")):
        alt = "A line for each run over the steps of training."
        pictures.append(Picture(viz.beside(drawn), "Bounds while training", alt))
    sections = [
        Section("Numbers", f"Nats per example, {of}. ± is the standard error over examples.", [Table(["quantity", *found.runs], numbers)]),
        Section(
            f"Less {found.runs[0]}",
            "Paired: of each example, then averaged." if paired else "Not all of the same examples: those differences are of the means.",
            [Table(["quantity", *found.runs[1:]], less)],
        ),
        Section("What differs", "", [Table(["setting", *found.runs], settings)] if settings else ["Nothing that run.json holds."]),
        Section("Pictures", "", pictures or ["No run has logged a bound."]),
    ]
    if found.notes:
        sections.insert(0, Section("What stands out", items=[Findings([Finding("warning", note) for note in found.notes])]))
    return viz.page(" · ".join(found.runs), sections=sections, command="vaekit compare")
