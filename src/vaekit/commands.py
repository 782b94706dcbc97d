"""What the command line does, each command a function.

>>> import tempfile
>>> from vaekit import commands
>>> folder = tempfile.TemporaryDirectory()
>>> run = commands.train("digits", {"epochs": 1, "hidden": 8}, out=f"{folder.name}/run")
>>> commands.evaluate(run, samples=10).examples
300
"""

from __future__ import annotations

import inspect
import io
import json
import os
import shlex
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
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
from vaekit.recipes.core import Recipe, RecipeFunction, find, names, summary
from vaekit.recipes.flags import complete
from vaekit.report import write_report
from vaekit.runs import Config, Run, create, open_run
from vaekit.train import TensorBoard, Training, fit, load_weights
from vaekit.train.process import locked

__all__ = ["embed", "evaluate", "list_all", "load", "reconstruct", "report", "sample", "train"]

PathLike = str | os.PathLike[str]


def list_all() -> dict[str, dict[str, str]]:
    """Recipes and data sets, each name with a one-line summary."""
    return {
        "recipes": {name: summary(function) for name, function in names().items()},
        "data sets": {name: summary(function) for name, function in data_sets.catalogue().items()},
    }


def train(
    recipe: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    out: PathLike | None = None,
    resume: bool = False,
    seed: int | None = None,
    device: str | None = None,
    precision: str | None = None,
    tensorboard: bool = False,
) -> Run:
    """Train a recipe into a new run folder, or continue one.

    Args:
        recipe: a name of `list_all`, or ``path.py:function``.
        arguments: the recipe's own parameters; what is left out keeps its default, or on resuming what the run was started with.
        out: the run folder; by default the next free ``runs/<recipe>-<n>``.
        resume: continue the run in ``out``, bit for bit as if it had never stopped.
        seed: of the initial weights, the order of the data and all noise; 1 by default, as in pytorch/examples, whatever the recipe's
            ``Training`` says: the weights are drawn before there is one.
        device: "auto", "cpu", "cuda" or "cuda:1"; by default the recipe's.
        precision: "32-true", "64-true" or "bf16-mixed"; by default the recipe's.
        tensorboard: write TensorBoard events beside the CSV.

    Raises:
        InputError: unknown names or arguments, a folder in use, settings that differ from the run's, unreadable data.
        NonFiniteError: a term became NaN or infinite; the last good checkpoint is kept.
    """
    function = find(recipe)
    if resume:
        run = _continued(recipe, function, arguments or {}, out=out, seed=seed, precision=precision)
    else:
        config = Config(recipe, complete(function, arguments or {}), seed=1 if seed is None else seed, precision=precision or "")
        run = Run(Path(), replace(config, command=_command_line(recipe, arguments or {}, config, out)))
    plan = _build(function, run.config)
    run = Run(run.path, replace(run.config, precision=run.config.precision or plan.training.precision))
    settings = replace(plan.training, seed=run.config.seed, device=device or plan.training.device, precision=run.config.precision)
    data = plan.data()
    if not resume:  # only now that all of it is known to exist
        run = create(run.config, out=None if out is None else Path(out), source=_source(function))
    try:
        loggers = [TensorBoard(run.path / "tensorboard")] if tensorboard else []
        fitted = fit(plan.model, data, objective=plan.objective, training=settings, out=run.path, resume=resume, loggers=loggers)
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"{str(stop) or 'interrupted'}; continue with: {resume_line(run)}") from stop
    except InputError as error:
        if any((run.path / "checkpoints").glob("step-*")):
            raise InputError(f"{error}; then continue with: {resume_line(run)}") from error
        if not resume:  # nothing was trained: leave nothing behind, unless another process has begun to train there
            with suppress(InputError), locked(run.path):
                shutil.rmtree(run.path)
        raise
    best = next((int(row["epoch"]) for row in fitted.history if row["step"] == fitted.best_step), None)
    return run.save(state="finished", end={"epochs": len(fitted.history), "planned": settings.epochs, "best": best})


