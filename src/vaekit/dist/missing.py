r"""Observed values together with which of them were observed, where that depends on the values themselves.

.. math:: p(x_{obs}, m | z, u) = p(x_{obs} | z) \, p(m | x_{obs}, u_{mis}), \qquad u \sim p(x | z)

u stands for the values that nobody saw, as one more latent: with z and u given, everything is a density that can be scored.

Ipsen, Mattei and Frellsen, "not-MIWAE: Deep Generative Modelling with Missing not at Random Data", ICLR 2021.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from vaekit.dist.columns import Columns
from vaekit.dist.core import SampleShape, centre, log_prob_observed, log_prob_parts

__all__ = ["Missing", "drawable"]

LogMask = Callable[[Tensor, Tensor], Tensor]
"""(x ``[*batch, 2 D]``: values and whether they are known, as 0 and 1; m bool ``[*batch, D]``) -> log p(m_d | x) ``[*batch, D]``."""


class Missing(Distribution):
    """p(x, m | z, u), scored by `dist.log_prob_observed`; a sample is x ~ p(x | z) with u where u has a value.

    Ipsen, Mattei and Frellsen, "not-MIWAE: Deep Generative Modelling with Missing not at Random Data", ICLR 2021.

    Args:
        px: p(x | z), batch shape ``[*batch]``, events ``[D]``.
        u: values to stand for those that are missing, ``[*batch, U]``.
        places: int64 ``[U]``, their columns of x; None for all of them.
        log_mask: log p(m_d | x), see `LogMask`.

    Shapes: ``log_prob`` ``[*batch]`` in nats, of rows where everything was observed. `dist.centre` is that of p(x | z).

    >>> from vaekit.dist import DiagGaussian
    >>> px = DiagGaussian(torch.zeros(1, 1, 2), torch.zeros(2))
    >>> d = Missing(px, torch.full((1, 1, 2), 3.0), None, lambda x, m: torch.where(m, -x[..., :2], -1.0))
    >>> log_prob_observed(d, torch.tensor([[0.0, float("nan")]]), torch.tensor([[True, False]]))
    tensor([[-1.9189]])
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012

    def __init__(self, px: Distribution, u: Tensor, places: Tensor | None, log_mask: LogMask) -> None:
        self.px, self.u, self.places, self.log_mask = px, u, places, log_mask
        super().__init__(px.batch_shape, px.event_shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint | None:
        return self.px.support

    @property
    def mean(self) -> Tensor:
        return centre(self.px)

    def sample(self, sample_shape: SampleShape = ()) -> Tensor:
        with torch.no_grad():
            return self.put(self.px.sample(sample_shape), self.u)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.px.log_prob(value) + self._mask_parts(value, None).sum(-1)

    def put(self, x: Tensor, u: Tensor) -> Tensor:
        """x ``[*shape, D]`` with u ``[*batch, U]`` in its places."""
        if self.places is None:
            return u.expand(x.shape)
        return x.index_copy(-1, self.places, u.expand(*x.shape[:-1], u.shape[-1]))

    def _mask_parts(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """log p(m_d | x_obs, u_mis), ``[*batch, D]``."""
        x = x.expand(torch.broadcast_shapes(x.shape, (*self.batch_shape, *self.event_shape)))
        m = torch.ones_like(x, dtype=torch.bool) if mask is None else mask.expand(x.shape)
        made = self.put(torch.zeros_like(x), self.u)
        known = m | self.put(torch.zeros_like(x), torch.ones_like(self.u)).bool()
        return self.log_mask(torch.cat([torch.where(m, x, made), known.to(x.dtype)], -1), m)


@log_prob_observed.register
def _(d: Missing, x: Tensor, mask: Tensor | None) -> Tensor:
    return log_prob_observed(d.px, x, mask) + d._mask_parts(x, mask).sum(-1)


@log_prob_parts.register
def _(d: Missing, x: Tensor) -> Tensor:
    return log_prob_parts(d.px, x) + d._mask_parts(x, None)


def drawable(d: Distribution) -> tuple[Distribution, Tensor | None]:
    """The entries of a row that can be drawn with a gradient, and their columns, int64 ``[size]`` (None for all): of `Columns` the
    groups of such kinds."""
    if not isinstance(d, Columns):
        return d, None
    found = [(part, index) for part, index in zip(d.parts, d.columns, strict=True) if part.has_rsample]
    places = torch.cat([index for _, index in found])
    at = torch.arange(len(places), device=places.device)
    own = at.split([len(index) for _, index in found])
    return Columns([part for part, _ in found], own, at if len(found) > 1 else None), places
