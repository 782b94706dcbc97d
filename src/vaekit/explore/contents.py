"""What a page shows of a model and its data, as plain values and a few packed arrays."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaekit.apps.export import Part, described, export
from vaekit.apps.export.writing import require_onnx
from vaekit.data.core import DataSet, Split
from vaekit.dist import DiagGaussian
from vaekit.errors import InputError
from vaekit.evaluate import Latents, continuous, latents, log_likelihood, scorable
from vaekit.evaluate.passes import batches, device_of, dtype_of, observing
from vaekit.explore.neighbours import FITTED, require_umap, umap_of
from vaekit.explore.pack import Block, evenly, gzipped
from vaekit.explore.tables import columns_of, graphs, row_values
from vaekit.models.core import LatentModel
from vaekit.models.picks import from_p
from vaekit.recipes.core import Recipe
from vaekit.report import UNTRAINED

__all__ = ["POINTS", "Block", "Contents", "collect"]

POINTS = 60_000
"""Rows on the map, at most."""
CODES = 4_000_000
"""Numbers in their codes, at most: of a model with very many latent dimensions fewer rows are shown."""
AXES = 8
"""Principal components that can be looked at."""
CLASSES = 256
"""Labels that can be told apart, at most."""
SCALES = (2000, 24_000)
"""Rows whose posterior standard deviations are put into the page, and numbers in them, at most: paths are looked for among these."""
EXTREMES = 12
"""Of the most likely examples, and of the least."""
LEVELS = 256
"""Values of a pixel, at most, that a drawing is rounded to; data with more are taken to be continuous."""
SCORE = 64
"""Importance samples of the score that the page gives an image."""
DRAWS = 2000
"""Draws z ~ p(z) that are put into the page where its browser cannot draw them itself."""


@dataclass(frozen=True)
class Contents:
    """``about`` are plain values for JSON, ``blocks`` the arrays and files under their names."""

    about: dict[str, Any]
    blocks: dict[str, Block]


def collect(
    recipe: Recipe,
    *,
    split: str = "train",
    points: int = POINTS,
    samples: int = 8,
    seed: int = 0,
    umap: bool = False,
    watch: Callable[[int, int], None] | None = None,
) -> Contents:
    """Look at a model on the CPU and at a split of its data.

    Args:
        recipe: with the trained model.
        split: "train", "valid" or "test".
        points: rows on the map, at most; drawn at random under ``seed`` where there are more.
        samples: importance samples of each row's log p(x).
        seed: of the rows and the samples.
        umap: a map by UMAP too, where the codes' neighbours stay neighbours.
        watch: told (done, total) rows while they are scored.

    Raises:
        InputError: a model or data that the page cannot show; an unknown split; fewer than 1 point or sample; missing packages.
    """
    for name, value in (("points", points), ("samples", samples)):
        if value < 1:
            raise InputError(f"explore({name}={value}): at least 1 is needed")
    columns = columns_of(recipe)
    data = _shown(recipe, bool(columns))
    try:
        require_onnx()
    except InputError as error:  # which offers torch's format, that no browser runs
        raise InputError("explore: the page runs the model as ONNX, and making that needs an extra: pip install 'vaekit[onnx]'") from error
    if umap:
        require_umap()
    model, rows = recipe.model, data.split(split)
    g = torch.Generator().manual_seed(seed)
    latent = _latent_size(model, rows)
    kept = min(len(rows), points, max(1, CODES // max(latent, len(columns))))
    index = torch.randperm(len(rows), generator=g)[:kept]  # in random order, so that no class is drawn over all others
    shown = rows.take(index)
    found = latents(model, shown, seed=seed)
    if not bool(found.z.isfinite().all()):
        raise InputError("the model gives codes that are not finite, so there is nothing to map: look at vaekit report")
    blocks = {"z": evenly(found.z)}
    if umap:
        blocks["umap"] = umap_of(found.z, seed=seed)
    about: dict[str, Any] = {
        "data": data.name,
        "split": split,
        "rows": len(rows),
        "points": kept,
        "seed": seed,
        "umap": min(kept, FITTED) if umap else 0,
        "shape": list(data.shape),
        **_codes(found),
        **_labels(data, shown, blocks),
        **(row_values(columns, model, shown, blocks) if columns else _values(model, shown)),
    }
    std = _stds(model, shown)
    if std is not None:
        active = found.active if bool(found.active.any()) else torch.ones_like(found.active)
        blocks["width"] = Block.of(std[:, active].log().mean(1).exp().numpy().astype("<f4"))
        blocks["std"] = Block.of(std[: min(SCALES[0], max(1, SCALES[1] // latent))].numpy().astype("<f4"))
    if scorable(model, shown):
        estimate = log_likelihood(model, shown, samples=samples, seed=seed, watch=watch)
        nats = -estimate.log_px
        blocks["nats"] = Block.of(nats.numpy().astype("<f4"))
        about["samples"] = samples
        about["extremes"] = _extremes(model, shown, nats, {} if columns else blocks)
    about["diagonal"] = _diagonal(model, shown)
    about["prior"] = _prior(model, blocks, seed)
    about |= graphs(model, columns, shown, blocks) if columns else _parts(model, shown, blocks)
    return Contents(about, blocks)


def _shown(recipe: Recipe, table: bool) -> DataSet:
    """The data, where the page can show them."""
    model = recipe.model
    if not recipe.objective.trains_q:
        raise InputError(f"explore: {UNTRAINED}")
    if recipe.contexts is not None:
        raise InputError("explore: p(x | z, c) has a context, and the page decodes latents alone: use vaekit sample, reconstruct or report")
    if not continuous(model):
        raise InputError("explore: the latents are discrete, so there is no map to move over: use vaekit sample, reconstruct or report")
    with observing(model, 0):
        levels = len(model.trace(from_p(1, 1)).levels)
    if levels != 1:
        raise InputError(
            f"explore: the model has {levels} levels of latents, and the page shows models with one: use vaekit report, or traverse"
        )
    if dtype_of(model) != torch.float32:
        raise InputError(f"explore: the model computes in {dtype_of(model)}, and the page in torch.float32: use vaekit report")
    data = recipe.data()
    if table:
        return data
    if len(data.shape) != 3 or data.shape[0] not in (1, 3):
        raise InputError(
            f"explore: the page shows tables of a file and images of 1 or 3 channels, and an example of {data.name} is "
            f"{list(data.shape)}: use vaekit report"
        )
    if data.train.mask is not None:
        raise InputError("explore: the images have missing pixels, which the page cannot take from a drawing: use vaekit report")
    return data


def _latent_size(model: LatentModel, rows: Split) -> int:
    with observing(model, 0):
        return model.embed(next(batches(rows.head(1), 1, device_of(model), dtype=dtype_of(model)))).shape[1]


def _codes(found: Latents) -> dict[str, Any]:
    """Where the codes lie: their mean, their principal axes, what each dimension carries."""
    z = found.z.double()
    mean = z.mean(0)
    values, vectors = torch.linalg.eigh((z - mean).T @ (z - mean) / max(1, len(z) - 1))
    order = values.argsort(descending=True)[:AXES]
    axes = vectors[:, order].T
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()  # the largest entry positive: the same at every run
    rank = (found.variance if found.kl is None else found.kl).argsort(descending=True)
    return {
        "latent": z.shape[1],
        "mean": mean.tolist(),
        "spread": z.std(0, correction=0).tolist(),
        "axes": axes.tolist(),
        "share": (values[order] / values.sum().clamp(min=1e-300)).tolist(),
        "kl": None if found.kl is None else found.kl.tolist(),
        "order": rank.tolist(),
        "active": found.active.tolist(),
    }


def _labels(data: DataSet, shown: Split, blocks: dict[str, Block]) -> dict[str, Any]:
    if shown.label is None:
        return {"labels": None}
    present, place = shown.label.unique(return_inverse=True)
    if len(present) > CLASSES:
        return {"labels": None}
    blocks["label"] = Block.of(place.numpy().astype("<u2"))
    names = data.label_names
    return {"labels": [str(label) if names is None else names[label] for label in present.tolist()]}


def _values(model: LatentModel, shown: Split) -> dict[str, Any]:
    """The values that pixels have, for drawing: the range, and the levels where they are few."""
    with observing(model, 0):
        x = next(batches(shown.head(min(500, len(shown))), 500, device_of(model), dtype=dtype_of(model))).x
    levels = x.unique()
    low, high = float(levels[0]), float(levels[-1])
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    return {
        "kind": "image",
        "range": [low, high if high > low else low + 1.0],
        "levels": levels.tolist() if len(levels) <= LEVELS else None,
    }


def _stds(model: LatentModel, shown: Split) -> Tensor | None:
    """The standard deviations of q(z | x), ``[N, D]``; None where it has none that describe it."""
    found = []
    with observing(model, 0):
        for batch in batches(shown, 500, device_of(model), dtype=dtype_of(model)):
            q = model.infer(batch).levels[0].q
            std = None if q is None else described(q).get("std")
            if std is None:
                return None
            found.append(std.reshape(batch.size, -1).cpu())
    return torch.cat(found)


def _diagonal(model: LatentModel, shown: Split) -> bool:
    """Whether the standard deviations say all of how far q(z | x) reaches, so that the ellipse on the map is the posterior's own."""
    with observing(model, 0):
        batch = next(batches(shown.head(1), 1, device_of(model), dtype=dtype_of(model)))
        return isinstance(model.infer(batch).levels[0].q, DiagGaussian)


