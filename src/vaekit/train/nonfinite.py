"""Where a NaN or an infinity came from.

Detecting one is cheap: the sums that are kept anyway are looked at. Finding it is not, so it happens once, afterwards: the step is run
again with the same noise, and every term is looked at in the order in which it is computed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaekit.dist import closed_form_kl, describe
from vaekit.models.core import LatentModel, Trace
from vaekit.models.picks import Level, Pick
from vaekit.objectives.core import Loss
from vaekit.train.step import Step
from vaekit.types import Batch

__all__ = ["explain", "first_nonfinite", "parameters_of"]


class Found(Exception):
    """The first term that is not finite, as the start of a sentence, and which of the examples are affected, ``[B]`` or None."""

    def __init__(self, what: str, rows: Tensor | None) -> None:
        super().__init__(what)
        self.what = what
        self.rows = rows


def explain(module: Step, forward: Callable[[Batch, int], Loss], batch: Batch, step: int) -> str:
    """What went wrong in a step, in one clause, with the number of examples and their rows.

    Args:
        module: model and objective.
        forward: the same, in the precision of the training.
        batch: the step's batch.
        step: its number. The random generators must stand where they stood before its forward pass.
    """
    advice = "clean the data or give a mask"
    watch = Watch()
    try:
        watch.check("x", batch.x if batch.mask is None else batch.x.masked_fill(~batch.mask, 0), 1)
        if batch.c is not None:
            watch.check("the context c", batch.c, 1)
        advice = "a lower learning rate or Training(clip=...) often helps"
        x = batch.x.detach().clone().requires_grad_()
        with watch.over(module.model):
            loss = forward(batch._replace(x=x), step)
        if loss.bound is not None:
            watch.check("the bound, though each of its terms is finite,", loss.bound, 1)
        watch.check("the surrogate, though the terms of the bound are finite,", loss.surrogate, 1)
        watch.check_gradient(module, loss.surrogate.mean(), x)
    except Found as found:
        return f"{found.what}{_examples(batch, found.rows)}; {advice}"
    return f"the sum over the batch or the gradient's norm overflows, though each of its terms is finite; {advice}"


def first_nonfinite(model: LatentModel, batch: Batch, k: int) -> str | None:
    """The first term of a pass with k samples of each example, in the order of computation, that is NaN or infinite, with its rows; None
    where none is."""
    watch = Watch()
    try:
        watch.check("x", batch.input, 1)
        with watch.over(model):
            model.infer(batch, k)
    except Found as found:
        return f"{found.what}{_examples(batch, found.rows)}"
    return None


class Watch:
    """Looks at tensors as they come, raises `Found` at the first that is not finite, and remembers them for their gradients."""

    def __init__(self) -> None:
        self.seen: list[tuple[Tensor, int]] = []

    def check(self, what: str, t: Tensor, dims: int, *, minus_inf: bool = False) -> None:
        """t is ``[B, *]`` (dims 1), ``[K, B, *]`` (dims 2), or has no batch (dims 0)."""
        if t.requires_grad and dims > 0:
            self.seen.append((t, dims))
        good = t.isfinite() | (t == -torch.inf) if minus_inf else t.isfinite()
        if not bool(good.all()):
            raise Found(f"{what} is {'NaN' if bool(t.isnan().any()) else 'infinite'}", _rows(~good, dims))

    def check_parameters(self, at: str, what: str, d: Distribution) -> None:
        """NaN or +inf; -inf can be meant (the logit of what is forbidden)."""
        dims = len(d.batch_shape)
        for name, t in parameters_of(d):
            shared = t.shape[:dims] != d.batch_shape  # one for all examples
            self.check(f"{at}{name} of {what} ({describe(d)})", t, 0 if shared else dims, minus_inf=True)

    @contextmanager
    def over(self, model: LatentModel) -> Iterator[None]:
        """Look at every pass that is made through the model."""
        unroll = model.unroll

        def watched(pick: Pick, batch: Batch | None = None, context: Tensor | None = None) -> tuple[tuple[Level, ...], Distribution]:
            levels, px = unroll(lambda number, q, p: self._level(number, q, p, pick), batch, context)
            self.check_parameters("", "p(x | z)", px)
            if batch is not None:
                self.check("log p(x | z)", Trace(batch, levels, px).log_px, 2)
            return levels, px

        # The instance's own attribute hides the method for as long as this takes: the objective calls the model as it always does.
        model.unroll = watched  # type: ignore[method-assign]
        try:
            yield
        finally:
            del model.unroll

    def _level(self, number: int, q: Distribution | None, p: Distribution, pick: Pick) -> Level:
        at, pz = f"level {number}: ", "p(z)" if number == 0 else "p(z | above)"
        if q is not None:
            self.check_parameters(at, "q(z | x)", q)
        level = pick(number, q, p)
        self.check(f"{at}z", level.z, 2)
        if level.log_q is not None:
            self.check(f"{at}log q(z | x)", level.log_q, 2)
        self.check_parameters(at, pz, p)
        self.check(f"{at}log {pz}", level.log_p, 2)
        kl = None if q is None else closed_form_kl(q, p)
        if kl is not None:
            self.check(f"{at}KL(q || p)", kl, kl.dim())
        return level

    def check_gradient(self, module: Step, loss: Tensor, x: Tensor) -> None:
        """The gradients of the parameters. Which rows are to blame is seen in the gradients of what was computed for each of them."""
        if not loss.requires_grad:
            return
        named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        tensors = [*(p for _, p in named), *(t for t, _ in self.seen), x]
        grads = torch.autograd.grad(loss, tensors, retain_graph=True, allow_unused=True)
        bad = [None if g is None or bool(g.isfinite().all()) else ~g.isfinite() for g in grads]
        names = [name for (name, _), b in zip(named, bad, strict=False) if b is not None]
        if not names:
            return
        dims = [*(dims for _, dims in self.seen), 1]
        rows = [_rows(b, n) for b, n in zip(bad[len(named) :], dims, strict=True) if b is not None]
        # Backwards, a NaN spreads to all that was computed before: the last parameter is the one nearest to where it arose.
        others = f" (and of {len(names) - 1} before it)" if len(names) > 1 else ""
        raise Found(f"the gradient of {names[-1]}{others}{_origin(loss, tensors)} is not finite", rows[-1] if rows else None)


def _rows(bad: Tensor, dims: int) -> Tensor | None:
    """Which examples, ``[B]``, from ``[B, *]`` or ``[K, B, *]``."""
    if dims == 0:
        return None
    rows = bad.reshape(*bad.shape[:dims], -1).any(-1)
    return rows if dims == 1 else rows.any(0)


def parameters_of(d: Distribution) -> Iterator[tuple[str, Tensor]]:
    """The floating tensors, of any shape, that a distribution holds, by name; those of what it is made of too."""
    for name, value in vars(d).items():
        if isinstance(value, Tensor) and value.is_floating_point():
            yield name.lstrip("_"), value
        elif isinstance(value, Distribution):
            yield from parameters_of(value)


def _origin(loss: Tensor, tensors: list[Tensor]) -> str:
    """Which operation's backward pass made the first NaN, where autograd can say."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anomaly mode announces itself, and prints where the operation stands
        try:
            with torch.autograd.detect_anomaly(check_nan=True):
                torch.autograd.grad(loss, tensors, retain_graph=True, allow_unused=True)
        except RuntimeError as error:
            words = str(error).split("'")
            return f", first made by {words[1]}," if len(words) > 2 else ""
    return ""


def _examples(batch: Batch, rows: Tensor | None) -> str:
    if rows is None or rows.shape[0] != batch.size:  # no part of one example, or a pass over generated ones
        return " for every example"
    index = torch.arange(batch.size) if batch.index is None else batch.index.cpu()
    which = sorted(index[rows.cpu()].tolist())
    listed = ", ".join(map(str, which[:8])) + (", ..." if len(which) > 8 else "")
    return f" for {len(which)} of {batch.size} examples (row{'s' if len(which) > 1 else ''} {listed})"
