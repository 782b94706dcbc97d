"""The head of a deterministic encoder."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Distribution

from vaekit import dist
from vaekit.heads.core import Head

__all__ = ["Point"]


class Point(Head):
    """All of q(z | x) at one point, z = h: with it a `VAE` is a plain autoencoder (`dist.Point`).

    Train it with `objectives.Reconstruction`: a point has no density, hence no KL, no bound and no likelihood, and whatever asks for
    log q(z | x) is refused. Nothing pulls the codes towards p(z), so that ``sample`` decodes latents the decoder may never have met.

    Args:
        event_shape: shape of z, an int for a vector.

    >>> import torch
    >>> head = Point(2)
    >>> head.features, head(torch.tensor([[3.0, 4.0]])).rsample()
    (2, tensor([[3., 4.]]))
    """

    def distribution(self, h: Tensor) -> Distribution:
        (loc,) = self.split(h, 1)
        return dist.Point(loc, len(self.event_shape))
