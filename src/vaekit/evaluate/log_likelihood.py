"""log p(x) of every example: one door to the estimators of `vaekit.evaluate.importance` and `vaekit.evaluate.annealed`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from vaekit.data.core import Split
from vaekit.errors import InputError, nearest
from vaekit.evaluate.annealed import annealed_log_likelihood
from vaekit.evaluate.estimates import LogLikelihood
from vaekit.evaluate.importance import importance_log_likelihood
from vaekit.models.core import LatentModel

__all__ = ["log_likelihood"]

METHODS = ("iwae", "ais", "elbo")


def log_likelihood(
    model: LatentModel,
    split: Split,
    *,
    samples: int | None = None,
    method: Literal["iwae", "ais", "elbo"] = "iwae",
    seed: int = 0,
    chunk: int | None = None,
    compile: bool | None = None,
    watch: Callable[[int, int], None] | None = None,
) -> LogLikelihood:
    """Estimate log p(x) of every example of ``split``.

    Each x is encoded once (by a model of several levels once a tile of samples, whose lower posteriors depend on the levels above). Samples
    and examples are streamed: memory grows with neither, but for the 3 sqrt(K) largest weights of the 100 examples at hand.

    Args:
        model: any model with a posterior that has a density, or a probability, at each level.
        split: the data, on any device.
        samples: K, at least 1; default: 5000 importance samples of "iwae" and "elbo", 16 annealing chains of "ais".
        method: "iwae" for the importance-weighted estimate, "elbo" for the mean of log w, "ais" for annealed importance sampling with the
            default `Annealing` (`annealed_log_likelihood` takes others).
        seed: of the samples. The noise depends on it and on the data's shape alone, not on ``chunk``; the caller's random numbers are left
            as they were.
        chunk: samples of each of up to 100 examples that the decoder of a flat model sees at once, which decides on speed and memory
            alone; default: about 4 million numbers in the shape of x. A GPU may like more. Not for "ais".
        compile: compile the decoder of a flat model (seconds, once for a model), which changes the estimates by rounding alone; default: on
            a processor, where the work ahead is large. Not for "ais".
        watch: called with (examples done, examples in all).

    Raises:
        InputError: ``samples`` or ``chunk`` below 1; another method; a model without a likelihood (see `require_likelihood`); an estimate
            that is not finite.

    >>> import torch
    >>> from vaekit import Conditional, VAE, heads, priors
    >>> from vaekit.evaluate import doubts
    >>> _ = torch.manual_seed(0)
    >>> model = VAE(
    ...     priors.StandardNormal(2),
    ...     Conditional(torch.nn.Linear(6, 4), heads.Gaussian(2)),
    ...     Conditional(torch.nn.Linear(2, 6), heads.Bernoulli(6)),
    ... )
    >>> found = log_likelihood(model, Split(torch.ones(3, 6)), samples=1000)
    >>> found.log_px.shape, bool((found.mc_se < 0.1).all()), doubts(found)
    (torch.Size([3]), True, [])
    """
    if method not in METHODS:
        raise InputError(f'log_likelihood(method="{method}"): unknown method; {nearest(method, METHODS)}')
    if method == "ais":
        if chunk is not None:
            raise InputError(f'log_likelihood(method="ais", chunk={chunk}): chains have a size of their own; leave the chunk out')
        if compile:
            raise InputError('log_likelihood(method="ais", compile=True): chains are not compiled; leave it out')
        return annealed_log_likelihood(model, split, samples=16 if samples is None else samples, seed=seed, watch=watch)
    k = 5000 if samples is None else samples
    return importance_log_likelihood(model, split, samples=k, method=method, seed=seed, chunk=chunk, compile=compile, watch=watch)
