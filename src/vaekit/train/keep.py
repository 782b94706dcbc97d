"""What of a module is put back as it was: its buffers after a step that failed, its dtypes after training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

__all__ = ["buffers", "come_back", "dtypes", "put_back"]


def buffers(module: nn.Module) -> dict[str, Tensor]:
    """Copies of all of them, running averages above all, by name."""
    return {name: b.clone() for name, b in module.named_buffers()}


def put_back(module: nn.Module, kept: Mapping[str, Tensor]) -> None:
    """Undo what a step has done to the `buffers`."""
    for name, b in module.named_buffers():
        b.copy_(kept[name])


def dtypes(module: nn.Module) -> dict[str, torch.dtype]:
    """Those of all parameters and buffers, by name."""
    return {name: t.dtype for name, t in _tensors(module)}


def come_back(module: nn.Module, before: Mapping[str, torch.dtype]) -> None:
    """Evaluation mode and the `dtypes` before training. A gradient of another dtype than its parameter's goes."""
    module.eval()
    for name, t in _tensors(module):
        if t.dtype != before[name]:
            t.grad, t.data = None, t.data.to(before[name])


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()
