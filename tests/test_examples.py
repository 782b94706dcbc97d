"""The README and the pages run: their Python blocks, their ``vaekit`` lines, and the targets of their ``make`` lines.

The blocks of one page run in the order of the page, share a namespace and share one temporary working folder, so a block may read
what a command above it wrote. What a Python block prints may stand below it in a block of the language ``output``: its lines in order, or
some of them, and numbers may differ by a tenth. The first commands of the README start the program, as its reader does; all others call it,
which takes seconds less each. A line of shell that ends in ``# slow`` is not run: its recipe and flags are looked up with --help.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any
from unittest.mock import patch

import pytest

from vaekit.cli import main

ROOT = Path(__file__).resolve().parents[1]
_STARTED = ("list", "train")
PAGES = [ROOT / "README.md", *(page for page in sorted((ROOT / "docs").rglob("*.md")) if "_build" not in page.parts)]
VAEKIT = str(Path(sys.executable).with_name("vaekit"))

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w+)[^\n]*\n(?P<body>.*?)^(?P=indent)```\s*$", re.MULTILINE | re.DOTALL)
_SHELLS = {"bash", "console", "sh", "shell"}
_SECONDS = 240


@dataclass(frozen=True)
class Block:
    language: str
    body: str
    line: int  # of its first line, in the page


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a page."""
    for match in _FENCE.finditer(text):
        yield Block(match["language"], dedent(match["body"]), text.count("\n", 0, match.start("body")) + 1)


def commands(block: Block) -> Iterator[tuple[list[str], bool]]:
    """(arguments, slow) of each command in a shell block; in a console block only lines after a prompt are commands."""
    for line in block.body.replace("\\\n", " ").splitlines():
        line = line.strip()
        if block.language == "console":
            if not line.startswith("$ "):
                continue
            line = line.removeprefix("$ ")
        slow = line.endswith("# slow")
        for part in line.split("&&"):
            words = shlex.split(part, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):  # VAR=value before the command
                words = words[1:]
            if words:
                yield words, slow


def run_page(text: str, name: str, folder: Path) -> None:
    """Run a page in ``folder``; a fault names the page and the line."""
    module = sys.modules["__page__"] = ModuleType("__page__")  # torch.compile looks up the module of what it compiles
    namespace: dict[str, Any] = vars(module)
    printed = ""
    for block in blocks(text):
        if block.language == "python":
            code = "\n" * (block.line - 1) + block.body
            with redirect_stdout(StringIO()) as out:
                exec(compile(code, name, "exec"), namespace)
            printed = out.getvalue()
        elif block.language == "output":
            lost = unprinted(block.body, printed)
            assert not lost, f"{name}, block at line {block.line}: {lost!r} is not what was printed:\n{printed}"
        elif block.language in _SHELLS:
            for words, slow in commands(block):
                fault = _command(words, slow=slow, folder=folder, apart=name == "README.md" and not slow and words[1] in _STARTED)
                assert not fault, f"{name}, block at line {block.line}: {shlex.join(words)}: {fault}"


_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e-?\d+)?(?!\w)")


def unprinted(shown: str, printed: str) -> str:
    """The first line of ``shown`` that was not printed after the one before it, or ""; numbers to a tenth or 0.1, whole ones to 2."""
    rest = iter(printed.splitlines())
    for line in shown.splitlines():
        if not any(_alike(line, other) for other in rest):
            return line
    return ""


def _alike(shown: str, printed: str) -> bool:
    if [part.split() for part in _NUMBER.split(shown)] != [part.split() for part in _NUMBER.split(printed)]:
        return False
    for a, b in zip(_NUMBER.findall(shown), _NUMBER.findall(printed), strict=True):
        slack = 2 if a.isdigit() and b.isdigit() else 0.1
        if abs(float(a) - float(b)) > max(slack, 0.1 * abs(float(a))):
            return False
    return True


