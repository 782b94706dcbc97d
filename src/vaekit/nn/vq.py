"""The convolutional networks of the VQ-VAE: images to a grid a quarter as high and wide, and back.

van den Oord, Vinyals and Kavukcuoglu, "Neural Discrete Representation Learning", NeurIPS 2017, sec. 4.1, as in Sonnet's example, with
its initialisation: from torch's default, of a third of the variance, the codebook is slower to spread.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from vaekit.errors import InputError
from vaekit.nn.conv import Shape, check_image
from vaekit.nn.init import lecun_

__all__ = ["Shift", "vq_decoder", "vq_encoder"]


class Shift(nn.Module):
    """x + ``by``: pixels in [0, 1] around 0 for a network, and back."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: Tensor) -> Tensor:
        return x + self.by


class Residual(nn.Module):
    """x + conv1x1(relu(conv3x3(relu(x))))."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.main = nn.Sequential(nn.ReLU(), nn.Conv2d(channels, hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(hidden, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.main(x)
        return y


def vq_encoder(shape: Shape, *, dimensions: int, hidden: int = 128, residual: int = 32, blocks: int = 2) -> nn.Sequential:
    """``[N, C, H, W] -> [N, dimensions, H / 4, W / 4]`` for pixels in [0, 1].

    Args:
        shape: (C, H, W) of one image, height and width multiples of 4.
        dimensions: channels of the output, the dimensions of a code vector.
        hidden: channels of the network.
        residual: channels inside a residual block.
        blocks: residual blocks.

    Raises:
        InputError: a size below 1, one hidden channel alone, or a height or width that is no multiple of 4.

    >>> import torch
    >>> vq_encoder((3, 32, 32), dimensions=64)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 64, 8, 8])
    """
    _check("vq_encoder", shape, hidden, dimensions, residual)
    net = nn.Sequential(
        Shift(-0.5),
        nn.Conv2d(shape[0], hidden // 2, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(hidden // 2, hidden, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(hidden, hidden, 3, padding=1),
        nn.ReLU(),
        *(Residual(hidden, residual) for _ in range(blocks)),
        nn.ReLU(),
        nn.Conv2d(hidden, dimensions, 1),
    )
    return lecun_(net)


def vq_decoder(dimensions: int, shape: Shape, *, hidden: int = 128, residual: int = 32, blocks: int = 2, parts: int = 1) -> nn.Sequential:
    """``[N, dimensions, H / 4, W / 4] -> [N, parts * C, H, W]``, for pixels in [0, 1].

    Args:
        dimensions: of a code vector.
        shape: (C, H, W) of one image, height and width multiples of 4.
        hidden: channels of the network.
        residual: channels inside a residual block.
        blocks: residual blocks.
        parts: parameters per entry of the image that the head takes.

    Raises:
        InputError: as `vq_encoder`.

    >>> import torch
    >>> vq_decoder(64, (3, 32, 32))(torch.zeros(2, 64, 8, 8)).shape
    torch.Size([2, 3, 32, 32])
    """
    _check("vq_decoder", shape, hidden, dimensions, residual, parts)
    first = nn.Conv2d(dimensions, hidden, 3, padding=1)
    net = nn.Sequential(
        first,
        *(Residual(hidden, residual) for _ in range(blocks)),
        nn.ReLU(),
        nn.ConvTranspose2d(hidden, hidden // 2, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(hidden // 2, parts * shape[0], 4, stride=2, padding=1),
        Shift(0.5),
    )
    bias = cast("nn.Parameter", first.bias)
    drawn = bias.detach().clone()
    lecun_(net)
    bias.data.copy_(drawn)  # with biases of 0 too, FSQ's middle code, all zeros, would leave every ReLU without a gradient
    return net


def _check(name: str, shape: Shape, hidden: int, *widths: int) -> None:
    _, h, w = check_image(name, shape, [hidden], *widths)
    if h % 4 or w % 4 or hidden < 2:
        raise InputError(f"{name}: two stages halve {h} x {w} pixels and {hidden} channels: give multiples of 4 and at least 2 channels")
