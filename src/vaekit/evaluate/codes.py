"""The codes of a data set under a quantised model."""

from __future__ import annotations

import torch

from vaekit.data.core import Split
from vaekit.dist import Quantised, describe
from vaekit.errors import InputError
from vaekit.evaluate.passes import batches, device_of, dtype_of, observing
from vaekit.models.core import LatentModel, at_centre

__all__ = ["codes"]


def codes(model: LatentModel, split: Split, *, batch_size: int = 500) -> Split:
    """The codes of every example in order, int32 ``[N, *grid]``, with the labels: data for `vaekit.models.code_model`.

    Raises:
        InputError: the model's one latent is not quantised.
    """
    found = []
    with observing(model, 0):
        for batch in batches(split, batch_size, device_of(model), dtype=dtype_of(model)):
            levels = model.trace(at_centre(), batch).levels
            q = levels[0].q
            if len(levels) != 1 or not isinstance(q, Quantised):
                what = f"{len(levels)} levels" if len(levels) != 1 or q is None else describe(q)
                raise InputError(f"codes are asked of a model with {what}: only one quantised level has them")
            found.append(q.codes.to("cpu", torch.int32))
    return Split(torch.cat(found), label=split.label)
