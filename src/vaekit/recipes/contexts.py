"""Recipes for one's own data whose models are conditioned on columns that the user names."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from vaekit.data.tables import Description
from vaekit.errors import InputError
from vaekit.models import with_context
from vaekit.recipes.core import Recipe
from vaekit.types import Batch

__all__ = ["context_width", "contexts_where", "flat_with_context"]


def context_width(schema: Description) -> int:
    """Numbers of the context that the user's columns make, 0 without one."""
    return 0 if schema.context is None else schema.context.width


def contexts_where(recipe: Recipe, where: Sequence[str]) -> Tensor | None:
    """The contexts ``[M, C]`` that samples of ``recipe`` are drawn under, as likely each; None for a model without.

    Raises:
        InputError: ``where``, as "column=value", names what the model is not conditioned on.
    """
    if not where:
        return recipe.contexts
    if recipe.known is None:
        raise InputError(f"--where {where[0]}: this model is not conditioned on columns of a file: give its samples a context in Python")
    return recipe.known.contexts(where)


def flat_with_context(batch: Batch) -> Tensor:
    """`vaekit.models.with_context` of images as vectors: ``[B, C H W + context]``, each number of the context once and not in every pixel.

    Raises:
        InputError: the batch carries no context.
    """
    mask = None if batch.mask is None else batch.mask.flatten(1)
    return with_context(batch._replace(x=batch.x.flatten(1), mask=mask))
