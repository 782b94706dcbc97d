"""What the command line does, each command a function.

>>> import tempfile
>>> from vaekit import commands
>>> folder = tempfile.TemporaryDirectory()
>>> run = commands.train("digits", {"epochs": 1, "hidden": 8}, out=f"{folder.name}/run")
>>> commands.evaluate(run, samples=10).examples
300
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaekit import data as data_sets
from vaekit import viz
from vaekit.errors import InputError
from vaekit.evaluate import Evaluation
from vaekit.evaluate import embed as embed_split
from vaekit.evaluate import evaluate as evaluate_split
from vaekit.evaluate.passes import batches, device_of, dtype_of
from vaekit.files import explained, write_bytes, write_json
from vaekit.launch import load, train
from vaekit.recipes.core import names, summary
from vaekit.report import write_report
from vaekit.runs import PathLike, Run

__all__ = ["embed", "evaluate", "list_all", "load", "reconstruct", "report", "sample", "train"]


def list_all() -> dict[str, dict[str, str]]:
    """Recipes and data sets, each name with a one-line summary."""
    return {
        "recipes": {name: summary(function) for name, function in names().items()},
        "data sets": {name: summary(function) for name, function in data_sets.catalogue().items()},
    }


def evaluate(
    run: PathLike | Run,
    *,
    samples: int = 5000,
    split: str = "test",
    seed: int = 0,
    device: str = "auto",
    trust: bool = False,
    watch: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """`vaekit.evaluate.evaluate` on a split of the run's data; kept in ``evaluation.json``.

    Raises:
        InputError: as `load`; ``samples`` below 1; an unknown split.
    """
    run, recipe = load(run, trust=trust, device=device)
    kept = read_evaluations(run)
    if not os.access(run.path, os.W_OK):  # said before the work, not after it
        raise InputError(f"no permission to write {run.path / 'evaluation.json'}: evaluate a copy of the run folder")
    result = evaluate_split(recipe.model, recipe.data().split(split), samples=samples, seed=seed, watch=watch)
    write_json(run.path / "evaluation.json", kept | {split: result.as_dict()})
    return result


def sample(
    run: PathLike | Run,
    *,
    n: int = 64,
    temperature: float = 1.0,
    seed: int = 0,
    mean: bool = True,
    out: PathLike | None = None,
    trust: bool = False,
) -> tuple[Tensor, Path]:
    """n new examples ``[n, *]``, the means of p(x | z) for z ~ p(z), or with ``mean=False`` draws x ~ p(x | z); and the file they went to.

    ``out`` is a .png or .npy file; by default one in the run's figures, a .npy where the examples are no images.

    Raises:
        InputError: as `load`; n < 1; a negative temperature; another kind of file.
    """
    run, recipe = load(run, trust=trust)
    if out is not None:
        _suffix(Path(out), ".png", ".npy")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        x = recipe.model.sample(n, temperature=temperature, mean=mean).cpu()
    target = _default(run, "samples", x) if out is None else Path(out)
    _save_examples(x, target)
    return x, target


def reconstruct(run: PathLike | Run, *, n: int | None = None, out: PathLike | None = None, trust: bool = False) -> tuple[Tensor, Path]:
    """The first n (by default up to 16) test examples ``[n, *]`` decoded from the centre of their posterior, and the file they went to.

    ``out`` is a .png file, each reconstruction below its original, or a .npy file; by default one in the run's figures, a .npy where the
    examples are no images.

    Raises:
        InputError: as `load`; n < 1 or above the number of test examples; another kind of file; data that are no images.
    """
    run, recipe = load(run, trust=trust)
    if out is not None:
        _suffix(Path(out), ".png", ".npy")
    test = recipe.data().test
    rows = test.head(min(16, len(test)) if n is None else n)
    batch = next(batches(rows, len(rows), device_of(recipe.model), dtype=dtype_of(recipe.model)))
    x_hat = recipe.model.reconstruct(batch).cpu()
    target = _default(run, "reconstructions", x_hat) if out is None else Path(out)
    if target.suffix == ".npy":
        _save_examples(x_hat, target)
    else:
        _images_only(x_hat, target)
        _prepare(target)
        write_bytes(target, viz.png(viz.pairs(batch.x.cpu(), x_hat, gap=viz.gap_for(x_hat.shape[-1]))))
    return x_hat, target


def embed(
    run: PathLike | Run, *, split: str = "test", out: PathLike | None = None, device: str = "auto", trust: bool = False
) -> tuple[Tensor, Path]:
    """The centre of q(z | x) of every example of a split, ``[N, D]``, and their file (.npz: ``z``, and ``label`` if there is one).

    Raises:
        InputError: as `load`; an unknown split; another kind of file.
    """
    run, recipe = load(run, trust=trust, device=device)
    target = run.path / f"embedding-{split}.npz" if out is None else Path(out)
    _suffix(target, ".npz")
    rows = recipe.data().split(split)
    z = embed_split(recipe.model, rows)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **({"z": z.numpy()} | ({} if rows.label is None else {"label": rows.label.numpy()})))
    write_bytes(target, buffer.getvalue())
    return z, target


def report(run: PathLike | Run, *, trust: bool = False) -> Path:
    """Draw every figure and write ``report.html``, one file with the pictures inside; its path.

    Numbers come from ``evaluation.json``; where ``vaekit evaluate`` has not run yet a quick estimate is made and named as such.

    Raises:
        InputError: as `load`.
    """
    run, recipe = load(run, trust=trust)
    return write_report(run, recipe, read_evaluations(run))


def read_evaluations(run: Run) -> dict[str, dict[str, Any]]:
    """What ``evaluate`` found so far, by split.

    Raises:
        InputError: a damaged ``evaluation.json``.
    """
    file = run.path / "evaluation.json"
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text())
        return {split: dict(values) for split, values in found.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{file} is damaged ({error}): remove it and run: vaekit evaluate {run.path}") from error


def _suffix(path: Path, *kinds: str) -> None:
    if path.suffix.lower() not in kinds:
        raise InputError(f'--out {path}: writes {" or ".join(kinds)}, not "{path.suffix}"')


def _prepare(path: Path) -> None:
    """Make the folder of a default place; the folder of a place that was asked for must be there."""
    if path.parent.name == "figures":
        with explained(path):
            path.parent.mkdir(exist_ok=True)


def _save_examples(x: Tensor, target: Path) -> None:
    _prepare(target)
    if target.suffix == ".npy":
        buffer = io.BytesIO()
        np.save(buffer, x.numpy(), allow_pickle=False)
        write_bytes(target, buffer.getvalue())
        return
    _images_only(x, target)
    viz.save_png(x, target, scale=max(2, 64 // x.shape[-1]), gap=viz.gap_for(x.shape[-1]))


def _default(run: Run, name: str, x: Tensor) -> Path:
    return run.figures / f"{name}{'.png' if _are_images(x) else '.npy'}"


def _are_images(x: Tensor) -> bool:
    return x.dim() == 4 and x.shape[1] in (1, 3)


def _images_only(x: Tensor, target: Path) -> None:
    if not _are_images(x):
        raise InputError(f"--out {target}: examples of shape {list(x.shape[1:])} are no pictures; write them as .npy")
