"""The package as its users get it: what an import costs, what the wheel holds, and that the public names are there."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
import tomllib
import zipfile
from pathlib import Path
from statistics import median

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import vaekit

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "vaekit"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SCRIPT = str(Path(sys.executable).with_name("vaekit"))

# The subpackages that may load more than torch and zuko, and the names that come from them.
HEAVY = {"Recipe", "commands", "data", "evaluate", "fit", "recipes", "train", "Training", "viz"}
CORE = [name for name in vaekit.__all__ if name not in HEAVY]


def _loaded(statement: str) -> set[str]:
    """The top-level modules outside the standard library that a statement loads."""
    code = f"import sys; before = set(sys.modules); {statement}; print(*{{name.partition('.')[0] for name in set(sys.modules) - before}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split()) - sys.stdlib_module_names


def _seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "NO_COLOR": "1"})
    return time.perf_counter() - start


def test_import_vaekit_loads_nothing_else() -> None:
    assert _loaded("import vaekit") == {"vaekit"}


def test_the_core_loads_no_more_than_torch_and_zuko() -> None:
    torch_alone = _loaded("import torch, zuko")
    assert _loaded(f"from vaekit import {', '.join(CORE)}") <= torch_alone | {"vaekit"}


def test_import_costs_at_most_a_tenth_more_than_torch() -> None:
    code = "from time import perf_counter as t; a = t(); import torch; b = t(); import vaekit; c = t(); print((c - a) / (b - a))"
    ratios = [float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout) for _ in range(5)]
    assert median(ratios) <= 1.10  # both times from one process, so that a busy spell slows both


def test_help_answers_at_once() -> None:
    command = [SCRIPT, "--help"]
    _seconds(command)
    assert median(_seconds(command) for _ in range(5)) < 0.5


def test_help_loads_no_torch() -> None:
    done = subprocess.run([sys.executable, "-X", "importtime", SCRIPT, "--help"], capture_output=True, text=True, check=True)
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert "vaekit" in loaded
    assert not loaded & {"torch", "numpy", "lightning", "zuko", "sklearn", "matplotlib", "scipy", "PIL", "pooch"}


@pytest.mark.parametrize("name", [*vaekit.__all__, *vaekit._MODULES])
def test_public_name_resolves(name: str) -> None:
    assert getattr(vaekit, name) is not None
    assert name in dir(vaekit)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'VEA'"):
        vaekit.VEA  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'VEA'"):
        from vaekit import VEA  # noqa: F401


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {(alias.name, node.module or "") for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == {(name, vaekit._HOME.get(name, "")) for name in [*vaekit.__all__, *vaekit._MODULES]}


def test_the_wheel_holds_every_file_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hatchling.build import build_wheel

    monkeypatch.chdir(ROOT)
    with zipfile.ZipFile(tmp_path / build_wheel(str(tmp_path))) as wheel:
        held = set(wheel.namelist())
        (info,) = {name.partition("/")[0] for name in held if ".dist-info/" in name}
        entry_points = wheel.read(f"{info}/entry_points.txt").decode()
        about = wheel.read(f"{info}/METADATA").decode()
    files = {
        path.relative_to(PACKAGE.parent).as_posix() for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    assert "vaekit/py.typed" in files
    assert {name for name in held if not name.startswith(info)} == files
    assert f"{info}/licenses/LICENSE" in held
    assert "vaekit = vaekit.cli:main" in entry_points
    assert f"\nVersion: {vaekit.__version__}\n" in about


def test_every_requirement_is_pinned_once_and_for_every_platform() -> None:
    lines = [line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    pins = [line.split("==") for line in lines if line]
    assert all(len(pin) == 2 and "+" not in pin[1] and "*" not in pin[1] for pin in pins), "only name==version, without a local suffix"
    versions = {canonicalize_name(name): Version(version) for name, version in pins}
    assert len(versions) == len(pins)
    wanted = [*PROJECT["dependencies"], *(text for extra in PROJECT["optional-dependencies"].values() for text in extra)]
    for requirement in map(Requirement, wanted):
        assert versions[canonicalize_name(requirement.name)] in requirement.specifier, str(requirement)
    assert "torchvision" not in versions
