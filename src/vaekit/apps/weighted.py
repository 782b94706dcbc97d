r"""Importance weights of each row by noise that is the same for every row and every call: what scores, imputations and explanations share.

.. math:: z_k \sim q(z | x_{obs}), \quad \log w_k = \log p(x_{obs}, z_k) - \log q(z_k | x_{obs}), \quad
          \log p(x_{obs}) \approx \log \frac1K \sum_k w_k, \quad E[f(z) | x_{obs}] \approx \sum_k \bar w_k f(z_k)

A row's numbers follow from the row, K and the seed alone: not from its place, nor from the other rows of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from vaekit import noise
from vaekit.dist import log_prob_parts
from vaekit.dist.core import factor_mask
from vaekit.errors import InputError
from vaekit.models.core import LatentModel, Trace
from vaekit.tensors import evaluating, logmeanexp
from vaekit.types import Batch

__all__ = ["Explained", "explained", "fixed_noise", "log_evidence", "rows_at_once", "traces"]

CHUNK = 2_000_000
"""Numbers of x-shaped memory that the samples of the rows at hand may take."""


def fixed_noise(seed: int, k: int) -> noise.Source:
    """Noise whose rows are all alike: ``[K, 1, *]`` numbers drawn once and repeated over B; normal ones are a scrambled Sobol sequence.

    The points fill the space more evenly than independent ones do, so that the error of a mean over K falls faster than 1 / sqrt(K) where
    the function is smooth (Owen, 1998); the estimates remain unbiased over seeds.
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
    """How many rows of ``size`` entries go through the decoder together, ``samples`` times each."""
    return max(1, CHUNK // max(1, size * samples))


def traces(model: LatentModel, batch: Batch, samples: int, seed: int) -> Iterator[tuple[slice, Trace]]:
    """The rows in blocks of bounded memory: their place, and the trace of K samples z ~ q(z | x_obs) each, by `fixed_noise`.

    Raises:
        InputError: fewer than 1 sample.
    """
    if samples < 1:
        raise InputError(f"{samples} importance samples were asked for; at least 1 is needed")
    step = rows_at_once(batch.x[:1].numel(), samples)
    with evaluating(model), torch.no_grad():
        for start in range(0, batch.size, step):
            rows = slice(start, start + step)
            with noise.drawn_by(fixed_noise(seed, samples)):
                t = model.infer(Batch(*(None if part is None else part[rows] for part in batch)), samples)  # type: ignore[arg-type]
            yield rows, t


def log_evidence(model: LatentModel, batch: Batch, samples: int, seed: int) -> Tensor:
    """log p(x_obs) of each row in nats by K importance samples, ``[B]``: in the mean a lower bound that rises with K."""
    return _joined(model, batch, samples, seed, lambda t: logmeanexp(t.log_w))


class Explained(NamedTuple):
    """log p(x_obs) of each row, ``[B]``, and log p(x_d | x_rest) of each entry, ``[B, *]``, 0 where nothing was observed; nats."""

    log_px: Tensor
    parts: Tensor


def explained(model: LatentModel, batch: Batch, samples: int, seed: int) -> Explained:
    r"""How strange each entry is, given the rest, by the same weights with that entry left out.

    .. math:: \log p(x_d | x_{rest}) = \log p(x) - \log p(x_{rest}), \qquad
              p(x_{rest}) \approx \frac1K \sum_k \frac{w_k}{p(x_d | z_k)}, \quad z_k \sim q(z | x)

    Both terms are estimated from the same K samples of q(z | x), which has seen x_d: exact in the limit, and noisier where x_d alone
    decides on z, because then the samples are not where x_rest would put them. The sum over d is not log p(x): entries that explain each
    other are each unsurprising given the rest.

    Raises:
        InputError: a likelihood that does not factorise over the entries.
    """
    found = []
    for _, t in traces(model, batch, samples, seed):
        seen = t.batch
        if seen is None:  # a trace of `infer` has one
            continue
        log_w, parts = t.log_w, log_prob_parts(t.px, seen.input)
        if seen.mask is not None:
            parts = torch.where(factor_mask(parts, seen.mask, len(t.px.event_shape)), parts, torch.zeros_like(parts))
        each = log_w.view(*log_w.shape, *(1,) * (parts.dim() - 2))
        log_px = logmeanexp(log_w)
        found.append(Explained(log_px, logmeanexp(each) - logmeanexp(each - parts)))
    return Explained(torch.cat([f.log_px for f in found]), torch.cat([f.parts for f in found]))


def _joined(model: LatentModel, batch: Batch, samples: int, seed: int, f: Callable[[Trace], Tensor]) -> Tensor:
    return torch.cat([f(t) for _, t in traces(model, batch, samples, seed)])
