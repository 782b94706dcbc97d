"""Text files of rows: which encoding, which separator, whether there is a header, and as many fields in each row.

Everything is read as text first, and each column made into what all of its fields are (`vaekit.data.tables.fields`); nothing is guessed
that cannot be said in a line.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaekit.data.tables.fields import DECIMAL, MISSING, column_from, refuse_points
from vaekit.data.tables.needs import needed, pandas
from vaekit.errors import InputError

__all__ = ["SIGNATURES", "Layout", "contents", "layout_of", "read_delimited"]

SEPARATORS = (",", ";", "\t", "|")
CALLED = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
SIGNATURES = {
    b"PAR1": "a Parquet file (.parquet)",
    b"\x93NUMPY": "a numpy array (.npy)",
    b"PK\x03\x04": "a zip archive (a .zip of images, an .npz, or a spreadsheet: save that as .csv)",
    b"\x89HDF": "an HDF5 file (.h5ad where it holds an AnnData)",
    b"\x89PNG": "an image (.png)",
    b"\xff\xd8\xff": "an image (.jpg)",
    b"\xd0\xcf\x11\xe0": "a spreadsheet: save it as .csv",
    b"\x1f\x8b": "a gzip archive (.csv.gz)",
    b"%PDF": "a PDF",
}
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
UTF8 = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")


@dataclass
class _Row:
    """What the reader says of the first row that does not fit."""

    text: str = ""

    def __call__(self, row: Any) -> str:
        self.text = self.text or f"row {row.number} has {row.actual_columns} fields where the first has {row.expected_columns}"
        return "error"


@dataclass(frozen=True)
class Layout:
    """How a text file writes its rows: its encoding, separator and ``line_end``, its header as it is (empty where there is none), and in
    ``commas`` the columns whose comma is the decimal one."""

    encoding: str
    separator: str
    line_end: str
    header: tuple[str, ...]
    commas: frozenset[str]


def contents(path: Path) -> bytes:
    """The bytes of a file, unpacked where its name ends in .gz.

    Raises:
        InputError: it cannot be read, or holds nothing.
    """
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise InputError(f"cannot read {path}: {why.lower()}") from error
    if not data.strip():
        raise InputError(f"{path} is empty")
    return data


def read_delimited(
    path: Path, *, encoding: str | None = None, separator: str | None = None, missing: Sequence[str] = MISSING
) -> tuple[Any, list[str]]:
    """A DataFrame of a text file, and what there is to say of how it was read, a line each. ``encoding``, ``separator`` and ``missing``
    as in `vaekit.data.tables.read_table`.

    Raises:
        InputError: see `vaekit.data.tables.read_table`.
    """
    pd = pandas(f"reading {path.name}")
    text, notes = _text(path, contents(path), encoding)
    if separator is not None and (len(separator) != 1 or separator in '"\r\n'):
        raise InputError(
            f"fields cannot be separated by {separator!r}: give a separator of one character, which is no quote and no line end"
        )
    separator = separator or _separator(path, text)
    names, headed = _header(path, text, separator, notes)
    table = _fields(path, text, separator, names, headed)
    if not table.num_rows:
        raise InputError(f"{path} has a header and no rows")

    def place(row: int) -> str:
        return _line(text, separator, row + headed, blank=len(names) == 1) or f"row {row + headed + 1}"

    found, commas = {}, False
    for name in names:
        found[name], said = column_from(table[name], name, path, place=place, separator=separator, missing=missing)
        commas = commas or any(one.endswith(DECIMAL) for one in said)
        notes += said
    for name in names if commas else ():
        if found[name].dtype.kind == "f":
            refuse_points(table[name], name, path, missing)
    return pd.DataFrame(found), notes


def layout_of(path: Path) -> tuple[Any, Layout]:
    """All fields of a text file as they are, in an Arrow table of text, and how they are written.

    Raises:
        InputError: see `vaekit.data.tables.read_table`.
    """
    data = contents(path)
    text, said = _text(path, data, None)
    encoding = "cp1252" if said else next((name for mark, name in MARKS.items() if data.startswith(mark)), "utf-8")
    separator = _separator(path, text)
    names, headed = _header(path, text, separator, [])
    table = _fields(path, text, separator, names, headed)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    header = tuple(next(row for row in rows if row)) if headed else ()

    def comma(name: str) -> bool:
        said = column_from(table[name], name, path, place=str, separator=separator, missing=MISSING)[1]
        return any(one.endswith(DECIMAL) for one in said)

    commas = frozenset(name for name in names if comma(name))
    line_end = "\r\n" if text.lstrip("\r\n").partition("\n")[0].endswith("\r") else "\n"
    return table, Layout(encoding, separator, line_end, header, commas)


def _text(path: Path, data: bytes, encoding: str | None) -> tuple[str, list[str]]:
    for start, what in SIGNATURES.items():
        if data.startswith(start):
            raise InputError(f"{path} is not text: by its first bytes it is {what}; give it the name that says so")
    if encoding is not None:
        try:
            return data.decode(encoding).removeprefix("\ufeff"), []  # a byte order mark is no part of the first name
        except LookupError as error:
            raise InputError(f'"{encoding}" is no encoding: give utf-8, cp1252, latin-1 or another that Python knows') from error
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is not {encoding}: {_place(data, error.start)} {error.reason}; give another encoding") from error
    for mark, name in MARKS.items():
        if data.startswith(mark):
            encoding = name
    try:
        text = data.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        return _single_byte(path, data, error, encoding)
    if "\0" in text:
        raise InputError(f"{path} is not text: {_place(data, data.index(0))} is 0")
    return text, []


def _single_byte(path: Path, data: bytes, error: UnicodeDecodeError, marked: str | None) -> tuple[str, list[str]]:
    """Text that is not UTF-8: cp1252, unless parts of it are UTF-8."""
    place = _place(data, error.start)
    other = UTF8.search(data)
    if marked is not None or other is not None:
        begun = "it begins as" if marked is not None else f"{_place(data, other.start() if other else 0)} is"
        raise InputError(
            f"{path} mixes encodings: {begun} UTF-8 or UTF-16, and {place} (0x{data[error.start]:02x}) is not; save it as UTF-8"
        ) from error
    try:
        return data.decode("cp1252"), [f"read as cp1252 (Windows, western Europe), because {place} (0x{data[error.start]:02x}) is no UTF-8"]
    except UnicodeDecodeError as second:
        raise InputError(
            f"{path} is neither UTF-8 nor cp1252: {_place(data, second.start)} (0x{data[second.start]:02x}) is neither; give its encoding"
        ) from second


def _place(data: bytes, at: int) -> str:
    line = data.count(b"\n", 0, at) + 1
    start = data.rfind(b"\n", 0, at)
    return f"line {line}, byte {at - start}"


def _separator(path: Path, text: str) -> str:
    """The separator that the first line has most of; a tab in .tsv."""
    if ".tsv" in path.suffixes:
        return "\t"
    line = re.sub(r'"[^"]*"', "", text.lstrip("\r\n").partition("\n")[0])
    most = max(SEPARATORS, key=line.count)
    return most if line.count(most) else ","


def _header(path: Path, text: str, separator: str, notes: list[str]) -> tuple[list[str], bool]:
    """The names of the columns, and whether the file begins with them. A first row of numbers is no header."""
    try:
        fields = next(row for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if row)
    except (csv.Error, StopIteration) as error:
        raise InputError(f"{path} has no first row that can be read ({error}): is it a text file of rows?") from error
    names = [field.strip() for field in fields]
    if all(_numeric(name) for name in names):
        notes.append("the first row is all numbers, so there is no header: columns are called x0, x1, ...")
        return [f"x{i}" for i in range(len(names))], False
    for i, name in enumerate(names):
        if not name:
            names[i] = f"x{i}"
            notes.append(f'column {i} (from 0) has no name in the header, and is called "x{i}"')
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None) if len(set(names)) < len(names) else None
    if twice is not None:
        places = [str(i) for i, name in enumerate(names) if name == twice]
        raise InputError(f'columns {" and ".join(places)} (from 0) of {path} are both called "{twice}": rename one')
    return names, True


def _line(text: str, separator: str, row: int, *, blank: bool) -> str:
    """The line in which a row (from 0, the header one of them) begins; nothing where the text cannot be divided as csv does it. Empty lines
    are rows where they are fields without a value (``blank``)."""
    start = text[: len(text) - len(text.lstrip("\r\n"))].count("\n")
    reader = csv.reader(io.StringIO(text.lstrip("\r\n"), newline=""), delimiter=separator)
    seen, before = 0, 0
    try:
        for fields in reader:
            if fields or blank:
                if seen == row:
                    return f"line {start + before + 1}"
                seen += 1
            before = reader.line_num
    except csv.Error:
        pass
    return ""


def _numeric(field: str) -> bool:
    try:
        float(field.replace(",", "."))
    except ValueError:
        return False
    return field.lower() not in ("nan", "inf", "infinity")


def _fields(path: Path, text: str, separator: str, names: list[str], headed: bool) -> Any:
    """All fields as text, in an Arrow table."""
    pa = needed("pyarrow", f"reading {path.name}", package="pyarrow", extra="tables")
    reader = needed("pyarrow.csv", f"reading {path.name}", package="pyarrow", extra="tables")
    bad = _Row()
    skipped = text[: len(text) - len(text.lstrip("\r\n"))].count("\n")
    text = text.strip("\r\n") + "\n" if len(names) > 1 else text.lstrip("\r\n")
    try:
        table = reader.read_csv(
            pa.BufferReader(text.encode()),
            read_options=reader.ReadOptions(use_threads=False, column_names=names, skip_rows_after_names=int(headed), block_size=2**24),
            parse_options=reader.ParseOptions(
                delimiter=separator, newlines_in_values=True, invalid_row_handler=bad, ignore_empty_lines=len(names) > 1
            ),
            convert_options=reader.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False),
        )
    except (pa.ArrowInvalid, pa.ArrowCapacityError) as error:
        why = bad.text or " ".join(str(error).split())
        hint = f"fields are separated by a {CALLED.get(separator, repr(separator))} here" + ("" if bad.text else "; is a quote not closed?")
        raise InputError(f"{path} cannot be divided into columns: {why} ({hint}): correct that row, or give the separator") from error
    # a quote that is not closed takes all that follows into its field, to the end of the last line
    if text.count('"') % 2 and table.num_rows and str(table[names[-1]][-1]).endswith("\n"):
        line = skipped + text.count("\n", 0, len(text) - len(str(table[names[-1]][-1]))) + 1
        raise InputError(f"{path} cannot be divided into columns: the quote in line {line} is not closed; close it, or double it")
    return table
