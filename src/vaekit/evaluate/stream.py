r"""K importance samples of a batch as a stream: the one loop behind every estimate that draws z ~ q(z | x).

.. math:: \log w_k = \log p(x | z_k) + \log p(z_k) - \log q(z_k | x), \qquad z_k \sim q(z | x)

The samples come in *tiles*, whose size follows from the data alone; the noise is drawn and the sums are taken tile by tile. How many
samples are decoded at once is another matter, and changes neither.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor

from vaekit.compiling import Compiled
from vaekit.data.core import Split
from vaekit.dist import Certain, has_density, log_prob_parts
from vaekit.dist.core import factor_mask
from vaekit.errors import InputError
from vaekit.evaluate.passes import CHUNK, batches, device_of, dtype_of, fitting
from vaekit.models.core import LatentModel, Trace
from vaekit.models.picks import Level, at_centre, from_q
from vaekit.tensors import seed_noise
from vaekit.types import Batch

__all__ = ["BLOCK", "CHUNK", "ROWS", "blocks", "certain", "check_finite", "entries", "require_density", "tile", "tiles", "worth_compiling"]

BLOCK = 100
"""Examples that are read at a time; fewer where x is so large that one sample of each would exceed `CHUNK`."""
ROWS = 20_000
"""Latents (samples times examples) that go through the decoder at once, whose layers may be far wider than x."""
LEAST = 8
"""Latents that go through the decoder at once at least: some processors multiply fewer rows by a routine that rounds otherwise."""
WORTH = 20_000_000_000
"""Decoded numbers, samples times entries of x, from which compiling a pass saves more than it takes (about 5 seconds)."""


def worth_compiling(model: LatentModel, split: Split, samples: int) -> bool:
    """Whether ``samples`` passes over the split are so much work that a compiled decoder is faster in the end. Only on a processor."""
    return device_of(model).type == "cpu" and samples * len(split) * split.shape.numel() >= WORTH


def tile(batch: Batch) -> int:
    """Samples of each example that are decoded at once: at least one, and as many as `CHUNK` and `ROWS` allow."""
    return max(1, min(CHUNK // batch.x.numel(), ROWS // batch.size))


def blocks(model: LatentModel, split: Split, size: int, seed: int) -> Iterator[Trace]:
    """The split in order, at most ``size`` examples at a time, each block encoded once: its trace at the centre of q.

    Use it inside ``observing(model, seed)``. The global generators are left at a state that depends on ``seed`` and the block alone. Rows
    are read in blocks that follow from the data alone: data that are binarised at each read are the same for any ``size`` and estimator.
    """
    torch.empty(30 << 20, dtype=torch.uint8)  # glibc learns from its release to keep such blocks: else each tile pays for fresh pages
    device, whole = device_of(model), fitting(split, BLOCK)
    rows = batches(split, whole, device, dtype=dtype_of(model))
    for number in range(-(-len(split) // whole)):
        seed_noise(_block_seed(seed, number), device)  # before the rows are fetched: they may be binarised anew
        batch = next(rows)
        for start in range(0, batch.size, size):
            if start:
                seed_noise(_block_seed(seed, number, start), device)
            part = Batch(batch.x[start : start + size], *(None if t is None else t[start : start + size] for t in batch[1:]))
            yield model.trace(at_centre(), part)


def tiles(
    model: LatentModel, seen: Trace, samples: int, *, chunk: int | None = None, compiled: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """log p(x | z) ``[k, B]`` and the rates log q - log p ``[k, B, L]`` of ``samples`` samples z ~ q(z | x), tile by tile.

    Args:
        model: the model; a flat one does not encode x again. A model of several levels does so once a tile, because the posteriors below
            the top depend on what was drawn above.
        seen: a trace of the batch, as `blocks` gives it.
        samples: K.
        chunk: samples that a flat model decodes at once, at least `LEAST` latents; default: `tile`.
        compiled: compile the decoder of a flat model together with log p(x | z), for full blocks and chunks; the rest runs as it is.

    Raises:
        InputError: a pass that has no data.
    """
    batch = _batch(seen)
    size = tile(batch)
    if len(seen.levels) > 1:
        for start in range(0, samples, size):
            t = model.infer(batch, min(size, samples - start))
            yield t.log_px, t.rate
        return
    at_once, top = size, seen.levels[0]
    size = max(size, min(CHUNK // top.z.numel(), ROWS // batch.size))  # latents alone take little: noise and sums in larger pieces
    size = min(size, samples)
    at_once = -(-size // -(-size // at_once)) if chunk is None else chunk  # equal parts
    at_once = max(at_once, -(-LEAST // batch.size))
    join = max(1, at_once // size)
    for start in range(0, samples, join * size):
        stop = min(start + join * size, samples)
        levels = [from_q(min(size, stop - k))(0, top.q, top.p) for k in range(start, stop, size)]
        z = torch.cat([level.z for level in levels]) if len(levels) > 1 else levels[0].z
        parts = []
        for part in z.split(at_once):
            decode = _decode_fast if compiled and (len(part), batch.size) == (at_once, BLOCK) else _decode
            parts.append(decode(model, batch, part))
        log_px = parts[0] if len(parts) == 1 else torch.cat(parts)
        for level, part in zip(levels, log_px.split(size), strict=True):
            yield part, Trace(batch, (level,), seen.px).rate


def entries(seen: Trace) -> Tensor:
    """How many entries of x log p(x | z) counts, ``[B]``: the observed ones, but for those whose factor is only partly observed.

    Raises:
        InputError: a pass that has no data.
    """
    batch = _batch(seen)
    if batch.mask is None:
        return torch.full((batch.size,), batch.x[0].numel(), device=batch.x.device)
    parts = log_prob_parts(seen.px, batch.input)
    return factor_mask(parts, batch.mask, len(seen.px.event_shape)).expand_as(batch.mask).flatten(1).sum(1)


def certain(seen: Trace) -> bool:
    """Whether every level's q(z | x) is certain of one code."""
    return all(isinstance(level.q, Certain) for level in seen.levels)


