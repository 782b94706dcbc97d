r"""The head for a row of a table: every column has its own kind of distribution, and its own units.

.. math:: \log p(x | h) = \sum_d \log p_d(u_d | h_d) + \log \left| \frac{du_d}{dx_d} \right|

===================================  =====================================================================  ================
Kind                                 what u holds                                                           numbers from h
===================================  =====================================================================  ================
``gaussian``                         (x - loc) / scale; with ``log`` (log x - loc) / scale: log-normal x    2
``student``                          likewise, with outliers                                                2
``continuous_bernoulli``             (x - loc) / scale in [0, 1]                                            1
``discretised_logistic``             (x - loc) / scale = k / (size - 1), a mass for each of size levels     2
``bernoulli``                        0 or 1                                                                 1
``categorical``                      class 0 ... size - 1                                                   size
``ordinal``                          class 0 ... size - 1, in order                                         1
``poisson``                          a count                                                                1
``negative_binomial``                a count                                                                1
``zero_inflated_poisson``            a count                                                                2
``zero_inflated_negative_binomial``  a count                                                                2
===================================  =====================================================================  ================
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaekit import dist
from vaekit.errors import InputError, nearest
from vaekit.heads.binary import Bernoulli, ContinuousBernoulli
from vaekit.heads.classes import Classes, Ordinal
from vaekit.heads.core import Head
from vaekit.heads.counts import Count, NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial, ZeroInflatedPoisson
from vaekit.heads.discrete import DiscretisedLogistic
from vaekit.heads.gaussian import Gaussian
from vaekit.heads.positive import StudentT
from vaekit.nn.columns import ColumnsInput

__all__ = ["KINDS", "Column", "Columns", "Kind"]


@dataclass(frozen=True)
class Column:
    """What a column of a table holds. Plain values all, so that a table is described by numbers and words.

    Attributes:
        kind: a name of the table above.
        loc, scale: u = (x - loc) / scale; counts and classes are not scaled.
        log: u = (log x - loc) / scale, of a column of positive numbers.
        size: number of classes, or of levels; 0 for a kind that has none.
        min_scale: of a Gaussian or Student column, in units of u: the smallest standard deviation. Half a rounding step is a good floor.

    Raises:
        InputError: an unknown kind; a scale that is not positive and finite; a scale, a logarithm or a size for a kind without, or none for
            one with.

    >>> Column("gaussian", loc=3.0, scale=2.0, log=True)
    Column(kind='gaussian', loc=3.0, scale=2.0, log=True, size=0, min_scale=0.0)
    """

    kind: str
    loc: float = 0.0
    scale: float = 1.0
    log: bool = False
    size: int = 0
    min_scale: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f'Column(kind="{self.kind}"): no such kind; {nearest(self.kind, KINDS)}')
        kind = KINDS[self.kind]
        if not (math.isfinite(self.loc) and 0 < self.scale < math.inf):
            raise InputError(f"{self}: loc must be finite and scale positive and finite")
        if not kind.scales and (self.loc, self.scale) != (0.0, 1.0):
            raise InputError(f"{self}: classes and counts are not scaled, so leave out loc and scale")
        if self.log and not kind.logs:
            raise InputError(f"{self}: only a gaussian or student column may be one of logarithms, so leave out log")
        if kind.least and self.size < kind.least:
            raise InputError(f"{self}: give size, the number of classes or levels, {kind.least} or more")
        if self.size and not kind.least:
            raise InputError(f"{self}: a column of this kind has no size, so leave it out")
        if not 0 <= self.min_scale < math.inf or (self.min_scale and not kind.logs):
            raise InputError(f"{self}: min_scale must be finite, 0 or more, and only a gaussian or student column has one")

    @property
    def volume(self) -> tuple[float, float]:
        """(a, b) with log |du/dx| = a + b u; (0, 0) for a mass."""
        if not KINDS[self.kind].density:
            return 0.0, 0.0
        return (-math.log(self.scale) - self.loc, -self.scale) if self.log else (-math.log(self.scale), 0.0)


@dataclass(frozen=True)
class Kind:
    """A row of the table of kinds.

    Attributes:
        make: columns of this kind -> one head for all of them; whether h ends with a log-size, for counts.
        group: what columns must share to be in one head.
        scales, logs, density: whether u is scaled, may be of logarithms, and has a density rather than a mass.
        least: the smallest size, 0 where there is none.
        count: whether it is a `Count`.
    """

    make: Callable[[Sequence[Column], bool], Head]
    group: Callable[[Column], object] = lambda column: None
    scales: bool = False
    logs: bool = False
    density: bool = False
    least: int = 0
    count: bool = False


def _sizes(columns: Sequence[Column]) -> tuple[int, ...]:
    return tuple(column.size for column in columns)


def _floor(columns: Sequence[Column]) -> float | tuple[float, ...]:
    """One for all columns, or one of each where they differ."""
    floors = tuple(column.min_scale for column in columns)
    return floors[0] if len(set(floors)) == 1 else floors


def _alike(column: Column) -> object:
    """Columns of up to 2, 4, 8, ... classes: padded to the most of them, at most half is padding."""
    return (column.size - 1).bit_length()


KINDS: dict[str, Kind] = {
    "gaussian": Kind(lambda c, sized: Gaussian(len(c), min_scale=_floor(c)), scales=True, logs=True, density=True),
    "student": Kind(lambda c, sized: StudentT(len(c), min_scale=_floor(c)), scales=True, logs=True, density=True),
    "continuous_bernoulli": Kind(lambda c, sized: ContinuousBernoulli(len(c)), scales=True, density=True),
    "discretised_logistic": Kind(lambda c, sized: DiscretisedLogistic(len(c), bins=c[0].size), lambda c: c.size, scales=True, least=2),
    "bernoulli": Kind(lambda c, sized: Bernoulli(len(c))),
    "categorical": Kind(lambda c, sized: Classes(_sizes(c)), _alike, least=2),
    "ordinal": Kind(lambda c, sized: Ordinal(_sizes(c)), _alike, least=2),
    "poisson": Kind(lambda c, sized: Poisson(len(c), sized=sized), count=True),
    "negative_binomial": Kind(lambda c, sized: NegativeBinomial(len(c), sized=sized), count=True),
    "zero_inflated_poisson": Kind(lambda c, sized: ZeroInflatedPoisson(len(c), sized=sized), count=True),
    "zero_inflated_negative_binomial": Kind(lambda c, sized: ZeroInflatedNegativeBinomial(len(c), sized=sized), count=True),
}


class Columns(Head):
    """p(x | h) of a row of a table, columns of different kinds: one vectorised head for all columns of a kind (`dist.Columns`).

    x holds u, the values scaled as `Column` says; log-densities are in nats of the original values, so that those of models with other
    scales, or of logarithms, compare. `dist.log_prob_parts` is ``[*batch, D]``, in the table's order.

    Args:
        columns: the D columns.
        sized: h ends with the logarithm of the example's size, by which the counts' means are multiplied (see `Poisson`).

    Attributes:
        groups: the numbers of the columns of each head, in the order of ``heads``.

    Raises:
        InputError: no columns; ``sized`` without counts.

    >>> head = Columns([Column("gaussian", scale=2.0), Column("categorical", size=3), Column("gaussian", log=True)])
    >>> head.features, head.groups
    (7, ((0, 2), (1,)))
    >>> dist.log_prob_parts(head(torch.zeros(1, 7)), torch.tensor([[0.0, 1.0, 0.5]]))
    tensor([[-1.6121, -1.0986, -1.5439]])
    """

    order: Tensor
    offset: Tensor
    slope: Tensor

    def __init__(self, columns: Sequence[Column], *, sized: bool = False) -> None:
        if not columns:
            raise InputError("Columns([]): a table of no columns has no distribution; give at least one")
        found: dict[object, list[int]] = {}
        for number, column in enumerate(columns):
            found.setdefault((column.kind, KINDS[column.kind].group(column)), []).append(number)
        groups = tuple(tuple(group) for group in found.values())
        made = [KINDS[columns[group[0]].kind].make([columns[d] for d in group], sized) for group in groups]
        if sized and not any(isinstance(head, Count) for head in made):
            raise InputError("Columns(sized=True): no column holds counts, so no size has a meaning; leave it out")
        self.widths = tuple(head.features - (sized and isinstance(head, Count)) for head in made)
        super().__init__(len(columns), features=sum(self.widths) + sized)
        self.columns, self.groups, self.sized = tuple(columns), groups, sized
        self.heads = nn.ModuleList(made)
        for n, group in enumerate(groups):
            self.register_buffer(f"group_{n}", torch.tensor(group), persistent=False)
        self.register_buffer("order", torch.tensor([d for group in groups for d in group]).argsort(), persistent=False)
        offset, slope = zip(*(column.volume for column in columns), strict=True)
        self.register_buffer("offset", torch.tensor(offset, dtype=torch.float64), persistent=False)
        self.register_buffer("slope", torch.tensor(slope, dtype=torch.float64), persistent=False)
        self.scaled = any(offset) or any(slope)

    def distribution(self, h: Tensor) -> Distribution:
        parts = []
        for head, own in zip(self.heads, h[..., : sum(self.widths)].split(self.widths, -1), strict=True):
            with_size = self.sized and isinstance(head, Count)
            parts.append(head(torch.cat([own, h[..., -1:]], -1) if with_size else own))
        index = [self.get_buffer(f"group_{n}") for n in range(len(self.groups))]
        volume = (self.offset.to(h.dtype), self.slope.to(h.dtype)) if self.scaled else None
        return dist.Columns(parts, index, self.order if len(parts) > 1 else None, volume=volume)

    def input_layer(self, *, extra: int = 0, one_hot: int = 32, width: int = 16) -> ColumnsInput:
        """A layer that shows such rows, with their masks, to an encoder (`vaekit.nn.ColumnsInput`).

        Args:
            extra: numbers beside the row: a context, say.
            one_hot: columns of at most so many classes are shown one-hot.
            width: numbers of the embedding of columns of more classes.
        """
        has_classes = ("categorical", "ordinal")
        return ColumnsInput(
            [column.size if column.kind in has_classes else 0 for column in self.columns],
            counts=[d for d, column in enumerate(self.columns) if KINDS[column.kind].count],
            extra=extra,
            one_hot=one_hot,
            width=width,
        )
