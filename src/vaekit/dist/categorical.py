r"""One class number per entry.

.. math:: \log p(x) = \sum_d \left( l_{x_d d} - \log \sum_c e^{l_{cd}} \right)
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints, register_kl

from vaekit.dist.core import SampleShape, centre, log_prob_parts, sum_event

__all__ = ["Categorical"]


class Categorical(Distribution):
    """A class out of C for every entry, independent over the last ``event_dim`` dimensions.

    Args:
        logits: ``[*batch, C, *event]``: the classes come before the event, as channels do.
        event_dim: how many trailing dimensions form the event.
        ordered: whether a class lies between those of smaller and larger numbers, so that there are quantiles.

    Shapes: x ``[*batch, *event]`` holds class numbers 0 ... C - 1, as integers or floats (``support.check`` tells);
    ``sample(shape)`` is ``[*shape, *batch, *event]`` in the dtype of the logits; ``log_prob`` (nats) ``[*shape, *batch]``. Classes have no
    mean; `dist.centre` is the mode.

    >>> p = Categorical(torch.zeros(5, 4, 3))
    >>> p.event_shape, p.log_prob(torch.tensor([0.0, 3.0, 1.0]))[0]
    (torch.Size([3]), tensor(-4.1589))
    """

    has_rsample = False
    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012

    def __init__(self, logits: Tensor, event_dim: int = 1, *, ordered: bool = False) -> None:
        self.logits, self.ordered = logits, ordered
        self._dim = -1 - event_dim
        n = logits.dim() - event_dim - 1
        super().__init__(logits.shape[:n], logits.shape[n + 1 :], validate_args=False)

    @property
    def classes(self) -> int:
        """C, the number of classes."""
        return self.logits.shape[self._dim]

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.integer_interval(0, self.classes - 1), len(self.event_shape))

    @property
    def probs(self) -> Tensor:
        """p(c) of each class, ``[*batch, C, *event]``."""
        return self.logits.softmax(self._dim)

    @property
    def mode(self) -> Tensor:
        return self.logits.argmax(self._dim).to(self.logits.dtype)

    def expand(self, batch_shape: SampleShape, _instance: Distribution | None = None) -> Categorical:
        return Categorical(self.logits.expand(*batch_shape, self.classes, *self.event_shape), len(self.event_shape), ordered=self.ordered)

    def sample(self, sample_shape: SampleShape = ()) -> Tensor:
        with torch.no_grad():
            drawn = torch.distributions.Categorical(logits=self.logits.movedim(self._dim, -1), validate_args=False).sample(sample_shape)
        return drawn.to(self.logits.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        return sum_event(log_prob_parts(self, value), len(self.event_shape))

    def entropy(self) -> Tensor:
        log_p = self.logits.log_softmax(self._dim)
        return sum_event(-(log_p.exp() * log_p).sum(self._dim), len(self.event_shape))


@log_prob_parts.register
def _(d: Categorical, x: Tensor) -> Tensor:
    n = len(d.event_shape)
    shape = torch.broadcast_shapes(x.shape, d.batch_shape + d.event_shape)
    log_p = d.logits.log_softmax(d._dim).expand(*shape[: len(shape) - n], d.classes, *d.event_shape)
    return log_p.gather(d._dim, x.long().expand(shape).unsqueeze(d._dim)).squeeze(d._dim)


@centre.register
def _(d: Categorical) -> Tensor:
    return d.mode


@register_kl(Categorical, Categorical)
def _kl_categorical(q: Categorical, p: Categorical) -> Tensor:
    log_q, log_p = q.logits.log_softmax(q._dim), p.logits.log_softmax(p._dim)
    return sum_event((log_q.exp() * (log_q - log_p)).sum(q._dim), len(q.event_shape))
