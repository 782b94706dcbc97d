"""Latents that the decoder has stopped to read, noticed while training: what is logged of them, and the one warning.

A level has collapsed where its rate, the KL that says how much it tells of x, is next to nothing and stays there. Early in training
that is common and passes, so that the warning waits until the weights of the rate have settled and `STEPS` steps have gone by.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaekit.data.core import Split
from vaekit.dist import DiagGaussian, centre, is_discrete
from vaekit.errors import InputError
from vaekit.models.core import LatentModel
from vaekit.models.picks import Level

__all__ = ["ACTIVE", "NEGLIGIBLE", "active_units", "collapsed", "offset", "warn_of_collapse"]

ACTIVE = 1e-2
"""A latent dimension is active where the variance over the data of its posterior mean exceeds this (Burda et al., 2016).

The definition is made for N(0, I). Under another diagonal Gaussian p the mean is counted from p's, in units of p's standard deviation:
what a level below the top takes from the level above is no news about x. See `offset`.
"""
NEGLIGIBLE = 0.1
"""Nats of KL below which a level counts as collapsed: 0.14 bits about x."""
STEPS = 200
"""Optimiser steps, in whole epochs, for which a rate has to stay below `NEGLIGIBLE`."""
ROWS = 1000
"""Examples, at most, over which the active units are counted; ``CHUNK`` of them go through the model at a time."""
CHUNK = 100

Row = Mapping[str, float]


def offset(level: Level) -> Tensor:
    """How far z lies from the centre of p at the same state above, ``[K, B, *]``; in p's standard deviations where p is a DiagGaussian."""
    if isinstance(level.p, DiagGaussian):
        return (level.z - level.p.mean) / level.p.scale
    return level.z - centre(level.p) if level.p.batch_shape else level.z  # a constant centre has no part in the variance


def active_units(model: LatentModel, split: Split) -> dict[str, float]:
    """``{"active": n}``, latent dimensions whose posterior mean varies over (at most 1000 rows of) a split; {} for discrete latents.

    The model must be in evaluation mode. Nothing is drawn.
    """

    def pick(number: int, q: Distribution | None, p: Distribution) -> Level:
        z = centre(p if q is None else q)
        z = z.reshape((1,) * (2 + len(p.event_shape) - z.dim()) + z.shape)
        return Level(z, p, q, z.new_zeros(z.shape[:2]), None)

    first = next(model.parameters())
    moved = []
    for rows in torch.arange(0, len(split), -(-len(split) // ROWS), device=split.x.device).split(CHUNK):
        batch = split.batch(rows).to(first.device)
        try:
            with torch.no_grad():
                c = None if batch.c is None else batch.c.to(first.dtype)
                levels, _ = model.unroll(pick, batch._replace(x=batch.x.to(first.dtype), c=c))
                if any(is_discrete(level.p) for level in levels):
                    return {}
                moved.append(torch.cat([offset(level)[0].flatten(1) for level in levels if level.informed], -1))
        except InputError:  # a distribution without a centre
            return {}
    return {"active": float((torch.cat(moved).var(0, correction=0) > ACTIVE).sum())}


def collapsed(history: Sequence[Row], level: int, settled: int) -> int | None:
    """The first row by which the rate of a level had stayed below `NEGLIGIBLE` for `STEPS` steps; None where that has not happened.

    Args:
        history: a row an epoch, as `fit` writes them.
        level: from 0 at the top.
        settled: the first step at which the rate has its final weight; epochs that began before it do not count.
    """
    start = steps = 0.0
    for number, row in enumerate(history):
        low = start >= settled and row.get(f"train/rate_{level}", NEGLIGIBLE) < NEGLIGIBLE
        steps = steps + row["step"] - start if low else 0.0
        if steps >= STEPS:
            return number
        start = row["step"]
    return None


def warn_of_collapse(history: Sequence[Row], settled: int) -> None:
    """Warn of the levels that the last row of ``history``, and none before it, shows to have collapsed; rows before step ``settled`` do not
    count.

    What has been said follows from the rows alone, so that a resumed run does not say it again.
    """
    row, level = history[-1], 0
    while (name := f"train/rate_{level}") in row:
        if collapsed(history, level, settled) == len(history) - 1:
            warnings.warn(
                f"level {level} has collapsed: its rate has stayed below {NEGLIGIBLE} nats for {STEPS} steps or more (now {row[name]:.3g}, "
                f"step {row['step']:g}), so that the decoder ignores z; a variance of p(x | z) that is learned, a warm-up of the KL from "
                "0, FreeBits or a weaker decoder usually helps",
                stacklevel=3,
            )
        level += 1
