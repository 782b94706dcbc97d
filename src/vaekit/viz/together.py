"""Training curves of several runs on one plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from vaekit.errors import InputError
from vaekit.viz.figure import CATEGORIES, blank, put_note, put_title, shorten, styled

__all__ = ["beside"]

_DASHES = ("-", "--", ":", "-.")  # the second when the colours have been used up, and so on
_EARLY = 0.1  # share of the epochs that do not set the panel's range


def beside(runs: Mapping[str, Mapping[str, Sequence[float]]], *, terms: Sequence[str] = ("train/bound", "valid/bound")) -> Figure:
    """A panel for each term with a line for each run, over its steps.

    A panel's range is that of the last nine tenths of each line; what lies outside is cut off, and a note says so.

    Args:
        runs: name -> columns of equal length with ``step``, as `curves` takes them.
        terms: those that no run has logged are left out.

    Raises:
        InputError: no run has logged any of the terms.

    >>> figure = beside({"a": {"step": [10, 20], "train/bound": [-3.0, -2.0]}, "b": {"step": [10, 20], "train/bound": [-4.0, -2.5]}})
    >>> [axes.get_title("left") for axes in figure.axes]
    ['train/bound']
    """
    shown = [term for term in terms if any(_line(columns, term) is not None for columns in runs.values())]
    if not shown:
        raise InputError(f"no run has logged {' or '.join(terms)}, so there is nothing to draw")
    with styled():
        figure, cut = blank(60 + 440 * len(shown), 380 + 14 * min(len(runs), 10), constrained=True), False
        for axes, term in zip(np.atleast_1d(figure.subplots(1, len(shown))), shown, strict=True):
            late = []
            for number, (name, columns) in enumerate(runs.items()):
                line = _line(columns, term)
                if line is None:
                    continue
                again, colour = divmod(number, len(CATEGORIES))
                marker = "o" if len(line[0]) < 3 else "None"
                axes.plot(
                    *line, color=CATEGORIES[colour], linestyle=_DASHES[again % len(_DASHES)], linewidth=1.3, marker=marker, label=name
                )
                late.append(line[1][int(_EARLY * len(line[1])) :])
            values = np.concatenate(late)
            margin = 0.05 * max(float(np.ptp(values)), 1e-6 * max(1.0, float(np.abs(values).max())))
            low, high = float(values.min()) - margin, float(values.max()) + margin
            whole = axes.dataLim
            if whole.y0 < low or whole.y1 > high:
                axes.set_ylim(low, high)
                cut = True
            axes.set_title(shorten(term, 40), loc="left", parse_math=False)
            axes.set_xlabel("step")
            axes.set_ylabel("nats")
            axes.grid()
        found = {label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        named = [name for name in runs if name in found]
        legend = figure.legend([found[name] for name in named], [shorten(name, 40) for name in named], loc="outside lower center", ncols=3)
        for text in legend.get_texts():
            text.set_parse_math(False)
        put_title(figure, f"{len(named)} runs while training")
        if cut:
            put_note(figure, "The first tenth of each line may lie outside of its panel.")
        return figure


def _line(columns: Mapping[str, Sequence[float]], term: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Steps and values where the term was logged; None where it never was."""
    if term not in columns or "step" not in columns:
        return None
    x, y = np.asarray(columns["step"], dtype=np.float64), np.asarray(columns[term], dtype=np.float64)
    there = np.isfinite(x) & np.isfinite(y)
    return (x[there], y[there]) if there.any() else None
