r"""Bounds that weight K samples.

.. math:: \log p(x) \ge E \log \frac1K \sum_k \frac{p(x, z_k)}{q(z_k | x)}, \qquad z_k \sim q(z | x)

Burda, Grosse and Salakhutdinov, "Importance Weighted Autoencoders", ICLR 2016.
"""

from __future__ import annotations

from vaekit import bounds
from vaekit.models.core import LatentModel
from vaekit.objectives.core import Loss, Objective, samples, terms
from vaekit.types import Batch

__all__ = ["IWAE"]


class IWAE(Objective):
    r"""bound = log (1/K) sum_k w_k, differentiated through the reparameterised samples; K = 1 is the ELBO with a sampled KL.

    Burda, Grosse and Salakhutdinov, "Importance Weighted Autoencoders", ICLR 2016.

    ``logs`` add the effective sample size ``ess``. The logged ``log_px`` and ``rate_l`` are plain means over K: their difference is the
    ELBO, which lies below this bound.

    Raises:
        InputError: k < 1, or no whole number.

    >>> import torch
    >>> from vaekit import Conditional, VAE, heads, priors
    >>> _ = torch.manual_seed(0)
    >>> model = VAE(
    ...     priors.StandardNormal(2),
    ...     Conditional(torch.nn.Linear(6, 4), heads.Gaussian(2)),
    ...     Conditional(torch.nn.Linear(2, 6), heads.Bernoulli(6)),
    ... )
    >>> IWAE(k=5)(model, Batch(torch.ones(8, 6))).bound.shape
    torch.Size([8])
    """

    compiles = True
    per_example = True

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = samples("IWAE", k)

    def forward(self, model: LatentModel, batch: Batch, step: int = 0) -> Loss:
        t = model.infer(batch, self.k)
        log_px, rate = t.log_px, t.rate
        log_w = log_px - rate.sum(-1)
        bound = bounds.iwae(log_w)
        return Loss(-bound, bound.detach(), terms(log_px, rate) | {"ess": bounds.ess(log_w.detach())})
