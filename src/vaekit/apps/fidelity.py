r"""A synthetic table beside real rows that its model was not trained on: is it like them, and is it no copy of the training rows?

Four looks, each beside what real rows show: the distance of every column (`vaekit.apps.associations`), the association of every two, a
classifier that is to tell synthetic rows from real ones, and the distance to the closest training row (`vaekit.apps.closest`). Columns
alone and pairs are what SDMetrics calls column shapes (its KSComplement and TVComplement are 1 less the distances here) and column pair
trends; the classifier sees all columns together (Lopez-Paz and Oquab, "Revisiting classifier two-sample tests", ICLR 2017).

    schema = tables.Schema.infer(everything)
    rows = [schema.encode(frame)[0] for frame in (synthetic, held_out, train)]
    print(fidelity(schema, *rows).describe())

No number of these is a promise of privacy: rows may be far from every training row and still tell of one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedKFold
from torch import Tensor

from vaekit.apps.associations import association, distance, measure
from vaekit.apps.closest import CLOSE, Closeness, closeness
from vaekit.apps.columns import Array
from vaekit.apps.gaps import coded, with_gaps
from vaekit.data.tables import Column, Schema
from vaekit.errors import InputError
from vaekit.files import plain

__all__ = ["ColumnDistance", "Fidelity", "PairDifference", "auroc", "fidelity", "told_apart"]

LEAST = 20
MOST = 2000
"""Synthetic and held-out rows, at most, that the classifier looks at, and that the closest of all training rows is looked for."""
PAIRS = 1000
FOLDS = 5
LEAF = 20
"""Rows in a leaf of the classifier's trees, at least; a tenth of the rows of each table where these are fewer than 200."""


@dataclass(frozen=True)
class ColumnDistance:
    """A column of the synthetic table beside the held-out rows.

    Attributes:
        name: of the column.
        kind: of the column, as its schema says.
        distance: from 0, alike, to 1; NaN where one of them has no value.
        usual: the same distance between as many training rows, or all, and the held-out ones.
        missing, missing_real: shares of the cells.
    """

    name: str
    kind: str
    distance: float
    usual: float
    missing: float
    missing_real: float


@dataclass(frozen=True)
class PairDifference:
    """The association of two columns in the synthetic, the held-out and as many training rows, or all; NaN where one is constant there.

    Attributes:
        a: name of one column.
        b: name of the other.
        measure: which association, see `vaekit.apps.associations.measure`.
        synthetic: in the synthetic rows.
        real: in the held-out rows.
        train: in the training rows.
    """

    a: str
    b: str
    measure: str
    synthetic: float
    real: float
    train: float

    @property
    def difference(self) -> float:
        """How far the synthetic rows are from the held-out ones."""
        return abs(self.synthetic - self.real)

    @property
    def usual(self) -> float:
        """How far training rows are from the held-out ones: what is to be expected of as many rows."""
        return abs(self.train - self.real)


