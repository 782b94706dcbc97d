"""One step of training: as the operations come, compiled into one program, or one of several that start together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from vaekit.compiling import Compiled, NotCompiledError
from vaekit.data.core import Prepare
from vaekit.objectives.core import Loss, Objective
from vaekit.objectives.rates import Penalty
from vaekit.train.adam import InGraphAdam, Moments
from vaekit.train.checks import constant_from
from vaekit.train.feed import Feed, SplitFeed
from vaekit.train.meter import Sums, summed, values_of
from vaekit.train.ranks import Rows, count
from vaekit.train.replay import Launches, NotReplayedError
from vaekit.train.run import Run
from vaekit.train.settings import Training
from vaekit.train.sharding import whole
from vaekit.train.step import Step
from vaekit.types import Batch

__all__ = ["COMPILE_FROM", "Engine", "familiar", "hooked", "known", "worth_compiling"]

COMPILE_FROM = 2000
"""Steps of a run from which compiling (some ten seconds, less when torch finds it in its cache) saves more than it takes."""

KNOWN = ("torch", "vaekit", "zuko")
"""Packages whose modules keep what changes in tensors. Others may count in plain numbers, which a program that looks at nothing again
would freeze; so would a hook."""


def familiar(thing: object) -> bool:
    """Whether a class or a function is of a package whose habits are known."""
    return str(getattr(thing, "__module__", "")).partition(".")[0] in KNOWN


def hooked(module: nn.Module) -> bool:
    """Whether something runs beside the module's forward."""
    return any(getattr(module, f"_{name}") for name in ("forward_hooks", "forward_pre_hooks", "backward_hooks", "backward_pre_hooks"))


def known(module: nn.Module, prepare: Prepare) -> bool:
    """Whether all that a step runs, ``prepare`` and ``module``, keeps what changes in tensors."""
    parts = [prepare, *(type(m) for m in module.modules())]
    return all(familiar(part) for part in parts) and not any(hooked(part) for part in module.modules())


def promised(module: Step) -> bool:
    """Whether the objective and its penalties promise that a step is tensor operations alone (`Objective.compiles`)."""
    return all(vars(type(m)).get("compiles", False) for m in module.objective.modules() if isinstance(m, Objective | Penalty))


def worth_compiling(training: Training, module: Step, device: torch.device, steps: int | None) -> bool:
    """Whether a run of ``module`` with the settings ``training``, of so many steps (None: nobody knows how many) compiles them:
    ``Training.compile``, by default on a processor; where the objective promises it, and the run is one process.

    By default not where images are normalised by the batch: what becomes of that is slower than torch's own (measured on ResNet-18: two
    minutes to compile, and then 1.17 of the time).
    """
    if not promised(module) or training.precision == "64-true" or training.devices > 1:
        return False
    if training.compile is not None:
        return training.compile
    normalised = any(isinstance(part, nn.BatchNorm2d) for part in module.modules())
    return device.type == "cpu" and (steps or 0) >= COMPILE_FROM and not normalised


def not_replayed(training: Training, run: Run, feed: Feed) -> str | None:
    """Why the steps of a run cannot be started several at a time, where they cannot; a clause."""
    if training.devices > 1:
        return "several processes train together"
    if training.precision == "64-true":
        return "a GPU reads the learning rate in float32"
    if not promised(run.module):
        return "the objective does not promise that a step is tensor operations alone (Objective.compiles)"
    if constant_from(run.module.objective) is None:
        return "a schedule of the objective never settles"
    if any(hooked(part) for part in run.module.modules()):
        return "there are hooks in the model, which a recording would not call"
    if not InGraphAdam.suits(run.optimiser) or not run.optimiser.param_groups[0]["fused"]:
        return "the optimiser is not torch's fused Adam or AdamW with one group of parameters"
    if not isinstance(feed, SplitFeed) or feed.on_disk:
        return "the rows do not lie in memory"
    return None


