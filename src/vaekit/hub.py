"""A run to give away: a folder of weights, ``run.json`` and a model card, on this machine or on the Hugging Face hub. Nothing is pickled.

::

    run.json             recipe, arguments, seed, versions: what `vaekit.commands.load` rebuilds the model from
    model.safetensors    the weights
    schema.json          of data of the user's own: what was found in them, some rows of the columns that are conditioned on among it
    recipe.py            where the recipe came from outside the package: code, which is executed only with trust
    evaluation.json      where the run has been evaluated
    vaekit.json          the checksum of each of these
    README.md            the model card

Such a folder is a run folder: every command that reads a run reads it. ``hf://owner/name`` is a repository of the hub, which needs the
extra, ``pip install 'vaekit[hub]'``, and for pushing ``hf auth login``; everything else is a folder, which needs neither.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from vaekit import __version__
from vaekit.apps.export.core import new_folder
from vaekit.card import card, portable
from vaekit.errors import InputError
from vaekit.files import explained, write_bytes, write_json
from vaekit.launch import load as load_run
from vaekit.recipes.core import Recipe, find, outside
from vaekit.recipes.flags import takes_known
from vaekit.runs import Config, PathLike, Run, open_run, read_known, read_results
from vaekit.train.files import DamagedError, read

__all__ = ["FORMAT", "load", "push"]

FORMAT = 1
"""The number of the format in ``vaekit.json``."""
HUB = "hf://"
SUMS = "vaekit.json"
NEEDED = ("run.json", "model.safetensors")
READ = ("schema.json", "recipe.py")
"""What a model is rebuilt from too, where there is one: never what lies there without having been pushed."""
FILES = (*NEEDED, *READ, "evaluation.json")
"""What is pushed and fetched, beside `SUMS` and the card; a folder may hold more, which is not looked at."""


def push(run: PathLike | Run, where: PathLike, *, license: str = "unknown", public: bool = False) -> str:
    """Put a trained run into a new folder, or into a repository ``hf://owner/name`` of the Hugging Face hub; where it is now.

    Args:
        run: a trained run. Its recipe is not executed.
        where: a folder that does not exist yet or is empty; or ``hf://owner/name``, which is made where there is none.
        license: of the model, as the hub writes it: "mit", "apache-2.0", "cc-by-4.0", ...
        public: a new repository is for all to see; by default for its owner alone.

    Raises:
        InputError: no, an unfinished or a damaged run; a folder in use; no license's name; a missing package, or what the hub refuses.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", license):
        raise InputError(f'license "{license}": give its short name, as "mit", "apache-2.0" or "cc-by-4.0"')
    if not isinstance(run, Run):
        run = open_run(Path(run))
    files = _files(run)
    results = read_results(run, "evaluation.json", "vaekit evaluate")
    repository = _repository(where)
    text = card(run, results, license=license, where=Path(where).name if repository is None else str(where))
    if repository is None:
        with new_folder(Path(where)) as folder:
            _fill(folder, run, files, text)
        return str(where)
    hub = _hub()
    with tempfile.TemporaryDirectory() as scratch:
        _fill(Path(scratch), run, files, text)
        try:
            api = hub.HfApi()
            api.create_repo(repository, private=not public, exist_ok=True)
            api.upload_folder(repo_id=repository, folder_path=scratch, commit_message=f"vaekit {__version__}: {run.name}")
        except Exception as error:  # whatever the hub's client raises: no network, no login, no such owner
            raise _refused(where, error) from error
    return f"https://huggingface.co/{repository}"


def load(where: PathLike, *, trust: bool = False, device: str = "auto", revision: str | None = None) -> tuple[Run, Recipe]:
    """A run that was pushed: as `vaekit.commands.load`, from a folder or from ``hf://owner/name``, whose checksums are compared first.

    Args:
        where: a folder, or a repository of the Hugging Face hub.
        trust: execute ``recipe.py``, the code of a recipe from outside the package.
        device: "auto" takes a GPU where there is one.
        revision: of a repository: a branch, a tag or a commit; by default the newest.

    Raises:
        InputError: no such folder or repository; one that is not vaekit's, or damaged: the file is named; code without ``trust``.
    """
    repository = _repository(where)
    if repository is None:
        if revision is not None:
            raise InputError(f"{where} is a folder, which has no revision {revision}: leave it out, or give hf://owner/name")
        folder = Path(where)
    else:
        hub = _hub()
        try:
            folder = Path(hub.snapshot_download(repository, revision=revision, allow_patterns=[*FILES, SUMS]))
        except Exception as error:
            raise _refused(where, error) from error
    _check(folder, str(where))
    return load_run(folder, trust=trust, device=device)


