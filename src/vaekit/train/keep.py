"""What of a module is put back as it was: its buffers after a step that failed, its dtypes and its layout after training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = ["Buffers", "as_parameters", "channels_last", "come_back", "forms", "plain_values"]


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


def channels_last(module: nn.Module) -> None:
    """Store the weights of convolutions of images with the channels innermost, and so what comes out of them.

    On a processor oneDNN computes in that order: with another one each convolution first copies what it is given. The numbers change by
    rounding alone.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            part.weight.data = part.weight.data.contiguous(memory_format=torch.channels_last)


def as_parameters(optimiser: Optimizer) -> None:
    """Averages of an optimiser's state that have a parameter's shape get its layout too: fused updates walk through both in step."""
    for p, state in optimiser.state.items():
        for name, t in state.items():
            if isinstance(t, Tensor) and t.shape == p.shape and t.stride() != p.stride():
                state[name] = torch.empty_like(p, dtype=t.dtype).copy_(t)


def plain_values(module: nn.Module) -> list[dict[str, object]]:
    """The numbers and texts that its parts hold in plain attributes, where a program made of tensors would not see them change."""
    return [{k: v for k, v in vars(part).items() if isinstance(v, bool | int | float | str)} for part in module.modules()]


def forms(module: nn.Module) -> dict[str, tuple[torch.dtype, bool]]:
    """Of all parameters and buffers, by name: the dtype, and whether they are stored row by row."""
    return {name: (t.dtype, t.is_contiguous()) for name, t in _tensors(module)}


def come_back(module: nn.Module, before: Mapping[str, tuple[torch.dtype, bool]]) -> None:
    """``module`` goes to evaluation mode and the `forms` before training. A gradient of another dtype or layout than its parameter's
    goes."""
    module.eval()
    for name, t in _tensors(module):
        dtype, contiguous = before[name]
        if t.dtype != dtype or (contiguous and not t.is_contiguous()):
            t.grad, t.data = None, t.data.to(dtype, memory_format=torch.contiguous_format if contiguous else torch.preserve_format)


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()
