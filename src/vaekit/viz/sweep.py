"""The end of a sweep: means over seeds with their errors, against a setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vaekit.errors import InputError
from vaekit.viz.figure import CATEGORIES, blank, put_title, shorten, styled, text_width

__all__ = ["settings"]

Table = Sequence[Sequence[float]]
_WIDTH, _GAP = 330.0, 4.0  # pixels: of the stretch between the outer ticks, at least, and between two labels
_DASHES = ("-", "--", ":", "-.")  # the second when the colours have been used up, and so on
_FAR = 20.0  # from this ratio of the largest to the smallest value on, the axis is logarithmic


def settings(
    x: Sequence[float | str],
    panels: Mapping[str, tuple[Table, Table]],
    *,
    flag: str,
    lines: Sequence[str],
    title: str,
    unit: str = "",
) -> Figure:
    """A panel for each measure: its mean at each value of a setting, with its standard error as a bar, a line for each other setting.

    Args:
        x: values of the setting, numbers or words, ``[X]``.
        panels: measure -> means and standard errors, ``[L, X]`` each, NaN where there is none.
        flag: the setting's name.
        lines: names of the L lines; one may be "".
        title: heading.
        unit: of all measures, such as "nats".

    Raises:
        InputError: means or errors of another shape than ``[L, X]``, or no panel.

    >>> figure = settings([1, 2, 4], {"valid/bound": ([[-3.0, -2.0, -2.5]], [[0.1, 0.2, 0.1]])}, flag="beta", lines=[""], title="Sweep")
    >>> figure.axes[0].get_xlabel()
    'beta'
    """
    shape = (len(lines), len(x))
    tables = {name: tuple(np.asarray(table, dtype=np.float64) for table in pair) for name, pair in panels.items()}
    if not tables or any(table.shape != shape for pair in tables.values() for table in pair):
        raise InputError(
            f"settings: {len(lines)} lines over {len(x)} values need means and errors of shape {list(shape)}, in one panel at least"
        )
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in x)
    at = np.asarray(x, dtype=np.float64) if numeric else np.arange(len(x), dtype=np.float64)
    with styled():
        figure = blank(60 + 440 * len(tables), 380 + 14 * (len(lines) > 1) * min(len(lines), 10), constrained=True)
        for axes, (name, (means, errors)) in zip(np.atleast_1d(figure.subplots(1, len(tables))), tables.items(), strict=True):
            for number, line in enumerate(lines):
                _line(axes, at, means[number], errors[number], number, "_nolegend_" if line == "" else line)
            if numeric and at.min() > 0 and at.max() >= _FAR * at.min():
                axes.set_xscale("log")
            axes.minorticks_off()
            words = [shorten(f"{value:g}" if isinstance(value, float) else str(value), 14) for value in x]
            axes.set_xticks(at, _apart(np.log(at) if axes.get_xscale() == "log" else at, words))
            axes.set_xlabel(shorten(flag, 40), parse_math=False)
            axes.set_ylabel(shorten(name, 40) + (f" ({unit})" if unit else ""), parse_math=False)
            axes.grid()
        if any(lines):
            handles, names = figure.axes[0].get_legend_handles_labels()
            legend = figure.legend(handles, [shorten(one, 40) for one in names], loc="outside lower center", ncols=min(len(names), 3))
            for text in legend.get_texts():
                text.set_parse_math(False)
        put_title(figure, title)
        return figure


def _apart(x: NDArray[np.float64], words: Sequence[str]) -> list[str]:
    """The labels of ticks at these places of an axis, "" for one that the label before it leaves no room for."""
    pixels = (x - x.min()) / max(float(np.ptp(x)), 1e-12) * _WIDTH
    shown, end = list(words), -np.inf
    for number in np.argsort(x):
        half = text_width(words[number], size=8) / 2
        if pixels[number] - half < end + _GAP:
            shown[number] = ""
        else:
            end = pixels[number] + half
    return shown


def _line(axes: Axes, x: NDArray[np.float64], mean: NDArray[np.float64], error: NDArray[np.float64], number: int, label: str) -> None:
    there, order = np.isfinite(mean), np.argsort(x)
    keep = order[there[order]]
    again, colour = divmod(number, len(CATEGORIES))
    axes.errorbar(
        x[keep],
        mean[keep],
        yerr=np.nan_to_num(error[keep], nan=0.0),
        color=CATEGORIES[colour],
        linestyle=_DASHES[again % len(_DASHES)],
        marker="o",
        markersize=4,
        linewidth=1.3,
        capsize=3,
        label=label,
    )
