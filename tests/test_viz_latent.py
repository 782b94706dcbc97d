"""Pictures of the latent space: the points and bars drawn are the numbers given, in the right place and order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from vaekit.errors import InputError
from vaekit.viz import kl_bars, png, scatter
from vaekit.viz.figure import CATEGORIES


def points(axes: Axes) -> NDArray[np.float64]:
    return np.concatenate([np.asarray(c.get_offsets()) for c in axes.collections])


def in_order(figure: Figure) -> NDArray[np.float64]:
    """Where each row of z was drawn, if its label is its number and there are too many for a legend."""
    (drawn,) = figure.axes[0].collections
    number = drawn.get_array()
    assert number is not None
    return np.asarray(drawn.get_offsets())[np.argsort(number)]


def colours(axes: Axes) -> list[str]:
    return [to_hex(c) for collection in axes.collections for c in collection.get_facecolors()]


def legend(figure: Figure) -> dict[str, str]:
    box = figure.axes[0].get_legend()
    assert box is not None
    return {t.get_text(): to_hex(h.get_color()) for t, h in zip(box.get_texts(), box.legend_handles, strict=True)}  # type: ignore[union-attr]


def notes(figure: Figure) -> str:
    return figure.get_supxlabel().replace("\n", " ")


def rows(a: NDArray[np.float64]) -> NDArray[np.float64]:
    return a[np.lexsort(a.T)]


def test_two_dimensions_are_drawn_as_they_are() -> None:
    z = torch.randn(50, 2)
    figure = scatter(z)
    assert rows(points(figure.axes[0])) == pytest.approx(rows(z.double().numpy()))
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("$z_1$", "$z_2$")
    assert figure.axes[0].get_legend() is None and notes(figure) == ""


def test_more_dimensions_are_the_principal_components_of_scikit_learn() -> None:
    z = load_digits().data[:500]
    oracle = PCA(2).fit(z)
    figure = scatter(z, label=range(500))
    drawn, expected = in_order(figure), oracle.transform(z)
    for name, share in zip((figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()), oracle.explained_variance_ratio_, strict=True):
        assert f"({share:.1%} of the variance)" in name
    for i in range(2):
        sign = np.sign(np.dot(drawn[:, i], expected[:, i]))
        assert sign * drawn[:, i] == pytest.approx(expected[:, i], abs=1e-8)


def test_principal_components_do_not_flip_with_the_sign_of_the_solver() -> None:
    z = np.random.default_rng(0).normal(size=(200, 4)) * [1, 5, 2, 0.1]  # the first component is along z_2, the second along z_3
    drawn = in_order(scatter(z, label=range(200)))
    assert np.corrcoef(drawn[:, 0], z[:, 1])[0, 1] > 0.99 and np.corrcoef(drawn[:, 1], z[:, 2])[0, 1] > 0.99
    mirrored = in_order(scatter(-z, label=range(200)))
    assert mirrored == pytest.approx(-drawn), "the sign belongs to the axes, not to the data"


def test_every_label_has_its_colour_and_name() -> None:
    z, label = torch.randn(60, 2), torch.arange(60) % 3
    figure = scatter(z, label=label, label_names=["ape", "bee", "cat"])
    key = legend(figure)
    assert list(key) == ["ape", "bee", "cat"] and len(set(key.values())) == 3
    where = {tuple(np.round(p, 9)): c for p, c in zip(points(figure.axes[0]), colours(figure.axes[0]), strict=True)}
    for p, k in zip(z.double().numpy(), label.tolist(), strict=True):
        assert where[tuple(np.round(p, 9))] == key[["ape", "bee", "cat"][k]]


def test_names_follow_the_labels_that_occur() -> None:
    figure = scatter(torch.randn(10, 2), label=torch.tensor([3, 1] * 5), label_names=["a", "b", "c", "d"])
    assert list(legend(figure)) == ["b", "d"]


def test_twenty_labels_have_twenty_marks() -> None:
    figure = scatter(torch.randn(400, 2), label=torch.arange(400) % 20)
    box = figure.axes[0].get_legend()
    assert box is not None
    marks = {(to_hex(h.get_color()), h.get_marker()) for h in box.legend_handles}  # type: ignore[union-attr]
    assert len(marks) == 20
    first, second = figure.axes[0].collections
    assert len(first.get_offsets()) == len(second.get_offsets()) == 200
    assert first.get_paths()[0].vertices.shape != second.get_paths()[0].vertices.shape, "the second ten have another marker"


def test_many_numbers_are_a_colour_scale_and_many_names_the_frequent_ones() -> None:
    label = torch.arange(300).float()
    figure = scatter(torch.randn(300, 2), label=label)
    assert figure.axes[0].get_legend() is None and len(figure.axes) == 2
    scale = figure.axes[0].collections[0].get_array()
    assert scale is not None and sorted(scale.tolist()) == label.tolist()
    names = [f"n{min(i, 24):02d}" for i in range(100)]  # n24 comes 76 times, the others once
    key = legend(scatter(torch.randn(100, 2), label=names))
    assert len(key) == 20 and "n24" in key and list(key)[-1] == "6 others"
    assert key["6 others"] not in [c for name, c in key.items() if name != "6 others"]


def test_names_are_drawn_as_text() -> None:
    figure = scatter(torch.randn(4, 2), label=[0, 0, 1, 1], label_names=["_a $\\frac{$", "b\n\u202ec" + "x" * 40])
    png(figure)
    first, second = legend(figure)
    assert first == "_a $\\frac{$" and second.startswith("b\\n\\u202ecx") and len(second) == 24 and second.endswith("…")


def test_names_stand_at_the_medians_where_there_is_room() -> None:
    z = np.concatenate([np.random.default_rng(k).normal(size=(50, 2)) + 20 * k for k in range(3)])
    label = np.repeat([0, 1, 2], 50)
    found = {t.get_text(): t.get_position() for t in scatter(z, label=label).axes[0].texts}
    assert found == {str(k): pytest.approx(tuple(np.median(z[label == k], 0))) for k in range(3)}
    assert len(scatter(z, label=np.arange(150) % 3).axes[0].texts) == 0, "all three medians are at the middle"


def test_thinning_keeps_ten_thousand_of_the_points_and_says_so() -> None:
    z = torch.randn(12_345, 2)
    figure = scatter(z, label=torch.arange(12_345) % 2)
    drawn = points(figure.axes[0])
    assert len(drawn) == 10_000 and notes(figure) == "10,000 of 12,345 points drawn, at random"
    assert {tuple(p) for p in drawn} <= {tuple(p) for p in z.double().numpy()}
    assert (drawn == points(scatter(z, label=torch.arange(12_345) % 2).axes[0])).all(), "the same points each time"
    assert all(c.get_rasterized() for c in figure.axes[0].collections)
    assert figure.get_suptitle() == "12,345 latent codes, by label"


def test_components_come_from_all_points_not_the_drawn_ones() -> None:
    z = torch.randn(11_000, 3) * torch.tensor([3.0, 2.0, 1.0])
    share = PCA(2).fit(z.numpy()).explained_variance_ratio_
    assert f"({share[0]:.1%}" in scatter(z).axes[0].get_xlabel()


def test_codes_that_are_not_finite_are_left_out_and_counted() -> None:
    z = torch.randn(20, 2)
    z[3, 1], z[7, 0] = float("nan"), float("inf")
    for label in (torch.arange(20), torch.arange(40)[::2] + 3):
        figure = scatter(z, label=label)
        where = {tuple(p): c for p, c in zip(points(figure.axes[0]), colours(figure.axes[0]), strict=True)}
        assert len(where) == 18 and notes(figure) == "2 of 20 codes not finite, left out"
        key = legend(figure)
        for i in set(range(20)) - {3, 7}:
            assert where[tuple(z[i].double().tolist())] == key[str(int(label[i]))]
    z = torch.randn(30, 2)
    z[4] = float("nan")
    scale = scatter(z, label=range(30)).axes[0].collections[0].get_array()
    assert scale is not None and sorted(scale.tolist()) == [i for i in range(30) if i != 4]


@pytest.mark.parametrize("label", [None, torch.arange(300) % 3])
def test_one_dimension_is_a_histogram_of_all_codes(label: torch.Tensor | None) -> None:
    z = torch.randn(300, 1)
    axes = scatter(z, label=label).axes[0]
    steps = [p for p in axes.patches if isinstance(p, StepPatch) and not p.get_fill()]
    groups = [z] if label is None else [z[label == k] for k in range(3)]
    assert len(steps) == len(groups)
    for step, group in zip(steps, groups, strict=True):
        counts, edges, _ = step.get_data()
        assert (counts == np.histogram(group.double().numpy(), edges)[0]).all() and counts.sum() == len(group)
    assert axes.get_xlabel() == "$z_1$" and axes.get_ylabel().startswith("codes per bin of 0.")


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (1, 5), (7, 1), (7, 2), (7, 3)])
def test_equal_codes_can_be_drawn(shape: tuple[int, int]) -> None:
    assert len(png(scatter(torch.ones(shape), label=torch.zeros(shape[0])))) > 1000


@pytest.mark.parametrize(
    ("z", "label", "names", "message"),
    [
        (torch.zeros(5), None, None, r"scatter: z must have shape \[N, D\]; it has shape \[5\]"),
        (torch.zeros(0, 2), None, None, "z is empty"),
        (torch.zeros(5, 0), None, None, "z is empty"),
        (torch.full((3, 2), float("nan")), None, None, "none of its 3 rows is"),
        (torch.zeros(5, 2), torch.zeros(4), None, r"one entry per code, \[5\]; it has shape \[4\]"),
        (torch.zeros(2, 2), [0, 2], ["a", "b"], "index the 2 label_names; they run from 0 to 2"),
        (torch.zeros(2, 2), [-1, 1], ["a", "b"], "they run from -1 to 1"),
        (torch.zeros(2, 2), [0.5, 1.0], ["a", "b"], "must be integers"),
        (torch.zeros(2, 2), [None, "a"], None, "numbers or strings, not both; its dtype is object"),
        (np.zeros((2, 2), complex), None, None, "its dtype is complex128"),
    ],
)
def test_scatter_says_what_cannot_be(z: object, label: object, names: list[str] | None, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        scatter(z, label=label, label_names=names)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def bars(figure: Figure, n: int) -> list[tuple[float, str]]:
    return [(p.get_height(), to_hex(p.get_facecolor())) for p in figure.axes[0].patches[:n]]


def test_bars_fall_and_the_unused_ones_differ() -> None:
    kl = torch.tensor([0.002, 1.5, 0.01, 4.0, -0.001], dtype=torch.float64)
    figure = kl_bars(kl, threshold=0.01)
    drawn = bars(figure, 5)
    assert [h for h, _ in drawn] == pytest.approx([4.0, 1.5, 0.01, 0.002, -0.001])
    assert drawn[0][1] == drawn[1][1] != drawn[2][1] == drawn[3][1] == drawn[4][1], "at the threshold is unused"
    axes = figure.axes[0]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["3", "1", "2", "0", "4"]
    assert axes.get_ylabel() == "KL per dimension (nats)"
    assert axes.lines[0].get_ydata() == [0.01, 0.01]
    assert figure.get_suptitle() == "2 of 5 latent dimensions cost more than 0.01 nats; 5.51 nats in all"
    box = axes.get_legend()
    assert box is not None
    assert [t.get_text() for t in box.get_texts()] == ["2 above 0.01 nats", "3 at most that", "threshold, 0.01 nats"]


@pytest.mark.parametrize("d", [1, 2, 9, 30])
def test_bars_stand_in_the_middle(d: int) -> None:
    axes = kl_bars([1.0] * d, threshold=0.01).axes[0]
    low, high = axes.get_xlim()
    left, right = axes.patches[0].get_x(), axes.patches[d - 1].get_x() + axes.patches[d - 1].get_width()
    assert left - low == pytest.approx(high - right) and left > low
    assert high - low == pytest.approx(max(d, 10) + 0.6)


def test_hundreds_of_dimensions_are_quick_and_ranked() -> None:
    kl = np.random.default_rng(0).gamma(0.3, size=600)
    figure = kl_bars(kl, threshold=0.1)
    assert [h for h, _ in bars(figure, 600)] == pytest.approx(sorted(kl, reverse=True))
    assert "rank" in figure.axes[0].get_xlabel() and len(figure.axes[0].get_xticklabels()) < 20
    assert len(png(figure)) < 100_000


def test_entries_that_are_not_finite_are_named() -> None:
    figure = kl_bars([1.0, float("nan"), 2.0, float("inf")], threshold=0.1)
    assert [h for h, _ in bars(figure, 2)] == [2.0, 1.0]
    assert notes(figure) == "not finite, left out: dimensions 1, 3"
    assert figure.get_suptitle().startswith("2 of 4 latent dimensions")


@pytest.mark.parametrize(
    ("kl", "threshold", "message"),
    [
        (torch.zeros(2, 3), 0.1, r"kl_bars: kl must have shape \[D\]; it has shape \[2, 3\]"),
        ([], 0.1, "kl is empty"),
        ([float("nan")], 0.1, "none of its 1 entries is"),
        ([1.0], float("nan"), "threshold must be a finite number of nats; it is nan"),
    ],
)
def test_kl_bars_says_what_cannot_be(kl: object, threshold: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        kl_bars(kl, threshold=threshold)  # type: ignore[arg-type]


# Machado, Oliveira & Fernandes (2009), severity 1, for linear RGB; and Ottosson's OKLab.
VISION = {
    "normal": np.eye(3),
    "protan": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    "deutan": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
    "tritan": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]),
}
LMS = np.array(
    [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566], [0.0883024619, 0.2817188376, 0.6299787005]]
)
LAB = np.array(
    [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099], [0.0259040371, 0.7827717662, -0.8086757660]]
)


@pytest.mark.parametrize("vision", VISION)
def test_label_colours_stay_apart_for_every_eye(vision: str) -> None:
    srgb = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in (*CATEGORIES, "#ffffff")])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    lab = np.cbrt(np.clip(linear @ VISION[vision].T, 0, 1) @ LMS.T) @ LAB.T
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=-1)[np.triu_indices(len(lab), 1)]
    assert apart.min() > 0.12  # ten times what is just noticeable, and from the white paper too
