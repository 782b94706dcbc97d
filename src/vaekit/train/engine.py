"""One step of training: as the operations come, or compiled into one program."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Adam, AdamW, Optimizer

from vaekit.compiling import Compiled, NotCompiledError
from vaekit.data.core import Prepare
from vaekit.objectives.core import Loss, Objective
from vaekit.objectives.rates import Penalty
from vaekit.train.checks import constant_from
from vaekit.train.feed import Feed
from vaekit.train.meter import summed, values_of
from vaekit.train.ranks import Ranks, Rows, count
from vaekit.train.settings import Training
from vaekit.train.sharding import whole
from vaekit.train.step import Step
from vaekit.types import Batch

__all__ = ["COMPILE_FROM", "Engine", "InGraphAdam", "Moments", "Sums", "hooked", "known", "worth_compiling"]

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


class Sums(NamedTuple):
    """What a step adds to the epoch's means: names, float64 sums ``[n]`` (``total``), and the number of examples, ``rows``."""

    names: tuple[str, ...]
    total: Tensor
    rows: int


def worth_compiling(training: Training, module: Step, device: torch.device, steps: int | None) -> bool:
    """Whether a run of ``module`` with the settings ``training``, of so many steps (None: nobody knows how many) compiles them:
    ``Training.compile``, by default on a processor; where the objective promises it, and the run is one process.

    By default not where images are normalised by the batch: what becomes of that is slower than torch's own (measured on ResNet-18: two
    minutes to compile, and then 1.17 of the time).
    """
    promised = all(vars(type(m)).get("compiles", False) for m in module.objective.modules() if isinstance(m, Objective | Penalty))
    if not promised or training.precision == "64-true" or training.devices > 1:
        return False
    if training.compile is not None:
        return training.compile
    normalised = any(isinstance(part, nn.BatchNorm2d) for part in module.modules())
    return device.type == "cpu" and (steps or 0) >= COMPILE_FROM and not normalised


class Engine:
    """``engine(rows, step)`` takes the gradients of the surrogate's batch mean, ``engine.update()`` the optimiser's step.

    Compiled, both are one program, with the gathering of the rows, noise, clipping and sums: nothing in it waits for Python, and the
    weights have changed before anybody could look at the loss. (Of an optimiser other than Adam and AdamW the step stays apart.) A
    warm-up's steps (its schedules change each time), an epoch's odd batch and what torch cannot compile run as they are. Both ways agree
    to rounding, noise included.

    Args:
        module: model and objective, where they are trained.
        forward: the same, in the precision of the training.
        fabric: for the backward pass of ``forward``: `OneDevice`, or Fabric.
        optimiser: as that sees it; ``bare`` is torch's own.
        feed: makes rows a batch; of rows in memory the gathering is part of the program, others are given to it.
        ranks: the processes, each of which takes its part of a batch.
        training: precision and clipping.
        compiled: whether to compile.
        note: told once where compiling failed.
    """

    def __init__(
        self,
        module: Step,
        forward: Callable[[Batch, int], Loss],
        fabric: Any,
        optimiser: Any,
        bare: Optimizer,
        feed: Feed,
        ranks: Ranks,
        training: Training,
        *,
        compiled: bool,
        note: Callable[[str], None],
    ) -> None:
        self.module, self.forward, self.fabric, self.feed, self.training = module, forward, fabric, feed, training
        self.optimiser, self.bare, self.ranks = optimiser, bare, ranks
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.constant_from = constant_from(module.objective)
        fixed = known(module, feed.prepare)
        self.whole = Compiled(self._whole, differentiates=True, fixed=fixed, substitute=False, note=note) if compiled else None
        self.adam = InGraphAdam(bare, self.parameters) if compiled and InGraphAdam.suits(bare) else None
        self.updated = False

    def __call__(self, rows: Rows, step: int, *, careful: bool) -> Sums:
        """A step's sums.

        Args:
            rows: of the batch, as the feed gives them.
            step: its number.
            careful: leave the weights alone until `update`.
        """
        self.updated = False
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

    def update(self) -> None:
        """The optimiser's step, where the program has not done it."""
        if not self.updated:
            self.optimiser.step()
            if self.adam is not None:
                self.adam.seen = None  # the count of steps has gone on without it

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


