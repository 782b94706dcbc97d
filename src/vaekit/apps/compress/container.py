"""The file: magic, a compressed JSON header, words of the stack, and a SHA-256 of all before it.

::

    8 bytes   89 76 6b 63 0d 0a 1a 0a      as PNG's: shows transfers as text, and cut-off bits
    4 bytes   length of the header, little-endian
    header    JSON, zlib
    words     uint32, little-endian, the stack's top last
    32 bytes  SHA-256
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from vaekit.errors import InputError

__all__ = ["FORMAT", "KINDS", "pack", "unpack"]

KINDS = "biuf"
"""Data that can be stored: booleans, integers and floats, as numpy names them."""

FORMAT = 1
"""The number of the format in a file."""
MAGIC = b"\x89vkc\r\n\x1a\n"
DIGEST = 32
MOST = 2**27
"""Bytes of a header at most: a short file could be inflated to fill the memory."""


def pack(header: Mapping[str, Any], words: npt.NDArray[np.uint32]) -> bytes:
    """The file's bytes, of a header that JSON can hold and 32-bit words."""
    text = zlib.compress(json.dumps({"format": FORMAT} | dict(header), separators=(",", ":")).encode(), 9)
    body = MAGIC + len(text).to_bytes(4, "little") + text + words.astype("<u4").tobytes()
    return body + hashlib.sha256(body).digest()


def _check(header: Mapping[str, Any]) -> None:
    """Whether what `compress` notes is there and can be: what is read here is used to make arrays and threads."""
    whole = [*header["shape"], *header["groups"], header["size"], header["seed"], header["threads"]]
    if any(type(n) is not int or n < 0 for n in whole) or header["threads"] < 1 or header["size"] < 1 or not header["shape"]:
        raise ValueError("a size in its header is none")
    if sum(header["groups"]) != header["shape"][0] or max(header["groups"], default=0) > header["size"]:
        raise ValueError("the groups in its header are not those of its examples")
    if any(not isinstance(header[name], str) for name in ("model", "dtype", "data", "torch", "vaekit")) or "probe" not in header:
        raise ValueError("its header lacks what says which model and data it is of")
    if np.dtype(header["dtype"]).kind not in KINDS or header["unit"] not in (1, 255):
        raise ValueError("its header names no numbers")


def unpack(data: bytes, name: str) -> tuple[dict[str, Any], npt.NDArray[np.uint32]]:
    """Header and words of ``data``, the bytes of a file, which messages call ``name``.

    Raises:
        InputError: not a file of `pack`, damaged, cut off, or of another format.
    """
    if not data.startswith(MAGIC):
        raise InputError(f"{name} is not a file that vaekit compress wrote: it begins with {data[:8].hex(' ') or 'nothing'}")
    body, digest = data[:-DIGEST], data[-DIGEST:]
    if len(body) < len(MAGIC) + 4 or hashlib.sha256(body).digest() != digest:
        raise InputError(f"{name} is damaged or cut off: its checksum is not that of its {len(data)} bytes; get a good copy")
    start = len(MAGIC) + 4
    end = start + int.from_bytes(body[len(MAGIC) : start], "little")
    try:
        inflate = zlib.decompressobj()
        header = json.loads(inflate.decompress(body[start:end], MOST))
        found = header["format"]
        if found == FORMAT:
            _check(header)
        words = np.frombuffer(body[end:], dtype="<u4").astype(np.uint32)
    except (ValueError, KeyError, TypeError, zlib.error) as error:
        raise InputError(f"{name} cannot be read ({type(error).__name__}: {error}), though its checksum holds: compress again") from error
    if found != FORMAT:
        raise InputError(f"{name} is of format {found}, and this vaekit reads format {FORMAT}: use the vaekit that wrote it")
    return header, words
