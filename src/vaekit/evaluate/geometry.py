r"""Two properties of a latent space that generates: small steps in z are small steps in x, and every z gives a sensible x.

*Continuity*: along straight segments between two latents, at the points t_0 < ... < t_T,

.. math:: s_i = \frac{|x(t_{i+1}) - x(t_i)|}{|z(t_{i+1}) - z(t_i)|}, \qquad x(t) = E[x | z = (1 - t) a + t b]

*Completeness*: the share of samples z ~ p(z) whose x an independent classifier accepts as surely as it accepts real data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal

from vaekit.dist import centre, describe
from vaekit.errors import InputError
from vaekit.evaluate.classifier import Classifier
from vaekit.evaluate.passes import device_of, dtype_of, observing
from vaekit.models.core import LatentModel
from vaekit.models.picks import from_p, given

__all__ = ["Completeness", "Continuity", "completeness", "continuity", "gaussian_fit"]

ROWS = 10_000
"""Latents decoded at a time."""
QUANTILES = (0.5, 0.9, 0.99)


@dataclass(frozen=True)
class Continuity:
    """What `continuity` found. Steps are pixel distance per unit of latent length; ``_se`` is the standard error over segments.

    Attributes:
        segments, steps: how many, and into how many steps each was cut.
        mean: mean step.
        largest: mean over segments of the largest step of each.
        peak: mean over segments of the largest step over the mean step of the same segment: 1 for a decoder that moves evenly; the only
            number here that does not depend on the scale of z, which an autoencoder chooses freely.
        top: the largest step of all: an extreme of these very segments, without an error, that can only grow with their number.
        quantiles: of all steps, the levels of `QUANTILES`.
        length: mean length of the segments, in units of z.
    """

    segments: int
    steps: int
    mean: float
    mean_se: float
    largest: float
    largest_se: float
    peak: float
    peak_se: float
    top: float
    quantiles: tuple[float, ...]
    length: float


@dataclass(frozen=True)
class Completeness:
    """What `completeness` found.

    Attributes:
        share: of the samples that the classifier accepts; ``share_se`` its binomial standard error.
        threshold: the confidence that counts as accepted.
        level: the share of real test images that reach it.
        classes: shares of the accepted samples by class, ``[classes]``.
    """

    samples: int
    share: float
    share_se: float
    threshold: float
    level: float
    classes: tuple[float, ...]

    @property
    def variety(self) -> float:
        """Effective number of classes among the accepted samples, exp of the entropy of their shares; 1 where all are of one class."""
        return math.exp(-sum(p * math.log(p) for p in self.classes if p > 0))


Latents = Tensor | Distribution | None
"""Where latents come from: rows of codes ``[N, D]``, a distribution over z, or None for the model's prior."""