class Moments(NamedTuple):
    """What an update by Adam reads and changes: ``[lr / (1 - beta_1^t), sqrt(1 - beta_2^t), lr]``, and the averages of each parameter,
    ``first`` of its gradient and ``second`` of its square. For M models stacked along the first axis of parameters and averages the scalars
    are float32 ``[3, M]``."""

    scalars: Tensor
    first: list[Tensor]
    second: list[Tensor]


class InGraphAdam:
    r"""The update of `torch.optim.Adam` and `AdamW`, on their own state, as operations that a program can be made of.

    .. math:: m \leftarrow \beta_1 m + (1 - \beta_1) g, \quad v \leftarrow \beta_2 v + (1 - \beta_2) g^2, \quad
              \theta \leftarrow \theta - \frac{\eta}{1 - \beta_1^t} \frac{m}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}

    ``parameters`` are tensors of any shape and ``optimiser`` is torch's, whose settings and state it takes. Kingma and Ba, "Adam", ICLR
    2015; Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019.
    """

    def __init__(self, optimiser: Optimizer, parameters: Sequence[Tensor]) -> None:
        self.optimiser, self.parameters = optimiser, parameters
        (group,) = optimiser.param_groups
        self.betas, self.eps, self.decay = group["betas"], group["eps"], group["weight_decay"]
        self.decoupled = group.get("decoupled_weight_decay", type(optimiser) is AdamW)
        self.seen: object = None

    @staticmethod
    def suits(optimiser: Optimizer) -> bool:
        """Whether it is the plain method, with the same settings for all parameters and nobody who is called at a step."""
        if type(optimiser) not in (Adam, AdamW) or len(optimiser.param_groups) != 1:
            return False
        (group,) = optimiser.param_groups
        if optimiser._optimizer_step_pre_hooks or optimiser._optimizer_step_post_hooks or "step" in vars(optimiser):
            return False  # somebody wants to be called
        return not (group["amsgrad"] or group["maximize"] or group["differentiable"] or isinstance(group["lr"], Tensor))

    def moments(self) -> Moments | None:
        """The averages and the scalars of the next step; None before the first, which makes them, and where the counts of steps differ."""
        state = self.optimiser.state
        if self.seen is not state:  # loading a checkpoint makes another, and so may a step of its own
            used = [state[p] for p in self.parameters if p in state]
            self.first, self.second = ([entry[name] for entry in used] for name in ("exp_avg", "exp_avg_sq"))
            counts = {int(entry["step"]) for entry in used}
            if len(counts) != 1:
                return None
            (self.t,), self.seen = counts, state
            self.steps = torch.stack([entry["step"] for entry in used])
            for entry, step in zip(used, self.steps, strict=True):
                entry["step"] = step  # a view: one addition counts for all parameters
        one, two = self.betas
        lr, t = self.optimiser.param_groups[0]["lr"], self.t + 1
        scalars = torch.tensor([lr / (1 - one**t), math.sqrt(1 - two**t), lr], dtype=torch.float64)
        return Moments(scalars.to(self.first[0].device), self.first, self.second)

    def count(self) -> None:
        """A step with these moments has been done."""
        self.t += 1
        self.steps.add_(1)

    @torch.no_grad()
    def apply(self, grads: tuple[Tensor | None, ...], moments: Moments) -> None:
        """Change parameters and their averages ``moments`` in place by ``grads``: a gradient of its shape for each parameter, None where
        there is none."""
        one, two = self.betas
        used = [(p, grad) for p, grad in zip(self.parameters, grads, strict=True) if grad is not None]
        for (p, grad), first, second in zip(used, moments.first, moments.second, strict=True):
            size, root, lr = (s.view(s.shape + (1,) * (p.dim() - s.dim())) if s.dim() else s for s in moments.scalars.unbind())
            if self.decay and self.decoupled:
                p.mul_(1 - lr * self.decay)
            elif self.decay:
                grad = grad + self.decay * p
            first.copy_(first + (grad - first) * (1 - one))
            second.copy_(second * two + grad * grad * (1 - two))
            p.sub_(size * (first / (second.sqrt() / root + self.eps)))
