r"""A point mass: the distribution of a value that is not random.

.. math:: \int f(z) \, \delta_\mu(dz) = f(\mu)

It has no density with respect to the volume that the density of a prior refers to: log q(z) does not exist, and neither do
KL(q || p) and importance weights. A point mass on a discrete set (a code of a codebook) is another thing: there both q and p are masses.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from vaekit.dist.core import SampleShape, describe, has_density
from vaekit.errors import InputError

__all__ = ["Point"]


class Point(Distribution):
    """All mass at ``loc``; what a deterministic encoder gives.

    Args:
        loc: the point, ``[*batch, *event]``.
        event_dim: how many trailing dimensions form the event.

    Shapes: ``rsample(shape)`` is ``[*shape, *batch, *event]``, the point with its gradient.

    Raises:
        InputError: ``log_prob`` is asked for, nats that it does not have (`dist.has_density` is False).

    >>> q = Point(torch.tensor([[1.0, 2.0]]))
    >>> q.rsample((3,)).shape, q.mean, has_density(q)
    (torch.Size([3, 1, 2]), tensor([[1., 2.]]), False)
    """

    has_rsample = True
    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012

    def __init__(self, loc: Tensor, event_dim: int = 1) -> None:
        self.loc = loc
        n = loc.dim() - event_dim
        super().__init__(loc.shape[:n], loc.shape[n:], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.real, len(self.event_shape))

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return torch.zeros_like(self.loc)

    def expand(self, batch_shape: SampleShape, _instance: Distribution | None = None) -> Point:
        return Point(self.loc.expand(*batch_shape, *self.event_shape), len(self.event_shape))

    def rsample(self, sample_shape: SampleShape = ()) -> Tensor:
        return self.loc.expand(*sample_shape, *self.loc.shape)

    def sample(self, sample_shape: SampleShape = ()) -> Tensor:
        return self.rsample(sample_shape).detach()

    def log_prob(self, value: Tensor) -> Tensor:
        raise InputError(
            f"{describe(self)} has no density, so it gives no log q(z): train it with Reconstruction(), "
            "or take a posterior that has one, such as heads.Gaussian"
        )


@has_density.register
def _(d: Point) -> bool:
    return False
