"""Render the gallery: ``benchmarks/gallery/<name>.md`` and the records into ``docs/gallery/<name>.md``; likewise ``docs/benchmarks.md``.
``docs/ledger.md`` is made of the records and ``benchmarks/published.toml``.

A template holds no measured number. ``{{gallery/kl#forward}}`` stands for "value ± error", ``{{gallery/kl#forward:value}}`` for the value
alone and ``{{gallery/kl#forward:.1f}}`` for the value in that format; each becomes a marked quote, which a test compares with its record.

Run: python -m benchmarks.gallery
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gallery import ledger
from benchmarks.record import Record, read

HERE = Path(__file__).resolve().parent
PAGES = HERE.parents[1] / "docs" / "gallery"
ORDER = (
    "lightning_mlp",
    "resnet",
    "autoencoder",
    "dense",
    "gaussian_kl",
    "laplace",
    "flows",
    "aevb",
    "estimators",
    "naive",
    "mcem",
    "wake_sleep",
    "pyro",
    "vq",
    "discrete",
    "generation",
    "likelihood",
    "counts",
)
INTRODUCTION = """# Gallery

The systems that the tutorials and papers of the field describe, each made of vaekit's parts, with its equation, its command, what was
measured and a picture. Every number comes from a record that says how it was measured.
"""
_PLACE = re.compile(r"\{\{(?P<record>[^#{}]+)#(?P<figure>[^:{}]+)(?::(?P<format>[^{}]+))?\}\}")


def number(figure: Mapping[str, Any], form: str | None = None) -> str:
    """A figure as text: to two digits of its error; without one, to four digits.

    >>> number({"value": 105.5123, "error": 0.1134}), number({"value": 105.5123, "error": None}), number({"value": 105.5123}, ".1f")
    ('105.51 ± 0.11', '105.5', '105.5')
    """
    value, error = figure["value"], figure.get("error")
    if form not in (None, "value"):
        return f"{value:{form}}"
    if not error:
        digits = 0 if value == 0 else max(0, 3 - math.floor(math.log10(abs(value))))
        return f"{value:.{digits}f}" if abs(value) < 1e5 and digits <= 6 else f"{value:.3g}"
    digits = max(0, 1 - math.floor(math.log10(error)))
    if digits > 6:
        return f"{value:.3g}" if form == "value" else f"{value:.3g} ± {error:.1g}"
    return f"{value:.{digits}f}" if form == "value" else f"{value:.{digits}f} ± {error:.{digits}f}"


def render(template: str, records: Mapping[str, Record]) -> str:
    """The page of a template."""
    used: dict[str, Record] = {}

    def place(found: re.Match[str]) -> str:
        text = quote(records, found["record"], found["figure"], found["format"])
        used[found["record"]] = records[found["record"]]
        return text

    body = _PLACE.sub(place, template.rstrip())
    return "\n".join([body, "", "## How it was measured", "", *(_origin(name, used[name]) for name in sorted(used)), ""])


def quote(records: Mapping[str, Record], name: str, figure: str, form: str | None = None) -> str:
    """A figure of a record, marked as such."""
    if name not in records or figure not in records[name]["figures"]:
        raise SystemExit(f"{name}#{figure}: there is no such figure")
    return f"<!-- figure: {name}#{figure} -->{number(records[name]['figures'][figure], form)}<!-- /figure -->"


def _origin(name: str, record: Record) -> str:
    machine, seeds = record["machine"], record["seed"]
    dirty = "-dirty" * record["commit"].endswith("dirty")
    many = "s" * (isinstance(seeds, list) and len(seeds) > 1)
    where = f"{machine['cpu']}, {machine['cores']} cores" + (f", {machine['gpu']}" if machine["gpu"] else "")
    published = "" if record["published"] is None else f" Against the published figures: {record['verdict']}."
    return (
        f"- `{name}`: `{record['command']}`, commit `{record['commit'][:10]}{dirty}`, "
        f"{record['date'][:10]}, {where}, torch {record['versions']['torch']}, "
        f"seed{many} {', '.join(map(str, seeds)) if isinstance(seeds, list) else seeds}."
        f"{published}"
    )


def pages() -> dict[str, str]:
    """File name -> text of every page whose records are there, and of the index."""
    records = read()
    templates = {path.stem: path.read_text(encoding="utf-8") for path in HERE.glob("*.md")}
    if lost := [name for name in templates if name not in ORDER]:
        raise SystemExit(f"{lost[0]}.md has no place in ORDER")
    measured = {name for name, text in templates.items() if all(place["record"] in records for place in _PLACE.finditer(text))}
    names = [name for name in ORDER if name in measured]
    titles = {name: templates[name].partition("\n")[0].removeprefix("# ") for name in names}
    found = {f"{name}.md": render(templates[name], records) for name in names}
    speed = (HERE.parent / "benchmarks.md").read_text(encoding="utf-8")
    if all(place["record"] in records for place in _PLACE.finditer(speed)):
        found["../benchmarks.md"] = render(speed, records)
    found["../ledger.md"] = ledger.page(records, partial(quote, records), ledger.sections())
    index = [INTRODUCTION, "```{toctree}", ":hidden:", "", *names, "```", "", *(f"- [{titles[name]}]({name}.md)" for name in names), ""]
    return found | {"index.md": "\n".join(index)}


def main() -> None:
    PAGES.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (PAGES / name).write_text(text, encoding="utf-8")
        print(f"docs/gallery/{name}")


if __name__ == "__main__":
    main()
