"""Imports go one way. The syntax tree of every module is walked; nothing is imported, so no order of import can hide an edge.

Deferred imports and those under TYPE_CHECKING count too: they are dependencies of the design if not of the interpreter.
The facade, ``vaekit/__init__.py``, is above everything and nothing inside may use it, except for its ``__version__``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[1] / "src"

# Lowest first. Modules of one layer may import each other, without cycles; a layer may import any layer below it.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "types", "tensors", "text", "noise", "files", "library", "compiling", "matmul", "torchrun"),
    ("dist",),
    ("nn",),
    ("conditional", "heads", "quantise", "priors"),
    ("models",),
    ("bounds",),
    ("infer",),
    ("objectives",),
    ("data",),
    ("train",),
    ("evaluate",),
    ("viz",),
    ("apps",),
    ("recipes",),
    (
        *("runs", "outputs", "report", "launch", "sweeps", "packing", "exporting", "card", "hub"),
        *("scoring", "filling", "comparing", "synthetic", "explore", "decoding", "commands"),
    ),
    ("cli", "cli_training", "cli_sharing", "cli_newdata", "cli_files", "cli_compare", "cli_tables", "cli_explore", "__main__"),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

# Third-party package -> the only parts of vaekit that may import it.
FENCED: dict[str, tuple[str, ...]] = {
    "lightning": ("train",),
    "lightning_fabric": (),
    "pytorch_lightning": (),
    "sklearn": ("data", "apps"),
    "matplotlib": ("viz",),
    "pyro": ("apps",),
    "ray": ("sweeps",),
    "torchvision": (),
    "pickle": (),
    "cPickle": (),
    "dill": (),
    "cloudpickle": (),
    "joblib": (),
    "marshal": (),
    "shelve": (),
}
# These read or write pickles; the last two parts of the dotted name are compared.
UNSAFE = {f"{owner}.{verb}" for owner in ("torch", "serialization", "hub", "fabric") for verb in ("load", "save")}


def problems(sources: Mapping[str, str]) -> list[str]:
    """What breaks the rules in ``sources``: dotted module name (a package under its own name) -> source."""
    found: list[str] = []
    edges: dict[str, set[str]] = {}
    parts = set(RANK) | {_part(module) for module in sources} - {""}
    packages = {name.rpartition(".")[0] for name in sources}
    for module, source in sources.items():
        tree = ast.parse(source, module)
        part = _part(module)
        if part and part not in RANK:
            found.append(f"{module}: {part!r} has no place in the order of layers")
        edges[module] = set()
        for line, target in _imports(tree, module, is_package=module in packages, modules=sources):
            where = f"{module}:{line}"
            top = target.partition(".")[0]
            if top in FENCED and part not in FENCED[top]:
                only = " and ".join(f"vaekit.{name}" for name in FENCED[top]) or "nowhere"
                found.append(f"{where}: imports {target}, which belongs in {only}")
            if top == "vaekit" and module != "vaekit":
                found += _edge(where, module, target, parts)
                edges[module].add(target)
        found += [f"{module}:{line}: {fault}" for line, fault in _unsafe(tree)]
    found += [f"import cycle: {' -> '.join(cycle)}" for cycle in _cycles(edges)]
    return found


def _part(module: str) -> str:
    """The layer's name for a module: ``models`` for vaekit.models.core, "" for the facade."""
    return module.split(".")[1] if "." in module else ""


def _edge(where: str, module: str, target: str, parts: set[str]) -> list[str]:
    if target == "vaekit.__version__":
        return []
    if _part(target) not in parts:
        return [f"{where}: imports {target}: name the module that defines it, not the facade"]
    if RANK.get(_part(target), 0) > RANK.get(_part(module), len(RANK)):
        return [f"{where}: imports {target}, which is in a higher layer"]
    return []