@dataclass(frozen=True)
class Fidelity:
    """What `fidelity` found.

    Attributes:
        rows, held_out, train: how many rows there are of each.
        columns, pairs: one of each column, and of every two of them.
        auroc, auroc_se: of the classifier, over cross-validation folds; 0.5 where it cannot tell synthetic rows from held-out ones, which
            is what rows of the same process have, 1 where it always can.
        closeness: to the training rows.
        notes: what to mind with these very numbers.
    """

    rows: int
    held_out: int
    train: int
    columns: tuple[ColumnDistance, ...]
    pairs: tuple[PairDifference, ...]
    auroc: float
    auroc_se: float
    closeness: Closeness
    notes: tuple[str, ...]

    @property
    def distance(self) -> float:
        """The mean over columns."""
        return _mean([column.distance for column in self.columns])

    @property
    def difference(self) -> float:
        """The mean difference of the associations over pairs; NaN of a table of one column."""
        return _mean([pair.difference for pair in self.pairs])

    def as_dict(self) -> dict[str, Any]:
        """For JSON: plain values; None for what could not be estimated."""
        found: dict[str, Any] = plain(asdict(self))
        return found

    def describe(self, pairs: int = 5) -> str:
        """A line a column, the pairs that differ most, and a sentence on each of the others."""
        rows = [("column", "kind", "distance", "training", "missing", "real")]
        for c in self.columns:
            rows.append((c.name, c.kind, f"{c.distance:.3f}", f"{c.usual:.3f}", f"{c.missing:.1%}", f"{c.missing_real:.1%}"))
        rows.append(("mean", "", f"{self.distance:.3f}", f"{_mean([c.usual for c in self.columns]):.3f}", "", ""))
        like = f"{min(self.rows, self.train)} training rows"
        title = f"{self.rows} synthetic rows beside {self.held_out} held-out ones; under training, {like} beside these"
        lines = [title, *_aligned(rows)]
        if self.pairs:
            usual = _mean([pair.usual for pair in self.pairs])
            lines += ["", f"associations of {len(self.pairs)} pairs differ by {self.difference:.3f} (training {usual:.3f}); the most:"]
            worst = sorted(self.pairs, key=lambda pair: -1.0 if math.isnan(pair.difference) else pair.difference, reverse=True)[:pairs]
            lines += _aligned(
                [("columns", "", "synthetic", "real", "training")]
                + [(f"{p.a}, {p.b}", p.measure, f"{p.synthetic:.3f}", f"{p.real:.3f}", f"{p.train:.3f}") for p in worst]
            )
        near = self.closeness
        lines += [
            "",
            f"a classifier tells synthetic rows from held-out ones with AUROC {self.auroc:.3f} +- {self.auroc_se:.3f}; 0.5: it cannot",
            f"closer to a training row than 95% of held-out rows: {near.close:.1%} +- {near.close_se:.1%}; of alike rows {CLOSE:.0%}",
            f"closer to a training row than a held-out row: {near.closer:.3f} +- {near.closer_se:.3f}; of alike rows 0.5",
            f"copies of a training row: {near.copies} of {near.rows}; of held-out rows {near.copies_held_out} of {near.held_out}",
        ]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def fidelity(schema: Schema, synthetic: Tensor, real: Tensor, train: Tensor, *, seed: int = 0) -> Fidelity:
    """Compare tables of one schema, encoded (`Schema.encode`), NaN where a value is missing.

    A synthetic table is complete by default, and real ones may not be. What is compared is to be what is said, and not that something is:
    synthetic rows are looked at with gaps in columns that are complete in the synthetic table alone, drawn given their own values as gaps
    depend on values in the training rows (`vaekit.apps.gaps`). That assumes gaps that depend on observed values, of columns with fewer
    gaps. Where a value is missing because of what it is, a table of all values differs from one of those that were observed, however
    good it is: give such synthetic rows their own gaps before.

    Args:
        schema: of all of them.
        synthetic: ``[M, D]``.
        real: ``[N, D]``, rows that the model was not trained on.
        train: ``[T, D]``, those that it was trained on.
        seed: of which rows and pairs are looked at where there are many, of gaps, folds, resamples and the order of training rows.

    Raises:
        InputError: tables of other widths than the schema's, or of fewer than 20 rows.
    """
    columns = schema.modelled
    given = {"synthetic": synthetic, "held-out": real, "training": train}
    for name, x in given.items():
        if x.dim() != 2 or x.shape[1] != len(columns):
            raise InputError(
                f"{name} rows of shape {list(x.shape)} are not of this schema: give [N, {len(columns)}], as Schema.encode does"
            )
        if len(x) < LEAST:
            raise InputError(f"{len(x)} {name} rows say little of a distribution: give {LEAST} or more")
    r = np.random.default_rng(seed)
    made, held, old = (x.detach().cpu().double().numpy() for x in (synthetic, real, train))
    like = _some(r, old, len(made))
    pairs, notes = _pairs(r, len(columns)), []
    if len(pairs) < math.comb(len(columns), 2):
        notes.append(f"{PAIRS} of {math.comb(len(columns), 2)} pairs, at random")
    seen, gappy = with_gaps(columns, made, old, r)
    if len(gappy):
        notes.append(
            f"{len(gappy)} of {len(columns)} columns are complete in the synthetic table alone, and compared with gaps drawn as in "
            "training rows, which assumes that these depend on observed values of columns with fewer gaps"
        )
    few = min(len(made), len(held), MOST)
    area, error = told_apart(columns, _some(r, seen, few), _some(r, held, few), seed=seed)
    return Fidelity(
        rows=len(made),
        held_out=len(held),
        train=len(old),
        columns=tuple(_column(column, made[:, d], seen[:, d], held[:, d], like[:, d]) for d, column in enumerate(columns)),
        pairs=tuple(_pair(columns, a, b, seen, held, like) for a, b in pairs),
        auroc=area,
        auroc_se=error,
        closeness=closeness(columns, _some(r, seen, MOST), _some(r, held, MOST), old, seed=seed),
        notes=tuple(notes),
    )


