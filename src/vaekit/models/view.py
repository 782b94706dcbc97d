r"""What an encoder sees of a batch (a *view*), and how a context c reaches p(x | z, c) and q(z | x, c).

========================  =================================================  ======================
View                      what it gives                                      width of x ``[B, D]``
========================  =================================================  ======================
`plain_input`             x, missing entries 0                               D
`with_mask`               (x, m), m = 1 where x is observed                  2 D
`with_context`            (x, c)                                             D + C
`with_mask_and_context`   (x, m, c)                                          2 D + C
========================  =================================================  ======================

All join along dimension 1: the columns of a vector, the channels of an image. A view is any function ``Batch -> Tensor`` that two
processes can find under one name, so that a run can be resumed and compared: write your own where these do not suit.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vaekit.errors import InputError
from vaekit.types import Batch

__all__ = ["View", "check_context", "context_of", "joined", "plain_input", "with_context", "with_mask", "with_mask_and_context"]

View = Callable[[Batch], Tensor]
"""A batch -> what the encoder sees of it, ``[B, *]``."""


def plain_input(batch: Batch) -> Tensor:
    """``batch.input`` ``[B, *]``, x with its missing entries set to 0, for an encoder that is shown no context.

    Raises:
        InputError: the batch carries a context c, which would be ignored.
    """
    if batch.c is not None:
        raise InputError(
            f"this model's encoder takes no context, and the batch carries c {list(batch.c.shape)}: leave it out, or build the model with "
            "context=... and view=with_context"
        )
    return batch.input


def with_mask(batch: Batch) -> Tensor:
    """``batch.input`` and the mask beside it as 0 and 1, joined along dimension 1: ``[B, 2 D]``, of images ``[B, 2 C, H, W]``.

    Without a mask all entries count as observed. A missing entry differs so from one that is 0 (Nazabal et al., "Handling Incomplete
    Heterogeneous Data using VAEs", 2020; Collier et al., "VAEs in the Presence of Missing Data", 2020).

    Raises:
        InputError: the batch carries a context c, which would be ignored.

    >>> with_mask(Batch(torch.tensor([[5.0, float("nan")]]), mask=torch.tensor([[True, False]])))
    tensor([[5., 0., 1., 0.]])
    """
    x = plain_input(batch)
    m = torch.ones_like(x) if batch.mask is None else batch.mask.to(x.dtype)
    return torch.cat([x, m], 1)


def with_context(batch: Batch) -> Tensor:
    """``batch.input`` and c beside it: ``[B, D + C]``, of images ``[B, channels + C, H, W]`` with c the same in every pixel.

    Raises:
        InputError: the batch carries no context.
    """
    if batch.c is None:
        raise InputError("this model's encoder takes a context and the batch carries none: give Batch(x, c), or a Split with c")
    return joined(plain_input(batch._replace(c=None)), batch.c, 1)


def with_mask_and_context(batch: Batch) -> Tensor:
    """`with_mask` and c beside it: ``[B, 2 D + C]``, of images ``[B, 2 channels + C, H, W]``.

    Raises:
        InputError: the batch carries no context.
    """
    return with_context(batch._replace(x=with_mask(batch._replace(c=None)), mask=None))


def joined(h: Tensor, c: Tensor, dim: int) -> Tensor:
    """h and c ``[B, C]`` side by side along dimension ``dim`` of h, which follows that of the examples; c is the same everywhere else."""
    *front, _, width = (*h.shape[:dim], c.shape[-1])
    rest = h.shape[dim + 1 :]
    wide = c.to(h.dtype).reshape(*c.shape[:-1], width, *[1] * len(rest)).expand(*front, c.shape[0], width, *rest)
    return torch.cat([h, wide], dim)


def context_of(size: int, batch: Batch | None, context: Tensor | None) -> Tensor | None:
    """The c of one pass, ``[B, size]``: the batch's, or ``context`` where there is no batch; None for a model of size 0, which takes none.

    Raises:
        InputError: a context for a model that takes none, none for one that does, one of another width, or two of them.
    """
    if batch is not None and context is not None:
        raise InputError("a batch and a context were both given: put the context into the batch, Batch(x, c)")
    c = context if batch is None else batch.c
    if size == 0:
        if c is not None:
            raise InputError(
                f"this model takes no context, and it was given c {list(c.shape)}: leave it out, or build the model with "
                f"context={c.shape[-1] if c.dim() else 1}"
            )
        return None
    if c is None:
        where = "give context=... [n, C]" if batch is None else "give Batch(x, c), or a Split with c"
        raise InputError(f"this model takes a context of {size} numbers per example and was given none: {where}")
    if c.dim() != 2 or c.shape[1] != size:
        raise InputError(f"this model takes a context of {size} numbers per example, [B, {size}], and was given {list(c.shape)}")
    return c


def check_context(model: str, size: int, conditional_prior: bool) -> int:
    """The size of a model's context, where it is one; ``conditional_prior`` says whether the prior sees it.

    Raises:
        InputError: it is negative, or 0 and the prior is to be conditional.
    """
    if size < 0:
        raise InputError(f"{model}(context={size}): the context is so many numbers per example; 0 means none")
    if conditional_prior and size == 0:
        raise InputError(f"{model}(conditional_prior=True) needs a context: give context=C, the numbers per example of c")
    return size
