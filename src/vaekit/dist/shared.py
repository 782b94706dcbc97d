r"""Grey levels 0, 1/(n-1), ..., 1 by a mixture, for each entry its own, of level distributions that all entries share.

.. math:: P(x_d = k / (n - 1)) = \sum_m w_{dm} \, B_{mk}, \qquad \sum_m w_{dm} = \sum_k B_{mk} = 1

A categorical distribution over n levels whose probabilities have rank M: what levels there are, spikes at the ends, at the white of ink, is
learned once for all entries, and an example says which of them an entry takes. Its logits are all that a network gives, so that no
scale can run away, and a density over bytes costs M numbers an entry instead of n.

It is the emission of mixed-membership models (Blei, Ng and Jordan, "Latent Dirichlet Allocation", JMLR 2003), with words for levels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution, constraints

from vaekit.dist.core import SampleShape, log_prob_parts, sum_event
from vaekit.dist.discretised import Grid

__all__ = ["SharedLevels"]


class SharedLevels(Distribution):
    """sum_m w_dm B_m for each entry d, w = softmax(logits), B = softmax(table).

    Args:
        logits: ``[*batch, *event, M]``, the components last.
        table: ``[M, bins]``, logits of the level distributions.
        event_dim: how many dimensions form the event.

    Shapes: ``sample(shape)`` is ``[*shape, *batch, *event]``, on the grid k / (bins - 1); ``log_prob`` (nats) ``[*shape, *batch]``.

    >>> p = SharedLevels(torch.zeros(5, 3, 2), torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, -1e9]]))
    >>> p.event_shape, p.log_prob(torch.tensor([0.0, 0.5, 1.0])).exp()[0] * 864  # 5/12 * 5/12 * 1/6
    (torch.Size([3]), tensor(25.))
    """

    has_rsample = False
    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012

    def __init__(self, logits: Tensor, table: Tensor, event_dim: int = 1) -> None:
        self.logits, self.table = logits, table
        n = logits.dim() - 1 - event_dim
        super().__init__(logits.shape[:n], logits.shape[n:-1], validate_args=False)

    @property
    def bins(self) -> int:
        """The number of levels."""
        return self.table.shape[-1]

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(Grid(self.bins), len(self.event_shape))

    @property
    def mean(self) -> Tensor:
        levels = torch.arange(self.bins, dtype=self.table.dtype, device=self.table.device) / (self.bins - 1)
        return (self.logits.softmax(-1) * (self.table.softmax(-1) * levels).sum(-1)).sum(-1)

    def expand(self, batch_shape: SampleShape, _instance: Distribution | None = None) -> SharedLevels:
        return SharedLevels(self.logits.expand(*batch_shape, *self.event_shape, self.logits.shape[-1]), self.table, len(self.event_shape))

    def sample(self, sample_shape: SampleShape = ()) -> Tensor:
        with torch.no_grad():
            m = torch.distributions.Categorical(logits=self.logits, validate_args=False).sample(sample_shape)
            level = torch.distributions.Categorical(logits=self.table, validate_args=False).sample(m.shape)
            return level.gather(-1, m.unsqueeze(-1)).squeeze(-1).to(self.logits.dtype) / (self.bins - 1)

    def log_prob(self, value: Tensor) -> Tensor:
        return sum_event(log_prob_parts(self, value), len(self.event_shape))


@log_prob_parts.register
def _(d: SharedLevels, x: Tensor) -> Tensor:
    level = (x * (d.bins - 1)).round().long()
    return torch.logsumexp(d.logits.log_softmax(-1) + F.embedding(level, d.table.log_softmax(-1).mT), -1)
