"""A model that gives NaN or infinities, named: which term was the first, which weights are to blame."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaekit.evaluate.advice import Finding
from vaekit.models.core import LatentModel
from vaekit.models.picks import Level
from vaekit.train.nonfinite import first_nonfinite, parameters_of
from vaekit.types import Batch

__all__ = ["Broken", "broken", "broken_weights", "seen_in"]

HELPS = (
    "go back to the last checkpoint that was fine and train with a lower learning rate, Training(clip=...), or a floor of the scale "
    "(min_scale=...)"
)


class Broken(Exception):
    """A pass gave a number that is not finite; the message says where."""


def broken_weights(model: LatentModel) -> list[Finding]:
    """A finding on each parameter that is NaN or infinite, and on each buffer that is NaN (infinities of a mask are meant)."""
    found = []
    named: list[tuple[str, Tensor, Tensor]] = [(name, ~p.isfinite(), p) for name, p in model.named_parameters()]
    named += [(name, b.isnan(), b) for name, b in model.named_buffers() if b.is_floating_point()]
    for name, bad, t in named:
        if bool(bad.any()):
            what = "NaN" if bool(t.isnan().any()) else "infinite"
            found.append(
                Finding("error", f"The weights are damaged: {int(bad.sum())} of {t.numel()} values of {name} are {what}; {HELPS}.")
            )
    return found


def broken(model: LatentModel, batch: Batch, k: int, seen: Sequence[tuple[str, Distribution]]) -> Broken:
    """What to say of a pass that is not finite. The random generators must stand where they stood before it.

    Args:
        model: in evaluation mode.
        batch: the pass's.
        k: samples.
        seen: the distributions of the pass, with what they are called.
    """
    try:
        first = first_nonfinite(model, batch, k)
    except (ValueError, RuntimeError) as error:  # torch's distributions look at their arguments
        first = " ".join(str(error).split())[:200]
    if first is None:
        first = "a term of the bound is not finite, though all are where the same pass is made again"
    return Broken(f"No number can be trusted: {first}. {_largest(model, seen)}; {HELPS}.")


def seen_in(levels: Sequence[Level], px: Distribution) -> list[tuple[str, Distribution]]:
    """The distributions of a pass, of its ``levels`` and ``px``, as they are called in messages."""
    found: list[tuple[str, Distribution]] = []
    for n, level in enumerate(levels):
        found += [] if level.q is None else [(f"q(z | x) at level {n}", level.q)]
        found.append((f"p(z) at level {n}", level.p))
    return [*found, ("p(x | z)", px)]


def _largest(model: LatentModel, seen: Sequence[tuple[str, Distribution]]) -> str:
    inner = [(f"{name} of {what}", t) for what, d in seen for name, t in parameters_of(d)]
    weights = [(name, p) for name, p in model.named_parameters()]
    said = [f"The largest {kind} is {_extreme(of)}" for kind, of in (("weight", weights), ("parameter of a distribution", inner)) if of]
    return "; ".join(said).replace("; The", "; the")


def _extreme(named: Sequence[tuple[str, Tensor]]) -> str:
    """The name and the value of the largest finite magnitude."""
    most = [(float(torch.nan_to_num(t.detach(), 0.0, 0.0, 0.0).abs().max()), name) for name, t in named if t.numel()]
    value, name = max(most)
    return f"{name}, up to {value:.3g}"
