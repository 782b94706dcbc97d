"""The codes of a data set under a quantised model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vaekit.data.core import Split
from vaekit.dist import Quantised, describe
from vaekit.errors import InputError
from vaekit.evaluate.passes import batches, device_of, dtype_of, fitting, observing
from vaekit.models.core import LatentModel
from vaekit.models.picks import at_centre

__all__ = ["Usage", "codes", "usage"]


@dataclass(frozen=True)
class Usage:
    """How a data set uses the codes of one level.

    Attributes:
        level: from 0 at the top.
        size: codes there are.
        draws: codes that were chosen: examples times places of the grid.
        used: different ones among them; the others are dead as far as these draws tell.
        perplexity: exp(-sum_c f_c log f_c) of the frequencies f, 1 (always the same) to `size` (all equally often).
        expected: how many different ones as many draws of equally likely codes would show.
    """

    level: int
    size: int
    draws: int
    used: int
    perplexity: float
    expected: float

    @property
    def dead(self) -> int:
        """Codes that nothing has chosen."""
        return self.size - self.used


def usage(level: int, count: Tensor) -> Usage:
    """`Usage` from how often each code was chosen, ``count`` ``[size]``.

    >>> usage(0, torch.tensor([3, 3, 0, 0]))
    Usage(level=0, size=4, draws=6, used=2, perplexity=2.0, expected=3.2881)
    """
    size, draws = len(count), int(count.sum())
    perplexity = float(torch.special.entr(count.double() / draws).sum().exp())
    return Usage(level, size, draws, int((count > 0).sum()), perplexity, size * (1 - (1 - 1 / size) ** draws))


def codes(model: LatentModel, split: Split, *, batch_size: int = 500) -> Split:
    """The codes of every example in order, int32 ``[N, *grid]``, with the labels: data for `vaekit.models.code_model`.

    Raises:
        InputError: the model's one latent is not quantised.
    """
    found = []
    with observing(model, 0):
        for batch in batches(split, fitting(split, batch_size), device_of(model), dtype=dtype_of(model)):
            levels = model.trace(at_centre(), batch).levels
            q = levels[0].q
            if len(levels) != 1 or not isinstance(q, Quantised):
                what = f"{len(levels)} levels" if len(levels) != 1 or q is None else describe(q)
                raise InputError(f"codes are asked of a model with {what}: only one quantised level has them")
            found.append(q.codes.to("cpu", torch.int32))
    return Split(torch.cat(found), label=split.label)
