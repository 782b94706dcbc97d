r"""The flat variational autoencoder: one level.

.. math:: p(x, z) = p(z) p(x | z), \qquad q(z | x)

Kingma and Welling, "Auto-Encoding Variational Bayes", ICLR 2014; Rezende, Mohamed and Wierstra, ICML 2014.
"""

from __future__ import annotations

from torch import nn
from torch.distributions import Distribution

from vaekit.models.core import LatentModel, Level, Pick, plain_input
from vaekit.types import Batch

__all__ = ["VAE"]


class VAE(LatentModel):
    """Prior, posterior and likelihood: three modules that return distributions.

    Args:
        prior: ``() -> p(z)``, batch shape () (`vaekit.priors`, or any zuko flow).
        posterior: ``x [B, *] -> q(z | x)``, batch shape ``[B]``.
        likelihood: ``z [K, B, *] -> p(x | z)``, batch shape ``[K, B]``.

    >>> import torch
    >>> from vaekit import Batch, Conditional, VAE, heads, priors
    >>> _ = torch.manual_seed(0)
    >>> model = VAE(
    ...     prior=priors.StandardNormal(2),
    ...     posterior=Conditional(nn.Linear(6, 4), heads.Gaussian(2)),
    ...     likelihood=Conditional(nn.Linear(2, 6), heads.Bernoulli(6)),
    ... )
    >>> model.infer(Batch(torch.ones(8, 6)), k=3).log_w.shape
    torch.Size([3, 8])
    """

    def __init__(self, prior: nn.Module, posterior: nn.Module, likelihood: nn.Module) -> None:
        super().__init__()
        self.prior = prior
        self.posterior = posterior
        self.likelihood = likelihood

    def unroll(self, pick: Pick, batch: Batch | None = None) -> tuple[tuple[Level, ...], Distribution]:
        q = None if batch is None else self.posterior(plain_input(batch))
        level = pick(0, q, self.prior())
        return (level,), self.likelihood(level.z)
