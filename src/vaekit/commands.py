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
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vaekit import data as data_sets
from vaekit.data.tables import Pixels
from vaekit.decoding import interpolate, reconstruct, require_encoder, traverse
from vaekit.errors import InputError
from vaekit.evaluate import Diagnosis, Evaluation, Finding
from vaekit.evaluate import diagnose as diagnose_split
from vaekit.evaluate import embed as embed_split
from vaekit.evaluate import evaluate as evaluate_split
from vaekit.evaluate.passes import device_of
from vaekit.files import write_bytes, write_json
from vaekit.launch import load, train
from vaekit.outputs import check_suffix, default_path, save, suffixes
from vaekit.recipes.contexts import contexts_where
from vaekit.recipes.core import names, summary
from vaekit.report import UNTRAINED, write_report
from vaekit.runs import PathLike, Run, read_results
from vaekit.scoring import given
from vaekit.sweeps import sweep

__all__ = [
    "list_all",
    "train",
    "sweep",
    "load",
    "evaluate",
    "diagnose",
    "sample",
    "reconstruct",
    "interpolate",
    "traverse",
    "embed",
    "report",
]


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
    split: str | None = None,
    data: PathLike | None = None,
    seed: int = 0,
    device: str = "auto",
    trust: bool = False,
    watch: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """`vaekit.evaluate.evaluate` on a split of the run's data, by default "test"; kept in ``evaluation.json``. Or on all rows of ``data``,
    a file or folder like the one that the run was trained on, which is checked against what the run knows of its own; that is not kept.

    Raises:
        InputError: as `load`; ``samples`` below 1; an unknown split; data that do not fit; both a split and data.
    """
    split = _one(split, data)
    run, recipe = load(run, trust=trust, device=device)
    kept = read_results(run, "evaluation.json", "vaekit evaluate")
    _writable(run, "evaluation.json")
    if not recipe.objective.trains_q:
        warnings.warn(f"{UNTRAINED}.", stacklevel=2)
    if data is not None:
        return evaluate_split(recipe.model, given(run, recipe, Path(data)), samples=samples, seed=seed, watch=watch)
    result = evaluate_split(recipe.model, recipe.data().split(split), samples=samples, seed=seed, watch=watch)
    write_json(run.path / "evaluation.json", kept | {split: result.as_dict()})
    return result


def diagnose(
    run: PathLike | Run,
    *,
    samples: int = 5,
    split: str = "test",
    seed: int = 0,
    device: str = "auto",
    trust: bool = False,
    watch: Callable[[int, int], None] | None = None,
) -> Diagnosis:
    """`vaekit.evaluate.diagnose` on a split of the run's data, beside as much of its training data; kept in ``diagnosis.json``.

    Raises:
        InputError: as `load`; ``samples`` below 1; an unknown split; a plain autoencoder, which has no bound.
    """
    run, recipe = load(run, trust=trust, device=device)
    kept = read_results(run, "diagnosis.json", "vaekit evaluate --diagnose")
    _writable(run, "diagnosis.json")
    data = recipe.data()
    rows = data.split(split)
    train = None if split == "train" else data.train
    found = diagnose_split(recipe.model, rows, train=train, samples=samples, seed=seed, watch=watch)
    if not recipe.objective.trains_q:  # the others would blame the model for what its encoder is
        found = replace(found, findings=[Finding("warning", f"{UNTRAINED}."), *(f for f in found.findings if f.severity == "error")])
    write_json(run.path / "diagnosis.json", kept | {split: found.as_dict()})
    return found


def sample(
    run: PathLike | Run,
    *,
    n: int = 64,
    temperature: float = 1.0,
    seed: int = 0,
    mean: bool | None = None,
    where: Sequence[str] = (),
    out: PathLike | None = None,
    trust: bool = False,
) -> tuple[Tensor, Path]:
    """n new examples ``[n, *]``, the means of p(x | z) for z ~ p(z), or with ``mean=False`` draws x ~ p(x | z); and the file they went to.

    By default means of images, and draws of a table or of counts. ``out`` is a .png or .npy file, of a table a .csv, .parquet or .npy file;
    by default one in the run's figures, a .npy where the examples are no images, or of a table ``samples.csv`` in the run: the original
    columns, dtypes and categories. Columns that the model is conditioned on are those of training rows, or with ``where`` ("column=value",
    one a column) of those training rows that have these values.

    Raises:
        InputError: as `load`; n < 1; a negative temperature; another kind of file; a column or a value that there is not.
    """
    run, recipe = load(run, trust=trust)
    known = recipe.known
    if out is not None:
        check_suffix(Path(out), *suffixes(known))
    mean = (known is None or isinstance(known.schema, Pixels)) if mean is None else mean
    contexts = contexts_where(recipe, where)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        c = None if contexts is None else contexts[torch.randint(len(contexts), (max(n, 0),))]
        context = None if c is None else c.to(device_of(recipe.model))
        x = recipe.model.sample(n, temperature=temperature, mean=mean, context=context).cpu()
    target = default_path(run, "samples", x, known) if out is None else Path(out)
    save(x, target, known=known, c=c)
    return x, target


def embed(
    run: PathLike | Run,
    *,
    split: str | None = None,
    data: PathLike | None = None,
    out: PathLike | None = None,
    device: str = "auto",
    trust: bool = False,
) -> tuple[Tensor, Path]:
    """The centre of q(z | x) of every example of a split, by default "test", ``[N, D]``, and their file (.npz: ``z``, and ``label`` if
    there is one). ``data`` as in `evaluate`, in the order of the file.

    Raises:
        InputError: as `load`; an unknown split; another kind of file; data that do not fit; both a split and data.
    """
    split = _one(split, data)
    run, recipe = load(run, trust=trust, device=device)
    name = split if data is None else Path(data).resolve().name.partition(".")[0]
    target = run.path / f"embedding-{name}.npz" if out is None else Path(out)
    check_suffix(target, ".npz")
    require_encoder(run, recipe)
    rows = recipe.data().split(split) if data is None else given(run, recipe, Path(data))
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
    return write_report(run, recipe, read_results(run, "evaluation.json", "vaekit evaluate"))


def _one(split: str | None, data: PathLike | None) -> str:
    """The split that is meant where no data are given."""
    if split is not None and data is not None:
        raise InputError(
            f"--split {split} is of the run's own data, and {data} are other ones, of which all rows are taken: give one of them"
        )
    return "test" if split is None else split


def _writable(run: Run, name: str) -> None:
    """Said before the work, not after it."""
    if not os.access(run.path, os.W_OK):
        raise InputError(f"no permission to write {run.path / name}: evaluate a copy of the run folder")
