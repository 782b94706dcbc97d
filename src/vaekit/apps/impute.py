r"""Missing entries given the observed ones, by importance weights: conditional means, draws and intervals.

.. math:: E[x_{mis} | x_{obs}] \approx \sum_k \bar w_k \, E[x_{mis} | z_k], \qquad
          \bar w_k \propto \frac{p(x_{obs} | z_k) p(z_k)}{q(z_k | x_{obs})}, \quad z_k \sim q(z | x_{obs})

Draws take z_k with probability :math:`\bar w_k` and x_mis ~ p(x_mis | z_k) (sampling-importance-resampling: Rubin, 1987; of a VAE: Mattei
and Frellsen, "MIWAE", ICML 2019); an interval lies between two quantiles of the same weighted mixture. All become exact as K grows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vaekit import noise
from vaekit.apps.weighted import traces
from vaekit.dist import centre
from vaekit.errors import InputError
from vaekit.models.core import LatentModel, Trace
from vaekit.types import Batch

__all__ = ["Imputation", "impute"]

REPEATS = 8
"""Values drawn from p(x | z_k) for each z_k, for quantiles and draws: noise of the likelihood is cheap where that of z is not. Of several
models, which have K samples each, as many fewer, rounded up."""


@dataclass(frozen=True, eq=False)
class Imputation:
    """Observed entries as they were, missing ones from p(x_mis | x_obs).

    Attributes:
        mean: missing entries at their conditional mean, ``[N, *]``.
        draws: M independent draws, ``[M, N, *]``: of all of a row's missing entries at once, so that they fit each other. M may be 0.
        lower, upper: ends of the interval, ``[N, *]``, x itself where it was observed; None where none was asked for.
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
        seed: of the noise, the same for every row; the caller's random numbers are left as they were.

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
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for blocks in zip(*(traces(each, batch, samples, seed) for each in models), strict=True):
            rows = blocks[0][0]
            found.append(_kept(_imputed([t for _, t in blocks], draws, coverage, seed), batch.x[rows], mask[rows]))
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


def _imputed(found: Sequence[Trace], draws: int, coverage: float | None, seed: int) -> Imputation:
    """Every entry anew, the observed ones too."""
    w = torch.cat([torch.softmax(t.log_w, 0) for t in found]) / len(found)  # [M K, B]
    wide = w.view(*w.shape, *(1,) * len(found[0].px.event_shape))
    mean, ess = (wide * torch.cat([centre(t.px) for t in found])).sum(0), 1 / w.square().sum(0)
    lower = upper = None
    repeats = -(-REPEATS // len(found))
    made = mean.new_zeros(0)
    if draws or coverage is not None:
        with noise.drawn_by(_rows_alike(seed)):
            made = torch.cat([torch.stack([t.px.sample() for _ in range(repeats)]) for t in found], 1)  # [R, M K, B, *]
    if coverage is not None:
        lower, upper = _quantiles(made.flatten(0, 1), wide.expand_as(made[0]).repeat(repeats, *(1,) * (made.dim() - 2)), coverage)
    chosen = mean.new_zeros(0, *mean.shape)
    if draws:
        u = torch.rand(draws, 1, generator=torch.Generator().manual_seed(seed + 1), dtype=w.dtype)
        k = torch.searchsorted(w.cumsum(0).mT.contiguous(), u.mT.expand(w.shape[1], -1).contiguous()).clamp(max=len(w) - 1).mT  # [M, B]
        again = torch.arange(draws).unsqueeze(1).expand_as(k) % repeats
        chosen = made[again, k, torch.arange(w.shape[1])]
    return Imputation(mean, chosen, lower, upper, ess)


def _quantiles(x: Tensor, w: Tensor, coverage: float) -> tuple[Tensor, Tensor]:
    """The two quantiles of weighted values ``[S, B, *]`` along S."""
    x, order = x.sort(0)
    total = w.gather(0, order).cumsum(0)
    total = total / total[-1:]
    low, high = ((total < level).sum(0, keepdim=True).clamp(max=len(x) - 1) for level in ((1 - coverage) / 2, (1 + coverage) / 2))
    return x.gather(0, low)[0], x.gather(0, high)[0]


def _rows_alike(seed: int) -> noise.Source:
    """Noise ``[K, B, *]`` that is the same for every row b."""
    generator = torch.Generator().manual_seed(seed)

    def source(kind: noise.Kind, shape: tuple[int, ...], event_dim: int, like: Tensor) -> Tensor:
        rows = len(shape) - event_dim - 1
        one = (*shape[:rows], 1, *shape[rows + 1 :])
        make = torch.randn if kind == "normal" else torch.rand
        return make(one, generator=generator, dtype=like.dtype).to(like).expand(shape)

    return source
