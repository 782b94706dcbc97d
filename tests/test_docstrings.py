"""Every public name has a docstring with its arguments, shapes, units, errors and source, and the reference is made from them.

What is read is the source and not the imported package, so that no extra has to be installed and all of it takes seconds. Whether a
docstring is right no test can say; these say what one lacks.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache

import pytest

from docstrings import API, CITED, FOUND, PUBLIC, REFERENCE, SAME, Function, Module, Public, ancestors, constants, home, shown

# The methods of these are described by the library that asks for them; what ours do is in the docstring of the class.
CONTRACTS: dict[str, set[str]] = {
    "torch.distributions.Distribution": {"sample", "rsample", "log_prob", "expand", "entropy", "support", "mean", "mode", "variance"},
    "TorchDistribution": {"sample", "rsample", "log_prob", "expand", "support"},  # Pyro's
    "torch.distributions.constraints.Constraint": {"check"},
    "torch.nn.Module": {"forward", "extra_repr"},
    "torch.optim.Adagrad": {"step"},
    "lightning.pytorch.LightningModule": {
        *("configure_optimizers", "training_step", "validation_step", "test_step", "on_before_optimizer_step", "on_train_epoch_end"),
        *("on_fit_start", "on_validation_start", "on_validation_end", "on_test_start", "on_test_end"),
    },
}

# Classes and functions that nobody needs a paper for: textbook families, base classes, and plain descriptions of data.
NO_PAPER = {
    "dist": {"Bernoulli", "Categorical", "Columns", "DiagGaussian", "LogNormal", "Mixture", "OneHot", "Point", "Reversal", "StudentT"}
    | {"Invertible", "Transform"},
    "heads": {"Head", "Bernoulli", "Categorical", "Classes", "Columns", "GaussianFixed", "GaussianShared", "LogNormal", "OneHot"}
    | {"FlowHead", "Point", "Poisson", "StudentT"},
    "priors": {"Bernoulli", "DiagNormal", "FullNormal", "GaussianMixture", "OneHot", "StandardNormal"},
    "quantise": {"CodePrior", "Quantiser", "UniformCodes"},
    "objectives": {"Objective", "Penalty", "Schedule"},
}

UNIT = re.compile(r"\b(nats?|bits?)\b|\[0, 1\]")
LOGARITHM = re.compile(r"(^|_)(log|elbo|iwae|renyi|kl|nll|bound|rate|rates|entropy|likelihood|evidence|mutual|correlation)(_|$)|^log_")
LOGARITHMS = ("dist", "bounds", "objectives", "infer", "heads", "priors", "models", "quantise", "evaluate", "apps.weighted", "scoring")
SPECIAL_FUNCTIONS = "vaekit.dist.numeric"  # of numbers, without a unit


@cache
def contract(item: Public) -> str | None:
    """The docstring that covers a method without one of its own; None where there is none."""
    if item.owner is None:
        return None
    if re.search(rf"Attributes:\n(?:.*\n)*?    {item.node.name}: ", item.class_doc):
        return item.class_doc
    for above in ancestors(item.module, item.owner):
        if isinstance(above, str):
            if item.node.name in CONTRACTS.get(above, ()):
                return item.class_doc
        else:
            for node in above[1].body:
                if isinstance(node, ast.FunctionDef) and node.name == item.node.name and ast.get_docstring(node):
                    return ast.get_docstring(node)
    return None


@cache
def said(item: Public) -> str:
    """What a reader is told of a name: by its docstring, its class's, its contract's, the notes below fields, those of the classes above a
    class, and the docstring that it sends to with "arguments are those of `name`"."""
    own = "\n".join([item.doc, item.class_doc, contract(item) or "", *item.notes])
    above = ancestors(item.module, item.node) if isinstance(item.node, ast.ClassDef) else ()
    inherited = [ast.get_docstring(found[1]) or "" for found in above if not isinstance(found, str)]
    sent = set(re.findall(r"[Aa]rguments(?: and errors)? are\s+those\s+of\s+`(\w+)`", own))
    return "\n".join([own, *inherited, *(other.doc for other in PUBLIC if sent and other.node.name in sent and not other.owner)])


@cache
def parameters(item: Public) -> list[tuple[str, str]]:
    """Names and annotations: of a function's arguments, of a constructor's, or of a record's fields."""
    node: ast.stmt | None = item.node
    if isinstance(node, ast.ClassDef):
        node = item.constructor
        if node is None:
            return [(f.target.id, ast.unparse(f.annotation)) for f in item.fields if isinstance(f.target, ast.Name)]
    if not isinstance(node, Function):
        return []
    a = node.args
    every = [*a.posonlyargs, *a.args, *([a.vararg] if a.vararg else []), *a.kwonlyargs, *([a.kwarg] if a.kwarg else [])]
    named = [p for p in every if p.arg not in {"self", "cls"} and not p.arg.startswith("_")]
    return [(p.arg, ast.unparse(p.annotation) if p.annotation else "") for p in named]


