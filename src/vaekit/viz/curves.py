"""Training curves: a panel for each logged term, training and validation together."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from vaekit.errors import InputError
from vaekit.text import visible
from vaekit.viz.arrays import numbers
from vaekit.viz.figure import BLUE, GREEN, GREY, INK, ORANGE, blank, drawable, put_note, put_title, shorten, styled, text_width

__all__ = ["curves"]

_MOST_PANELS = 24
_SQUASH = 4.0  # clip when the whole range is this many times the late one
_Dashes: TypeAlias = Literal["-", "--", ":", "-."]
_STYLES: Final[dict[str, tuple[str, _Dashes]]] = {"train": (BLUE, "-"), "valid": (ORANGE, "--"), "test": (GREEN, ":")}
_FIRST = ("bound", "loss", "surrogate", "log_px", "rate", "kl")
_NATS = re.compile(r"(bound|elbo|iwae|loss|surrogate|nll|log_[a-z]\w*|rate|kl|mi|tc)(_\d+)?")
_WORDS = {
    "bound": "lower bound on log p(x)",
    "log_px": "log p(x | z)",
    "rate": "log q(z) − log p(z)",
    "kl": "KL(q(z) ‖ p(z))",
    "lr": "learning rate",
}


def curves(metrics: Mapping[str, Sequence[float]], *, title: str | None = None) -> Figure:
    """One panel per term, its splits together, all over the same steps.

    Early values far from the rest would squash it: where the whole range is over 4 times that of the late values (the last 90% of each
    curve, without its outermost 1%), the panel shows the late range and a note says what lies beyond.

    A learning rate that never changes and a surrogate that is minus the bound throughout have no panel; a note says so.

    Args:
        metrics: columns of equal length. ``step`` or else ``epoch`` is the x axis; ``split/term`` (``train/bound``, ``valid/log_px``,
            ``train/lr``) is a curve, NaN where it was not logged; other columns, and curves never logged, are left out.
        title: by default, the number of steps.

    Raises:
        InputError: no step and no epoch, no curve, unequal lengths.

    >>> figure = curves({"epoch": [1, 2, 3], "train/bound": [-200.0, -120.0, -110.0], "valid/bound": [float("nan"), -125.0, -112.0]})
    >>> [axes.get_title("left") for axes in figure.axes]
    ['bound: lower bound on log p(x)']
    """
    axis = next((name for name in ("step", "epoch") if name in metrics), None)
    if axis is None:
        raise InputError(f'curves needs a column "step" or "epoch"; the columns are {_listed(metrics)}; add one')
    x = numbers(metrics[axis], f'curves: column "{axis}"', ndim=1, shape="[N]")
    gaps = np.flatnonzero(~np.isfinite(x))
    if len(gaps):
        raise InputError(f'curves: column "{axis}" must be finite; it is {x[gaps[0]]} in row {gaps[0]}; log it in every row')
    order = np.argsort(x, kind="stable")
    terms: dict[str, dict[str, NDArray[np.float64]]] = {}
    for column, logged in metrics.items():
        split, slash, term = column.partition("/")
        if not slash:
            continue
        y = numbers(logged, f'curves: column "{visible(column)}"', ndim=1, shape="[N]")
        if len(y) != len(x):
            asked = f'"{visible(column)}" has {len(y)} values and "{axis}" {len(x)}'
            raise InputError(f"curves: columns must be equally long; {asked}; use NaN where a value was not logged")
        if not np.isnan(y).all():
            terms.setdefault(term, {})[split] = y[order]
    if not terms:
        raise InputError(f"curves needs a column split/term with a value, such as train/bound; the columns are {_listed(metrics)}; log one")
    spared = _spared(terms)
    names = sorted((term for term in terms if term not in spared), key=_rank)
    shown, left_out = names[:_MOST_PANELS], names[_MOST_PANELS:]
    splits = list(dict.fromkeys([s for s in _STYLES if any(s in terms[t] for t in shown)] + [s for t in shown for s in terms[t]]))
    if title is None:
        title = f"{' and '.join(splits)}: each term over {len(x):,} logged {axis}{'s' if len(x) != 1 else ''}"
        title = title[0].upper() + title[1:]
    with styled():
        return _draw(x[order], axis, {t: terms[t] for t in shown}, splits, title, _note(spared, left_out))


def _draw(
    x: NDArray[np.float64], axis: str, terms: dict[str, dict[str, NDArray[np.float64]]], splits: list[str], title: str, note: str
) -> Figure:
    n = len(terms)
    columns = 1 if n == 1 else 2 if n <= 4 else 3
    rows = math.ceil(n / columns)
    width = {1: 640, 2: 800, 3: 1000}[columns]
    figure = blank(width, 60 + rows * (280 if n == 1 else 215), constrained=True)
    grid = figure.subplots(rows, columns, sharex=True, squeeze=False)
    flat = list(grid.flat)
    for empty in flat[n:]:
        empty.remove()
    for i, (axes, (term, series)) in enumerate(zip(flat, terms.items(), strict=False)):
        for split in series:
            colour, line = _style(split, splits)
            _line(axes, x, series[split], colour, line)
        axes.set_title(_heading(term, width / columns - 80), loc="left", parse_math=False)
        axes.set_ylabel(_unit(term))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.grid()
        _limit(axes, x, series, axis)
        if x[0] == x[-1]:
            axes.set_xlim(x[0] - 1, x[0] + 1)
        if i + columns >= n:
            axes.set_xlabel(axis)
            axes.tick_params(axis="x", labelbottom=True)
    handles = [Line2D([], [], color=_style(s, splits)[0], linestyle=_style(s, splits)[1], linewidth=1.6) for s in splits]
    labels = [shorten(s, 24) for s in splits]
    legend = figure.legend(handles, labels, loc="outside lower right" if note else "outside lower center", ncols=min(len(splits), 4))
    for text in legend.get_texts():
        text.set_parse_math(False)
    put_title(figure, title)
    if note:
        put_note(figure, note, spare=sum(text_width(label, size=8.5) + 60 for label in labels[:4]))  # beside the legend
    return figure


def _spared(terms: Mapping[str, Mapping[str, NDArray[np.float64]]]) -> dict[str, str]:
    """Terms whose panel would say nothing, each with what it would say: a constant learning rate, a surrogate that mirrors the bound."""
    found = {}
    rates = [y[np.isfinite(y)] for y in terms.get("lr", {}).values()]
    if rates and len(terms) > 1 and len(np.unique(np.concatenate(rates))) == 1:
        found["lr"] = f"lr = {rates[0][0]:g} throughout"
    bound, surrogate = terms.get("bound", {}), terms.get("surrogate", {})
    mirrors = (np.allclose(-surrogate[split], bound[split], rtol=1e-6, atol=0, equal_nan=True) for split in bound)
    if surrogate and bound.keys() == surrogate.keys() and all(mirrors):
        found["surrogate"] = "surrogate = −bound"
    return found


def _note(spared: Mapping[str, str], left_out: Sequence[str]) -> str:
    more = [f"{len(left_out)} more terms not drawn: {', '.join(left_out)}"] if left_out else []
    return "; ".join([*([f"not drawn: {', '.join(spared.values())}"] if spared else []), *more])


def _line(axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64], colour: str, line: _Dashes) -> None:
    """Through the logged values, over the gaps; few points get a marker, so that a single one is seen."""
    logged = np.isfinite(y)
    few = int(logged.sum()) <= 30
    axes.plot(x[logged], y[logged], color=colour, linestyle=line, linewidth=1.4, marker="o" if few else "", markersize=3)


def _limit(axes: Axes, x: NDArray[np.float64], series: dict[str, NDArray[np.float64]], axis: str) -> None:
    """Show the late range where an early or stray value would squash it, and say so."""
    finite = {s: y[np.isfinite(y)] for s, y in series.items()}
    everything = np.concatenate(list(finite.values()))
    notes = {False: "", True: ""}
    if everything.size:
        late = np.concatenate([y[math.ceil(len(y) / 10) :] if len(y) > 3 else y for y in finite.values()])
        low, high = float(np.quantile(late, 0.01, method="lower")), float(np.quantile(late, 0.99, method="higher"))
        whole = float(np.ptp(everything))
        if high - low > 1e-9 * whole and whole > _SQUASH * (high - low):
            pad = 0.08 * (high - low)
            axes.set_ylim(low - pad, high + pad)
            for up, beyond in ((False, everything < low - pad), (True, everything > high + pad)):
                if beyond.any():
                    extreme = everything.max() if up else everything.min()
                    where = next(x[np.flatnonzero(y == extreme)[0]] for y in series.values() if (y == extreme).any())
                    arrow, count = ("▲", "above") if up else ("▼", "below")
                    notes[up] = f"{arrow} {int(beyond.sum())} {count}, to {extreme:.4g} at {axis} {where:g}"
    infinite = sum(int(np.isinf(y).sum()) for y in series.values())
    if infinite:
        notes[False] = "; ".join(filter(None, [notes[False], f"{infinite} infinite"]))
    for up, text in notes.items():
        if text:
            axes.text(
                0.985,
                0.96 if up else 0.04,
                text.replace("-", "−"),
                transform=axes.transAxes,
                ha="right",
                va="top" if up else "bottom",
                fontsize=7.5,
                color=INK,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5},
            )


def _style(split: str, splits: list[str]) -> tuple[str, _Dashes]:
    others = [s for s in splits if s not in _STYLES]
    return _STYLES[split] if split in _STYLES else (("#cc79a7", GREY, "#e69f00")[others.index(split) % 3], "-.")


def _heading(term: str, width: float) -> str:
    """The logged name, with its meaning where it is known and fits."""
    base, level = _split(term)
    full = f"{term}: {_WORDS[base]}" + (f", level {level}" if level >= 0 else "") if base in _WORDS else drawable(term)
    return full if text_width(full, size=9) <= width else shorten(term, int(width / 8))


def _unit(term: str) -> str:
    return "bits per dimension" if term.endswith("_bpd") else "nats" if _NATS.fullmatch(term) else ""


def _rank(term: str) -> tuple[int, str, int]:
    """The bound first, then its parts, level by level; the learning rate last."""
    base, level = _split(term)
    return (_FIRST.index(base) if base in _FIRST else len(_FIRST) + (base == "lr"), base, level)


def _split(term: str) -> tuple[str, int]:
    """``rate_2`` as ``("rate", 2)``; a term without a level has level -1."""
    match = re.fullmatch(r"(.+)_(\d{1,9})", term, flags=re.DOTALL)
    return (match[1], int(match[2])) if match else (term, -1)


def _listed(metrics: Mapping[str, Sequence[float]]) -> str:
    return ", ".join(visible(name) for name in metrics) or "none"
