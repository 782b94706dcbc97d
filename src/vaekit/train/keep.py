"""What of a module is put back as it was: its buffers after a step that failed, its dtypes after training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

__all__ = ["Buffers", "come_back", "dtypes"]


class Buffers:
    """All buffers of a module, running averages above all: kept before a step, put back after one that failed."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module if any(True for _ in module.buffers()) else nn.Identity()  # the walk over a module takes its time
        self.kept: dict[str, Tensor] = {}

    def keep(self) -> None:
        """As they are now."""
        self.kept = {name: b.clone() for name, b in self.module.named_buffers()}

    def put_back(self) -> None:
        """As they were when they were kept last."""
        for name, b in self.module.named_buffers():
            b.copy_(self.kept[name])


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