class Engine:
    """``engine(rows, step)`` takes the gradients of the surrogate's batch mean, ``engine.update(step)`` the steps of the optimiser
    and of the weights' average.

    Compiled, both are one program, with the gathering of the rows, noise, clipping and sums: nothing in it waits for Python, and the
    weights have changed before anybody could look at the loss. (Of an optimiser other than Adam and AdamW the step stays apart.) A
    warm-up's steps (its schedules change each time), an epoch's odd batch and what torch cannot compile run as they are. Both ways agree
    to rounding, noise included.

    Several full batches may go at once (`many`, `together`), as `Launches` has it; compiled or not.

    Args:
        run: model and objective, where they are trained, and torch's own optimiser; among its processes each takes its part of a batch.
        forward: model and objective in the precision of the training.
        fabric: for the backward pass of ``forward``: `OneDevice`, or Fabric.
        optimiser: as that sees it.
        feed: makes rows a batch; of rows in memory the gathering is part of the program, others are given to it.
        training: precision, clipping, schedule and steps at a time.
        compiled: whether to compile.
        note: told once where compiling failed, or taking several steps at a time.
    """

    def __init__(
        self,
        run: Run,
        forward: Callable[[Batch, int], Loss],
        fabric: Any,
        optimiser: Any,
        feed: Feed,
        training: Training,
        *,
        compiled: bool,
        note: Callable[[str], None],
    ) -> None:
        module = run.module
        self.run, self.module, self.forward, self.fabric, self.feed, self.training = run, module, forward, fabric, feed, training
        self.optimiser, self.ranks = optimiser, run.ranks
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.constant_from = constant_from(module.objective)
        fixed = known(module, feed.prepare)
        self.whole = None
        if compiled:
            reads = self._reads if run.device.type == "cpu" else None
            self.whole = Compiled(self._whole, differentiates=True, fixed=fixed, reads=reads, substitute=False, note=note)
        in_graph = (compiled or training.replay > 1) and InGraphAdam.suits(run.optimiser)
        self.adam = InGraphAdam(run.optimiser, self.parameters) if in_graph else None
        self.launches = self._launches(note) if training.replay > 1 else None
        self.updated = self.averaged = False

    def __call__(self, rows: Rows, step: int, *, careful: bool) -> Sums:
        """A step's sums.

        Args:
            rows: of the batch, as the feed gives them.
            step: its number.
            careful: leave the weights alone until `update`.
        """
        self.updated = self.averaged = False
        size = count(rows)
        full = size == self.feed.size
        steady = self.constant_from is not None and step >= self.constant_from
        if self.whole is None or self.whole.failed or careful or not (full and steady):
            return self._plain(rows, step)
        moments = None if self.adam is None else self.adam.moments()
        if self.adam is not None and moments is None:
            return self._plain(rows, step)
        try:
            names, total, grads = self.whole(rows, moments)
        except NotCompiledError:
            return self._plain(rows, step)
        if self.adam is None:
            for p, grad in zip(self.parameters, grads, strict=True):
                # a program gives a gradient in any layout, and a fused update walks raw memory
                p.grad = grad if grad is None or grad.stride() == p.stride() else torch.empty_like(p).copy_(grad)
        else:
            self.adam.count()
            self.updated = True
        return Sums(names, total, size)

    def update(self, step: int) -> None:
        """The optimiser's step, where the program has not done it, and that of the weights' average after step number ``step``."""
        if not self.updated:
            self.optimiser.step()
            if self.adam is not None:
                self.adam.seen = None  # the count of steps has gone on without it
        if self.run.ema is not None and not self.averaged:
            self.run.ema.update(step)

    def many(self, *, careful: bool) -> int:
        """How many of the next steps of the run go `together`; 1 where each is to be looked at (``careful``)."""
        at = self.run.at
        return 1 if self.launches is None or careful else self.launches.many(at.batch, at.step)

    def together(self, rows: Sequence[Rows], step: int, *, careful: bool) -> Sums:
        """The sums of as many steps as `many` said, the first of which is number ``step``; more than one are updated as well, for one
        ``careful`` is that of a call."""
        if self.launches is None or len(rows) == 1:
            return self(rows[0], step, careful=careful)
        found = self.launches(torch.stack([index for index in rows if isinstance(index, Tensor)]), step)
        self.updated = self.averaged = True
        return found

    def _launches(self, note: Callable[[str], None]) -> Launches | None:
        reason = not_replayed(self.training, self.run, self.feed)
        if reason is not None or self.adam is None:
            note(f"steps are taken one by one and not {self.training.replay} at a time: {reason}")
            return None
        full = (self.feed.rows or 0) // self.feed.size * self.training.repeat
        begin = self.constant_from or 0
        return Launches(self.run, self.training, self.adam, full=full, begin=begin, step=self._in_launch, plain=self._one_by_one, note=note)

    def _in_launch(self, rows: Tensor, scalars: Tensor, rate: Tensor, weight: Tensor) -> Sums:
        """A whole step; what another step has otherwise stands in tensors."""
        adam, ema, compiled = self.adam, self.run.ema, None
        if adam is None:
            raise NotReplayedError("the optimiser is not torch's Adam or AdamW with one group of parameters")
        if self.whole is not None and not self.whole.failed:
            with suppress(NotCompiledError):
                compiled = self.whole(rows, Moments(scalars, adam.first, adam.second))
        if compiled is not None:
            adam.count_there()
            sums = Sums(*compiled[:2], len(rows))
        else:
            sums = self._plain(rows, self.constant_from or 0)
            with adam.rate_from(rate):
                self.optimiser.step()
        if ema is not None:
            ema.blend(weight)
        return sums

    def _one_by_one(self, rows: Tensor, step: int) -> Sums:
        """The steps of a group as they come, their updates with them."""
        total: list[Tensor] = []
        for number, index in enumerate(rows, step):
            self.run.scale_rates(self.training.schedule(number))
            self.updated = self.averaged = False
            names, sums, _ = self._plain(index, number)
            self.update(number)
            total.append(sums)
        return Sums(names, torch.stack(total).sum(0), rows.numel())

    def _plain(self, rows: Rows, step: int) -> Sums:
        for p in self.parameters:
            p.grad = None  # before the forward pass: at its end a step holds most, and the last step's gradients are of no more use
        with self.ranks.share(rows, step) as part:
            loss = self.forward(self.feed.batch(part.own), step)
        self.fabric.backward(part.mean(loss.surrogate))
        norm = get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        if self.training.clip is not None:
            clip_grads_with_norm_(self.parameters, self.training.clip, norm)
        names, total, _ = summed(values_of(loss, whole(norm)))
        return Sums(names, part.total(total), part.rows)

    def _reads(self) -> list[Tensor]:
        """All tensors of a step that are no arguments of `_whole`."""
        shown = self.feed.shown
        return [t for t in (*self.module.parameters(), *self.module.buffers(), shown.x, shown.mask, shown.c) if isinstance(t, Tensor)]

    def _whole(self, rows: Rows, adam: Moments | None) -> tuple[tuple[str, ...], Tensor, tuple[Tensor | None, ...]]:
        batch = self.feed.batch(rows)
        with torch.autocast(batch.x.device.type, torch.bfloat16, enabled=self.training.precision == "bf16-mixed"):
            loss = self.module(batch, self.constant_from or 0)
        grads = torch.autograd.grad(loss.surrogate.mean(), self.parameters, allow_unused=True)
        norm = torch.stack([grad.square().sum() for grad in grads if grad is not None]).sum().sqrt()
        if self.training.clip is not None:
            scale = (self.training.clip / (norm + 1e-6)).clamp(max=1.0)
            grads = tuple(None if grad is None else grad * scale for grad in grads)
        names, total, _ = summed(values_of(loss, norm))
        if adam is None or self.adam is None:
            return names, total, grads
        self.adam.apply(grads, adam)
        return names, total, ()
