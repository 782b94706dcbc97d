"""What every figure keeps to: nothing global is touched, nothing leaks, and the same figure is the same bytes."""

from __future__ import annotations

import gc
import io
import subprocess
import sys
import weakref
from collections.abc import Callable

import matplotlib
import matplotlib.style
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from vaekit.text import visible
from vaekit.viz import curves, kl_bars, manifold, pairs, png, scatter, sheet, strips
from vaekit.viz.figure import blank, drawable, text_width, wrapped

X = torch.rand(9, 1, 8, 8, generator=torch.Generator().manual_seed(0))
FIGURES: dict[str, Callable[[], Figure]] = {
    "sheet": lambda: sheet(X),
    "pairs": lambda: pairs(X, X),
    "strips": lambda: strips(X.view(3, 3, 1, 8, 8)),
    "manifold": lambda: manifold(X.view(3, 3, 1, 8, 8), quantiles=[-1.0, 0.0, 1.0]),
    "scatter": lambda: scatter(X.view(9, 64), label=torch.arange(9)),
    "histogram": lambda: scatter(X.view(576, 1), label=torch.arange(576) % 12),
    "kl_bars": lambda: kl_bars(X[0].flatten(), threshold=0.5),
    "curves": lambda: curves({"step": [1, 2, 3], "train/bound": [-3.0, -2.0, -1.0], "valid/lr": [1.0, 2.0, 3.0]}),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_has_its_own_agg_canvas_and_renders_at_its_size(name: str) -> None:
    figure = FIGURES[name]()
    assert type(figure.canvas) is FigureCanvasAgg
    with Image.open(io.BytesIO(png(figure))) as image:
        image.load()
        width, height = figure.get_size_inches() * 110
        assert image.format == "PNG" and image.size == (round(width), round(height))
        assert 200 < image.width <= 1300 and 100 < image.height <= 1700


@pytest.mark.parametrize("name", FIGURES)
def test_the_same_figure_is_the_same_bytes_and_small(name: str) -> None:
    first = png(FIGURES[name]())
    assert first == png(FIGURES[name]())
    assert len(first) < 120_000


@pytest.mark.parametrize("name", FIGURES)
def test_the_callers_style_neither_leaks_in_nor_is_changed(name: str) -> None:
    plain = png(FIGURES[name]())
    with matplotlib.style.context(
        ["dark_background", {"savefig.bbox": "tight", "font.size": 30, "savefig.dpi": 300, "lines.linewidth": 9}]
    ):
        before = matplotlib.rcParams.copy()
        assert png(FIGURES[name]()) == plain
        assert matplotlib.rcParams.copy() == before


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_keeps_a_figure_alive(name: str) -> None:
    figure = FIGURES[name]()
    png(figure)
    gone = weakref.ref(figure)
    del figure
    gc.collect()
    assert gone() is None


def test_pyplot_is_never_imported_and_no_backend_chosen() -> None:
    code = """
import sys, torch
import vaekit.viz as viz
x = torch.rand(4, 1, 8, 8)
viz.png(viz.sheet(x)); viz.png(viz.scatter(x.view(4, 64), label=[0, 1, 2, 3])); viz.png(viz.kl_bars(x.flatten(), threshold=.1))
viz.page("t", sections=[viz.Section("s", items=[viz.Picture(viz.curves({"step": [1], "train/bound": [1.]}), "c", "a")])])
import matplotlib
print("matplotlib.pyplot" in sys.modules, dict.__getitem__(matplotlib.rcParams, "backend") is matplotlib.rcsetup._auto_backend_sentinel)
"""
    env = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.split() == ["False", "True"], done.stderr


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=60), st.integers(60, 600))
def test_wrapped_lines_fit_and_lose_nothing_but_spaces(text: str, width: int) -> None:
    lines = wrapped(text, width, size=9).split("\n")
    assert all(text_width(line, size=9) <= width or len(line) <= 4 for line in lines)
    assert "".join("".join(lines).split()) == "".join(drawable(text).split())


@given(st.text(max_size=60))
def test_visible_text_is_one_line_without_hidden_characters(text: str) -> None:
    shown = visible(text)
    assert shown.encode("utf-8").decode("utf-8") == shown  # no lone surrogates
    assert len(shown.splitlines()) <= 1
    assert not set(shown) & set("\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff\x1b\x00\x7f\u2028")
    assert visible(shown) == shown


def test_visible_text_leaves_letters_of_every_script_alone() -> None:
    for text in ("Zürich", "שלום", "模型", "a ± b − c", "C:\\new\\table", "😀"):
        assert visible(text) == text
    assert visible("a\nb\tc\r\x1b[0m\u200fd\udc80") == "a\\nb\\tc\\r\\x1b[0m\\u200fd\\udc80"


def test_an_empty_title_takes_no_room() -> None:
    assert sheet(X, title="").get_figheight() < sheet(X).get_figheight()


def test_blank_measures_in_pixels() -> None:
    with Image.open(io.BytesIO(png(blank(123, 45)))) as image:
        assert image.size == (123, 45)
