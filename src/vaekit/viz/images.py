"""Pictures of images: samples, reconstructions, interpolations, traversals, the decoder over a grid.

Images are ``[C, H, W]`` with C = 1 (grey) or 3 (colour) and values in [0, 1]. Each figure holds ONE array, shown pixel for pixel
(``figure.axes[0].images[0].get_array()``): a hundred Axes would be slow, and resampling would lie about an 8 x 8 digit.

What is never silent: values outside [0, 1] are clipped for display, NaN and infinite ones are drawn magenta, and a note below counts both.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from torch import Tensor

from vaekit.errors import InputError
from vaekit.files import write_bytes
from vaekit.text import visible
from vaekit.viz.arrays import numbers, pixels, shape_text
from vaekit.viz.compose import PAPER, TALLEST, WIDEST, Picture, columns_for, frame, grid, scale_for
from vaekit.viz.figure import BLUE, DPI, GREY, INK, blank, shorten, styled, text_width, wrapped

__all__ = ["gap_for", "manifold", "pairs", "save_png", "sheet", "strips", "traversals"]

_DATA = (0, 114, 178)  # BLUE, as 8-bit levels


def gap_for(width: int) -> int:
    """Screen pixels between images ``width`` pixels wide: more for tiny ones, whose strokes reach their borders."""
    return 4 if width < 16 else 1


def sheet(x: Tensor | ArrayLike, *, columns: int | None = None, gap: int = 1, title: str | None = None) -> Figure:
    """Images in one tight grid, in reading order.

    Args:
        x: ``[N, C, H, W]`` in [0, 1].
        columns: images per row; by default about as many as rows.
        gap: screen pixels between images; more than 1 keeps strokes that reach the border of a tiny image apart.
        title: by default, the number of images and their size.

    Raises:
        InputError: x has another shape, no images, or other than 1 or 3 channels; ``columns`` is below 1.

    >>> import torch
    >>> figure = sheet(torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0)), columns=3)
    >>> figure.axes[0].images[0].get_array().shape  # 2 x 3 cells of 8 x 8, each upscaled 16 times, 1-pixel separators
    (259, 388, 3)
    """
    shown = pixels(x, "sheet: x", shape="[N, C, H, W]")
    n, h, w, _ = shown.rgb.shape
    columns = columns_for(n, columns, "sheet")
    scale = scale_for(h, w, rows=-(-n // columns), columns=columns, gap=gap)
    array = grid(shown.rgb, columns=columns, scale=scale, gap=gap)
    if title is None:
        title = f"{n:,} image{'s' if n != 1 else ''} of {h} × {w} pixels"
    return _figure(array, title=title, note=shown.note)


def pairs(
    x: Tensor | ArrayLike, x_hat: Tensor | ArrayLike, *, columns: int | None = None, gap: int = 1, title: str | None = None
) -> Figure:
    """Originals, and below each its reconstruction.

    Args:
        x, x_hat: ``[N, C, H, W]`` in [0, 1], the data and their reconstructions, in the same order.
        columns: pairs per band of two rows.
        gap: screen pixels between images, as in ``sheet``.

    Raises:
        InputError: the shapes differ, or as in ``sheet``.
    """
    data, recon = pixels(x, "pairs: x", shape="[N, C, H, W]"), pixels(x_hat, "pairs: x_hat", shape="[N, C, H, W]")
    n, h, w, _ = data.rgb.shape
    if data.rgb.shape != recon.rgb.shape:
        a, b = shape_text(data.rgb.shape[:3]), shape_text(recon.rgb.shape[:3])
        raise InputError(f"pairs: x and x_hat must agree in [N, H, W]; x has {a} and x_hat {b}; pass one reconstruction for each image")
    columns = min(n, 10) if columns is None else min(n, columns_for(n, columns, "pairs"))
    bands = -(-n // columns)
    between = 9
    scale = scale_for(h, w, rows=2 * bands, columns=columns, gap=max(gap, between))
    width = columns * (w * scale + gap) + gap
    blocks: list[Picture] = []
    ticks: list[float] = []
    for start in range(0, n, columns):
        both = np.concatenate([data.rgb[start : start + columns], recon.rgb[start : start + columns]])
        block = grid(both, columns=len(both) // 2, scale=scale, gap=gap)
        top = len(blocks) * (block.shape[0] + between)
        ticks += [top + gap + h * scale / 2, top + 2 * gap + h * scale * 3 / 2]
        blocks.append(_pad(block, width))
    space = np.full((between, width, 3), PAPER, np.uint8)
    array = np.concatenate([part for block in blocks for part in (block, space)][:-1])
    note = "; ".join(f"{name}: {p.note}" for name, p in (("data", data), ("reconstructions", recon)) if p.note)
    if title is None:
        title = "Data, and below each its reconstruction"
    figure = _figure(array, title=title, note=note, left=round(text_width("reconstruction", size=8.5)) + 6)
    axes = figure.axes[0]
    axes.set_yticks([t - 0.5 for t in ticks], ["data", "reconstruction"] * bands)
    return figure


def strips(frames: Tensor | ArrayLike, *, title: str | None = None) -> Figure:
    """Interpolations, one row each; the two ends are the data and stand in a blue frame.

    Args:
        frames: ``[R, S, C, H, W]`` in [0, 1]; ``frames[:, 0]`` and ``frames[:, -1]`` are data, what lies between is decoded.

    Raises:
        InputError: fewer than two frames in a row, or as in ``sheet``.
    """
    shown = pixels(frames, "strips: frames", shape="[R, S, C, H, W]")
    r, s, h, w, _ = shown.rgb.shape
    if s < 2:
        raise InputError(f"strips: a row needs its two ends, S >= 2; frames have S = {s}; put data at both ends")
    gap = 3
    scale = scale_for(h, w, rows=r, columns=s, gap=gap)
    array = grid(shown.rgb.reshape(r * s, h, w, 3), columns=s, scale=scale, gap=gap, line=PAPER)
    for row in range(r):
        for column in (0, s - 1):
            top, left = row * (h * scale + gap), column * (w * scale + gap)
            frame(array[top : top + h * scale + 2 * gap, left : left + w * scale + 2 * gap], gap, _DATA)
    if title is None:
        title = f"{r} interpolation{'s' if r != 1 else ''} in latent space, each between two images"
    figure = _figure(array, title=title, note=shown.note, top=20)
    axes = figure.axes[0]
    axes.xaxis.tick_top()
    axes.set_xticks([column * (w * scale + gap) + gap + w * scale / 2 - 0.5 for column in (0, s - 1)], ["data", "data"], color=BLUE)
    if s > 3:
        above = {"xycoords": "axes fraction", "xytext": (0, 3.5), "textcoords": "offset points"}
        axes.annotate("decoded →", (0.5, 1), **above, ha="center", color=GREY, fontsize=8.5)  # type: ignore[arg-type]
    return figure


def traversals(frames: Tensor | ArrayLike, *, values: Tensor | ArrayLike, names: Sequence[str], title: str | None = None) -> Figure:
    """Latent dimensions, each moved alone: a row per dimension, a column per value.

    Args:
        frames: ``[R, S, C, H, W]`` in [0, 1]; ``frames[r, s]`` is decoded with dimension r at ``values[s]``.
        values: ``[S]``, written above the columns, in standard deviations of the prior.
        names: R names, written before the rows.

    Raises:
        InputError: other numbers of values or names than of columns and rows, or as in ``sheet``.
    """
    shown = pixels(frames, "traversals: frames", shape="[R, S, C, H, W]")
    at = numbers(values, "traversals: values", ndim=1, shape="[S]")
    r, s, h, w, _ = shown.rgb.shape
    if len(at) != s or len(names) != r:
        raise InputError(
            f"traversals: {r} rows of {s} frames need {r} names and {s} values; there are {len(names)} and {len(at)}; give one each"
        )
    gap = 3
    scale = scale_for(h, w, rows=r, columns=s, gap=gap)
    array = grid(shown.rgb.reshape(r * s, h, w, 3), columns=s, scale=scale, gap=gap, line=PAPER)
    if title is None:
        title = f"{r} latent dimension{'s' if r != 1 else ''}, each moved alone"
    labels = [shorten(name, 24) for name in names]
    figure = _figure(array, title=title, note=shown.note, left=round(max(text_width(t, size=8.5) for t in labels)) + 10, top=20)
    axes = figure.axes[0]
    axes.xaxis.tick_top()
    above = [f"{v:+.1f}σ".replace("-", "−") if round(v, 1) else "0" for v in at]
    widest = max(text_width(text, size=8.5) for text in above) + 6
    shown_at = range(0, s, math.ceil(widest / (axes.get_position().width * figure.get_figwidth() * DPI / s)))
    axes.set_xticks([i * (w * scale + gap) + gap + w * scale / 2 - 0.5 for i in shown_at], [above[i] for i in shown_at], color=GREY)
    axes.set_yticks([row * (h * scale + gap) + gap + h * scale / 2 - 0.5 for row in range(r)], labels, parse_math=False)
    return figure


def manifold(frames: Tensor | ArrayLike, *, quantiles: Tensor | ArrayLike, gap: int = 1, title: str | None = None) -> Figure:
    """The decoder over a grid of a two-dimensional latent space (Kingma & Welling, 2014, figure 4).

    Args:
        frames: ``[n, n, C, H, W]``; ``frames[i, j]`` decodes ``z = (quantiles[i], quantiles[j])``, the order of ``torch.cartesian_prod``.
            z_1 runs to the right and z_2 upwards.
        quantiles: ``[n]``, the values of z along both axes, rising; the prior's quantiles at equal steps of probability give each
            picture the same prior mass.
        gap: screen pixels between images, as in ``sheet``.

    Raises:
        InputError: the grid is not square, ``quantiles`` has another length or does not rise, or as in ``sheet``.
    """
    shown = pixels(frames, "manifold: frames", shape="[n, n, C, H, W]")
    z = numbers(quantiles, "manifold: quantiles", ndim=1, shape="[n]")
    n, m, h, w, _ = shown.rgb.shape
    if n != m or len(z) != n:
        raise InputError(
            f"manifold: frames must be n x n with n quantiles; they are {n} x {m} with {len(z)}; decode one per pair of values"
        )
    if not np.isfinite(z).all() or (np.diff(z) <= 0).any():
        raise InputError(f"manifold: quantiles must be finite and rise; they are {np.array2string(z, precision=3, threshold=8)}; sort them")
    scale = scale_for(h, w, rows=n, columns=n, gap=gap)
    rows = shown.rgb.transpose(1, 0, 2, 3, 4)[::-1]  # [z_2 downwards, z_1]
    array = grid(rows.reshape(n * n, h, w, 3), columns=n, scale=scale, gap=gap)
    if title is None:
        title = f"The decoder over z₁ and z₂, {n} × {n} values"
    digits = _digits(z)
    ticks = [f"{v:.{digits}f}".replace("-", "−") for v in np.round(z, digits) + 0.0]  # + 0.0 makes a zero of minus zero
    figure = _figure(array, title=title, note=shown.note, left=round(max(text_width(t, size=8.5) for t in ticks)) + 30, bottom=40)
    axes = figure.axes[0]
    every = max(1, math.ceil(n * 44 / (axes.get_position().width * figure.get_figwidth() * DPI)))
    at = range(0, n, every)
    labels = [ticks[i] for i in at]
    axes.set_xticks([i * (w * scale + gap) + w * scale / 2 + gap - 0.5 for i in at], labels)
    axes.set_yticks([(n - 1 - i) * (h * scale + gap) + h * scale / 2 + gap - 0.5 for i in at], labels)
    axes.tick_params(length=3)
    axes.set_xlabel("$z_1$", labelpad=2)
    axes.set_ylabel("$z_2$", labelpad=2)
    return figure


def save_png(x: Tensor | ArrayLike, path: str | os.PathLike[str], *, columns: int | None = None, scale: int = 1, gap: int = 1) -> None:
    """The bare images x as a PNG file: ``[N, C, H, W]`` in a grid of ``columns`` (None: about as wide as high) ``gap`` pixels apart, no
    frame, no text; one image is just itself.

    8 bits per channel, grey where C = 1; values outside [0, 1] are clipped, NaN and infinite ones magenta. The file is replaced whole or
    not at all.

    Raises:
        InputError: ``path`` does not end in .png or cannot be written; ``scale`` is below 1; or as in ``sheet``.
    """
    target = Path(path)
    if target.suffix.lower() != ".png":
        raise InputError(f'save_png writes PNG files; "{visible(str(target))}" does not end in .png; change the name')
    for name, value in (("scale", scale), ("gap", gap)):
        if value < 1:
            raise InputError(f"save_png: {name} must be at least 1; it is {value}; pass a whole number of screen pixels")
    shown = pixels(x, "save_png: x", shape="[N, C, H, W]")
    array = grid(shown.rgb, columns=columns_for(len(shown.rgb), columns, "save_png"), scale=scale, gap=gap)[gap:-gap, gap:-gap]
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array[..., 0] if shown.grey else array)).save(buffer, format="PNG", optimize=True)
    write_bytes(target, buffer.getvalue())


def _pad(block: Picture, width: int) -> Picture:
    """``block`` with paper on its right up to ``width``."""
    return np.pad(block, ((0, 0), (0, width - block.shape[1]), (0, 0)), constant_values=255)


def _digits(z: NDArray[np.float64]) -> int:
    """Decimals, 1 to 3, that show each value to a twentieth of the smallest step."""
    step = float(np.diff(z).min()) if len(z) > 1 else 1.0
    return next((d for d in (1, 2) if np.abs(np.round(z, d) - z).max() <= 0.05 * step), 3)


def _figure(array: Picture, *, title: str, note: str, left: int = 0, top: int = 0, bottom: int = 0) -> Figure:
    """A figure that shows ``array`` pixel for pixel (smaller only beyond the page), with room for labels on three sides."""
    pad = 12
    ratio = min(1.0, WIDEST / array.shape[1], TALLEST / array.shape[0])
    width, height = round(array.shape[1] * ratio), round(array.shape[0] * ratio)
    across = max(width + left + 2 * pad, 440)
    heading = wrapped(title, across - 2 * pad, size=10.5)
    remark = wrapped(note, across - 2 * pad, size=8)
    up = pad + (20 * len(heading.splitlines()) + 4 if heading else 0) + top
    down = pad + bottom + (14 * len(remark.splitlines()) + 4 if remark else 0)
    high = up + height + down
    with styled():
        figure = blank(across, high)
        axes: Axes = figure.add_axes(((left + pad) / across, down / high, width / across, height / high))
        axes.imshow(array, interpolation="none" if ratio == 1 else "antialiased", aspect="auto")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.tick_params(length=0, labelsize=8.5)
        axes.spines[:].set_visible(False)
        figure.text(pad / across, 1 - pad / high, heading, va="top", fontsize=10.5, color=INK, parse_math=False)
        figure.text(pad / across, pad / high, remark, va="bottom", fontsize=8, color=GREY, parse_math=False)
    return figure
