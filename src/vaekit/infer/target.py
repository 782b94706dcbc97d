"""The posterior of a model as the target of a chain: log p(x, z) as a function of z."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.distributions import Distribution, constraints

from vaekit.dist import describe, is_discrete
from vaekit.errors import InputError
from vaekit.models.core import LatentModel, Trace
from vaekit.models.picks import Level, given
from vaekit.types import Batch

__all__ = ["log_posterior", "scored"]


def log_posterior(model: LatentModel, batch: Batch) -> Callable[[Tensor | Sequence[Tensor]], Tensor]:
    """log p(x, z) = log p(z | x) + constant, ``[K, B]`` nats, as a function of the latents ``[K, B, *]``, for `sample`.

    It is ``partial(model.log_joint, batch)`` that does not run the posterior module q, which plays no part in it. Dropout and batch
    normalisation in a decoder have no one density: call ``model.eval()`` first.

    Raises:
        InputError: at the call, a level that is discrete or bounded, where Hamiltonian dynamics cannot go.
    """

    return lambda z: scored(model, batch, z).log_joint


def scored(model: LatentModel, batch: Batch, z: Tensor | Sequence[Tensor]) -> Trace:
    """``model.score(batch, z)`` without q: log p(x, z) and its terms for latents ``[K, B, *]``.

    Raises:
        InputError: a level that is discrete or bounded.
    """
    told = given(z)

    def pick(number: int, q: Distribution | None, p: Distribution) -> Level:
        _check(number, p)
        return told(number, q, p)

    return Trace(batch, *model.unroll(pick, None if batch.c is None else batch))


def _check(number: int, p: Distribution) -> None:
    support = _support(p)
    if support is None or _unbounded(support):
        return
    fault, advice = (
        ("discrete", "for discrete latents use RWS or WakeSleep") if is_discrete(p) else ("bounded", "use a prior on all real numbers")
    )
    raise InputError(f"level {number}: p(z) = {describe(p)} is {fault}, so log p(x, z) has no gradient that a chain could follow: {advice}")


def _support(p: Distribution) -> constraints.Constraint | None:
    try:
        return p.support
    except NotImplementedError:  # a distribution that does not say, as a flow
        return None


def _unbounded(support: constraints.Constraint) -> bool:
    while isinstance(support, constraints.independent | constraints.MixtureSameFamilyConstraint):
        support = support.base_constraint
    return isinstance(support, type(constraints.real))
