"""The public names of the package as its source has them, with what their docstrings can be read beside: nothing is imported.

Public are the names in the ``__all__`` of a module that defines them, and of a public class the methods, properties and fields without a
leading underscore that it defines itself.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src"
API = ROOT / "docs" / "api"

Function = ast.FunctionDef | ast.AsyncFunctionDef

CITED = re.compile(r"\b[A-Z][\w'’-]+(?:.|\n){0,160}?\b(19[3-9]|20[0-2])\d\b")
"""A name with a year after it."""


@dataclass
class Module:
    """One file: its tree, its ``__all__``, what it defines and what its imported names mean."""

    name: str
    tree: ast.Module
    public: list[str] = field(default_factory=list)
    defined: dict[str, ast.stmt] = field(default_factory=dict)
    imported: dict[str, str] = field(default_factory=dict)

    @property
    def doc(self) -> str:
        return ast.get_docstring(self.tree) or ""


@dataclass(frozen=True, eq=False)
class Public:
    """A public name: of a function, a class, or a method of one (``owner``)."""

    module: Module
    node: Function | ast.ClassDef
    owner: ast.ClassDef | None = None

    def __str__(self) -> str:
        return ".".join([self.module.name, *([self.owner.name] if self.owner else []), self.node.name])

    @cached_property
    def doc(self) -> str:
        return ast.get_docstring(self.node) or ""

    @cached_property
    def class_doc(self) -> str:
        return (ast.get_docstring(self.owner) or "") if self.owner else ""

    @cached_property
    def constructor(self) -> Function | None:
        body = self.node.body if isinstance(self.node, ast.ClassDef) else []
        return next((node for node in body if isinstance(node, Function) and node.name == "__init__"), None)

    @cached_property
    def fields(self) -> list[ast.AnnAssign]:
        """Of a dataclass or a named tuple."""
        if not isinstance(self.node, ast.ClassDef):
            return []
        record = any("dataclass" in ast.unparse(d) for d in self.node.decorator_list)
        record = record or any(ast.unparse(base).endswith("NamedTuple") for base in self.node.bases)
        annotated = [node for node in self.node.body if isinstance(node, ast.AnnAssign) and "ClassVar" not in ast.unparse(node.annotation)]
        return [node for node in annotated if record and not ast.unparse(node.target).startswith("_")]

    @cached_property
    def notes(self) -> list[str]:
        """The strings below the fields of a class."""
        after = self.node.body[1:] if isinstance(self.node, ast.ClassDef) else []
        values = [node.value for node in after if isinstance(node, ast.Expr)]
        return [value.value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str)]


def modules() -> dict[str, Module]:
    """Every module of the package under its dotted name."""
    found = {}
    for path in sorted((SRC / "vaekit").rglob("*.py")):
        parts = path.relative_to(SRC).with_suffix("").parts
        package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if package else parts)
        module = found[name] = Module(name, ast.parse(path.read_text(encoding="utf-8")))
        for node in module.tree.body:
            _read(module, node, package)
    return found


def _read(module: Module, node: ast.stmt, package: bool) -> None:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        module.defined[node.name] = node
    elif isinstance(node, ast.ImportFrom):
        start = module.name.split(".")
        start = start[: len(start) + package - node.level] if node.level else []
        for alias in node.names:
            module.imported[alias.asname or alias.name] = ".".join([*start, *([node.module] if node.module else []), alias.name])
    elif isinstance(node, ast.Import):
        for alias in node.names:
            module.imported[alias.asname or alias.name.partition(".")[0]] = alias.name if alias.asname else alias.name.partition(".")[0]
    elif isinstance(node, ast.If):  # TYPE_CHECKING
        for inner in node.body:
            _read(module, inner, package)
    elif isinstance(node, (ast.Assign, ast.AnnAssign)):
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            if isinstance(target, ast.Name):
                module.defined[target.id] = node
                if target.id == "__all__" and node.value is not None:
                    module.public = list(ast.literal_eval(node.value))


def public() -> Iterator[Public]:
    """Functions, classes and their methods, each once: in the module that defines it."""
    for module in FOUND.values():
        for name in module.public:
            node = module.defined.get(name)
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                yield Public(module, node)
                if isinstance(node, ast.ClassDef):
                    for method in node.body:
                        if isinstance(method, (ast.FunctionDef, ast.AsyncFunctionDef)) and not method.name.startswith("_"):
                            yield Public(module, method, node)


def constants() -> Iterator[tuple[str, str]]:
    """(name, the string below it) of every public name that is no function and no class, where it is defined."""
    for module in FOUND.values():
        for statement, after in zip(module.tree.body, [*module.tree.body[1:], None], strict=True):
            targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
            for name in [target.id for target in targets if isinstance(target, ast.Name) and target.id in module.public]:
                value = after.value if isinstance(after, ast.Expr) else None
                yield f"{module.name}.{name}", value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else ""


def resolve(module: Module, dotted: str) -> tuple[Module, ast.ClassDef] | str:
    """The class that a name in ``module`` means, through re-exports; its full dotted name where it is not ours."""
    head, _, tail = dotted.partition(".")
    if not tail and isinstance(node := module.defined.get(head), ast.ClassDef):
        return module, node
    full = ".".join([module.imported.get(head, head), *([tail] if tail else [])])
    above, _, name = full.rpartition(".")
    return resolve(FOUND[above], name) if above in FOUND and (above, name) != (module.name, dotted) else full


def ancestors(module: Module, node: ast.ClassDef) -> Iterator[tuple[Module, ast.ClassDef] | str]:
    """The classes above one, ours as (module, class) and others by their dotted name."""
    for base in node.bases:
        above = resolve(module, ast.unparse(base.value if isinstance(base, ast.Subscript) else base))
        yield above
        if not isinstance(above, str):
            yield from ancestors(*above)


def home(module: str, name: str) -> str:
    """Where a name that is imported from ``module`` is defined: dotted, with the name."""
    if module not in FOUND:
        return f"{module}.{name}"
    imported = FOUND[module].imported.get(name)
    if name in FOUND[module].defined or imported is None:
        return f"{module}.{name}"
    above, _, last = imported.rpartition(".")
    return home(above, last)


def shown() -> Iterator[tuple[str, str, str]]:
    """(page, module, where the name is defined) of every name that a page of the reference shows; the name is empty for the module."""
    for page in sorted(API.glob("*.md")):
        for module, options in re.findall(r"^\.\. automodule:: (\S+)\n((?:   :.*\n)*)", page.read_text(encoding="utf-8"), re.M):
            yield page.stem, module, ""
            left_out = {name.strip() for line in re.findall(r":exclude-members:(.*)", options) for name in line.split(",")}
            if ":no-members:" not in options and module in FOUND:
                for name in FOUND[module].public:
                    if name not in left_out:
                        yield page.stem, module, home(module, name)


FOUND = modules()
PUBLIC = list(public())
REFERENCE = {name for _, _, name in shown() if name}
SAME = set(re.findall(r"^\| `(\w+)` \|", (API / "index.md").read_text(encoding="utf-8"), re.M))
"""The names of arguments that mean the same everywhere: the table on the first page of the reference."""
