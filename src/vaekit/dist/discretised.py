r"""The logistic distribution on the grey levels 0, 1/(n-1), ..., 1 of an image with n levels: each level gets the mass around it.

.. math:: P(x) = \sigma\left(\frac{x + h - \mu}{s}\right) - \sigma\left(\frac{x - h - \mu}{s}\right), \qquad h = \frac{1}{2 (n - 1)}

with the lowest level's interval reaching down to minus infinity and the highest level's up to infinity, so that the total mass is 1.

The difference of two sigmoids is written as a product, sigma(b) - sigma(a) = sigma(b) sigma(-a) (1 - e^(a - b)), which is exact in both
tails, and the edges of the intervals are counted in levels, where they are exact numbers: neighbours share their edge to the last bit.
No mass is clamped, and none is lost.

Kingma et al., "Improved Variational Inference with Inverse Autoregressive Flow", NeurIPS 2016; Salimans et al., "PixelCNN++", ICLR 2017.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Size, Tensor
from torch.distributions import Distribution, constraints

from vaekit import noise
from vaekit.dist.core import SampleShape, log_prob_parts, sum_event
from vaekit.dist.numeric import log_shrink

__all__ = ["DiscretisedLogistic", "DiscretisedLogisticMixture", "Grid"]


class Grid(constraints.Constraint):
    """The values k / (bins - 1), k = 0 ... bins - 1, checked entry by entry: x ``[*]`` -> bool ``[*]``."""

    is_discrete = True

    def __init__(self, bins: int) -> None:
        self.bins = bins

    def check(self, value: Tensor) -> Tensor:
        k = value * (self.bins - 1)
        return ((k - k.round()).abs() < 1e-3) & (value >= 0) & (value <= 1)

    def __repr__(self) -> str:
        return f"Grid(k / {self.bins - 1}, k = 0 ... {self.bins - 1})"


class DiscretisedLogistic(Distribution):
    r"""Discretised logistic, independent over the last ``event_dim`` dimensions.

    Kingma et al., "Improved Variational Inference with Inverse Autoregressive Flow", NeurIPS 2016.

    Args:
        loc: mu, ``[*batch, *event]``, in the units of x.
        log_scale: log s, broadcastable with ``loc``, from -80 to 80 in float32.
        event_dim: how many trailing dimensions form the event.
        bins: number of levels; x is k / (bins - 1), 256 for bytes / 255.

    Shapes: ``sample(shape)`` is ``[*shape, *batch, *event]``, on the grid; ``log_prob`` (nats, a log-mass) ``[*shape, *batch]``.

    >>> p = DiscretisedLogistic(torch.zeros(1, 1), torch.full((1, 1), -1.0), bins=3)
    >>> p.log_prob(torch.tensor([[0.0], [0.5], [1.0]])).exp().sum()
    tensor(1.0000)
    """

    has_rsample = False
    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012

    def __init__(self, loc: Tensor, log_scale: Tensor, event_dim: int = 1, *, bins: int = 256) -> None:
        self.loc, self.log_scale = torch.broadcast_tensors(loc, log_scale)
        self.bins = bins
        n = self.loc.dim() - event_dim
        super().__init__(self.loc.shape[:n], self.loc.shape[n:], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(Grid(self.bins), len(self.event_shape))

    @property
    def mean(self) -> Tensor:
        """The exact mean, sum_k P(x > level k) / (bins - 1): one pass over the levels."""
        m, scale = _in_levels(self.loc, self.log_scale, self.bins)
        total = torch.zeros_like(m)
        for k in range(self.bins - 1):
            total = total + torch.sigmoid((m - (k + 0.5)) / scale)
        return total / (self.bins - 1)

    def expand(self, batch_shape: SampleShape, _instance: Distribution | None = None) -> DiscretisedLogistic:
        shape = (*batch_shape, *self.event_shape)
        return DiscretisedLogistic(self.loc.expand(shape), self.log_scale.expand(shape), len(self.event_shape), bins=self.bins)

    def sample(self, sample_shape: SampleShape = ()) -> Tensor:
        with torch.no_grad():
            m, scale = _in_levels(self.loc, self.log_scale, self.bins)
            return _sample_level(m.expand(*sample_shape, *m.shape), scale, self.bins, len(self.event_shape)) / (self.bins - 1)

    def log_prob(self, value: Tensor) -> Tensor:
        return sum_event(log_prob_parts(self, value), len(self.event_shape))


@log_prob_parts.register
def _(d: DiscretisedLogistic, x: Tensor) -> Tensor:
    m, _ = _in_levels(d.loc, d.log_scale, d.bins)
    return _log_mass((x * (d.bins - 1)).round(), m, d.log_scale, d.bins)


class DiscretisedLogisticMixture(Distribution):
    r"""A mixture of M discretised logistics for each pixel, the channels of a pixel depending on the ones before.

    Given the component, green's location is moved by red, and blue's by red and green:

    .. math:: \mu_G + c_0 (x_R - \tfrac12), \qquad \mu_B + c_1 (x_R - \tfrac12) + c_2 (x_G - \tfrac12)

    This is PixelCNN++ (Salimans et al., 2017) with x in [0, 1] in the place of [-1, 1]: mu and s are half of theirs, mu plus 1/2.

    Args:
        logits: of the components, ``[*batch, M, H, W]``.
        loc: mu, ``[*batch, M, C, H, W]``.
        log_scale: log s, as ``loc``.
        coefficients: c, ``[*batch, M, C (C - 1) / 2, H, W]``; None for channels that are independent given the component.
        bins: number of levels; x is k / (bins - 1).

    Shapes: ``sample(shape)`` is ``[*shape, *batch, C, H, W]``, on the grid; ``log_prob`` (nats, a log-mass) ``[*shape, *batch]``. A pixel
    is the factor of `log_prob_parts`, ``[*batch, 1, H, W]``.

    >>> _ = torch.manual_seed(0)
    >>> p = DiscretisedLogisticMixture(torch.zeros(5, 2, 4, 4), torch.zeros(5, 2, 1, 4, 4), torch.zeros(5, 2, 1, 4, 4), bins=2)
    >>> p.sample().shape, p.log_prob(torch.zeros(1, 4, 4))[0]
    (torch.Size([5, 1, 4, 4]), tensor(-7.5852))
    """

    has_rsample = False
    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012

    def __init__(self, logits: Tensor, loc: Tensor, log_scale: Tensor, *, coefficients: Tensor | None = None, bins: int = 256) -> None:
        *batch, _, c, h, w = loc.shape
        pairs = (*loc.shape[:-3], c * (c - 1) // 2, h, w)
        self.logits = logits
        self.loc = loc
        self.log_scale = log_scale
        self.coefficients = loc.new_zeros(pairs) if coefficients is None else coefficients
        self.bins = bins
        super().__init__(Size(batch), Size((c, h, w)), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(Grid(self.bins), 3)

    @property
    def mean(self) -> Tensor:
        """The components' locations, clipped to [0, 1], each moving the next channel's, averaged with the components' weights.

        Close to the mean where the scales are small; the mean of a wide component near an edge lies further inside.
        """
        centred: list[Tensor] = []
        for c in range(self.event_shape[0]):
            loc = self.loc[..., c, :, :] + _shift(self.coefficients, centred)
            centred.append(loc.clamp(0, 1) - 0.5)
        weights = self.logits.softmax(-3).unsqueeze(-3)
        return (weights * (torch.stack(centred, -3) + 0.5)).sum(-4)

    def expand(self, batch_shape: SampleShape, _instance: Distribution | None = None) -> DiscretisedLogisticMixture:
        n = len(self.batch_shape)
        logits, loc, log_scale, coefficients = (
            t.expand(*batch_shape, *t.shape[n:]) for t in (self.logits, self.loc, self.log_scale, self.coefficients)
        )
        return DiscretisedLogisticMixture(logits, loc, log_scale, coefficients=coefficients, bins=self.bins)

    def sample(self, sample_shape: SampleShape = ()) -> Tensor:
        with torch.no_grad():
            component = torch.distributions.Categorical(logits=self.logits.movedim(-3, -1), validate_args=False).sample(sample_shape)
            loc, log_scale, coefficients = (_of(component, t) for t in (self.loc, self.log_scale, self.coefficients))
            x: list[Tensor] = []
            for c in range(self.event_shape[0]):
                moved = loc[..., c, :, :] + _shift(coefficients, [each - 0.5 for each in x])
                m, scale = _in_levels(moved, log_scale[..., c, :, :], self.bins)
                x.append(_sample_level(m, scale, self.bins, 2) / (self.bins - 1))
            return torch.stack(x, -3)

    def log_prob(self, value: Tensor) -> Tensor:
        return sum_event(log_prob_parts(self, value), 3)


@log_prob_parts.register
def _(d: DiscretisedLogisticMixture, x: Tensor) -> Tensor:
    level = (x * (d.bins - 1)).round().unsqueeze(-4)  # [*, 1, C, H, W], beside the components
    centred = (level / (d.bins - 1) - 0.5).unbind(-3)
    shifts = [_shift(d.coefficients, centred[:c]) for c in range(d.event_shape[0])]
    loc = torch.stack(torch.broadcast_tensors(*[d.loc[..., c, :, :] + shift for c, shift in enumerate(shifts)]), -3)
    m, _ = _in_levels(loc, d.log_scale, d.bins)
    log_mass = _log_mass(level, m, d.log_scale, d.bins).sum(-3)
    return torch.logsumexp(d.logits.log_softmax(-3) + log_mass, -3).unsqueeze(-3)


def _shift(coefficients: Tensor, before: Sequence[Tensor]) -> Tensor | float:
    """How far channel c = len(before) is moved by the channels before it: row c of a strictly lower triangle, read row by row."""
    c = len(before)
    first = c * (c - 1) // 2
    return sum((coefficients[..., first + j, :, :] * x for j, x in enumerate(before)), 0.0)


def _of(component: Tensor, parameter: Tensor) -> Tensor:
    """The parameter ``[*batch, M, C, H, W]`` of the drawn components ``[*, H, W]``: ``[*, C, H, W]``."""
    lead, tail = component.shape[:-2], parameter.shape[-4:]
    index = component[..., None, None, :, :].expand(*lead, 1, *tail[1:])
    return parameter.expand(*lead, *tail).gather(-4, index).squeeze(-4)


def _in_levels(loc: Tensor, log_scale: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    """Location and scale with the distance of two levels as the unit."""
    return loc * (bins - 1), log_scale.exp() * (bins - 1)


def _sample_level(m: Tensor, scale: Tensor, bins: int, event_dim: int) -> Tensor:
    tiny = torch.finfo(m.dtype).tiny
    logistic = torch.logit(noise.uniform(m.shape, m, event_dim).clamp(min=tiny))
    return (m + scale * logistic).round().clamp(0, bins - 1)


def _log_mass(level: Tensor, m: Tensor, log_scale: Tensor, bins: int) -> Tensor:
    """log P(level): its upper and lower edge are half a level away, and the edges at both ends are at infinity."""
    log_width = -log_scale - math.log(bins - 1)  # of one level, in units of the scale
    width = log_width.exp()
    below_upper = F.logsigmoid((level + 0.5 - m) * width)
    above_lower = F.logsigmoid((m - (level - 0.5)) * width)
    inner = below_upper + above_lower + (log_width + log_shrink(width))
    return torch.where(level < 0.5, below_upper, torch.where(level > bins - 1.5, above_lower, inner))
