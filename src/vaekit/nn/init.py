"""Initialisation of the weights of a whole network."""

from __future__ import annotations

import math
from typing import TypeVar

from torch import nn

__all__ = ["glorot_", "lecun_"]

M = TypeVar("M", bound=nn.Module)
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def glorot_(module: M) -> M:
    r"""Weights of all linear and convolution layers from U(-a, a), a = sqrt(6 / (n_in + n_out)); biases 0. In place.

    Glorot and Bengio, AISTATS 2010; the initialisation of "Importance Weighted Autoencoders" (Burda et al., ICLR 2016).

    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> glorot_(nn.Linear(100, 200)).weight.abs().max().item()
    0.1414
    """
    for m in module.modules():
        if isinstance(m, LAYERS):
            nn.init.xavier_uniform_(m.weight)
            if m.bias is not None:
                nn.init.zeros_(m.bias)
    return module


def lecun_(module: M) -> M:
    r"""Weights of all linear and convolution layers from N(0, 1 / n_in), truncated at two standard deviations; biases 0. In place.

    n_in is the channels that come in times the positions of the kernel, for transposed convolutions too. LeCun et al., "Efficient
    BackProp", 1998; the default of Sonnet. torch's own default has a third of the variance.

    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> lecun_(nn.Linear(100, 2000)).weight.std().item()  # 0.88 of 1 / sqrt(100), for the truncation
    0.088
    """
    for m in module.modules():
        if isinstance(m, LAYERS):
            n = m.in_features if isinstance(m, nn.Linear) else m.in_channels // m.groups * math.prod(m.kernel_size)
            std = 1 / math.sqrt(n)
            nn.init.trunc_normal_(m.weight, std=std, a=-2 * std, b=2 * std)
            if m.bias is not None:
                nn.init.zeros_(m.bias)
    return module
