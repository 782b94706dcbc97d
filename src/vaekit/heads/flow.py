r"""Heads for normalising-flow posteriors: a diagonal Gaussian and the parameters of every transform after it, all from the network.

h = (mu, log sigma^2, parameters of flow 1, of flow 2, ...). At h = 0 each is the standard normal distribution: the flow starts as the
identity, so that training starts as with a `Gaussian` and a flow has to earn what it does.
What the identity leaves open (the direction that a planar flow looks along, ...) is set by fixed numbers that are added to h, different for
each flow: at exactly 0 the derivatives of several flows would vanish, and all flows would be alike. A last layer of the usual random
weights starts away from h = 0, with transforms that differ from one x to the next; set its rows for the flows to 0 to start there.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence

import torch
import zuko
from torch import Tensor
from torch.distributions import Distribution
from zuko.distributions import NormalizingFlow

from vaekit import dist
from vaekit.dist import DiagGaussian, Flow, Transform
from vaekit.errors import InputError
from vaekit.heads.core import Head
from vaekit.heads.discrete import at_least

__all__ = [
    "IAF",
    "FlowHead",
    "Householder",
    "HouseholderSylvester",
    "OrthogonalSylvester",
    "Planar",
    "Radial",
    "TriangularSylvester",
]


def directions(flows: int, latent: int) -> Tensor:
    """``flows`` unit vectors that point anywhere, the same at every call: no part of a model's state."""
    v = torch.randn(flows, latent, generator=torch.Generator().manual_seed(0))
    return v / v.norm(dim=-1, keepdim=True)


class FlowHead(Head):
    """N(mu, diag(sigma^2)) carried through ``flows`` transforms, z ``[*batch, D]`` (`dist.Flow`).

    Args:
        latent: D.
        flows: number of flows.
        numbers: parameters of one flow.

    Implementing a FlowHead:
        1. Call ``super().__init__(latent, flows, numbers)``.
        2. Write ``transforms(flow, h)`` for the ``numbers`` numbers of the flow with that number, h ``[*batch, numbers]``.
        3. Add one row to ``POSTERIORS`` in ``tests/tables.py``.

    Raises:
        InputError: no flow.
    """

    def __init__(self, latent: int, flows: int, numbers: int) -> None:
        at_least(type(self).__name__, "flows", flows, 1)
        super().__init__(latent, features=2 * latent + flows * numbers)
        self.flows = flows
        self._numbers = numbers

    @abc.abstractmethod
    def transforms(self, flow: int, h: Tensor) -> Sequence[Transform]:
        """The transforms of flow number ``flow``, in the order of sampling. h ``[*batch, numbers]``."""

    def distribution(self, h: Tensor) -> Distribution:
        loc, log_variance, *parameters = h.split([self.size, self.size, *[self._numbers] * self.flows], -1)
        transforms = [t for k, part in enumerate(parameters) for t in self.transforms(k, part)]
        return Flow(DiagGaussian(loc, 0.5 * log_variance), transforms)


class Planar(FlowHead):
    """`dist.Planar` flows: 2 D + 1 numbers each, (u, w, b). w is added to a fixed unit vector, so at h = 0 u, and with it the flow, is 0.

    Args:
        latent: D, dimensions of z.
        flows: number of flows, at least 1.

    Raises:
        InputError: no flow.

    >>> head = Planar(3, flows=4)
    >>> head.features, head(torch.zeros(5, 34)).rsample((2,)).shape
    (34, torch.Size([2, 5, 3]))
    """

    toward: Tensor

    def __init__(self, latent: int, *, flows: int) -> None:
        super().__init__(latent, flows, 2 * latent + 1)
        self.register_buffer("toward", directions(flows, latent), persistent=False)

    def transforms(self, flow: int, h: Tensor) -> Sequence[Transform]:
        u, w, b = h.split([self.size, self.size, 1], -1)
        return [dist.Planar(w + self.toward[flow], u, b.squeeze(-1))]


class Radial(FlowHead):
    """`dist.Radial` flows: D + 2 numbers each, (centre, a, g). The centre is added to a fixed unit vector; at h = 0 beta is 0.

    Args:
        latent: D, dimensions of z.
        flows: number of flows, at least 1.

    Raises:
        InputError: no flow.

    >>> Radial(3, flows=4).features
    26
    """

    toward: Tensor

    def __init__(self, latent: int, *, flows: int) -> None:
        super().__init__(latent, flows, latent + 2)
        self.register_buffer("toward", directions(flows, latent), persistent=False)

    def transforms(self, flow: int, h: Tensor) -> Sequence[Transform]:
        at, a, g = h.split([self.size, 1, 1], -1)
        return [dist.Radial(at + self.toward[flow], a.squeeze(-1), g.squeeze(-1))]


