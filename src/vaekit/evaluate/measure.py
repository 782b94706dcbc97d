r"""What kind of number log p(x | z) is: it decides whether "negative log-likelihood" and "bits per dimension" mean what they say."""

from __future__ import annotations

from enum import Enum

import torch
from torch.distributions import Distribution, Independent

from vaekit.data.core import Split
from vaekit.dist import Bernoulli, Missing
from vaekit.evaluate.passes import batches, device_of, dtype_of, fitting, observing
from vaekit.models.core import LatentModel
from vaekit.models.picks import at_centre
from vaekit.types import Batch

__all__ = ["Measure", "measure", "measured"]


class Measure(Enum):
    """What log p(x | z) is, for given data."""

    MASS = "log-probability of discrete data"
    EXPECTED_MASS = "expected log-probability of binary pixels, for grey values"
    DENSITY = "log-density, which depends on the units of x"
    WITH_MASK = "log-density of the observed values and of which values are observed"


def measure(model: LatentModel, split: Split, *, batch_size: int = 500) -> Measure | None:
    """The `Measure` of a model's likelihood on a split; None where the likelihood does not say what its support is."""
    found = None
    with observing(model, 0):
        for batch in batches(split, fitting(split, batch_size), device_of(model), dtype=dtype_of(model)):
            px = model.trace(at_centre(), batch).px
            found = measured(px, batch)
            if found is Measure.EXPECTED_MASS or not _binary(px):
                break
    return found


def measured(px: Distribution, batch: Batch) -> Measure | None:
    """The `Measure` of one batch."""
    if isinstance(px, Missing):
        return Measure.WITH_MASK
    if not _binary(px):
        return _by_support(_inner(px))
    x = batch.input  # missing entries are 0 there
    return Measure.EXPECTED_MASS if bool(((x > 0) & (x < 1)).any()) else Measure.MASS


def _binary(px: Distribution) -> bool:
    return isinstance(_inner(px), Bernoulli | torch.distributions.Bernoulli)


def _by_support(px: Distribution) -> Measure | None:
    try:
        support = px.support
    except NotImplementedError:
        return None
    return None if support is None else Measure.MASS if support.is_discrete else Measure.DENSITY


def _inner(d: Distribution) -> Distribution:
    return _inner(d.base_dist) if isinstance(d, Independent) else d
