r"""Missing entries given the observed ones, by importance weights: conditional means, draws and intervals.

.. math:: E[x_{mis} | x_{obs}] \approx \sum_k \bar w_k \, E[x_{mis} | z_k], \qquad
          \bar w_k \propto \frac{p(x_{obs} | z_k) p(z_k)}{q(z_k | x_{obs})}, \quad z_k \sim q(z | x_{obs})

Of a model of the mask (`vaekit.models.NotAtRandom`) the weights have p(m | x_obs, u_k) too and the missing values are the u_k themselves.

Draws take z_k with probability :math:`\bar w_k` and x_mis ~ p(x_mis | z_k) (sampling-importance-resampling: Rubin, 1987; of a VAE: Mattei
and Frellsen, "MIWAE", ICML 2019); an interval lies between two quantiles of the same weighted mixture. All become exact as K grows.

The z_k and the intervals are by noise that is the same for every row: alike rows have alike means and intervals. The draws are by each
row's own: a draw of a table is a sample of its rows, independent of each other given the model, as Rubin's rules need.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from vaekit import noise
from vaekit.apps.weighted import traces
from vaekit.dist import Categorical, Columns, Missing, centre
from vaekit.dist.columns import in_order
from vaekit.errors import InputError
from vaekit.models.core import LatentModel, Trace
from vaekit.tensors import seed_noise
from vaekit.types import Batch

__all__ = ["Imputation", "impute"]

REPEATS = 8
"""Values drawn from p(x | z_k) for each z_k, for quantiles: noise of the likelihood is cheap where that of z is not. Of several models,
which have K samples each, as many fewer, rounded up."""


@dataclass(frozen=True, eq=False)
class Imputation:
    """Observed entries as they were, missing ones from p(x_mis | x_obs).

    Attributes:
        mean: missing entries at their conditional mean, ``[N, *]``; those of classes, which have none, at the class of the largest
            probability, argmax_c of sum_k w_k p(c | z_k).
        draws: M independent draws, ``[M, N, *]``: of all of a row's missing entries at once, so that they fit each other, and of each row
            by itself. M may be 0.
        lower, upper: ends of the interval, ``[N, *]``, x itself where it was observed, NaN for classes without an order; None where none
            was asked for.
        ess: effective number of the K samples behind each row, ``[N]``: near 1 the row's numbers rest on one sample.
    """

    mean: Tensor
    draws: Tensor
    lower: Tensor | None
    upper: Tensor | None
    ess: Tensor


def impute(
    model: LatentModel | Sequence[LatentModel],
    batch: Batch,
    *,
    samples: int = 512,
    draws: int = 0,
    coverage: float | None = None,
    seed: int = 0,
) -> Imputation:
    """Missing entries of a batch given its observed ones.

    Args:
        model: a trained model with a likelihood that factorises over the entries (a mask needs it); of several the mixture with equal
            weights, K samples of each: their errors differ and average out, and intervals are as wide as they disagree.
        batch: x with the mask of its observed entries, on the model's device and in its dtype.
        samples: K importance samples of each row.
        draws: M, joint draws for multiple imputation.
        coverage: probability of the intervals, such as 0.9: from its quantile (1 - coverage) / 2 to (1 + coverage) / 2.
        seed: of the noise: the same seed, model and batch give the same result. The caller's random numbers are left as they were.

    Raises:
        InputError: a number out of range.

    >>> from vaekit import VAE, Conditional, heads, priors
    >>> _ = torch.manual_seed(0)
    >>> model = VAE(
    ...     priors.StandardNormal(2),
    ...     Conditional(torch.nn.Linear(6, 4), heads.Gaussian(2)),
    ...     Conditional(torch.nn.Linear(2, 12), heads.Gaussian(6)),
    ... )
    >>> batch = Batch(torch.ones(3, 6), mask=torch.arange(6).expand(3, 6) < 4)
    >>> found = impute(model, batch, samples=64, draws=5, coverage=0.9)
    >>> found.mean.shape, found.draws.shape, bool((found.mean[:, :4] == 1).all())
    (torch.Size([3, 6]), torch.Size([5, 3, 6]), True)
    """
    if draws < 0:
        raise InputError(f"draws={draws}: a number of draws cannot be negative; 0 for none")
    if coverage is not None and not 0 < coverage < 1:
        raise InputError(f"coverage={coverage}: the probability of an interval lies between 0 and 1, as 0.9")
    models = [model] if isinstance(model, LatentModel) else list(model)
    found = []
    mask = torch.ones_like(batch.x, dtype=torch.bool) if batch.mask is None else batch.mask
    device = batch.x.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
        seed_noise(seed, device)  # of the draws, which must not begin anew with each block of rows
        for blocks in zip(*(traces(each, batch, samples, seed) for each in models), strict=True):
            rows, passes = blocks[0][0], [t for _, t in blocks]
            w = torch.cat([torch.softmax(t.log_w, 0) for t in passes]) / len(passes)  # [M K, B]
            mean = _expected([t.px for t in passes], w)
            lower, upper = (None, None) if coverage is None else _interval(passes, w, mask[rows], coverage, seed)
            made = Imputation(mean, _drawn(models, passes, w, draws, mean), lower, upper, 1 / w.square().sum(0))
            found.append(_kept(made, batch.x[rows], mask[rows]))
    lower, upper = (
        None if coverage is None else torch.cat([end for end in ends if end is not None])
        for ends in ([f.lower for f in found], [f.upper for f in found])
    )
    mean, drawn, ess = torch.cat([f.mean for f in found]), torch.cat([f.draws for f in found], 1), torch.cat([f.ess for f in found])
    return Imputation(mean, drawn, lower, upper, ess)


def _kept(made: Imputation, x: Tensor, mask: Tensor) -> Imputation:
    """With the observed entries as they were."""
    mean, drawn = torch.where(mask, x, made.mean), torch.where(mask, x, made.draws)
    lower, upper = (None if end is None else torch.where(mask, x, end) for end in (made.lower, made.upper))
    return Imputation(mean, drawn, lower, upper, made.ess)


def _wide(w: Tensor, px: Distribution) -> Tensor:
    """Weights ``[S, B]`` beside values ``[S, B, *event]``."""
    return w.view(*w.shape, *(1,) * len(px.event_shape))


def _expected(px: Sequence[Distribution], w: Tensor) -> Tensor:
    """Every entry's mean under the mixture of all p(x | z_k), of classes the one of the largest probability, ``[B, *event]``."""
    first = px[0]
    if isinstance(first, Missing):  # weighted by how likely it is that just these values are missing: they, and not their means given z
        whole, u = [d for d in px if isinstance(d, Missing)], torch.cat([d.u for d in px if isinstance(d, Missing)])
        return first.put(_expected([d.px for d in whole], w), (w.unsqueeze(-1) * u).sum(0))
    if isinstance(first, Columns):
        groups = zip(*(p.parts for p in px if isinstance(p, Columns)), strict=True)
        return in_order([_expected(group, w) for group in groups], first.order)
    if isinstance(first, Categorical):
        p = torch.cat([d.probs for d in px if isinstance(d, Categorical)])
        return Categorical((w.view(*w.shape, *(1,) * (p.dim() - 2)) * p).sum(0), len(first.event_shape)).mode
    return (_wide(w, first) * torch.cat([centre(d) for d in px])).sum(0)


