r"""Inverse temperatures of annealing, 0 = beta_0 < beta_1 < ... < beta_{T-1} = 1: tensors ``[T]`` in float64, or a rule that finds them.

Wu, Burda, Salakhutdinov and Grosse, "On the quantitative analysis of decoder-based generative models", ICLR 2017; Zhou, Johansen and
Aston, "Toward automatic model comparison", Journal of Computational and Graphical Statistics, 2016.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vaekit.bounds import ess
from vaekit.errors import InputError

__all__ = ["Adaptive", "checked", "linear", "sigmoidal"]


def linear(temperatures: int) -> Tensor:
    """Evenly spaced betas ``[T]``, float64.

    Raises:
        InputError: fewer than 2 temperatures.

    >>> linear(3)
    tensor([0.0000, 0.5000, 1.0000], dtype=torch.float64)
    """
    return torch.linspace(0, 1, _enough(temperatures), dtype=torch.float64)


def sigmoidal(temperatures: int, *, delta: float = 4.0) -> Tensor:
    """Betas ``[T]``, float64, that crowd at both ends, where the densities change fastest (Grosse et al., 2015; Wu et al., 2017).

    sigma(delta * u) for T = ``temperatures`` even u in [-1, 1], stretched to begin at 0 and end at 1.

    Raises:
        InputError: fewer than 2 temperatures; ``delta`` not positive or not finite.

    >>> sigmoidal(5)
    tensor([0.0000, 0.1050, 0.5000, 0.8950, 1.0000], dtype=torch.float64)
    """
    if not 0 < delta < math.inf:
        raise InputError(f"sigmoidal(delta={delta}): the slope is positive; linear() has none")
    s = torch.sigmoid(delta * torch.linspace(-1, 1, _enough(temperatures), dtype=torch.float64))
    betas = (s - s[0]) / (s[-1] - s[0])
    betas[-1] = 1
    return betas


@dataclass(frozen=True)
class Adaptive:
    """Each beta is the largest at which the conditional effective sample size of the step is still 1 - ``drop`` of the chains.

    The steps' variances then add up to about ``drop`` times their number, so that both follow from ``drop``. The share is a mean over the
    examples of a batch, which have one schedule, and over the chains of the preliminary pass with equal weights.

    Attributes:
        drop: share lost at each step.

    Raises:
        InputError: ``drop`` is not between 0 and 1.
    """

    drop: float = 1e-3

    def __post_init__(self) -> None:
        if not 0 < self.drop < 1:
            raise InputError(f"Adaptive(drop={self.drop}): the share of the sample size that a step may cost lies between 0 and 1")

    def after(self, beta: float, delta: Tensor) -> float:
        """The next beta, from delta ``[K, B]`` of chains at ``beta``."""
        alive = delta.isfinite().sum(0).clamp(min=1)  # a chain where f_1 is 0 is lost whatever the step

        def fits(step: float) -> bool:
            return float((ess(step * delta) / alive).mean()) >= 1 - self.drop

        low, high = 0.0, 1 - beta
        if fits(high):
            return 1.0
        while high - low > 1e-3 * high:
            middle = 0.5 * (low + high)
            low, high = (middle, high) if fits(middle) else (low, middle)
            if high < 1e-12:
                break
        return beta + high


def _enough(temperatures: int) -> int:
    if temperatures < 2:
        raise InputError(f"{temperatures} temperature(s): annealing needs at least 2, the first density and the last")
    return temperatures


def checked(betas: Tensor) -> Tensor:
    """The betas ``[T]``, or an InputError where they do not rise from 0 to 1."""
    if betas.dim() != 1 or len(betas) < 2 or float(betas[0]) != 0 or float(betas[-1]) != 1 or not bool((betas.diff() > 0).all()):
        shown = ", ".join(f"{b:.4g}" for b in betas.flatten()[:3].tolist())
        raise InputError(f"a schedule of shape {list(betas.shape)}, [{shown} ...]: betas [T] rise from exactly 0 to exactly 1")
    return betas