def _command(words: list[str], *, slow: bool, folder: Path, apart: bool) -> str:
    """What is wrong with one command, or ""."""
    program, *arguments = words
    if program == "make":
        targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        unknown = [word for word in arguments if "=" not in word and not word.startswith("-") and word not in targets]
        return f"no target {', '.join(unknown)} in the Makefile" if unknown else ""
    if program != "vaekit":
        return ""
    if not slow:
        done = _vaekit(arguments, folder, apart=apart)
        return "" if done.returncode == 0 else f"exit {done.returncode}\n{done.stdout}{done.stderr}"
    subject = 2 if arguments[0] in ("train", "sweep") else 1  # their flags are those of the recipe
    done = _vaekit([*arguments[:subject], "--help"], folder, apart=apart)
    if done.returncode != 0:
        return f"exit {done.returncode} of --help\n{done.stdout}{done.stderr}"
    flags = [word.partition("=")[0] for word in arguments if re.match(r"--?[a-zA-Z]", word)]
    unknown = [flag for flag in flags if not re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w-])", done.stdout)]
    return f"--help does not know {', '.join(unknown)}\n{done.stdout}" if unknown else ""


def _vaekit(arguments: list[str], folder: Path, *, apart: bool) -> subprocess.CompletedProcess[str]:
    plain = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    if apart:
        return subprocess.run([VAEKIT, *arguments], cwd=folder, env=plain, capture_output=True, text=True, timeout=_SECONDS, check=False)
    out, error = StringIO(), StringIO()
    with ExitStack() as stack:
        stack.enter_context(patch.dict(os.environ, plain))
        for context in (chdir(folder), redirect_stdout(out), redirect_stderr(error), warnings.catch_warnings()):
            stack.enter_context(context)
        warnings.simplefilter("default")  # which for a person is no fault
        code = main(arguments)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), error.getvalue())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_page(page.read_text(encoding="utf-8"), page.name, tmp_path)


def test_blocks_share_a_namespace_and_errors_name_the_line(tmp_path: Path) -> None:
    run_page("```python\na = 1\n```\ntext\n\n- item\n\n  ```python\n  b = a + 1\n  ```\n", "page.md", tmp_path)
    with pytest.raises(ZeroDivisionError) as info:
        run_page("# title\n\n```python\na = 1\na / 0\n```\n", "page.md", tmp_path)
    last = info.traceback[-1]
    assert str(last.path).endswith("page.md") and last.lineno + 1 == 5


def test_what_a_page_shows_as_printed_was_printed(tmp_path: Path) -> None:
    page = "```python\nprint('rate 1.52 nats')\nprint('bound', -103.4, 'active', 6)\n```\n\n```output\n{}\n```\n"
    for good in ("rate 1.5 nats\nbound -104.0 active 7", "bound -103.4  active 6"):
        run_page(page.format(good), "page.md", tmp_path)
    for bad in (
        "rate 2.5 nats",
        "bound -103.4 active 6\nrate 1.52 nats",
        "rate 1.52 bits",
        "bound -120.0 active 6",
        "bound 103.4 active 6",
    ):
        with pytest.raises(AssertionError, match=r"page\.md, block at line 7: .* is not what was printed"):
            run_page(page.format(bad), "page.md", tmp_path)


def test_only_commands_are_read_as_commands() -> None:
    (console,) = blocks(
        "```console\n$ make demo && vaekit list\nvaekit: some output\n$ VAEKIT_DATA=data vaekit train x \\\n    --k 2  # slow\n```\n"
    )
    assert list(commands(console)) == [
        (["make", "demo"], False),
        (["vaekit", "list"], False),
        (["vaekit", "train", "x", "--k", "2"], True),
    ]
    (bash,) = blocks("```bash\n# a comment\nvaekit list  # the recipes\n```\n")
    assert list(commands(bash)) == [(["vaekit", "list"], False)]


@pytest.mark.parametrize(
    ("shell", "expected"),
    [
        ("make dmeo", "no target dmeo"),
        ("vaekit no-such-command", "exit 2"),
        ("vaekit train no-such-recipe  # slow", "exit 2"),
        ("vaekit train digits --no-such-flag 1  # slow", "--help does not know --no-such-flag"),
    ],
)
def test_a_wrong_line_is_found(shell: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=re.escape(expected)):
        run_page(f"```bash\nmake demo\n{shell}\n```\n", "page.md", tmp_path)