def _ordered(px: Distribution) -> Tensor:
    """Which entries have an order, and so quantiles, bool ``[*event]``."""
    if isinstance(px, Missing):
        return _ordered(px.px)
    if isinstance(px, Columns):
        return in_order([_ordered(part) for part in px.parts], px.order)
    return torch.full(px.event_shape, not isinstance(px, Categorical) or px.ordered)


def _interval(found: Sequence[Trace], w: Tensor, mask: Tensor, coverage: float, seed: int) -> tuple[Tensor, Tensor]:
    """Its two ends, of every missing entry, 0 at the others, whose ends are not looked for: sorting is what takes long here."""
    repeats, missing = -(-REPEATS // len(found)), ~mask
    weights = w[:, missing.nonzero()[:, 0]].repeat(repeats, 1)  # of the row that an entry is in, [R M K, missing]
    ordered = _ordered(found[0].px).to(mask.device).expand(mask.shape)[missing]
    with noise.drawn_by(_rows_alike(seed)):
        made = torch.cat([torch.stack([t.px.sample()[:, missing] for _ in range(repeats)]) for t in found], 1)  # [R, M K, missing]
    ends = _quantiles(made.flatten(0, 1), weights, coverage)
    lower, upper = (
        end.new_zeros(mask.shape).masked_scatter(missing, torch.where(ordered, end, torch.full_like(end, math.nan))) for end in ends
    )
    return lower, upper


def _drawn(models: Sequence[LatentModel], found: Sequence[Trace], w: Tensor, draws: int, mean: Tensor) -> Tensor:
    """For each draw and row a z_k of its own and a value of p(x | z_k) of its own, ``[M, B, *event]``."""
    each, made = len(w) // len(found), [mean.new_zeros(0, *mean.shape)]
    total, row = w.cumsum(0).mT.contiguous(), torch.arange(w.shape[1], device=w.device)
    for start in range(0, draws, each):  # as many at once as there were samples, so that memory stays what it was
        u = torch.rand(w.shape[1], min(each, draws - start), dtype=w.dtype, device=w.device)
        k = torch.searchsorted(total, u, right=True).clamp(max=len(w) - 1).mT
        x = mean.new_zeros(k.shape[0], *mean.shape)
        for n, (model, t) in enumerate(zip(models, found, strict=True)):
            if t.batch is None:
                raise InputError("a trace without data has nothing to impute")
            own = (k - n * each).clamp(0, each - 1)
            sampled = model.score(t.batch, [z[own, row] for z in t.z]).px.sample()
            x = torch.where(_wide(k // each == n, t.px), sampled, x)
        made.append(x)
    return torch.cat(made)


def _quantiles(x: Tensor, w: Tensor, coverage: float) -> tuple[Tensor, Tensor]:
    """The two quantiles of weighted values ``[S, N]`` along S."""
    x, w = x.mT.contiguous(), w.mT
    order = _order(x)
    x, total = x.gather(1, order), w.gather(1, order).cumsum(1)
    total = total / total[:, -1:]
    low, high = ((total < level).sum(1, keepdim=True).clamp(max=x.shape[1] - 1) for level in ((1 - coverage) / 2, (1 + coverage) / 2))
    return x.gather(1, low)[:, 0], x.gather(1, high)[:, 0]


def _order(x: Tensor) -> Tensor:
    """What sorts each row of ``x [N, S]``: on a processor by NumPy, which sorts several numbers in one instruction where torch does not."""
    return torch.from_numpy(np.argsort(x.double().numpy(), 1)) if x.device.type == "cpu" else x.argsort(1)


def _rows_alike(seed: int) -> noise.Source:
    """Noise ``[K, B, *]`` that is the same for every row b."""
    generator = torch.Generator().manual_seed(seed)

    def source(kind: noise.Kind, shape: tuple[int, ...], event_dim: int, like: Tensor) -> Tensor:
        rows = len(shape) - event_dim - 1
        one = (*shape[:rows], 1, *shape[rows + 1 :])
        make = torch.randn if kind == "normal" else torch.rand
        return make(one, generator=generator, dtype=like.dtype).to(like).expand(shape)

    return source
