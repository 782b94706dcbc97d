"""A function that `torch.compile` makes faster at its first call, and that stays as it is where that cannot be done.

Compiling takes seconds, so whoever calls decides first whether the work ahead is worth them. torch's own switches hold:
``torch.compiler.set_stance("force_eager")`` and ``TORCH_COMPILE_DISABLE=1`` turn all of it off.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache, update_wrapper
from typing import Any, Generic, ParamSpec, TypeVar

import torch
from torch.fx import Graph

__all__ = ["Compiled"]

P = ParamSpec("P")
R = TypeVar("R")


class Compiled(Generic[P, R]):
    """``function``, compiled as a whole for each shape of its arguments.

    Noise comes from torch's generators in the order in which the function itself would draw it, so the two agree to rounding. Where there
    is no compiler, or the function does something that cannot be compiled, a warning says so once and the function runs as it is.

    >>> import torch
    >>> Compiled(torch.square).function is torch.square
    True
    """

    def __init__(self, function: Callable[P, R]) -> None:
        self.function = function
        self._compiled: Callable[P, R] | None = None
        self.failed = False
        update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if self.failed:
            return self.function(*args, **kwargs)
        if self._compiled is None:
            self._compiled = torch.compile(self.function, dynamic=False, fullgraph=True, options=_options())
        try:
            return self._compiled(*args, **kwargs)
        except torch._dynamo.exc.TorchDynamoException as error:
            self.failed = True
            reason = str(error).strip().splitlines()[0]
            name = getattr(self.function, "__name__", type(self.function).__name__)
            warnings.warn(f"{name} was not compiled and runs as it is, slower: {reason}", stacklevel=2)
            return self.function(*args, **kwargs)


@cache
def _options() -> dict[str, Any]:
    from torch._inductor.custom_graph_pass import CustomGraphPass  # a second to import, so only here

    class BiasAfterwards(CustomGraphPass):
        """``h W + b`` as a product and a sum: the sum joins the operation that follows. Else b is copied to every row beforehand, a pass
        over memory of its own."""

        def __call__(self, graph: Graph) -> None:
            bias_afterwards(graph)

        def uuid(self) -> str:
            return "vaekit: bias afterwards, 1"

    return {"fallback_random": True, "post_grad_custom_post_pass": BiasAfterwards()}


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
