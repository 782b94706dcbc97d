"""Measurement records: the schema, the verdict, what ``write`` fills in, and the figures that pages quote."""

from __future__ import annotations

import copy
import json
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import record as records

ROOT = Path(__file__).resolve().parents[1]
PAGES = [path for path in [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))] if path.exists()]

GOOD: dict[str, Any] = {
    "name": "mnist/example-vae",
    "command": "vaekit train mnist:example --seed 0",
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "date": "2026-11-21T10:00:00+00:00",
    "machine": {"cpu": "some cpu", "cores": 2, "gpu": None, "memory_gib": 15.6},
    "versions": {"python": "3.11.7", "torch": "2.13.0", "vaekit": "0.1.0"},
    "seed": [0, 1, 2],
    "settings": {"epochs": 10},
    "figures": {
        "test_nelbo": {"value": 105.5874, "error": 0.031, "unit": "nats"},
        "pixels_per_second": {"value": 1470.4, "error": None, "unit": "1/s"},
    },
    "published": {"test_nelbo": {"value": 105.59, "tolerance": 0.3, "direction": "within", "source": "pytorch/examples, vae/main.py"}},
    "verdict": "reproduced",
}


def put(*keys: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """The edit record[keys[0]][keys[1]]... = value."""

    def edit(record: dict[str, Any]) -> None:
        for key in keys[:-1]:
            record = record[key]
        record[keys[-1]] = value

    return edit


BAD: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "missing field": (lambda r: r.pop("seed"), "seed is missing"),
    "missing verdict": (lambda r: r.pop("verdict"), "verdict is missing"),
    "extra field": (put("host", value="box"), "host is not a field"),
    "wrong type": (put("settings", value="epochs=10"), "settings has type str"),
    "boolean seed": (put("seed", value=True), "seed has type bool"),
    "seeds of words": (put("seed", value=["a"]), "seed"),
    "name without topic": (put("name", value="example"), "topic/name"),
    "name of another file": (put("name", value="mnist/other"), "not that of its path"),
    "command with a home": (put("command", value="python /home/ann/run.py"), "path of one machine"),
    "command with data at home": (put("command", value="VAEKIT_DATA=~/data vaekit train digits"), "path of one machine"),
    "no commit": (put("commit", value="unknown"), "fill in"),
    "date without zone": (put("date", value="2026-11-21T10:00:00"), "no time zone"),
    "date in words": (put("date", value="yesterday"), "not an ISO date"),
    "machine without gpu": (lambda r: r["machine"].pop("gpu"), "machine.gpu is missing"),
    "versions without torch": (lambda r: r["versions"].pop("torch"), "versions.torch is missing"),
    "no figures": (put("figures", value={}), "figures is empty"),
    "bare figure": (put("figures", "test_nelbo", value=105.6), "value, error and unit"),
    "figure without error": (lambda r: r["figures"]["test_nelbo"].pop("error"), "value, error and unit"),
    "infinite figure": (put("figures", "test_nelbo", "value", value=float("nan")), "not a finite number"),
    "negative error": (put("figures", "test_nelbo", "error", value=-0.1), "neither None nor"),
    "no unit": (put("figures", "test_nelbo", "unit", value=" "), "not a unit"),
    "published without figure": (lambda r: r["figures"].pop("test_nelbo"), "no figure of that name"),
    "published without source": (put("published", "test_nelbo", "source", value=""), "source is empty"),
    "published without tolerance": (lambda r: r["published"]["test_nelbo"].pop("tolerance"), "tolerance, direction"),
    "negative tolerance": (put("published", "test_nelbo", "tolerance", value=-1), "tolerance -1"),
    "unknown direction": (put("published", "test_nelbo", "direction", value="near"), "not one of within"),
    "flattering verdict": (put("figures", "test_nelbo", "value", value=107.0), "does not follow"),
    "typed verdict": (put("verdict", value="beaten"), "does not follow"),
}


def test_a_good_record_passes() -> None:
    assert records.check(GOOD, "mnist/example-vae") == []


@pytest.mark.parametrize("fault", BAD)
def test_the_check_bites(fault: str) -> None:
    edit, expected = BAD[fault]
    bad = copy.deepcopy(GOOD)
    edit(bad)
    assert any(expected in problem for problem in records.check(bad, "mnist/example-vae"))


@pytest.mark.parametrize(
    ("direction", "value", "expected"),
    [
        ("within", 9.5, "reproduced"),
        ("within", 10.5, "reproduced"),
        ("within", 9.4, "missed"),
        ("within", 10.6, "missed"),
        ("at_most", 1.0, "reproduced"),
        ("at_most", 10.5, "reproduced"),
        ("at_most", 10.6, "missed"),
        ("at_least", 9.5, "reproduced"),
        ("at_least", 99.0, "reproduced"),
        ("at_least", 9.4, "missed"),
    ],
)
def test_the_verdict_follows_from_the_figures(direction: str, value: float, expected: str) -> None:
    figures = {"a": {"value": value, "error": None, "unit": "nats"}, "b": {"value": 0.0, "error": None, "unit": "nats"}}
    published = {"a": {"value": 10.0, "tolerance": 0.5, "direction": direction, "source": "paper"}}
    assert records.verdict({"figures": figures, "published": published}) == expected
    assert records.verdict({"figures": figures, "published": None}) == "measured"
    both = {**published, "b": {"value": 5.0, "tolerance": 1.0, "direction": "within", "source": "paper"}}
    assert records.verdict({"figures": figures, "published": both}) == "missed"  # one figure missed is a target missed


