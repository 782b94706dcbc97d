"""Tensors of which each process holds a part (torch's ``DTensor``), and whole ones: what is written down is always whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from vaekit.errors import NonFiniteError
from vaekit.train.process import Interrupted

__all__ = ["like", "returned", "shard", "sharded_like", "whole"]


def whole(t: Tensor) -> Tensor:
    """All of a tensor, of any shape. Of a part every process must ask at once."""
    return t.full_tensor() if isinstance(t, DTensor) else t


def like(t: Tensor, reference: Tensor) -> Tensor:
    """A whole tensor ``t``, of any shape, divided over the processes as ``reference`` is."""
    if not isinstance(reference, DTensor) or isinstance(t, DTensor):
        return t
    return distribute_tensor(t.to(reference.device), reference.device_mesh, reference.placements, src_data_rank=None)


@contextmanager
def returned(module: nn.Module, given: nn.Module) -> Iterator[None]:
    """What a module has learned goes to ``given``, of which it is a sharded copy, also where all processes have stopped at the same
    step."""
    try:
        yield
    except (Interrupted, NonFiniteError):
        _return(module, given)
        raise
    _return(module, given)


def _return(module: nn.Module, given: nn.Module) -> None:
    if module is not given:
        given.load_state_dict({name: whole(t) for name, t in module.state_dict().items()})


def sharded_like(state: dict[str, Any], optimiser: Optimizer) -> dict[str, Any]:
    """An optimiser's state with its averages divided as the parameters are that they belong to."""
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    for number, entries in state["state"].items():
        for name, value in entries.items():
            if isinstance(value, Tensor) and value.dim() and value.shape == parameters[number].shape:
                entries[name] = like(value, parameters[number])
    return state


def shard(module: nn.Module, mesh: Any) -> nn.Module:
    """Divide a module's parameters over the processes of ``mesh``, all of them as one group: they are put together for a pass and given up
    after it.

    One group, because distributions outlive the modules that made them: a flow scores with its own parameters long after its module's
    forward is over.
    """
    from torch.distributed.fsdp import fully_shard

    with torch.no_grad():
        for t in [*module.parameters(), *module.buffers()]:  # the first process's, as DDP does it
            torch.distributed.broadcast(t, 0)
    fully_shard(module, mesh=mesh["data_parallel"])
    return module
