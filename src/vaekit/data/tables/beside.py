"""What stands beside the rows of images and of counts, and may be conditioned on: the labels of images, the columns of ``obs``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from vaekit.data.tables.cells import Name, cells_of
from vaekit.data.tables.columns import Column
from vaekit.data.tables.context import Context
from vaekit.data.tables.infer import Kind, given_of
from vaekit.errors import InputError, nearest

__all__ = ["LABEL", "beside_of", "columns_beside", "context_beside"]

LABEL = "label"
"""The name of what the classes of images are."""


def beside_of(label: npt.NDArray[np.int64] | None, names: tuple[str, ...] | None, obs: Any) -> dict[Name, Any]:
    """Columns ``[N]`` by their names: the labels ``label``, by the names of their classes where they have names, and those of ``obs``."""
    found: dict[Name, Any] = {} if obs is None else {name: obs[name] for name in obs.columns}
    if label is not None:
        found[LABEL] = label if names is None else np.array(names, dtype=object)[label]
    return found


def columns_beside(beside: Mapping[Name, Any], asked: Sequence[Name], why: str, *, kind: Kind | None = None) -> tuple[Column, ...]:
    """The columns ``asked`` of those in ``beside``, which are to be conditioned on, once each; whole numbers of a few values are
    categories, labels (of ``kind``) always.

    Raises:
        InputError: one that is not there (``why`` says where such columns come from), or cannot be conditioned on.
    """
    found = []
    for name in dict.fromkeys(asked):
        if name not in beside:
            held = nearest(str(name), map(str, beside)) if beside else why
            raise InputError(f'there is no "{name}" to condition on; {held}')
        cells = cells_of(beside[name], name)
        two = cells.sort == "texts" and len(set(cells.present.tolist())) == 2  # categories already, by one number
        found.append(given_of(name, cells, None if two else kind))
    if found:
        Context(tuple(found))
    return tuple(found)


def context_beside(context: Context | None, beside: Mapping[Name, Any], why: str) -> Tensor | None:
    """c ``[N, C]`` of the rows, by ``context`` from the columns in ``beside``; ``why`` says where such columns come from.

    Raises:
        InputError: a column is not there, or holds what is not known.
    """
    if context is None:
        return None
    gone = next((column.name for column in context.columns if column.name not in beside), None)
    if gone is not None:
        raise InputError(f'the model is conditioned on "{gone}", and these data have none; {why}')
    return context.expand(context.numbers([beside[column.name] for column in context.columns]))