class Householder(FlowHead):
    """`dist.Householder` reflections: D numbers each. A Gaussian stays one, with a full covariance at no cost in density.

    v is added to an axis, the same for two flows in a row: at h = 0 they undo each other. The last of an odd number changes a sign.

    Args:
        latent: D, dimensions of z.
        flows: number of flows, at least 1.

    Raises:
        InputError: no flow.

    >>> Householder(3, flows=4).features
    18
    """

    axes: Tensor

    def __init__(self, latent: int, *, flows: int) -> None:
        super().__init__(latent, flows, latent)
        self.register_buffer("axes", torch.eye(latent), persistent=False)

    def transforms(self, flow: int, h: Tensor) -> Sequence[Transform]:
        return [dist.Householder(h + self.axes[flow // 2 % self.size])]


def triangular(h: Tensor, m: int) -> dist.Triangular:
    """From M^2 + 2 M numbers: a matrix whose upper triangle is R's and whose lower one is R~^T's, the diagonal of R~, and b.

    R~ is added to the identity (tanh(1) times it), because at R = R~ = 0 no derivative would lead away.
    """
    matrix, diagonal, b = h.split([m * m, m, m], -1)
    r = matrix.unflatten(-1, (m, m))
    return dist.Triangular(r, r.mT.triu(1) + torch.diag_embed(1 + diagonal), b)


class OrthogonalSylvester(FlowHead):
    """`dist.Sylvester` flows with M = ``columns`` orthonormal directions: M D + M^2 + 2 M numbers each.

    Q is made orthonormal from the network's D x M numbers, added to the first M axes, turned on by M from flow to flow; at h = 0 R is 0.

    Args:
        latent: D, dimensions of z.
        flows: number of flows, at least 1.
        columns: M, from 1 to D.

    Raises:
        InputError: no flow; ``columns`` not in 1 ... D.

    >>> OrthogonalSylvester(5, flows=4, columns=2).features
    82
    """

    axes: Tensor

    def __init__(self, latent: int, *, flows: int, columns: int) -> None:
        if not 1 <= columns <= latent:
            raise InputError(f"OrthogonalSylvester(columns={columns}): Q has from 1 to {latent} orthonormal columns in {latent} dimensions")
        super().__init__(latent, flows, columns * (latent + columns + 2))
        self.columns = columns
        self.register_buffer("axes", torch.eye(latent), persistent=False)

    def transforms(self, flow: int, h: Tensor) -> Sequence[Transform]:
        d, m = self.size, self.columns
        matrix, rest = h.split([d * m, m * (m + 2)], -1)
        start = self.axes.roll(flow * m, 0)[:, :m]
        return [dist.Sylvester(dist.orthonormal(matrix.unflatten(-1, (d, m)) + start), triangular(rest, m))]


class HouseholderSylvester(FlowHead):
    """`dist.Triangular` flows between Q^T and Q, Q a product of H = ``reflections``: H D + D^2 + 2 D numbers each.

    The reflections' vectors are added to axes; at h = 0 R is 0.

    Args:
        latent: D, dimensions of z.
        flows: number of flows, at least 1.
        reflections: H, at least 1.

    Raises:
        InputError: no flow, or no reflection.

    >>> HouseholderSylvester(5, flows=4, reflections=2).features
    190
    """

    axes: Tensor

    def __init__(self, latent: int, *, flows: int, reflections: int) -> None:
        self.reflections = at_least("HouseholderSylvester", "reflections", reflections, 1)
        super().__init__(latent, flows, latent * (reflections + latent + 2))
        self.register_buffer("axes", torch.eye(latent), persistent=False)

    def transforms(self, flow: int, h: Tensor) -> Sequence[Transform]:
        d, n = self.size, self.reflections
        *vectors, rest = h.split([*[d] * n, d * (d + 2)], -1)
        q = [dist.Householder(v + self.axes[(flow * n + i) % d]) for i, v in enumerate(vectors)]
        return [*q, triangular(rest, d), *reversed(q)]


class TriangularSylvester(FlowHead):
    """`dist.Triangular` flows, every second one with the dimensions in the opposite order: D^2 + 2 D numbers each. At h = 0 R is 0.

    Args:
        latent: D, dimensions of z.
        flows: number of flows, at least 1.

    Raises:
        InputError: no flow.

    >>> TriangularSylvester(5, flows=4).features
    150
    """

    def __init__(self, latent: int, *, flows: int) -> None:
        super().__init__(latent, flows, latent * (latent + 2))

    def transforms(self, flow: int, h: Tensor) -> Sequence[Transform]:
        inside = triangular(h, self.size)
        return [dist.Reversal(), inside, dist.Reversal()] if flow % 2 else [inside]


class IAF(Head):
    r"""Inverse autoregressive flow: N(mu, diag(sigma^2)), then affine autoregressive steps that see ``context`` numbers of the network.

    h = (mu, log sigma^2, context). The steps are zuko's masked autoregressive transforms, inverted, so that a sample takes one pass and the
    density of an outside point D. The networks' last layers start at 0: the flow starts as the identity.

    Kingma, Salimans, Jozefowicz, Chen, Sutskever and Welling, "Improving Variational Inference with Inverse Autoregressive Flow", 2016.

    Args:
        latent: D.
        flows: number of autoregressive steps; the order of the dimensions is reversed from one to the next.
        hidden: widths of the hidden layers of each step's network.
        context: numbers that each step sees besides z.

    Raises:
        InputError: no flow, or no context.

    >>> _ = torch.manual_seed(0)
    >>> head = IAF(3, flows=2, hidden=(16,), context=4)
    >>> head.features, head(torch.zeros(5, 10)).rsample((2,)).shape
    (10, torch.Size([2, 5, 3]))
    """

    def __init__(self, latent: int, *, flows: int, hidden: Sequence[int], context: int) -> None:
        at_least("IAF", "flows", flows, 1)
        at_least("IAF", "context", context, 1)
        super().__init__(latent, features=2 * latent + context)
        self.flows = flows
        self.context = context
        self.transform = zuko.flows.MAF(latent, context=context, transforms=flows, hidden_features=tuple(hidden)).transform
        for step in self.transform.transforms:
            for parameter in step.hyper[-1].parameters():
                torch.nn.init.zeros_(parameter)

    def distribution(self, h: Tensor) -> Distribution:
        loc, log_variance, c = h.split([self.size, self.size, self.context], -1)
        return NormalizingFlow(self.transform(c).inv, DiagGaussian(loc, 0.5 * log_variance))
