r"""What an estimate of log p(x) is worth: the estimate of every example, and the two errors of their mean, which are not the same thing.

The error over examples says how far the mean over these N examples may lie from that over the population they were drawn from. The Monte
Carlo error says how far the estimate for these very examples may lie from what the estimator would give with other random numbers: more
samples reduce it, more examples' data do not. Neither knows of a bias: log of a mean lies below the mean of the log.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from vaekit.text import measured, notebook_table

__all__ = ["LogLikelihood"]


@dataclass(frozen=True)
class LogLikelihood:
    """Estimates of log p(x), nats, float64 on the CPU.

    Attributes:
        method: "iwae", "ais" or "elbo".
        samples: K, importance samples or annealing chains per example.
        log_px: the estimate, ``[N]``.
        mc_se: its Monte Carlo standard error, ``[N]``; NaN where one sample cannot tell.
        ess: effective sample size of the K weights, ``[N]``.
        k_hat: shape of the generalised Pareto tail of the weights, ``[N]``; NaN where there are too few.
        entries: how many entries of x each estimate is of, ``[N]``.
        seed: of the samples.
    """

    method: str
    samples: int
    log_px: Tensor
    mc_se: Tensor
    ess: Tensor
    k_hat: Tensor
    entries: Tensor
    seed: int

    @property
    def mean(self) -> float:
        """Mean over the examples."""
        return float(self.log_px.mean())

    @property
    def se(self) -> float:
        """Standard error of `mean` over examples; NaN for a single one."""
        return float(self.log_px.std() / math.sqrt(len(self.log_px))) if len(self.log_px) > 1 else math.nan

    @property
    def mc_error(self) -> float:
        """Monte Carlo standard error of `mean` for these very examples."""
        return float(self.mc_se.square().sum().sqrt() / len(self.mc_se))

    @property
    def bits_per_dim(self) -> float:
        """-sum log p(x) / (entries log 2), for x in the units that the model was given; NaN where nothing was observed."""
        entries = float(self.entries.sum())
        return -float(self.log_px.sum()) / (entries * math.log(2)) if entries else math.nan

    @property
    def bits_per_dim_se(self) -> float:
        """Standard error of `bits_per_dim` over examples, by the delta method: a ratio of two means."""
        if len(self.log_px) < 2 or not float(self.entries.sum()):
            return math.nan
        left = -self.log_px / math.log(2) - self.bits_per_dim * self.entries
        return float(left.std() / math.sqrt(len(left)) / self.entries.double().mean())

    def __len__(self) -> int:
        return len(self.log_px)

    def __repr__(self) -> str:
        return (
            f"LogLikelihood({self.method}, {len(self)} examples, K = {self.samples}: {self.mean:.2f} +- {self.se:.2f} nats over examples, "
            f"Monte Carlo error {self.mc_error:.3f})"
        )

    def _repr_html_(self) -> str:
        """For a notebook: the mean with both of its errors."""
        rows = [
            ["log p(x)", measured(self.mean, self.se, "nats")],
            ["Monte Carlo error of it", measured(self.mc_error, unit="nats")],
            ["bits per dimension", measured(self.bits_per_dim, self.bits_per_dim_se)],
            ["effective sample size", f"{float(self.ess.mean()):.1f} of {self.samples}"],
        ]
        return notebook_table(f"log p(x) of {len(self)} examples by {self.method}, ± standard error over examples", rows)
