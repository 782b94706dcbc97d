r"""How likely held-out data are, with the error of every number.

.. math:: \text{nll} = -\frac1N \sum_i \log \frac1K \sum_k \frac{p(x_i, z_{ik})}{q(z_{ik} | x_i)}, \qquad z_{ik} \sim q(z | x_i)

The estimate is a stochastic *upper* bound on the negative log-likelihood that falls with K (Burda et al., 2016); quote K with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from vaekit.bounds import Weights
from vaekit.data.core import Split
from vaekit.errors import InputError
from vaekit.evaluate.latent import active, offsets
from vaekit.evaluate.passes import device_of, observing
from vaekit.evaluate.stream import blocks, certain, check_finite, entries, require_density, tiles, worth_compiling
from vaekit.files import plain
from vaekit.matmul import matching_matmul
from vaekit.models.core import LatentModel
from vaekit.text import measured, notebook_table

__all__ = ["Evaluation", "each", "evaluate", "summary"]


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found. Nats per example unless the name says otherwise; ``_se`` is the standard error of the mean over examples.

    Attributes:
        examples: N.
        samples: K, importance samples per example; 1 where q(z | x) is certain of one code, whatever was asked for.
        elbo: mean over examples of the K-sample average of log w.
        nll: minus the mean K-sample importance-weighted bound.
        ess: mean effective sample size, of K.
        bits_per_dim: nll / (D log 2), D the scored entries per example, for x in the units that the model was given. An observed entry
            is not scored where its factor is missing (a pixel of a `DiscretisedLogisticMixture` that lacks a channel). NaN for D = 0.
        log_px: reconstruction term of the ELBO, E_q[log p(x | z)].
        rates: one KL(q || p) per level, from the top; elbo = log_px - sum(rates).
        active_units: latent dimensions whose posterior mean has a variance over the data above 0.01 (Burda et al., 2016), counted
            from the mean of p(z_l | z_<l) in units of its standard deviation (`vaekit.evaluate.ACTIVE`).
        latent_dim: latent dimensions of all levels.
    """

    examples: int
    samples: int
    elbo: float
    elbo_se: float
    nll: float
    nll_se: float
    ess: float
    bits_per_dim: float
    log_px: float
    log_px_se: float
    rates: tuple[float, ...]
    rates_se: tuple[float, ...]
    active_units: int
    latent_dim: int
    seed: int

    def as_dict(self) -> dict[str, object]:
        """For JSON: plain numbers; None for an error that one example alone cannot have."""
        return {key: plain(value) for key, value in asdict(self).items()}

    def _repr_html_(self) -> str:
        """For a notebook: every number with its error."""
        one = len(self.rates) == 1
        rows = [
            ["negative log-likelihood, at most", measured(self.nll, self.nll_se, "nats")],
            ["evidence lower bound", measured(self.elbo, self.elbo_se, "nats")],
            ["reconstruction term E log p(x | z)", measured(self.log_px, self.log_px_se, "nats")],
            *(
                ["KL(q(z | x) ‖ p(z))" if one else f"KL of level {n}, from the top", measured(rate, se, "nats")]
                for n, (rate, se) in enumerate(zip(self.rates, self.rates_se, strict=True))
            ),
            ["bits per dimension, at most", measured(self.bits_per_dim)],
            ["effective sample size", f"{self.ess:.1f} of {self.samples}"],
            ["active latent dimensions", f"{self.active_units} of {self.latent_dim}"],
        ]
        return notebook_table(f"{self.examples} examples, {self.samples} importance samples each, ± standard error over examples", rows)


