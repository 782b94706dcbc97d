r"""The plainest density of a table, in which no column knows of another: one standard normal for each standardised column.

.. math:: b(u) = \prod_d N(u_d; 0, 1)

It cannot learn a group of rows, so a group of anomalies cannot deceive it; and it says of every row, however far from all others, how
far from the middle it lies, where a flexible density has seen nothing and says what its network happens to continue with. Hence two uses:
which rows a robust fit leaves out, and as one component of a mixture, which then falls nowhere below its share of b.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from vaekit import heads, priors
from vaekit.apps.columns import observed
from vaekit.conditional import Conditional
from vaekit.models import VAE, with_mask
from vaekit.types import Batch

__all__ = ["background", "central"]


class Nothing(nn.Module):
    """Zeros, ``[..., out_features]``, whatever comes in."""

    def __init__(self, out_features: int) -> None:
        super().__init__()
        self.out_features = out_features

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(*x.shape[:-1], self.out_features)


def background(columns: int) -> VAE:
    """b as a VAE, so that it can be one model of several: its z tells nothing, q(z | x) = p(z), and each importance weight is b(u).

    >>> import torch
    >>> from vaekit.apps.weighted import log_evidence
    >>> log_evidence(background(2).double(), Batch(torch.tensor([[3.0, 0.0]], dtype=torch.float64)), samples=1, seed=0)
    tensor([-6.3379], dtype=torch.float64)
    """
    return VAE(
        priors.StandardNormal(1),
        Conditional(Nothing(1), heads.GaussianFixed(1, 1.0)),
        Conditional(Nothing(columns), heads.GaussianFixed(columns, 1.0)),
        view=with_mask,
    )


def central(batch: Batch, share: float) -> NDArray[np.bool_]:
    """Which rows are left of standardised ones, bool ``[N]``, without the ``share`` (rounded down) that b finds least likely.

    Rows with entries missing are compared by the mean over the others; one without any entry counts as the middle.
    """
    seen = observed(batch)
    far = (batch.input.square() * seen).sum(1) / seen.sum(1).clamp(min=1)
    kept = np.ones(batch.size, dtype=np.bool_)
    kept[far.argsort(stable=True).numpy()[batch.size - int(share * batch.size) :]] = False
    return kept
