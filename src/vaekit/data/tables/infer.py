"""A column from its cells: by the rules, or of the kind that the user says."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vaekit.data.tables.cells import Cells, Name, Value, shown
from vaekit.data.tables.codes import Binary, Categorical, Ordinal
from vaekit.data.tables.columns import Column, Constant
from vaekit.data.tables.dates import NANOSECONDS, RESOLUTIONS, Date, resolution_of
from vaekit.data.tables.kinds import KINDS
from vaekit.data.tables.numbers import Continuous, Count, HeavyTailed, Positive, UnitInterval, decimals_of, minus
from vaekit.data.tables.rules import RULES, Choice, count_likelihood, figures_of
from vaekit.errors import InputError, nearest

__all__ = ["CATEGORIES", "Kind", "column_of", "given_of"]

Kind = str | Sequence[Value]
"""The name of a kind or of a likelihood; of ordered categories their levels, the lowest first."""
CATEGORIES = 1000  # at most, without being asked
NAMES = 50
"""Different whole numbers of a column that is conditioned on, up to which they are names, as of batches, rather than numbers."""
LIKELIHOODS = {
    "gaussian": "continuous",
    "studentt": "heavy-tailed",
    "lognormal": "positive",
    "continuousbernoulli": "unit",
    "poisson": "count",
    "negativebinomial": "count",
    "zeroinflatedpoisson": "count",
    "zeroinflatednegativebinomial": "count",
    "bernoulli": "binary",
}
SPELLED = {name.lower(): name for name in ("Poisson", "NegativeBinomial", "ZeroInflatedPoisson", "ZeroInflatedNegativeBinomial")}
USER = "chosen by the user"


def column_of(name: Name, cells: Cells, kind: Kind | None = None) -> Column:
    """The column called ``name`` that these cells speak for, or of this kind.

    Raises:
        InputError: text that is free or identifies its row, a number that counts the rows, a kind that the cells are not of.
    """
    shared: dict[str, Any] = {"name": name, "dtype": cells.dtype, "missing": float(cells.missing.mean()) if len(cells) else 0.0}
    if cells.missing.all():
        return Constant(**shared, because="no row has a value", categories=cells.categories, ordered=cells.ordered)
    values = cells.present
    if kind is None and len(cells.categories) < 2:  # a categorical of more may have others in other rows
        constant = _constant(cells, values, shared)
        if constant is not None:
            return constant
    if kind is not None:
        column = _asked(name, cells, values, kind, shared)
    elif cells.categories:
        column = _categories(cells, shared)
    elif cells.sort == "dates":
        column = _date(values, shared)
    elif cells.sort == "truths":
        column = Binary(**shared, categories=(False, True), because="true or false")
    elif cells.sort == "texts":
        column = _texts(name, values, shared)
    else:
        column = _numbers(name, cells, values, shared)
    column.encode(cells)  # what the rules, or the user, chose holds all of them
    return _exact(column, values)


def given_of(name: Name, cells: Cells, kind: Kind | None = None) -> Column:
    """The column of what is conditioned on: as `column_of` from ``name``, ``cells`` and ``kind``, but whole numbers of few different values
    are categories.

    Raises:
        InputError: as `column_of`.
    """
    values = cells.present
    if kind is not None or cells.categories or values.dtype.kind not in "iu" or not len(values):
        return column_of(name, cells, kind)
    n = len(np.unique(values))
    if n > NAMES:
        return column_of(name, cells)
    return replace(column_of(name, cells, "categorical"), because=f"{n} different whole numbers, taken for names")


def _constant(cells: Cells, values: npt.NDArray[Any], shared: dict[str, Any]) -> Constant | None:
    if not (values == values[0]).all():
        return None
    value = str(values[0]) if cells.sort == "dates" else np.array(values[:1]).tolist()[0]
    gaps = "" if not shared["missing"] else f" that has one, and {shared['missing']:.0%} missing, which decoding fills with it"
    return Constant(**shared, value=value, because=f"{value!r} in every row{gaps}", categories=cells.categories, ordered=cells.ordered)


def _categories(cells: Cells, shared: dict[str, Any]) -> Column:
    held = {**shared, "categories": cells.categories, "ordered": cells.ordered}
    if len(cells.categories) == 2:
        return Binary(**held, because="a categorical of two values")
    if cells.ordered:
        return Ordinal(**held, because=f"an ordered categorical of {len(cells.categories)} levels")
    return Categorical(**held, because=f"a categorical of {len(cells.categories)} categories")


def _texts(name: Name, values: npt.NDArray[Any], shared: dict[str, Any]) -> Column:
    different = set(values.tolist())
    n, c = len(values), len(different)
    if c > CATEGORIES or (c > 20 and c > n / 2):
        raise InputError(
            f"{shown(name)} has {c} different texts in {n} rows, {values[0][:20]!r} for one, which is free text or an identifier: drop it, "
            "or group its texts; where it is a category nevertheless, say so: categorical"
        )
    found = sorted(different)
    if c == 2:
        return Binary(**shared, categories=tuple(found), because=f"two texts, {found[0]!r} and {found[1]!r}")
    return Categorical(**shared, categories=tuple(found), because=f"{c} different texts in {n} rows")


def _numbers(name: Name, cells: Cells, values: npt.NDArray[Any], shared: dict[str, Any]) -> Column:
    figures = figures_of(values)
    if cells.values.dtype.kind in "iu" and figures.n >= 20 and not cells.missing.any() and (np.diff(values.astype(np.float64)) == 1).all():
        raise InputError(
            f"{shown(name)} numbers the rows, from {values[0]} to {values[-1]}, which says nothing of what is in them: drop it, or say its "
            "kind, as continuous"
        )
    choice = next(choice for choice in (rule(figures) for rule in RULES) if choice is not None)
    column = MAKERS[choice.kind](values, choice, shared)
    if figures.mode_share > 0.1 and column.kind in ("continuous", "heavy-tailed", "positive", "unit") and figures.n >= 20:
        often = f"; {figures.mode_share:.0%} of the values are the same, which no density tells"
        column = replace(column, because=column.because + often)
    return column


def _asked(name: Name, cells: Cells, values: npt.NDArray[Any], kind: Kind, shared: dict[str, Any]) -> Column:
    """The column of a kind that the user says."""
    if not isinstance(kind, str):
        given = _plain(name, kind)
        if len(given) < 2 or len(set(given)) < len(given):
            raise InputError(
                f"{shown(name)} is given the levels {list(given)}: give at least two, each once, from the lowest to the highest"
            )
        return Ordinal(**shared, categories=given, ordered=cells.ordered, because="levels in the user's order")
    asked = kind.lower().replace("_", "-")
    target = LIKELIHOODS.get(asked.replace("-", ""), asked)
    if target not in KINDS or target == "constant":
        raise InputError(f'{shown(name)} is to be "{kind}", which is no kind of column; {nearest(asked, set(KINDS) - {"constant"})}')
    if target in ("binary", "categorical", "ordinal"):
        categories: tuple[Any, ...] = cells.categories or tuple(np.unique(values).tolist())
        if cells.sort == "dates":
            raise InputError(f"{shown(name)} holds dates, which are no categories: convert them to text")
        if target == "binary" and len(categories) != 2:
            raise InputError(f"{shown(name)} is to be binary, and has {len(categories)} different values: make it categorical or ordinal")
        return KINDS[target](**shared, categories=categories, ordered=cells.ordered, because=USER)
    wanted = "dates" if target == "date" else "numbers"
    if cells.sort != wanted or cells.categories:
        held = "categories" if cells.categories else cells.sort
        raise InputError(f'{shown(name)} is to be "{kind}", which needs {wanted}, and holds {held}: convert it, or choose another kind')
    if target == "date":
        return _date(values, {**shared, "because": USER})
    if target == "count":
        Count(**shared).check(cells)  # before its figures, which would be those of something else
        figures = figures_of(values)
        likelihood = SPELLED.get(asked.replace("-", ""), count_likelihood(figures)[0] if figures.mean > 0 else "Poisson")
        return Count(**shared, likelihood=likelihood, because=USER)
    if target == "positive":
        Positive(**shared).check(cells)
    return MAKERS[target](values, Choice(target, USER), shared)


def _plain(name: Name, levels: Sequence[Value]) -> tuple[Value, ...]:
    """Levels as Python's own values, which JSON holds."""
    given = tuple(level.item() if isinstance(level, np.generic) else level for level in levels)
    for level in given:
        if not isinstance(level, str | int | float) or (isinstance(level, float) and not math.isfinite(level)):
            raise InputError(f"{shown(name)} is given the level {level!r}: give levels that are text, finite numbers or booleans")
    return given


