"""A folder or a zip archive of images, all of one size; nothing is unpacked onto the disk."""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vaekit.errors import InputError

__all__ = ["ENDINGS", "read_images"]

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
LARGEST = 2**28  # bytes of one image in an archive: a few packed kilobytes of zeros may be gigabytes
PORTABLE = re.compile(rb"P[2356](?:\s|#[^\n]*\n)+\d+(?:\s|#[^\n]*\n)+\d+(?:\s|#[^\n]*\n)+(\d+)")  # the last is the largest value
BITS_PER_SAMPLE = 258  # a TIFF tag
GREY, COLOUR = ("1", "L"), ("RGB", "P", "RGBA", "LA", "CMYK", "YCbCr", "PA")


def read_images(path: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64] | None, tuple[str, ...] | None, list[str]]:
    """Images uint8 ``[N, C, H, W]``, in the order of their names; their labels ``[N]`` and the names of these, where all of them lie
    in two or more folders side by side, one a class; and what there is to say of them.

    Grey where all are, else in colour. Transparency is left out, and of several frames or pages all but the first.

    Raises:
        InputError: no images, one that cannot be read, or is of another size than the first, or has more than 8 bits a channel; the file is
            named.
    """
    names: list[str] = []
    found: list[npt.NDArray[np.uint8]] = []
    clear = several = 0
    for name, image in _opened(path):
        pixels, transparent, frames = _pixels(image, f"{path}: {name}")
        if found and pixels.shape[:2] != found[0].shape[:2]:
            (h, w), (height, width) = pixels.shape[:2], found[0].shape[:2]
            raise InputError(f"{path}: {name} is {w} x {h}, and {names[0]} is {width} x {height}: bring all images to one size")
        names.append(name)
        found.append(pixels)
        clear += transparent
        several += frames > 1
    if not found:
        raise InputError(f"{path} holds no images: give a folder or a zip archive of {', '.join(ENDINGS[:4])}, ... files")
    grey = sum(pixels.ndim == 2 for pixels in found)
    notes = [f"{clear} images are transparent in places, which is left out"] if clear else []
    if several:
        notes.append(f"{several} files hold several frames or pages, of which the first is read: save the others as images of their own")
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
            for member in sorted(archive.infolist(), key=lambda member: member.filename):
                if not _wanted(member.filename):
                    continue
                if member.file_size > LARGEST:
                    raise InputError(
                        f"{path}: {member.filename} is {member.file_size} bytes unpacked, more than the {LARGEST} that one image may have: "
                        "take it out"
                    )
                yield member.filename, archive.read(member)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError) as error:
        raise InputError(f"{path} is no whole zip archive that can be read ({error}): write it again, without a password") from error


def _wanted(name: str) -> bool:
    return name.lower().endswith(ENDINGS) and not any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


def _pixels(data: bytes, name: str) -> tuple[npt.NDArray[np.uint8], bool, int]:
    """``[H, W]`` of a grey image, ``[H, W, 3]`` of one in colour, turned as its camera says; whether parts of it are transparent; and how
    many frames or pages it has."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as opened:
            deep = _deep(data, opened)
            # a camera's JPEG holds a preview besides, which is no frame
            frames = 1 if opened.format in ("JPEG", "MPO") else int(getattr(opened, "n_frames", 1))  # formats of one image do without it
            opened.load()
            image = ImageOps.exif_transpose(opened)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise InputError(f"{name} cannot be read as an image ({' '.join(str(error).split())[:100]}): correct it, or take it out") from error
    known = image.mode in (*GREY, *COLOUR)
    if deep or not known:
        held = deep if known else f"mode {image.mode}, more than 8 bits each"
        raise InputError(f"{name} has pixels of {held}: save it with 8 bits a channel, or as a .npy array")
    clear = image.has_transparency_data and bool((np.asarray(image.convert("RGBA"))[..., 3] < 255).any())
    if image.mode in GREY or (image.mode == "LA"):
        return np.asarray(image.convert("L")), clear, frames
    return np.asarray(image.convert("RGB")), clear, frames


def _deep(data: bytes, opened: Any) -> str:
    """What is to be said of more than 8 bits a channel, which Pillow cuts to 8 in colour; nothing of others."""
    from PIL import TiffImagePlugin

    portable = PORTABLE.match(data)
    if opened.format == "PNG" and data[24] > 8:  # of its first chunk, IHDR
        return f"{data[24]} bits a channel"
    if opened.format == "PPM" and portable is not None and int(portable[1]) > 255:
        return f"up to {int(portable[1])}, more than 8 bits a channel"
    if isinstance(opened, TiffImagePlugin.TiffImageFile):
        bits = max(np.atleast_1d(opened.tag_v2.get(BITS_PER_SAMPLE, 1)).tolist())
        return f"{bits} bits a channel" if bits > 8 else ""
    return ""
