"""Small convolutional networks for images of any size: each stage halves, or doubles, the height and the width."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from vaekit.errors import InputError
from vaekit.nn.mlp import Flatten

__all__ = ["conv_decoder", "conv_encoder"]

Shape = tuple[int, int, int]


def conv_encoder(shape: Shape, *, channels: Sequence[int] = (32, 64), features: int) -> nn.Sequential:
    """``[N, C, H, W] -> [N, features]``: a 3x3 convolution with stride 2 and a ReLU per stage, then one linear layer.

    Args:
        shape: (C, H, W) of one image, any height and width: a stage turns n pixels into ceil(n / 2).
        channels: output channels of each stage.
        features: width of the output, the ``features`` of the head that follows.

    Raises:
        InputError: a dimension below 1.

    >>> import torch
    >>> conv_encoder((1, 28, 20), features=40)(torch.zeros(8, 1, 28, 20)).shape
    torch.Size([8, 40])
    """
    c, *_ = check_image("conv_encoder", shape, channels, features)
    modules: list[nn.Module] = []
    for width in channels:
        modules += [nn.Conv2d(c, width, 3, stride=2, padding=1), nn.ReLU()]
        c = width
    h, w = halved(shape, len(channels))[-1]
    return nn.Sequential(*modules, Flatten(c, h, w), nn.Linear(c * h * w, features))


def conv_decoder(features: int, shape: Shape, *, channels: Sequence[int] = (64, 32), parts: int = 1) -> nn.Sequential:
    """``[N, features] -> [N, parts * C, H, W]``, the mirror image of `conv_encoder` with transposed convolutions.

    Args:
        features: width of the input, such as the number of latent dimensions.
        shape: (C, H, W) of one image, any height and width.
        channels: input channels of each stage, from the smallest map up.
        parts: parameters per entry of the image that the head takes: 1 for Bernoulli, 2 for Gaussian.

    Raises:
        InputError: a dimension below 1.

    >>> import torch
    >>> conv_decoder(20, (3, 28, 20), parts=2)(torch.zeros(8, 20)).shape
    torch.Size([8, 6, 28, 20])
    """
    c, *_ = check_image("conv_decoder", shape, channels, features, parts)
    sizes = halved(shape, len(channels))[::-1]
    (h, w), widths = sizes[0], [*channels, parts * c]
    modules: list[nn.Module] = [nn.Linear(features, widths[0] * h * w), nn.Unflatten(1, (widths[0], h, w))]
    for n, (small, large) in enumerate(pairwise(sizes)):
        more = (large[0] - 2 * small[0] + 1, large[1] - 2 * small[1] + 1)  # 2n - 1 rows, and one more where the size is even
        modules += [nn.ReLU(), nn.ConvTranspose2d(widths[n], widths[n + 1], 3, stride=2, padding=1, output_padding=more)]
    return nn.Sequential(*modules)


def halved(shape: Shape, stages: int) -> list[tuple[int, int]]:
    """(H, W) before each of ``stages`` halvings, rounded up, and after the last."""
    sizes = [shape[1:]]
    for _ in range(stages):
        h, w = sizes[-1]
        sizes.append(((h + 1) // 2, (w + 1) // 2))
    return sizes


def check_image(name: str, shape: Shape, channels: Sequence[int], *widths: int) -> Shape:
    """``shape``, where it and everything else are sizes of a network on images."""
    if len(shape) != 3 or min(*shape, *widths) < 1:
        raise InputError(f"{name}: an image is (channels, height, width) and all widths are at least 1: got {shape} with {list(widths)}")
    if not channels or min(channels) < 1:
        raise InputError(f"{name}: channels {tuple(channels)}: give the width of at least one stage, each at least 1")
    return shape
