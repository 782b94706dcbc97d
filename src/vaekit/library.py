"""A function of tensors as a shared library, which a process of its own compiles.

`torch.compile` works in the process that asks: some hundred MiB of compiler stay in it as long as it runs, and every call of what it made
starts in Python. Here a fork of this process runs the function once, writes its operations down, has AOTInductor compile them and ends.
What that run changes is the fork's alone. This process loads the library, machine code that reads and writes the tensors in place, and
keeps it in torch's cache of programs for the next run that has the very same operations.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

import torch
from torch import Tensor

__all__ = ["NotBuiltError", "build"]

R = TypeVar("R")

SECONDS = 900.0
"""The longest that a process may compile: a fork of a process with threads may wait for one that it does not have."""
LIBRARY = "step.so"


class NotBuiltError(Exception):
    """No library could be made; the message says why, in a clause."""


class Form(NamedTuple):
    """How a tensor lies in memory, which is compiled in."""

    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, t: Tensor) -> Form:
        """That of ``t``."""
        return cls(t.shape, t.stride(), t.dtype)


def build(
    function: Callable[..., R], args: Sequence[object], reads: Sequence[Tensor], options: Callable[[], dict[str, Any]]
) -> Callable[..., R]:
    """``function`` from a shared library, to be called with tensors of the same forms in the same places.

    Args:
        function: tensor operations, in-place ones and gradients among them, on its arguments and on ``reads`` and on no tensor else.
        args: arguments of the first call: tensors of any shapes, lists and tuples of them, and what stays the same. The function is not
            called here.
        reads: the other tensors ``[*]`` that it reads or changes, the same objects at each call.
        options: gives inductor's, and is called where they do not matter for the memory of this process.

    Raises:
        NotBuiltError: the system cannot fork, the tensors are not a processor's, or the function does something that cannot be compiled.
    """
    given = list(tensors_in(args))
    known = {id(t) for t in given}
    tensors = given + list({id(t): t for t in reads if id(t) not in known}.values())
    reason = hindrance(given, tensors)
    if reason is not None:
        raise NotBuiltError(reason)
    threads = torch.get_num_threads()
    path, answer = _by_a_fork(lambda: _compiled(function, args, tensors, options(), threads))
    try:
        run = torch._C._aoti.AOTIModelContainerRunnerCpu(path, 1).run
    except RuntimeError as error:
        raise NotBuiltError(f"{path} cannot be loaded: {error}") from error
    lasting, forms = tensors[len(given) :], [Form.of(t) for t in given]
    last = given

    def call(*args: object) -> R:
        nonlocal last
        now = list(tensors_in(args))
        if len(now) != len(forms):
            raise ValueError(f"{len(now)} tensors for a library that was made for {len(forms)}")
        for t, before, form in zip(now, last, forms, strict=True):
            if t is not before and Form.of(t) != form:  # machine code does not look
                raise ValueError(f"a tensor of {Form.of(t)} for a library that was made for {form}")
        last = now
        found: R = filled(answer, run([*now, *lasting]))
        return found

    return call


def hindrance(given: Sequence[Tensor], tensors: Sequence[Tensor]) -> str | None:
    """Why a process of its own cannot compile a function of ``tensors``, of which ``given`` are its arguments; None where it can."""
    if sys.platform != "linux" or not hasattr(torch._C, "_aoti"):
        return f"there are no such libraries on {sys.platform} with torch {torch.__version__}"
    if torch.cuda.is_initialized() or any(t.device.type != "cpu" for t in tensors):
        return "a process that uses a GPU cannot fork"
    if torch._dynamo.config.disable or torch._dynamo.eval_frame._stance.stance != "default":
        return "compiling is switched off"
    if len({id(t) for t in given}) < len(given):
        return "a tensor is given twice"
    plain = all(type(t) in (Tensor, torch.nn.Parameter) and t.layout == torch.strided for t in tensors)
    return None if plain else "a tensor is not a plain one"


def tensors_in(value: object) -> Iterator[Tensor]:
    """The tensors of nested lists and tuples, in their order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors_in(part)


def described(value: object, numbers: Iterator[int]) -> Any:
    """An answer as JSON has it, its tensors by the next of ``numbers``.

    Raises:
        NotBuiltError: there is more in it than lists, tuples, tensors, numbers and text.
    """
    if isinstance(value, Tensor):
        return {"tensor": next(numbers)}
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return {"list" if isinstance(value, list) else "tuple": [described(part, numbers) for part in value]}
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise NotBuiltError(f"it returns a {type(value).__name__}")


def filled(description: Any, tensors: Sequence[Tensor]) -> Any:
    """The reverse of `described`, with these ``tensors``."""
    if not isinstance(description, dict):
        return description
    ((kind, inside),) = description.items()
    if kind == "tensor":
        return tensors[inside]
    parts = [filled(part, tensors) for part in inside]
    return parts if kind == "list" else tuple(parts)


