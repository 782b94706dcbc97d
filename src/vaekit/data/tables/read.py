"""A table from a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vaekit.data.tables.delimited import read_delimited
from vaekit.data.tables.fields import MISSING
from vaekit.data.tables.needs import needed, pandas
from vaekit.errors import InputError

__all__ = ["TEXT", "read_noted", "read_table"]

TEXT = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz")
PARQUET = (".parquet", ".pq")


def read_table(path: Path | str, *, encoding: str | None = None, separator: str | None = None, missing: Sequence[str] = MISSING) -> Any:
    """A DataFrame of a ``.csv``, ``.tsv``, ``.txt`` (also ``.gz``) or ``.parquet`` file.

    Of text files: quoted fields may hold separators and line ends. Each column becomes whole numbers, numbers (1,234.5 and, beside
    semicolons and tabs, 1.234,5 too; whole ones exactly, up to 64 bits), truths, dates (as ISO 8601 writes them), or text; whole
    numbers with leading zeros are codes and stay text. White space around fields is left out.

    Args:
        path: the file.
        encoding: of a text file; by default what its first bytes say, else UTF-8, else cp1252. A mixture is refused.
        separator: of a text file; by default a tab in a .tsv, else what the first line has most of: comma, semicolon, tab or bar.
        missing: fields of a text file that stand for missing values.

    Raises:
        InputError: no such file, another format than its name says, no rows, rows of different lengths, two columns of one name, mixed
            encodings, numbers with texts among them, 1.234 beside decimal commas; with the line, the column or the position.
    """
    return read_noted(Path(path), encoding=encoding, separator=separator, missing=missing)[0]


def read_noted(
    path: Path, *, encoding: str | None = None, separator: str | None = None, missing: Sequence[str] = MISSING
) -> tuple[Any, list[str]]:
    """`read_table`, and what there is to say of how it was read, a line each. Arguments and errors are those of `read_table`."""
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    if path.suffix.lower() in PARQUET:
        return _parquet(path), []
    if path.name.lower().endswith(TEXT):
        return read_delimited(path, encoding=encoding, separator=separator, missing=missing)
    raise InputError(f"{path} is no table by its name: give {', '.join((*TEXT[:3], *PARQUET[:1]))}")


def _parquet(path: Path) -> Any:
    pandas(f"reading {path.name}")
    pa = needed("pyarrow", f"reading {path.name}", package="pyarrow", extra="tables")
    parquet = needed("pyarrow.parquet", f"reading {path.name}", package="pyarrow", extra="tables")
    try:
        table = parquet.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is no whole Parquet file ({' '.join(str(error).split())[:120]}): write it again") from error
    names = table.column_names
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None) if len(set(names)) < len(names) else None
    if twice is not None:
        raise InputError(f'two columns of {path} are both called "{twice}": rename one')
    return table.to_pandas(date_as_object=True)
