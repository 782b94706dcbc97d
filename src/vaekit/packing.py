"""What ``vaekit compress`` and ``vaekit decompress`` do, each a function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vaekit.apps import compress as codec
from vaekit.data.core import Split, to_float
from vaekit.data.rows import read_rows, row_bytes
from vaekit.errors import InputError
from vaekit.files import write_bytes
from vaekit.launch import load
from vaekit.outputs import place
from vaekit.recipes.core import Recipe
from vaekit.runs import PathLike, Run

__all__ = ["Packed", "compress", "decompress"]

Watch = Callable[[int, int], None]


@dataclass(frozen=True)
class Packed:
    """A file that was written, and what it holds: so many examples, of so many values together, in so many bytes; ``raw`` as they were."""

    path: Path
    examples: int
    values: int
    bytes: int
    raw: int

    @property
    def bits_per_value(self) -> float:
        """8 times the bytes of the file, over the values in it; 0 where there are none."""
        return 8 * self.bytes / self.values if self.values else 0.0


def compress(
    run: PathLike | Run,
    source: PathLike | None,
    out: PathLike,
    *,
    split: str | None = None,
    key: str | None = None,
    size: int = 64,
    verify: bool = True,
    trust: bool = False,
    watch: Watch | None = None,
) -> Packed:
    """`vaekit.apps.compress.compress` of a file of rows, or of a split of the run's own data, into the file ``out``.

    A split is compressed as it is stored (bytes of images, bits); one that is drawn anew at each read, as drawn under seed 0.

    Args:
        run: a trained run.
        source: a .npy, .npz or IDX file; None where a ``split`` is given.
        out: the file to write; one that is there is replaced.
        split: "train", "valid" or "test".
        key: which array of a .npz file.
        size: rows that the networks see at a time.
        verify: decode before writing.
        trust: execute the recipe file that the run folder holds.
        watch: told (done, total) examples.

    Raises:
        InputError: as `load`, `vaekit.data.rows.read_rows` and `vaekit.apps.compress.compress`; both or neither of a file and a split; a
            model with a context.
    """
    if (source is None) == (split is None):
        asked = "two things were asked for" if split is not None else "say what to compress"
        raise InputError(f"{asked}: give a file of rows, or a split of the run's own data with --split test")
    target = place(Path(out))
    recipe = _loaded(run, trust)
    x = _stored(recipe.data().split(split)) if split is not None else read_rows(Path(source or ""), key=key)
    data = codec.compress(recipe.model, x, size=size, verify=verify, watch=watch)
    write_bytes(target, data)
    return Packed(target, len(x), x.size, len(data), x.nbytes)


def decompress(run: PathLike | Run, source: PathLike, out: PathLike, *, trust: bool = False, watch: Watch | None = None) -> Packed:
    """`vaekit.apps.compress.decompress` of the file ``source``, written to ``out`` as .npy or .npz.

    Raises:
        InputError: as `load` and `vaekit.apps.compress.decompress`; another ending of ``out``; a model with a context.
    """
    target, path = place(Path(out)), Path(source)
    row_bytes(np.zeros(0), target)  # refuses another ending before the work
    if not path.is_file():
        raise InputError(f"no file {path}")
    data = path.read_bytes()
    recipe = _loaded(run, trust)
    x = codec.decompress(recipe.model, data, name=str(path), watch=watch)
    write_bytes(target, row_bytes(x, target))
    return Packed(target, len(x), x.size, len(data), x.nbytes)


def _loaded(run: PathLike | Run, trust: bool) -> Recipe:
    """The run's recipe, whose model codes rows alone."""
    found, recipe = load(run, trust=trust, device="cpu")
    if recipe.contexts is not None:
        raise InputError(f"{found.path}: its p(x | z, c) has a context, which rows alone do not bring: only models without one compress")
    return recipe


def _stored(split: Split) -> npt.NDArray[Any]:
    """A split's rows as they are stored, where the model sees those values; else as they are prepared, under seed 0."""
    if split.mask is not None:
        raise InputError("these rows have missing entries, and what is missing cannot be coded: compress complete rows")
    every = torch.arange(len(split))
    if split.prepare is to_float:
        return split.pick(every).x.numpy()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return split.batch(every).x.numpy()
