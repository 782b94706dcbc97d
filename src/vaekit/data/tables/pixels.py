"""What images hold, and whether new ones fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vaekit.data.tables.columns import Column
from vaekit.data.tables.context import Context
from vaekit.data.tables.stored import restored
from vaekit.data.tables.stored import stored as stored_column
from vaekit.errors import InputError

__all__ = ["FORMAT", "Pixels", "in_channels"]

FORMAT = 1


@dataclass(frozen=True)
class Pixels:
    """Images of one size.

    Attributes:
        shape: ``(C, H, W)``.
        dtype: as they are stored: "uint8", "bool" or "float32".
        likelihood: of each value, of the images as `DataSet` gives them: bytes / 255.
        because: why.
        given: the column "label", where the model is conditioned on it; else nothing.
    """

    shape: tuple[int, int, int]
    dtype: str
    likelihood: str
    because: str
    given: tuple[Column, ...] = ()

    @property
    def context(self) -> Context | None:
        """What is conditioned on; None where nothing is."""
        return Context(self.given) if self.given else None

    @staticmethod
    def infer(x: npt.NDArray[Any]) -> Pixels:
        """Of images ``[N, C, H, W]``: uint8, bool, or floats in [0, 1], in which NaN is missing.

        Bernoulli where there are two values, 0 and the largest; else of bytes the discretised logistic, of floats the continuous Bernoulli.

        Raises:
            InputError: another dtype, values that are not finite or outside of [0, 1], no images.
        """
        if x.ndim != 4 or not x.size:
            raise InputError(f"an array of shape {list(x.shape)} is no images: give [N, C, H, W], at least one of at least one pixel")
        _held(x, str(x.dtype))
        size = (int(x.shape[1]), int(x.shape[2]), int(x.shape[3]))
        shown = f"{len(x)} images of {size[2]} x {size[1]}, {'grey' if size[0] == 1 else f'{size[0]} channels'}"
        most = 255 if x.dtype == np.uint8 else 1
        if x.dtype == np.bool_ or not ((x > 0) & (x < most)).any():
            return Pixels(size, str(x.dtype), "Bernoulli", f"{shown}; every value is 0 or {most}")
        if x.dtype == np.uint8:
            return Pixels(size, str(x.dtype), "DiscretisedLogistic", f"{shown}; bytes, from {x.min()} to {x.max()}")
        return Pixels(size, str(x.dtype), "ContinuousBernoulli", f"{shown}; floats in [0, 1]")

    def check(self, x: npt.NDArray[Any]) -> tuple[str, ...]:
        """Whether other images ``[N, C, H, W]`` fit.

        Raises:
            InputError: another size or dtype, or values that the likelihood does not hold; the image is named.
        """
        if tuple(x.shape[1:]) != self.shape:
            raise InputError(
                f"images of {list(x.shape[1:])} (channels, height, width) do not fit: the model was trained on {list(self.shape)}; "
                "bring them to that size"
            )
        if (x.dtype.kind == "f") != (self.dtype.startswith("float")) or (x.dtype == np.uint8) != (self.dtype == "uint8"):
            raise InputError(f"images are {x.dtype}, and the model was trained on {self.dtype}: convert them")
        _held(x, self.dtype)
        if self.likelihood == "Bernoulli":
            between = ((x > 0) & (x < (255 if x.dtype == np.uint8 else 1))).reshape(len(x), -1).any(axis=1)
            if between.any():
                raise InputError(
                    f"image {int(np.argmax(between))} (and {int(between.sum()) - 1} more) holds more than two values: binarise it"
                )
        return ()

    def describe(self) -> str:
        """What was found, in a line."""
        given = "".join(f"\ngiven {column.name}: {column.because}" for column in self.given)
        return f"images {list(self.shape)}: {self.likelihood}, because {self.because}{given}"

    def to_json(self) -> dict[str, Any]:
        """Plain values, for a JSON file."""
        return {
            "format": FORMAT,
            "what": "images",
            "shape": list(self.shape),
            "dtype": self.dtype,
            "likelihood": self.likelihood,
            "because": self.because,
            **({"given": [stored_column(column) for column in self.given]} if self.given else {}),
        }

    @staticmethod
    def from_json(stored: Mapping[str, Any]) -> Pixels:
        """What `to_json` gave.

        Raises:
            InputError: another format, or damaged.
        """
        if stored.get("format") != FORMAT or stored.get("what") != "images":
            raise InputError(f"a description of format {stored.get('format')!r} of {stored.get('what')!r}: this reads {FORMAT} of 'images'")
        try:
            c, h, w = (int(size) for size in stored["shape"])
            given = tuple(restored(column) for column in stored.get("given", ()))
            return Pixels((c, h, w), str(stored["dtype"]), str(stored["likelihood"]), str(stored["because"]), given)
        except InputError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"the description is damaged ({type(error).__name__}: {error}): restore it, or train again") from error


def in_channels(x: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], list[str]]:
    """``[N, C, H, W]`` from ``[N, H, W]`` (grey), ``[N, C, H, W]`` or ``[N, H, W, C]``, C of 1, 3 or 4; and a line
    where they were turned.

    Raises:
        InputError: neither axis is one of channels.
    """
    if x.ndim == 3:
        return x[:, None], []
    if x.shape[1] in (1, 3, 4):
        return x, []
    if x.shape[3] in (1, 3, 4):
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2)), [f"[N, H, W, C] {list(x.shape)} is read as [N, C, H, W]"]
    raise InputError(f"an array of shape {list(x.shape)} has no axis of 1, 3 or 4 channels: give images as [N, C, H, W]")


def _held(x: npt.NDArray[Any], dtype: str) -> None:
    if x.dtype == np.uint8 or x.dtype == np.bool_:
        return
    if x.dtype.kind != "f":
        raise InputError(f"images of dtype {dtype}: give uint8, bool, or floats in [0, 1]")
    wrong = ((x < 0) | (x > 1)).reshape(len(x), -1).any(axis=1)
    if wrong.any():
        image = int(np.argmax(wrong))
        raise InputError(
            f"image {image} holds values from {np.nanmin(x[image]):g} to {np.nanmax(x[image]):g}: floats have to be in [0, 1]; divide "
            "them, or give uint8"
        )