def told_apart(columns: Sequence[Column], a: Array, b: Array, *, seed: int = 0) -> tuple[float, float]:
    """(AUROC, standard error) of gradient-boosted trees that are to tell rows a from rows b of a table of ``columns``, encoded; the mean
    over 5 folds.

    The error allows for folds that share most of what they are trained on, as Nadeau and Bengio, "Inference for the generalization
    error", Machine Learning 2003: the mean of their squared errors, times 1/5 + 1/4.
    """
    x, y = np.concatenate([a, b]), np.repeat([1, 0], [len(a), len(b)])
    found, leaf = [], min(LEAF, max(2, min(len(a), len(b)) // 10))
    for fit, score in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(x, y):
        seen = np.where(np.isnan(x[fit]).all(0), 0.0, x)  # the trees refuse a column without a value
        trees = HistGradientBoostingClassifier(
            min_samples_leaf=leaf, categorical_features=coded(columns), early_stopping=False, random_state=seed
        )
        p = trees.fit(seen[fit], y[fit]).predict_proba(seen[score])[:, 1]
        found.append(auroc(p[y[score] == 1], p[y[score] == 0]))
    areas, errors = np.array(found).T
    return float(areas.mean()), math.sqrt(float((errors**2).mean()) * (1 / FOLDS + 1 / (FOLDS - 1)))


def auroc(positive: Array, negative: Array) -> tuple[float, float]:
    """(area under the curve, standard error) of scores that are to be larger in ``positive`` ``[N]`` than in ``negative`` ``[M]``, ties
    counted half (DeLong, DeLong and Clarke-Pearson, Biometrics 1988).

    >>> auroc(np.array([2.0, 3.0, 4.0]), np.array([1.0, 1.0, 3.0]))[0]
    0.8333333333333334
    """

    def placed(one: Array, others: Array) -> Array:
        ordered = np.sort(others)
        found: Array = (np.searchsorted(ordered, one, "left") + np.searchsorted(ordered, one, "right")) / (2 * len(others))
        return found

    p, n = placed(positive, negative), 1 - placed(negative, positive)
    return float(p.mean()), math.sqrt(p.var(ddof=1) / len(p) + n.var(ddof=1) / len(n))


def _column(column: Column, made: Array, seen: Array, held: Array, like: Array) -> ColumnDistance:
    gaps = (float(np.isnan(x).mean()) for x in (made, held))
    return ColumnDistance(str(column.name), column.kind, distance(column, seen, held), distance(column, like, held), *gaps)


def _pair(columns: Sequence[Column], a: int, b: int, seen: Array, held: Array, like: Array) -> PairDifference:
    found = (association(columns[a], columns[b], x[:, a], x[:, b]) for x in (seen, held, like))
    return PairDifference(str(columns[a].name), str(columns[b].name), measure(columns[a], columns[b]), *found)


def _pairs(r: np.random.Generator, width: int) -> list[tuple[int, int]]:
    """All of them, or so many at random."""
    every = list(combinations(range(width), 2))
    return every if len(every) <= PAIRS else [every[i] for i in np.sort(r.permutation(len(every))[:PAIRS])]


def _some(r: np.random.Generator, x: Array, n: int) -> Array:
    index: NDArray[np.intp] = r.permutation(len(x))[:n]
    return x if n >= len(x) else x[index]


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        yield ("  " + "  ".join(part.ljust(width) for part, width in zip(row, widths, strict=True))).rstrip()
