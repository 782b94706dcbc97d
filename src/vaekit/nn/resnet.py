r"""Residual networks for small images, in the ResNet-18 layout, and their mirror image.

Two changes to the network for ImageNet, as is usual for images of 32 x 32: the stem is one 3x3 convolution with stride 1 rather
than 7x7 with stride 2, and no pooling follows it. The first stage works at full size and each further one halves it.

He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition", CVPR 2016.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from vaekit.errors import InputError
from vaekit.nn.conv import Shape, check_image

__all__ = ["ResidualBlock", "resnet_decoder", "resnet_encoder"]


class ResidualBlock(nn.Module):
    """relu(x' + bn(conv(relu(bn(conv(x)))))), ``[N, C, H, W] -> [N, C', H', W']``; x' = x, or a 1x1 convolution of it where shapes differ.

    Args:
        in_channels: C.
        out_channels: C'.
        stride: 2 halves height and width, 1 keeps them.
        upsample: double height and width first, by repeating each pixel.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, upsample: bool = False) -> None:
        super().__init__()
        self.resize = nn.Upsample(scale_factor=2, mode="nearest") if upsample else nn.Identity()
        self.main = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        same = stride == 1 and in_channels == out_channels
        project = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels))
        self.skip = nn.Identity() if same else project
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.resize(x)
        return self.activation(self.main(x) + self.skip(x))


def resnet_encoder(shape: Shape, *, widths: Sequence[int] = (64, 128, 256, 512), blocks: Sequence[int] = (2, 2, 2, 2)) -> nn.Sequential:
    """``[N, C, H, W] -> [N, widths[-1]]``: ResNet-18 without its last linear layer, averaged over positions.

    The defaults on 3 channels have 11,168,832 parameters: the 11,173,962 of the usual CIFAR-10 classifier less its 10 x (512 + 1).

    Args:
        shape: (C, H, W) of one image; height and width multiples of 2^(stages - 1), 8 with the defaults.
        widths: channels of each stage.
        blocks: residual blocks in each stage.

    Raises:
        InputError: a dimension below 1, another number of widths than of blocks, or a size that cannot be halved so often.

    >>> import torch
    >>> resnet_encoder((3, 32, 32), widths=(8, 16, 32), blocks=(1, 1, 1))(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 32])
    """
    _check("resnet_encoder", shape, widths, blocks)
    modules: list[nn.Module] = [nn.Conv2d(shape[0], widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()]
    c = widths[0]
    for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
        for block in range(count):
            modules.append(ResidualBlock(c, width, stride=2 if stage > 0 and block == 0 else 1))
            c = width
    return nn.Sequential(*modules, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def resnet_decoder(
    features: int,
    shape: Shape,
    *,
    widths: Sequence[int] = (512, 256, 128, 64),
    blocks: Sequence[int] = (2, 2, 2, 2),
    parts: int = 1,
) -> nn.Sequential:
    """``[N, features] -> [N, parts * C, H, W]``: `resnet_encoder` mirrored block by block; pixels are repeated where it has a stride.

    Args:
        features: width of the input, such as the number of latent dimensions.
        shape: (C, H, W) of one image; height and width multiples of 2^(stages - 1), 8 with the defaults.
        widths: channels of each stage, from the smallest map up.
        blocks: residual blocks in each stage.
        parts: parameters per entry of the image that the head takes: 1 for Bernoulli, 2 for Gaussian.

    Raises:
        InputError: as `resnet_encoder`.

    >>> import torch
    >>> resnet_decoder(20, (3, 32, 32), widths=(32, 16, 8), blocks=(1, 1, 1))(torch.zeros(2, 20)).shape
    torch.Size([2, 3, 32, 32])
    """
    _check("resnet_decoder", shape, widths, blocks, features, parts)
    down = 2 ** (len(widths) - 1)
    c, h, w = widths[0], shape[1] // down, shape[2] // down
    modules: list[nn.Module] = [nn.Linear(features, c * h * w), nn.Unflatten(1, (c, h, w)), nn.BatchNorm2d(c), nn.ReLU()]
    for stage, count in enumerate(blocks):
        modules += [ResidualBlock(c, c) for _ in range(count - 1)]
        last = stage == len(widths) - 1
        below = c if last else widths[stage + 1]
        modules.append(ResidualBlock(c, below, upsample=not last))
        c = below
    return nn.Sequential(*modules, nn.Conv2d(c, parts * shape[0], 3, padding=1))


def _check(name: str, shape: Shape, widths: Sequence[int], blocks: Sequence[int], *features: int) -> None:
    check_image(name, shape, widths, *features)
    if len(widths) != len(blocks) or min(blocks) < 1:
        raise InputError(f"{name}: widths {tuple(widths)} and blocks {tuple(blocks)} need one number per stage each, at least 1")
    down = 2 ** (len(widths) - 1)
    if shape[1] % down or shape[2] % down:
        raise InputError(
            f"{name}: height and width must be multiples of {down} for {len(widths)} stages: pad the {shape[1]} x {shape[2]} images"
        )
