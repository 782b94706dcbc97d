"""All scores of a model at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor

from vaekit.data.core import DataSet, Split
from vaekit.data.sprites import factor_values
from vaekit.dist import DiagGaussian
from vaekit.errors import InputError
from vaekit.evaluate.disentangle.correlation import gaussian_correlation, posterior_correlation
from vaekit.evaluate.disentangle.fixed import beta_vae_score, factor_vae_score
from vaekit.evaluate.disentangle.information import binned, entropy, gap, mutual_information, one_factor
from vaekit.evaluate.disentangle.predict import dci, sap
from vaekit.evaluate.latent import ACTIVE, embed
from vaekit.evaluate.passes import batches, device_of, dtype_of, observing
from vaekit.models.core import LatentModel
from vaekit.models.picks import at_centre

__all__ = ["Disentanglement", "Score", "disentanglement"]

POSTERIORS = 2000
"""Posteriors, at most, whose mixture the total correlation is of: its time grows as their square."""


class Score(NamedTuple):
    """A score and its standard error.

    Attributes:
        value: the score.
        se: its standard error.
    """

    value: float
    se: float


@dataclass(frozen=True)
class Disentanglement:
    """What `disentanglement` found. Scores lie in [0, 1], 1 best, except for the total correlations, which are nats.

    Attributes:
        examples: N rows that were encoded.
        factors: names of the factors.
        mig: `mig`.
        disentanglement, completeness, informativeness: the three of `dci`.
        sap: `sap`.
        modularity: `modularity`.
        factor_vae: `factor_vae_score` of the active codes; ``chance`` is what noise has.
        beta_vae: `beta_vae_score`; likewise.
        gaussian_tc: `gaussian_correlation` of the centres of q(z | x).
        tc: `posterior_correlation` of up to 2,000 of the rows; None for a model of several levels or without diagonal Gaussian posteriors.
        information: I(z_d; f) / H(f), ``[D, F]``.
        seed: of the rows, the draws and the resampling.
    """

    examples: int
    factors: tuple[str, ...]
    mig: Score
    disentanglement: Score
    completeness: Score
    informativeness: Score
    sap: Score
    modularity: Score
    factor_vae: Score
    beta_vae: Score
    gaussian_tc: Score
    tc: Score | None
    information: Tensor
    seed: int

    @property
    def chance(self) -> float:
        """What codes that tell nothing have in ``factor_vae`` and ``beta_vae``."""
        return 1 / len(self.factors)

    def as_dict(self) -> dict[str, object]:
        """For JSON: plain numbers; None for what is not finite."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}

    def __str__(self) -> str:
        scores = {field.name: getattr(self, field.name) for field in fields(self)}
        return "\n".join(f"{name:16s} {s.value:.3f} +- {s.se:.3f}" for name, s in scores.items() if isinstance(s, Score))


