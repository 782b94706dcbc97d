"""Adam's update as operations that a program can be made of."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer

__all__ = ["InGraphAdam", "Moments"]


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
        self.steps: Tensor | None = None

    @staticmethod
    def suits(optimiser: Optimizer) -> bool:
        """Whether it is the plain method, with the same settings for all parameters and nobody who is called at a step."""
        if type(optimiser) not in (Adam, AdamW) or len(optimiser.param_groups) != 1:
            return False
        (group,) = optimiser.param_groups
        if optimiser._optimizer_step_pre_hooks or optimiser._optimizer_step_post_hooks or "step" in vars(optimiser):
            return False  # somebody wants to be called
        return not (group["amsgrad"] or group["maximize"] or group["differentiable"] or isinstance(group["lr"], Tensor))

    def bound(self) -> bool:
        """Look up averages and count of steps: False before the first step, which makes them, and where the counts differ."""
        state = self.optimiser.state
        if self.seen is not state:  # loading a checkpoint makes another, and so may a step of its own
            used = [state[p] for p in self.parameters if p in state]
            self.first, self.second = ([entry[name] for entry in used] for name in ("exp_avg", "exp_avg_sq"))
            counts = set(torch.stack([entry["step"] for entry in used]).tolist()) if used else set()
            if len(counts) != 1:
                return False
            self.t, self.seen = int(counts.pop()), state
            if self.steps is None or any(entry["step"]._base is not self.steps for entry in used):
                self.steps = torch.stack([entry["step"] for entry in used])
                for entry, step in zip(used, self.steps, strict=True):
                    entry["step"] = step  # a view: one addition counts for all parameters
        return True

    def scalars(self, rates: Sequence[float]) -> Tensor:
        """The scalars of the next S steps, float64 ``[S, 3]``, with these learning rates."""
        one, two = self.betas
        rows = [[lr / (1 - one**t), math.sqrt(1 - two**t), lr] for t, lr in enumerate(rates, self.t + 1)]
        return torch.tensor(rows, dtype=torch.float64)

    def moments(self) -> Moments | None:
        """The averages and the scalars of the next step; None where they are not `bound`."""
        if not self.bound():
            return None
        (scalars,) = self.scalars([self.optimiser.param_groups[0]["lr"]])
        return Moments(scalars.to(self.first[0].device), self.first, self.second)

    def count(self) -> None:
        """A step with these moments has been done."""
        self.t += 1
        self.count_there()

    def count_there(self) -> None:
        """The same on the device alone.

        Raises:
            RuntimeError: neither `bound` nor `moments` was called before.
        """
        if self.steps is None:
            raise RuntimeError("no step to count: `bound` or `moments` comes first")
        self.steps.add_(1)

    @contextmanager
    def rate_from(self, rate: Tensor) -> Iterator[None]:
        """The optimiser's own step reads its learning rate from a tensor ``[]``, as a program needs that is recorded once."""
        (group,) = self.optimiser.param_groups
        before = {name: group[name] for name in ("lr", "capturable")}
        # to say so outside of a recording earns a warning
        group.update(lr=rate, capturable=rate.is_cuda and torch.cuda.is_current_stream_capturing())
        try:
            yield
        finally:
            group.update(before)

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
