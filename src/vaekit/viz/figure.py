"""What every figure shares: a canvas of its own, one style, colours that colour-blind readers can tell apart, PNG bytes."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import matplotlib.style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Figure  # for those who may not import matplotlib themselves
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.textpath import text_to_path

from vaekit.text import visible

__all__ = [
    "BLUE",
    "CATEGORIES",
    "DPI",
    "GREEN",
    "GREY",
    "INK",
    "ORANGE",
    "blank",
    "drawable",
    "png",
    "put_legend",
    "put_note",
    "put_title",
    "shorten",
    "styled",
    "text_width",
    "wrapped",
]

DPI: Final = 110
INK: Final = "#1f2328"
GREY: Final = "#6e7781"
# Okabe & Ito (2008): apart under every common colour blindness, and dark enough for lines on white.
BLUE: Final = "#0072b2"
ORANGE: Final = "#d55e00"
GREEN: Final = "#009e73"
# Ten colours for labels, found by annealing the smallest OKLab distance under normal, protan, deutan and tritan vision (Machado et al.,
# 2009), ordered so that the first few are the farthest apart. Any two are at least 0.12 apart.
CATEGORIES: Final = ("#2093ff", "#5a0f38", "#c2d501", "#a08805", "#0d6f6f", "#171292", "#06e0f3", "#fd7e90", "#af2803", "#7d41bc")

_FONT: Final = "DejaVu Sans"  # comes with matplotlib, so that a figure is the same everywhere
_STYLE: Final = {
    "figure.dpi": DPI,
    "figure.facecolor": "white",
    "font.family": [_FONT],
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
    """An empty figure of ``width`` x ``height`` pixels with its own Agg canvas; pyplot never hears of it. ``constrained`` lets
    matplotlib place what is in it."""
    layout = ConstrainedLayoutEngine(w_pad=0.07, h_pad=0.06) if constrained else None
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def drawable(text: str) -> str:
    r"""``visible(text)``, and what the font cannot draw written as its escape too: two labels must not both be boxes.

    >>> drawable("z = 犬")
    'z = \\u72ac'
    """
    known = get_font(findfont(_FONT)).get_charmap()
    return "".join(ch if ord(ch) in known else ch.encode("unicode_escape").decode("ascii") for ch in visible(text))


def shorten(text: str, length: int) -> str:
    """``drawable(text)``, cut to ``length`` characters with an ellipsis.

    >>> shorten("a rather long label", 10)
    'a rather …'
    """
    shown = drawable(text)
    return shown if len(shown) <= length else shown[: length - 1] + "…"


def wrapped(text: str, width: float, *, size: float) -> str:
    """``drawable(text)``, broken into lines that fit ``width`` pixels at ``size`` points."""
    text, letters = drawable(text), 400
    while True:
        lines = textwrap.wrap(text, letters)
        widest = max((text_width(line, size=size) for line in lines), default=0.0)
        if widest <= width or letters <= 4:
            return "\n".join(lines)
        letters = max(4, min(letters - 1, int(max(map(len, lines)) * width / widest)))


def text_width(line: str, *, size: float) -> float:
    """Pixels that ``line`` takes at ``size`` points."""
    font = FontProperties(family=[_FONT], size=size)
    return float(text_to_path.get_text_width_height_descent(line, font, ismath=False)[0]) * DPI / 72


def put_title(figure: Figure, title: str) -> None:
    """The heading of a constrained figure: left aligned, wrapped, and never read as mathematics."""
    text = wrapped(title, figure.get_figwidth() * DPI - 24, size=10.5)
    figure.suptitle(text, x=0.012, ha="left", fontsize=10.5, parse_math=False)


def put_note(figure: Figure, note: str, *, spare: float = 0) -> None:
    """``note``, what the figure leaves out, small, at the foot; the last ``spare`` pixels of the line stay free."""
    text = wrapped(note, figure.get_figwidth() * DPI - 24 - spare, size=8)
    figure.supxlabel(text, x=0.012, ha="left", fontsize=8, color=GREY, parse_math=False)


def put_legend(axes: Axes, handles: Sequence[Artist], names: Sequence[str], *, beside: bool) -> None:
    """A legend of ``handles`` by their ``names`` outside ``axes``, so that it never covers data: ``beside`` it in a column, or above it
    in a row."""
    if beside:
        legend = axes.legend(handles, names, loc="upper left", bbox_to_anchor=(1.01, 1.01))
    else:
        legend = axes.legend(handles, names, loc="lower right", bbox_to_anchor=(1, 1), ncols=len(names), borderaxespad=0.2)
    for text in legend.get_texts():
        text.set_parse_math(False)


def png(figure: Figure) -> bytes:
    """``figure`` as PNG bytes, the same bytes for the same figure.

    >>> png(blank(20, 10))[:4]
    b'\\x89PNG'
    """
    buffer = io.BytesIO()
    with styled():
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None}, pil_kwargs={"compress_level": 9})
    return buffer.getvalue()