def evaluate(
    model: LatentModel,
    split: Split,
    *,
    samples: int = 5000,
    seed: int = 0,
    batch_size: int = 100,
    watch: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Estimate ELBO and log-likelihood of every example of ``split`` by K = ``samples`` importance samples from q(z | x).

    Memory does not grow with K nor with the number of examples: samples are streamed in tiles, only running sums are kept. A tile has
    at most 4 million numbers in the shape of x and at most 20,000 latents, so a layer of the decoder of width H takes at most 20,000 H
    numbers; but never less than one sample of each of the ``batch_size`` examples. `log_likelihood` gives the numbers of each example.

    Args:
        model: any model with a posterior.
        split: the data, on any device; batches are moved to the model's.
        samples: K, at least 1.
        seed: of the samples; the caller's random numbers are left as they were.
        batch_size: examples at a time.
        watch: called with (examples done, examples in all).

    Raises:
        InputError: ``samples`` or ``batch_size`` below 1; a posterior without a density; an estimate that is not finite.
    """
    values, observed, samples = _values(model, split, samples, seed, batch_size, watch)
    return summary(values, offsets(model, split, batch_size=batch_size), observed, samples=samples, seed=seed)


def each(
    model: LatentModel,
    split: Split,
    *,
    samples: int = 5000,
    seed: int = 0,
    batch_size: int = 100,
    watch: Callable[[int, int], None] | None = None,
) -> tuple[Tensor, int]:
    """What `evaluate` averages, of each example: float64 ``[N, 4 + L]``, the ELBO, the K-sample bound, the effective sample size,
    E_q log p(x | z) and a rate of each of L levels; and K as it was. Arguments and errors are those of `evaluate`."""
    values, _, samples = _values(model, split, samples, seed, batch_size, watch)
    return values, samples


def _values(
    model: LatentModel, split: Split, samples: int, seed: int, batch_size: int, watch: Callable[[int, int], None] | None
) -> tuple[Tensor, int, int]:
    """As `each`, with the number of entries that were scored in the middle."""
    if samples < 1:
        raise InputError(f"--samples {samples}: an estimate needs at least 1 importance sample per example")
    if batch_size < 1:
        raise InputError(f"batch_size {batch_size}: at least 1 example at a time")
    parts: list[Tensor] = []
    observed = 0
    compiled = worth_compiling(model, split, samples)
    with observing(model, seed), matching_matmul(device_of(model)):
        for seen in blocks(model, split, batch_size, seed):
            require_density(seen)
            if certain(seen):
                samples = 1  # all samples would be the same one: the bound is exact, and does not rise with K
            observed += int(entries(seen).sum())
            w = Weights.empty(len(seen.levels[0].z[0]), device_of(model))
            terms = torch.zeros((), dtype=torch.float64)
            for log_px, rate in tiles(model, seen, samples, compiled=compiled):
                w = w.update(log_px - rate.sum(-1))
                terms = terms + torch.cat([log_px.unsqueeze(-1), rate], -1).sum(0, dtype=torch.float64)
            parts.append(torch.cat([torch.stack([w.elbo, w.iwae, w.ess], -1), terms / samples], -1).cpu())
            if watch is not None:
                watch(sum(len(part) for part in parts), len(split))
    values = torch.cat(parts)
    check_finite(values[:, 1])
    return values, observed, samples


def summary(values: Tensor, offset: Tensor, observed: int, *, samples: int, seed: int) -> Evaluation:
    """`Evaluation` from the ELBO, the K-sample bound, the effective sample size, log p(x | z) and a rate a level of every example.

    Args:
        values: these in order, ``[N, 4 + L]``.
        offset: `vaekit.evaluate.latent.offsets`, ``[N, D]``.
        observed: entries of x that were scored, in all.
        samples: K.
        seed: of the samples.
    """
    n, mean = len(values), values.mean(0).tolist()
    se = (values.std(0) / math.sqrt(n)).tolist() if n > 1 else [math.nan] * values.shape[1]
    return Evaluation(
        examples=n,
        samples=samples,
        elbo=mean[0],
        elbo_se=se[0],
        nll=-mean[1],
        nll_se=se[1],
        ess=mean[2],
        bits_per_dim=-mean[1] * n / (observed * math.log(2)) if observed else math.nan,
        log_px=mean[3],
        log_px_se=se[3],
        rates=tuple(mean[4:]),
        rates_se=tuple(se[4:]),
        active_units=active(offset),
        latent_dim=offset.shape[1],
        seed=seed,
    )
