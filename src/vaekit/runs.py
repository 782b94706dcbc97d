"""A run folder: everything that rebuilds a trained model, and nothing that has to be trusted to read it.

::

    run.json             recipe, arguments, seed, versions, state; format 1
    schema.json          what was found in data of the user's own
    recipe.py            a copy of the recipe's file, where it came from outside the package
    model.safetensors    the weights to use: the average where one is kept, the best where training stopped early
    checkpoints/         the last few, for --resume
    metrics.csv, log.txt every term of the bound, epoch by epoch
    evaluation.json      written by ``vaekit evaluate``
    diagnosis.json       written by ``vaekit evaluate --diagnose``
    figures/, report.html
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vaekit import __version__
from vaekit.data.tables import Known
from vaekit.errors import InputError
from vaekit.files import explained, write_json
from vaekit.text import measured, notebook_table

__all__ = ["FORMAT", "Config", "PathLike", "Run", "claim", "create", "open_run", "read_known", "read_results", "versions"]

PathLike = str | os.PathLike[str]
"""A path, as text or as an object."""

FORMAT = 1
"""The number of the format in ``run.json``."""


@dataclass(frozen=True)
class Config:
    """What ``run.json`` holds. ``arguments`` are all of the recipe's, the defaults too, so that a later default changes no old run.

    Attributes:
        recipe: by its name.
        arguments: by their names.
        seed: of weights and training.
        precision: of training.
        compile: as asked; None leaves it to the run.
        replay: steps that start as one, as asked; None for the recipe's.
        device: asked for; empty for the recipe's.
        devices: of the last start: a run may go on with others.
        strategy: of several processes, ddp or fsdp.
        format: of this file.
        state: training, finished, or how it ended.
        command: that makes this run again.
        created: when.
        versions: of vaekit, Python and the packages that compute, by their names.
        end: epochs done, planned, and the best by validation, once training has ended.
    """

    recipe: str
    arguments: Mapping[str, Any]
    seed: int
    precision: str
    compile: bool | None = None
    replay: int | None = None
    device: str = ""  # asked for; empty for the recipe's
    devices: int = 1  # of the last start: a run may go on with others
    strategy: str = "ddp"
    format: int = FORMAT
    state: str = "training"
    command: str = ""
    created: str = ""
    versions: Mapping[str, str] | None = None
    end: Mapping[str, Any] | None = None  # epochs done, planned, and the best by validation, once training has ended


@dataclass(frozen=True)
class Run:
    """A run folder and its configuration, ``config``."""

    path: Path
    config: Config

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.name

    @property
    def weights(self) -> Path:
        """Where the weights of the trained model lie."""
        return self.path / "model.safetensors"

    @property
    def figures(self) -> Path:
        """The folder of the figures."""
        return self.path / "figures"

    @property
    def schema(self) -> Path:
        """Where it lies what was found in the data, if they are the user's own."""
        return self.path / "schema.json"

    @property
    def copy(self) -> Path:
        """Where the copy of a recipe's file lies, if the recipe came from outside the package."""
        return self.path / "recipe.py"

    def _repr_html_(self) -> str:
        """For a notebook: what it is a run of, how far it came, and what `vaekit evaluate` found."""
        c, end = self.config, self.config.end or {}
        done = f", {end['epochs']} of {end['planned']} epochs" if "epochs" in end else ""
        rows: list[list[object]] = [["recipe", c.recipe], *([name, value] for name, value in c.arguments.items()), ["seed", c.seed]]
        for split, found in read_results(self, "evaluation.json", "vaekit evaluate").items():
            for name, title in (("nll", "negative log-likelihood, at most"), ("elbo", "evidence lower bound")):
                if isinstance(found.get(name), float):
                    rows.append([f"{title}, {split}", measured(found[name], found.get(f"{name}_se"), "nats")])
        return notebook_table(f"run {self.path}: {c.state}{done}", rows)

    def save(self, **changes: Any) -> Run:
        """Write ``run.json`` with these fields changed; the run as it is then."""
        run = Run(self.path, replace(self.config, **changes))
        write_json(self.path / "run.json", asdict(run.config))
        return run


