r"""Does p(x | z) spread as far as the data do? The share of x inside its central intervals, and its place in p(x | z).

.. math:: u = F(x | z), \qquad z \sim q(z | x)

With the true model and its posterior, (x, z) has the model's joint distribution and u is uniform on [0, 1]: 80% of x lie in the central 80%
interval. Too many inside: the decoder's distribution is too wide. For grey levels u is drawn between F just below x and F at x, which
makes it uniform too (Smith, "Diagnostic checks of non-standard time series models", 1985; Dawid, 1984).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import singledispatch

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent

from vaekit.dist import ContinuousBernoulli, DiagGaussian, DiscretisedLogistic, is_discrete
from vaekit.types import Batch

__all__ = ["NOMINAL", "Calibration", "Intervals", "place"]

NOMINAL = (0.5, 0.8, 0.95)
"""Masses of the central intervals."""
BINS = 20


@dataclass(frozen=True)
class Calibration:
    """Interval coverage; ``_se`` is the standard error over examples of the mean of each one's share of entries.

    Attributes:
        nominal: masses of the intervals.
        coverage: share of the (observed) entries of x that lie in them.
        places: share of the entries in each of 20 equal bins of u = F(x | z); .05 each where p(x | z) fits.
    """

    nominal: tuple[float, ...]
    coverage: tuple[float, ...]
    coverage_se: tuple[float, ...]
    places: tuple[float, ...]


@singledispatch
def place(d: Distribution, x: Tensor) -> Tensor | None:
    """u = F(x), F of d, entry by entry, ``[*batch, *event]``, randomised for grey levels; None where no distribution function is known.

    A `Bernoulli` has none here: of two values no interval says anything.

    >>> place(DiagGaussian(torch.zeros(1, 2), torch.zeros(2)), torch.tensor([0.0, 1.0]))
    tensor([[0.5000, 0.8413]])
    """
    if is_discrete(d) or d.event_shape:
        return None
    try:
        return d.cdf(x)
    except NotImplementedError:
        return None


@place.register
def _(d: Independent, x: Tensor) -> Tensor | None:
    return place(d.base_dist, x)


@place.register
def _(d: DiagGaussian, x: Tensor) -> Tensor | None:
    return torch.special.ndtr((x - d.loc) * torch.exp(-d.log_scale))


@place.register
def _(d: ContinuousBernoulli, x: Tensor) -> Tensor | None:
    """(e^(eta x) - 1) / (e^eta - 1), from the end where the exponentials do not overflow."""
    eta = d.logits
    a = eta.abs().clamp(min=1e-3)
    y = torch.where(eta > 0, 1 - x, x)  # the density falls with y at the rate a
    falling = torch.expm1(-a * y) / torch.expm1(-a)
    u = torch.where(eta > 0, 1 - falling, falling)
    return torch.where(eta.abs() < 1e-3, x * (1 - 0.5 * eta * (1 - x)), u)


@place.register
def _(d: DiscretisedLogistic, x: Tensor) -> Tensor | None:
    n = d.bins - 1
    level = (x * n).round()
    m, scale = d.loc * n, d.log_scale.exp() * n
    upper = torch.where(level > n - 0.5, torch.ones_like(m), torch.sigmoid((level + 0.5 - m) / scale))
    lower = torch.where(level < 0.5, torch.zeros_like(m), torch.sigmoid((level - 0.5 - m) / scale))
    return torch.lerp(lower, upper, torch.rand_like(m))


class Intervals:
    """Running sums over batches, from which `result` makes a `Calibration`."""

    def __init__(self) -> None:
        self.known = True
        self.inside: list[Tensor] = []
        self.places = torch.zeros(BINS, dtype=torch.float64)

    def add(self, px: Distribution, batch: Batch, skip: int = 0) -> None:
        """Count the entries of a batch under p(x | z), batch shape ``[K, B]``, without its first ``skip`` samples."""
        u = place(px, batch.input) if self.known else None
        if u is None:
            self.known = False
            return
        u = u[skip:].double()
        seen = torch.ones_like(u, dtype=torch.bool) if batch.mask is None else batch.mask.expand_as(u)
        away = 2 * (u - 0.5).abs()
        count = seen.flatten(2).sum((0, 2))
        shares = [((away <= mass) & seen).flatten(2).sum((0, 2)) / count for mass in NOMINAL]
        self.inside.append(torch.stack(shares, -1)[count > 0].double().cpu())
        self.places += torch.histc(u[seen], BINS, 0.0, 1.0).cpu()

    def result(self) -> Calibration | None:
        """None where p(x | z) has no distribution function, or nothing was observed."""
        values = torch.cat(self.inside) if self.inside else torch.empty(0, len(NOMINAL))
        if not self.known or not len(values):
            return None
        se = (values.std(0) / math.sqrt(len(values))).tolist() if len(values) > 1 else [math.nan] * len(NOMINAL)
        places = (self.places / self.places.sum()).tolist()
        return Calibration(NOMINAL, tuple(values.mean(0).tolist()), tuple(se), tuple(places))