def docstring(item: Public) -> str | None:
    if not item.doc:
        return None if contract(item) is not None else "has no docstring"
    first = item.doc.split("\n\n")[0].rstrip()
    return None if first.endswith((".", ":", "?")) else f"opens with what is no sentence: ...{first[-40:]!r}"


def arguments(item: Public) -> str | None:
    """Each by its name, but for names that mean the same everywhere (docs/api/index.md), a command's options, whose help stands beside
    them, ``_se`` after a field that is named, and the only argument of a function, which its sentence is about."""
    if not item.doc:
        return None
    every, text = parameters(item), said(item)
    if len(every) == 1 and isinstance(item.node, Function):
        return None
    missing = [
        name
        for name, annotation in every
        if name not in SAME
        and "typer." not in annotation
        and not re.search(rf"(?<!\w){re.escape(name.removesuffix('_se'))}(_se)?(?!\w)", text)
    ]
    return f"does not name {', '.join(missing)}" if missing else None


def shapes(item: Public) -> str | None:
    annotations = [annotation for _, annotation in parameters(item)]
    if isinstance(item.node, Function) and item.node.returns is not None:
        annotations.append(ast.unparse(item.node.returns))
    by_name = re.compile(r"(dict|Mapping)\[\w+, Tensor( \| None)?\]")  # such as the state of a module: they have no shape in common
    if not any(re.search(r"\bTensor\b", by_name.sub("", annotation)) for annotation in annotations):
        return None
    # a method that has a docstring says them there, one that has none where its contract stands
    text = f"{item.doc}\n{contract(item) or ''}" if item.owner and item.doc else said(item)
    return None if re.search(r"\[[^\]\n]*\]|\bscalar|\bshapes?\b", text) else "has tensors and names no shape"


def unit(item: Public) -> str | None:
    """Functions and methods that return the logarithm of a density, a bound, a KL or an information."""
    part = item.module.name.removeprefix("vaekit.")
    if not isinstance(item.node, Function) or not part.startswith(LOGARITHMS) or item.module.name == SPECIAL_FUNCTIONS:
        return None
    returns = ast.unparse(item.node.returns) if item.node.returns else ""
    if not (LOGARITHM.search(item.node.name) and re.search(r"Tensor|float|ndarray", returns)):
        return None
    return None if UNIT.search(said(item)) else "returns a logarithm and names no unit"


def raised(node: ast.AST) -> Iterator[str]:
    """The exceptions that a body raises, and the functions within it, which are what it returns or calls."""
    for child in ast.walk(node):
        if isinstance(child, ast.Raise) and child.exc is not None:
            name = ast.unparse(child.exc.func if isinstance(child.exc, ast.Call) else child.exc)
            if name.endswith("Error") and name not in {"NotImplementedError", "AttributeError"}:
                yield name


