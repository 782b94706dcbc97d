r"""Importance weights of each row by noise that is the same for every row and every call: what scores, imputations and explanations share.

.. math:: z_k \sim q(z | x_{obs}), \quad \log w_k = \log p(x_{obs}, z_k) - \log q(z_k | x_{obs}), \quad
          \log p(x_{obs}) \approx \log \frac1K \sum_k w_k, \quad E[f(z) | x_{obs}] \approx \sum_k \bar w_k f(z_k)

A row's numbers follow from the row, K and the seed alone: not from its place, nor from the other rows of the batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vaekit import noise
from vaekit.errors import InputError
from vaekit.models.core import LatentModel, Trace
from vaekit.models.missing import NotAtRandom
from vaekit.tensors import evaluating, logmeanexp
from vaekit.types import Batch

__all__ = ["Explained", "check_explained", "explained", "fixed_noise", "given_rest", "log_evidence", "rows_at_once", "traces", "widest"]

CHUNK = 2_000_000
"""Numbers that the samples of the rows at hand may take in one layer: x, or a wider one."""


def fixed_noise(seed: int, k: int) -> noise.Source:
    """Noise whose rows are all alike: ``[K, 1, *]`` numbers, K = ``k``, drawn once and repeated over B; normal ones are a scrambled Sobol
    sequence.

    The points fill the space more evenly than independent ones do, so that the error of a mean over K falls faster than 1 / sqrt(K) where
    the function is smooth (Owen, 1998); the estimates remain unbiased over seeds.

    Raises:
        InputError: when it draws: noise that is not ``[K, B, *]``.
    """
    generator = torch.Generator().manual_seed(seed)

    def source(kind: noise.Kind, shape: tuple[int, ...], event_dim: int, like: Tensor) -> Tensor:
        event = shape[len(shape) - event_dim :]
        if shape[0] != k or len(shape) != 2 + len(event):
            raise InputError(f"noise of shape {list(shape)} was asked for where {k} samples of each row were expected")
        size = torch.Size(event).numel()
        if kind == "normal" and size <= torch.quasirandom.SobolEngine.MAXDIM:
            number = int(torch.randint(2**31, (), generator=generator))
            u = torch.quasirandom.SobolEngine(size, scramble=True, seed=number).draw(k, dtype=torch.float64)
            values = torch.special.ndtri(u * (1 - 2.0**-31) + 2.0**-32)  # a Sobol point may be 0
        elif kind == "normal":
            values = torch.randn(k, size, generator=generator, dtype=torch.float64)
        else:
            values = torch.rand(k, size, generator=generator, dtype=torch.float64)
        return values.view(k, 1, *event).to(like).expand(shape)

    return source


def rows_at_once(size: int, samples: int) -> int:
    """How many rows of ``size`` numbers in the widest layer go through the decoder together, ``samples`` times each."""
    return max(1, CHUNK // max(1, size * samples))


def widest(model: nn.Module, x: Tensor) -> int:
    """The most numbers that a row of x ``[B, *]`` takes: x itself, or what comes out of a linear layer, as z and its moments do."""
    return max([x[:1].numel(), *(m.out_features for m in model.modules() if isinstance(m, nn.Linear))])


def traces(model: LatentModel, batch: Batch, samples: int, seed: int) -> Iterator[tuple[slice, Trace]]:
    """The rows in blocks of bounded memory: their place, and the trace of K samples z ~ q(z | x_obs) each, by `fixed_noise`.

    Raises:
        InputError: fewer than 1 sample.
    """
    if samples < 1:
        raise InputError(f"{samples} importance samples were asked for; at least 1 is needed")
    step = rows_at_once(widest(model, batch.x), samples)
    with evaluating(model), torch.no_grad():
        for start in range(0, batch.size, step):
            rows = slice(start, start + step)
            with noise.drawn_by(fixed_noise(seed, samples)):
                t = model.infer(Batch(*(None if part is None else part[rows] for part in batch)), samples)  # type: ignore[arg-type]
            yield rows, t


def log_evidence(model: LatentModel, batch: Batch, samples: int, seed: int) -> Tensor:
    """log p(x_obs) of each row in nats by K importance samples, ``[B]``: in the mean a lower bound that rises with K."""
    return torch.cat([logmeanexp(t.log_w) for _, t in traces(model, batch, samples, seed)])


class Explained(NamedTuple):
    """log p(x_obs) of each row, ``[B]``; log p(x_d | x_rest) of each entry, ``[B, D]``, 0 where nothing was observed, and where p(x_rest)
    is 0 in floating point already; and log p(x_rest), ``[B, D]``; nats.

    Attributes:
        log_px: log p(x_obs), ``[B]``.
        parts: log p(x_d | x_rest), ``[B, D]``.
        rest: log p(x_rest), ``[B, D]``.
    """

    log_px: Tensor
    parts: Tensor
    rest: Tensor


def explained(model: LatentModel, batch: Batch, samples: int, seed: int) -> Explained:
    r"""How strange each entry is, given the rest: the evidence with it and without it.

    .. math:: \log p(x_d | x_{rest}) = \log p(x) - \log p(x_{rest}), \qquad
              p(x_{rest}) \approx \frac1K \sum_k \frac{p(x_{rest}, z_k)}{\frac12 q(z_k | x) + \frac12 q(z_k | x_{rest})}

    with half of the z_k from each of the two posteriors, one of which has never seen x_d (Hesterberg, "Weighted average importance sampling
    and defensive mixture distributions", 1995). The weights of log p(x) with p(x_d | z_k) divided out would need no second posterior, but
    where x_d alone has moved q(z | x), as an anomaly does, their variance is infinite and they find it less strange than it is. The sum
    over d is not log p(x): entries that explain each other are each unsurprising given the rest.

    Args:
        model: a flat model of vectors.
        batch: x ``[B, D]``.
        samples: K; an odd number is rounded up.
        seed: of the noise.

    Raises:
        InputError: as `check_explained`.
    """
    check_explained(model, batch)
    log_px, each = [], []
    half = -(-samples // 2)
    for rows, t in traces(model, batch, samples, seed):
        part = Batch(*(None if field is None else field[rows] for field in batch))  # type: ignore[arg-type]
        seen = torch.ones_like(part.x, dtype=torch.bool) if part.mask is None else part.mask
        whole = logmeanexp(t.log_w)
        rest = torch.stack([_without(model, part, seen, d, half, seed) for d in range(batch.x.shape[1])], 1)
        log_px.append(whole)
        each.append(torch.where(seen, rest, whole.unsqueeze(1)))
    found, rest = torch.cat(log_px), torch.cat(each)
    return Explained(found, given_rest(found, rest), rest)


def check_explained(model: LatentModel, batch: Batch) -> None:
    """Whether `explained` can be asked of a model and of data like these, by one row.

    Raises:
        InputError: x is no vector, the mask is modelled, or the model has several levels of latents.
    """
    if batch.x.dim() != 2:
        raise InputError(f"entries are explained of vectors, x [B, D], and x is {list(batch.x.shape)}")
    if isinstance(model, NotAtRandom):
        raise InputError(
            "this model has a model of the mask, by which a value that is left out is one that went missing: single entries are explained "
            "of a model without it, as --missing at-random trains"
        )
    one = Batch(*(None if part is None else part[:1] for part in batch))  # type: ignore[arg-type]
    levels = max((len(t.levels) for _, t in traces(model, one, 1, 0)), default=1)
    if levels != 1:
        raise InputError(f"this model has {levels} levels of latents: single entries are explained of a flat model alone")


def given_rest(log_px: Tensor, rest: Tensor) -> Tensor:
    """log p(x) - log p(x_rest), nats ``[B, D]``, of ``log_px`` ``[B]`` and ``rest`` ``[B, D]``; 0 where both are -inf, of which nothing
    can be said."""
    return torch.where(rest.isneginf(), torch.zeros_like(rest), log_px.unsqueeze(1) - rest)


def _without(model: LatentModel, batch: Batch, seen: Tensor, d: int, half: int, seed: int) -> Tensor:
    """log p(x_rest) without column d, ``[B]``."""
    mask = seen.clone()
    mask[:, d] = False
    rest = batch._replace(mask=mask)
    with evaluating(model), torch.no_grad(), noise.drawn_by(fixed_noise(seed, half)):
        own, other = model.infer(batch, half).levels[0], model.infer(rest, half).levels[0]
        t = model.score(rest, torch.cat([own.z, other.z]))
        log_q = [level.q.log_prob(t.z[0]) for level in (own, other) if level.q is not None]
        return logmeanexp(t.log_joint - logmeanexp(torch.stack(log_q)))
