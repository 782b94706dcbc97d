r"""Does the decoder's variance fit? Standardised residuals (x - mu) / sigma of a Gaussian likelihood have mean square 1 when it does."""

from __future__ import annotations

from typing import NamedTuple

from vaekit.data.core import Split
from vaekit.dist import DiagGaussian
from vaekit.evaluate.passes import batches, device_of, dtype_of, fitting, observing
from vaekit.models.core import LatentModel
from vaekit.models.picks import from_q

__all__ = ["Residuals", "residuals"]


class Residuals(NamedTuple):
    """Root mean square over a data set of x - mu, ``residual``; of ``sigma``; and of (x - mu) / sigma, ``standardised`` (1 where sigma
    fits)."""

    residual: float
    sigma: float
    standardised: float


def residuals(model: LatentModel, split: Split, *, seed: int = 0, batch_size: int = 500) -> Residuals | None:
    """`Residuals` with one z ~ q(z | x) an example; None where p(x | z) is not Gaussian."""
    sums, n = [0.0, 0.0, 0.0], 0.0
    with observing(model, seed):
        for batch in batches(split, fitting(split, batch_size), device_of(model), dtype=dtype_of(model)):
            px = model.trace(from_q(1), batch).px
            if not isinstance(px, DiagGaussian):
                return None
            r = (batch.input - px.mean)[0]
            seen = (r == r if batch.mask is None else batch.mask).double()
            variance = px.variance[0]
            for i, value in enumerate((r.square(), variance, r.square() / variance)):
                sums[i] += float((value * seen).sum())
            n += float(seen.sum())
    return Residuals(*((total / n) ** 0.5 for total in sums))
