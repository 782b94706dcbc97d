"""Initialisation of the weights of a whole network."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

__all__ = ["glorot_"]

M = TypeVar("M", bound=nn.Module)


def glorot_(module: M) -> M:
    r"""Weights of all linear and convolution layers from U(-a, a), a = sqrt(6 / (n_in + n_out)); biases 0. In place.

    Glorot and Bengio, AISTATS 2010; the initialisation of "Importance Weighted Autoencoders" (Burda et al., ICLR 2016).

    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> glorot_(nn.Linear(100, 200)).weight.abs().max().item()
    0.1414
    """
    for m in module.modules():
        if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
            nn.init.xavier_uniform_(m.weight)
            if m.bias is not None:
                nn.init.zeros_(m.bias)
    return module
