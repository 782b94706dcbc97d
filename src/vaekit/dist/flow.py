r"""Normalising flows whose parameters come with each example: a simple distribution, carried through a chain of transforms.

.. math:: z_0 \sim q_0, \quad z_t = f_t(z_{t-1}), \qquad \log q(z_T) = \log q_0(z_0) - \sum_t \log |\det \partial f_t / \partial z_{t-1}|

The density of an own sample costs nothing beyond the sample; that of any other point needs every f_t undone. The transforms are in
`vaekit.dist.transforms`; a zuko flow is a ``NormalizingFlow``, which the package treats alike.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, constraints

from vaekit.dist.core import SampleShape, centre, describe, draw, tempered
from vaekit.errors import InputError

__all__ = ["Flow", "Invertible", "Transform"]


class Transform(abc.ABC):
    """y = f(z) on vectors of D numbers, with its own parameters for each example.

    Implementing a Transform:
        1. Hold parameters ``[*batch, ...]``; z is ``[*samples, *batch, D]``, so that they broadcast.
        2. ``forward(z)`` returns y and log |det dy/dz|, whatever finite numbers the parameters are made from.
        3. Where it can be undone, derive from `Invertible` instead.
        4. Write products of matrices out, ``(a * z.unsqueeze(-2)).sum(-1)``: mixed precision would round a matrix product.
    """

    @abc.abstractmethod
    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """y ``[*samples, *batch, D]`` and log |det dy/dz| ``[*samples, *batch]``."""


class Invertible(Transform):
    """A transform that can be undone.

    Implementing an Invertible: as a `Transform`, and ``inverse(y)``, differentiable in y and in the parameters.
    """

    @abc.abstractmethod
    def inverse(self, y: Tensor) -> Tensor:
        """z ``[*samples, *batch, D]`` with ``forward(z)[0] == y``."""


class Flow(Distribution):
    r"""The distribution of f_T(... f_1(z_0)) for z_0 ~ ``base``.

    Rezende and Mohamed, "Variational Inference with Normalizing Flows", ICML 2015.

    Args:
        base: a distribution of vectors, batch shape ``[*batch]``.
        transforms: f_1 ... f_T in the order of sampling.

    Shapes: ``rsample(shape)`` is ``[*shape, *batch, D]``; ``log_prob`` (nats) ``[*shape, *batch]``.

    Raises:
        InputError: the base's events are no vectors; at ``log_prob``, a transform without inverse.

    >>> from vaekit.dist import DiagGaussian, Planar
    >>> _ = torch.manual_seed(0)
    >>> q = Flow(DiagGaussian(torch.zeros(4, 2), torch.zeros(4, 2)), [Planar(torch.randn(4, 2), torch.randn(4, 2), torch.zeros(4))])
    >>> z, log_q = draw(q, torch.Size([3]))
    >>> z.shape, bool((q.log_prob(z) - log_q).abs().max() < 1e-5)
    (torch.Size([3, 4, 2]), True)
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012

    def __init__(self, base: Distribution, transforms: Sequence[Transform]) -> None:
        if len(base.event_shape) != 1:
            raise InputError(
                f"Flow: {describe(base)} has events {list(base.event_shape)}, and a flow takes vectors: wrap it into Independent(..., 1)"
            )
        self.base = base
        self.transforms = tuple(transforms)
        self.has_rsample = base.has_rsample
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.real, 1)

    def expand(self, batch_shape: SampleShape, _instance: Distribution | None = None) -> Flow:
        return Flow(self.base.expand(batch_shape), self.transforms)  # the transforms' parameters broadcast

    def push(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z_T from z_0, ``[*shape, *batch, D]``, and the sum of the log-determinants, ``[*shape, *batch]`` nats."""
        log_det = torch.zeros((), dtype=z.dtype, device=z.device)
        for transform in self.transforms:
            z, change = transform.forward(z)
            log_det = log_det + change
        return z, log_det

    def rsample(self, sample_shape: SampleShape = ()) -> Tensor:
        return self.push(self.base.rsample(sample_shape))[0]

    def sample(self, sample_shape: SampleShape = ()) -> Tensor:
        with torch.no_grad():
            return self.push(self.base.sample(sample_shape))[0]

    def log_prob(self, value: Tensor) -> Tensor:
        z, log_det = value, torch.zeros((), dtype=value.dtype, device=value.device)
        for transform in reversed(self.transforms):
            if not isinstance(transform, Invertible):
                raise InputError(
                    f"a flow with no inverse ({type(transform).__name__}) was asked for the density of an outside point: it knows that of "
                    "its own samples alone; use transforms that are Invertible, or an objective that scores reparameterised samples only"
                )
            z = transform.inverse(z)
            log_det = log_det + transform.forward(z)[1]
        return self.base.log_prob(z) - log_det


@draw.register
def _(d: Flow, shape: Size, reparam: bool = True) -> tuple[Tensor, Tensor]:
    if reparam:
        z, log_q = draw(d.base, shape)
        z, log_det = d.push(z)  # the density of an own sample needs no inverse
        return z, log_q - log_det
    z = d.sample(shape)
    return z, d.log_prob(z)


@centre.register
def _(d: Flow) -> Tensor:
    return d.push(centre(d.base))[0]


@tempered.register
def _(d: Flow, temperature: float) -> Distribution:
    return Flow(tempered(d.base, temperature), d.transforms)