def _continuous(values: npt.NDArray[Any], choice: Choice, shared: dict[str, Any]) -> Column:
    loc, scale = _standard(values)
    return Continuous(**shared, loc=loc, scale=scale, because=choice.because, decimals=decimals_of(values))


def _heavy(values: npt.NDArray[Any], choice: Choice, shared: dict[str, Any]) -> Column:
    lower, median, upper = np.percentile(values, [25, 50, 75])
    loc = float(np.rint(median)) if values.dtype.kind in "iu" else float(median)
    scale = float(upper - lower) / 1.349
    if not _usable(scale):  # half of the values are the same
        scale = _standard(values)[1]
    return HeavyTailed(**shared, loc=loc, scale=scale, because=choice.because, decimals=decimals_of(values))


def _positive(values: npt.NDArray[Any], choice: Choice, shared: dict[str, Any]) -> Column:
    loc, scale = _standard(np.log(values.astype(np.float64)))
    return Positive(**shared, loc=loc, scale=scale, because=choice.because, decimals=decimals_of(values))


def _unit(values: npt.NDArray[Any], choice: Choice, shared: dict[str, Any]) -> Column:
    return UnitInterval(**shared, because=choice.because, decimals=decimals_of(values))


def _count(values: npt.NDArray[Any], choice: Choice, shared: dict[str, Any]) -> Column:
    return Count(**shared, likelihood=choice.likelihood, because=choice.because)


