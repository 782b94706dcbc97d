"""Readers of file formats, on small files written here: what they return, and the one line for every kind of damage."""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import lzma
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from vaekit.data.formats import (
    check,
    checked,
    digest,
    read_amat,
    read_bytes,
    read_idx,
    read_mat,
    read_npz,
    read_omniglot,
    read_records,
    read_tar,
)
from vaekit.errors import InputError

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
IDX = struct.pack(">BBBBIII", 0, 0, 8, 3, 5, 4, 3) + PIXELS.tobytes()
IDX_SHA = f"sha256:{hashlib.sha256(IDX).hexdigest()}"


def refused(read: Callable[[], object], path: Path, *words: str) -> None:
    """``read`` raises one line that names the file."""
    with pytest.raises(InputError) as error:
        read()
    text = str(error.value)
    assert "\n" not in text
    for word in (str(path), *words):
        assert word in text


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_digests() -> None:
    assert digest(b"abc", like="md5:...") == "md5:900150983cd24fb0d6963f7d28e17f72"  # RFC 1321
    assert digest(np.frombuffer(b"abc", np.uint8), like="sha256:") == (
        "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180
    )


def test_check_says_what_was_expected_and_what_was_found() -> None:
    wanted = digest(b"abc", like="sha256:")
    check(b"abc", wanted, Path("file"))
    refused(lambda: check(b"abd", wanted, Path("file")), Path("file"), wanted, digest(b"abd", like="sha256:"), "delete it")


def test_checked_wants_bytes_of_the_right_shape_in_c_order() -> None:
    wanted = digest(PIXELS, like="sha256:")
    assert checked(np.asfortranarray(PIXELS), (5, 4, 3), wanted, Path("f")).flags.c_contiguous
    refused(lambda: checked(PIXELS.reshape(5, 12), (5, 4, 3), wanted, Path("f")), Path("f"), "uint8 [5, 12], expected uint8 [5, 4, 3]")
    refused(lambda: checked(PIXELS.astype(float), (5, 4, 3), wanted, Path("f")), Path("f"), "float64 [5, 4, 3]")


@pytest.mark.parametrize(("name", "pack"), [("a.gz", gzip.compress), ("a.xz", lzma.compress), ("a.bin", bytes)])
def test_bytes_are_unpacked_by_suffix(tmp_path: Path, name: str, pack: Callable[[bytes], bytes]) -> None:
    assert read_bytes(write(tmp_path / name, pack(IDX))) == IDX
    for empty in (b"", pack(b"")):
        path = write(tmp_path / name, empty)
        refused(functools.partial(read_bytes, path), path)


@pytest.mark.parametrize("cut", [1, 5, 9, 12, -8, -1])
def test_a_cut_gzip_file_is_called_truncated(tmp_path: Path, cut: int) -> None:
    path = write(tmp_path / "a.gz", gzip.compress(IDX)[:cut])
    refused(lambda: read_bytes(path), path, "truncated" if cut != 1 else "")


def test_damaged_and_foreign_files(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(IDX))
    packed[len(packed) // 2] ^= 1
    for name, data in (("a.gz", packed), ("b.gz", b"<html>not found</html>"), ("a.xz", lzma.compress(IDX)[:-20]), ("b.xz", b"x" * 99)):
        path = write(tmp_path / name, bytes(data))
        refused(functools.partial(read_bytes, path), path, "damaged or of another format", "put one in its place")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    refused(lambda: read_bytes(tmp_path), tmp_path, "cannot read", "Is a directory")


# IDX


def test_an_idx_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gz", gzip.compress(IDX))
    assert np.array_equal(read_idx(path, (5, 4, 3), IDX_SHA), PIXELS)
    labels = struct.pack(">BBBBI", 0, 0, 8, 1, 3) + bytes([7, 0, 9])
    found = read_idx(write(tmp_path / "b", labels), (3,), digest(labels, like="sha256:"))
    assert found.tolist() == [7, 0, 9]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x1f\x8b\x08\x00 and so on", "starts with 1f 8b 08 00, expected 00 00 08"),
        (b"\0\0\x0d\x03" + IDX[4:], "starts with 00 00 0d 03"),
        (b"\0", "starts with 00, expected"),
        (IDX[:7], "shape [], expected [5, 4, 3]"),
        (struct.pack(">BBBBII", 0, 0, 8, 2, 5, 12) + IDX[16:], "shape [5, 12], expected [5, 4, 3]"),
        (struct.pack(">BBBBIII", 0, 0, 8, 3, 6, 4, 3) + IDX[16:], "shape [6, 4, 3], expected [5, 4, 3]"),
        (IDX[:-1], "holds 59 values, but its header promises 60"),
        (IDX + b"\0", "holds 61 values"),
        (IDX[:-1] + bytes([IDX[-1] ^ 1]), "does not hold the published data"),
    ],
)
def test_a_bad_idx_file(tmp_path: Path, data: bytes, words: str) -> None:
    path = write(tmp_path / "a", data)
    refused(lambda: read_idx(path, (5, 4, 3), IDX_SHA), path, words)


# npz and MATLAB


