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
from vaekit.dist import Certain, log_prob_parts
from vaekit.dist.core import factor_mask
from vaekit.errors import InputError
from vaekit.evaluate.latent import active, offsets
from vaekit.evaluate.passes import batches, device_of, dtype_of, observing
from vaekit.evaluate.reconstruction import scorable
from vaekit.models.core import LatentModel, at_centre
from vaekit.types import Batch

__all__ = ["Evaluation", "evaluate"]

CHUNK = 4_000_000
"""Numbers of x-shaped memory a chunk of samples may take: 16 MB, which stays in the last-level cache of common processors."""
ROWS = 20_000
"""Latents (samples times examples) a chunk may send through the decoder, whose layers may be far wider than x."""


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
        return {key: _plain(value) for key, value in asdict(self).items()}


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

    Memory does not grow with K nor with the number of examples: samples are streamed in chunks, only running sums are kept. A chunk has
    at most 4 million numbers in the shape of x and at most 20,000 latents, so a layer of the decoder of width H takes at most 20,000 H
    numbers; but never less than one sample of each of the ``batch_size`` examples.

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
    if samples < 1:
        raise InputError(f"--samples {samples}: an estimate needs at least 1 importance sample per example")
    if batch_size < 1:
        raise InputError(f"batch_size {batch_size}: at least 1 example at a time")
    if not scorable(model, split):
        raise InputError(
            "q(z | x) is a point and has no density, so this model has no bound and no likelihood that could be estimated; it has a "
            "reconstruction error: see vaekit report, or vaekit.evaluate.reconstruction(model, split)"
        )
    if _one_code(model, split, batch_size):
        samples = 1  # all samples would be the same one: the bound is exact, and does not rise with K
    parts: list[Tensor] = []
    observed = 0
    with observing(model, seed):
        for batch in batches(split, batch_size, device_of(model), dtype=dtype_of(model)):
            chunk = max(1, min(CHUNK // batch.x.numel(), ROWS // batch.size))
            w = Weights.empty(batch.size, batch.x.device)
            terms = torch.zeros((), dtype=torch.float64)
            for start in range(0, samples, chunk):
                t = model.infer(batch, min(chunk, samples - start))
                log_px, rate = t.log_px, t.rate
                w = w.update(log_px - rate.sum(-1))
                terms = terms + torch.cat([log_px.unsqueeze(-1), rate], -1).sum(0, dtype=torch.float64)
            parts.append(torch.cat([torch.stack([w.elbo, w.iwae, w.ess], -1), terms / samples], -1).cpu())
            observed += _scored(model, batch)
            if watch is not None:
                watch(sum(len(part) for part in parts), len(split))
    values = torch.cat(parts)
    _check_finite(values[:, 1])
    mean = values.mean(0).tolist()
    se = (values.std(0) / math.sqrt(len(values))).tolist() if len(values) > 1 else [math.nan] * values.shape[1]
    offset = offsets(model, split, batch_size=batch_size)
    return Evaluation(
        examples=len(values),
        samples=samples,
        elbo=mean[0],
        elbo_se=se[0],
        nll=-mean[1],
        nll_se=se[1],
        ess=mean[2],
        bits_per_dim=-mean[1] * len(values) / (observed * math.log(2)) if observed else math.nan,
        log_px=mean[3],
        log_px_se=se[3],
        rates=tuple(mean[4:]),
        rates_se=tuple(se[4:]),
        active_units=active(offset),
        latent_dim=offset.shape[1],
        seed=seed,
    )


def _one_code(model: LatentModel, split: Split, batch_size: int) -> bool:
    """Whether every level's q(z | x) is certain of one code."""
    with observing(model, 0):
        batch = next(batches(split.head(1), batch_size, device_of(model), dtype=dtype_of(model)))
        return all(isinstance(level.q, Certain) for level in model.trace(at_centre(), batch).levels)


def _scored(model: LatentModel, batch: Batch) -> int:
    """Entries of x that log p(x | z) counts: the observed ones, but for those whose factor is only partly observed."""
    if batch.mask is None:
        return batch.x.numel()
    px = model.trace(at_centre(), batch).px
    parts = log_prob_parts(px, batch.input)
    return int(factor_mask(parts, batch.mask, len(px.event_shape)).expand_as(batch.mask).sum())


def _check_finite(log_px: Tensor) -> None:
    bad = (~log_px.isfinite()).nonzero().flatten()
    if len(bad):
        raise InputError(
            f"the likelihood of {len(bad)} of {len(log_px)} examples is not finite (first: row {int(bad[0])}): "
            "the weights are damaged or the data lie where this model gives no probability"
        )


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
