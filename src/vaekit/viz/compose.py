"""Many images as one array: cells in reading order, upscaled by whole numbers, so that no pixel is ever resampled."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from vaekit.errors import InputError

__all__ = ["PAPER", "TALLEST", "WIDEST", "Colour", "Picture", "columns_for", "frame", "grid", "scale_for"]

Picture: TypeAlias = NDArray[np.uint8]
Colour: TypeAlias = tuple[int, int, int]

LINE: Colour = (140, 149, 159)  # separates cells, and shows where a white image ends on white paper
PAPER: Colour = (255, 255, 255)
WIDEST, TALLEST = 1200, 1600  # pixels of a picture on the page


def columns_for(n: int, columns: int | None, name: str) -> int:
    """``columns`` as asked; else a divisor of n between sqrt(n) and 2.3 sqrt(n), which leaves no hole; else ceil(sqrt(n)).

    Raises:
        InputError: ``columns`` below 1; the message begins with ``name``.
    """
    if columns is not None:
        if columns < 1:
            raise InputError(f"{name}: columns must be at least 1; it is {columns}; leave it out for a grid about as wide as high")
        return min(columns, n)
    low = math.ceil(math.sqrt(n))
    return next((c for c in range(low, int(2.3 * math.sqrt(n)) + 1) if n % c == 0), low)


def scale_for(h: int, w: int, *, rows: int, columns: int, gap: int = 1) -> int:
    """Whole screen pixels per image pixel, of images ``h`` x ``w`` in ``rows`` and ``columns`` with ``gap`` between them: small images
    large enough to see, the whole about 640 wide and never beyond the page."""
    cell = min(max(640 / columns, 56), 128)
    across, down = (WIDEST - gap) // columns - gap, (TALLEST - gap) // rows - gap
    return max(1, min(int(cell / max(h, w)), across // w, down // h))


def grid(rgb: NDArray[np.uint8], *, columns: int, scale: int, gap: int = 1, line: Colour = LINE) -> Picture:
    """Images ``rgb`` ``[N, H, W, 3]`` in reading order, each framed by ``gap`` pixels of ``line``; places past the last one stay paper.

    Image i starts at row ``i // columns * (H * scale + gap) + gap`` and at the column likewise.

    >>> grid(np.zeros((3, 2, 2, 3), np.uint8), columns=2, scale=4).shape
    (19, 19, 3)
    """
    n, h, w = rgb.shape[0], rgb.shape[1] * scale, rgb.shape[2] * scale
    array = np.empty((-(-n // columns) * (h + gap) + gap, columns * (w + gap) + gap, 3), np.uint8)
    array[:] = PAPER
    for i, image in enumerate(rgb):
        top, left = i // columns * (h + gap), i % columns * (w + gap)
        cell = array[top : top + h + 2 * gap, left : left + w + 2 * gap]
        frame(cell, gap, line)
        cell[gap : gap + h, gap : gap + w] = image.repeat(scale, 0).repeat(scale, 1)
    return array


def frame(cell: Picture, width: int, colour: Colour) -> None:
    """Paint the outer ``width`` pixels of ``cell`` in place, with ``colour``."""
    cell[:width] = cell[-width:] = colour
    cell[:, :width] = cell[:, -width:] = colour
