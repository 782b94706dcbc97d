r"""One class out of C for every variable, as a vector of zeros with a single one: the discrete latent that a network can take as input.

.. math:: \log p(z) = \sum_n \sum_c z_{nc} \log\mathrm{softmax}(l_n)_c
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution, constraints, register_kl

from vaekit import noise
from vaekit.dist.core import SampleShape, log_prob_parts, sum_event
from vaekit.tensors import indicator

__all__ = ["OneHot"]


class OneHot(Distribution):
    """Categorical variables held as one-hot vectors along the last dimension, independent over the event dimensions before it.

    `Categorical` is the same distribution over class numbers, for data; latents are one-hot, because their mean (the vector of
    probabilities) is a point between the values, which class numbers have not.

    Args:
        logits: ``[*batch, *event]``, the classes last; any constant may be added to those of a variable.
        event_dim: how many trailing dimensions form the event: 2 for N variables of C classes, ``[N, C]``.

    Shapes: ``sample(shape)`` is ``[*shape, *batch, *event]``, zeros and ones in the dtype of the logits; ``log_prob`` (nats)
    ``[*shape, *batch]``.

    >>> _ = torch.manual_seed(0)
    >>> p = OneHot(torch.zeros(5, 3, 4))
    >>> p.event_shape, p.log_prob(p.sample())[0], p.sample()[0].sum(-1)
    (torch.Size([3, 4]), tensor(-4.1589), tensor([1., 1., 1.]))
    """

    has_rsample = False
    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012

    def __init__(self, logits: Tensor, event_dim: int = 2) -> None:
        self.logits = logits
        n = logits.dim() - event_dim
        super().__init__(logits.shape[:n], logits.shape[n:], validate_args=False)

    @property
    def classes(self) -> int:
        """C, the number of classes."""
        return self.logits.shape[-1]

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.one_hot, len(self.event_shape) - 1)

    @property
    def mean(self) -> Tensor:
        return self.logits.softmax(-1)

    @property
    def mode(self) -> Tensor:
        return vertex(self.logits)

    @property
    def variance(self) -> Tensor:
        p = self.mean
        return p * (1 - p)

    def expand(self, batch_shape: SampleShape, _instance: Distribution | None = None) -> OneHot:
        return OneHot(self.logits.expand(*batch_shape, *self.event_shape), len(self.event_shape))

    def sample(self, sample_shape: SampleShape = ()) -> Tensor:
        with torch.no_grad():
            return vertex(self.logits + gumbel(self.logits, sample_shape, len(self.event_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        return sum_event(log_prob_parts(self, value), len(self.event_shape))

    def entropy(self) -> Tensor:
        log_p = self.logits.log_softmax(-1)
        return -sum_event(log_p.exp() * log_p, len(self.event_shape))


def vertex(scores: Tensor) -> Tensor:
    """The one-hot vector of the largest score along the last dimension."""
    return indicator(scores.argmax(-1), scores.shape[-1], scores.dtype)


def uniform(like: Tensor, shape: SampleShape, event_dim: int) -> Tensor:
    """Uniform numbers ``[*shape, *like]`` strictly between 0 and 1, so that their logarithms and logits are finite."""
    eps = torch.finfo(like.dtype).eps
    return noise.uniform((*shape, *like.shape), like, event_dim).clamp(eps, 1 - eps)


def gumbel(like: Tensor, shape: SampleShape, event_dim: int) -> Tensor:
    """-log(-log u): the class of the largest logit + Gumbel noise is a draw from softmax(logits)."""
    return -torch.log(-torch.log(uniform(like, shape, event_dim)))


@log_prob_parts.register
def _(d: OneHot, x: Tensor) -> Tensor:
    return (x * d.logits.log_softmax(-1)).sum(-1, keepdim=True)


@register_kl(OneHot, OneHot)
def _kl_one_hot(q: OneHot, p: OneHot) -> Tensor:
    log_q = q.logits.log_softmax(-1)
    return sum_event(log_q.exp() * (log_q - p.logits.log_softmax(-1)), len(q.event_shape))
