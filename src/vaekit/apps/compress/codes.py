r"""The symbols of a distribution and their masses: what `Stack` codes with. One registration each.

A row of ``F`` symbols (`vaekit.apps.compress.symbols`) is coded in steps of columns. Within a step symbols are independent; a step may
depend on the columns before it, as the channels of a mixture of logistics do, or the coordinates of a full Gaussian. A symbol of many
values is coded digit by digit, so that its distribution function is asked for at 17 edges a digit instead of at all of them:

.. math:: P(d_1) = \sum_{k \in d_1} P(k), \qquad P(d_2 | d_1) = \sum_{k \in d_1 d_2} P(k) / P(d_1), \; \ldots
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from functools import singledispatch

import torch
from torch import Tensor
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

from vaekit import dist
from vaekit.apps.compress.symbols import Cells, Levels, Numbering, OneHots, digits_of
from vaekit.dist.core import describe
from vaekit.dist.discretised import _in_levels, _log_mass, _shift
from vaekit.errors import InputError

__all__ = ["Alphabet", "Code", "Cumulative", "Table", "code"]

FLOOR = 1e-18
"""Added to each mass: below it differences of distribution functions are rounding, and nothing may be impossible."""


class Alphabet(abc.ABC):
    """F independent symbols a row of ``levels`` values each, in so many ``digits``; ``size`` is (S, F)."""

    levels: int
    digits: int
    size: tuple[int, int]

    @abc.abstractmethod
    def masses(self, before: Sequence[Tensor]) -> Tensor:
        """Of the next digit given those before it (int64 ``[S, F]`` each): float64 ``[S, F, values]``, up to a factor."""

    @abc.abstractmethod
    def split(self, levels: Tensor) -> list[Tensor]:
        """The digits of levels ``[S, F]``, the first one first."""

    @abc.abstractmethod
    def join(self, digits: Sequence[Tensor]) -> Tensor:
        """The levels int64 ``[S, F]`` of digits, ``[S, F]`` each."""


class Table(Alphabet):
    """One digit, the mass of each of its values given: ``masses`` ``[S, F, values]``."""

    digits = 1

    def __init__(self, masses: Tensor) -> None:
        self._masses = masses + FLOOR
        self.levels = masses.shape[2]
        self.size = (masses.shape[0], masses.shape[1])

    def masses(self, before: Sequence[Tensor]) -> Tensor:
        return self._masses

    def split(self, levels: Tensor) -> list[Tensor]:
        return [levels]

    def join(self, digits: Sequence[Tensor]) -> Tensor:
        return digits[0]


class Digits(Alphabet):
    """``levels`` values as digits of base 16, or as one digit where there are fewer."""

    def __init__(self, levels: int, size: tuple[int, int]) -> None:
        self.levels = levels
        self.size = size
        self.base, self.digits = digits_of(levels)

    def split(self, levels: Tensor) -> list[Tensor]:
        return [levels // self.base ** (self.digits - i - 1) % self.base for i in range(self.digits)]

    def join(self, digits: Sequence[Tensor]) -> Tensor:
        found = torch.zeros(self.size, dtype=torch.int64)
        for digit in digits:
            found = found * self.base + digit
        return found.clamp(max=self.levels - 1)


class Even(Digits):
    """All levels alike; their number is a power of the base."""

    def masses(self, before: Sequence[Tensor]) -> Tensor:
        return torch.ones((), dtype=torch.float64).expand(*self.size, self.base)


class Cumulative(Digits):
    """Levels by their distribution function.

    Args:
        levels: how many.
        below: k int64 ``[S, F, E]``, 0 ... levels -> the mass of all levels below k, float64 ``[S, F, E]``, from 0 to 1.
        size: (S, F).
    """

    def __init__(self, levels: int, below: Callable[[Tensor], Tensor], size: tuple[int, int]) -> None:
        super().__init__(levels, size)
        self._below = below

    def masses(self, before: Sequence[Tensor]) -> Tensor:
        width = self.base ** (self.digits - len(before) - 1)
        ends = width * torch.arange(self.base + 1)
        k = self.join(before).unsqueeze(-1) * (width * self.base) + ends
        return self._below(k.clamp(max=self.levels)).diff(dim=-1).clamp_(min=0).add_(FLOOR)


class Code:
    """A distribution of batch shape ``[1, S]`` as steps of symbols.

    Args:
        numbering: of its values.
        size: (S, F), rows and symbols a row.
        steps: for each step its columns and, from levels ``[S, F]`` of which those before are known, their alphabet.
    """

    def __init__(self, numbering: Numbering, size: tuple[int, int], steps: Sequence[tuple[slice, Callable[[Tensor], Alphabet]]]) -> None:
        self.numbering = numbering
        self.size = size
        self.steps = tuple(steps)


def _whole(numbering: Numbering, alphabet: Alphabet) -> Code:
    return Code(numbering, alphabet.size, [(slice(None), lambda levels: alphabet)])


@singledispatch
def code(d: Distribution, numbering: Numbering | None = None) -> Code:
    """How the values of d, batch shape ``[1, S]``, are coded. A new distribution registers its own: ``@code.register``.

    Args:
        d: what is coded.
        numbering: of the values; None for the distribution's own. A continuous posterior is coded in the cells of its prior.

    Raises:
        InputError: nothing is registered for it.
    """
    raise InputError(
        f"{describe(d)} cannot be coded: its entries would have to be drawn one by one from distributions that are known; use Gaussian, "
        "Bernoulli or OneHot latents, or register the distribution with vaekit.apps.compress.code"
    )


@code.register
def _(d: dist.Bernoulli, numbering: Numbering | None = None) -> Code:
    logits = _rows(d.logits, d).double()
    return _whole(Levels(d.event_shape, 2, 1), Table(torch.stack([torch.sigmoid(-logits), torch.sigmoid(logits)], -1)))


@code.register
def _(d: dist.Categorical, numbering: Numbering | None = None) -> Code:
    masses = d.logits.double().softmax(d._dim).movedim(d._dim, -1).reshape(d.batch_shape[-1], -1, d.classes)
    return _whole(Levels(d.event_shape, d.classes, 1), Table(masses))


@code.register
def _(d: dist.OneHot, numbering: Numbering | None = None) -> Code:
    return _whole(OneHots(d.event_shape), Table(d.logits.double().softmax(-1).reshape(d.batch_shape[-1], -1, d.classes)))


@code.register
def _(d: dist.DiscretisedLogistic, numbering: Numbering | None = None) -> Code:
    m, scale = (_rows(t, d).unsqueeze(-1) for t in _in_levels(d.loc.double(), d.log_scale.double(), d.bins))
    edges = _edges(d.bins)
    alphabet = Cumulative(d.bins, lambda k: torch.sigmoid((edges[k] - m) / scale), _size(m))
    return _whole(Levels(d.event_shape, d.bins, d.bins - 1), alphabet)


@code.register
def _(d: dist.DiscretisedLogisticMixture, numbering: Numbering | None = None) -> Code:
    c, h, w = d.event_shape
    s, edges = d.batch_shape[-1], _edges(d.bins)
    logits, loc, log_scale, coefficients = (
        t.double().expand(1, s, *t.shape[len(t.shape) - n :])[0]
        for t, n in ((d.logits, 3), (d.loc, 4), (d.log_scale, 4), (d.coefficients, 4))
    )

    def channel(number: int, levels: Tensor) -> Alphabet:
        level = levels.double().reshape(s, 1, c, h, w)
        centred = (level / (d.bins - 1) - 0.5).unbind(-3)
        log_weights = logits.log_softmax(-3)
        for i in range(number):
            m, _ = _in_levels(loc[:, :, i] + _shift(coefficients, centred[:i]), log_scale[:, :, i], d.bins)
            log_weights = log_weights + _log_mass(level[:, :, i], m, log_scale[:, :, i], d.bins)
        moved = loc[:, :, number] + _shift(coefficients, centred[:number])
        m, scale = _in_levels(moved, log_scale[:, :, number], d.bins)
        m, scale, weights = (t.reshape(s, -1, h * w, 1) for t in (m, scale, log_weights.softmax(-3)))
        return Cumulative(d.bins, lambda k: (weights * torch.sigmoid((edges[k].unsqueeze(1) - m) / scale)).sum(1), (s, h * w))

    def step(number: int) -> tuple[slice, Callable[[Tensor], Alphabet]]:
        return slice(number * h * w, (number + 1) * h * w), lambda levels: channel(number, levels)

    return Code(Levels(d.event_shape, d.bins, d.bins - 1), (s, c * h * w), [step(i) for i in range(c)])


@code.register
def _(d: dist.SharedLevels, numbering: Numbering | None = None) -> Code:
    weights = d.logits.double().softmax(-1).reshape(d.batch_shape[-1], -1, d.logits.shape[-1])
    return _whole(Levels(d.event_shape, d.bins, d.bins - 1), Table(weights @ d.table.double().softmax(-1)))


@code.register
def _(d: dist.DiagGaussian, numbering: Numbering | None = None) -> Code:
    loc, scale = _rows(d.mean, d).double(), _rows(d.log_scale.expand(d.mean.shape), d).double().exp()
    if not isinstance(numbering, Cells):  # in its own cells
        cells = Cells(loc, scale, d.event_shape)
        return _whole(cells, Even(cells.size, _size(loc)))
    return _whole(numbering, _gaussian(numbering, loc, scale, slice(None)))


@code.register
def _(d: MultivariateNormal, numbering: Numbering | None = None) -> Code:
    r"""z_i | z_<i ~ N(mu_i + sum_{j<i} L_ij eps_j, L_ii^2), eps = L^-1 (z - mu), one coordinate after the other."""
    loc = _rows(d.loc, d).double()
    lower = d.scale_tril.double().expand(1, *loc.shape, loc.shape[-1])[0]
    cells = _cells(numbering, Cells(loc, d.variance.double().sqrt().expand(1, *loc.shape)[0], d.event_shape))

    def coordinate(i: int) -> tuple[slice, Callable[[Tensor], Alphabet]]:
        def alphabet(levels: Tensor) -> Alphabet:
            eps = torch.linalg.solve_triangular(lower[:, :i, :i], (cells.values(levels) - loc)[:, :i, None], upper=False)
            moved = loc[:, i : i + 1] + (lower[:, i : i + 1, :i] * eps.mT).sum(-1)
            return _gaussian(cells, moved, lower[:, i, i].unsqueeze(-1), slice(i, i + 1))

        return slice(i, i + 1), alphabet

    return Code(cells, _size(loc), [coordinate(i) for i in range(loc.shape[-1])])


@code.register
def _(d: dist.Mixture, numbering: Numbering | None = None) -> Code:
    """One coordinate after the other, the components' weights given those before. As a prior, in the cells of the Gaussian with its
    moments."""
    if not isinstance(d.components, dist.DiagGaussian):
        raise InputError(f"a mixture of {describe(d.components)} cannot be coded, only one of diagonal Gaussians")
    s, n = d.batch_shape[-1], d.event_shape.numel()
    loc, log_scale = (t.double().reshape(s, -1, n) for t in (d.components.mean, d.components.log_scale.expand(d.components.mean.shape)))
    scale = log_scale.exp()
    log_weights = d.logits.double().expand(1, s, -1)[0].log_softmax(-1)
    weights = log_weights.exp().unsqueeze(-1)
    mean = (weights * loc).sum(1)
    spread = (weights * (scale.square() + (loc - mean.unsqueeze(1)).square())).sum(1).sqrt()
    cells = _cells(numbering, Cells(mean, spread, d.event_shape))

    def coordinate(i: int) -> tuple[slice, Callable[[Tensor], Alphabet]]:
        def alphabet(levels: Tensor) -> Alphabet:
            z = cells.values(levels).reshape(s, 1, n)[..., :i]
            log_p = -0.5 * ((z - loc[..., :i]) / scale[..., :i]).square() - log_scale[..., :i]
            given = (log_weights + log_p.sum(-1)).softmax(-1)[..., None, None]
            m, sd = loc[..., i, None, None], scale[..., i, None, None]
            columns = slice(i, i + 1)
            return Cumulative(
                cells.size, lambda k: (given * torch.special.ndtr((cells.edges(k, columns).unsqueeze(1) - m) / sd)).sum(1), (s, 1)
            )

        return slice(i, i + 1), alphabet

    return Code(cells, (s, n), [coordinate(i) for i in range(n)])


@code.register
def _(d: dist.Certain, numbering: Numbering | None = None) -> Code:
    raise InputError(
        f"{describe(d)} cannot be coded: the codes of a vector-quantised model are not coded yet; use Gaussian, Bernoulli or OneHot latents"
    )


@code.register
def _(d: Independent, numbering: Numbering | None = None) -> Code:
    base, n = d.base_dist, len(d.event_shape)
    if isinstance(base, Normal):
        return code(dist.DiagGaussian(base.loc, base.scale.log(), n), numbering)
    if isinstance(base, TorchBernoulli):
        return code(dist.Bernoulli(base.logits, n), numbering)
    return code.dispatch(Distribution)(d, numbering)


def _rows(parameter: Tensor, d: Distribution) -> Tensor:
    """A parameter of d as ``[S, F]``."""
    return parameter.expand(*d.batch_shape, *d.event_shape).reshape(d.batch_shape[-1], -1)


def _edges(bins: int) -> Tensor:
    """Lower edges of levels 0 ... bins, in levels: the first at -inf and the last at inf."""
    edges = torch.arange(bins + 1, dtype=torch.float64) - 0.5
    edges[0], edges[-1] = -torch.inf, torch.inf
    return edges


def _size(parameter: Tensor) -> tuple[int, int]:
    """(S, F) of a parameter ``[S, F, ...]``."""
    return parameter.shape[0], parameter.shape[1]


def _cells(given: Numbering | None, own: Cells) -> Cells:
    return given if isinstance(given, Cells) else own


def _gaussian(cells: Cells, loc: Tensor, scale: Tensor, columns: slice) -> Alphabet:
    """N(loc, scale^2) of these columns, in cells."""
    m, s = loc.unsqueeze(-1), scale.unsqueeze(-1)
    return Cumulative(cells.size, lambda k: torch.special.ndtr((cells.edges(k, columns) - m) / s), _size(loc))