def continuity(model: LatentModel, *, segments: int = 200, steps: int = 100, ends: Latents = None, seed: int = 0) -> Continuity:
    """Decode along straight latent segments and measure the steps.

    A decoder that jumps shows steps that grow in proportion to ``steps``; the steps of a smooth one settle.

    Args:
        model: a model with one level of latents.
        segments: how many.
        steps: equal steps a segment.
        ends: where both ends come from: None for p(z), codes ``[N, D]`` (two different rows, from `embed`), or a distribution over z.
        seed: of the ends; the caller's random numbers are left as they were.

    Raises:
        InputError: fewer than 2 segments or 1 step; a model of several levels; codes that coincide, so that a segment has no length.

    >>> from vaekit import Conditional, VAE, heads, priors
    >>> copy = Conditional(torch.nn.Identity(), heads.GaussianFixed(2, 1.0))
    >>> found = continuity(VAE(priors.StandardNormal(2), copy, copy), segments=10)
    >>> round(found.largest, 3), round(found.peak, 3)
    (1.0, 1.0)
    """
    if segments < 2 or steps < 1:
        raise InputError(f"continuity(segments={segments}, steps={steps}): at least 2 segments of 1 step are needed")
    with observing(model, seed):
        a, b = _ends(model, ends, segments)
        flat = (b - a).flatten(1)
        length = flat.norm(dim=1)
        if not bool((length > 0).all()):
            raise InputError(
                f"{int((length == 0).sum())} of {segments} segments have no length, because the codes at both ends coincide: "
                "take other codes, or look whether the encoder has collapsed"
            )
        t = torch.linspace(0, 1, steps + 1, dtype=a.dtype, device=a.device).view(1, -1, *[1] * (a.dim() - 1))
        size = [length[rows, None].double() / steps for rows in torch.arange(segments).split(max(1, ROWS // (steps + 1)))]
        step = []
        for start, end, dz in zip(a.split(len(size[0])), b.split(len(size[0])), size, strict=True):
            z = torch.lerp(start.unsqueeze(1), end.unsqueeze(1), t)
            x = _decode(model, z.flatten(0, 1)).unflatten(0, z.shape[:2]).flatten(2)
            step.append(x.diff(dim=1).double().norm(dim=-1) / dz)
        s = torch.cat(step).cpu()
    mean, largest = s.mean(1), s.amax(1)
    if not bool((mean > 0).all()):
        raise InputError("the decoder gives the same x along a whole segment, so there are no steps to compare: it ignores z")
    return Continuity(
        segments,
        steps,
        *_mean(mean),
        *_mean(largest),
        *_mean(largest / mean),
        top=float(largest.max()),
        quantiles=tuple(torch.quantile(s.flatten()[:: max(1, s.numel() // 10_000_000)], torch.tensor(QUANTILES, dtype=s.dtype)).tolist()),
        length=float(length.mean()),
    )


def completeness(
    model: LatentModel, classifier: Classifier, *, samples: int = 10_000, level: float = 0.95, latents: Latents = None, seed: int = 0
) -> Completeness:
    """The share of samples (means of p(x | z)) in which the classifier is at least as sure as in a share ``level`` of real test images.

    A model as good as the data would have a share of about ``level``. More is possible: blurred and typical images are easy to classify,
    so that the share says nothing about sharpness, nor about variety, of which ``variety`` is the coarsest part.

    Args:
        model: a model with one level of latents.
        classifier: of `evaluate.classifier`, trained on the same data in the same units.
        samples: how many z.
        level: sets the threshold.
        latents: where z comes from: None for p(z), a distribution (`gaussian_fit`), or codes ``[N, D]``, drawn with replacement.
        seed: of the samples; the caller's random numbers are left as they were.

    Raises:
        InputError: no samples, a level outside (0, 1), a model of several levels.
    """
    if samples < 1:
        raise InputError(f"completeness(samples={samples}): at least 1 sample is needed")
    threshold = classifier.threshold(level)
    with observing(model, seed):
        z = _latents(model, latents, samples)
        p = torch.cat([classifier.probabilities(_decode(model, part).to(classifier.temperature)).cpu() for part in z.split(ROWS)])
    sure, guess = p.max(1)
    accepted = sure >= threshold
    share = float(accepted.double().mean())
    counts = torch.bincount(guess[accepted], minlength=p.shape[1]).double()
    return Completeness(
        samples,
        share,
        math.sqrt(share * (1 - share) / samples),
        threshold,
        level,
        tuple((counts / counts.sum().clamp(min=1)).tolist()),
    )


def gaussian_fit(z: Tensor) -> MultivariateNormal:
    """The Gaussian with the mean and covariance of codes ``[N, D]``: what to sample an autoencoder from, which has matched no prior.

    Raises:
        InputError: z is no matrix, has no more rows than columns, or a covariance without full rank.
    """
    if z.dim() != 2 or len(z) <= z.shape[1]:
        raise InputError(f"codes of shape {list(z.shape)}: a Gaussian needs [N, D] with more rows than columns")
    try:
        return MultivariateNormal(z.mean(0), z.mT.cov())
    except (ValueError, RuntimeError) as error:  # the second is what LAPACK's refusal becomes
        raise InputError(
            f"the covariance of the codes {list(z.shape)} has not full rank: leave out dimensions that never change"
        ) from error


def _ends(model: LatentModel, ends: Latents, n: int) -> tuple[Tensor, Tensor]:
    if not isinstance(ends, Tensor):
        a, b = _latents(model, ends, 2 * n).split(n)
        return a, b
    first = torch.randint(len(ends), (n,))
    other = (first + torch.randint(1, max(len(ends), 2), (n,))) % len(ends)  # never the same row
    z = _latents(model, ends, None)
    return z[first], z[other]


def _latents(model: LatentModel, source: Latents, n: int | None) -> Tensor:
    """``n`` latents ``[n, *]`` where the model lies; all rows of codes for None."""
    levels = model.trace(from_p(1, 1 if isinstance(source, Tensor | Distribution) or n is None else n)).levels
    if len(levels) != 1:
        raise InputError(f"the model has {len(levels)} levels of latents, and a segment is drawn in one: take a model with one level")
    if source is None:
        return levels[0].z[0]
    event = levels[0].z.shape[2:]
    if isinstance(source, Distribution):
        if source.batch_shape or source.event_shape != event:
            raise InputError(f"{describe(source)} over {list(source.event_shape)} is no distribution over this model's z {list(event)}")
        z = source.sample(torch.Size([1 if n is None else n]))
    else:
        if source.dim() != 1 + len(event) or source.shape[1:] != event:
            raise InputError(f"codes of shape {list(source.shape)}: this model's are [N, {', '.join(map(str, event))}]")
        z = source if n is None else source[torch.randint(len(source), (n,))]
    return z.to(device=device_of(model), dtype=dtype_of(model) or z.dtype)


def _decode(model: LatentModel, z: Tensor) -> Tensor:
    """The centres of p(x | z) for z ``[N, *]``."""
    return centre(model.trace(given(z.unsqueeze(0))).px)[0]


def _mean(values: Tensor) -> tuple[float, float]:
    return float(values.mean()), float(values.std() / math.sqrt(len(values)))
