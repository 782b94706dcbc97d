"""Networks: shapes, sizes, gradients that reach every weight, examples that do not see each other."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from tables import NETWORKS, Network
from vaekit.errors import InputError
from vaekit.nn import Layer, ResidualBlock, conv_decoder, conv_encoder, glorot_, mlp, resnet_decoder, resnet_encoder

networks = pytest.mark.parametrize("row", NETWORKS.values(), ids=NETWORKS)


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@networks
def test_shapes_gradients_and_independence(row: Network) -> None:
    net = row.make()
    x = torch.randn(5, *row.inputs, requires_grad=True)
    y = net(x)
    assert y.shape == (5, *row.outputs)
    (y * torch.randn_like(y)).sum().backward()
    for name, p in net.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and (p.grad != 0).any(), name
    net.eval()
    alone = torch.cat([net(x[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(net(x), alone, atol=1e-5, rtol=1e-4)
    (grad,) = torch.autograd.grad(net(x)[2].square().sum(), x)
    assert (grad[[0, 1, 3, 4]] == 0).all() and (grad[2] != 0).any()


@networks
def test_compiles_without_graph_breaks(row: Network) -> None:
    net, x = row.make().eval(), torch.randn(2, *row.inputs)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(net, fullgraph=True, backend="eager")(x), net(x))


def test_mlp_is_the_layers_it_was_given() -> None:
    net = mlp((2, 3), [4, Layer(5, activation=partial(nn.LeakyReLU, 0.3), norm=partial(nn.BatchNorm1d, momentum=0.7), dropout=0.1)], 2)
    kinds = [type(m).__name__ for m in net]
    assert kinds == ["Flatten", "Linear", "ReLU", "Linear", "BatchNorm1d", "LeakyReLU", "Dropout", "Linear"]
    assert net[4].momentum == 0.7 and net[5].negative_slope == 0.3 and net[6].p == 0.1
    assert size(net) == (6 * 4 + 4) + (4 * 5 + 5) + 2 * 5 + (5 * 2 + 2)
    assert size(mlp(784, [400], 40)) == 784 * 400 + 400 + 400 * 40 + 40
    x = torch.randn(3, 2, 3)
    net = mlp((2, 3), [4], 2)
    first, last = net[1], net[3]
    torch.testing.assert_close(net(x), torch.relu(x.reshape(3, 6) @ first.weight.T + first.bias) @ last.weight.T + last.bias)


def test_conv_networks_halve_and_double_sizes_rounding_up() -> None:
    maps: list[torch.Size] = []
    net = conv_encoder((1, 29, 20), channels=(3, 4, 5), features=2)
    for m in net:
        if isinstance(m, nn.Conv2d):
            m.register_forward_hook(lambda _m, _i, y: maps.append(y.shape[1:]))
    net(torch.zeros(1, 1, 29, 20))
    assert maps == [(3, 15, 10), (4, 8, 5), (5, 4, 3)]
    net = conv_decoder(2, (1, 29, 20), channels=(5, 4, 3))
    maps.clear()
    for m in net:
        if isinstance(m, nn.Unflatten | nn.ConvTranspose2d):
            m.register_forward_hook(lambda _m, _i, y: maps.append(y.shape[1:]))
    net(torch.zeros(1, 2))
    assert maps == [(5, 4, 3), (4, 8, 5), (3, 15, 10), (1, 29, 20)]
    assert size(conv_encoder((1, 28, 28), features=40)) == (9 * 32 + 32) + (9 * 32 * 64 + 64) + (64 * 49 * 40 + 40)
    assert size(conv_decoder(20, (1, 28, 28))) == (20 * 64 * 49 + 64 * 49) + (9 * 64 * 32 + 32) + (9 * 32 + 1)


@pytest.mark.parametrize("side", [1, 2, 3, 8, 28, 33])
def test_conv_decoder_reaches_every_size(side: int) -> None:
    assert conv_decoder(2, (1, side, side + 1), channels=(3, 2, 2))(torch.zeros(1, 2)).shape == (1, 1, side, side + 1)
    assert conv_encoder((1, side, side + 1), channels=(2, 2, 3), features=4)(torch.zeros(1, 1, side, side + 1)).shape == (1, 4)


def test_resnet_has_the_size_of_resnet_18_for_cifar() -> None:
    """11,173,962 parameters are the well-known size of ResNet-18 with a 3x3 stem and 10 classes; here without the classifier."""
    net = resnet_encoder((3, 32, 32))
    assert size(net) == 11_173_962 - 10 * (512 + 1)
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 17 + 3  # 17 in depth, 3 that match shapes in the skips
    assert sum(m.weight.numel() for m in convolutions) == 11_159_232
    with torch.no_grad():
        assert net.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 512)
        assert net(torch.zeros(1, 3, 24, 24)).shape == (1, 512)


def test_resnet_decoder_mirrors_the_encoder() -> None:
    decoder, encoder = resnet_decoder(512, (3, 32, 32)), resnet_encoder((3, 32, 32))

    def blocks(net: nn.Module) -> list[tuple[int, int]]:
        return [(m.main[0].in_channels, m.main[0].out_channels) for m in net.modules() if isinstance(m, ResidualBlock)]

    assert blocks(decoder) == [(b, a) for a, b in blocks(encoder)[::-1]]
    first, last = decoder[0], decoder[-1]
    assert (first.in_features, first.out_features) == (512, 512 * 4 * 4) and (last.in_channels, last.out_channels) == (64, 3)


def test_glorot_bounds_weights_by_their_fans_and_zeroes_biases() -> None:
    torch.manual_seed(0)
    net = glorot_(nn.Sequential(nn.Linear(300, 200), nn.Conv2d(4, 8, 3), nn.ConvTranspose2d(8, 4, 3), nn.BatchNorm2d(4)))
    for layer, fans in ((net[0], 500), (net[1], 9 * 12), (net[2], 9 * 12)):
        bound = math.sqrt(6 / fans)
        assert 0.97 * bound < layer.weight.abs().max() <= bound
        assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1) and (layer.bias == 0).all()
    assert (net[3].weight == 1).all()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Layer(0), "a layer of width 0 has no units"),
        (lambda: Layer(3, dropout=1.0), "dropout 1.0 is no probability"),
        (lambda: mlp(0, [3], 2), r"mlp\(0, ..., 2\)"),
        (lambda: mlp(3, [], None), r"mlp\(3, \[\], None\) has no layers"),
        (lambda: mlp((2, 3), [4], 1)(torch.zeros(5, 7)), r"takes 6 numbers per example, \[2, 3\], and was given 7"),
        (lambda: conv_encoder((28, 28), features=3), r"conv_encoder: an image is \(channels, height, width\).*\(28, 28\)"),
        (lambda: conv_encoder((1, 28, 28), channels=(), features=3), r"channels \(\): give the width of at least one stage"),
        (lambda: conv_decoder(0, (1, 28, 28)), "conv_decoder: .* at least 1"),
        (lambda: resnet_encoder((3, 30, 32)), "multiples of 8 for 4 stages: pad the 30 x 32 images"),
        (lambda: resnet_decoder(8, (3, 32, 32), blocks=(1, 1)), r"blocks \(1, 1\) need one number per stage"),
    ],
)
def test_wrong_arguments_are_told(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
