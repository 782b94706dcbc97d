"""Networks on sequences of codes in which no output sees what comes after it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaekit.errors import InputError

__all__ = ["CausalTransformer"]


class CausalTransformer(nn.Module):
    """``codes [N, t] -> logits [N, t + 1, classes]``: the i-th logits are for the i-th code, given those before it alone.

    Layer normalisation before each part, learned positions, one start token. The last layer starts at 0, so that all codes are equally
    probable at first.

    Args:
        classes: number of codes.
        length: codes in a whole sequence; t is at most ``length - 1``.
        width: features at each position.
        layers: blocks of attention and a perceptron of 4 times the width.
        heads: of attention; they divide ``width``.

    Raises:
        InputError: a size below 1, heads that do not divide the width, or a sequence that is longer.

    >>> net = CausalTransformer(10, 6, width=16, layers=1, heads=2)
    >>> net(torch.zeros(3, 5, dtype=torch.int64)).shape
    torch.Size([3, 6, 10])
    """

    def __init__(self, classes: int, length: int, *, width: int = 128, layers: int = 4, heads: int = 4) -> None:
        super().__init__()
        if min(classes, length, width, layers, heads) < 1 or width % heads:
            raise InputError(
                f"CausalTransformer(classes={classes}, length={length}, width={width}, layers={layers}, heads={heads}): "
                "each is at least 1, and heads divide the width"
            )
        self.embedding = nn.Embedding(classes, width)
        self.start = nn.Parameter(torch.zeros(width))
        self.position = nn.Parameter(0.02 * torch.randn(length, width))
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, classes)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, codes: Tensor) -> Tensor:
        n, t = codes.shape
        if t >= len(self.position):
            raise InputError(f"{t} codes were given to a network for the next of {len(self.position)}: give at most one fewer")
        h = torch.cat([self.start.expand(n, 1, -1), self.embedding(codes)], 1) + self.position[: t + 1]
        logits: Tensor = self.out(self.norm(self.blocks(h)))
        return logits


class Block(nn.Module):
    """x + attention(norm(x)), then x + perceptron(norm(x)), ``[N, t, width]``."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.perceptron = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(self.norm(x)).chunk(3, -1))
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.project(seen.transpose(1, 2).flatten(2))
        y: Tensor = x + self.perceptron(x)
        return y
