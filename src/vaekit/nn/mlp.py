"""Fully connected networks from layer descriptors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from vaekit.errors import InputError

__all__ = ["Flatten", "Layer", "mlp"]


@dataclass(frozen=True)
class Layer:
    """One hidden layer: linear, then norm, activation and dropout.

    Attributes:
        width: number of units.
        activation: makes the nonlinearity, such as ``nn.ReLU`` or ``partial(nn.LeakyReLU, 0.2)``.
        norm: makes a normalisation from the width, such as ``nn.LayerNorm`` or ``partial(nn.BatchNorm1d, momentum=0.1)``; None for none.
        dropout: probability of dropping a unit while training.

    Raises:
        InputError: a width below 1, or a probability outside [0, 1).
    """

    width: int
    activation: Callable[[], nn.Module] = nn.ReLU
    norm: Callable[[int], nn.Module] | None = None
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.width < 1:
            raise InputError(f"a layer of width {self.width} has no units; give a width of at least 1")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout {self.dropout} is no probability of dropping a unit; give a number in [0, 1)")

    def modules(self, in_features: int) -> list[nn.Module]:
        """The layer's modules on an input of width ``in_features``."""
        made: list[nn.Module] = [nn.Linear(in_features, self.width)]
        if self.norm is not None:
            made.append(self.norm(self.width))
        made.append(self.activation())
        if self.dropout:
            made.append(nn.Dropout(self.dropout))
        return made


class Flatten(nn.Module):
    """``[N, *shape] -> [N, size]``; tells an input of another size by name rather than deep inside a matrix product."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.shape = shape
        self.size = math.prod(shape)

    def forward(self, x: Tensor) -> Tensor:
        """x ``[B, *shape]`` -> ``[B, size]``.

        Raises:
            InputError: x has another number of entries per example than ``size``.
        """
        x = x.flatten(1)
        if x.shape[1] != self.size:
            raise InputError(f"this network takes {self.size} numbers per example, {list(self.shape)}, and was given {x.shape[1]}")
        return x

    def extra_repr(self) -> str:
        return f"{self.shape} -> {self.size}"


def mlp(in_features: int | tuple[int, ...], layers: Sequence[int | Layer], out_features: int | None = None) -> nn.Sequential:
    """A multilayer perceptron, ``[N, *in_features] -> [N, out_features]``.

    Args:
        in_features: width of the input, or the shape of one example, which is flattened.
        layers: hidden layers; an int stands for ``Layer(int)``: that many rectified linear units.
        out_features: width of a last layer that is linear; None ends with the last hidden layer.

    Raises:
        InputError: an empty width; neither layers nor an output; at the call, an input of another size.

    >>> import torch
    >>> net = mlp((1, 28, 28), [400, Layer(200, activation=nn.Tanh)], 40)
    >>> net(torch.zeros(8, 1, 28, 28)).shape
    torch.Size([8, 40])
    """
    shape = (in_features,) if isinstance(in_features, int) else tuple(in_features)
    width = math.prod(shape)
    if width < 1 or (out_features is not None and out_features < 1):
        raise InputError(f"mlp({in_features}, ..., {out_features}): the input and the output need at least one number each")
    if not layers and out_features is None:
        raise InputError(f"mlp({in_features}, [], None) has no layers; give hidden layers or out_features")
    modules: list[nn.Module] = [Flatten(*shape)]
    for each in layers:
        layer = Layer(each) if isinstance(each, int) else each
        modules += layer.modules(width)
        width = layer.width
    if out_features is not None:
        modules.append(nn.Linear(width, out_features))
    return nn.Sequential(*modules)
