"""What ``vaekit export`` does: a run's model as files that need no vaekit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from vaekit.apps.export import PARTS, Exported, Format, Part
from vaekit.apps.export import export as export_model
from vaekit.card import portable
from vaekit.evaluate.passes import batches, dtype_of
from vaekit.launch import load
from vaekit.runs import PathLike, Run

__all__ = ["export"]

ROWS = 16
"""Of the run's test data, that the written files are checked with."""


def export(
    run: PathLike | Run,
    out: PathLike,
    *,
    format: Format = "onnx",
    parts: Sequence[Part] = PARTS,
    samples: int = 64,
    trust: bool = False,
) -> Exported:
    """`vaekit.apps.export.export` of a run, checked on 16 rows of its test data; ``vaekit.json`` says which run it is of.

    Args:
        run: a trained run.
        out: a folder that does not exist yet, or is empty.
        format: "onnx" or "torch".
        parts: of "encoder", "decoder" and "score".
        samples: K of the score.
        trust: execute the recipe file that the run folder holds.

    Raises:
        InputError: as `load` and `vaekit.apps.export.export`.
    """
    run, recipe = load(run, trust=trust, device="cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # data that are drawn anew at each read
        rows = recipe.data().test
        probe = next(batches(rows.head(min(ROWS, len(rows))), ROWS, torch.device("cpu"), dtype=dtype_of(recipe.model)))
    config = portable(run.config)
    about = {
        "run": {
            "recipe": config.recipe,
            "arguments": dict(config.arguments),
            "seed": config.seed,
            "created": config.created,
            "versions": dict(config.versions or {}),
        }
    }
    return export_model(recipe.model, probe, Path(out), parts=parts, format=format, samples=samples, about=about)
