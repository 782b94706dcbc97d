r"""Adaptation of the step size (and of a diagonal mass) to a target acceptance. Every value may be one number or one per chain.

.. math:: \log\epsilon_{t+1} = \mu - \frac{\sqrt t}{\gamma (t + t_0)} \sum_{s \le t} (\delta - a_s), \qquad
          \log\bar\epsilon_{t+1} = t^{-\kappa} \log\epsilon_{t+1} + (1 - t^{-\kappa}) \log\bar\epsilon_t

is dual averaging for a warm-up, after which epsilon stays at its average. Where the target moves on for ever, as the posterior does while
a model learns, use the simple rule `nudged`, whose stationary point is the same a = delta.

Hoffman and Gelman, "The No-U-Turn Sampler", JMLR 2014, section 3.2; Andrieu and Thoms, "A tutorial on adaptive MCMC", 2008.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["DualAveraging", "nudged"]

GAMMA, T0, KAPPA = 0.05, 10.0, 0.75  # Hoffman and Gelman's


class DualAveraging(NamedTuple):
    """The running values; `begin`, then `update` after each transition, then `final`.

    Attributes:
        epsilon: the step size to take next, of any shape ``[*]``, as all that follow.
        final: its running average, to keep after the warm-up.
        mu: log of ten times the first guess, towards which the search is drawn.
        lack: summed target less acceptance.
        steps: transitions so far.

    >>> adapting = DualAveraging.begin(torch.tensor(0.1))
    >>> for _ in range(200):  # a chain that accepts exp(-epsilon) of its proposals
    ...     adapting = adapting.update(torch.exp(-adapting.epsilon), 0.9)
    >>> torch.exp(-adapting.final)
    tensor(0.90)
    """

    epsilon: Tensor
    final: Tensor
    mu: Tensor
    lack: Tensor  # summed target - acceptance
    steps: int

    @staticmethod
    def begin(epsilon: Tensor) -> DualAveraging:
        """From a first guess ``[*]``; the search begins at ten times that, as large steps are the quicker to try."""
        return DualAveraging(epsilon, torch.ones_like(epsilon), torch.log(10 * epsilon), torch.zeros_like(epsilon), 0)

    def update(self, accept: Tensor, target: float) -> DualAveraging:
        """With ``accept``, the acceptance statistic of one more transition, ``[*]`` as epsilon, and the ``target`` that it is to reach."""
        t = self.steps + 1
        lack = self.lack + (target - accept)
        log_epsilon = self.mu - lack * (math.sqrt(t) / (GAMMA * (t + T0)))
        weight = t**-KAPPA
        final = torch.exp(weight * log_epsilon + (1 - weight) * self.final.log())
        return DualAveraging(log_epsilon.exp(), final, self.mu, lack, t)


def nudged(epsilon: Tensor, accept: Tensor, target: float, *, rate: float = 0.05) -> Tensor:
    """epsilon ``[*]`` * exp(rate * (accept - target) / (1 - target)), for a target distribution that keeps changing.

    It grows by ``rate`` where all is accepted, shrinks faster the more is rejected, and rests where the mean acceptance is the target.
    """
    return epsilon * torch.exp(rate * (accept - target) / (1 - target))
