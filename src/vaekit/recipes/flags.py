"""A recipe's signature as its flags: ``--latent 64 --widths 32,64 --no-augment``."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from vaekit.errors import InputError, nearest
from vaekit.recipes.core import RecipeFunction

__all__ = ["complete", "describe", "parse", "typed"]

WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}


def parse(function: RecipeFunction, tokens: Sequence[str], *, also: Sequence[str] = ()) -> dict[str, Any]:
    """``["--latent", "64", "--lr=1e-4"]`` -> ``{"latent": 64, "lr": 1e-4}``, typed by the function's annotations.

    Args:
        function: the recipe.
        tokens: the words of the command line.
        also: flags that are not the recipe's, only to name the nearest to an unknown one.

    Raises:
        InputError: an unknown flag (the nearest is named), a missing value, a value of another type.

    >>> def recipe(latent: int = 20, lr: float = 1e-3, deep: bool = False): ...
    >>> parse(recipe, ["--latent", "64", "--lr=1e-4", "--deep"])
    {'latent': 64, 'lr': 0.0001, 'deep': True}
    """
    kinds = _kinds(function)
    found: dict[str, Any] = {}
    rest = list(tokens)
    while rest:
        token = rest.pop(0)
        if not token.startswith("--"):
            raise InputError(f'"{token}" stands where a flag should; flags are {_flags(kinds)}')
        flag, equals, value = token[2:].partition("=")
        name = flag.replace("-", "_")
        if kinds.get(name) is bool and not equals:
            value = "true"
        elif name.startswith("no_") and kinds.get(name[3:]) is bool and not equals:
            name, value = name[3:], "false"
        elif name in kinds and not equals:
            if not rest:
                raise InputError(f"--{flag} needs a value")
            value = rest.pop(0)
        if name not in kinds:
            raise InputError(f"unknown flag --{flag}; " + nearest(f"--{flag}", [*also, *(f"--{k.replace('_', '-')}" for k in kinds)]))
        if name in found:
            raise InputError(f"--{flag} is given twice")
        found[name] = _convert(flag, kinds[name], value)
    return found


def complete(function: RecipeFunction, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """``arguments`` with the function's defaults filled in.

    Raises:
        InputError: an unknown name, or a parameter without default that is not given.
    """
    parameters = inspect.signature(function).parameters
    for name in arguments:
        if name not in parameters:
            raise InputError(f'unknown argument "{name}"; {nearest(name, parameters)}')
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in arguments:
            raise InputError(f"--{name.replace('_', '-')} is needed: this recipe has no default for it")
    return {name: arguments.get(name, parameter.default) for name, parameter in parameters.items()}


def describe(function: RecipeFunction) -> str:
    """Help: the docstring and every flag with the words it takes, where they are given, and its default as it is typed.

    >>> def recipe(widths: tuple[int, ...] = (64, 32), kind: Literal["linear", "deep"] = "deep"):
    ...     '''A network.
    ...
    ...     Args:
    ...         widths: of the layers.
    ...         kind: of the network.
    ...     '''
    >>> print(describe(recipe))
    A network.
    <BLANKLINE>
    Flags of this recipe:
      --widths           of the layers. (default 64,32)
      --kind             of the network: linear or deep. (default deep)
    """
    lines = [inspect.cleandoc(function.__doc__ or "").partition("\n\nArgs:")[0], "", "Flags of this recipe:"]
    help_of, kinds = _help(function), _kinds(function)
    for name, parameter in inspect.signature(function).parameters.items():
        default = "needed" if parameter.default is parameter.empty else f"default {typed(parameter.default)}"
        words = _options(kinds[name])
        text = help_of.get(name, "")
        if words:
            choice = " or ".join([*filter(None, [", ".join(words[:-1])]), words[-1]])
            text = f"{text.rstrip('.')}: {choice}.".lstrip(": ")
        lines.append(f"  --{name.replace('_', '-'):<16} {text} ({default})".replace("  (", " ("))
    return "\n".join(lines)


def typed(value: object) -> str:
    """A value as it stands on the command line.

    >>> typed((64, 32)), typed(True), typed(1e-4), typed(None)
    ('64,32', 'true', '0.0001', 'none')
    """
    if isinstance(value, tuple):
        return ",".join(map(typed, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _options(kind: Any) -> list[str]:
    """The words of a Literal, also of one that may be None."""
    if get_origin(kind) is Literal:
        return [str(option) for option in get_args(kind)]
    return next((_options(option) for option in get_args(kind) if get_origin(option) is Literal), [])


def _help(function: Callable[..., object]) -> dict[str, str]:
    """Parameter -> its line in the docstring's ``Args:`` section."""
    _, _, section = inspect.cleandoc(function.__doc__ or "").partition("Args:\n")
    pairs = (line.strip().partition(": ") for line in section.splitlines() if line.startswith("    "))
    return {name: text for name, _, text in pairs}


def _kinds(function: RecipeFunction) -> dict[str, Any]:
    hints = get_type_hints(function)
    return {name: hints.get(name, str) for name in inspect.signature(function).parameters}


def _flags(kinds: Mapping[str, Any]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in kinds) or "none"


def _convert(flag: str, kind: Any, value: str) -> Any:
    """``value`` as an int, finite float, bool, str, an option of a Literal, a tuple of one of these, or None where that is allowed."""
    options = get_args(kind)
    if NoneType in options:
        if value.lower() == "none":
            return None
        (kind,) = (option for option in options if option is not NoneType)
        return _convert(flag, kind, value)
    if get_origin(kind) is tuple:
        return tuple(_convert(flag, options[0], part) for part in value.split(","))
    if get_origin(kind) is Literal:
        found = [option for option in options if str(option) == value]
        if not found:
            raise InputError(f'--{flag} has no option "{value}"; {nearest(value, map(str, options))}')
        return found[0]
    if kind not in WORDS:
        raise InputError(f"--{flag} cannot be set from the command line: its type {kind} is no int, float, bool, str, Literal or tuple")
    try:
        converted = {"true": True, "false": False}[value.lower()] if kind is bool else kind(value)
    except (ValueError, KeyError):
        raise InputError(f'--{flag} takes {WORDS[kind]}, not "{value}"') from None
    if isinstance(converted, float) and not math.isfinite(converted):
        raise InputError(f'--{flag} takes a finite number, not "{value}"')
    return converted
