r"""A mixture of any family.

.. math:: p(z) = \sum_c w_c \, p_c(z)
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from vaekit.dist.core import SampleShape, centre, describe, tempered
from vaekit.dist.gaussian import DiagGaussian
from vaekit.dist.implicit import reparameterised
from vaekit.errors import InputError

__all__ = ["Mixture"]


class Mixture(Distribution):
    r"""sum_c w_c p_c(z) with w = softmax(logits), over the last batch dimension of ``components``.

    Where the components are `DiagGaussian` vectors, samples are differentiable by all parameters, the weights too, by implicit
    reparameterisation (`vaekit.dist.implicit`); other mixtures have ``sample`` alone.

    Args:
        logits: ``[*batch, C]``, broadcastable over ``*batch``.
        components: p_c, batch shape ``[*batch, C]``.

    Shapes: ``sample(shape)`` and ``rsample(shape)`` are ``[*shape, *batch, *event]``; ``log_prob`` (nats) ``[*shape, *batch]``.

    Raises:
        InputError: the components have no batch dimension, or another number of them than logits.

    >>> _ = torch.manual_seed(0)
    >>> p = Mixture(torch.zeros(2), DiagGaussian(torch.tensor([[-1.0], [1.0]]), torch.zeros(2, 1)))
    >>> p.log_prob(torch.zeros(1)), p.rsample((3,)).shape
    (tensor(-1.4189), torch.Size([3, 1]))
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012

    def __init__(self, logits: Tensor, components: Distribution) -> None:
        batch = components.batch_shape
        if not batch or logits.dim() == 0 or logits.shape[-1] != batch[-1]:
            raise InputError(
                f"Mixture: {list(logits.shape)} logits for {describe(components)} of batch shape {list(batch)}: "
                "the last dimension of both must be the components"
            )
        self.logits = logits
        self.components = components
        self.has_rsample = isinstance(components, DiagGaussian) and len(components.event_shape) == 1
        super().__init__(batch[:-1], components.event_shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint | None:
        return self.components.support

    @property
    def mean(self) -> Tensor:
        return self._weighted(self.components.mean)

    @property
    def variance(self) -> Tensor:
        return self._weighted(self.components.variance + self.components.mean.square()) - self.mean.square()

    def expand(self, batch_shape: SampleShape, _instance: Distribution | None = None) -> Mixture:
        shape = (*batch_shape, self.logits.shape[-1])
        return Mixture(self.logits.expand(shape), self.components.expand(shape))

    def sample(self, sample_shape: SampleShape = ()) -> Tensor:
        with torch.no_grad():
            n = len(self.event_shape)
            logits = self.logits.expand(*self.batch_shape, self.logits.shape[-1])
            c = torch.distributions.Categorical(logits=logits, validate_args=False).sample(sample_shape)
            z = self.components.sample(sample_shape)  # of every component: one kernel, and any family
            index = c.reshape(*c.shape, 1, *[1] * n).expand(*c.shape, 1, *self.event_shape)
            return z.gather(c.dim(), index).squeeze(c.dim())

    def rsample(self, sample_shape: SampleShape = ()) -> Tensor:
        if not (isinstance(self.components, DiagGaussian) and self.has_rsample):
            raise InputError(f"a mixture of {describe(self.components)} has no reparameterised sample; DiagGaussian vectors have one")
        loc, log_scale = torch.broadcast_tensors(self.components.loc, self.components.log_scale)
        return reparameterised(self.sample(sample_shape), self.logits.log_softmax(-1), loc, log_scale)

    def log_prob(self, value: Tensor) -> Tensor:
        p = self.components
        z = value.unsqueeze(-1 - len(self.event_shape))
        z = z.expand(torch.broadcast_shapes(z.shape, p.batch_shape + p.event_shape))  # zuko's flows do not broadcast by themselves
        log_p = p.log_prob(z)
        return torch.logsumexp(self.logits.log_softmax(-1) + log_p, -1)

    def _weighted(self, values: Tensor) -> Tensor:
        n = len(self.event_shape)
        weights = self.logits.softmax(-1)
        return (weights.reshape(*weights.shape, *[1] * n) * values).sum(-1 - n)


@centre.register
def _(d: Mixture) -> Tensor:
    return d._weighted(centre(d.components))  # components without a mean (flows) have a centre


@tempered.register
def _(d: Mixture, temperature: float) -> Distribution:
    return Mixture(d.logits, tempered(d.components, temperature))
