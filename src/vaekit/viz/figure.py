"""What every figure shares: a canvas of its own, one style, colours that colour-blind readers can tell apart, PNG bytes."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vaekit.viz.text import visible

__all__ = ["BLUE", "CATEGORIES", "DPI", "GREEN", "GREY", "INK", "ORANGE", "blank", "png", "put_title", "styled", "wrapped"]

DPI: Final = 110
INK: Final = "#1f2328"
GREY: Final = "#6e7781"
# Okabe & Ito (2008): apart under every common colour blindness, and dark enough for lines on white.
BLUE: Final = "#0072b2"
ORANGE: Final = "#d55e00"
GREEN: Final = "#009e73"
# Petroff (2021), arXiv:2107.02270: ten colours optimised for distance under colour blindness.
CATEGORIES: Final = ("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd")

_STYLE: Final = {
    "figure.dpi": DPI,
    "figure.facecolor": "white",
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.0,
    "axes.labelsize": 9.0,
    "axes.titlelocation": "left",
    "axes.grid": False,
    "axes.axisbelow": True,
    "grid.color": "#e3e6e8",
    "grid.linewidth": 0.7,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
}


@contextmanager
def styled() -> Iterator[None]:
    """The one style, whatever the caller's rcParams; theirs are back afterwards."""
    with matplotlib.style.context(["default", _STYLE]):
        yield


def blank(width: float, height: float, *, constrained: bool = False) -> Figure:
    """An empty figure of ``width`` x ``height`` pixels with its own Agg canvas; pyplot never hears of it."""
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, layout="constrained" if constrained else None)
    FigureCanvasAgg(figure)
    return figure


def wrapped(text: str, width: float, *, size: float) -> str:
    """``text`` made visible and broken into lines that fit ``width`` pixels at ``size`` points."""
    letter = 0.62 * size * DPI / 72  # the mean width of DejaVu Sans in em, a little generous
    return "\n".join(textwrap.wrap(visible(text), max(int(width / letter), 8)))


def put_title(axes: Axes, title: str) -> None:
    """The title of a figure with one Axes: left aligned, wrapped, and never read as mathematics."""
    width = axes.figure.get_figwidth() * DPI - 60
    axes.set_title(wrapped(title, width, size=10.5), fontsize=10.5, loc="left", parse_math=False)


def png(figure: Figure) -> bytes:
    """``figure`` as PNG bytes, the same bytes for the same figure.

    >>> png(blank(20, 10))[:4]
    b'\\x89PNG'
    """
    buffer = io.BytesIO()
    with styled():
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None}, pil_kwargs={"compress_level": 9})
    return buffer.getvalue()
