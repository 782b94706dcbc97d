"""A recipe's signature as its flags: ``--latent 64 --widths 32,64 --no-augment``."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import NoneType
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from vaekit.errors import InputError, nearest
from vaekit.recipes.core import RecipeFunction

__all__ = ["Flag", "complete", "describe", "flags", "parse", "parse_many", "takes_known", "typed", "values"]

KNOWN = "known"
"""The parameter that a run folder gives, and no flag."""
MOST = 10_000
"""Values of a range, at most."""
WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}


class Flag(NamedTuple):
    """One flag of a recipe: ``--name``, what it takes, its default as it is typed (None where it is needed), its ``help`` (a line of the
    docstring), and the words that it takes where they are given."""

    name: str
    takes: str
    default: str | None
    help: str
    words: tuple[str, ...]


def flags(function: RecipeFunction) -> list[Flag]:
    """Every flag of a recipe, in the order of its signature.

    >>> def recipe(widths: tuple[int, ...], deep: bool = False): ...
    >>> [flag[:3] for flag in flags(recipe)]
    [('--widths', 'whole numbers with commas between them', None), ('--deep', 'true or false', 'false')]
    """
    help_of, kinds = _help(function), _kinds(function)
    return [
        Flag(
            f"--{name.replace('_', '-')}",
            _takes(kinds[name]),
            None if parameter.default is parameter.empty else typed(parameter.default) or "none",
            help_of.get(name, ""),
            tuple(_options(kinds[name])),
        )
        for name, parameter in _parameters(function).items()
    ]


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
    for flag, name, value in _words(kinds, tokens, also, again=True):
        converted = _convert(flag, kinds[name], value)
        found[name] = (*found[name], *converted) if name in found else converted
    return found


def parse_many(function: RecipeFunction, tokens: Sequence[str], *, also: Sequence[str] = ()) -> dict[str, tuple[Any, ...]]:
    """As `parse` of the ``tokens`` for ``function``, each flag with one or several values: with commas between them, of whole numbers also
    ``first..last``, both included. Values that have commas themselves (tuples) have a slash between them: ``--widths 64,32/128,64`` are
    two.

    Raises:
        InputError: as `parse`; a range that is empty or of anything else than whole numbers; the same value twice.

    >>> def recipe(latent: int = 20, lr: float = 1e-3, widths: tuple[int, ...] = (64,)): ...
    >>> parse_many(recipe, ["--latent", "2..4,8", "--lr=1e-4,1e-3", "--widths", "64,32/128"])
    {'latent': (2, 3, 4, 8), 'lr': (0.0001, 0.001), 'widths': ((64, 32), (128,))}
    """
    kinds = _kinds(function)
    return {name: values(flag, kinds[name], text) for flag, name, text in _words(kinds, tokens, also)}


def values(flag: str, kind: Any, text: str) -> tuple[Any, ...]:
    """The values of one flag of type ``kind`` in ``text``, as `parse_many` reads them, and with its errors.

    Raises:
        InputError: as `parse_many`.
    """
    inner = [option for option in get_args(kind) if option is not NoneType] if NoneType in get_args(kind) else [kind]
    several = any(get_origin(option) is tuple for option in inner)
    found: list[Any] = []
    for part in text.split("/" if several else ","):
        first, dots, last = part.partition("..")
        if not dots or several or str in inner:
            found.append(_convert(flag, kind, part))
            continue
        if int not in inner or not all(end.lstrip("-").isdigit() for end in (first, last)):
            raise InputError(f"--{flag} {part}: a range is first..last in whole numbers, as 0..9; give the values with commas between them")
        if int(last) < int(first) or int(last) - int(first) >= MOST:
            raise InputError(f"--{flag} {part}: a range goes from the smaller to the larger number, over at most {MOST} of them")
        found += range(int(first), int(last) + 1)
    twice = next((value for i, value in enumerate(found) if value in found[:i]), None)
    if twice is not None:
        raise InputError(f"--{flag} {text}: {typed(twice)} is there twice; give each value once")
    return tuple(found)


def _words(kinds: Mapping[str, Any], tokens: Sequence[str], also: Sequence[str], *, again: bool = False) -> Iterator[tuple[str, str, str]]:
    """Flag as typed, parameter and value of each; one that takes words may come ``again``, for more of them."""
    seen: set[str] = set()
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
        if name in seen and not (again and kinds[name] == tuple[str, ...]):
            raise InputError(f"--{flag} is given twice")
        seen.add(name)
        yield flag, name, value


def complete(function: RecipeFunction, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """``arguments`` with the function's defaults filled in.

    Raises:
        InputError: an unknown name, or a parameter without default that is not given.
    """
    parameters = _parameters(function)
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
    for flag in flags(function):
        default = "needed" if flag.default is None else f"default {flag.default}"
        text = flag.help
        if flag.words:
            choice = " or ".join([*filter(None, [", ".join(flag.words[:-1])]), flag.words[-1]])
            text = f"{text.rstrip('.')}: {choice}.".lstrip(": ")
        lines.append(f"  {flag.name:<18} {text} ({default})".replace("  (", " ("))
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


def _takes(kind: Any) -> str:
    """What a flag's value is, in words; its options are apart."""
    options = get_args(kind)
    if NoneType in options:
        return " or ".join([*(_takes(option) for option in options if option is not NoneType), "none"])
    if get_origin(kind) is tuple:
        return f"{WORDS.get(options[0], 'a value').partition(' ')[2]}s with commas between them"
    return "one of these words" if get_origin(kind) is Literal else WORDS.get(kind, "a value")


def _help(function: Callable[..., object]) -> dict[str, str]:
    """Parameter -> its entry in the docstring's ``Args:`` section, its lines joined."""
    _, _, section = inspect.cleandoc(function.__doc__ or "").partition("Args:\n")
    found: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        if line.strip() and not line.startswith("    "):  # the next section
            break
        if line.startswith("     ") and name:
            found[name] += f" {line.strip()}"
        elif line.strip():
            name, _, text = line.strip().partition(": ")
            found[name] = text
    return found


def _kinds(function: RecipeFunction) -> dict[str, Any]:
    hints = get_type_hints(function)
    return {name: hints.get(name, str) for name in _parameters(function)}


def takes_known(function: RecipeFunction) -> bool:
    """Whether the recipe is given what its run folder knows of the data, as a parameter that is no flag."""
    return KNOWN in inspect.signature(function).parameters


def _parameters(function: RecipeFunction) -> dict[str, inspect.Parameter]:
    return {name: parameter for name, parameter in inspect.signature(function).parameters.items() if name != KNOWN}


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
        parts = [part for part in value.split(",") if part or options[0] is not str]
        return tuple(_convert(flag, options[0], part) for part in parts)
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
