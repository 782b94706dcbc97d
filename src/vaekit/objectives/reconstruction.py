r"""The reconstruction term alone.

.. math:: -E_{q(z|x)} \left[ \log p(x | z) \right]

With a point-mass posterior (`vaekit.heads.Point`) this trains a plain autoencoder; with a fixed-sigma Gaussian p(x | z) it is then the
squared error of Rumelhart, Hinton and Williams, "Learning Internal Representations by Error Propagation", 1986.
"""

from __future__ import annotations

from vaekit.models.core import LatentModel
from vaekit.objectives.core import Loss, Objective, samples
from vaekit.types import Batch

__all__ = ["Reconstruction"]


class Reconstruction(Objective):
    r"""surrogate = -(1/K) sum_k log p(x | z_k), z_k ~ q(z | x); bound None: without the rate it bounds nothing.

    ``logs`` hold ``log_px`` alone. Any posterior will do: a stochastic one is then free to become as narrow as it likes, wherever it
    likes. For a `heads.Point` more than one sample changes nothing.

    Args:
        k: samples per example.

    Raises:
        InputError: k < 1, or no whole number.

    >>> import torch
    >>> from vaekit import Conditional, VAE, heads, priors
    >>> _ = torch.manual_seed(0)
    >>> autoencoder = VAE(
    ...     priors.StandardNormal(2),
    ...     Conditional(torch.nn.Linear(6, 2), heads.Point(2)),
    ...     Conditional(torch.nn.Linear(2, 6), heads.GaussianFixed(6, 1.0)),
    ... )
    >>> loss = Reconstruction()(autoencoder, Batch(torch.ones(8, 6)))
    >>> loss.surrogate.shape, loss.bound, list(loss.logs)
    (torch.Size([8]), None, ['log_px'])
    """

    per_example = True

    def __init__(self, k: int = 1) -> None:
        super().__init__()
        self.k = samples("Reconstruction", k)

    def forward(self, model: LatentModel, batch: Batch, step: int = 0) -> Loss:
        log_px = model.infer(batch, self.k).log_px.mean(0)
        return Loss(-log_px, None, {"log_px": log_px.detach()})
