r"""Training on rows with noise on them, so that the density that is learned is that of the rows blurred.

.. math:: L(x + \tau \epsilon), \quad \epsilon \sim N(0, 1)

A density with more parameters than the rows can hold to account falls off right behind the last row, at a rate that is the network's and
not the data's. Blurred rows fill their neighbourhood: what is learned is the convolution of the rows with N(0, tau^2), as a kernel estimate
with that bandwidth is, and no direction is narrower than tau (Bishop, "Training with noise is equivalent to Tikhonov regularization",
1995).
"""

from __future__ import annotations

import math

from vaekit import noise
from vaekit.errors import InputError
from vaekit.models.core import LatentModel
from vaekit.objectives.core import Loss, Objective
from vaekit.types import Batch

__all__ = ["Blurred"]


class Blurred(Objective):
    """Another objective of rows to each of whose entries fresh normal noise is added.

    Args:
        objective: any objective.
        scale: tau, standard deviation of the noise in the units of x.

    Raises:
        InputError: ``scale`` is not a number >= 0.

    >>> import torch
    >>> from vaekit import heads, priors
    >>> from vaekit.apps.network import build
    >>> from vaekit.objectives import ELBO
    >>> model = build(heads.GaussianFixed(3, 1.0), priors.StandardNormal, 2, [8], seed=0).eval()
    >>> batch = Batch(torch.zeros(2, 3))
    >>> _ = torch.manual_seed(0)
    >>> bool(Blurred(ELBO(), 2.0)(model, batch).surrogate.mean() > ELBO()(model, batch).surrogate.mean())
    True
    """

    def __init__(self, objective: Objective, scale: float) -> None:
        super().__init__()
        if not (math.isfinite(scale) and scale >= 0):
            raise InputError(f"Blurred(scale={scale}): the noise's standard deviation must be a number >= 0, as 0.5")
        self.objective, self.scale = objective, scale
        self.schedules = objective.schedules

    def forward(self, model: LatentModel, batch: Batch, step: int = 0) -> Loss:
        return Loss(*self.objective(model, batch._replace(x=batch.x + self.scale * noise.normal(batch.x.shape, batch.x)), step))
