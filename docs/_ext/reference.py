"""The command-line reference, made from the code: what the comments of cli.md stand for.

``<!-- command: train -->`` is the usage, arguments and flags of a command, ``<!-- exits -->`` the exit statuses and ``<!-- recipes -->``
every recipe with its flags and what it was measured to reach. A comment that names nothing, and a command without one, end the build.
"""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import typer
from sphinx.errors import ExtensionError

from vaekit.cli import EXITS, app
from vaekit.text import measured

__all__ = ["MEASURED", "PAGE", "command", "commands", "exits", "filled", "recipe", "setup"]

PAGE = "cli"
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
COMMAND = re.compile(r"<!-- command: (\S+) -->")

MEASURED: dict[str, tuple[str, str, str]] = {
    "aevb:mnist": ("test bound", "gallery/aevb#mnist_1e7", "gallery/aevb.md"),
    "aevb:freyfaces": ("test bound", "gallery/aevb#freyfaces_1e7", "gallery/aevb.md"),
    "cifar10:resnet": ("test bound after one pass", "gallery/resnet#wide_bound", "gallery/resnet.md"),
    "digits": ("test bound", "gallery/generation#digits_bound", "gallery/generation.md"),
    "flows:mnist": ("test -ELBO of the Gaussian posterior", "gallery/flows#nelbo_gaussian", "gallery/flows.md"),
    "mnist:bbans": ("after 50 epochs", "compress/binarised#bits_per_pixel", "benchmarks.md"),
    "mnist:example": ("test -ELBO", "mnist/example#test_negative_elbo", "benchmarks.md"),
    "mnist:grey": ("compressed to", "compress/grey#bits_per_pixel", "benchmarks.md"),
    "mnist:ladder": ("test bound after 10 epochs", "gallery/generation#ladder_bound", "gallery/generation.md"),
    "posterior:wake_sleep": ("test bound", "gallery/wake_sleep#test_1e7", "gallery/wake_sleep.md"),
    "tutorials:mlp": ("test bound after 5 epochs", "gallery/lightning_mlp#fit_bound", "gallery/lightning_mlp.md"),
    "vq:cifar10": ("squared error after 5,000 steps", "gallery/vq#ema_error_5000", "gallery/vq.md"),
}
"""Recipe -> what was measured, the figure of a record (topic/name#figure), the page that says how."""


def commands() -> list[str]:
    """The names of all commands, in the order of ``vaekit --help``."""
    return list(_all())


def command(name: str) -> str:
    """Markdown of one command: its docstring, usage, arguments and flags."""
    one = _all()[name]
    first, *more = inspect.cleandoc(one.help or "").split("\n\n")
    arguments, options = ([p for p in one.params if p.param_type_name == kind] for kind in ("argument", "option"))
    usual = [*(["[--flag value ...]"] if options else []), *(p.metavar for p in arguments)]
    usage = one.options_metavar if name in ("train", "sweep") else " ".join(usual)
    parts = ["\n\n".join(map(_prose, [first, *more])), f"```text\n{f'vaekit {name} {usage}'.strip()}\n```"]
    if arguments:
        rows = [(f"`{p.metavar}`", "needed" if p.required else "may be left out", _prose(p.help)) for p in arguments]
        parts.append(_table(("Argument", "", "What it is"), rows))
    if options:
        rows = [("`" + "`, `".join([*p.opts, *p.secondary_opts]) + "`", _takes(p), _default(p), _prose(p.help)) for p in options]
        parts.append(_table(("Flag", "Takes", "Default", "What it does"), rows))
    return "\n\n".join(parts)


def exits() -> str:
    """Markdown of the exit statuses."""
    return _table(("Status", "Meaning"), [(f"`{status}`", _prose(meaning)) for status, meaning in EXITS.items()])


def recipe(name: str) -> str:
    """Markdown of one recipe, a section of its own: its docstring, what it was measured to reach, and its flags."""
    from vaekit.recipes.core import names
    from vaekit.recipes.flags import flags

    function = names()[name]
    text = inspect.cleandoc(function.__doc__ or "").partition("\n\nArgs:")[0]
    parts = [f"(recipe-{re.sub(r'[^a-z0-9]+', '-', name)})=\n### {name}", *map(_prose, text.split("\n\n"))]
    if name in MEASURED:
        what, quoted, page = MEASURED[name]
        record, _, key = quoted.partition("#")
        figure = json.loads((RESULTS / f"{record}.json").read_text(encoding="utf-8"))["figures"][key]
        parts.append(f"Measured: {what} {measured(figure['value'], figure['error'], figure['unit'])} ([how]({page})).")
    rows = []
    for flag in flags(function):
        takes = _prose(flag.takes) if not flag.words else " or ".join(f"`{word}`" for word in flag.words)
        rows.append((f"`{flag.name}`", takes, "needed" if flag.default is None else f"`{flag.default}`", _prose(flag.help)))
    return "\n\n".join([*parts, _table(("Flag", "Takes", "Default", "What it is"), rows)])


def filled(page: str) -> str:
    """The page with each comment replaced by what it stands for."""
    from vaekit.recipes.core import names

    written = COMMAND.findall(page)
    wrong = sorted({*commands()} ^ {*written}) or [name for name in commands() if written.count(name) > 1]
    if wrong:
        raise ExtensionError(f"{PAGE}.md: each command has one comment, and this is not so of: {', '.join(wrong)}")
    page = COMMAND.sub(lambda match: command(match[1]), page)
    page = page.replace("<!-- exits -->", exits())
    return page.replace("<!-- recipes -->", "\n\n".join(map(recipe, names())))


def _all() -> dict[str, Any]:
    return typer.main.get_command(app).commands  # type: ignore[attr-defined]


def _takes(option: Any) -> str:
    """What a flag of a command takes, in the words that a recipe's flags have."""
    if option.is_flag:
        return ""
    words = {int: "a whole number", float: "a number", Path: "a path"}
    kind = words.get(option.type_descriptor.annotation, "a word")
    return kind if option.min is None else f"{kind} from {option.min}"


def _default(option: Any) -> str:
    return "" if option.default is None or (option.is_flag and not option.default) else f"`{option.default}`".lower()


def _prose(text: str | None) -> str:
    """Plain text with `code` in it as Markdown: nothing else in it is markup, and flags are code."""
    parts = re.split(r"(``.+?``|`[^`]+`)", " ".join((text or "").split()))
    for n in range(0, len(parts), 2):
        found = re.split(r"((?<![\w-])--[a-z][\w-]*)", parts[n])
        found[0::2] = [re.sub(r"([\\*_<>$|\[\]#~{}])", r"\\\1", word) for word in found[0::2]]
        found[1::2] = [f"`{flag}`" for flag in found[1::2]]
        parts[n] = "".join(found)
    return "".join(parts)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, tuple("---" for _ in head), *rows])


def _fill(app: Any, name: str, source: list[str]) -> None:
    if name == PAGE:
        source[0] = filled(source[0])


def setup(app: Any) -> dict[str, bool]:
    app.connect("source-read", _fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
