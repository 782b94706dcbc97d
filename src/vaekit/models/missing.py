r"""Values that are missing because of what they are: a model of the mask on top of any model of the data.

.. math:: p(x_{obs}, m, z, u) = p(z) \, p(u | z) \, p(x_{obs} | z) \, p(m | x_{obs}, u_{mis}), \qquad
          q(z, u | x_{obs}) = q(z | x_{obs}) \, p(u | z)

The unseen values u are one more level, whose posterior is its own prior: q(u | z) = p(u | z). Its terms cancel in every weight,

.. math:: w = \frac{p(x_{obs} | z) \, p(m | x_{obs}, u_{mis}) \, p(z)}{q(z | x_{obs})}

so that `IWAE` of this model is the bound of not-MIWAE, and every other objective, estimate and sampler holds for it as it is.

Ipsen, Mattei and Frellsen, "not-MIWAE: Deep Generative Modelling with Missing not at Random Data", ICLR 2021.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.distributions import Distribution

from vaekit.dist.missing import Missing, drawable
from vaekit.models.core import LatentModel
from vaekit.models.picks import Level, Pick
from vaekit.types import Batch

__all__ = ["NotAtRandom"]


class NotAtRandom(LatentModel):
    """A model of x with a model of which values of x are observed.

    log p(x, m) is of observed values and of the mask: it is no log p(x), and compares with that of other models of the mask alone. `embed`
    and rates are those of ``model``: what is missing is drawn anew, and is no code of x.

    Args:
        model: of x, with vectors ``[B, D]`` whose columns that may be missing can be drawn with a gradient (Gaussian, Student's t).
        missing: log p(m_d | x), a `heads.MaskModel`.

    >>> import torch
    >>> from vaekit import IWAE, VAE, Conditional, heads, priors
    >>> from vaekit.models import with_mask
    >>> _ = torch.manual_seed(0)
    >>> inner = VAE(
    ...     priors.StandardNormal(2),
    ...     Conditional(nn.Linear(6, 4), heads.Gaussian(2)),
    ...     Conditional(nn.Linear(2, 6), heads.Gaussian(3)),
    ...     view=with_mask,
    ... )
    >>> model = NotAtRandom(inner, heads.SelfMasking(3, [0]))
    >>> batch = Batch(torch.randn(8, 3), mask=torch.rand(8, 3) < 0.7)
    >>> IWAE(20)(model, batch).bound.shape, [z.shape[-1] for z in model.infer(batch).z], model.embed(batch).shape
    (torch.Size([8]), [2, 3], torch.Size([8, 2]))
    """

    def __init__(self, model: LatentModel, missing: nn.Module) -> None:
        super().__init__()
        self.model, self.missing = model, missing

    def unroll(self, pick: Pick, batch: Batch | None = None, context: Tensor | None = None) -> tuple[tuple[Level, ...], Distribution]:
        levels, px = self.model.unroll(pick, batch, context)
        p, places = drawable(px)
        u = pick(len(levels), p, p)  # with data and without
        return (*levels, u), Missing(px, u.z, places, self.missing)
