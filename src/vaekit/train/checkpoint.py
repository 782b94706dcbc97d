"""Checkpoints of a run and the weights of a model, each one safetensors file."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vaekit.errors import InputError
from vaekit.files import explained
from vaekit.train.files import DamagedError, read, write
from vaekit.train.sharding import like

__all__ = ["FORMAT", "Checkpoints", "load_state", "load_weights", "pack", "save_weights", "unpack"]

FORMAT = 1


def save_weights(model: nn.Module, path: Path | str) -> None:
    """The model's weights and buffers as one safetensors file, written whole or not at all.

    Raises:
        InputError: no space, no such folder, no permission.
    """
    write(Path(path), model.state_dict(), {"format": FORMAT})


def load_weights(model: nn.Module, path: Path | str) -> None:
    """Put the weights of a safetensors file into the model.

    Raises:
        InputError: no such file, a damaged one, or one of another model: the first missing, unexpected or mis-shaped tensor is named.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_weights(nn.Linear(2, 3), Path(folder, "model.safetensors"))
    ...     load_weights(nn.Linear(2, 4), Path(folder, "model.safetensors"))
    Traceback (most recent call last):
    vaekit.errors.InputError: ...model.safetensors is of another model: weight has shape [3, 2] there and [4, 2] here (and 1 more)...
    """
    try:
        tensors, _ = read(Path(path))
    except FileNotFoundError as error:
        raise InputError(f"there are no weights at {path}: train first, or correct the path") from error
    except DamagedError as error:
        raise InputError(f"{error}: train again, or take it from a backup") from error
    load_state(model, tensors, str(path))


def load_state(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """``module.load_state_dict(tensors)`` with errors that name what differs, and ``source``, where they come from.

    Raises:
        InputError: a missing, unexpected or mis-shaped tensor.
    """
    own = module.state_dict()
    differing = [
        f"{name} has shape {list(tensors[name].shape)} there and {list(own[name].shape)} here"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    differing += [f"{name} is missing there" for name in own if name not in tensors]
    differing += [f"{name} is not in this model" for name in tensors if name not in own]
    if differing:
        more = f" (and {len(differing) - 1} more)" if len(differing) > 1 else ""
        raise InputError(f"{source} is of another model: {differing[0]}{more}; build the model with the settings it was trained with")
    module.load_state_dict({name: like(t, own[name]) for name, t in tensors.items()})


def pack(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """A nested value as JSON; each tensor in it goes into ``tensors`` under a name that starts with ``name``. Undone by `unpack`.

    Raises:
        InputError: something that is no tensor, number or text.

    >>> import torch
    >>> tensors = {}
    >>> packed = pack({"betas": (0.9, 0.999), "state": {0: {"exp_avg": torch.ones(2), "amsgrad": None}}}, "adam", tensors)
    >>> list(tensors), unpack(packed, tensors)
    (['adam/state/0/exp_avg'], {'betas': (0.9, 0.999), 'state': {0: {'exp_avg': tensor([1., 1.]), 'amsgrad': None}}})
    """
    if isinstance(value, Tensor):
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, dict):  # as pairs: the keys of an optimiser's state are numbers, which JSON would turn into text
        return {"dict": [[key, pack(item, f"{name}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return {type(value).__name__: [pack(item, f"{name}/{i}", tensors) for i, item in enumerate(value)]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise InputError(f"{name} is a {type(value).__name__}, which cannot be saved without pickling: only tensors, numbers and text can")


def unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The value that `pack` was given, with its ``tensors``."""
    if not isinstance(value, dict):
        return value
    ((kind, items),) = value.items()
    if kind == "tensor":
        return tensors[items]
    if kind == "dict":
        return {key: unpack(item, tensors) for key, item in items}
    return (tuple if kind == "tuple" else list)(unpack(item, tensors) for item in items)


class Checkpoints:
    """The newest ``keep`` checkpoints of a run, ``step-00001234.safetensors`` each in ``folder``. An older one goes only when the new
    one is durable."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = keep

    def paths(self) -> list[Path]:
        """From the oldest to the newest."""
        found = [p for p in self.folder.glob("step-*.safetensors") if re.fullmatch(r"step-\d{8,}", p.stem)]
        return sorted(found, key=lambda p: int(p.stem[5:]))

    def at(self, step: int) -> Path:
        """The file of a step."""
        return self.folder / f"step-{step:08d}.safetensors"

    def save(self, step: int, tensors: Mapping[str, Tensor], value: Mapping[str, Any]) -> Path:
        """Write one: tensors by name, and a ``value`` that JSON can hold.

        Raises:
            InputError: no space or no permission; the earlier ones are untouched.
        """
        with explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        path = self.at(step)
        write(path, tensors, {"format": FORMAT} | dict(value))
        for old in self.paths()[: -self.keep]:
            old.unlink(missing_ok=True)
        return path

    def load(self) -> tuple[Path, dict[str, Tensor], dict[str, Any]] | None:
        """The newest that is whole; None where there is no checkpoint. A damaged one is set aside as ``*.damaged``, with a warning.

        Raises:
            InputError: all are damaged, or one was written by another version of the format.
        """
        for left in self.folder.glob(".step-*.tmp"):  # a write that was killed
            left.unlink(missing_ok=True)
        damaged: list[Path] = []
        for path in reversed(self.paths()):
            try:
                tensors, value = read(path)
                if not value:
                    raise DamagedError(f"{path} is no checkpoint")
            except DamagedError as error:
                warnings.warn(f"{error}; the checkpoint before it is used", stacklevel=2)
                damaged.append(path)
                continue
            if value["format"] != FORMAT:
                raise InputError(f"{path} has format {value['format']} and this vaekit reads {FORMAT}: use the version that wrote it")
            for bad in damaged:  # or it would stay the newest, and push out those that follow
                bad.rename(bad.with_name(f"{bad.name}.damaged"))
            return path, tensors, value
        if damaged:
            names = ", ".join(path.name for path in damaged)
            raise InputError(f"no checkpoint in {self.folder} can be read ({names} are damaged): start again in a new folder")
        return None
