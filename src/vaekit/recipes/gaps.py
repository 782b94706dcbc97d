"""Recipes for tables in which values are missing because of what they are."""

from __future__ import annotations

from torch import nn

from vaekit import heads
from vaekit.data.tables import Schema
from vaekit.data.tables.cells import shown
from vaekit.errors import InputError
from vaekit.nn import Layer, mlp

__all__ = ["MASK_K", "mask_model"]

MASK_K = 20
"""Samples per example in the bound where the mask is modelled, as in Ipsen, Mattei and Frellsen (2021)."""
DRAWN = ("Gaussian", "LogNormal", "StudentT")


def mask_model(kind: str, schema: Schema, px: heads.Columns, hidden: int) -> heads.MaskModel:
    """p(m | x) of the columns of a table that miss values: of ``kind`` "self-masking" or "not-at-random", the latter a network of
    ``hidden`` units. The table has ``schema``.

    Raises:
        InputError: no value is missing, or some in a column whose values cannot be drawn with a gradient; the column is named.
    """
    columns = [d for d, column in enumerate(schema.modelled) if column.missing]
    if not columns:
        raise InputError(f"--missing {kind} models which values are missing, and this table misses none: leave it out")
    other = next((schema.modelled[d] for d in columns if schema.modelled[d].likelihood not in DRAWN), None)
    if other is not None:
        raise InputError(
            f"--missing {kind}: {shown(other.name)} misses {other.missing:.1%} of its values and is {other.kind} ({other.likelihood}); the "
            f"values of a model of the mask are drawn with gradients, from {', '.join(DRAWN)}: give it a kind of these, or drop it"
        )
    size = len(schema.modelled)
    if kind == "self-masking":
        return heads.SelfMasking(size, columns, observed=[1 - schema.modelled[d].missing for d in columns])
    layer = px.input_layer()
    return heads.MaskNetwork(size, columns, nn.Sequential(layer, mlp(layer.features, [Layer(hidden, nn.SiLU)], len(columns))))
