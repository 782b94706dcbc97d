"""Whether two models, or settings, are the same but for the values of their weights: then one program trains both.

In doubt they are not: two objects count as alike only where every attribute of theirs says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, is_dataclass
from functools import partial
from types import FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vaekit.objectives.core import Objective
from vaekit.objectives.rates import Penalty
from vaekit.objectives.schedules import Constant

__all__ = ["Comparison", "Place", "difference"]

Place = tuple[str, str]
"""A module's path and the name of an attribute of its."""


def difference(one: object, other: object) -> str | None:
    """The first place where ``one`` and ``other`` differ, None where they are alike. Parameters and buffers may have other values, not
    other shapes.

    >>> from vaekit import ELBO
    >>> from vaekit.objectives import Beta
    >>> difference(ELBO(2), ELBO(2)), difference(ELBO(2), ELBO(3))
    (None, 'k')
    >>> difference(nn.Sequential(nn.Linear(2, 3)), nn.Sequential(nn.Linear(2, 4)))
    '0.weight'
    """
    return Comparison().run(one, other)


@dataclass
class Comparison:
    """One comparison. ``constants`` are the places of weights of an objective that are `Constant` in both: those may differ if
    ``weights`` is set, and are listed whether they do or not.

    Attributes:
        weights: whether those constants may differ.
        constants: where they stand.
        partner: id of an object of the first -> id of the one that it was compared with.
        reverse: the other way round.
    """

    weights: bool = False
    constants: list[Place] = field(default_factory=list)
    partner: dict[int, int] = field(default_factory=dict)
    reverse: dict[int, int] = field(default_factory=dict)

    def run(self, one: object, other: object, at: str = "") -> str | None:
        """The first difference of ``one`` and ``other``, as a dotted path that begins with ``at``."""
        if one is other:
            return None
        if type(one) is not type(other):
            return at or "the type"
        if id(one) in self.partner:  # seen before, or on its way: the same pair, or a tie that the other does not have
            return None if self.partner[id(one)] == id(other) else at
        if isinstance(one, nn.Module | Tensor) and not self._paired(one, other):
            return at
        if isinstance(one, nn.Module) and isinstance(other, nn.Module):
            return self._modules(one, other, at)
        if isinstance(one, Tensor) and isinstance(other, Tensor):
            same = one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other)
            return None if same else at
        return self._values(one, other, at)

    def _paired(self, one: object, other: object) -> bool:
        """Make them each other's partner, unless one of them has another."""
        return self.partner.setdefault(id(one), id(other)) == id(other) and self.reverse.setdefault(id(other), id(one)) == id(one)

    def _modules(self, one: nn.Module, other: nn.Module, at: str) -> str | None:
        mine, theirs = vars(one), vars(other)
        weighs = isinstance(one, Objective | Penalty)
        for name in dict.fromkeys([*mine, *theirs]):
            where = f"{at}.{name}" if at else name
            if name not in mine or name not in theirs:
                return where
            if name in ("_parameters", "_buffers"):
                found = self._tensors(mine[name], theirs[name], at)
            elif name == "_modules":
                found = self._pairs(mine[name], theirs[name], at)
            elif name == "training" or (weighs and self.weights and name == "schedules"):  # those are the attributes' own
                found = None
            elif weighs and self.weights and isinstance(mine[name], Constant) and isinstance(theirs[name], Constant):
                self.constants.append((at, name))
                found = None
            else:
                found = self.run(mine[name], theirs[name], where)
            if found is not None:
                return found
        return None

    def _tensors(self, one: dict[str, Tensor | None], other: dict[str, Tensor | None], at: str) -> str | None:
        if list(one) != list(other):
            return at
        for (name, t), u in zip(one.items(), other.values(), strict=True):
            if t is None or u is None:
                same = t is u
            else:
                tied = self._paired(t, u)
                same = tied and (t.shape, t.dtype, t.requires_grad, type(t)) == (u.shape, u.dtype, u.requires_grad, type(u))
            if not same:
                return f"{at}.{name}" if at else name
        return None

    def _pairs(self, one: dict[Any, Any], other: dict[Any, Any], at: str) -> str | None:
        if list(one) != list(other):
            return at or "keys"
        return self._first((self.run(one[key], other[key], f"{at}.{key}" if at else str(key))) for key in one)

    def _values(self, one: Any, other: Any, at: str) -> str | None:
        if isinstance(one, type):
            return at
        if is_dataclass(one):
            mine, theirs = ({f.name: getattr(value, f.name) for f in fields(one)} for value in (one, other))
            return self._pairs(mine, theirs, at)
        if isinstance(one, dict):
            return self._pairs(one, other, at)
        if isinstance(one, list | tuple):
            if len(one) != len(other):
                return at
            return self._first(self.run(a, b, at) for a, b in zip(one, other, strict=True))
        if isinstance(one, np.ndarray):
            return None if one.dtype == other.dtype and np.array_equal(one, other) else at
        if isinstance(one, FunctionType):
            return self.run(_parts(one), _parts(other), at)
        if isinstance(one, MethodType):
            return self.run((one.__func__, one.__self__), (other.__func__, other.__self__), at)
        if isinstance(one, partial):
            return self.run((one.func, one.args, one.keywords), (other.func, other.args, other.keywords), at)
        if not any("__eq__" in vars(kind) for kind in type(one).__mro__[:-1]):  # says nothing of its own about what is the same
            attributes = getattr(one, "__dict__", None)
            return at if attributes is None else self._pairs(attributes, vars(other), at)
        same = one == other
        return None if isinstance(same, bool) and same else at

    @staticmethod
    def _first(found: Iterable[str | None]) -> str | None:
        return next((where for where in found if where is not None), None)


def _parts(function: FunctionType) -> tuple[object, ...]:
    """What a function does and what it has been given."""
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    return function.__code__, function.__defaults__, function.__kwdefaults__, cells
