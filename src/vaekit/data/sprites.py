"""Shapes by known factors: dSprites, and sprites that are drawn here. The label of a row is the number of its combination of factors.

`factor_values` turns labels into the factors' values; `vaekit.evaluate.disentanglement` compares them with a model's codes.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from vaekit.data.arrays import arrays, permutation
from vaekit.data.core import DataSet, Factor, Split
from vaekit.data.fetch import locate
from vaekit.data.formats import REPAIR, check, read_npz_blocks
from vaekit.data.sources import DSPRITES
from vaekit.errors import InputError

__all__ = ["dsprites", "factor_values", "sprites"]

DSPRITES_FILE = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"
DSPRITES_FACTORS = (Factor("shape", 3, ordered=False), Factor("scale", 6), Factor("orientation", 40), Factor("x", 32), Factor("y", 32))
DSPRITES_SIDE = 64
BLOCK = 4096
HEART = 0.5 / (1.5 - math.sqrt(0.5))


def factor_values(data: DataSet, split: Split) -> Tensor:
    """The value of each factor, int64 ``[N, F]`` in the order of ``data.factors``, for a labelled split of ``data``.

    Raises:
        InputError: the data set has no factors, or the split no labels.

    >>> data = sprites(size=8, scales=1, orientations=1, positions=2, valid=0, test=2)
    >>> [factor.name for factor in data.factors], factor_values(data, data.test).tolist()
    (['shape', 'scale', 'orientation', 'x', 'y'], [[1, 0, 0, 1, 0], [2, 0, 0, 1, 1]])
    """
    if not data.factors or split.label is None:
        raise InputError(f'"{data.name}" has no known factors: take data.sprites() or data.dsprites(), or give the DataSet its factors')
    return torch.stack(torch.unravel_index(split.label, [factor.size for factor in data.factors]), -1)


def sprites(
    size: int = 32,
    *,
    scales: int = 4,
    orientations: int = 8,
    positions: int = 8,
    binary: bool = False,
    valid: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
) -> DataSet:
    """Sprites drawn here: [1, 32, 32] in [0, 1], every combination of shape, scale, orientation, x and y; 4916 training images.

    Squares, ellipses and hearts in white on black, each with ``scales`` sizes from 0.5 to 1 of a radius of a quarter of the image,
    ``orientations`` angles evenly from 0 to less than 90 degrees (a full turn would show each square four times), and centres on a
    grid of ``positions`` x ``positions`` over the middle half of the image, so that no sprite is cut off. The edges are anti-aliased:
    a pixel is 1/2 minus the distance in pixels from its centre to the edge, within [0, 1], as a byte. Nothing is random except for the
    splits, which are those of `arrays`; nothing is downloaded. After dSprites (Matthey et al., 2017).

    Args:
        size: height and width in pixels.
        scales, orientations, positions: values of each factor; 3 shapes times these are the images.
        binary: pixels 0 and 1, by rounding; small images of different factors can then be the same.
        valid, test, seed: as in `arrays`.

    Raises:
        InputError: a count below 1, or images below 8 pixels.

    >>> data = sprites(16, scales=2, orientations=3, positions=4)
    >>> data.train, len(data.train) + len(data.valid) + len(data.test)
    (Split(230 rows of [1, 16, 16], uint8, labelled), 288)
    """
    for name, count in (("scales", scales), ("orientations", orientations), ("positions", positions)):
        if count < 1:
            raise InputError(f"sprites({name}={count}): a factor has at least 1 value")
    if size < 8:
        raise InputError(f"sprites({size}): a shape in fewer than 8 pixels is a blot; take 8 or more")
    factors = (
        Factor("shape", 3, ordered=False),
        *(Factor("scale", scales), Factor("orientation", orientations), Factor("x", positions), Factor("y", positions)),
    )
    grid = _drawn(size, scales, orientations, positions).flatten(0, 4).unsqueeze(1)
    x = grid >= 0.5 if binary else (255 * grid).round_().to(torch.uint8)
    made = arrays(x, label=torch.arange(len(x)), valid=valid, test=test, seed=seed, name="sprites")
    return replace(made, factors=factors)


def _drawn(size: int, scales: int, orientations: int, positions: int) -> Tensor:
    """Coverage of each pixel, ``[shape, scale, orientation, x, y, size, size]``; rows of pixels run along y."""
    centres = torch.linspace(0.25, 0.75, positions) * size if positions > 1 else torch.tensor([0.5 * size])
    radii = torch.linspace(0.5, 1.0, scales) * 0.25 * size if scales > 1 else torch.tensor([0.25 * size])
    offset = torch.arange(size) + 0.5 - centres[:, None]  # [position, pixel]
    dx, dy = offset[:, None, None, :], offset[None, :, :, None]
    out = torch.empty(3, scales, orientations, positions, positions, size, size)
    for o in range(orientations):
        angle = 0.5 * math.pi * o / orientations
        u, v = dx * math.cos(angle) + dy * math.sin(angle), dy * math.cos(angle) - dx * math.sin(angle)
        for s, r in enumerate(radii.tolist()):
            for shape, distance in enumerate((_square, _ellipse, _heart)):
                out[shape, s, o] = (0.5 - r * distance(u / r, v / r)).clamp_(0, 1)
    return out


# Signed distances to the edge of a shape of circumradius 1, negative inside, exact near the sides of the square and the heart and to first
# order in the ellipse.


def _square(u: Tensor, v: Tensor) -> Tensor:
    return torch.maximum(u.abs(), v.abs()) - math.sqrt(0.5)


def _ellipse(u: Tensor, v: Tensor) -> Tensor:
    """Semi-axes 1 and 1/2."""
    norm = (u.square() + 4 * v.square()).sqrt()
    slope = (u.square() + 16 * v.square()).sqrt() / norm.clamp(min=1e-12)
    return (norm - 1) / slope.clamp(min=1e-12)


def _heart(u: Tensor, v: Tensor) -> Tensor:
    """A square of side sqrt(1/2) on its corner, at the origin, and a half circle on each of its upper sides; HEART is its circumradius."""
    u, v = HEART * u.abs(), HEART * (1 - v)  # upright, where rows of pixels run downwards, and centred
    square = (u + (v - 0.5).abs() - 0.5) * math.sqrt(0.5)
    circle = ((u - 0.25).square() + (v - 0.75).square()).sqrt() - math.sqrt(0.125)
    return torch.minimum(square, circle) / HEART


def dsprites(rows: int | None = None, *, valid: int = 0, test: int = 73_728, seed: int = 0) -> DataSet:
    """dSprites: [1, 64, 64], 0 or 1, every combination of shape, scale, orientation, x and y; 663552 training images, 73728 test images.

    3 shapes x 6 scales x 40 orientations x 32 x 32 positions; the colour, of which there is one, is left out. There is no published
    split: this is ``numpy.random.RandomState(seed).permutation(737280)``, whose first ``test`` rows are the test split, the next
    ``valid`` the validation split, and the rest the training split. A pixel takes a byte, 3 GB in all: ``rows`` keeps the first so
    many of the permutation instead. The file's pickled member ``metadata`` is never read. Source: Matthey, Higgins, Hassabis &
    Lerchner, "dSprites: Disentanglement testing Sprites dataset" (2017).

    Raises:
        InputError: more images than there are, or a split without any; a file that is not the published one.
    """
    sizes = tuple(factor.size for factor in DSPRITES_FACTORS)
    n, side = math.prod(sizes), DSPRITES_SIDE
    kept = n if rows is None else rows
    if not (1 <= kept <= n and test >= 1 and valid >= 0 and test + valid < kept):
        raise InputError(f"dsprites(rows={rows}, valid={valid}, test={test}): {n} images are there, and each split needs at least one")
    path = locate(DSPRITES, DSPRITES_FILE)
    check(path.read_bytes(), DSPRITES.content[DSPRITES_FILE], path)
    classes = np.concatenate(list(read_npz_blocks(path, "latents_classes", (n, 1 + len(sizes)), np.int64)))
    if not np.array_equal(classes[:, 1:], np.stack(np.unravel_index(np.arange(n), sizes), -1)):
        raise InputError(f"{path} does not list all combinations of its factors in their order; {REPAIR}")
    label = permutation(n, seed)[:kept]
    place = torch.full((n,), -1)
    place[label] = torch.arange(kept)
    x = torch.empty(kept, 1, side, side, dtype=torch.bool)
    for start, block in zip(range(0, n, BLOCK), read_npz_blocks(path, "imgs", (n, side, side), np.uint8, rows=BLOCK), strict=True):
        to = place[start : start + BLOCK]
        x[to[to >= 0], 0] = torch.from_numpy(block).bool()[to >= 0]
    cut = test + valid
    parts = {
        name: Split(x[a:b], label=label[a:b]) for name, a, b in (("test", 0, test), ("valid", test, cut), ("train", cut, kept)) if b > a
    }
    return DataSet("dsprites", train=parts["train"], test=parts["test"], valid=parts.get("valid"), factors=DSPRITES_FACTORS)
