"""How good a model's samples are: precision, recall, density, coverage, kernel and Frechet distance, with their errors, in one call.

What the numbers are: `vaekit.evaluate.neighbours`, `vaekit.evaluate.distances`. What they are measured in: `vaekit.evaluate.features`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from vaekit.data.core import DataSet, Split
from vaekit.errors import InputError
from vaekit.evaluate.distances import frechet_distance, kernel_distance
from vaekit.evaluate.features import ClassifierFeatures, Features, classifier_features, describe, extract
from vaekit.evaluate.neighbours import neighbour_scores
from vaekit.evaluate.passes import device_of, observing
from vaekit.models.core import LatentModel

__all__ = ["SampleQuality", "sample_quality"]

CHUNK = 500
"""Examples made, or read, at a time. A constant: which random numbers a sample is made of depends on it."""
POOR = 0.5
"""Accuracy of a classifier below which its features are not to be relied on."""


@dataclass(frozen=True)
class SampleQuality:
    """What `sample_quality` found; ``_se`` is the standard error from drawing real examples and samples anew, NaN where there are too few.

    Attributes:
        samples, real: M and N, how many of each were compared.
        features: what they were compared in; ``dimensions`` F, how many.
        k: which neighbour.
        mean: whether samples are centres of p(x | z) or draws from it.
        precision, recall, density, coverage, coverage_expected: see `NeighbourScores`. Better is higher, up to 1 (density: about 1).
        kernel: see `KernelDistance`. Better is lower; 0 on average for samples of the data's own distribution.
        frechet, frechet_limit, rank: see `FrechetDistance`. Better is lower; ``frechet_limit`` is 0 on average for samples of the data's
            own distribution, ``frechet`` is not.
        notes: what to mind with these very numbers, one sentence each.
    """

    samples: int
    real: int
    features: str
    dimensions: int
    k: int
    mean: bool
    seed: int
    precision: float
    precision_se: float
    recall: float
    recall_se: float
    density: float
    density_se: float
    coverage: float
    coverage_se: float
    coverage_expected: float
    kernel: float
    kernel_se: float
    frechet: float
    frechet_se: float
    frechet_limit: float
    rank: tuple[int, int]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """For JSON: plain numbers; None for what could not be estimated."""
        return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in asdict(self).items()}


def sample_quality(
    model: LatentModel,
    data: DataSet,
    *,
    split: str = "test",
    features: Features | None = None,
    samples: int = 10_000,
    k: int = 5,
    mean: bool = True,
    seed: int = 0,
) -> SampleQuality:
    """Compare samples of a model with a split of real data.

    Args:
        model: any model that can be sampled.
        data: the data set that it models, in the units in which it models it.
        split: which part is compared with: "test", "train" or "valid".
        features: any function of x ``[B, *]`` on the model's device that returns ``[B, F]``; by default `classifier_features`, trained on
            ``data`` and stored at the first call. Load them once and pass them to change where they are stored.
        samples: M; of the split as many examples, drawn without replacement, or all where there are fewer.
        k: which neighbour, see `neighbour_scores`.
        mean: centres of p(x | z), as papers show samples; False for x ~ p(x | z), which is what the model says that data are, and what to
            take where data are binary.
        seed: of all random numbers; the caller's are left as they were.

    Raises:
        InputError: unlabelled data without ``features``, data with missing entries, samples of another shape or not finite, features that
            are no ``[B, F]``, not more examples than k.

    >>> from vaekit import Conditional, VAE, heads, priors
    >>> from vaekit.data import arrays
    >>> copy = Conditional(torch.nn.Identity(), heads.GaussianFixed(2, 0.1))  # x ~ N(0, I + 0.01)
    >>> data = arrays(torch.randn(1200, 2, generator=torch.Generator().manual_seed(0)).numpy(), test=600)
    >>> found = sample_quality(VAE(priors.StandardNormal(2), copy, copy), data, features=lambda x: x, samples=600)
    >>> found.precision > 0.95, found.recall > 0.95, abs(found.kernel) < 4 * found.kernel_se, found.frechet < 0.05
    (True, True, True, True)
    """
    real = data.split(split)
    if real.mask is not None:
        raise InputError(f'"{data.name}" has missing entries: samples can be compared only with complete examples')
    if min(samples, len(real)) <= max(k, 2):
        raise InputError(f"samples={samples} and {len(real)} real examples: at least {max(k, 2) + 1} of each are needed for k={k}")
    function = classifier_features(data) if features is None else features
    with observing(model, seed):
        y = extract(function, _generated(model, samples, mean=mean, shape=data.shape))
    with observing(model, seed):  # the same real examples for every model
        x = extract(function, _real(real, samples, device_of(model)))
    near, kernel, frechet = neighbour_scores(x, y, k=k, seed=seed), kernel_distance(x, y), frechet_distance(x, y, seed=seed)
    return SampleQuality(
        samples=len(y),
        real=len(x),
        features=describe(function),
        dimensions=x.shape[1],
        k=k,
        mean=mean,
        seed=seed,
        **asdict(near),
        kernel=kernel.distance,
        kernel_se=kernel.distance_se,
        frechet=frechet.distance,
        frechet_se=frechet.distance_se,
        frechet_limit=frechet.limit,
        rank=frechet.rank,
        notes=tuple(_notes(function, x, y, limit=frechet.limit)),
    )


def _generated(model: LatentModel, n: int, *, mean: bool, shape: torch.Size) -> Iterator[Tensor]:
    for start in range(0, n, CHUNK):
        x = model.sample(min(CHUNK, n - start), mean=mean).float()
        if x.shape[1:] != shape:
            raise InputError(f"samples have shape {list(x.shape[1:])} and the data {list(shape)}: compare a model with the data it models")
        if not bool(x.isfinite().all()):
            raise InputError("some samples are not finite: the weights are damaged, or the scale of p(x | z) has grown without bound")
        yield x


def _real(split: Split, n: int, device: torch.device) -> Iterator[Tensor]:
    rows = torch.randperm(len(split))[:n] if n < len(split) else torch.arange(len(split))
    for index in rows.split(CHUNK):
        yield split.batch(index).x.to(device)


def _notes(features: Features, x: Tensor, y: Tensor, *, limit: float) -> Iterator[str]:
    if isinstance(features, ClassifierFeatures) and features.record.accuracy < POOR:
        yield f"the classifier is right on only {100 * features.record.accuracy:.0f}% of its test split: its features say little"
    if len(x) != len(y):
        yield f"{len(x)} real examples and {len(y)} samples: coverage and the Frechet distance depend on both; compare at equal ones"
    if min(len(x), len(y)) <= x.shape[1]:
        yield (
            f"{min(len(x), len(y))} examples leave covariances of {x.shape[1]} features without full rank: the Frechet distance is mostly "
            "bias; compare it at equal numbers only, or trust the kernel distance, which has none"
        )
    elif math.isnan(limit):
        yield f"halves of {min(len(x), len(y))} examples are too few for {x.shape[1]} features: the Frechet distance has no limit taken"
