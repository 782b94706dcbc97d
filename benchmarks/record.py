"""Measurement records: one JSON file per measured run, and the checks that keep pages honest.

Every number that the README or a page quotes comes from a record. A benchmark script ends with

    write("mnist/example-vae", command=..., seed=0, settings={...}, figures={"test_nelbo": {"value": 105.6, "error": 0.03, "unit": "nats"}},
          published={"test_nelbo": {"value": 105.59, "tolerance": 0.3, "direction": "within", "source": "..."}})

which adds the commit, the date, the machine and the versions, and writes ``benchmarks/results/mnist/example-vae.json``.
The verdict is computed from the figures, never typed. ``error`` is a standard error or half-width, None when there is none.

A page quotes a figure as ``<!-- figure: mnist/example-vae#test_nelbo -->105.6 ± 0.03 nats<!-- /figure -->``; the error and the unit
may be left out. ``quotes`` finds the quotes that disagree with their record at the precision printed.

Scripts run from the root of the repository: ``python -m benchmarks.<script>``.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["RESULTS", "check", "commit", "quotes", "read", "verdict", "write"]

Record = Mapping[str, Any]

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"

# The measured figure may differ from the published value by `tolerance`: on both sides, upwards only, downwards only.
DIRECTIONS: dict[str, Callable[[float, float, float], bool]] = {
    "within": lambda value, published, tolerance: abs(value - published) <= tolerance,
    "at_most": lambda value, published, tolerance: value <= published + tolerance,
    "at_least": lambda value, published, tolerance: value >= published - tolerance,
}

_TYPES: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "command": str,
    "commit": str,
    "date": str,
    "machine": dict,
    "versions": dict,
    "seed": (int, list),
    "settings": dict,
    "figures": dict,
    "published": (dict, type(None)),
    "verdict": str,
}
_MACHINE = {"cpu", "cores", "gpu", "memory_gib"}
_VERSIONS = {"python", "torch", "vaekit"}
_PACKAGES = ("torch", "numpy", "lightning", "zuko", "scikit-learn")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*/[a-z0-9][a-z0-9._-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}(-dirty)?")


def write(
    name: str,
    *,
    command: str,
    seed: int | list[int],
    settings: Mapping[str, Any],
    figures: Mapping[str, Mapping[str, Any]],
    published: Mapping[str, Mapping[str, Any]] | None = None,
    results: Path = RESULTS,
) -> Path:
    """Write the record ``name`` (``topic/name``) and return its path. An older record of that name is replaced whole, or not at all.

    Raises:
        ValueError: the record would fail ``check``; nothing is written. The one exception is a commit that cannot be
            found (no git here): a long run is not thrown away for it, and ``check`` complains until the field is filled.
    """
    record: dict[str, Any] = {
        "name": name,
        "command": command,
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": _machine(),
        "versions": _versions(),
        "seed": seed,
        "settings": dict(settings),
        "figures": {key: dict(figure) for key, figure in figures.items()},
        "published": None if published is None else {key: dict(entry) for key, entry in published.items()},
    }
    if problems := _fields(record) or _contents(record):
        raise ValueError(f"record {name!r}: " + "; ".join(problems))
    record["verdict"] = verdict(record)
    path = results / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(f".{os.getpid()}.tmp")
    scratch.write_text(json.dumps(record, indent=2, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")
    scratch.replace(path)
    return path


def read(results: Path = RESULTS) -> dict[str, Record]:
    """All records under ``results``, by the name that their path gives them."""
    return {
        path.relative_to(results).with_suffix("").as_posix(): json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(results.rglob("*.json"))
    }


def verdict(record: Record) -> str:
    """ "measured" where nothing is published, "reproduced" where every published figure is met, "missed" otherwise."""
    if not record["published"]:
        return "measured"
    met = (
        DIRECTIONS[entry["direction"]](record["figures"][key]["value"], entry["value"], entry["tolerance"])
        for key, entry in record["published"].items()
    )
    return "reproduced" if all(met) else "missed"


def check(record: Record, name: str | None = None) -> list[str]:
    """What is wrong with a record, one line each; ``name`` is what its path says it is called."""
    if found := _fields(record) or ([] if "verdict" in record else ["verdict is missing"]):
        return found
    if name is not None and record["name"] != name:
        found.append(f"name {record['name']!r} is not that of its path, {name!r}")
    if not _COMMIT.fullmatch(record["commit"]):
        found.append(f"commit {record['commit']!r} is not a commit: fill in the one that was measured")
    if contents := _contents(record):
        return found + contents
    if record["verdict"] != verdict(record):
        found.append(f"verdict {record['verdict']!r} does not follow from the figures: {verdict(record)!r}")
    return found


def _fields(record: Record) -> list[str]:
    found = [f"{key} is missing" for key in _TYPES if key not in record and key != "verdict"]
    found += [f"{key} is not a field of a record" for key in record if key not in _TYPES]
    found += [
        f"{key} has type {type(record[key]).__name__}"
        for key, kind in _TYPES.items()
        if key in record and (not isinstance(record[key], kind) or isinstance(record[key], bool))
    ]
    return found


def _contents(record: Record) -> list[str]:
    found = []
    if not _NAME.fullmatch(record["name"]):
        found.append(f"name {record['name']!r} is not topic/name in lower case")
    if not record["command"].strip() or re.search(r"(?:^|[\s=:])[/~]\S", record["command"]):
        found.append(f"command {record['command']!r} is empty or names a path of one machine")
    found += _date(record["date"])
    found += [f"machine.{key} is missing" for key in sorted(_MACHINE - set(record["machine"]))]
    found += [f"versions.{key} is missing" for key in sorted(_VERSIONS - set(record["versions"]))]
    if isinstance(record["seed"], list) and not (record["seed"] and all(type(seed) is int for seed in record["seed"])):
        found.append(f"seed {record['seed']!r} is not a number or a list of numbers")
    if not record["figures"]:
        found.append("figures is empty")
    for key, figure in record["figures"].items():
        found += _figure(key, figure)
    for key, entry in (record["published"] or {}).items():
        found += _published(key, entry, set(record["figures"]))
    return found


def _date(date: str) -> list[str]:
    try:
        zone = datetime.fromisoformat(date).tzinfo
    except ValueError:
        return [f"date {date!r} is not an ISO date"]
    return [] if zone else [f"date {date!r} has no time zone"]


def _figure(key: str, figure: object) -> list[str]:
    if not isinstance(figure, Mapping) or set(figure) != {"value", "error", "unit"}:
        return [f"figures.{key} does not hold exactly value, error and unit"]
    found = []
    if not _finite(figure["value"]):
        found.append(f"figures.{key}.value {figure['value']!r} is not a finite number")
    if figure["error"] is not None and not (_finite(figure["error"]) and figure["error"] >= 0):
        found.append(f"figures.{key}.error {figure['error']!r} is neither None nor a finite number >= 0")
    if not isinstance(figure["unit"], str) or not figure["unit"].strip():
        found.append(f"figures.{key}.unit {figure['unit']!r} is not a unit")
    return found


def _published(key: str, entry: object, figures: set[str]) -> list[str]:
    if key not in figures:
        return [f"published.{key} has no figure of that name"]
    if not isinstance(entry, Mapping) or set(entry) != {"value", "tolerance", "direction", "source"}:
        return [f"published.{key} does not hold exactly value, tolerance, direction and source"]
    found = []
    if not _finite(entry["value"]):
        found.append(f"published.{key}.value {entry['value']!r} is not a finite number")
    if not (_finite(entry["tolerance"]) and entry["tolerance"] >= 0):
        found.append(f"published.{key}.tolerance {entry['tolerance']!r} is not a finite number >= 0")
    if entry["direction"] not in DIRECTIONS:
        found.append(f"published.{key}.direction {entry['direction']!r} is not one of {', '.join(DIRECTIONS)}")
    if not isinstance(entry["source"], str) or not entry["source"].strip():
        found.append(f"published.{key}.source is empty")
    return found


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_OPEN = re.compile(r"<!--\s*figure:")
_QUOTE = re.compile(r"<!--\s*figure:\s*(?P<name>[^#\s]+)#(?P<figure>\S+)\s*-->(?P<text>[^<]*)<!--\s*/figure\s*-->")
_NUMBER = r"[-+\N{MINUS SIGN}]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?"
_TEXT = re.compile(rf"[*_`\s]*(?P<value>{_NUMBER})(?:\s*(?:±|\+-|\+/-)\s*(?P<error>{_NUMBER}))?\s*(?P<unit>.*?)[*_`\s]*")


def quotes(text: str, records: Mapping[str, Record]) -> list[str]:
    """The marked figures of a page that do not say what their record says, one line each."""
    marked = list(_QUOTE.finditer(text))
    found = [] if len(marked) == len(_OPEN.findall(text)) else ["a figure mark is malformed or not closed"]
    for quote in marked:
        where = f"{quote['name']}#{quote['figure']}"
        figure = records.get(quote["name"], {}).get("figures", {}).get(quote["figure"])
        printed = _TEXT.fullmatch(quote["text"])
        if figure is None:
            found.append(f"{where}: no such record or figure")
        elif printed is None:
            found.append(f"{where}: {quote['text']!r} is not a number, with ± error and unit if any")
        else:
            if not _rounds_to(figure["value"], printed["value"]):
                found.append(f"{where}: printed {printed['value']}, recorded {figure['value']}")
            if printed["error"] and (figure["error"] is None or not _rounds_to(figure["error"], printed["error"])):
                found.append(f"{where}: printed error {printed['error']}, recorded {figure['error']}")
            if printed["unit"] and printed["unit"] != figure["unit"]:
                found.append(f"{where}: printed unit {printed['unit']!r}, recorded {figure['unit']!r}")
    return found


def _rounds_to(value: float, printed: str) -> bool:
    plain = printed.replace(",", "").replace("\N{MINUS SIGN}", "-").lstrip("+")
    mantissa, _, exponent = plain.partition("e")
    decimals = len(mantissa.partition(".")[2])
    if not exponent:
        return f"{value:.{decimals}f}" == plain
    return float(f"{value:.{decimals}e}") == float(plain)


# Results and pages may have changed: a script writes its curves and pictures before its record.
_GIT = (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results", ":!docs"])


def commit() -> str:
    """The commit that is checked out, with "-dirty" where tracked files other than results and pages are not as it has them."""
    try:
        head, changed = (subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout for words in _GIT)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.strip() + "-dirty" * bool(changed.strip())


def _machine() -> dict[str, Any]:
    import torch

    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1) if os.name == "posix" else None,
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    model = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.exists() else None
    return model[1] if model else platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    import vaekit

    found = {"python": platform.python_version(), "vaekit": vaekit.__version__}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