def _files(run: Run) -> dict[str, Path]:
    """What there is to push, after a look that it is whole."""
    if run.config.state != "finished" or not run.weights.is_file():
        raise InputError(f"{run.path} has no trained weights to push: finish its training")
    try:
        read(run.weights)
    except DamagedError as error:
        raise InputError(f"{error}: train again, or take it from a backup") from error
    code = outside(run.config.recipe) is not None
    there = [name for name in FILES if name in NEEDED or (run.path / name).is_file()]
    files = {name: run.path / name for name in there if name != "recipe.py" or code}
    if _needs_known(run.config) or "schema.json" in files:
        read_known(run)
    if code and "recipe.py" not in files:
        raise InputError(f"{run.path} has lost recipe.py, the copy of {run.config.recipe} that rebuilds it: put it back")
    return files


def _fill(folder: Path, run: Run, files: dict[str, Path], text: str) -> None:
    with explained(folder):
        for name, source in files.items():
            shutil.copyfile(source, folder / name)
    Run(folder, portable(run.config)).save()
    sums = {name: _sha256(folder / name) for name in files}
    write_json(folder / SUMS, {"format": FORMAT, "kind": "vaekit run", "version": __version__, "sha256": sums})
    write_bytes(folder / "README.md", text.encode())


def _check(folder: Path, where: str) -> None:
    """That the folder holds what was pushed, before any of it is read."""
    file = folder / SUMS
    if not folder.is_dir():
        raise InputError(f"no folder {where}; a repository of the Hugging Face hub is hf://owner/name")
    if not file.is_file():
        raise InputError(f"{where} was not pushed by vaekit: it has no {SUMS} (as it was trained, a run is read by vaekit.commands.load)")
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        found, sums = content["format"], dict(content.get("sha256", {}))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{where}: {SUMS} is damaged ({type(error).__name__}: {error}): fetch the folder again") from error
    if content.get("kind") != "vaekit run":
        raise InputError(f'{where} is not a run: its {SUMS} says {json.dumps(content.get("kind"))}, and vaekit push writes "vaekit run"')
    if found != FORMAT:
        raise InputError(f"{where} was pushed in format {found}, this is vaekit {__version__}, which reads format {FORMAT}")
    for name in (*NEEDED, *sums):
        if name not in sums or name not in FILES:
            raise InputError(f"{where}: {SUMS} is damaged ({name} is not what it should list): fetch the folder again")
        if not (folder / name).is_file():
            raise InputError(f"{where} has lost {name}: fetch the folder again")
        if _sha256(folder / name) != sums[name]:
            raise InputError(f"{where}: {name} is not what was pushed (its checksum differs): fetch the folder again")
    for name in READ:
        if name not in sums and (folder / name).exists():
            raise InputError(f"{where} holds a {name} that was not pushed with it: remove it, or fetch the folder again")
    if "schema.json" not in sums and _needs_known(open_run(folder).config):
        raise InputError(f"{where} was pushed without schema.json, what was found in its data, and cannot be rebuilt: push the run again")


def _needs_known(config: Config) -> bool:
    """Whether the model is built from what was found in its data. Of a recipe from outside only its code knows, which is not executed."""
    return outside(config.recipe) is None and takes_known(find(config.recipe))


def _repository(where: PathLike) -> str | None:
    """``owner/name`` of ``hf://owner/name``; None for a folder."""
    text = str(where)
    if not text.startswith(HUB):
        return None
    name = text.removeprefix(HUB)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise InputError(f"{text} is no repository of the Hugging Face hub: write hf://owner/name")
    return name


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise InputError("the Hugging Face hub needs huggingface_hub: pip install 'vaekit[hub]'; a local folder needs nothing") from error
    return huggingface_hub


def _refused(where: PathLike, error: Exception) -> InputError:
    return InputError(f"{where}: the Hugging Face hub refused ({type(error).__name__}: {' '.join(str(error).split())[:200]})")


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
