"""p(. | c): a network and a head. Any module that maps a tensor to a distribution will do in its place; every zuko flow is one.

Without c the head reads learned numbers: `Learned`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaekit.errors import InputError
from vaekit.heads.core import Head

__all__ = ["Conditional", "Learned"]


class Conditional(nn.Module):
    r"""p(. | c) = head(net(c)).

    The one place where leading dimensions ([B] or [K, B]) are flattened for networks: ``net`` sees ``[N, *event]`` and returns
    ``[N, ...]``; ``head`` sees ``[*batch, features]`` and returns a distribution with that batch shape.

    Args:
        net: ``[N, *event] -> [N, ...]``.
        head: ``[*batch, features] -> Distribution``: one of `vaekit.heads`, or a flow with ``context=features``.
        event_dim: number of trailing dimensions of c that form one input: 1 for a latent vector, 3 for an image.

    >>> import torch
    >>> from vaekit import heads
    >>> likelihood = Conditional(nn.Linear(2, 784), heads.Bernoulli((1, 28, 28)))
    >>> px = likelihood(torch.zeros(5, 8, 2))
    >>> px.batch_shape, px.event_shape
    (torch.Size([5, 8]), torch.Size([1, 28, 28]))
    """

    def __init__(self, net: nn.Module, head: nn.Module, event_dim: int = 1) -> None:
        super().__init__()
        self.net = net
        self.head = head
        self.event_dim = event_dim

    def forward(self, c: Tensor) -> Distribution:
        """c ``[*batch, *event]`` -> a distribution of batch shape ``[*batch]``.

        Raises:
            InputError: c has no batch dimension before its ``event_dim`` event dimensions.
        """
        if c.dim() <= self.event_dim:
            raise InputError(f"an input of shape {list(c.shape)} has no batch dimension before its {self.event_dim} event dimension(s)")
        batch, event = c.shape[: c.dim() - self.event_dim], c.shape[c.dim() - self.event_dim :]
        h = self.net(c.reshape(-1, *event)).flatten(1)
        return self.head(h.unflatten(0, batch))


class Learned(nn.Module):
    """p(.) = head(h) with the numbers h learned: any head as a prior, or as a family to fit to a density (`vaekit.infer.fit_density`).

    h starts as N(0, std^2), from torch's generator, so that parts of a head that are alike can part.

    Args:
        head: ``[features] -> Distribution``, of batch shape ().
        std: of the starting values.

    >>> from vaekit import heads
    >>> _ = torch.manual_seed(0)
    >>> p = Learned(heads.Planar(2, flows=8))
    >>> p().sample((5,)).shape, p.h.shape
    (torch.Size([5, 2]), torch.Size([44]))
    """

    def __init__(self, head: Head, *, std: float = 0.1) -> None:
        super().__init__()
        self.head = head
        self.h = nn.Parameter(std * torch.randn(head.features))

    def forward(self) -> Distribution:
        return self.head(self.h)
