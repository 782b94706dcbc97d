r"""The flat variational autoencoder: one level.

.. math:: p(x, z) = p(z) p(x | z), \qquad q(z | x)

With a context c it is p(x, z | c) = p(z | c) p(x | z, c) with q(z | x, c) (Sohn, Lee and Yan, "Learning Structured Output Representation
using Deep Conditional Generative Models", NeurIPS 2015), where p(z | c) = p(z) unless the prior is conditional too.

Kingma and Welling, "Auto-Encoding Variational Bayes", ICLR 2014; Rezende, Mohamed and Wierstra, ICML 2014.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.distributions import Distribution

from vaekit.models.core import LatentModel
from vaekit.models.picks import Level, Pick
from vaekit.models.view import View, check_context, context_of, joined, plain_input
from vaekit.types import Batch

__all__ = ["VAE"]


class VAE(LatentModel):
    """Prior, posterior and likelihood: three modules that return distributions.

    Args:
        prior: ``() -> p(z)``, batch shape () (`vaekit.priors`, or any zuko flow).
        posterior: ``x [B, *] -> q(z | x)``, batch shape ``[B]``, with x as ``view`` shows it.
        likelihood: ``z [K, B, *] -> p(x | z)``, batch shape ``[K, B]``; with a context it sees (z, c) ``[K, B, D + C]``.
        view: what the posterior sees of a batch: `plain_input`, `with_mask`, `with_context`, `with_mask_and_context` or your own.
        context: C, the numbers per example of the context c; 0 for a model without.
        conditional_prior: whether the prior is ``c [B, C] -> p(z | c)`` rather than ``() -> p(z)``.

    Raises:
        InputError: a negative size of the context, or a conditional prior without a context.

    >>> import torch
    >>> from vaekit import Batch, Conditional, VAE, heads, priors
    >>> from vaekit.models import with_mask_and_context
    >>> _ = torch.manual_seed(0)
    >>> model = VAE(
    ...     prior=priors.StandardNormal(2),
    ...     posterior=Conditional(nn.Linear(6, 4), heads.Gaussian(2)),
    ...     likelihood=Conditional(nn.Linear(2, 6), heads.Bernoulli(6)),
    ... )
    >>> model.infer(Batch(torch.ones(8, 6)), k=3).log_w.shape
    torch.Size([3, 8])

    Given a class as two numbers, and with missing entries that the encoder is told of:

    >>> model = VAE(
    ...     prior=priors.StandardNormal(2),
    ...     posterior=Conditional(nn.Linear(6 + 6 + 2, 4), heads.Gaussian(2)),
    ...     likelihood=Conditional(nn.Linear(2 + 2, 6), heads.Bernoulli(6)),
    ...     view=with_mask_and_context,
    ...     context=2,
    ... )
    >>> model.infer(Batch(torch.ones(8, 6), torch.eye(2)[[0, 1] * 4], torch.rand(8, 6) < 0.5), k=3).log_w.shape
    torch.Size([3, 8])
    >>> model.sample(5, context=torch.tensor([0.0, 1.0])).shape
    torch.Size([5, 6])
    """

    def __init__(
        self,
        prior: nn.Module,
        posterior: nn.Module,
        likelihood: nn.Module,
        *,
        view: View = plain_input,
        context: int = 0,
        conditional_prior: bool = False,
    ) -> None:
        super().__init__()
        self.view, self.context, self.conditional_prior = view, check_context("VAE", context, conditional_prior), conditional_prior
        self.prior = prior
        self.posterior = posterior
        self.likelihood = likelihood

    def unroll(self, pick: Pick, batch: Batch | None = None, context: Tensor | None = None) -> tuple[tuple[Level, ...], Distribution]:
        c = context_of(self.context, batch, context)
        q = None if batch is None else self.posterior(self.view(batch))
        level = pick(0, q, self.prior(c) if self.conditional_prior else self.prior())
        return (level,), self.likelihood(level.z if c is None else joined(level.z, c, 2))
