"""Small functions that several layers share. Log-values are nats."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["evaluating", "indicator", "logmeanexp", "seed_noise"]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode: no dropout, no statistics of the batch, and none that move; its modes are put back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def indicator(index: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """One-hot vectors ``[*, size]``, of type ``dtype``, of ``index``, int64 ``[*]`` in [0, size).

    Unlike torch's own it looks at no value, which a program that is being written down cannot.

    >>> indicator(torch.tensor([2, 0]), 3, torch.float32)
    tensor([[0., 0., 1.],
            [1., 0., 0.]])
    """
    return (index.unsqueeze(-1) == torch.arange(size, device=index.device)).to(dtype)


def logmeanexp(log_w: Tensor, dim: int = 0) -> Tensor:
    """log( (1/K) sum_k exp(log_w_k) ), nats ``[*]``, of ``log_w`` along ``dim`` of size K, without overflow.

    >>> logmeanexp(torch.tensor([0.0, 0.0, 1000.0]) - 1000.0).exp()
    tensor(0.3333)
    """
    return torch.logsumexp(log_w, dim) - math.log(log_w.shape[dim])


def seed_noise(seed: int, device: torch.device) -> None:
    """Seed the generators that noise for ``device`` comes from: the processor's and the device's own; no other GPU's."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
