r"""How well a model gives back what it was given: a number that an autoencoder has too.

.. math:: \hat x = E[x | z = \mathrm{centre}\, q(z | x)], \qquad |x - \hat x|^2, \qquad E_{q(z|x)} \log p(x | z)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from vaekit.data.core import Split
from vaekit.dist import has_density
from vaekit.evaluate.passes import batches, device_of, dtype_of, fitting, observing
from vaekit.models.core import LatentModel
from vaekit.models.picks import at_centre

__all__ = ["Reconstructed", "reconstruction", "scorable"]


@dataclass(frozen=True)
class Reconstructed:
    """What `reconstruction` found; ``_se`` is the standard error of the mean over examples.

    Attributes:
        examples: N.
        squared_error: mean of |x - x_hat|^2 over the examples, summed over the (observed) entries of x, in squared units of x.
        log_px: mean of log p(x | z), one z ~ q(z | x) an example, nats.
    """

    examples: int
    squared_error: float
    squared_error_se: float
    log_px: float
    log_px_se: float


def scorable(model: LatentModel, split: Split) -> bool:
    """Whether q(z | x) has a density at every level, without which there is neither a bound nor a likelihood (`heads.Point` has none)."""
    with observing(model, 0):
        batch = next(batches(split.head(1), 1, device_of(model), dtype=dtype_of(model)))
        return all(level.q is None or has_density(level.q) for level in model.trace(at_centre(), batch).levels)


def reconstruction(model: LatentModel, split: Split, *, seed: int = 0, batch_size: int = 500) -> Reconstructed:
    """`Reconstructed` for every example of ``split``; the caller's random numbers are left as they were.

    >>> from vaekit import Conditional, VAE, heads, priors
    >>> same = torch.nn.Identity()
    >>> copy = VAE(priors.StandardNormal(2), Conditional(same, heads.Point(2)), Conditional(same, heads.GaussianFixed(2, 1.0)))
    >>> found = reconstruction(copy, Split(torch.randn(10, 2)))
    >>> found.squared_error, found.log_px
    (0.0, -1.8379)
    """
    values = []
    with observing(model, seed):
        for batch in batches(split, fitting(split, batch_size), device_of(model), dtype=dtype_of(model)):
            error = (batch.input - model.reconstruct(batch)).square()
            if batch.mask is not None:
                error = error * batch.mask
            values.append(torch.stack([error.flatten(1).sum(1), model.infer(batch).log_px[0]], -1).double().cpu())
    found = torch.cat(values)
    mean = found.mean(0).tolist()
    se = (found.std(0) / math.sqrt(len(found))).tolist() if len(found) > 1 else [math.nan, math.nan]
    return Reconstructed(len(found), mean[0], se[0], mean[1], se[1])
