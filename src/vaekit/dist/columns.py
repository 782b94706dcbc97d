r"""A row of a table: columns of different kinds, independent of each other, scored in the units of the table.

.. math:: \log p(x) = \sum_d \log p_d(u_d) + \log \left| \frac{du_d}{dx_d} \right|

What is modelled is u = (x - loc) / scale, or u = (log x - loc) / scale of positive columns; log |du/dx| makes the log-density that of x, so
that nats compare across choices of scale and transform. Counts and classes are not scaled and have no such term.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from vaekit.dist.core import SampleShape, centre, log_prob_observed, log_prob_parts

__all__ = ["Columns", "EachColumn"]


class EachColumn(constraints.Constraint):
    """What each column of a row may hold, checked entry by entry.

    Args:
        supports: of each group of columns; None where it does not say, which takes all finite numbers.
        columns: the places of each group in a row, int64 ``[size]``.
        order: the places that put the groups, one after the other, back into the row's order; None for one group that is the row.
    """

    def __init__(self, supports: Sequence[constraints.Constraint | None], columns: Sequence[Tensor], order: Tensor | None) -> None:
        self.supports, self.columns, self.order = supports, columns, order

    def check(self, value: Tensor) -> Tensor:
        found = []
        for support, index in zip(self.supports, self.columns, strict=True):
            x = value if self.order is None else value.index_select(-1, index)
            each = support.base_constraint if isinstance(support, constraints.independent) else support
            found.append(torch.isfinite(x) if each is None else each.check(x))
        return in_order(found, self.order)

    def __repr__(self) -> str:
        return f"columns of {', '.join(dict.fromkeys(str(getattr(s, 'base_constraint', s)) for s in self.supports))}"


class Columns(Distribution):
    """Independent groups of columns, each group one distribution over a vector.

    Args:
        parts: distributions of one batch shape ``[*batch]``, events ``[n_g]``.
        columns: for each the numbers of its columns in the table, int64 ``[n_g]``; together all of 0 ... D - 1.
        order: int64 ``[D]``, where each column of the table lies among the groups' one after the other; None where there is one group,
            in the table's order.
        volume: None, or ``(a, b)``, ``[D]`` each: a_d + b_d u_d is log |du/dx|. For u = (x - loc) / scale that is -log scale and 0, for
            u = (log x - loc) / scale it is -log scale - loc and -scale.

    Shapes: x holds u ``[*batch, D]``; ``sample(shape)`` is ``[*shape, *batch, D]`` in the same units; ``log_prob`` (nats of the original
    columns) ``[*shape, *batch]``. `dist.centre`: each group's own.

    >>> from vaekit.dist import Bernoulli, DiagGaussian
    >>> index = torch.tensor([0, 2]), torch.tensor([1])
    >>> d = Columns([DiagGaussian(torch.zeros(2), torch.zeros(2)), Bernoulli(torch.zeros(1))], index, torch.tensor([0, 2, 1]))
    >>> log_prob_parts(d, torch.zeros(3))
    tensor([-0.9189, -0.6931, -0.9189])
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012

    def __init__(
        self,
        parts: Sequence[Distribution],
        columns: Sequence[Tensor],
        order: Tensor | None,
        *,
        volume: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self.parts, self.columns, self.order, self.volume = tuple(parts), tuple(columns), order, volume
        self.has_rsample = all(part.has_rsample for part in parts)
        size = sum(part.event_shape.numel() for part in parts)
        super().__init__(parts[0].batch_shape, torch.Size([size]), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(EachColumn([part.support for part in self.parts], self.columns, self.order), 1)

    @property
    def mean(self) -> Tensor:
        """Each group's `dist.centre`: the mean, the mode of classes."""
        return in_order([centre(part) for part in self.parts], self.order)

    def expand(self, batch_shape: SampleShape, _instance: Distribution | None = None) -> Columns:
        return Columns([part.expand(batch_shape) for part in self.parts], self.columns, self.order, volume=self.volume)

    def rsample(self, sample_shape: SampleShape = ()) -> Tensor:
        return in_order([part.rsample(sample_shape) for part in self.parts], self.order)

    def sample(self, sample_shape: SampleShape = ()) -> Tensor:
        with torch.no_grad():
            return in_order([part.sample(sample_shape) for part in self.parts], self.order)

    def log_prob(self, value: Tensor) -> Tensor:
        return _total(self, value, None)


def in_order(values: list[Tensor], order: Tensor | None) -> Tensor:
    """Groups of columns, as the columns lie in the table."""
    return values[0] if order is None else torch.cat(values, -1).index_select(-1, order)


@log_prob_parts.register
def _(d: Columns, x: Tensor) -> Tensor:
    parts = in_order([log_prob_parts(part, mine) for part, mine in zip(d.parts, _own(d, x), strict=True)], d.order)
    return parts if d.volume is None else parts + torch.addcmul(d.volume[0], d.volume[1], x)


@log_prob_observed.register
def _(d: Columns, x: Tensor, mask: Tensor | None) -> Tensor:
    return _total(d, x if mask is None else torch.where(mask, x, torch.zeros_like(x)), mask)


def _own(d: Columns, x: Tensor) -> list[Tensor]:
    """Each group's columns of x."""
    return [x] if d.order is None else [x.index_select(-1, index) for index in d.columns]


def _total(d: Columns, x: Tensor, mask: Tensor | None) -> Tensor:
    """The sum over the columns, group by group: joined first, all kinds would become one huge kernel, slow to compile and to run."""
    seen = [None] * len(d.parts) if mask is None else _own(d, mask)
    found = [_summed(log_prob_parts(part, mine), own) for part, mine, own in zip(d.parts, _own(d, x), seen, strict=True)]
    total = torch.stack(found).sum(0)
    return total if d.volume is None else total + _summed(torch.addcmul(d.volume[0], d.volume[1], x), mask)


def _summed(parts: Tensor, mask: Tensor | None) -> Tensor:
    return (parts if mask is None else torch.where(mask, parts, torch.zeros_like(parts))).sum(-1)