def _imports(tree: ast.AST, module: str, *, is_package: bool, modules: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything imported; ``from a import b`` is a.b where that is a module, else a."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")
                parents = parents[: len(parents) - node.level + is_package]
                base = ".".join([*parents, base] if base else parents)
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield node.lineno, full if full in modules or base == "vaekit" else base
        elif isinstance(node, ast.Call) and _dotted(node.func).rpartition(".")[2] in {"import_module", "__import__"}:
            name = node.args[0] if node.args else None
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                yield node.lineno, name.value


def _unsafe(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            yield node.lineno, "a bare assert; raise an error that says what to do"
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle" and getattr(node.value, "value", None) is not False:
            yield node.lineno, "allow_pickle must be False"
        elif isinstance(node, ast.Attribute | ast.ImportFrom):
            for name in [_dotted(node)] if isinstance(node, ast.Attribute) else [f"{node.module}.{alias.name}" for alias in node.names]:
                if ".".join(name.split(".")[-2:]) in UNSAFE and not name.startswith("safetensors."):
                    yield node.lineno, f"{name} reads or writes pickles; use safetensors"


def _dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _cycles(edges: Mapping[str, set[str]]) -> Iterator[list[str]]:
    """One cycle through each module that is the first, by name, of a cycle."""
    for start in sorted(edges):
        stack = [[start]]
        seen: set[str] = set()
        while stack:
            path = stack.pop()
            for target in sorted(edges.get(path[-1], ())):
                if target == start:
                    yield [*path, start]
                    stack = []
                    break
                if target > start and target not in seen:
                    seen.add(target)
                    stack.append([*path, target])


def _read(src: Path) -> dict[str, str]:
    names = {path: ".".join(path.relative_to(src).with_suffix("").parts).removesuffix(".__init__") for path in sorted(src.rglob("*.py"))}
    return {name: path.read_text(encoding="utf-8") for path, name in names.items()}


def test_the_package_keeps_the_order() -> None:
    assert problems(_read(SRC)) == []


def test_the_order_is_read_from_the_real_tree() -> None:
    assert {"vaekit", "vaekit.types", "vaekit.errors"} <= set(_read(SRC))


GOOD = {
    "vaekit": "from importlib import import_module\nfrom .types import Batch\n__version__ = '1'\n",
    "vaekit.types": "import torch\n",
    "vaekit.errors": "from vaekit.types import Batch\n",
    "vaekit.models": "from vaekit.models.core import LatentModel\nfrom . import vae\n",
    "vaekit.models.core": "from ..types import Batch\nimport vaekit.errors\n",
    "vaekit.models.vae": "from .core import LatentModel\nfrom vaekit import types\n",
    "vaekit.train.files": "import safetensors.torch\nfrom safetensors.torch import load\nsafetensors.torch.load(b'')\n",
    "vaekit.train.loop": "def fit():\n    from lightning.fabric import Fabric\n",
    "vaekit.data.sets": "import sklearn.datasets\nimport numpy\nx = numpy.load('x.npz', allow_pickle=False)\n",
    "vaekit.viz.report": "import matplotlib.pyplot as plt\nfrom vaekit import __version__\n",
    "vaekit.cli": "from importlib import import_module\nimport_module('vaekit.commands')\n",
    "vaekit.commands": '"""\n>>> assert 1\n"""\nstate.load_state_dict({})\n',
}

BAD: dict[str, tuple[dict[str, str], str]] = {
    "up": ({"vaekit.bounds": "from vaekit.objectives import elbo\n"}, "vaekit.bounds:1: imports vaekit.objectives, which is in a higher"),
    "up, relative": ({"vaekit.models.vae": "from ..train import fit\n"}, "imports vaekit.train, which is in a higher layer"),
    "up, relative, from a package": ({"vaekit.models": "from .. import train\n"}, "imports vaekit.train, which is in a higher layer"),
    "up, deferred": ({"vaekit.dist.x": "def f():\n    import vaekit.nn.mlp\n"}, "vaekit.dist.x:2: imports vaekit.nn.mlp, which"),
    "up, for types only": (
        {"vaekit.heads": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from vaekit.models.core import Trace\n"},
        "vaekit.heads:3: imports vaekit.models.core",
    ),
    "up, by name": (
        {"vaekit.nn.x": "import importlib\nimportlib.import_module('vaekit.cli')\n"},
        "imports vaekit.cli, which is in a higher",
    ),
    "up, from the package": ({"vaekit.types": "from vaekit import data\n"}, "imports vaekit.data, which is in a higher layer"),
    "facade": ({"vaekit.train.loop": "from vaekit import VAE\n"}, "name the module that defines it"),
    "facade, whole": ({"vaekit.train.loop": "import vaekit\n"}, "imports vaekit: name the module"),
    "no place": ({"vaekit.utils": "x = 1\n"}, "'utils' has no place in the order"),
    "no place, package": ({"vaekit.helpers.x": "x = 1\n"}, "'helpers' has no place in the order"),
    "cycle of two": (
        {"vaekit.heads": "import vaekit.priors\n", "vaekit.priors": "from vaekit.heads import Normal\n"},
        "import cycle: vaekit.heads -> vaekit.priors -> vaekit.heads",
    ),
    "cycle of three, in a package": (
        {"vaekit.nn.a": "from . import b\n", "vaekit.nn.b": "from .c import d\n", "vaekit.nn.c": "def f():\n    from vaekit.nn import a\n"},
        "import cycle: vaekit.nn.a -> vaekit.nn.b -> vaekit.nn.c -> vaekit.nn.a",
    ),
    "cycle through the package": (
        {"vaekit.models": "from vaekit.models.vae import VAE\n", "vaekit.models.vae": "from vaekit.models import VAE\n"},
        "import cycle: vaekit.models -> vaekit.models.vae -> vaekit.models",
    ),
    "lightning": ({"vaekit.models.core": "import lightning as L\n"}, "imports lightning, which belongs in vaekit.train"),
    "sklearn": ({"vaekit.evaluate.x": "from sklearn.svm import SVC\n"}, "which belongs in vaekit.data and vaekit.apps"),
    "matplotlib": ({"vaekit.commands": "def f():\n    import matplotlib.pyplot\n"}, "which belongs in vaekit.viz"),
    "pyro": ({"vaekit.infer.x": "import pyro\n"}, "imports pyro, which belongs in vaekit.apps"),
    "torchvision": ({"vaekit.data.x": "import torchvision\n"}, "which belongs in nowhere"),
    "pickle": ({"vaekit.train.x": "import pickle\n"}, "imports pickle"),
    "torch.load": ({"vaekit.train.x": "import torch\ntorch.load('x', weights_only=True)\n"}, "vaekit.train.x:2: torch.load"),
    "torch.save": ({"vaekit.train.x": "import torch\nsave = torch.save\n"}, "vaekit.train.x:2: torch.save"),
    "torch.hub": ({"vaekit.train.x": "import torch\ntorch.hub.load('x')\n"}, "vaekit.train.x:2: torch.hub.load"),
    "load from torch": ({"vaekit.train.x": "from torch.serialization import load\n"}, "vaekit.train.x:1: torch.serialization.load"),
    "fabric.load": ({"vaekit.train.x": "self.fabric.load('x')\n"}, "self.fabric.load"),
    "allow_pickle": ({"vaekit.data.x": "import numpy as np\nnp.load('x', allow_pickle=True)\n"}, "allow_pickle must be False"),
    "allow_pickle, by variable": ({"vaekit.data.x": "import numpy as np\nnp.load('x', allow_pickle=old)\n"}, "allow_pickle must be False"),
    "assert": ({"vaekit.bounds": "def f(x):\n    assert x > 0\n"}, "vaekit.bounds:2: a bare assert"),
}


def test_the_checker_lets_good_sources_pass() -> None:
    assert problems(GOOD) == []


@pytest.mark.parametrize("fault", BAD)
def test_the_checker_bites(fault: str) -> None:
    sources, expected = BAD[fault]
    found = problems({**dict.fromkeys(GOOD, ""), **sources})
    assert len(found) == 1 and expected in found[0], found