def errors(item: Public) -> str | None:
    """Those that a body or a private function of its module, which it calls, raises. Errors of the command line's commands are what its
    user sees, and their docstrings are its help."""
    if any("typer." in annotation for _, annotation in parameters(item)):
        return None
    bodies: list[ast.AST] = [item.node]
    if isinstance(item.node, ast.ClassDef):
        made = {"__init__", "__post_init__", "__new__"}
        bodies = [node for node in item.node.body if isinstance(node, Function) and node.name in made]
    called = {node.func.id for body in bodies for node in ast.walk(body) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    helpers = [item.module.defined.get(name) for name in called if name.startswith("_")]
    bodies += [helper for helper in helpers if isinstance(helper, Function)]
    names = sorted({name for body in bodies for name in raised(body)})
    told = re.search(r"Raises:|\b[Rr]efuse[ds]?\b|\b\w+Error\b|\bis an error\b", said(item))
    return f"does not say that it raises {', '.join(names)}" if names and not told else None


SHOWN = {module for _, module, _ in shown()}


def cites(item: Public) -> bool:
    """By its own docstring, or by that of its module where the reference shows it."""
    return bool(CITED.search(item.doc) or (item.module.name in SHOWN and CITED.search(item.module.doc)))


def source(item: Public) -> str | None:
    """Classes themselves, or by the class that they send to (`dist.Planar`)."""
    part = item.module.name.split(".")[1]
    if part not in NO_PAPER or item.owner or item.fields or str(item) not in REFERENCE or not isinstance(item.node, ast.ClassDef):
        return None
    if item.node.name in NO_PAPER[part] or cites(item):
        return None
    sent = {home("vaekit." + name.rpartition(".")[0], name.rpartition(".")[2]) for name in re.findall(r"`(dist\.\w+)`", item.doc)}
    return None if any(str(other) in sent and cites(other) for other in PUBLIC) else "names no paper"


CHECKS: list[Callable[[Public], str | None]] = [docstring, arguments, shapes, unit, errors, source]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_docstrings_say(check: Callable[[Public], str | None]) -> None:
    lacking = [f"{item} {problem}" for item in PUBLIC if (problem := check(item)) is not None]
    assert not lacking, "\n".join(lacking)


def test_constants_and_types_of_the_reference_say_what_they_are() -> None:
    assert not [name for name, note in constants() if name in REFERENCE and not note]


LACKING = [
    (docstring, "def f(): ..."),
    (docstring, "def f():\n    'No end'"),
    (docstring, "class C:\n    'A class.'\n    def method(self): ..."),
    (arguments, "def f(alpha, beta):\n    'Of alpha.'"),
    (arguments, "class C:\n    'A class.'\n    def __init__(self, width): ..."),
    (arguments, "class C(NamedTuple):\n    'A record.'\n    width: int"),
    (shapes, "def f(a: Tensor) -> float:\n    'Of a.'"),
    (shapes, "def f() -> tuple[Tensor, int]:\n    'Two.'"),
    (shapes, "class C:\n    'Of [B].'\n    def method(self) -> Tensor:\n        'Of it.'"),
    (unit, "def log_density(a: float) -> float:\n    'Of a.'"),
    (errors, "def f():\n    'One.'\n    if True:\n        raise InputError('no')"),
    (errors, "class C:\n    'A class.'\n    def __init__(self):\n        raise InputError('no')"),
    (errors, "def f():\n    'One.'\n    def inner():\n        raise InputError('no')\n    return inner"),
    (source, "class MCEM(Objective):\n    'surrogate = -log p(x, z).'"),
]


@pytest.mark.parametrize(("check", "code"), LACKING)
def test_what_lacks_is_found(check: Callable[[Public], str | None], code: str) -> None:
    module = Module("vaekit.objectives.mcem", ast.parse(code))
    (node,) = module.tree.body
    assert isinstance(node, ast.ClassDef | Function)
    if "def method" in code and isinstance(node, ast.ClassDef) and isinstance(method := node.body[-1], Function):
        assert check(Public(module, method, node))
    else:
        assert check(Public(module, node))


# Modules that nobody imports: the command line's own, and what other modules of the package share.
OWN_USE = {
    *("cli", "cli_compare", "cli_explore", "cli_files", "cli_newdata", "cli_sharing", "cli_tables", "cli_training", "__main__"),
    *("compiling", "files", "launch", "library", "matmul", "noise", "outputs", "report", "text"),
    *("recipes.contexts", "recipes.fitting", "recipes.flags", "recipes.gaps", "recipes.look"),
}


def test_every_module_is_in_the_reference() -> None:
    """Under its own name, or as a part of a package that is there and whose ``__all__`` says which names are for users."""
    there = {module for _, module, _ in shown()}
    every = {name for name in FOUND if name.partition(".")[2] not in {"", *OWN_USE}}
    assert there <= every
    one_by_one = {"vaekit.recipes", "vaekit.apps"}  # these packages choose nothing
    assert not sorted(name for name in every - there - one_by_one if name.rpartition(".")[0] not in there - one_by_one)


def test_every_name_of_the_package_is_in_the_reference_once() -> None:
    times = Counter(name for _, _, name in shown() if name)
    assert {name: times[home("vaekit", name)] for name in FOUND["vaekit"].public} == dict.fromkeys(FOUND["vaekit"].public, 1)
    assert not [name for name, n in times.items() if n > 1]


def test_pages_of_the_reference_send_to_the_guide() -> None:
    for page in API.glob("*.md"):
        opening = page.read_text(encoding="utf-8").split("```")[0]
        assert re.search(r"\]\(\.\./[\w/]+\.md\)", opening), page.name
