"""Pictures of images: every pixel at its place, in the figure's one array, in the rendered PNG and in the file."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from vaekit.errors import InputError
from vaekit.viz import manifold, pairs, png, save_png, sheet, strips, traversals

MAGENTA = (255, 0, 255)
BLUE = (0, 114, 178)
PAPER = (255, 255, 255)


def levels(*shape: int) -> torch.Tensor:
    """Images of distinct 8-bit levels, so that a pixel in the wrong place is a wrong value."""
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(1)).float() / 255


def shown(figure: Figure) -> NDArray[np.uint8]:
    (image,) = figure.axes[0].images
    return np.asarray(image.get_array())


def cells(array: NDArray[np.uint8], *, rows: int, columns: int, h: int, w: int, gap: int = 1) -> NDArray[np.uint8]:
    """[rows, columns, h, w, 3]: the inside of each cell, one pixel from the middle of each upscaled block."""
    high, wide = (array.shape[0] - gap) // rows, (array.shape[1] - gap) // columns
    scale = (high - gap) // h
    assert array.shape == (rows * (h * scale + gap) + gap, columns * (w * scale + gap) + gap, 3)
    assert wide == w * scale + gap
    out = np.empty((rows, columns, h, w, 3), np.uint8)
    for r in range(rows):
        for c in range(columns):
            block = array[r * high + gap : (r + 1) * high, c * wide + gap : (c + 1) * wide].reshape(h, scale, w, scale, 3)
            assert (block == block[:, :1, :, :1]).all(), "nearest neighbour: each pixel is one flat square"
            out[r, c] = block[:, 0, :, 0]
    return out


def rgb(x: torch.Tensor) -> NDArray[np.uint8]:
    """[*, H, W, 3] by torch, where the package uses numpy."""
    return (x * 255).round().to(torch.uint8).movedim(-3, -1).expand(*x.shape[:-3], *x.shape[-2:], 3).numpy()


def test_sheet_holds_every_pixel_in_reading_order() -> None:
    x = levels(6, 3, 5, 4)
    array = shown(sheet(x, columns=3))
    assert (cells(array, rows=2, columns=3, h=5, w=4) == rgb(x).reshape(2, 3, 5, 4, 3)).all()


def test_sheet_of_grey_images_is_grey() -> None:
    x = levels(4, 1, 8, 8)
    array = shown(sheet(x, columns=2))
    assert (cells(array, rows=2, columns=2, h=8, w=8) == rgb(x).reshape(2, 2, 8, 8, 3)).all()


def test_places_past_the_last_image_stay_paper_and_get_no_frame() -> None:
    array = shown(sheet(torch.zeros(5, 1, 8, 8), columns=3))
    high, wide = (array.shape[0] - 1) // 2, (array.shape[1] - 1) // 3
    assert (array[high + 1 :, 2 * wide + 1 :] == PAPER).all()
    assert (array[high + 1 : 2 * high, wide + 1 : 2 * wide] == 0).all(), "the fifth image is there"


def test_separators_show_on_black_and_on_white() -> None:
    for value in (0.0, 1.0):
        array = shown(sheet(torch.full((2, 1, 8, 8), value), columns=2)).astype(int)
        middle = array.shape[1] // 2
        assert abs(array[5, middle] - round(255 * value)).min() > 60
        assert (array[5, middle - 1] == round(255 * value)).all() and (array[5, middle + 1] == round(255 * value)).all()


@pytest.mark.parametrize(("n", "columns"), [(1, 1), (2, 2), (7, 3), (10, 5), (16, 4), (64, 8), (100, 10)])
def test_default_columns_leave_no_hole_where_they_can(n: int, columns: int) -> None:
    array = shown(sheet(levels(n, 1, 28, 28)))
    cells(array, rows=-(-n // columns), columns=columns, h=28, w=28)


@pytest.mark.parametrize("x", [levels(64, 1, 8, 8), levels(12, 3, 32, 32), levels(1, 1, 28, 28)], ids=["digits", "colour", "one"])
def test_the_rendered_png_is_the_array_pixel_for_pixel(x: torch.Tensor) -> None:
    figure = sheet(x)
    rendered = np.asarray(Image.open(io.BytesIO(png(figure))).convert("RGB"))
    array = shown(figure)
    assert (rendered.shape[1], rendered.shape[0]) == tuple(np.rint(figure.get_size_inches() * figure.dpi).astype(int))
    box = figure.axes[0].get_position()
    left, top = round(box.x0 * rendered.shape[1]), round((1 - box.y1) * rendered.shape[0])
    assert (rendered[top : top + array.shape[0], left : left + array.shape[1]] == array).all()


def test_tiny_images_are_upscaled_and_many_stay_on_the_page() -> None:
    assert shown(sheet(levels(4, 1, 8, 8))).shape[0] > 200
    for n in (400, 441, 900):  # up to 42 columns one screen pixel or more per pixel, so nothing is resampled
        figure = sheet(levels(n, 1, 8, 8))
        assert shown(figure).shape[1] <= 1200 and figure.axes[0].get_position().width * figure.bbox.width == pytest.approx(
            shown(figure).shape[1]
        )
    width, height = sheet(levels(900, 1, 28, 28)).get_size_inches() * 110
    assert width < 1300 and height < 1700
    width, height = sheet(levels(4, 3, 1024, 1024)).get_size_inches() * 110
    assert width < 1300 and height < 1700


def test_nan_is_magenta_and_clipping_is_said() -> None:
    x = levels(2, 3, 4, 4) * 0.9
    x[0, 1, 2, 3] = float("nan")  # one channel of a pixel
    x[1, 0, 0, 0] = float("inf")
    x[1, 2, 1, 1] = 1.5
    x[1, 2, 2, 2] = -1e-4  # rounds to 0 anyway: no news
    figure = sheet(x, columns=2)
    got = cells(shown(figure), rows=1, columns=2, h=4, w=4)[0]
    assert [tuple(map(int, i)) for i in np.argwhere((got == MAGENTA).all(-1))] == [(0, 2, 3), (1, 0, 0)]
    assert got[1, 1, 1, 2] == 255
    texts = [t.get_text() for t in figure.texts]
    assert any("2 pixels (6.2%) not finite (magenta); 1 pixel (3.1%) outside [0, 1], clipped" in t.replace("\n", " ") for t in texts)


def test_a_picture_as_it_is_has_no_note() -> None:
    assert [t.get_text() for t in sheet(levels(2, 1, 8, 8)).texts if t.get_text()] == ["2 images of 8 × 8 pixels"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool, torch.uint8, torch.int64])
def test_every_dtype_shows_zeros_and_ones(dtype: torch.dtype) -> None:
    x = (levels(2, 1, 4, 4) > 0.5).to(dtype)
    assert (cells(shown(sheet(x, columns=2)), rows=1, columns=2, h=4, w=4)[0] == rgb(x.float())).all()


def test_arrays_and_tensors_with_gradients_are_the_same_picture() -> None:
    x = levels(3, 1, 8, 8)
    assert (shown(sheet(x.numpy())) == shown(sheet(x.clone().requires_grad_()))).all()
    assert (shown(sheet(x.tolist())) == shown(sheet(x))).all()


def test_pairs_put_each_reconstruction_below_its_original() -> None:
    x, x_hat = levels(5, 1, 7, 7), levels(5, 1, 7, 7).flip(0)
    figure = pairs(x, x_hat, columns=3)
    array = shown(figure)
    scale = (array.shape[1] - 1) // 3 // 7
    band = 2 * (7 * scale + 1) + 1
    first, second = array[:band], array[-band:, : 2 * (7 * scale + 1) + 1]
    assert (cells(first, rows=2, columns=3, h=7, w=7) == np.stack([rgb(x[:3]), rgb(x_hat[:3])])).all()
    assert (cells(second, rows=2, columns=2, h=7, w=7) == np.stack([rgb(x[3:]), rgb(x_hat[3:])])).all()
    assert (array[band:-band] == PAPER).all() and array.shape[0] > 2 * band
    axes = figure.axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["data", "reconstruction"] * 2
    rows = [array[round(y), 4] for y in axes.get_yticks()]  # each label stands at its row
    middle = [rgb(i)[3, 0] for i in (x[0], x_hat[0], x[3], x_hat[3])]
    assert (np.array(rows) == np.array(middle)).all()


def test_row_labels_lie_on_the_page() -> None:
    figure = pairs(levels(2, 1, 8, 8), levels(2, 1, 8, 8))
    png(figure)
    for label in figure.axes[0].get_yticklabels():
        assert label.get_window_extent().x0 >= 4


def test_pairs_name_the_side_that_is_not_finite() -> None:
    x_hat = levels(2, 1, 8, 8)
    x_hat[0, 0, 0, 0] = float("nan")
    texts = " ".join(t.get_text() for t in pairs(levels(2, 1, 8, 8), x_hat).texts).replace("\n", " ")
    assert "reconstructions: 1 pixel (0.8%) not finite" in texts and "data: 1" not in texts


def test_strips_frame_the_data_at_both_ends() -> None:
    frames = levels(2, 5, 1, 8, 8) * 0.5
    figure = strips(frames)
    array = shown(figure)
    assert (cells(array, rows=2, columns=5, h=8, w=8, gap=3) == rgb(frames)).all()
    wide = (array.shape[1] - 3) // 5
    blue = (array == BLUE).all(-1)
    assert blue[:, :3].all() and blue[:, wide : wide + 3].all() and blue[:, -3:].all() and blue[:, 4 * wide : 4 * wide + 3].all()
    assert blue[:3, :wide].all() and not blue[:, wide + 3 : 4 * wide].any(), "decoded frames have no frame"
    axes = figure.axes[0]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["data", "data"]
    assert axes.get_xticks() == pytest.approx([wide / 2 + 1, array.shape[1] - wide / 2 - 2], abs=1)


def test_traversals_have_a_row_per_dimension_and_a_column_per_value() -> None:
    frames = levels(6, 1, 8, 8).unflatten(0, (2, 3))
    figure = traversals(frames, values=[-2.0, 0.04, 1.25], names=["z[3], 1.2 nats", "z[0] $x_1$"])
    array, axes = shown(figure), figure.axes[0]
    scale = (array.shape[1] - 3) // 3 // 8
    for r in range(2):
        for s in range(3):
            top, left = r * (8 * scale + 3) + 3, s * (8 * scale + 3) + 3
            assert (array[top : top + 8 * scale : scale, left : left + 8 * scale : scale] == rgb(frames[r, s])).all()
    assert [t.get_text() for t in axes.get_xticklabels()] == ["−2.0σ", "0", "+1.2σ"]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["z[3], 1.2 nats", "z[0] $x_1$"]
    assert axes.get_yticks()[0] < axes.get_yticks()[1]  # the first row is on top: rows count downwards
    png(figure)
    narrow = traversals(levels(20, 1, 28, 20).unflatten(0, (1, 20)), values=torch.linspace(-2, 2, 20), names=["z"])
    ticks = narrow.axes[0].get_xticklabels()
    assert 5 <= len(ticks) < 20 and ticks[0].get_text() == "−2.0σ"  # as many as have room


@pytest.mark.parametrize(("values", "names"), [([0.0], ["a"]), ([0.0, 1.0], ["a", "b"])])
def test_traversals_say_what_does_not_match(values: list[float], names: list[str]) -> None:
    with pytest.raises(InputError, match=rf"1 rows of 2 frames need 1 names and 2 values; there are {len(names)} and {len(values)}"):
        traversals(levels(2, 1, 4, 4).unflatten(0, (1, 2)), values=values, names=names)


def test_manifold_has_z1_to_the_right_and_z2_upwards() -> None:
    z = torch.tensor([-1.5, 0.0, 0.25])
    n = len(z)
    frames = (torch.arange(n * n).float() / 10).view(n, n, 1, 1, 1).expand(n, n, 1, 4, 4)  # value (3 i + j) / 10
    figure = manifold(frames, quantiles=z)
    array, axes = shown(figure), figure.axes[0]
    assert axes.get_xlabel() == "$z_1$" and axes.get_ylabel() == "$z_2$"
    across = {t.get_text(): round(x) for t, x in zip(axes.get_xticklabels(), axes.get_xticks(), strict=True)}
    up = {t.get_text(): round(y) for t, y in zip(axes.get_yticklabels(), axes.get_yticks(), strict=True)}
    assert list(across) == ["−1.50", "0.00", "0.25"] and set(up) == set(across)
    for i, z1 in enumerate(across):
        for j, z2 in enumerate(across):
            assert array[up[z2], across[z1], 0] == round(255 * (n * i + j) / 10)
    assert up["0.25"] < up["−1.50"], "rows count downwards"
    png(figure)
    assert axes.yaxis.label.get_window_extent().x0 >= 2, "the label is on the page"


def test_manifold_labels_do_not_crowd_and_zero_has_no_sign() -> None:
    z = np.linspace(-2, 2, 41)
    z[20] = -1e-12
    figure = manifold(levels(41, 41, 1, 4, 4), quantiles=z)
    labels = figure.axes[0].get_xticklabels()
    assert len(labels) < 41 and "0.0" in [t.get_text() for t in labels] and labels[0].get_text() == "−2.0"
    png(figure)
    boxes = [t.get_window_extent() for t in labels]
    assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))


def test_titles_are_text_not_mathematics() -> None:
    figure = sheet(levels(2, 1, 8, 8), title=r"cost $\frac{1$ & line" + "\nbreak \u202eabc 犬")
    png(figure)
    assert figure.texts[0].get_text().replace("\n", " ") == r"cost $\frac{1$ & line\nbreak \u202eabc \u72ac"


def test_long_titles_are_wrapped_within_the_figure() -> None:
    figure = sheet(levels(1, 1, 8, 8), title="WWWW " * 60 + "W" * 300)
    png(figure)
    box = figure.texts[0].get_window_extent()
    assert box.x1 <= figure.bbox.x1 and box.y0 > figure.axes[0].get_window_extent().y1


BAD = {
    "three axes": (
        lambda: sheet(levels(4, 8, 8)),
        r"sheet: x must have shape \[N, C, H, W\]; it has shape \[4, 8, 8\]; add the channel axis",
    ),
    "five axes": (lambda: sheet(levels(1, 1, 1, 4, 4)), "it has shape"),
    "no images": (lambda: sheet(torch.zeros(0, 1, 8, 8)), r"sheet: x is empty: shape \[0, 1, 8, 8\]"),
    "no pixels": (lambda: sheet(torch.zeros(2, 1, 0, 8)), "is empty"),
    "two channels": (lambda: sheet(levels(2, 2, 8, 8)), "1 or 3 channels.*choose the channels to show"),
    "channels last": (lambda: sheet(levels(2, 8, 8, 3)), r"shape is \[2, 8, 8, 3\]; move the channels there with movedim\(-1, -3\)"),
    "bytes": (lambda: sheet(np.full((1, 1, 2, 2), 200, np.uint8)), "it is uint8 from 200 to 200; divide by the top level, such as 255"),
    "negative integers": (lambda: sheet(np.full((1, 1, 2, 2), -1)), "from -1 to -1"),
    "complex": (lambda: sheet(torch.zeros(1, 1, 2, 2, dtype=torch.complex64)), "its dtype is complex64"),
    "strings": (lambda: sheet(np.full((1, 1, 2, 2), "a")), "must hold real numbers"),
    "ragged": (lambda: sheet([[1.0], [1.0, 2.0]]), "must be one rectangular array"),
    "columns": (lambda: sheet(levels(2, 1, 4, 4), columns=0), "sheet: columns must be at least 1; it is 0"),
    "pairs of other sizes": (
        lambda: pairs(levels(2, 1, 8, 8), levels(3, 1, 8, 8)),
        r"x has \[2, 8, 8\] and x_hat \[3, 8, 8\]; pass one reconstruction for each image",
    ),
    "pairs, second": (lambda: pairs(levels(2, 1, 8, 8), levels(2, 4, 8, 8)), "pairs: x_hat must have 1 or 3 channels"),
    "strips of one": (lambda: strips(levels(2, 1, 1, 8, 8)), "S >= 2; frames have S = 1"),
    "manifold not square": (lambda: manifold(levels(2, 3, 1, 4, 4), quantiles=[0.0, 1.0]), "they are 2 x 3 with 2"),
    "manifold quantiles": (lambda: manifold(levels(2, 2, 1, 4, 4), quantiles=[0.0, 1.0, 2.0]), "they are 2 x 2 with 3"),
    "manifold falling": (lambda: manifold(levels(2, 2, 1, 4, 4), quantiles=[1.0, 0.0]), r"must be finite and rise; they are \[1. 0.\]"),
    "manifold infinite": (lambda: manifold(levels(2, 2, 1, 4, 4), quantiles=[0.0, np.inf]), "must be finite and rise"),
}


@pytest.mark.parametrize("fault", BAD)
def test_mistakes_get_one_line(fault: str) -> None:
    call, message = BAD[fault]
    with pytest.raises(InputError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_save_png_keeps_every_level(tmp_path: Path) -> None:
    x = levels(6, 3, 5, 4)
    save_png(x, tmp_path / "x.png", columns=3)
    with Image.open(tmp_path / "x.png") as image:
        assert image.mode == "RGB" and image.size == (3 * 4 + 2, 2 * 5 + 1)
        array = np.asarray(image)
    for i in range(6):
        r, c = divmod(i, 3)
        assert (array[r * 6 : r * 6 + 5, c * 5 : c * 5 + 4] == rgb(x[i])).all()


def test_one_image_is_saved_as_itself_and_grey(tmp_path: Path) -> None:
    x = torch.tensor(load_digits().images[:1, None] / 16)
    save_png(x, str(tmp_path / "x.PNG"))
    with Image.open(tmp_path / "x.PNG") as image:
        assert image.mode == "L" and image.size == (8, 8)
        assert (np.asarray(image) == rgb(x)[0, ..., 0]).all()


def test_save_png_upscales_by_whole_pixels(tmp_path: Path) -> None:
    x = levels(1, 1, 3, 3)
    save_png(x, tmp_path / "x.png", scale=4)
    with Image.open(tmp_path / "x.png") as image:
        assert (np.asarray(image) == rgb(x)[0, ..., 0].repeat(4, 0).repeat(4, 1)).all()


def test_save_png_marks_what_is_not_finite(tmp_path: Path) -> None:
    x = levels(1, 1, 3, 3)
    x[0, 0, 1, 2] = float("nan")
    save_png(x, tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as image:
        assert image.mode == "RGB" and image.getpixel((2, 1)) == MAGENTA


def test_a_failed_save_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"old")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", refuse)
        with pytest.raises(InputError, match="no space left"):
            save_png(levels(1, 1, 3, 3), path)
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["x.png"]
    save_png(levels(1, 1, 3, 3), path)
    assert path.read_bytes()[:4] == b"\x89PNG" and [p.name for p in tmp_path.iterdir()] == ["x.png"]


@pytest.mark.parametrize(
    ("name", "scale", "message"),
    [
        ("x.jpg", 1, "does not end in .png; change the name"),
        ("x", 1, "does not end in .png"),
        ("nowhere/x.png", 1, "cannot write .*nowhere/x.png: no such file or directory"),
        ("x.png", 0, "scale must be at least 1; it is 0"),
    ],
)
def test_save_png_says_what_cannot_be(tmp_path: Path, name: str, scale: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        save_png(levels(1, 1, 3, 3), tmp_path / name, scale=scale)
    assert list(tmp_path.iterdir()) == []
