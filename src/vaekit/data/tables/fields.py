"""One column of text fields as what all of them are: whole numbers, numbers, truths, dates, or text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vaekit.data.tables.cells import shown
from vaekit.data.tables.needs import needed, pandas
from vaekit.errors import InputError

__all__ = ["DECIMAL", "MISSING", "column_from", "refuse_points"]

MISSING = (
    *("", "NA", "N/A", "n/a", "na", "#N/A", "#NA", "<NA>", "NaN", "nan", "NAN", "-nan", "-NaN"),
    *("NULL", "null", "Null", "None", "none", "NaT", "-", "--", "?", "."),
)
TRUTHS = {"true": True, "false": False, "True": True, "False": False, "TRUE": True, "FALSE": False}
WHOLE = r"^[+-]?\d+$"
NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$|^[+-]?(inf|Inf|INF|infinity|Infinity)$"
LEADING = r"^[+-]?0\d"
THOUSANDS = r"^[+-]?\d{1,3}(,\d{3})+(\.\d*)?$|^[+-]?\d+(\.\d*)?$"
DECIMAL_COMMA = r"^[+-]?(\d{1,3}(\.\d{3})+|\d+)(,\d*)?([eE][+-]?\d+)?$"
DATES = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:?\d{2})?)?$"
ZONE = r"(Z|\d[+-]\d{2}:?\d{2})$"
POINTED = r"^[+-]?[1-9]\d{0,2}\.\d{3}$"
GROUPED = r"^[+-]?\d{1,3}(\.\d{3})+$|^[+-]?\d+$"
DECIMAL = "the comma is the decimal one"
MOSTLY = 0.9  # of the fields that are numbers, from which the rest are mistakes


def column_from(
    fields: Any, name: str, path: Path, *, place: Callable[[int], str], separator: str, missing: Sequence[str]
) -> tuple[Any, list[str]]:
    """A Series of an Arrow column of text, and what there is to say of it.

    Args:
        fields: ``[N]``.
        name, path: for messages.
        place: where the field of a row (from 0) is in the file, in words.
        separator: of the file: beside a semicolon or a tab, a comma may be a decimal one.
        missing: fields that stand for a missing value, besides white space around them.

    Raises:
        InputError: numbers with a few texts among them, dates that are none; the column and the line are named.
    """
    pa = needed("pyarrow", f"reading {path.name}", package="pyarrow", extra="tables")
    pc = needed("pyarrow.compute", f"reading {path.name}", package="pyarrow", extra="tables")
    text = pc.utf8_trim_whitespace(fields.combine_chunks() if fields.num_chunks != 1 else fields.chunk(0))
    tokens = [token for token in missing if token not in ("-", "--")] if pc.any(pc.equal(text, "+")).as_py() else missing  # + and -: signs
    absent = pc.is_in(text, value_set=pa.array(tokens, pa.string()))
    present = text.filter(pc.invert(absent))
    if not len(present):
        return pandas().Series([None] * len(text), dtype=object, name=name), []
    marked = pc.if_else(absent, pa.scalar(None, pa.string()), text)
    said: list[str] = []
    found = _converted(pa, pc, present, marked, separator, said, shown(name))
    if found is None:
        found = _dates(pa, pc, present, marked, name, path, place)
    if found is None:
        _refuse_mixed(pc, present, marked, name, path, place)
        used = sorted(set(pc.unique(text.filter(absent)).to_pylist()) - {""})
        if used:
            said.append(
                f"{shown(name)}: {', '.join(map(repr, used))} read as missing; give other `missing` fields where that is a category"
            )
        found = marked.to_pandas()
    found.name = name
    return found, said


def _converted(pa: Any, pc: Any, present: Any, marked: Any, separator: str, said: list[str], who: str) -> Any:
    """Numbers or truths as a Series; None where some field is neither."""

    def all_match(pattern: str) -> bool:
        return bool(pc.all(pc.match_substring_regex(present, pattern)).as_py())

    holes = len(present) < len(marked)
    first = present[0].as_py()
    if first in TRUTHS and pc.all(pc.is_in(present, value_set=pa.array(list(TRUTHS), pa.string()))).as_py():
        truths = pc.is_in(marked, value_set=pa.array([token for token, value in TRUTHS.items() if value], pa.string()))
        truths = pc.if_else(pc.is_valid(marked), truths, pa.scalar(None, pa.bool_()))
        return truths.to_pandas().astype("boolean") if holes else truths.to_pandas()
    if not (first[0].isdigit() or first[0] in "+-.iI,"):
        return None
    if all_match(WHOLE):
        if pc.any(pc.match_substring_regex(present, LEADING)).as_py():
            said.append(f"{who}: whole numbers with leading zeros are codes, and are kept as text")
            return marked.to_pandas()
        return _whole(pa, pc, marked, holes, said, who)
    if all_match(NUMBER):
        return pc.cast(pc.replace_substring_regex(marked, r"^\+", ""), pa.float64()).to_pandas()
    european = separator in (";", "\t")
    if all_match(THOUSANDS) and not (european and all_match(DECIMAL_COMMA)):
        said.append(f"{who}: a comma stands between thousands")
        plain = pc.replace_substring(marked, ",", "")
        if not pc.any(pc.match_substring(present, ".")).as_py():
            return _whole(pa, pc, plain, holes, said, who)
        return pc.cast(pc.replace_substring_regex(plain, r"^\+", ""), pa.float64()).to_pandas()
    if all_match(GROUPED):
        said.append(f"{who}: a point stands between thousands")
        return _whole(pa, pc, pc.replace_substring(marked, ".", ""), holes, said, who)
    if all_match(DECIMAL_COMMA):
        said.append(f"{who}: {DECIMAL}")
        return pc.cast(pc.replace_substring(pc.replace_substring(marked, ".", ""), ",", "."), pa.float64()).to_pandas()
    return None


def _whole(pa: Any, pc: Any, marked: Any, holes: bool, said: list[str], who: str) -> Any:
    """Whole numbers in digits as int64, Int64 where some are missing; as floats, with a note, where 64 bits do not hold them."""
    digits = pc.replace_substring_regex(marked, r"^\+", "")
    try:
        numbers = pc.cast(digits, pa.int64())
    except pa.ArrowInvalid:  # beyond 64 bits
        said.append(f"{who}: whole numbers beyond 64 bits are read as floats, to 16 digits")
        return pc.cast(digits, pa.float64()).to_pandas()
    return pandas().Series(pandas().array(numbers.to_pylist(), dtype="Int64")) if holes else numbers.to_pandas()


def _dates(pa: Any, pc: Any, present: Any, marked: Any, name: str, path: Path, place: Callable[[int], str]) -> Any:
    """Dates as ISO 8601 writes them, in UTC where they name their zone; None where some field is none."""
    if not pc.all(pc.match_substring_regex(present, DATES)).as_py():
        return None
    zoned = pc.match_substring_regex(present, ZONE)
    some = pc.any(zoned).as_py()
    if some and not pc.all(zoned).as_py():
        raise InputError(f"{shown(name)} of {path} has times with and without a zone: give all of them one, or none")
    pd = pandas()
    stamps = pd.to_datetime(marked.to_pandas(), format="ISO8601", utc=some, errors="coerce")
    wrong = stamps.isna().to_numpy() & marked.is_valid().to_numpy(zero_copy_only=False)
    if wrong.any():
        kind = pa.timestamp("us", "UTC" if some else None)  # nanoseconds end in 1677 and 2262
        if (wide := _cast(pa, pc, marked, kind)) is not None:
            return wide.to_pandas()
        row = next((int(row) for row in wrong.nonzero()[0] if _cast(pa, pc, marked.slice(row, 1), kind) is None), None)
        if row is None:
            raise InputError(f"{shown(name)} of {path} has dates before 1677 or after 2262, and times finer than microseconds: round these")
        raise InputError(f'{shown(name)} of {path} holds "{marked[row].as_py()}" in {place(row)}, which is no date: correct it')
    return stamps


def _cast(pa: Any, pc: Any, fields: Any, kind: Any) -> Any:
    """Fields as another type; None where some field is none."""
    try:
        return pc.cast(fields, kind)
    except pa.ArrowInvalid:
        return None


def refuse_points(fields: Any, name: str, path: Path, missing: Sequence[str]) -> None:
    """Of a file with decimal commas, a column (``fields``, called ``name``) of 1.234 and the like: whole numbers with a point between
    thousands, or decimal ones. The fields in ``missing`` hold no value.

    Raises:
        InputError: each number with a point has one to three digits before it and three behind.
    """
    pa = needed("pyarrow", f"reading {path.name}", package="pyarrow", extra="tables")
    pc = needed("pyarrow.compute", f"reading {path.name}", package="pyarrow", extra="tables")
    text = pc.utf8_trim_whitespace(fields)
    pointed = text.filter(pc.and_(pc.match_substring(text, "."), pc.invert(pc.is_in(text, value_set=pa.array(missing, pa.string())))))
    if len(pointed) and pc.all(pc.match_substring_regex(pointed, POINTED)).as_py():
        raise InputError(
            f'{shown(name)} of {path} holds "{pointed[0].as_py()}" beside columns with decimal commas, where the point may be one between '
            "thousands: write it without that point, or with a decimal comma"
        )


def _refuse_mixed(pc: Any, present: Any, marked: Any, name: str, path: Path, place: Callable[[int], str]) -> None:
    numbers = pc.match_substring_regex(present, NUMBER)
    share = pc.mean(numbers.cast("float64")).as_py()
    if share < MOSTLY:
        return
    odd = pc.if_else(pc.is_valid(marked), pc.invert(pc.match_substring_regex(marked, NUMBER)), False)
    rows = odd.to_numpy(zero_copy_only=False).nonzero()[0]
    more = f" (and {len(rows) - 1} more)" if len(rows) > 1 else ""
    raise InputError(
        f'{shown(name)} of {path} holds numbers, and "{marked[int(rows[0])].as_py()}" in {place(int(rows[0]))}{more}: correct it, or '
        "give it among the `missing` fields"
    )