def _binary(values: npt.NDArray[Any], choice: Choice, shared: dict[str, Any]) -> Column:
    return Binary(**shared, categories=tuple(np.unique(values).tolist()), because=choice.because)


def _ordinal(values: npt.NDArray[Any], choice: Choice, shared: dict[str, Any]) -> Column:
    return Ordinal(**shared, categories=tuple(np.unique(values).tolist()), because=choice.because)


MAKERS: dict[str, Callable[[npt.NDArray[Any], Choice, dict[str, Any]], Column]] = {
    "continuous": _continuous,
    "heavy-tailed": _heavy,
    "positive": _positive,
    "unit": _unit,
    "count": _count,
    "binary": _binary,
    "ordinal": _ordinal,
}


def _date(values: npt.NDArray[Any], shared: dict[str, Any]) -> Date:
    resolution = resolution_of(values)
    steps = values.astype(f"datetime64[{resolution}]").astype(np.int64)
    loc, scale = _standard(steps)
    because = shared.get("because", f"dates, to the {RESOLUTIONS[resolution]}")
    return Date(**{**shared, "because": because}, loc=loc, scale=scale, resolution=resolution)


def _standard(values: npt.NDArray[Any]) -> tuple[float, float]:
    """Mean and standard deviation; of whole numbers the mean is one too, so that they can be counted from it exactly."""
    if values.dtype.kind in "iu":
        start = float(int(values[0]))
        steps = minus(values, start)
        return start + float(np.rint(steps.mean())), _scale(steps)
    size = float(np.abs(values).max()) or 1.0
    loc = float((values / size).mean() * size)
    return loc, _scale(values - loc)


def _scale(x: npt.NDArray[np.float64]) -> float:
    size = float(np.abs(x).max())
    scale = float((x / size).std() * size) if _usable(size) else 0.0
    return scale if _usable(scale) else 1.0


def _usable(scale: float) -> bool:
    return math.isfinite(scale) and scale > 1e-300  # 1 / scale is a number


def _exact(column: Column, values: npt.NDArray[Any]) -> Column:
    """The column, which says so where float32 does not give back the whole numbers or the times that it held."""
    if column.kind not in ("continuous", "heavy-tailed", "positive", "date") or (
        values.dtype.kind not in "iuM" and decimals_of(values) != 0
    ):
        return column
    back = column.round_trip(values)
    if (back == values).all():
        return column
    off = np.abs(back.astype(np.float64) - values.astype(np.float64)).max()
    if isinstance(column, Date):
        off *= NANOSECONDS[np.datetime_data(values.dtype)[0]] / NANOSECONDS[column.resolution]
    unit = f"{RESOLUTIONS[column.resolution]}s" if isinstance(column, Date) else "1"
    return replace(column, because=f"{column.because}; float32 gives it back to {off:.2g} {unit}")
