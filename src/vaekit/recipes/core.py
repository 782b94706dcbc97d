"""What a recipe returns, and how a recipe is found by its name.

A recipe is a function: its signature is the configuration, its name the registry key, its docstring the help. ``mnist:example`` is the
function ``example`` of the module ``vaekit.recipes.mnist``; ``digits`` the function ``digits`` of ``vaekit.recipes.digits``;
``./mine.py:run`` the function ``run`` of your own file. A variant calls another recipe and edits what it returns.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from torch import Tensor

from vaekit.data.core import DataSet
from vaekit.data.tables import Known
from vaekit.errors import InputError, nearest
from vaekit.models.core import LatentModel
from vaekit.objectives import ELBO, Objective
from vaekit.train import Training

__all__ = ["Recipe", "RecipeFunction", "find", "names", "outside", "summary"]


@dataclass(frozen=True)
class Recipe:
    """A whole run: what to train, on what, by which objective and settings (``training``).

    ``data`` is a function, so that a trained run can be opened, sampled and decoded without its data. ``known`` is what a recipe for data
    of the user's own has found in them; it is kept in the run folder and given back to the recipe's parameter ``known`` when the run is
    opened. ``contexts`` ``[M, C]`` are those that samples of a model p(x | z, c) have, as likely each.
    """

    model: LatentModel
    data: Callable[[], DataSet]
    objective: Objective = field(default_factory=ELBO)
    training: Training = field(default_factory=Training)
    known: Known | None = None
    contexts: Tensor | None = None


RecipeFunction = Callable[..., Recipe]
"""Keyword arguments -> `Recipe`."""


def names() -> dict[str, RecipeFunction]:
    """Every recipe of the package by its name."""
    found: dict[str, RecipeFunction] = {}
    package = importlib.import_module("vaekit.recipes")
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"vaekit.recipes.{info.name}")
        for name, function in _recipes_of(module).items():
            found[info.name if name == info.name else f"{info.name}:{name}"] = function
    return found


def find(name: str) -> RecipeFunction:
    """The recipe called ``name``, or the function of a file, ``path.py:function``.

    Raises:
        InputError: no such recipe (the nearest is named), file or function; a file that fails to load.
    """
    file = outside(name)
    if file is not None:
        return _from_file(*file)
    known = names()
    if name not in known:
        family = [one for one in known if one.startswith(f"{name}:")]
        hint = f"choose from: {', '.join(family)}" if family else nearest(name, known)
        raise InputError(f'unknown recipe "{name}"; {hint} (a file of yours is path.py:function)')
    return known[name]


def outside(name: str) -> tuple[Path, str] | None:
    """The file and the function ("" where none is named) of a recipe from outside the package; None for one of the package.

    >>> outside("./mine.py:run"), outside("mine.py"), outside("mnist:example")
    ((PosixPath('mine.py'), 'run'), (PosixPath('mine.py'), ''), None)
    """
    path, _, function = name.rpartition(":")
    if path.endswith(".py"):
        return Path(path), function
    return (Path(name), "") if name.endswith(".py") else None


def summary(function: Callable[..., object]) -> str:
    """The first line of its docstring."""
    return (inspect.getdoc(function) or "").partition("\n")[0]


def _recipes_of(module: ModuleType) -> dict[str, RecipeFunction]:
    """The public functions defined in a module whose return annotation is Recipe."""
    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isfunction(value)
        and not name.startswith("_")
        and value.__module__ == module.__name__
        and value.__annotations__.get("return") in ("Recipe", Recipe)
    }


def _from_file(path: Path, function: str) -> RecipeFunction:
    if not path.is_file():
        raise InputError(f"no recipe file {path}")
    spec = importlib.util.spec_from_file_location(f"vaekit_recipe_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickling look their module up by name
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        alone = "; a recipe file stands alone, for the run keeps a copy of it" if isinstance(error, ModuleNotFoundError) else ""
        raise InputError(f"{path} could not be loaded: {type(error).__name__}: {error}{alone}") from error
    recipes = _recipes_of(module)
    if not function and len(recipes) == 1:
        return next(iter(recipes.values()))
    if not function and recipes:
        raise InputError(f"which recipe of {path}? choose from: {', '.join(f'{path}:{one}' for one in recipes)}")
    if function not in recipes:
        raise InputError(
            f'{path} has no recipe "{function}": a recipe is a function whose return annotation is Recipe; '
            + (nearest(function, recipes) if recipes else "it has none")
        )
    return recipes[function]
