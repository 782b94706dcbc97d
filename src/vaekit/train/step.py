"""The one module that ``torch.compile``, and among several processes Fabric and DDP, see: model and objective behind one forward."""

from __future__ import annotations

from torch import nn

from vaekit.models.core import LatentModel
from vaekit.objectives.core import Loss, Objective
from vaekit.types import Batch

__all__ = ["Step"]


class Step(nn.Module):
    """(batch, step) -> `Loss`. Its parameters are the model's and, where an objective learns something (a baseline), the objective's.

    >>> import torch
    >>> from vaekit import ELBO, VAE, Conditional, heads, priors
    >>> _ = torch.manual_seed(0)
    >>> model = VAE(
    ...     priors.StandardNormal(2),
    ...     Conditional(nn.Linear(6, 4), heads.Gaussian(2)),
    ...     Conditional(nn.Linear(2, 12), heads.Gaussian(6)),
    ... )
    >>> Step(model, ELBO())(Batch(torch.ones(8, 6)), 0).surrogate.shape
    torch.Size([8])
    """

    def __init__(self, model: LatentModel, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self.objective = objective

    def forward(self, batch: Batch, step: int) -> Loss:
        return self.objective(self.model, batch, step)
