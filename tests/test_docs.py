"""The pages without building them: every link, anchor and picture has its target; the command-line reference holds every command and flag;
the page on components calls every test that runs over a table. `make docs` builds all pages, and a warning ends it; here two are built, to
open them from the disk in a browser without a network."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from browser import browser, opened
from vaekit import cli
from vaekit.recipes.core import names
from vaekit.recipes.flags import flags

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *(page for page in sorted(DOCS.rglob("*.md")) if "_build" not in page.parts)]

FENCE = re.compile(r"^( *)(```+|~~~+)(.*?)$.*?^\1\2\s*$", re.MULTILINE | re.DOTALL)
INCLUDED = re.compile(r"^ *```+\{(?:literalinclude|include|image|figure)\} +(\S+)", re.MULTILINE)
LINK = re.compile(
    r"\]\(<?([^)\s>]+)>?(?: +\"[^\"]*\")?\)|<(?:img|a|source)[^>]*?(?:src|href|srcset)=\"([^\"]+)\"|^\[[^\]]+\]: +(\S+)", re.MULTILINE
)
HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)


def links(text: str) -> Iterator[str]:
    """The targets of links and pictures outside of code, and the files that directives include."""
    yield from INCLUDED.findall(text)
    for found in LINK.finditer(re.sub(r"``.+?``|`[^`\n]+`", "", FENCE.sub("", text))):
        yield next(filter(None, found.groups()))


def anchors(text: str) -> set[str]:
    """What a link into a page may name: its headings as GitHub and MyST write them, labels, and ids in HTML."""
    text = FENCE.sub("", text)
    found: set[str] = set()
    for heading in HEADING.findall(text):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        n = next(n for n in range(len(found) + 1) if (f"{slug}-{n}" if n else slug) not in found)
        found.add(f"{slug}-{n}" if n else slug)
    return found | set(re.findall(r"^\(([\w.-]+)\)=$", text, re.MULTILINE)) | set(re.findall(r"\bid=\"([\w.-]+)\"", text))


def dead(page: Path, text: str, reference: ModuleType) -> list[str]:
    """The targets in a page that are not there."""
    found = []
    for target in links(text):
        if re.match(r"[a-z]+:", target):
            if not re.match(r"https://[\w.-]+\.[a-z]+(/|$)|mailto:", target):
                found.append(target)
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or not file.is_relative_to(ROOT):
            found.append(target)
        elif anchor.startswith("vaekit."):  # of a page of the API, which is made from docstrings
            try:
                pkgutil.resolve_name(anchor)
            except (ImportError, AttributeError):
                found.append(target)
        elif anchor and anchor not in anchors(built(file, reference)):
            found.append(target)
    return found


@functools.cache
def built(file: Path, reference: ModuleType) -> str:
    text = file.read_text(encoding="utf-8")
    return reference.filled(text) if file == DOCS / "cli.md" else text


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    """The extension that fills cli.md."""
    pytest.importorskip("sphinx", reason="Sphinx is not installed: pip install -e '.[docs]'")
    spec = importlib.util.spec_from_file_location("reference", DOCS / "_ext" / "reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_has_its_target(page: Path, reference: ModuleType) -> None:
    assert dead(page, built(page, reference), reference) == []


def test_a_dead_link_is_found(reference: ModuleType) -> None:
    page = DOCS / "page.md"
    good = "[a](cli.md#exit-status) [b](cli.md#recipe-mnist-example) ![p](samples.png) [c](https://example.org/x)\n"
    code = "```{literalinclude} ../tests/tables.py\n```\n```text\n[no](link.md)\n```\n`[no](link.md)`"
    assert dead(page, f"{good}[d](api/core.md#vaekit.heads.Head)\n{code}", reference) == []
    wrong = ["no.md", "cli.md#no", "no.png", "http://example.org/", "https://nowhere", "api/core.md#vaekit.heads.No", "/etc/hostname"]
    assert dead(page, "\n".join(f"[a]({target})" for target in wrong), reference) == wrong
    others = '```{literalinclude} ../tests/no.py\n```\n<img src="no.png">\n[x]: no.md'
    assert dead(page, others, reference) == ["../tests/no.py", "no.png", "no.md"]


def test_headings_have_the_anchors_that_links_use() -> None:
    text = "# A `b` c: d?\n## Same\n## Same\n(label-1)=\n```text\n# no heading\n```\n"
    assert anchors(text) == {"a-b-c-d", "same", "same-1", "label-1"}


def test_the_page_holds_every_command_and_its_flags(reference: ModuleType) -> None:
    sections = re.split(r"^## ", built(DOCS / "cli.md", reference), flags=re.MULTILINE)
    for name in reference.commands():
        (section,) = (one for one in sections if one.startswith(f"vaekit {name}\n"))
        parameters = reference._all()[name].params
        for parameter in parameters:
            option = parameter.param_type_name == "option"
            words = "`, `".join((*parameter.opts, *parameter.secondary_opts) if option else (parameter.metavar,))
            (row,) = (line for line in section.splitlines() if line.startswith(f"| `{words}` |"))
            assert parameter.help and row.endswith(f"| {reference._prose(parameter.help)} |")
            shown = option and parameter.default is not None and parameter.default is not False
            assert (f"| `{str(parameter.default).lower()}` |" in row) == shown
        assert parameters or name == "list"
        assert re.search(rf"^\$ vaekit {name}\b", section, re.MULTILINE), f"{name} has no example"
        assert re.search(rf"^vaekit {name}\b", section, re.MULTILINE), f"{name} has no usage"


def test_the_page_holds_every_recipe_and_its_flags(reference: ModuleType) -> None:
    sections = re.split(r"^### ", built(DOCS / "cli.md", reference), flags=re.MULTILINE)
    for name, function in names().items():
        (section,) = (one for one in sections if one.startswith(f"{name}\n"))
        assert reference._prose((function.__doc__ or "").splitlines()[0]) in section
        for flag in flags(function):
            assert flag.help, f"{name}: {flag.name} is not in the docstring"
            row = f"| `{flag.name}` | "
            assert row in section and reference._prose(flag.help) in section.partition(row)[2].partition("\n")[0]
            assert flag.default is None or f"| `{flag.default}` |" in section.partition(row)[2].partition("\n")[0]
    assert set(reference.MEASURED) <= set(names())


def test_the_page_has_a_comment_for_each_command(reference: ModuleType) -> None:
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert not re.search(r"<!-- (command|exits|recipes)", reference.filled(page))
    without, misspelt = (page.replace("command: embed", new) for new in ("", "command: embde"))
    for wrong in (without, misspelt, f"{page}<!-- command: list -->"):
        with pytest.raises(Exception, match="each command has one comment"):
            reference.filled(wrong)


def test_every_exit_status_is_explained(reference: ModuleType) -> None:
    code = inspect.getsource(cli.main)
    given = set(map(int, re.findall(r"(?:return |, |else )(\d+)\b", code))) | {cli.torchrun.LOST}
    assert given == set(cli.EXITS) and all(f"| `{status}` |" in reference.exits() for status in given)


def test_every_variable_of_the_environment_is_named() -> None:
    code = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "src").rglob("*.py"))
    read = set(re.findall(r"environ(?:\.get\(|\[)\"(VAEKIT_\w+)\"", code))
    assert read and read == set(re.findall(r"^\| `(VAEKIT_\w+)`", (DOCS / "cli.md").read_text(encoding="utf-8"), re.MULTILINE))


TABLES = {"test_heads": "row", "test_posteriors": "posterior", "test_priors": "prior", "test_nn": "row"}


@pytest.mark.parametrize("module", TABLES)
def test_the_page_on_components_calls_every_test_of_a_table(module: str) -> None:
    page = (DOCS / "components.md").read_text(encoding="utf-8")
    functions = vars(importlib.import_module(module))
    tests = {name for name, one in functions.items() if name.startswith("test_") and TABLES[module] in inspect.signature(one).parameters}
    assert len(tests) > 1 and {name for name in tests if f".{name}" not in page} == set()


def test_the_words_of_a_search_lose_their_plural_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sphinx", reason="Sphinx is not installed: pip install -e '.[docs]'")
    monkeypatch.syspath_prepend(DOCS / "_ext")
    words = importlib.import_module("words").Words({})
    monkeypatch.delitem(sys.modules, "words")
    assert [words.stem(word) for word in ("Importance", "latents", "entropies", "classes", "class", "analysis", "KL")] == [
        "importance", "latent", "entropy", "class", "class", "analysis", "kl",
    ]  # fmt: skip


def test_pages_open_from_the_disk_with_their_equations_and_a_search(tmp_path: Path) -> None:
    if any(importlib.util.find_spec(name) is None for name in ("sphinx", "furo", "myst_parser", "sphinx-mathjax-offline")):
        pytest.skip("what builds the pages is not installed: pip install -e '.[docs]'")
    with browser() as launched:
        two = ["-D", "include_patterns=index.md,components.md"]  # it warns of the others
        subprocess.run([sys.executable, "-m", "sphinx", "-q", "-b", "html", *two, DOCS, tmp_path], capture_output=True, check=True)
        with opened(launched, tmp_path / "index.html", until="mjx-container svg", beside=tmp_path, offline=True) as found:
            box = found.page.locator("input.sidebar-search")
            box.fill("importance")
            box.press("Enter")
            link = found.page.locator("#search-results a", has_text="Your own components").first
            link.wait_for(timeout=10_000)
            link.click()
            found.page.wait_for_selector("mjx-container svg")
            equations = found.page.locator(".math").count()
            found.page.wait_for_function("n => document.querySelectorAll('mjx-container').length === n", arg=equations)
            assert equations > 5 and found.page.locator("[data-mjx-error]").count() == 0
            assert found.faults == []
