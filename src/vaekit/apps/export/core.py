"""Export as one action: a folder that holds files which were checked, or nothing."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from vaekit import __version__
from vaekit.apps.export.layout import MEANING, Field, look
from vaekit.apps.export.parts import PARTS, Part, PartModule, build
from vaekit.apps.export.writing import SUFFIX, open_file, require_onnx, trace, write
from vaekit.errors import InputError, nearest
from vaekit.evaluate.passes import device_of
from vaekit.files import explained, write_json
from vaekit.models.core import LatentModel
from vaekit.tensors import evaluating
from vaekit.types import Batch

__all__ = ["FORMAT", "TOLERANCE", "Exported", "Format", "Written", "export", "new_folder", "write_checked"]

Format = Literal["onnx", "torch"]
"""ONNX, or the archive of ``torch.export``."""
FORMAT = 1
"""Of ``vaekit.json``."""
TOLERANCE = 1e-5
"""Largest |file - model| / max(1, |model|) that is accepted, in float32 and, far above its rounding, in float64."""
TRACED = 3
"""Examples that a graph is made with: neither 1 nor 2, which torch may take for a size that is fixed or broadcast."""


@dataclass(frozen=True)
class Written:
    """One file: the part, where, and how far it lies from the model on the probe: at most ``difference``, in units of max(1, |value|) at
    most ``relative``."""

    part: Part
    path: Path
    difference: float
    relative: float


@dataclass(frozen=True)
class Exported:
    """A folder of exported parts: its path, its files, and the batch sizes that they were checked with."""

    path: Path
    files: tuple[Written, ...]
    checked: tuple[int, ...]


def export(
    model: LatentModel,
    probe: Batch,
    out: Path | str,
    *,
    parts: Sequence[Part] = PARTS,
    format: Format = "onnx",
    samples: int = 64,
    tolerance: float = TOLERANCE,
    about: Mapping[str, object] | None = None,
) -> Exported:
    """Write a model's parts into the new folder ``out``: ``encoder.onnx``, ``decoder.onnx``, ``score.onnx`` and ``vaekit.json``.

    The graphs are made with three examples of the probe, then the written files are opened (by onnxruntime or torch) and compared with
    the model on one example and on all of the probe: on latents at the centre of q(z | x) and noise of a fixed seed. The model has
    to be on the CPU and is in evaluation mode meanwhile.

    Args:
        model: any model.
        probe: a few rows of data ``[B, *]``, with a context or a mask where the model is to take one.
        out: a folder that does not exist yet, or is empty.
        parts: which of `PARTS`.
        format: "onnx", for onnxruntime and its like, or "torch", for ``torch.export.load``.
        samples: K of the score.
        tolerance: the largest |file - model| / max(1, |model|) that is accepted.
        about: what else ``vaekit.json`` shall hold.

    Raises:
        InputError: an unknown part or format, no samples, a model on a GPU, a folder in use, missing packages; a part that cannot be
            exported, or whose file differs from the model by more than the tolerance. Nothing is left behind.

    >>> import tempfile
    >>> from torch import nn
    >>> from vaekit import VAE, Conditional, heads, priors
    >>> _ = torch.manual_seed(0)
    >>> model = VAE(
    ...     priors.StandardNormal(2), Conditional(nn.Linear(6, 4), heads.Gaussian(2)), Conditional(nn.Linear(2, 6), heads.Bernoulli(6))
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     made = export(model, Batch(torch.ones(4, 6)), f"{folder}/out", parts=["decoder"], format="torch")
    ...     decoder = torch.export.load(made.files[0].path).module()
    >>> mean, logits = decoder(torch.zeros(9, 2))
    >>> mean.shape, made.files[0].relative < 1e-6
    (torch.Size([9, 6]), True)
    """
    _check(model, parts, format, samples, probe)
    probe = _at_least(probe, TRACED)
    made: list[Written] = []
    stated: dict[str, object] = {}
    with evaluating(model), new_folder(Path(out)) as folder:
        layout, _ = look(model, probe)
        for part in PARTS:
            if part in parts:
                written, stated[part] = _one(part, model, probe, folder, format=format, samples=samples, tolerance=tolerance)
                made.append(Written(part, Path(out, written.path.name), written.difference, written.relative))
        levels = [
            {"event": list(event), "posterior": q, "prior": p}
            for event, q, p in zip(layout.events, layout.posteriors, layout.priors, strict=True)
        ]
        content = {
            "format": FORMAT,
            "kind": f"vaekit export, {format}",
            "versions": _versions(format),
            "levels": levels,
            "likelihood": layout.likelihood,
            "units": "nats",
            "tolerance": tolerance,
            "checked_batch_sizes": [1, probe.size],
            "parts": stated,
            **(about or {}),
        }
        write_json(folder / "vaekit.json", content)
    return Exported(Path(out), tuple(made), (1, probe.size))


def _one(
    part: Part, model: LatentModel, probe: Batch, folder: Path, *, format: Format, samples: int, tolerance: float
) -> tuple[Written, dict[str, object]]:
    """Write and check one part."""
    path = folder / f"{part}{SUFFIX[format]}"
    try:
        with torch.no_grad():
            program = build(part, model, probe, samples)
        difference, relative, outputs = write_checked(program, _inputs(program, model, probe), path, tolerance=tolerance)
    except InputError as error:
        rest = ",".join(one for one in PARTS if one != part)
        raise InputError(f"the {part} cannot be exported: {error} (without it: --parts {rest})") from error
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    stated = {
        "file": path.name,
        "sha256": digest,
        "inputs": [field.as_dict() for field in program.inputs],
        "outputs": [field.as_dict() for field in outputs],
        "max_difference": difference,
        "max_relative_difference": relative,
    }
    return Written(part, path, difference, relative), stated


def write_checked(
    program: PartModule, whole: tuple[Tensor, ...], path: Path, *, tolerance: float = TOLERANCE
) -> tuple[float, float, list[Field]]:
    """Write a program, open the file, and compare the two on one row of its inputs and on all: the largest difference, that in units of
    max(1, |value|), and what comes out. ``whole`` holds the inputs, each with the shape ``[B, *]`` or ``[K, B, *]`` of its field.

    Raises:
        InputError: it cannot be written, or its file differs by more than the tolerance.
    """
    difference = relative = 0.0
    outputs: list[Field] = []
    with torch.no_grad():
        size = whole[0].shape[program.inputs[0].batch]
        traced = trace(program, _rows(program.inputs, whole, TRACED))
        write(traced, program, path)
        call = open_file(path, program)
        for rows in (1, size):
            tensors = _rows(program.inputs, whole, rows)
            expected = program(*tensors)
            outputs = _outputs(program, expected)
            for name, found, value in zip(program.outputs, call(tensors), expected, strict=True):
                absolute, scaled = _distance(found, value)
                difference, relative = max(difference, absolute), max(relative, scaled)
                if not scaled <= tolerance:  # NaN too
                    raise InputError(
                        f"the file's {name} for {rows} examples differs from the model's by up to {absolute:.3g}, {scaled:.3g} of "
                        f"max(1, |value|), where {tolerance:g} is accepted"
                    )
    return difference, relative, outputs


def _check(model: LatentModel, parts: Sequence[Part], format: Format, samples: int, probe: Batch) -> None:
    for part in parts:
        if part not in PARTS:
            raise InputError(f'a model has no part "{part}": {nearest(part, PARTS)}')
    if not parts:
        raise InputError(f"no part was asked for: choose from {', '.join(PARTS)}")
    if format not in SUFFIX:
        raise InputError(f'format "{format}": {nearest(format, SUFFIX)}')
    if samples < 1:
        raise InputError(f"export(samples={samples}): the score needs at least 1 sample of z")
    if probe.size < 1:
        raise InputError("the probe is empty: give a few rows of data")
    place = device_of(model)
    if place.type != "cpu" or probe.x.device.type != "cpu":
        raise InputError(
            f"the model lies on {place}, the probe on {probe.x.device}: files are made and checked on the CPU, move both there"
        )
    if format == "onnx":
        require_onnx()


def _at_least(probe: Batch, rows: int) -> Batch:
    """The probe, repeated to so many rows; without the rows' numbers, which no model reads."""
    index = torch.arange(max(rows, probe.size)) % probe.size
    x, c, mask, _ = probe
    return Batch(x[index], None if c is None else c[index], None if mask is None else mask[index])


def _inputs(program: PartModule, model: LatentModel, probe: Batch) -> tuple[Tensor, ...]:
    """The probe as the program's inputs: latents from the model's own encoder, noise of a fixed seed."""
    g = torch.Generator().manual_seed(0)
    known = {"x": probe.x, "c": probe.c, "mask": probe.mask}
    found = []
    for field in program.inputs:
        t = known.get(field.name)
        if field.name == "z":
            t = model.embed(probe)
        elif t is None:
            dtype = probe.x.dtype
            draw = torch.randn if field.name == "eps" else torch.rand
            t = draw(field.shape, dtype=dtype, generator=g)
        found.append(t)
    return tuple(found)


def _rows(fields: tuple[Field, ...], tensors: tuple[Tensor, ...], rows: int) -> tuple[Tensor, ...]:
    """The first examples of each, with memory of their own."""
    return tuple(t.narrow(field.batch, 0, rows).clone() for field, t in zip(fields, tensors, strict=True))


def _outputs(program: PartModule, tensors: tuple[Tensor, ...]) -> list[Field]:
    return [
        Field(name, tuple(t.shape), 0, str(t.dtype).removeprefix("torch."), MEANING.get(name, name))
        for name, t in zip(program.outputs, tensors, strict=True)
    ]


def _distance(found: Tensor, expected: Tensor) -> tuple[float, float]:
    """max |found - expected|, and the same in units of max(1, |expected|); equal infinities are no distance."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return float("nan"), float("nan")
    a, b = found.double(), expected.double()
    gap = torch.where(a == b, torch.zeros_like(a), (a - b).abs())
    return float(gap.max()), float((gap / b.abs().clamp(min=1)).max())


def _versions(format: Format) -> dict[str, str]:
    names = ("torch", "onnx", "onnxscript", "onnxruntime") if format == "onnx" else ("torch",)
    return {"vaekit": __version__, **{name: importlib.metadata.version(name) for name in names}}


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` to write into, which becomes ``out`` when all went well and is removed when not.

    Raises:
        InputError: ``out`` holds something already; no space, no permission.
    """
    scratch = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    with explained(out):
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise InputError(f"{out} already holds something, which is not overwritten: choose another folder")
        out.parent.mkdir(parents=True, exist_ok=True)
        scratch.mkdir()
        try:
            yield scratch
            if out.exists():
                out.rmdir()  # empty, as was seen; elsewhere than on POSIX a rename does not replace it
            scratch.rename(out)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