def disentanglement(
    model: LatentModel,
    data: DataSet,
    *,
    split: str = "test",
    rows: int = 10_000,
    bins: int = 20,
    resamples: int = 20,
    seed: int = 0,
    batch_size: int = 500,
) -> Disentanglement:
    """Every score of the centres of q(z | x) against the known factors of a data set.

    The rows are encoded once. Standard errors are those of a bootstrap over rows, which knows nothing of the larger spread over trained
    models (Locatello et al., 2019), and is too large for a modularity near 1 and a total correlation near 0, where a resample can only
    be worse; of the two scores that vote, of the votes; of ``tc``, of the mean over its draws.

    Args:
        model: any model with a posterior; the codes of several levels are joined.
        data: a data set with factors: `vaekit.data.sprites`, `vaekit.data.dsprites`, or your own.
        split: "train", "valid" or "test".
        rows: N, at most, drawn from the split at random. The voting scores need some dozens of each value of each factor.
        bins: of a code, in the mutual information, SAP and DCI.
        resamples: of the bootstrap; 0 for none, errors are then NaN.
        seed: of all that is random; the caller's random numbers are left as they were.
        batch_size: examples at a time.

    Raises:
        InputError: a data set without factors; a factor that has one value in these rows; fewer than 2 codes.

    >>> from vaekit import Conditional, VAE, heads, priors
    >>> from vaekit.data import sprites
    >>> from vaekit.nn import mlp
    >>> _ = torch.manual_seed(0)
    >>> data = sprites(8, scales=2, orientations=2, positions=3)
    >>> model = VAE(
    ...     priors.StandardNormal(4),
    ...     Conditional(mlp(data.shape, [], 8), heads.Gaussian(4), event_dim=3),
    ...     Conditional(mlp(4, [], 64), heads.Bernoulli(data.shape)),
    ... )
    >>> found = disentanglement(model, data, split="train", resamples=2)
    >>> found.examples, found.factors, found.chance
    (86, ('shape', 'scale', 'orientation', 'x', 'y'), 0.2)
    """
    chosen = _drawn(data, data.split(split), rows, seed)
    factors = factor_values(data, chosen)
    kept = [i for i, factor in enumerate(data.factors) if factor.size > 1]
    factors, ordered = factors[:, kept], [data.factors[i].ordered for i in kept]
    z = embed(model, chosen, batch_size=batch_size)
    if z.shape[1] < 2 or len(kept) < 2:
        raise InputError(f"{z.shape[1]} codes and {len(kept)} factors that vary: with one of either there is nothing to disentangle")

    def by_rows(z: Tensor, factors: Tensor) -> dict[str, float]:
        found = mutual_information(binned(z, bins), factors)
        three = dci(z, factors, ordered=ordered, bins=bins, seed=seed)
        return {
            "mig": gap(found / entropy(factors)),
            "sap": sap(z, factors, ordered=ordered, bins=bins),
            "modularity": one_factor(found),
            "gaussian_tc": gaussian_correlation(z),
        } | three._asdict()

    votes = factor_vae_score(z, factors, least=ACTIVE, seed=seed), beta_vae_score(z, factors, seed=seed)
    return Disentanglement(
        examples=len(chosen),
        factors=tuple(data.factors[i].name for i in kept),
        **_bootstrapped(by_rows, z, factors, resamples, seed),
        factor_vae=Score(*votes[0]),
        beta_vae=Score(*votes[1]),
        tc=_correlation(model, chosen.head(min(POSTERIORS, len(chosen))), seed, batch_size),
        information=mutual_information(binned(z, bins), factors) / entropy(factors),
        seed=seed,
    )


def _drawn(data: DataSet, split: Split, rows: int, seed: int) -> Split:
    if not data.factors:
        factor_values(data, split)  # says why not
    if rows < 8:
        raise InputError(f"rows={rows}: scores of fewer than 8 examples say nothing")
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))
    return split.take(order[:rows])


def _bootstrapped(
    scores: Callable[[Tensor, Tensor], dict[str, float]], z: Tensor, factors: Tensor, resamples: int, seed: int
) -> dict[str, Score]:
    """Scores of all rows, and their standard deviations over resampled rows; resamples in which a factor has one value are left out."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(resamples):
        rows = torch.randint(len(z), (len(z),), generator=generator)
        low, high = factors[rows].aminmax(dim=0)
        if bool((low < high).all()):
            found.append(scores(z[rows], factors[rows]))
    value = scores(z, factors)
    if len(found) < 2:
        return {name: Score(v, math.nan) for name, v in value.items()}
    return {name: Score(v, float(torch.tensor([f[name] for f in found], dtype=torch.float64).std())) for name, v in value.items()}


def _correlation(model: LatentModel, split: Split, seed: int, batch_size: int) -> Score | None:
    parts = []
    with observing(model, seed):
        for batch in batches(split, batch_size, device_of(model), dtype=dtype_of(model)):
            levels = model.trace(at_centre(), batch).levels
            q = levels[0].q
            if len(levels) > 1 or not isinstance(q, DiagGaussian):
                return None
            parts.append((q.mean.flatten(1).cpu(), q.log_scale.expand(q.mean.shape).flatten(1).cpu()))
    loc, log_scale = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return Score(*posterior_correlation(DiagGaussian(loc, log_scale), seed=seed))


def _plain(value: object) -> object:
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, Score):
        return {"value": _plain(value.value), "se": _plain(value.se)}
    return None if isinstance(value, float) and not math.isfinite(value) else value
