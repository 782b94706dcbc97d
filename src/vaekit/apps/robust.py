r"""Training that leaves out what it finds least likely, so that anomalies among the rows are not learned.

.. math:: \mathrm{surrogate} = -\frac1{|S|} \sum_{b \in S} L(x_b), \qquad
          S = \text{the } (1 - t) B \text{ rows with the largest } L

Least trimmed squares (Rousseeuw, "Least median of squares regression", 1984) with a bound in the place of squares. The bound that is
reported, and by which early stopping judges, is that of the same rows: judged by all rows, the best weights would be those that have begun
to learn the anomalies.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vaekit.errors import InputError
from vaekit.models.core import LatentModel
from vaekit.objectives.core import Loss, Objective
from vaekit.objectives.schedules import Stages
from vaekit.types import Batch

__all__ = ["Trimmed"]


class Trimmed(Objective):
    """Another objective without the share of each batch that has the largest surrogate. The mean of the surrogate over the batch is that
    of the rows that are kept, and so is that of the bound; the logs are those of all rows.

    Args:
        objective: any objective with a surrogate per row.
        share: t, of the rows that are left out, rounded down.
        after: steps before the first row is left out: a model that knows nothing cannot tell which are strange. Early stopping waits too.

    Raises:
        InputError: a share outside [0, 1), or a negative number of steps.

    >>> from vaekit.apps.network import build
    >>> from vaekit import heads, priors
    >>> from vaekit.objectives import ELBO
    >>> model = build(heads.GaussianFixed(3, 1.0), priors.StandardNormal, 2, [8], seed=0).eval()
    >>> x = torch.zeros(10, 3)
    >>> x[4] = 100.0
    >>> loss = Trimmed(ELBO(), 0.1)(model, Batch(x))
    >>> loss.surrogate[4].item(), loss.bound[4].item(), bool(loss.logs["log_px"][4] < -1000)
    (0.0, 0.0, True)
    """

    def __init__(self, objective: Objective, share: float, *, after: int = 0) -> None:
        super().__init__()
        if not 0 <= share < 1:
            raise InputError(f"Trimmed(share={share}): the share that is left out lies in [0, 1), as 0.2")
        if after < 0:
            raise InputError(f"Trimmed(after={after}): a number of steps cannot be negative")
        self.objective, self.share, self.after = objective, share, after
        self.schedules = (Stages(ends=(after,), values=(0.0, share)),) if after else ()

    def forward(self, model: LatentModel, batch: Batch, step: int = 0) -> Loss:
        loss = self.objective(model, batch, step)
        out = int(self.share * batch.size)
        if out == 0 or step < self.after:
            return Loss(*loss)
        kept = torch.ones_like(loss.surrogate, dtype=torch.bool)
        kept[loss.surrogate.detach().topk(out).indices] = False
        return Loss(_mean_of(kept, loss.surrogate), None if loss.bound is None else _mean_of(kept, loss.bound), loss.logs)


def _mean_of(kept: Tensor, values: Tensor) -> Tensor:
    """Values whose mean over all rows is the mean of those that are kept; where() so that 0 times infinity is 0."""
    return torch.where(kept, values, torch.zeros_like(values)) * (len(kept) / kept.sum())
