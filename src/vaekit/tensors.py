"""Small tensor functions that several layers share. Log-values are nats."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["logmeanexp", "seed_noise"]


def logmeanexp(log_w: Tensor, dim: int = 0) -> Tensor:
    """log( (1/K) sum_k exp(log_w_k) ) along ``dim`` of size K, without overflow.

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
