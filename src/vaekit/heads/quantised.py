"""The head of a VQ-VAE's posterior: code vectors in the place of a network's numbers."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.distributions import Distribution

from vaekit import dist
from vaekit.heads.core import Head
from vaekit.quantise.core import Quantiser, field, rows

__all__ = ["Quantised"]


class Quantised(Head):
    """A point mass on the codes that a quantiser chooses for h, D numbers at each place of a grid (`dist.Quantised`).

    Args:
        quantiser: `quantise.Codebook`, `quantise.FSQ` or another.
        grid: the grid's shape: (8, 8) for the output ``[D, 8, 8]`` of a convolutional network, () for one code.

    >>> import torch
    >>> from vaekit.quantise import FSQ
    >>> q = Quantised(FSQ((3, 3)), (4, 4))(torch.zeros(5, 32))
    >>> q.event_shape, q.codes.shape
    (torch.Size([2, 4, 4]), torch.Size([5, 4, 4]))
    """

    def __init__(self, quantiser: Quantiser, grid: Sequence[int]) -> None:
        super().__init__((quantiser.dimensions, *grid))
        self.quantiser = quantiser

    def distribution(self, h: Tensor) -> Distribution:
        (z_e,) = self.split(h, 1)
        n = len(self.event_shape) - 1
        last = rows(z_e, n)
        found = self.quantiser(last.reshape(-1, last.shape[-1]))
        encoded, vectors = (field(part.reshape(last.shape), n) for part in (found.encoded, found.vectors))
        return dist.Quantised(
            encoded,
            vectors,
            found.codes.reshape(last.shape[:-1]),
            size=self.quantiser.size,
            event_dim=n + 1,
            commits=found.commits,
            learned=found.learned,
        )
