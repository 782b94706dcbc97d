"""A function that `torch.compile` makes faster at its first call, and that stays as it is where that cannot be done.

Compiling takes seconds, so whoever calls decides first whether the work ahead is worth them. torch's own switches hold:
``torch.compiler.set_stance("force_eager")`` and ``TORCH_COMPILE_DISABLE=1`` turn all of it off.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from types import FunctionType, MethodType
from typing import Any, Generic, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.fx import Graph

from vaekit.library import NotBuiltError, build

__all__ = ["Compiled", "NotCompiledError", "stacked", "together"]

stacked: list[object] = []
"""Not empty while models are vectorised over (`together`): a function with a derivative of its own cannot be."""

P = ParamSpec("P")
R = TypeVar("R")


class NotCompiledError(Exception):
    """A function without a substitute could not be compiled, and has not run."""


@contextmanager
def together() -> Iterator[None]:
    """What runs inside is vectorised by `torch.vmap`."""
    stacked.append(None)
    try:
        yield
    finally:
        stacked.pop()


class Compiled(Generic[P, R]):
    """``function``, compiled as a whole for each shape of its arguments.

    Noise comes from torch's generators in the order in which the function itself would draw it, so the two agree to rounding. Where there
    is no compiler, or the function does something that cannot be compiled, that is said once and the function runs as it is.

    Args:
        function: of tensors, and of what does not change from call to call.
        differentiates: the function takes gradients itself (`torch.autograd.grad`).
        fixed: every call has tensors of the first call's shapes, and nothing else that the function reads has changed. Then that is not
            looked at again, which saves a tenth of a millisecond a call.
        reads: the tensors besides its arguments that a ``fixed`` function reads or changes. With them a process of its own compiles it
            where it can (`vaekit.library`), and this one stays as small as it was.
        substitute: run the function as it is where it cannot be compiled; if not, `NotCompiledError` is raised instead.
        note: is told why the function was not compiled; by default a warning.

    >>> import torch
    >>> Compiled(torch.square).function is torch.square
    True
    """

    def __init__(
        self,
        function: Callable[P, R],
        *,
        differentiates: bool = False,
        fixed: bool = False,
        reads: Callable[[], Sequence[Tensor]] | None = None,
        substitute: bool = True,
        note: Callable[[str], None] | None = None,
    ) -> None:
        self.function = function
        self.failed = False
        self._reads = reads if fixed else None
        self._substitute, self._fixed, self._note = substitute, fixed, note or partial(warnings.warn, stacklevel=3)
        self._settings = {"trace_autograd_ops": True} if differentiates else {}
        self._compiled: Callable[P, R] | None = None
        self._known = False

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if self._known and self._compiled is not None:
            return self._compiled(*args, **kwargs)
        if self.failed:
            return self._as_it_is(*args, **kwargs)
        here = None
        try:
            if self._compiled is None and self._reads is not None and not kwargs:
                try:
                    self._compiled = build(self.function, args, self._reads(), _options)
                except NotBuiltError as error:
                    here = str(error)
            if self._compiled is None:
                options = _options() | ({"guard_filter_fn": torch.compiler.skip_all_guards_unsafe} if self._fixed else {})
                self._compiled = torch.compile(_separate(self.function), dynamic=False, fullgraph=True, options=options)
            with torch._dynamo.config.patch(self._settings):
                found = self._compiled(*args, **kwargs)
        except torch._dynamo.exc.FailOnRecompileLimitHit:  # too many shapes or models: those that are known stay compiled
            return self._as_it_is(*args, **kwargs)
        except (torch._dynamo.exc.TorchDynamoException, AttributeError) as error:
            if isinstance(error, AttributeError) and "trace_autograd_ops" not in str(error):  # which an older torch does not know
                raise
            self.failed = True
            reason = " ".join(str(error).strip().partition("\n\n")[0].split())[:300]
            name = getattr(self.function, "__name__", type(self.function).__name__)
            self._note(f"{name} was not compiled and runs as it is, slower: {reason}")
            return self._as_it_is(*args, **kwargs)
        if here is not None:
            self._note(f"compiled in this process, which takes some hundred MiB: {here}")
        self._known = self._fixed
        return found

    def _as_it_is(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if not self._substitute:
            raise NotCompiledError
        return self.function(*args, **kwargs)


def _separate(function: Callable[P, R]) -> Callable[P, R]:
    """The same function with code of its own: torch keeps what it has compiled, and how often, by the code object."""
    if isinstance(function, MethodType):
        return MethodType(_separate(function.__func__), function.__self__)
    if not isinstance(function, FunctionType):
        return function
    copy = FunctionType(function.__code__.replace(), function.__globals__, function.__name__, function.__defaults__, function.__closure__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


@cache
def _options() -> dict[str, Any]:
    from torch._inductor.custom_graph_pass import CustomGraphPass  # a second to import, so only here

    class Biases(CustomGraphPass):
        """``h W + b`` as a product and a sum: the sum joins the operation that follows. Else b is copied to every row beforehand, a pass
        over memory of its own. And the gradient of b as a product."""

        def __call__(self, graph: Graph) -> None:
            bias_afterwards(graph)
            sums_by_products(graph)

        def uuid(self) -> str:
            return "vaekit: bias afterwards, sums by products, 1"

    # tanh as 2 / (1 + exp(-2 x)) - 1, exact to a part of 1 (1e-7) where torch's is to a part of itself, in a quarter of the time
    return {"fallback_random": True, "cpp.use_decompose_tanh": True, "post_grad_custom_post_pass": Biases()}


def bias_afterwards(graph: Graph) -> None:
    """Replace each ``addmm(b [n], h, W)`` on a processor by ``mm(h, W) + b``."""
    aten = torch.ops.aten
    for node in graph.find_nodes(op="call_function", target=aten.addmm.default):
        bias, *product = node.args
        if node.kwargs or bias.meta["val"].dim() != 1 or bias.meta["val"].device.type != "cpu":
            continue
        with graph.inserting_before(node):
            mm = graph.call_function(aten.mm.default, tuple(product))
            total = graph.call_function(aten.add.Tensor, (mm, bias))
        mm.meta["val"] = total.meta["val"] = node.meta["val"]
        node.replace_all_uses_with(total)
        graph.erase_node(node)


MANY = 512
"""Rows from which their sum is taken by a product: calling one costs some ten microseconds."""


def sums_by_products(graph: Graph) -> None:
    """Replace each sum over many rows of ``g [n, m]`` that is multiplied elsewhere, a bias's gradient, by the product ``1 g``.

    A compiled sum runs down the columns, one cache line a row; the product reads the rows as they lie, in a quarter of the time.
    """
    aten = torch.ops.aten
    products = {node.args[i] for node in graph.find_nodes(op="call_function", target=aten.mm.default) for i in (0, 1)}
    products |= {node.args[0] for node in products if node.target is aten.permute.default}
    for node in graph.find_nodes(op="call_function", target=aten.sum.dim_IntList):
        rows, dims, *keep = node.args
        value = rows.meta["val"]
        if rows not in products or list(dims) != [0] or keep != [True] or node.kwargs or value.dim() != 2 or value.shape[0] < MANY:
            continue
        if value.device.type != "cpu" or not value.dtype == node.meta["val"].dtype == torch.float32:
            continue
        with graph.inserting_before(node):
            ones = graph.call_function(aten.full.default, ([1, value.shape[0]], 1.0), {"dtype": value.dtype, "device": value.device})
            total = graph.call_function(aten.mm.default, (ones, rows))
        ones.meta["val"], total.meta["val"] = value.new_ones(1, value.shape[0]), node.meta["val"]
        node.replace_all_uses_with(total)
        graph.erase_node(node)
