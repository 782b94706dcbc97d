"""A program as a file, and a file as a function: torch.export and ONNX."""

from __future__ import annotations

import importlib.util
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram
from torch.fx import Node

from vaekit.apps.export.operations import TABLE
from vaekit.apps.export.parts import PartModule
from vaekit.errors import InputError

__all__ = ["SUFFIX", "Function", "open_file", "require_onnx", "trace", "write"]

Function = Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]
"""What an exported file computes: tensors in their order -> tensors in theirs."""

SUFFIX = {"onnx": ".onnx", "torch": ".pt2"}
"""The ending of the files of each format."""
OPSET = 20
OURS = "__out"
"""Ends the names of outputs until those of torch, which are names of operations as "mean" is, are out of the way."""


def require_onnx() -> None:
    """Refuse where the packages for ONNX are missing.

    Raises:
        InputError: which, and the extra that brings them.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"ONNX needs {', '.join(missing)}: pip install 'vaekit[onnx]', or export with format torch")


def trace(program: PartModule, tensors: tuple[Tensor, ...]) -> ExportedProgram:
    """The program as torch's graph, for any batch size, from example ``tensors`` of the shapes that its inputs name.

    Raises:
        InputError: torch cannot export it, with its reason; it draws random numbers of its own, with the module that does.
    """
    batch = Dim("batch")
    dynamic = {field.name: {field.batch: batch} for field in program.inputs}
    try:
        with _quiet(), torch.no_grad():
            traced = torch.export.export(program, tensors, dynamic_shapes=(tuple(dynamic.values()),))
    except InputError:
        raise
    except Exception as error:  # whatever an operation that has no graph raises
        raise InputError(f"torch cannot export it ({_reason(error)})") from error
    _refuse_noise(traced)
    return traced


def write(traced: ExportedProgram, program: PartModule, path: Path) -> None:
    """Write ``traced``, the graph of ``program``, as ONNX or as torch's archive by the ending of ``path``.

    Raises:
        InputError: an operation that ONNX has not, or what torch cannot save, with torch's reason.
    """
    if path.suffix == SUFFIX["torch"]:
        traced.example_inputs = None  # they are rows of somebody's data
        try:
            with _quiet():
                torch.export.save(traced, path)
        except Exception as error:
            raise InputError(f"torch cannot save it ({_reason(error)})") from error
        return
    try:
        with _quiet(), torch.no_grad():
            made = torch.onnx.export(
                traced.run_decompositions(TABLE),
                input_names=[field.name for field in program.inputs],
                output_names=[f"{name}{OURS}" for name in program.outputs],
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except Exception as error:
        raise InputError(f"it has no ONNX form ({_reason(error)}): export with format torch") from error
    if made is None:
        raise InputError("torch made no ONNX program of it: export with format torch")
    made.save(str(path))
    _rename(path, program.outputs)


def open_file(path: Path, program: PartModule) -> Function:
    """A written file as a function of the program's inputs."""
    if path.suffix == SUFFIX["torch"]:
        module = torch.export.load(path).module()

        def call(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            with torch.no_grad():
                return tuple(module(*tensors))

        return call
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        feeds = {field.name: t.numpy() for field, t in zip(program.inputs, tensors, strict=True)}
        return tuple(torch.from_numpy(found) for found in session.run(list(program.outputs), feeds))

    return run


def _rename(path: Path, outputs: tuple[str, ...]) -> None:
    """Outputs get their names, and the one free size, which torch numbers, is called batch. Sizes inside the graph are left out."""
    import onnx

    model = onnx.load(path)
    del model.graph.value_info[:]
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = "batch"
    names = {name: f"{name}__inner" for name in outputs} | {f"{name}{OURS}": name for name in outputs}
    for node in model.graph.node:
        for values in (node.input, node.output):
            values[:] = [names.get(name, name) for name in values]
    for value in (*model.graph.output, *model.graph.initializer):
        value.name = names.get(value.name, value.name)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _refuse_noise(traced: ExportedProgram) -> None:
    for node in traced.graph.nodes:
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()) and not _idle(node):
            stack: dict[str, Any] = node.meta.get("nn_module_stack") or {}
            names = [name for name, _ in stack.values() if name]
            where = names[-1].removeprefix("model.") if names else "q(z | x)"
            raise InputError(f"{where} draws random numbers of its own ({node.target}), which cannot be made an input")


def _idle(node: Node) -> bool:
    """Dropout that drops nothing, as in evaluation mode."""
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    return "train" in names and node.args[names.index("train")] is False


def _reason(error: Exception) -> str:
    """What torch says, short: the first line of the cause, where torch names the operation."""
    first: BaseException = error
    while first.__cause__ is not None:
        first = first.__cause__
    lines = [" ".join(line.split()) for line in str(first).splitlines() if line.strip()]
    return f"{type(first).__name__}: {lines[0] if lines else 'no reason given'}"[:240]


@contextmanager
def _quiet() -> Iterator[None]:
    """torch warns of its own deprecations and of packages that are not needed here, and prints the graph of what it refuses."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.fx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
