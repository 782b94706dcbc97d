"""A folder or a zip archive of images, all of one size; nothing is unpacked onto the disk."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vaekit.errors import InputError

__all__ = ["ENDINGS", "read_images"]

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
GREY, COLOUR = ("1", "L"), ("RGB", "P", "RGBA", "LA", "CMYK", "YCbCr", "PA")


def read_images(path: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64] | None, tuple[str, ...] | None, list[str]]:
    """Images uint8 ``[N, C, H, W]``, in the order of their names; their labels ``[N]`` and the names of these, where all of them lie
    in two or more folders side by side, one a class; and what there is to say of them.

    Grey where all are, else in colour. Transparency is left out.

    Raises:
        InputError: no images, one that cannot be read, or is of another size than the first, or has more than 8 bits a channel; the file is
            named.
    """
    names: list[str] = []
    found: list[npt.NDArray[np.uint8]] = []
    clear = 0
    for name, image in _opened(path):
        pixels, transparent = _pixels(image, f"{path}: {name}")
        if found and pixels.shape[:2] != found[0].shape[:2]:
            (h, w), (height, width) = pixels.shape[:2], found[0].shape[:2]
            raise InputError(f"{path}: {name} is {w} x {h}, and {names[0]} is {width} x {height}: bring all images to one size")
        names.append(name)
        found.append(pixels)
        clear += transparent
    if not found:
        raise InputError(f"{path} holds no images: give a folder or a zip archive of {', '.join(ENDINGS[:4])}, ... files")
    grey = sum(pixels.ndim == 2 for pixels in found)
    notes = [f"{clear} images are transparent in places, which is left out"] if clear else []
    if 0 < grey < len(found):
        notes.append(f"{grey} of {len(found)} images are grey and read in colour, as the others")
        found = [pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2) for pixels in found]
    x = np.stack(found)
    x = x[:, None] if x.ndim == 3 else np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    folders = [name.rpartition("/")[0] for name in names]
    classes = tuple(sorted(set(folders)))
    if len(classes) < 2 or len({folder.count("/") for folder in classes}) > 1 or "" in classes:
        return x, None, None, notes
    label = np.array([classes.index(folder) for folder in folders], dtype=np.int64)
    return x, label, tuple(folder.rpartition("/")[2] for folder in classes), notes


def _opened(path: Path) -> Iterator[tuple[str, Any]]:
    """The name and the bytes of each image, in the order of the names; hidden files and what macOS adds to archives aside."""
    if path.is_dir():
        files = sorted((file.relative_to(path).as_posix(), file) for file in path.rglob("*") if file.is_file())
        for name, file in files:
            if _wanted(name):
                yield name, file.read_bytes()
        return
    try:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                if _wanted(name):
                    yield name, archive.read(name)
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, NotImplementedError) as error:
        raise InputError(f"{path} is no whole zip archive that can be read ({error}): write it again, without a password") from error


def _wanted(name: str) -> bool:
    return name.lower().endswith(ENDINGS) and not any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


def _pixels(data: bytes, name: str) -> tuple[npt.NDArray[np.uint8], bool]:
    """``[H, W]`` of a grey image, ``[H, W, 3]`` of one in colour, turned as its camera says; and whether parts of it are transparent."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as opened:
            opened.load()
            image = ImageOps.exif_transpose(opened)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise InputError(f"{name} cannot be read as an image ({' '.join(str(error).split())[:100]}): correct it, or take it out") from error
    if image.mode not in (*GREY, *COLOUR):
        raise InputError(
            f"{name} has pixels of mode {image.mode}, more than 8 bits each: save it with 8 bits a channel, or as a .npy array"
        )
    clear = image.has_transparency_data and bool((np.asarray(image.convert("RGBA"))[..., 3] < 255).any())
    if image.mode in GREY or (image.mode == "LA"):
        return np.asarray(image.convert("L")), clear
    return np.asarray(image.convert("RGB")), clear