def _by_a_fork(work: Callable[[], tuple[str, Any]]) -> tuple[str, Any]:
    """What ``work`` gives in a fork of this process.

    Raises:
        NotBuiltError: it raised, or the fork died or took too long.
    """
    ours, theirs = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads: the fork waits for none of them
        pid = os.fork()
    if pid == 0:
        _end(work, theirs)
    os.close(theirs)
    try:
        with suppress(OSError):  # it may have done so itself, and have ended since
            os.setpgid(pid, pid)
        said = _read(ours)
    finally:  # Ctrl-C as well
        os.close(ours)
        with suppress(OSError):
            os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    if not said:
        raise NotBuiltError("the process that compiles died or took too long")
    found = json.loads(said)
    if isinstance(found, str):
        raise NotBuiltError(found)
    return found[0], found[1]


def _read(pipe: int) -> bytes:
    """All that comes until the other end closes; nothing where that takes too long."""
    parts: list[bytes] = []
    until = time.monotonic() + SECONDS
    while select.select([pipe], [], [], max(0.0, until - time.monotonic()))[0]:
        part = os.read(pipe, 2**16)
        if not part:
            return b"".join(parts)
        parts.append(part)
    return b""


def _end(work: Callable[[], tuple[str, Any]], pipe: int) -> NoReturn:
    """In the fork: write what ``work`` gives, or in words why it gives nothing, and end without any of the parent's tidying up."""
    try:
        os.setpgid(0, 0)  # Ctrl-C is for the parent, which ends this group with the compilers in it
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        silent = os.open(os.devnull, os.O_RDWR)
        for standard in range(3):
            os.dup2(silent, standard)
        os.closerange(3, pipe)  # the lock of the run's folder among them, which would outlive the run
        os.closerange(pipe + 1, os.sysconf("SC_OPEN_MAX"))
        torch.set_num_threads(1)  # the others did not come along
        torch.compiler._is_compiling_flag = True
        try:
            said = json.dumps(work())
        except NotBuiltError as error:
            said = json.dumps(str(error))
        except Exception as error:
            said = json.dumps(f"{type(error).__name__}: " + " ".join(str(error).partition("\n\n")[0].split())[:300])
        with os.fdopen(pipe, "w") as file:
            file.write(said)
    finally:
        os._exit(0)


def _compiled(
    function: Callable[..., Any], args: Sequence[object], tensors: Sequence[Tensor], options: dict[str, Any], threads: int
) -> tuple[str, Any]:
    """In the fork: the path of the library, and the answer as `described`."""
    from torch.fx.experimental.proxy_tensor import make_fx

    answers: list[Any] = []

    def traced(*_: Tensor) -> list[Tensor]:  # known by what they are
        answers.append(function(*args))
        return list(tensors_in(answers[-1]))

    graph = make_fx(traced, tracing_mode="real")(*tensors)
    literals = []
    for node in graph.graph.find_nodes(op="get_attr"):
        if any(user.target is not torch.ops.aten.lift_fresh_copy.default for user in node.users):
            raise NotBuiltError("it reads a tensor that is not known to be its own")
        literals.append(getattr(graph, node.target))
    for node in graph.graph.nodes:
        node.meta.clear()  # of as many modes as there are tensors
    path = _folder() / _key(graph, tensors, literals, options, threads)
    if not path.exists():
        made = Path(tempfile.mkdtemp(dir=path.parent))
        try:
            settings = options | {"cpp.threads": threads, "aot_inductor.output_path": str(made / LIBRARY)}
            torch._inductor.aot_compile(graph, tuple(t.detach() for t in tensors), options=settings)
            os.replace(made, path)
        except OSError:
            if not path.exists():  # another process was faster
                raise
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return str(path / LIBRARY), described(answers[-1], count())


def _folder() -> Path:
    """Where torch keeps compiled programs."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    path = Path(cache_dir()) / "vaekit"
    path.mkdir(parents=True, exist_ok=True)
    return path


def _key(graph: torch.fx.GraphModule, tensors: Sequence[Tensor], literals: Sequence[Tensor], options: dict[str, Any], threads: int) -> str:
    """A name for all that the library is made from."""
    from torch._inductor import config

    own = {name: value.uuid() if hasattr(value, "uuid") else value for name, value in options.items()}
    cpu = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
    kind = [line for line in cpu if line.startswith(("flags", "model name", "Features"))]
    compiler = [
        torch.__version__,
        torch.version.git_version,
        os.environ.get("CXX"),
        sorted(config.save_config_portable().items()),
        kind,
        threads,
    ]
    program = [graph.code, [Form.of(t) for t in tensors], [(t.dtype, t.tolist()) for t in literals], sorted(own.items())]
    return hashlib.sha256(repr((compiler, program)).encode()).hexdigest()