def test_write_fills_in_what_a_hand_would_get_wrong(tmp_path: Path) -> None:
    given = {key: GOOD[key] for key in ("command", "seed", "settings", "figures", "published")}
    path = records.write("mnist/example-vae", **given, results=tmp_path)
    assert path == tmp_path / "mnist" / "example-vae.json"
    assert list(path.parent.iterdir()) == [path]  # no scratch file stays behind
    record = json.loads(path.read_text())
    assert {key: record[key] for key in given} == given
    assert record["verdict"] == "reproduced"
    assert record["versions"]["torch"] == torch.__version__
    assert record["versions"]["python"] == platform.python_version()
    assert record["machine"]["cores"] >= 1 and record["machine"]["cpu"]
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert record["commit"].removesuffix("-dirty") == (head.stdout.strip() if head.returncode == 0 else "unknown")
    assert [problem for problem in records.check(record, "mnist/example-vae") if "fill in" not in problem] == []
    assert records.read(tmp_path) == {"mnist/example-vae": record}


def test_write_refuses_a_bad_record_and_keeps_the_old_one(tmp_path: Path) -> None:
    given = {key: copy.deepcopy(GOOD[key]) for key in ("command", "seed", "settings", "figures", "published")}
    path = records.write("mnist/example-vae", **given, results=tmp_path)
    before = path.read_bytes()
    given["figures"]["test_nelbo"]["value"] = float("inf")
    with pytest.raises(ValueError, match=r"test_nelbo\.value inf is not a finite number"):
        records.write("mnist/example-vae", **given, results=tmp_path)
    assert path.read_bytes() == before


def test_a_run_outside_git_is_kept_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "ROOT", tmp_path / "no-such-folder")
    given = {key: GOOD[key] for key in ("command", "seed", "settings", "figures", "published")}
    record = json.loads(records.write("mnist/example-vae", **given, results=tmp_path).read_text())
    assert records.check(record) == ["commit 'unknown' is not a commit: fill in the one that was measured"]


def quote(text: str, figure: str = "mnist/example-vae#test_nelbo") -> list[str]:
    return records.quotes(f"before <!-- figure: {figure} -->{text}<!-- /figure --> after", {"mnist/example-vae": GOOD})


@pytest.mark.parametrize("text", ["105.6", "105.59", "106", "**105.6**", "105.6 ± 0.03", "105.59 +- 0.031 nats", "105.6 nats", "1.056e2"])
def test_a_figure_may_be_rounded(text: str) -> None:
    assert quote(text) == []


def test_a_figure_may_have_thousands_separators() -> None:
    assert quote("1,470", "mnist/example-vae#pixels_per_second") == []


@pytest.mark.parametrize(
    ("text", "figure", "expected"),
    [
        ("105.5", "mnist/example-vae#test_nelbo", "printed 105.5"),
        ("-105.6", "mnist/example-vae#test_nelbo", "printed -105.6"),
        ("105.6 ± 0.3", "mnist/example-vae#test_nelbo", "printed error 0.3"),
        ("1470 ± 1", "mnist/example-vae#pixels_per_second", "printed error 1"),
        ("105.6 bits", "mnist/example-vae#test_nelbo", "printed unit 'bits'"),
        ("about a hundred", "mnist/example-vae#test_nelbo", "is not a number"),
        ("105.6", "mnist/example-vae#nll", "no such record or figure"),
        ("105.6", "mnist/other#test_nelbo", "no such record or figure"),
    ],
)
def test_a_wrong_quote_is_found(text: str, figure: str, expected: str) -> None:
    (problem,) = quote(text, figure)
    assert expected in problem


def test_a_negative_figure_keeps_its_sign() -> None:
    record = {"figures": {"f": {"value": -3.25, "error": None, "unit": "nats"}}}
    assert records.quotes("<!-- figure: a/b#f -->\N{MINUS SIGN}3.2<!-- /figure -->", {"a/b": record}) == []
    assert len(records.quotes("<!-- figure: a/b#f -->3.2<!-- /figure -->", {"a/b": record})) == 1


def test_an_open_mark_is_found() -> None:
    assert records.quotes("<!-- figure: mnist/example-vae#test_nelbo -->105.6", {"mnist/example-vae": GOOD}) == [
        "a figure mark is malformed or not closed"
    ]


def test_every_record_of_the_repository_passes() -> None:
    found = [f"{name}: {problem}" for name, record in records.read().items() for problem in records.check(record, name)]
    assert found == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_quoted_figure_has_its_record(page: Path) -> None:
    assert records.quotes(page.read_text(encoding="utf-8"), records.read()) == []
