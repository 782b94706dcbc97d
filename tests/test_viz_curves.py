"""Training curves: what is drawn is what was logged, in its panel, and nothing is squashed or hidden without a word."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vaekit.errors import InputError
from vaekit.viz import curves, png

NAN = float("nan")


def panels(figure: Figure) -> dict[str, Axes]:
    return {axes.get_title("left").partition(":")[0]: axes for axes in figure.axes}


def lines(axes: Axes) -> list[tuple[list[float], list[float]]]:
    return [(list(np.asarray(line.get_xdata())), list(np.asarray(line.get_ydata()))) for line in axes.lines]


def notes(axes: Axes) -> str:
    return " | ".join(t.get_text() for t in axes.texts)


def logged(n: int = 40) -> dict[str, list[float]]:
    step = np.arange(1, n + 1)
    return {
        "step": list(step * 10.0),
        "epoch": list(step // 10 + 0.0),
        "train/lr": list(1e-3 / step),
        "train/zeta": list(1.0 * step),
        "train/rate_10": list(2.0 + step / n),
        "train/rate_2": list(1.0 + step / n),
        "train/bound": list(-100 + step / n),
        "valid/bound": [NAN if s % 10 else -101 + s / n for s in step],
        "train/log_px": list(-90 + step / n),
        "valid/bound_bpd": [NAN] * n,
        "seconds": list(step * 1.0),
    }


def test_each_term_has_a_panel_with_its_splits_and_the_bound_comes_first() -> None:
    metrics = logged()
    figure = curves(metrics)
    found = panels(figure)
    assert list(found) == ["bound", "log_px", "rate_2", "rate_10", "zeta", "lr"]
    assert lines(found["bound"]) == [
        (metrics["step"], metrics["train/bound"]),
        ([100.0, 200.0, 300.0, 400.0], [metrics["valid/bound"][i] for i in (9, 19, 29, 39)]),
    ]
    assert lines(found["lr"]) == [(metrics["step"], metrics["train/lr"])]
    assert found["rate_10"].get_title("left") == "rate_10: log q(z) − log p(z), level 10"


def test_what_says_nothing_has_no_panel_and_a_note() -> None:
    bound = [-3.0, NAN, -2.0]
    metrics = {"step": [1.0, 2.0, 3.0], "train/bound": bound, "train/lr": [1e-3, NAN, 1e-3], "train/surrogate": [3.0, NAN, 2.0]}
    figure = curves(metrics)
    assert list(panels(figure)) == ["bound"] and figure.get_supxlabel() == "not drawn: lr = 0.001 throughout, surrogate = −bound"
    moving = curves(metrics | {"train/lr": [1e-3, NAN, 5e-4], "train/surrogate": [3.0, NAN, 1.5]})
    assert list(panels(moving)) == ["bound", "surrogate", "lr"] and not moving.get_supxlabel()
    half = curves(metrics | {"valid/bound": [-4.0, -4.0, -3.0], "valid/surrogate": [4.0, 4.0, 2.9]})  # in one split only
    assert "surrogate" in panels(half)
    assert list(panels(curves({"step": [1.0, 2.0], "train/lr": [1e-3, 1e-3]}))) == ["lr"]  # all there is


def test_axes_have_units() -> None:
    metrics = {"epoch": [1.0, 2.0]} | {f"train/{t}": [1.0, 2.0] for t in ("bound", "kl_3", "nll_bpd", "log_w", "lr", "grad_norm", "beta")}
    units = {term: axes.get_ylabel() for term, axes in panels(curves(metrics)).items()}
    assert units == {
        "bound": "nats",
        "kl_3": "nats",
        "log_w": "nats",
        "nll_bpd": "bits per dimension",
        "lr": "",
        "grad_norm": "",
        "beta": "",
    }


def test_train_and_valid_differ_in_colour_and_dash_and_have_a_legend() -> None:
    figure = curves(logged())
    a, b = panels(figure)["bound"].lines
    assert a.get_color() != b.get_color() and a.get_linestyle() != b.get_linestyle()
    (legend,) = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == ["train", "valid"]
    assert [h.get_color() for h in legend.legend_handles] == [a.get_color(), b.get_color()]  # type: ignore[union-attr]


@pytest.mark.parametrize("n", range(1, 10))
def test_panels_share_x_and_each_column_ends_with_its_label(n: int) -> None:
    figure = curves({"step": [0.0, 5.0]} | {f"train/t{i}": [1.0, 2.0] for i in range(n)})
    png(figure)
    assert len(figure.axes) == n
    assert len({axes.get_xlim() for axes in figure.axes}) == 1
    at = {(round(a.get_position().x0, 3), round(a.get_position().y0, 3)): a for a in figure.axes}
    lowest = {x: min(y for x_, y in at if x_ == x) for x, _ in at}
    for (x, y), axes in at.items():
        assert (axes.get_xlabel() == "step") == (y == lowest[x])
        assert any(t.get_visible() and t.get_text() for t in axes.get_xticklabels()) == (y == lowest[x])
    boxes = [box for axes in figure.axes if (box := axes.get_tightbbox()) is not None]
    assert len(boxes) == n and not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    for box in boxes:  # with a pixel for an empty label's own margin
        assert box.x0 > -1 and box.x1 < figure.bbox.x1 + 1 and box.y0 > 20 and box.y1 < figure.bbox.y1 - 20


def test_an_early_transient_does_not_squash_the_rest() -> None:
    bound = [-1e5, -400.0] + [-100 - 10 / i for i in range(1, 39)]
    axes = curves({"step": list(range(40)), "train/bound": bound}).axes[0]
    low, high = axes.get_ylim()
    assert -104 < low < -103 and -100.1 < high < -99.9
    assert notes(axes) == "▼ 4 below, to −1e+05 at step 0"
    assert lines(axes)[0][1] == bound, "the data are all there, only the view is cut"


def test_a_late_spike_is_cut_too_and_said() -> None:
    y = np.sin(np.arange(500.0))
    y[400] = 1000.0
    axes = curves({"step": np.arange(500.0), "train/rate_0": y}).axes[0]
    assert axes.get_ylim()[1] < 1.5 and notes(axes) == "▲ 1 above, to 1000 at step 400"


@pytest.mark.parametrize("y", [np.linspace(0, 1, 50), np.minimum(1, np.arange(50) / 10), np.ones(50), 5 * np.exp(-np.arange(50) / 20)])
def test_a_gentle_curve_is_shown_whole_without_a_note(y: np.ndarray) -> None:
    axes = curves({"step": np.arange(50.0), "train/x": y}).axes[0]
    low, high = axes.get_ylim()
    assert low <= y.min() and high >= y.max() and notes(axes) == ""


def test_infinite_values_are_counted_not_drawn() -> None:
    axes = curves({"epoch": [1, 2, 3], "train/bound": [float("-inf"), -5.0, float("inf")]}).axes[0]
    assert lines(axes) == [([2.0], [-5.0])] and notes(axes) == "2 infinite"


def test_rows_out_of_order_are_drawn_in_order() -> None:
    axes = curves({"step": [3, 1, 2], "train/bound": [-3.0, -1.0, -2.0]}).axes[0]
    assert lines(axes) == [([1.0, 2.0, 3.0], [-1.0, -2.0, -3.0])]


def test_a_single_epoch_is_a_visible_point() -> None:
    axes = curves({"epoch": [1], "train/bound": [-110.0]}).axes[0]
    assert axes.lines[0].get_marker() == "o" and axes.get_xlim() == (0.0, 2.0)


def test_more_terms_than_fit_are_named() -> None:
    figure = curves({"step": [1.0]} | {f"train/rate_{i}": [1.0] for i in range(30)})
    assert list(panels(figure)) == [f"rate_{i}" for i in range(24)]
    assert figure.get_supxlabel().replace("\n", " ") == "6 more terms not drawn: " + ", ".join(f"rate_{i}" for i in range(24, 30))


def test_other_splits_have_a_style_of_their_own() -> None:
    figure = curves({"step": [1.0, 2.0]} | {f"{s}/bound": [-1.0, -2.0] for s in ("mine", "train", "test", "valid")})
    (legend,) = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == ["train", "valid", "test", "mine"]
    assert len({line.get_color() for line in figure.axes[0].lines}) == 4


def test_names_are_drawn_as_text() -> None:
    broken = "$\\frac{$"  # two dollars, so that matplotlib would read it as mathematics, and fail
    figure = curves({"step": [1.0, 2.0], f"{broken}\n/{broken}\u202e": [1.0, 2.0]}, title=broken)
    png(figure)
    assert figure.axes[0].get_title("left") == broken + "\\u202e" and figure.get_suptitle() == broken
    assert figure.legends[0].get_texts()[0].get_text() == broken + "\\n"
    notes = curves({"step": [1.0]} | {f"train/{broken}{i}": [1.0] for i in range(25)})
    assert broken in notes.get_supxlabel() and png(notes)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"train/bound": [1.0]}, 'curves needs a column "step" or "epoch"; the columns are train/bound; add one'),
        ({}, "the columns are none"),
        ({"step": [1.0]}, "curves needs a column split/term with a value, such as train/bound; the columns are step"),
        ({"step": [1.0], "train/bound": [NAN]}, "curves needs a column split/term with a value"),
        ({"step": [1.0, 2.0], "train/bo\nund": [1.0]}, r'"train/bo\\nund" has 1 values and "step" 2; use NaN'),
        ({"step": [1.0, NAN], "train/bound": [1.0, 2.0]}, 'column "step" must be finite; it is nan in row 1'),
        ({"step": [], "train/bound": []}, 'column "step" is empty'),
        ({"step": [1.0], "train/bound": ["a"]}, 'column "train/bound" must hold real numbers'),
    ],
)
def test_mistakes_get_one_line(metrics: dict[str, list[float]], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        curves(metrics)
    assert "\n" not in str(error.value)
