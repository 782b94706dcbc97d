r"""Heads for latent vectors whose dimensions depend on each other.

A normalising flow is such a head too: ``Conditional(net, zuko.flows.MAF(D, context=F))``, with the network's width F free to choose.
Its density is cheap at a given z and a sample takes D passes; the inverse autoregressive flow (Kingma et al., 2016), whose sample takes
one, is the same transformation inverted: ``zuko.flows.Flow(maf.transform.inv, maf.base)``.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal

from vaekit.dist import DiagGaussian, Mixture
from vaekit.heads.core import Head
from vaekit.heads.discrete import at_least

__all__ = ["FullGaussian", "MixtureGaussian"]


class FullGaussian(Head):
    r"""N(mu, L L^T) with the lower triangular Cholesky factor L from the network (Kingma and Welling, 2019, section 2.5.1).

    h = (mu, log L_dd^2, the D (D - 1) / 2 entries below the diagonal, row by row): with the last part 0 it is `Gaussian`.

    Args:
        dimensions: D.

    >>> import torch
    >>> head = FullGaussian(3)
    >>> head.features, head(torch.zeros(5, 9)).covariance_matrix[0, 0]
    (9, tensor([1., 0., 0.]))
    """

    place: Tensor

    def __init__(self, dimensions: int) -> None:
        super().__init__(dimensions, features=2 * dimensions + dimensions * (dimensions - 1) // 2)
        rows, columns = torch.tril_indices(dimensions, dimensions, -1)
        place = torch.full((dimensions, dimensions), self.features - dimensions)  # a zero that is put behind the entries of L
        place[range(dimensions), range(dimensions)] = torch.arange(dimensions)
        place[rows, columns] = torch.arange(dimensions, self.features - dimensions)
        self.register_buffer("place", place.flatten(), persistent=False)

    def distribution(self, h: Tensor) -> Distribution:
        loc, log_variance, below = h.split([self.size, self.size, self.features - 2 * self.size], -1)
        entries = torch.cat([torch.exp(0.5 * log_variance), below, torch.zeros_like(h[..., :1])], -1)
        scale_tril = entries.index_select(-1, self.place).unflatten(-1, (self.size, self.size))
        return MultivariateNormal(loc, scale_tril=scale_tril, validate_args=False)


class MixtureGaussian(Head):
    r"""sum_c w_c N(mu_c, diag(sigma_c^2)) with everything from the network; samples are differentiable by all of it (`dist.Mixture`).

    h = (C logits, C D means, C D log-variances). There is no KL in closed form: objectives sample it.

    Args:
        dimensions: D.
        components: C.

    Raises:
        InputError: no component.

    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> head = MixtureGaussian(2, 3)
    >>> head.features, head(torch.randn(5, 15)).rsample((7,)).shape
    (15, torch.Size([7, 5, 2]))
    """

    def __init__(self, dimensions: int, components: int) -> None:
        super().__init__(dimensions, features=components * (1 + 2 * dimensions))
        self.components = at_least("MixtureGaussian", "components", components, 1)

    def distribution(self, h: Tensor) -> Distribution:
        logits, rest = h.split([self.components, self.features - self.components], -1)
        loc, log_variance = rest.unflatten(-1, (2, self.components, self.size)).unbind(-3)
        return Mixture(logits, DiagGaussian(loc, 0.5 * log_variance))
