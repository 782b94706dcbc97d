"""Tensors and arrays on their way into a figure: numbers as numpy, images as 8-bit colours."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from vaekit.errors import InputError

__all__ = ["MARK", "Pixels", "numbers", "pixels", "shape_text", "values"]

MARK = (255, 0, 255)
"""Magenta: the colour of a pixel that is NaN or infinite. Full saturation tells it from any grey, for colour-blind readers too."""


class Pixels(NamedTuple):
    """Images ready for display.

    Attributes:
        rgb: uint8, ``[*, H, W, 3]``.
        note: what the display changed (clipped, marked), in words; empty when it shows x as it is.
        grey: True where one channel says it all: C = 1 and nothing marked.
    """

    rgb: NDArray[np.uint8]
    note: str
    grey: bool


def shape_text(shape: tuple[int, ...]) -> str:
    """``[64, 1, 28, 28]``."""
    return "[" + ", ".join(map(str, shape)) + "]"


def values(x: Tensor | ArrayLike, name: str) -> NDArray[np.generic]:
    """x, a tensor of any device, dtype and shape, or anything numpy reads, as an array (bfloat16 and float16 become float32).

    Raises:
        InputError: what numpy cannot read, such as rows of different lengths; the message calls it ``name``.
    """
    if isinstance(x, Tensor):
        t = x.detach().cpu()
        return np.asarray((t.float() if t.is_floating_point() and t.element_size() < 4 else t).numpy())
    try:
        return np.asarray(x)
    except ValueError as error:
        raise InputError(f"{name} must be one rectangular array of numbers: numpy cannot read it ({error}); stack equal shapes") from None


def numbers(x: Tensor | ArrayLike, name: str, *, ndim: int, shape: str) -> NDArray[np.float64]:
    """``x`` as float64 with ``ndim`` axes and at least one entry; ``shape`` says in words what was expected, ``name`` what x is called
    in messages.

    Raises:
        InputError: no real numbers, another number of axes, or no entry.
    """
    array = values(x, name)
    if array.dtype.kind not in "fiub":
        raise InputError(f"{name} must hold real numbers {shape}; its dtype is {array.dtype}; convert it first")
    if array.ndim != ndim:
        raise InputError(f"{name} must have shape {shape}; it has shape {shape_text(array.shape)}; reshape it")
    if array.size == 0:
        raise InputError(f"{name} is empty: shape {shape_text(array.shape)}; pass at least one entry of {shape}")
    return array.astype(np.float64)


def pixels(x: Tensor | ArrayLike, name: str, *, shape: str) -> Pixels:
    """Images x ``[*, C, H, W]`` in [0, 1] as 8-bit colours; ``shape`` such as ``"[N, C, H, W]"`` fixes the number of axes; messages call
    them ``name``.

    Values outside [0, 1] are clipped and NaN or infinite ones drawn in ``MARK``; the note counts both. They are shown rather than refused,
    because a picture with missing entries, or of a model that went wrong, is when looking helps most.
    """
    array = values(x, name)
    ndim = shape.count(",") + 1
    if array.ndim != ndim:
        hint = "add the channel axis with unsqueeze(-3)" if array.ndim == ndim - 1 else "reshape it"
        raise InputError(f"{name} must have shape {shape}; it has shape {shape_text(array.shape)}; {hint}")
    if array.size == 0:
        raise InputError(f"{name} is empty: shape {shape_text(array.shape)}; pass at least one image")
    if array.shape[-3] not in (1, 3):
        hint = "move the channels there with movedim(-1, -3)" if array.shape[-1] in (1, 3) else "choose the channels to show"
        raise InputError(f"{name} must have 1 or 3 channels, on axis -3; its shape is {shape_text(array.shape)}; {hint}")
    if array.dtype.kind not in "fiub":
        raise InputError(f"{name} must hold real numbers in [0, 1]; its dtype is {array.dtype}; convert it first")
    if array.dtype.kind in "iu" and (array.max() > 1 or array.min() < 0):
        low, high = array.min(), array.max()
        raise InputError(
            f"{name} must hold values in [0, 1]; it is {array.dtype} from {low} to {high}; divide by the top level, such as 255"
        )
    x_last: NDArray[np.floating] = np.moveaxis(array.astype(np.float64 if array.itemsize > 4 else np.float32), -3, -1)
    bad: NDArray[np.bool_] = ~np.isfinite(x_last).all(-1)
    # Half a level is what rounding hides anyway; only a clip that changes the picture is worth a note.
    clipped: NDArray[np.bool_] = ~bad & ((x_last < -0.5 / 255) | (x_last > 1 + 0.5 / 255)).any(-1)
    levels = np.rint(np.clip(np.where(bad[..., None], 0, x_last), 0, 1) * 255)
    rgb = np.ascontiguousarray(np.broadcast_to(levels.astype(np.uint8), (*levels.shape[:-1], 3)))
    rgb[bad] = MARK
    notes = []
    if bad.any():
        notes.append(f"{_share(bad)} not finite (magenta)")
    if clipped.any():
        notes.append(f"{_share(clipped)} outside [0, 1], clipped")
    return Pixels(rgb, "; ".join(notes), array.shape[-3] == 1 and not bool(bad.any()))


def _share(mask: NDArray[np.bool_]) -> str:
    """``3 pixels (0.1%)``."""
    n, share = int(mask.sum()), float(mask.mean())
    return f"{n:,} pixel{'s' if n != 1 else ''} ({f'{share:.1%}' if share >= 0.001 else '< 0.1%'})"