def test_an_npz_file(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, other=np.arange(3), images=PIXELS)
    assert np.array_equal(read_npz(path, "images", PIXELS.shape), PIXELS)
    refused(lambda: read_npz(path, "image", PIXELS.shape), path, 'no array "image"', "images")
    refused(lambda: read_npz(path, "images", (5, 12)), path, "uint8 [5, 4, 3], expected uint8 [5, 12]")
    refused(lambda: read_npz(path, "other", (3,)), path, "int64 [3]")


class Trap:
    """Unpickling this leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (self.path.write_text, ("sprung",))


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, images=np.array([Trap(tmp_path / "trap")], dtype=object))
    refused(lambda: read_npz(path, "images", (1,)), path, "allow_pickle=False")
    assert not (tmp_path / "trap").exists()


def test_a_mat_file(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    savemat(path, {"ff": PIXELS.reshape(5, 12).T})
    assert np.array_equal(read_mat(path, "ff").T.reshape(5, 4, 3), PIXELS)
    refused(lambda: read_mat(path, "gg"), path, 'no array "gg"')


@pytest.mark.parametrize("form", ["npz", "mat", "zip", "tar"])
def test_random_damage_is_one_line_or_does_no_harm(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"a.{form}"
    read: Callable[[], np.ndarray[Any, Any]]
    if form == "npz":
        np.savez_compressed(path, images=PIXELS)
        read = lambda: read_npz(path, "images", PIXELS.shape)  # noqa: E731
    elif form == "mat":
        savemat(path, {"ff": PIXELS.reshape(5, 12)}, do_compression=True)
        read = lambda: read_mat(path, "ff")  # noqa: E731
    elif form == "zip":
        omniglot_zip(path, {"images_background/Greek/character01/0001_01.png": PIXELS[0]})
        read = lambda: read_omniglot([path], 2)  # noqa: E731
    else:
        tar(path, {"a.bin": PIXELS.tobytes()}, "w:gz")
        read = lambda: read_tar(path, ["a.bin"], 12)  # noqa: E731
    good, data = read(), path.read_bytes()
    random = np.random.default_rng(1)
    refusals = 0
    for _ in range(300):
        damaged = bytearray(data)
        for place in random.integers(0, len(data), 3):
            damaged[place] = random.integers(0, 256)
        path.write_bytes(damaged[: random.integers(1, len(data))] if random.random() < 0.3 else damaged)
        try:
            found = read()
        except InputError as error:
            assert "\n" not in str(error) and str(path) in str(error)
            refusals += 1
        else:
            if form in ("npz", "zip"):  # these carry checksums of their own
                assert np.array_equal(found, good)
    assert refusals > 100


# text, records, archives


def test_an_amat_file(tmp_path: Path) -> None:
    bits = np.random.default_rng(0).integers(0, 2, (6, 5), dtype=np.uint8)
    path = tmp_path / "a.amat"
    np.savetxt(path, bits, fmt="%d")
    assert np.array_equal(read_amat(path, 5), bits)
    refused(lambda: read_amat(path, 7), path, "60 bytes, which is no whole number of rows of 7 digits")


def tar(path: Path, members: dict[str, bytes], mode: Any) -> None:
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def test_records_of_files_and_archives(tmp_path: Path) -> None:
    records = PIXELS.reshape(5, 12)
    parts = {"b.bin": records[:2].tobytes(), "a.bin": records[2:].tobytes()}
    paths = [write(tmp_path / name, data) for name, data in parts.items()]
    assert np.array_equal(read_records(paths, 12), records)  # in the order of the list
    tar(tmp_path / "a.tar.gz", dict(reversed(parts.items())), "w:gz")
    assert np.array_equal(read_tar(tmp_path / "a.tar.gz", ["b.bin", "a.bin"], 12), records)
    refused(lambda: read_records(paths, 11), paths[0], "24 bytes, which is no whole number of records of 11")
    refused(lambda: read_tar(tmp_path / "a.tar.gz", ["c.bin"], 12), tmp_path / "a.tar.gz", "c.bin")


def omniglot_zip(path: Path, drawings: dict[str, np.ndarray[Any, np.dtype[np.uint8]]]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, ink in drawings.items():
            data = io.BytesIO()
            Image.fromarray(255 - ink).save(data, "PNG")
            archive.writestr(name, data.getvalue())


def test_omniglot_drawings_are_averaged_inverted_and_sorted(tmp_path: Path) -> None:
    ink = np.random.default_rng(2).integers(0, 2, (4, 9, 9), dtype=np.uint8) * 255
    names = ["Greek/character02/0002_01", "Greek/character01/0001_02", "Latin/character01/0003_20", "Greek/character01/0001_01"]
    paths = [tmp_path / "images_background.zip", tmp_path / "images_evaluation.zip"]
    for path, chosen in zip(paths, ([0, 1, 3], [2]), strict=True):
        omniglot_zip(path, {f"{path.stem}/{names[i]}.png": ink[i] for i in chosen})
    found = read_omniglot(paths, 3)
    blocks = ink.reshape(4, 3, 3, 3, 3).mean((2, 4))  # the area average, by another road
    assert found.dtype == np.uint8
    assert np.abs(found - blocks[[3, 1, 0, 2]]).max() <= 0.5 + 1e-6
    assert np.array_equal(read_omniglot(paths, 9), ink[[3, 1, 0, 2]])
    empty = tmp_path / "empty.zip"
    zipfile.ZipFile(empty, "w").close()
    refused(lambda: read_omniglot([empty], 3), empty, "no drawings")
