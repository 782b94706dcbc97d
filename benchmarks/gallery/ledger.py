"""The ledger: every published number that the project compares with (``benchmarks/published.toml``) beside the figures of the records.

A published number is reproduced or missed where a record holds it against its figure, with a tolerance and a direction, and has no verdict
where a figure only stands beside it. What else records are held against, goals and exact answers, comes after.
"""

from __future__ import annotations

import math
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.record import DIRECTIONS, Record

__all__ = ["LEFT", "PUBLISHED", "page", "sections", "status"]

PUBLISHED = Path(__file__).resolve().parents[1] / "published.toml"
LEFT = "not attempted"
"""What is said of a number that none of ours stands beside."""
SIDE = "no verdict"
_READ = {"text": "", "figure": "; read off the figure", "remembered": "; no source was found"}
_BETTER = {"lower": "lower is better", "higher": "higher is better"}
_LIMIT = {"within": "{value} ± {tolerance}", "at_most": "at most {limit}", "at_least": "at least {limit}"}
_INTRODUCTION = """# Ledger

Every published number that the project compares with, beside its own, those that were not attempted too. Numbers of ours come from
[records](measured.md#records), and so does the word after them: *reproduced* or *missed* where the record holds the number against its
figure, with a tolerance (on both sides, where the aim was the same number and not a better one); *no verdict* where the two only stand side
by side, with a word where the settings differ. † marks a number for which no source was found: nothing is held against it.

"""


def sections(path: Path = PUBLISHED) -> list[dict[str, Any]]:
    """The file's sections, each with its rows."""
    found: list[dict[str, Any]] = tomllib.loads(path.read_text(encoding="utf-8"))["section"]
    return found


def status(value: float, name: str, records: Mapping[str, Record]) -> str:
    """ "reproduced" or "missed" where the record of the figure ``name`` holds it against this value (to its last digit), else ""."""
    record, _, figure = name.partition("#")
    entry = (records[record]["published"] or {}).get(figure)
    if entry is None or not math.isclose(entry["value"], value, rel_tol=1e-4):
        return ""
    return "reproduced" if _met(records[record], figure) else "missed"


def page(records: Mapping[str, Record], quote: Callable[[str, str], str], published: list[dict[str, Any]]) -> str:
    """The page, where ``quote(record, figure)`` is the marked figure."""
    held: set[tuple[str, str]] = set()
    count: Counter[str] = Counter()
    body: list[str] = []
    paper = ""
    for section in published:
        if section["paper"] != paper:
            paper = section["paper"]
            body += [f"## {paper}", ""]
        body += [_caption(section), "", f"| | published, {section['unit']} | ours | |", "|---|---|---|---|"]
        for row in section["rows"]:
            verdicts = {name: status(row["value"], name, records) for name in row.get("ours", ())}
            held |= {_parts(name) for name, verdict in verdicts.items() if verdict}
            words = list(dict.fromkeys(_word(name, verdict, row, section, records) for name, verdict in verdicts.items())) or [LEFT]
            count["missed" if "missed" in verdicts.values() else words[0]] += 1
            word = "; ".join(words) + (f": {row['note']}" if "note" in row else "")
            ours = "; ".join(f"{quote(*_parts(name))} `{name}`" for name in verdicts)
            body.append(f"| {row['what']} | {_number(row, section)} | {ours} | {word} |")
        body.append("")
    counted = ", ".join(f"{count[word]} {word}" for word in ("reproduced", "missed", SIDE, LEFT))
    summary = f"{sum(count.values())} numbers: {counted}.\n\n"
    return _INTRODUCTION + summary + "\n".join([*body, *_others(records, quote, held)])


def _word(name: str, verdict: str, row: Mapping[str, Any], section: Mapping[str, Any], records: Mapping[str, Record]) -> str:
    if verdict != "missed":
        return verdict or SIDE
    record, figure = _parts(name)
    more = records[record]["figures"][figure]["value"] > row["value"]
    return "missed, on the better side" if more == (section["better"] == "higher") else verdict


def _parts(name: str) -> tuple[str, str]:
    record, _, figure = name.partition("#")
    return record, figure


def _met(record: Record, figure: str) -> bool:
    entry = record["published"][figure]
    return DIRECTIONS[entry["direction"]](record["figures"][figure]["value"], entry["value"], entry["tolerance"])


def _caption(section: Mapping[str, Any]) -> str:
    return f"**{section['table']}** ({_BETTER[section['better']]}{_READ[section['read']]})" + (
        f": {section['note']}" if "note" in section else ""
    )


def _number(row: Mapping[str, Any], section: Mapping[str, Any]) -> str:
    error = f" ± {row['error']:g}" if "error" in row else ""
    form = f".{section['digits']}f" if "digits" in section else "g"
    return f"{row['value']:{form}}{error}" + " †" * (row.get("read", section["read"]) == "remembered")


def _others(records: Mapping[str, Record], quote: Callable[[str, str], str], held: set[tuple[str, str]]) -> Iterator[str]:
    """What else records are held against."""
    yield from (
        "## Goals and exact answers",
        "",
        "What else the records are held against.",
        "",
        "| figure | ours | held against | | source |",
    )
    yield "|---|---|---|---|---|"
    for name, record in sorted(records.items()):
        for figure, entry in (record["published"] or {}).items():
            if (name, figure) in held:
                continue
            signed = {"within": 0.0, "at_most": 1.0, "at_least": -1.0}[entry["direction"]] * entry["tolerance"]
            against = _LIMIT[entry["direction"]].format(
                value=f"{entry['value']:.5g}", tolerance=f"{entry['tolerance']:g}", limit=f"{entry['value'] + signed:.5g}"
            )
            unit = record["figures"][figure]["unit"]
            word = "met" if _met(record, figure) else "missed"
            yield f"| `{name}#{figure}` | {quote(name, figure)} {unit} | {against} | {word} | {entry['source']} |"
    yield ""
