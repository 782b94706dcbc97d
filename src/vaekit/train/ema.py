r"""An average of the weights over the steps.

.. math:: \bar\theta_t = \frac{1 - d}{1 - d^t} \sum_{s=1}^{t} d^{t-s} \theta_s
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vaekit.train.sharding import like

__all__ = ["EMA"]


class EMA:
    """The geometric average of a module's parameters over the steps so far, older ones forgotten by ``decay`` a step; buffers are not
    averaged.

    >>> layer = nn.Linear(1, 1, bias=False)
    >>> ema = EMA(layer, 0.5)
    >>> for step, value in enumerate((1.0, 2.0, 3.0)):
    ...     _ = nn.init.constant_(layer.weight, value)
    ...     ema.update(step)
    >>> ema.average["weight"]  # (0.25 * 1 + 0.5 * 2 + 1 * 3) / 1.75
    tensor([[2.4286]])
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.live = {name: p.detach() for name, p in module.named_parameters()}
        self.average = {name: p.clone() for name, p in self.live.items()}

    def update(self, step: int) -> None:
        """After the optimiser's step number ``step``, counted from 0."""
        torch._foreach_lerp_(list(self.average.values()), list(self.live.values()), self.weight(step))

    def weight(self, step: int) -> float:
        """What the weights after step number ``step`` count for in the average."""
        return (1 - self.decay) / (1 - self.decay ** (step + 1))

    def blend(self, weight: Tensor) -> None:
        """`update` with a `weight` that stands in a tensor ``[]``."""
        averages, live = list(self.average.values()), list(self.live.values())
        changes = torch._foreach_sub(live, averages)
        torch._foreach_mul_(changes, weight)
        torch._foreach_add_(averages, changes)

    def load(self, average: Mapping[str, Tensor]) -> None:
        """An average that was saved."""
        for name, value in average.items():
            self.average[name].copy_(like(value, self.average[name]))

    def apply(self) -> None:
        """Put the average in place of the weights, for good."""
        for name, live in self.live.items():
            live.copy_(self.average[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The module holds the average inside, and the very same weights as before afterwards."""
        kept = {name: live.clone() for name, live in self.live.items()}
        self.apply()
        try:
            yield
        finally:
            for name, live in self.live.items():
                live.copy_(kept[name])