def load(run: PathLike | Run, *, trust: bool = False, device: str = "auto") -> tuple[Run, Recipe]:
    """A run's recipe with the trained weights, in evaluation mode.

    Args:
        run: a run folder.
        trust: run the copied recipe file of a run whose recipe came from outside the package: that is executing code from the folder.
        device: "auto" takes a GPU where there is one.

    Raises:
        InputError: no or a damaged run, no weights yet, weights of another network, a recipe file without ``trust``.
    """
    if not isinstance(run, Run):
        run = open_run(Path(run))
    outside = run.outside
    if outside is not None and not trust:
        raise InputError(
            f"{run.path} was trained by {run.config.recipe}, whose copy {outside} would be executed: read it, then add --trust"
        )
    function = find(run.config.recipe if outside is None else f"{outside}:{run.config.recipe.rpartition(':')[2]}")
    recipe = _build(function, run.config)
    if not run.weights.is_file():
        why = f"has lost {run.weights.name}; make it anew" if run.config.state == "finished" else "has no weights yet; finish its training"
        raise InputError(f"{run.path} {why} with: {resume_line(run)}")
    load_weights(recipe.model, run.weights)
    recipe.model.to(Training(device=device).torch_device()).eval()
    return run, recipe


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


def _build(function: RecipeFunction, config: Config) -> Recipe:
    """Call the recipe under the run's seed; what torch or the recipe refuses becomes one line."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        try:
            recipe = function(**config.arguments)
            recipe.training.optimiser(recipe.model.parameters())  # a learning rate below 0 is refused here, before anything is written
        except InputError:
            raise
        except (ValueError, TypeError, RuntimeError) as error:
            raise InputError(f"{config.recipe} cannot be built with these arguments: {error}") from error
    return recipe


def _continued(
    name: str,
    function: RecipeFunction,
    arguments: Mapping[str, Any],
    *,
    out: PathLike | None,
    seed: int | None,
    precision: str | None,
) -> Run:
    """The run to resume, after a look that it is the one that is meant."""
    if out is None:
        raise InputError("--resume needs to know which run: add --out RUN")
    run = open_run(Path(out))
    if run.config.recipe != name:
        raise InputError(f"{run.path} was started with recipe {run.config.recipe}, not {name}")
    complete(function, arguments)  # refuses unknown names
    source = _source(function)
    if source is not None and run.outside is not None and source.read_bytes() != run.outside.read_bytes():
        raise InputError(f"{source} has changed since {run.path} was started with it: put it back as {run.outside} is, or start a new run")
    asked = {**arguments, **({} if seed is None else {"seed": seed}), **({} if precision is None else {"precision": precision})}
    started = {**run.config.arguments, "seed": run.config.seed, "precision": run.config.precision}
    for key, value in asked.items():
        if value != started.get(key):
            raise InputError(f"{run.path} was started with --{key} {started.get(key)}, and a resumed run cannot change it to {value}")
    return run


def _source(function: RecipeFunction) -> Path | None:
    """The file of a recipe from outside the package."""
    return None if function.__module__.startswith("vaekit.") else Path(inspect.getfile(function))


def _command_line(recipe: str, arguments: Mapping[str, Any], config: Config, out: PathLike | None) -> str:
    """The command that makes this run again."""
    words = ["vaekit", "train", recipe]
    for name, value in arguments.items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value).lower() if isinstance(value, bool) else str(value)
        words.append(f"--{name.replace('_', '-')}={text}")
    words += [f"--seed={config.seed}"]
    words += [f"--precision={config.precision}"] if config.precision else []
    words += [] if out is None else ["--out", str(out)]
    return shlex.join(words)


def resume_line(run: Run) -> str:
    """The command that continues this run."""
    return shlex.join(["vaekit", "train", run.config.recipe, "--out", str(run.path), "--resume"])


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
