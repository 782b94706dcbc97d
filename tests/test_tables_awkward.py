"""Awkward inputs, all in one list: each is handled, or refused in one line that names the file, the column, the row or the position."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vaekit.data import tables
from vaekit.errors import InputError

pd = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")

Source = Callable[[Path], Any]


@dataclass(frozen=True)
class Refused:
    """An input that is refused with this message."""

    source: Source
    message: str


@dataclass(frozen=True)
class Handled:
    """An input that is taken; ``right`` looks at what was found."""

    source: Source
    right: Callable[[tables.Found], bool]


def text(content: str | bytes, name: str = "t.csv") -> Source:
    def write(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def frame(**columns: Any) -> Source:
    return lambda folder: pd.DataFrame(columns)


def image(size: tuple[int, int] = (4, 3), mode: str = "L") -> bytes:
    out = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(out, "png")
    return out.getvalue()


def deep_png(colour: int) -> bytes:
    """A PNG of 16 bits a channel, 4 x 3, in colour (2) or with transparency besides (6), which Pillow does not write."""
    import struct
    import zlib

    def chunk(kind: bytes, held: bytes) -> bytes:
        return struct.pack(">I", len(held)) + kind + held + struct.pack(">I", zlib.crc32(kind + held))

    lines = b"".join(b"\0" + R16.bytes(4 * (3 if colour == 2 else 4) * 2) for _ in range(3))
    header = struct.pack(">IIBBBBB", 4, 3, 16, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def deep_tiff() -> bytes:
    """A TIFF of 16 bits a channel, 1 x 1 in colour."""
    import struct

    tags = [
        (256, 3, 1, 1),
        (257, 3, 1, 1),
        (258, 3, 3, 122),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, 128),
        (277, 3, 1, 3),
        (278, 3, 1, 1),
    ]
    tags.append((279, 4, 1, 6))
    fields = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return (struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + fields + bytes(4)).ljust(122, b"\0") + struct.pack(
        "<6H", 16, 16, 16, 1, 500, 65535
    )


def several(form: str) -> bytes:
    """An animation or a file of three pages."""
    out = io.BytesIO()
    pages = [Image.fromarray(np.full((3, 4), shade, dtype=np.uint8)) for shade in (10, 90, 200)]
    pages[0].save(out, form, save_all=True, append_images=pages[1:])
    return out.getvalue()


def bad_deflate(folder: Path) -> Path:
    """A packed image whose first packed byte asks for a kind of block that there is not."""
    path = folder / "images.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", image())
    data = bytearray(path.read_bytes())
    data[30 + len("a.png")] = 0xFF
    path.write_bytes(data)
    return path


def bad_npz(folder: Path) -> Path:
    np.savez_compressed(folder / "x.npz", x=np.zeros((30, 3)))
    data = bytearray((folder / "x.npz").read_bytes())
    data[30 + data[26] + 256 * data[27] + data[28] + 256 * data[29]] = 0xFF
    (folder / "x.npz").write_bytes(data)
    return folder / "x.npz"


def bad_gzip(folder: Path) -> Path:
    import gzip

    data = bytearray(gzip.compress(b"a,b\n1,2\n", mtime=0))
    data[10] = 0xFF
    (folder / "t.csv.gz").write_bytes(data)
    return folder / "t.csv.gz"


def parts(**changed: Any) -> Source:
    """The parts of a sparse matrix in an archive, some of them wrong."""
    held = {"data": np.ones(2), "indices": np.array([0, 1]), "indptr": np.array([0, 1, 2]), "shape": np.array([2, 2])}

    def write(folder: Path) -> Path:
        np.savez(folder / "x.npz", **(held | changed))
        return folder / "x.npz"

    return write


def files_of(**files: bytes) -> Source:
    """Files whose endings are after the last underscore of their names."""

    def write(folder: Path) -> Path:
        for name, data in files.items():
            (folder / name.replace("_", ".")).write_bytes(data)
        return folder

    return write


def images(**files: bytes) -> Source:
    def write(folder: Path) -> Path:
        for name, data in files.items():
            (folder / f"{name}.png").write_bytes(data)
        return folder

    return write


def zipped(**files: bytes) -> Source:
    def write(folder: Path) -> Path:
        with zipfile.ZipFile(folder / "images.zip", "w") as archive:
            for name, data in files.items():
                archive.writestr(f"{name}.png", data)
        return folder / "images.zip"

    return write


def saved(array: Any, name: str = "x.npy") -> Source:
    def write(folder: Path) -> Path:
        np.save(folder / name, array)
        return folder / name

    return write


def sparse(array: Any) -> Source:
    from scipy.sparse import csr_array

    return lambda folder: csr_array(np.asarray(array))


def parquet(folder: Path) -> Path:
    X.to_parquet(folder / "x.parquet")
    return folder / "x.parquet"


def damaged_parquet(folder: Path) -> Path:
    path = parquet(folder)
    path.write_bytes(path.read_bytes()[:-40])
    return path


def column(found: tables.Found, name: Any) -> tables.Column:
    assert isinstance(found.schema, tables.Schema)
    return next(column for column in found.schema.columns if column.name == name)


def mask(found: tables.Found) -> Any:
    """The masks of all splits, one below the other."""
    splits = [split for split in (found.data.train, found.data.valid, found.data.test) if split is not None]
    return np.concatenate([np.ones_like(split.x, dtype=bool) if split.mask is None else split.mask.numpy() for split in splits])


R = np.random.default_rng(0)
R16 = np.random.default_rng(16)
N = 60
A = R.normal(size=N)
X = pd.DataFrame({"a": A, "b": R.poisson(3, N)})
X4 = pd.DataFrame({"a": pd.Series([2**63 + i * i for i in range(N)], dtype=object), "b": A})
LINES = [f"{a:.4f}" for a in A]
GAP = [None if i == 5 else a for i, a in enumerate(A)]


def csv(*columns: list[Any], head: str = "a,b", separator: str = ",") -> str:
    return "\n".join([head, *(separator.join(map(str, row)) for row in zip(*columns, strict=True))]) + "\n"


AWKWARD: dict[str, Refused | Handled] = {
    # rows and columns
    "empty table": Refused(frame(a=[], b=[]), "0 rows and 2 columns"),
    "no columns": Refused(lambda folder: pd.DataFrame(index=range(5)), "5 rows and 0 columns"),
    "empty file": Refused(text(""), r"t.csv is empty"),
    "header only": Refused(text("a,b\n"), "header and no rows"),
    "no header": Handled(text(csv(LINES, LINES, head="1.5,2.5")), lambda f: len(mask(f)) == N + 1 and "called x0, x1" in f.notes[0]),
    "single row": Refused(frame(a=[1.0], b=[2.0]), "nothing to model"),
    "two rows": Refused(frame(a=[1.0, 2.0], b=[2.0, 5.0]), "2 rows cannot be divided"),
    "single column": Handled(
        text(csv([*LINES[:5], "", *LINES[6:]], head="a")), lambda f: mask(f).shape == (N, 1) and (~mask(f)).sum() == 1
    ),
    "constant column": Handled(frame(a=A, b=7), lambda f: column(f, "b").kind == "constant" and f.data.shape == (1,)),
    "only constant columns": Refused(frame(a=[1] * N, b=["x"] * N), "nothing to model"),
    "all-missing row": Handled(frame(a=GAP, b=GAP), lambda f: (~mask(f)).all(axis=1).sum() == 1 and len(mask(f)) == N),
    "all-missing column": Handled(frame(a=A, b=[None] * N), lambda f: "no row has a value" in f.describe() and f.data.shape == (1,)),
    "ragged csv, a field too many": Refused(text("a,b\n1,2\n3,4,5\n"), "row 3 has 3 fields where the first has 2"),
    "ragged csv, a field too few": Refused(text("a,b\n1,2\n3\n5,6\n"), "row 3 has 1 fields where the first has 2"),
    "semicolons, quotes and line ends in fields": Handled(
        text(csv(LINES, ['"x;\n""y"""', "z", "u"] * 20, head='"a";b', separator=";")), lambda f: column(f, "b").categories[1] == 'x;\n"y"'
    ),
    "a quote that is not closed": Refused(text('a,b\n1,"2\n3,4\n'), "the quote in line 2 is not closed"),
    "duplicate names in a file": Refused(text("a,b,a\n1,2,3\n"), 'columns 0 and 2 .* are both called "a"'),
    "duplicate names in a frame": Refused(
        lambda folder: pd.DataFrame(np.ones((3, 2)), columns=["a", "a"]), "columns 0 and 1 .* both called 'a'"
    ),
    "an index saved as a column": Refused(text(csv(list(range(N)), LINES, head=",b")), 'column "x0" numbers the rows, from 0 to 59'),
    # values
    "infinities": Refused(frame(a=[*A[:-1], np.inf], b=A), 'column "a" is infinite in row 59'),
    "infinities in a file": Refused(text(csv([*LINES[:-1], "-inf"], LINES)), 'column "a" is infinite in row 59'),
    "a million categories": Refused(
        lambda folder: pd.DataFrame({"a": A[:1].repeat(10**6), "b": np.arange(10**6).astype(str).astype(object)}),
        r'column "b" has 1000000 different texts in 1000000 rows',
    ),
    "free text": Refused(frame(a=A, b=[f"patient {i} said {i * i}" for i in range(N)]), 'column "b" has 60 different texts .*free text'),
    "several types in a column": Refused(frame(a=A, b=["x", 3.5] * (N // 2)), "mixes texts and numbers: row 0 holds 'x', row 1 3.5"),
    "lists in a column": Refused(frame(a=A, b=[[1, 2]] * N), r'column "b" holds list values, such as \[1, 2\]'),
    "numbers with a text among them": Refused(
        text(csv([*LINES[:-1], "n.d."], LINES)), 'column "a" .* holds numbers, and "n.d." in line 61'
    ),
    'missing as "NA", "", "-"': Handled(text(csv(["NA", "", "-", "n/a", *LINES[4:]], LINES)), lambda f: (~mask(f)).sum() == 4),
    'missing "NA" among texts': Handled(
        text(csv(LINES, ["NA", *"xyz" * 19, "x", "y"])), lambda f: column(f, "b").size == 3 and "'NA' read as missing" in f.notes[0]
    ),
    "signs as categories": Handled(text(csv(LINES, ["+", "-"] * (N // 2))), lambda f: column(f, "b").categories == ("+", "-")),
    "numbers as strings with commas": Handled(
        text(csv([f'"{1000 + 977 * i:,}"' for i in range(N)], LINES)),
        lambda f: column(f, "a").dtype == "int64" and "thousands" in f.notes[0],
    ),
    "decimal commas": Handled(
        text(csv([f"1.{i:03d},5" for i in range(N)], LINES, head="a;b", separator=";")),
        lambda f: column(f, "a").loc == pytest.approx(1030.0) and "decimal" in f.notes[0],
    ),
    "leading zeros": Handled(text(csv(["01067", "10115", "80331"] * 20, LINES)), lambda f: "01067" in column(f, "a").categories),
    "huge whole numbers": Handled(
        frame(a=2**62 + R.integers(0, 1000, N), b=A),
        lambda f: column(f, "a").kind == "continuous" and "float32" not in column(f, "a").because,
    ),
    "huge whole numbers that float32 cannot tell apart": Handled(
        frame(a=R.integers(0, 2**62, N), b=A), lambda f: "float32 gives it back to" in column(f, "a").because
    ),
    "whole numbers beyond 64 bits in a file": Handled(
        text(csv([10**25 + int(i) for i in R.integers(0, 9**15, N)], LINES)), lambda f: "beyond 64 bits" in f.notes[0]
    ),
    "whole numbers with commas beyond 64 bits": Handled(
        text(csv([f'"{9 * 10**21 + 977 * 10**9 * i:,}"' for i in range(N)], LINES)),
        lambda f: column(f, "a").dtype == "float64" and "beyond 64 bits" in f.notes[1],
    ),
    "Python's whole numbers that 64 bits without a sign hold": Handled(
        frame(a=pd.Series([2**63 + i * i for i in range(N)], dtype=object), b=A),
        lambda f: column(f, "a").kind != "constant" and f.schema.decode(f.schema.encode(X4)[0])["a"].tolist() == X4["a"].tolist(),
    ),
    "Python's whole numbers beyond 64 bits": Refused(
        frame(a=pd.Series([*range(1, N), 2**64], dtype=object), b=A),
        'column "a" holds 18446744073709551616 in row 59, a whole number beyond 64 bits: .* as text, or as floats',
    ),
    "whole numbers of both signs, of 65 bits": Refused(
        frame(a=pd.Series([-1, 2**63] * (N // 2), dtype=object), b=A), "in row 1 .and 29 more.*beyond 64 bits"
    ),
    "timezone-aware dates": Handled(
        frame(a=A, b=pd.date_range("2020-03-01", periods=N, freq="6h", tz="Europe/Berlin")),
        lambda f: column(f, "b").dtype.endswith("Europe/Berlin]"),
    ),
    "times with zones in a file": Handled(
        text(csv(LINES, [f"2020-01-{1 + i % 28:02d}T0{i % 3}:00:00+0{i % 3}:00" for i in range(N)])),
        lambda f: "UTC" in column(f, "b").dtype,
    ),
    "a day that is none": Refused(text(csv(LINES, [*["2020-02-28"] * (N - 1), "2020-02-31"])), '"2020-02-31" in line 61, which is no date'),
    "bool with missing": Handled(
        frame(a=A, b=[True, False, None] * (N // 3)), lambda f: column(f, "b").kind == "binary" and (~mask(f)).sum() == N // 3
    ),
    "time differences": Refused(frame(a=A, b=pd.to_timedelta(range(N), "s")), 'column "b" is of dtype timedelta64.*total_seconds'),
    # text
    "mixed encodings": Refused(
        text("a,b\nKöln,1\n".encode() + "Köln,2\n".encode("cp1252")), r"mixes encodings: line 2, byte 2 .* line 3, byte 2 \(0xf6\)"
    ),
    "an old encoding": Handled(
        text(csv(LINES, ["Köln", "Ulm", "Bonn"] * 20).encode("cp1252")),
        lambda f: "Köln" in column(f, "b").categories and "cp1252" in f.notes[0],
    ),
    "UTF-16": Handled(text(csv(LINES, ["Köln", "Ulm", "Bonn"] * 20).encode("utf-16")), lambda f: "Köln" in column(f, "b").categories),
    "a byte order mark": Handled(text(b"\xef\xbb\xbf" + csv(LINES, LINES).encode()), lambda f: column(f, "a").kind == "continuous"),
    # files that are not what they say
    "an image called .csv": Refused(text(image()), r"t.csv is not text: .* an image \(.png\)"),
    "Parquet called .csv": Refused(lambda folder: parquet(folder).rename(folder / "x.csv"), r"is not text: .* a Parquet file"),
    "text called .parquet": Refused(text("a,b\n1,2\n", "x.parquet"), "x.parquet is no whole Parquet file"),
    "damaged Parquet": Refused(damaged_parquet, "x.parquet is no whole Parquet file"),
    "text called .npy": Refused(text("a,b\n1,2\n", "x.npy"), "x.npy is no .npy file"),
    "a .npy of Python objects": Refused(saved(np.array([{"a": 1}], dtype=object)), "holds Python objects"),
    "an unknown ending": Refused(text("a,b\n1,2\n", "x.dat"), "x.dat is no table by its name"),
    "a name that is not there": Refused(lambda folder: folder / "no.csv", "there is no file or folder .*no.csv"),
    # images
    "one image of another size": Refused(images(a=image(), b=image(), c=image((5, 3))), "c.png is 5 x 3, and a.png is 4 x 3"),
    "one image of another size in a zip": Refused(zipped(a=image(), b=image((5, 3))), "images.zip: b.png is 5 x 3"),
    "unreadable image": Refused(images(a=image(), b=b"\x89PNG not so"), "b.png cannot be read as an image"),
    "an image that is cut short": Refused(images(a=image(), b=image()[:-30]), "b.png cannot be read as an image"),
    "16 bits a pixel": Refused(images(a=image(), b=image(mode="I;16")), "b.png has pixels of mode I;16"),
    "16 bits a channel in colour": Refused(
        images(a=image(mode="RGB"), b=deep_png(2)), "b.png has pixels of 16 bits a channel: save it with 8"
    ),
    "16 bits a channel in colour and transparent": Refused(images(b=deep_png(6)), "b.png has pixels of 16 bits a channel"),
    "16 bits a channel in a TIFF": Refused(files_of(b_tif=deep_tiff()), "b.tif has pixels of 16 bits a channel"),
    "16 bits a channel in a PPM": Refused(
        files_of(b_ppm=b"P6\n# made by hand\n1 1 65535\n\1\2\3\4\5\6"), "b.ppm has pixels of up to 65535, more than 8 bits"
    ),
    "a PPM of 8 bits": Handled(
        files_of(**{f"i{i}_ppm": b"P6 2 1\n255\n" + bytes([9 * i, 7, 1, 2, 3, 4]) for i in range(20)}), lambda f: f.data.shape == (3, 1, 2)
    ),
    "animations": Handled(
        files_of(a_gif=several("GIF"), b_tif=several("TIFF"), c_png=several("PNG"), **{f"i{i}_png": image() for i in range(20)}),
        lambda f: f.notes[0].startswith("3 files hold several frames or pages") and len(mask(f)) == 23,
    ),
    "a damaged member of a zip": Refused(bad_deflate, "images.zip is no whole zip archive"),
    "a damaged .npz": Refused(bad_npz, "x.npz is no .npz file"),
    "a damaged .csv.gz": Refused(bad_gzip, "cannot read .*t.csv.gz"),
    "a sparse archive of several formats": Refused(parts(format=np.array(["csr", "csc"])), "sparse matrix of format .'csr', 'csc'."),
    "a sparse archive of three axes": Refused(parts(shape=np.array([2, 2, 2])), r"damaged sparse matrix .its shape is \[2, 2, 2\]"),
    "a sparse archive whose shape is one number": Refused(parts(shape=np.array(4)), "damaged sparse matrix"),
    "a sparse archive whose shape is text": Refused(parts(shape=np.array(["a", "b"])), "damaged sparse matrix"),
    "grey among colours": Handled(
        images(**{f"i{i}": image(mode="RGB" if i % 2 else "L") for i in range(20)}),
        lambda f: f.data.shape == (3, 3, 4) and "10 of 20" in f.notes[0],
    ),
    "folder without images": Refused(lambda folder: folder, "holds no images"),
    "a zip that is none": Refused(text("no zip", "x.zip"), "x.zip is no whole zip archive"),
    "floats beyond 1": Refused(saved(R.normal(size=(9, 4, 4))), "image 0 holds values from .*have to be in"),
    "images without channels": Refused(saved(np.zeros((9, 7, 7, 7))), "no axis of 1, 3 or 4 channels"),
    # counts
    "sparse with negative values": Refused(sparse([[0, 3], [0, -1]]), r"holds -1 in row 1, column 1"),
    "sparse with broken values": Refused(sparse([[0, 3], [0.7, 1]]), r"holds 0.7 in row 1, column 0.*not normalised"),
    "sparse with logarithms of counts": Refused(sparse(np.log1p([[0, 3], [1, 1]])), r"holds 1.38629 in row 0, column 1, and 3 entries"),
    "sparse with a row and a column of zeros": Handled(
        sparse([[0, 0, 0], *[[0, 2, 5], [0, 9, 0]] * 30]), lambda f: f.data.shape == (3,) and "row totals 0 to 9" in f.describe()
    ),
    "sparse of zeros": Refused(sparse(np.zeros((3, 4))), "all 3 x 4 counts are 0"),
    "sparse with infinities": Refused(sparse([[0, np.inf], [1, 1]]), "holds inf in row 0"),
    "an .h5ad that is none": Refused(text("no", "x.h5ad"), "x.h5ad (is no whole|needs anndata)"),
    # other
    "a vector": Refused(lambda folder: np.ones(5), r"array of shape \[5\]"),
    "something else": Refused(lambda folder: {"a": 1}, "a dict cannot be inspected"),
    "text in an array": Handled(
        lambda folder: np.stack([A.astype(object), np.array(["x", "y", "z"] * 20, dtype=object)], axis=1),
        lambda f: column(f, "x1").size == 3,
    ),
}


@pytest.mark.parametrize("what", AWKWARD)
def test_awkward_inputs_are_handled_or_refused_in_a_line(what: str, tmp_path: Path) -> None:
    case = AWKWARD[what]
    source = case.source(tmp_path)
    if isinstance(case, Handled):
        found = tables.inspect(source)
        assert case.right(found), found.describe()
        assert found.data.name and str(tmp_path) not in found.describe()
        return
    with pytest.raises(InputError, match=case.message) as caught:
        tables.inspect(source)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_member_of_an_archive_that_unpacks_to_too_much_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", image())
        archive.writestr("b.png", bytes(5000))  # a dozen bytes of the archive
    monkeypatch.setattr("vaekit.data.tables.pictures.LARGEST", 4999)
    with pytest.raises(InputError, match=r"b.png is 5000 bytes unpacked, more than the 4999"):
        tables.inspect(path)


def test_a_million_categories_are_left_out_on_request_or_kept_when_they_are_said_to_be() -> None:
    texts = np.arange(3000).astype(str).astype(object)
    data = pd.DataFrame({"a": R.normal(size=3000), "b": texts})
    assert [c.name for c in tables.Schema.infer(data, drop=["b"]).columns] == ["a"]
    schema = tables.Schema.infer(data, overrides={"b": "categorical"})
    assert schema.columns[1].size == 3000 and schema.decode(schema.encode(data)[0])["b"].tolist() == texts.tolist()
