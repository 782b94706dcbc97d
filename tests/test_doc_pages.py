"""What the pages of the documentation promise to hold: every head, and code of the library that is where they look for it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from vaekit import heads

DOCS = Path(__file__).resolve().parents[1] / "docs"
INCLUDE = re.compile(r"```\{literalinclude\} (?P<path>\S+)\n(?P<options>(?::.*\n)*)```")
INCLUDES = [
    pytest.param(page, found["path"], found["options"], id=f"{page.name}-{found['path'].rpartition('/')[2]}-{number}")
    for page in sorted(DOCS.glob("*.md"))
    for number, found in enumerate(INCLUDE.finditer(page.read_text(encoding="utf-8")))
]


def test_every_head_is_on_the_page_that_chooses_one() -> None:
    page = (DOCS / "likelihoods.md").read_text(encoding="utf-8")
    helpers = {"Head", "FlowHead", "MaskModel"}
    assert [name for name in heads.__all__ if name not in helpers and not re.search(rf"`(?:\[?)[^`]*\b{name}\b[^`]*`", page)] == []


@pytest.mark.parametrize(("page", "path", "options"), INCLUDES)
def test_code_that_a_page_shows_is_there(page: Path, path: str, options: str) -> None:
    text = (page.parent / path).read_text(encoding="utf-8")
    if wanted := re.search(r":pyobject: (\S+)", options):
        inside: ast.AST = ast.parse(text)
        for name in wanted[1].split("."):
            body = getattr(inside, "body", [])
            inside = next(node for node in body if getattr(node, "name", "") == name)
    for mark in re.findall(r"^:start-(?:at|after): (.*)$", options, re.MULTILINE):
        assert text.count(mark[1:-1] if mark[0] == mark[-1] and mark[0] in "'\"" else mark) == 1


def test_the_mathematics_shows_the_code_it_speaks_of() -> None:
    assert sum("mathematics" in str(param.id) for param in INCLUDES) > 40