def create(config: Config, *, out: Path | None, source: Path | None = None, known: Known | None = None, root: Path = Path("runs")) -> Run:
    """Make a new run folder: ``out``, which must not exist yet or be empty, or the next free ``runs/<recipe>-<n>``; of data of the user's
    own ``runs/<data>-<n>``.

    Args:
        config: what the run is.
        out: where; None for the next free number.
        source: the file of a recipe from outside the package, copied into the folder.
        known: what was found in the data, written into the folder.
        root: where numbered runs go.

    Raises:
        InputError: ``out`` holds something already; the folder cannot be made.
    """
    path = claim(config.recipe if known is None else known.name, out=out, root=root)
    if source is not None:
        with explained(path):
            shutil.copyfile(source, path / "recipe.py")
    if known is not None:
        write_json(path / "schema.json", known.to_json())
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Run(path, config).save(created=now, versions=versions())


def claim(recipe: str, *, out: Path | None, root: Path) -> Path:
    """A folder of one's own: ``out``, which must not exist yet or be empty, or the next free ``root/<recipe>-<n>``.

    Raises:
        InputError: ``out`` holds something already; the folder cannot be made.
    """
    return _next(root, recipe) if out is None else _claim(out)


def open_run(path: Path) -> Run:
    """Read ``run.json`` of an existing run folder.

    Raises:
        InputError: no such folder, no or a damaged ``run.json``, a folder of another format.
    """
    file = path / "run.json"
    if not path.is_dir():
        raise InputError(f"no run folder {path}")
    if not file.is_file():
        raise InputError(f"{path} is not a run folder: it has no run.json")
    try:
        raw = json.loads(file.read_text())
        found = raw["format"]
    except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is damaged ({type(error).__name__}: {error}): restore it, or train again") from error
    if found != FORMAT:
        raise InputError(f"{path} was written in run format {found}, this is vaekit {__version__}, which reads format {FORMAT}")
    try:
        arguments = {
            name: tuple(value) if isinstance(value, list) else value for name, value in raw["arguments"].items()
        }  # JSON has no tuples
        return Run(path, Config(**raw | {"arguments": arguments}))
    except (TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{file} is damaged ({type(error).__name__}: {error}): restore it, or train again") from error


def read_known(run: Run) -> Known:
    """What the run knows of its data.

    Raises:
        InputError: the file is lost or damaged.
    """
    try:
        return Known.from_json(json.loads(run.schema.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise InputError(f"{run.path} has lost {run.schema.name}, what was found in its data: put it back, or train again") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{run.schema} is damaged ({error}): restore it, or train again") from error


def versions() -> dict[str, str]:
    """What the run was made with."""
    from importlib.metadata import version

    packages = {name: version(name) for name in ("torch", "numpy", "lightning", "zuko", "safetensors")}
    return {"vaekit": __version__, "python": platform.python_version(), **packages}


def read_results(run: Run, name: str, command: str) -> dict[str, dict[str, Any]]:
    """What a command has written into the file ``name`` of the run so far, by split.

    Raises:
        InputError: the file is damaged.
    """
    file = run.path / name
    if not file.is_file():
        return {}
    try:
        return {split: dict(values) for split, values in json.loads(file.read_text()).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{file} is damaged ({error}): remove it and run: {command} {run.path}") from error


def _next(root: Path, recipe: str) -> Path:
    stem = "".join(c if c.isalnum() else "-" for c in recipe.rpartition("/")[2].replace(".py", "")).strip("-") or "run"
    with explained(root):
        root.mkdir(parents=True, exist_ok=True)
        for n in range(1, 1_000_000):
            path = root / f"{stem}-{n}"
            try:
                path.mkdir()  # making it is claiming it: two runs started at once get two numbers
            except FileExistsError:
                continue
            return path
    raise InputError(f"{root} is full of runs called {stem}-<n>: choose another place with --out")


def _foreign(path: Path) -> bool:
    """Whether this is more than a start that was killed before ``run.json`` stood may have left."""
    return not (path.name.startswith((".run.json.", ".schema.json.", ".sweep.json.")) and path.suffix == ".tmp")


def _claim(out: Path) -> Path:
    with explained(out):
        existed = out.exists()
        if existed and (not out.is_dir() or any(map(_foreign, out.iterdir()))):
            begun = any((out / name).exists() for name in ("run.json", "sweep.json"))
            hint = "add --resume to continue it, or choose another --out" if begun else "choose another --out"
            raise InputError(f"{out} already holds something, and a run never overwrites: {hint}")
        out.mkdir(parents=True, exist_ok=existed)  # making it is claiming it: of two processes one fails here
    return out
