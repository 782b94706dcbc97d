"""What the decoder of a trained run makes of latents: reconstructions, lines between examples, and dimensions moved alone.

>>> import tempfile
>>> from vaekit import commands, decoding
>>> folder = tempfile.TemporaryDirectory()
>>> run = commands.train("digits", {"epochs": 1, "hidden": 8}, out=f"{folder.name}/run")
>>> x, path = decoding.traverse(run, dimensions=2, steps=3)
>>> x.shape
torch.Size([2, 3, 1, 8, 8])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from vaekit import viz
from vaekit.data.core import Split
from vaekit.errors import InputError
from vaekit.evaluate import interpolate as interpolate_model
from vaekit.evaluate import latents, leading, quantiles, spherical, straight
from vaekit.evaluate import traverse as traverse_model
from vaekit.evaluate.passes import batches, device_of, dtype_of
from vaekit.launch import load
from vaekit.models.core import LatentModel
from vaekit.outputs import check_suffix, default_path, save, suffixes
from vaekit.recipes.core import Recipe
from vaekit.report import UNTRAINED
from vaekit.runs import PathLike, Run
from vaekit.types import Batch

__all__ = ["reconstruct", "interpolate", "traverse", "require_encoder", "FEW"]

FEW = 1000
"""Examples, at most, over which the latent dimensions are ranked."""


def reconstruct(
    run: PathLike | Run,
    *,
    n: int | None = None,
    split: str = "test",
    seed: int | None = None,
    out: PathLike | None = None,
    trust: bool = False,
) -> tuple[Tensor, Path]:
    """n examples (by default up to 16) ``[n, *]`` decoded from the centre of their posterior, and the file they went to.

    The first n of the split, or with a ``seed`` n at random. ``out`` is a .png file, each reconstruction below its original, or a .npy
    file; by default one in the run's figures, a .npy where the examples are no images. Of a table it is a .csv, .parquet or .npy file.

    Raises:
        InputError: as `load`; an unknown split; n < 1 or above the number of its examples; another kind of file; data that are no images.
    """
    run, recipe = load(run, trust=trust)
    if out is not None:
        check_suffix(Path(out), *suffixes(recipe.known))
    require_encoder(run, recipe)
    found = recipe.data().split(split)
    if seed is not None:
        found = found.take(torch.randperm(len(found), generator=torch.Generator().manual_seed(seed)))
    batch = _batch(recipe.model, found.head(min(16, len(found)) if n is None else n), 0 if seed is None else seed)
    x_hat = recipe.model.reconstruct(batch).cpu()
    target = default_path(run, "reconstructions", x_hat, recipe.known) if out is None else Path(out)
    save(x_hat, target, lambda: viz.pairs(batch.x.cpu(), x_hat, gap=viz.gap_for(x_hat.shape[-1])), known=recipe.known, c=batch.c)
    return x_hat, target


def interpolate(
    run: PathLike | Run,
    *,
    rows: Sequence[int] | None = None,
    steps: int = 9,
    arc: bool = False,
    split: str = "test",
    out: PathLike | None = None,
    trust: bool = False,
) -> tuple[Tensor, Path]:
    """The decoded line between the latents of pairs of examples ``[pairs, steps, *]``, and the file it went to.

    ``rows`` of the split, two a pair: the first ten by default. ``arc`` takes `spherical` lines instead of `straight` ones. ``out`` is
    a .png file, each line between its two examples, or a .npy file; by default one in the run's figures, a .npy where the examples are
    no images.

    Raises:
        InputError: as `load`; an odd number of rows, or one that there is not; and as `vaekit.evaluate.interpolate`.
    """
    run, recipe = load(run, trust=trust)
    if out is not None:
        check_suffix(Path(out), *suffixes(recipe.known))
    require_encoder(run, recipe)
    _free(run, recipe)
    found = recipe.data().split(split)
    rows = list(range(min(10, len(found) // 2 * 2)) if rows is None else rows)
    if not rows or len(rows) % 2:
        raise InputError(f"interpolations lie between two examples each: give an even number of rows, not {len(rows)}")
    a, b = (_batch(recipe.model, _rows(found, rows[i::2], split)) for i in (0, 1))
    x = interpolate_model(recipe.model, a, b, steps=steps, along=spherical if arc else straight).x.cpu()
    target = default_path(run, "interpolations", x[0], recipe.known) if out is None else Path(out)
    save(x, target, lambda: viz.strips(torch.cat([a.x.cpu().unsqueeze(1), x, b.x.cpu().unsqueeze(1)], 1)), rows=True, known=recipe.known)
    return x, target


def traverse(
    run: PathLike | Run,
    *,
    dimensions: int | None = None,
    steps: int = 9,
    row: int | None = None,
    split: str = "test",
    out: PathLike | None = None,
    trust: bool = False,
) -> tuple[Tensor, Path]:
    """Latent dimensions, those that carry most (by default up to 8), each moved alone: ``[dimensions, steps, *]``, and the file.

    From the 2% to the 98% quantile of p(z_d), the others at the centre of the prior or, with ``row``, of that example's posterior. They
    are ranked by their KL over at most 1000 examples of the split. ``out`` is as in `interpolate`.

    Raises:
        InputError: as `load`; a row that there is not; more dimensions than the model has; and as `vaekit.evaluate.traverse`.
    """
    run, recipe = load(run, trust=trust)
    if out is not None:
        check_suffix(Path(out), *suffixes(recipe.known))
    _free(run, recipe)
    values = quantiles(steps)
    if row is not None:
        require_encoder(run, recipe)
    found = recipe.data().split(split)
    start = None if row is None else _batch(recipe.model, _rows(found, [row], split))
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(0))[:FEW]  # data sets may be sorted by class
    ranked = latents(recipe.model, found.take(order))
    if not recipe.objective.trains_q:
        ranked = replace(ranked, kl=None)  # that of an encoder which nobody trained
    which = leading(ranked, min(8, ranked.z.shape[1]) if dimensions is None else dimensions)
    x = traverse_model(recipe.model, start, dimensions=which, values=values).x.cpu()
    target = default_path(run, "traversals", x[0], recipe.known) if out is None else Path(out)
    labels = [f"z[{d}]" if ranked.kl is None else f"z[{d}], {ranked.kl[d]:.2f} nats" for d in which]
    title = f"Latent dimensions moved alone, largest {'variance' if ranked.kl is None else 'KL'} first"
    save(x, target, lambda: viz.traversals(x, values=values, names=labels, title=title), rows=True, known=recipe.known)
    return x, target


def require_encoder(run: Run, recipe: Recipe) -> None:
    """Refuse to read codes off an encoder that nobody trained.

    Raises:
        InputError: the ``recipe`` of the ``run`` trains none.
    """
    if not recipe.objective.trains_q:
        raise InputError(f"{run.path}: {UNTRAINED}")


def _free(run: Run, recipe: Recipe) -> None:
    """Refuse to decode latents alone where p(x | z, c) needs a context too."""
    if recipe.contexts is not None:
        raise InputError(f"{run.path}: its p(x | z, c) has a context, and latents alone are not decoded: use sample, reconstruct or embed")


def _rows(found: Split, rows: Sequence[int], name: str) -> Split:
    for row in rows:
        if not 0 <= row < len(found):
            raise InputError(f"there is no {name} row {row}; they are 0 to {len(found) - 1}")
    return found.take(torch.tensor(list(rows)))


def _batch(model: LatentModel, rows: Split, seed: int = 0) -> Batch:
    """All of them as one batch; data that are drawn anew at each read are drawn under ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return next(batches(rows, len(rows), device_of(model), dtype=dtype_of(model)))
