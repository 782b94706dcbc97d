"""What a run measures after each epoch on rows that it does not learn from."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch

from vaekit.objectives.core import Loss
from vaekit.train.checks import settled
from vaekit.train.collapse import active_units
from vaekit.train.feed import Feed
from vaekit.train.meter import Meter, summed, values_of
from vaekit.train.run import Run
from vaekit.train.settings import Training
from vaekit.types import Batch

__all__ = ["validate"]


def validate(run: Run, forward: Callable[[Batch, int], Loss], feed: Feed, training: Training) -> dict[str, float]:
    """Means of ``forward``, ``(batch, step) -> Loss``, over the split that ``feed`` gives, by the settings ``training``, in evaluation
    mode, with the average of the weights where there is one. Training's noise goes on as if nothing had been; validation's own is the same
    each time, so that two epochs differ by their weights alone."""
    averaged = nullcontext() if run.ema is None else run.ema.applied()
    with run.ranks.apart(training.seed), torch.no_grad(), averaged:
        run.module.eval()
        meter = Meter()
        for rows, _ in feed.epoch(0):
            with run.ranks.share(rows) as part:
                names, total, _ = summed(values_of(forward(feed.batch(part.own), run.at.step)))
            meter.accumulate(names, part.total(total), part.rows)
        means = meter.means()
        if "bound" in means and run.at.step >= settled(run.module.objective):  # during a warm-up the bound is no aim yet
            run.judge(means["bound"], keep=training.patience is not None)
        with run.ranks.gathered(run.module):
            return means | active_units(run.module.model, feed.shown)