def _extremes(model: LatentModel, shown: Split, nats: Tensor, blocks: dict[str, Block]) -> dict[str, list[int]]:
    """The most and the least likely rows, and their images as bytes."""
    order = nats.argsort()
    n = min(EXTREMES, len(order) // 2)
    best, worst = order[:n], order.flip(0)[:n]
    if n:
        with observing(model, 0):
            x = next(batches(shown.take(torch.cat([best, worst])), 2 * n, device_of(model), dtype=dtype_of(model))).x
        blocks["images"] = Block.of(x.numpy().astype("<f4"))
    return {"best": best.tolist(), "worst": worst.tolist()}


def _prior(model: LatentModel, blocks: dict[str, Block], seed: int) -> dict[str, list[float]] | None:
    """Mean and standard deviation of a p(z) that is a diagonal Gaussian; of another None, and draws of it."""
    with observing(model, seed):
        level = model.trace(from_p(1, DRAWS)).levels[0]
    p = level.p
    if isinstance(p, DiagGaussian) and not p.batch_shape and len(p.event_shape) == 1:
        return {"mean": p.mean.tolist(), "std": p.variance.sqrt().tolist()}
    blocks["draws"] = Block.of(level.z[0].flatten(1).numpy().astype("<f4"))
    return None


def _parts(model: LatentModel, shown: Split, blocks: dict[str, Block]) -> dict[str, Any]:
    """Encoder and decoder as ONNX, and the score where there is one, with the reason where there is none."""
    probe = next(batches(shown.head(min(16, len(shown))), 16, device_of(model), dtype=dtype_of(model)))
    stated: dict[str, Any] = {}
    unscored: str | None = None
    groups: list[list[Part]] = [["encoder", "decoder"], ["score"]]
    for parts in groups:
        with tempfile.TemporaryDirectory() as folder:
            try:
                made = export(model, probe, Path(folder) / "parts", parts=parts, samples=SCORE)
            except InputError as error:
                if parts != ["score"]:
                    raise
                unscored = str(error)
                continue
            stated |= json.loads((made.path / "vaekit.json").read_text(encoding="utf-8"))["parts"]
            for file in made.files:
                data = file.path.read_bytes()
                blocks[file.part] = Block("bytes", [len(data)], gzipped(data))
    score = stated.get("score")
    return {
        "encoder": [field["name"] for field in stated["encoder"]["outputs"]],
        "decoder": [field["name"] for field in stated["decoder"]["outputs"]],
        "score": None if score is None else {"samples": SCORE, "inputs": {f["name"]: f["shape"] for f in score["inputs"][1:]}},
        "unscored": unscored,
    }