def require_density(seen: Trace) -> None:
    """Refuse a model whose posterior is a point in a continuous space, at any level.

    Raises:
        InputError: it has no density, hence no bound and no likelihood.
    """
    if not all(level.q is None or has_density(level.q) for level in seen.levels):
        raise InputError(
            "q(z | x) is a point and has no density, so this model has no bound and no likelihood that could be estimated; it has a "
            "reconstruction error: see vaekit report, or vaekit.evaluate.reconstruction(model, split)"
        )


def check_finite(log_px: Tensor) -> None:
    """Refuse estimates ``[N]`` that are not finite.

    Raises:
        InputError: how many are not, and the first of them.
    """
    bad = (~log_px.isfinite()).nonzero().flatten()
    if len(bad):
        raise InputError(
            f"the likelihood of {len(bad)} of {len(log_px)} examples is not finite (first: row {int(bad[0])}): "
            "the weights are damaged or the data lie where this model gives no probability"
        )


def _batch(seen: Trace) -> Batch:
    if seen.batch is None:
        raise InputError("this pass has no data to score: it generated x; trace a batch")
    return seen.batch


def _block_seed(seed: int, *block: int) -> int:
    return int.from_bytes(hashlib.blake2b(" ".join(map(str, (seed, *block))).encode(), digest_size=4).digest(), "little")


def _decode(model: LatentModel, batch: Batch, z: Tensor) -> Tensor:
    """log p(x | z), ``[k, B]``, of a flat model by a pass without x, which therefore encodes nothing."""
    t = model.trace(lambda number, q, p: Level(z, p, None, z.new_zeros(z.shape[:2]), None), context=batch.c)  # log p(z) is known already
    return Trace(batch, t.levels, t.px).log_px


_decode_compiled = Compiled(_decode)


def _decode_fast(model: LatentModel, batch: Batch, z: Tensor) -> Tensor:
    """`_decode`, compiled; where that gave NaN, as for an infinite logit, by the function itself, which is careful there."""
    log_px = _decode_compiled(model, batch, z)
    return _decode(model, batch, z) if bool(log_px.isnan().any()) else log_px
