r"""Adagrad that looks before it leaps.

.. math:: G_t = G_{t-1} + g_t^2, \qquad \theta_t = \theta_{t-1} - \frac{\eta}{\sqrt{G_t} + \epsilon} g_t \quad \text{for } t > t_0

With t_0 = 0, as in Duchi, Hazan and Singer (JMLR 2011), the first steps have the full length eta in every coordinate whatever the gradient,
which throws networks with hundreds of inputs far off.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Adagrad
from torch.optim.optimizer import ParamsT

from vaekit.errors import InputError

__all__ = ["WarmAdagrad"]


class WarmAdagrad(Adagrad):
    """`torch.optim.Adagrad` whose first ``warmup`` steps only add up squared gradients; as in the code of the first VAE paper's authors
    (github.com/dpkingma/anglepy, wzoptim.py), which the paper does not mention.

    Args:
        params: as for any optimiser.
        lr: eta.
        warmup: t_0, steps of a parameter without an update.
        weight_decay: times the parameter, added to the gradient.

    Raises:
        InputError: a negative warmup.

    >>> weight = torch.nn.Parameter(torch.ones(1))
    >>> optimiser = WarmAdagrad([weight], lr=0.5, warmup=3)
    >>> for _ in range(4):
    ...     weight.grad = torch.ones(1)
    ...     optimiser.step()
    >>> weight.item()  # one step of 0.5 / sqrt(4)
    0.75
    """

    def __init__(self, params: ParamsT, lr: float = 1e-2, *, warmup: int = 100, weight_decay: float = 0.0) -> None:
        if warmup < 0:
            raise InputError(f"WarmAdagrad(warmup={warmup}): give 0 or more steps without an update")
        super().__init__(params, lr=lr, weight_decay=weight_decay)
        self.warmup = warmup

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        waiting: list[tuple[torch.Tensor, torch.Tensor]] = []
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if p.grad is None or state["step"] >= self.warmup:
                    continue
                g = p.grad.add(p, alpha=group["weight_decay"])
                state["sum"].addcmul_(g, g)
                state["step"] += 1
                waiting.append((p, p.grad))
                p.grad = None
        super().step()
        for p, grad in waiting:
            p.grad = grad
        return loss
