"""Which kind of column the values speak for. Each rule is one function of a column's `Figures`, and says with its figures why it holds.

Rules are asked in the order of `RULES`; the first that answers decides, and where none does a number is Gaussian.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vaekit.data.tables.numbers import minus

__all__ = ["LEVELS", "RULES", "Choice", "Figures", "count_likelihood", "figures_of", "heavy"]

LEVELS = 10  # at most, of a number that is modelled as levels
COUNTED = 1000  # a count's mean at most: what is larger was measured, not counted
SIGMAS = 5.0  # standard errors that a figure has to be from what chance gives


@dataclass(frozen=True)
class Choice:
    """A kind, by its name, and why, ``because``; a likelihood where the kind has several."""

    kind: str
    because: str
    likelihood: str = ""


@dataclass(frozen=True)
class Figures:
    """What is to be known of the n numbers of a column that are present.

    ``distinct`` are its values where there are at most LEVELS, else empty; ``skewness`` and ``kurtosis`` (excess) are central moments, the
    logarithm's where all are positive; ``outliers`` is the number beyond 5 robust standard deviations (interquartile range / 1.349).

    Attributes:
        n: numbers.
        unique: different ones.
        whole: all are whole.
        low, high: the least and the greatest.
        mean, variance: of all.
        log_skewness: of the logarithms, where all are positive.
        zeros: how many are 0.
        mode_share: share of the most frequent value.
        positives: mean and variance of the values greater than 0.
    """

    n: int
    distinct: tuple[float, ...]
    unique: int
    whole: bool
    low: float
    high: float
    mean: float
    variance: float
    skewness: float
    kurtosis: float
    log_skewness: float
    outliers: int
    zeros: int
    mode_share: float
    positives: tuple[float, float]  # mean and variance of the values greater than 0


def figures_of(values: npt.NDArray) -> Figures:
    """The figures of numbers ``[n]`` without missing or infinite ones, n at least 1."""
    found, counts = np.unique(values, return_counts=True)
    # whole numbers that float64 does not tell apart are looked at from the lowest of them
    start = float(int(found[0])) if values.dtype.kind in "iu" and max(abs(int(found[0])), abs(int(found[-1]))) >= 2**53 else 0.0
    x = minus(values, start)
    size = max(float(np.abs(x).max()), np.finfo(np.float64).tiny)
    scaled = x / size  # squares of 1e200 are infinite
    with np.errstate(over="ignore", under="ignore"):
        mean, variance, skewness, kurtosis = _moments(scaled)
        middle, quartile, upper = np.percentile(x, [50, 25, 75])
        robust = (upper - quartile) / 1.349
        positive = x[values > 0]
        _, _, log_skewness, _ = _moments(np.log(x + start)) if found[0] > 0 else (0.0, 0.0, math.nan, 0.0)
        return Figures(
            n=len(x),
            distinct=tuple(found.tolist()) if len(found) <= LEVELS else (),
            unique=len(found),
            whole=bool((x == np.rint(x)).all()),
            low=float(found[0]),
            high=float(found[-1]),
            mean=mean * size + start,
            variance=float(np.float64(variance) * size * size),
            skewness=skewness,
            kurtosis=kurtosis,
            log_skewness=log_skewness,
            outliers=int((np.abs(x - middle) > 5 * robust).sum()) if robust > 0 else 0,
            zeros=int((values == 0).sum()),
            mode_share=float(counts.max()) / len(x),
            positives=(float(positive.mean()), float(positive.var())) if len(positive) else (0.0, 0.0),
        )


def _moments(x: npt.NDArray[np.float64]) -> tuple[float, float, float, float]:
    mean = float(x.mean())
    d = x - mean
    square = d * d
    variance = float(square.mean())
    if variance <= 0:
        return mean, 0.0, 0.0, 0.0
    return mean, variance, float((square * d).mean()) / variance**1.5, float((square * square).mean()) / variance**2 - 3


def binary(f: Figures) -> Choice | None:
    """Two values, each of which comes back."""
    if len(f.distinct) == 2 and f.n >= 4:
        return Choice("binary", f"two values, {f.distinct[0]:g} and {f.distinct[1]:g}")
    return None


def levels(f: Figures) -> Choice | None:
    """Few values that come back, 10 times each on average, and count nothing: no more than LEVELS, below 0, broken, spread too little for a
    count (variance under half the mean), or never 0 where 10 or more of the rows would be if they were counts of this mean."""
    counted = f.whole and f.low >= 0 and f.variance >= 0.5 * f.mean and (f.zeros > 0 or f.n * math.exp(-f.mean) < 10)
    if len(f.distinct) > 2 and f.n >= 10 * len(f.distinct) and not counted:
        return Choice("ordinal", f"only {len(f.distinct)} different values, from {f.low:g} to {f.high:g}")
    return None


def count(f: Figures) -> Choice | None:
    """Whole numbers from 0 on, of mean at most COUNTED, and not spread so little (variance under half the mean) that nothing is counted."""
    if not f.whole or f.low < 0 or f.mean > COUNTED or f.high > 2**24 or f.variance < 0.5 * f.mean:
        return None
    likelihood, why = count_likelihood(f)
    return Choice("count", f"whole numbers from {f.low:g} to {f.high:g}, {why}", likelihood)


def count_likelihood(f: Figures) -> tuple[str, str]:
    """Poisson, negative binomial, or either with more zeros, by the variance and by the share of zeros.

    Of Poisson counts, variance / mean is 1 with standard error sqrt(2 / (n - 1)). A negative binomial of this mean m and variance v has
    r = m^2 / (v - m) and a share (r / (r + m))^r of zeros. What has more is zero-inflated: Poisson where the counts above 0 are spread as
    those of a Poisson (mean m+ = l / (1 - e^-l), variance m+ (1 + l - m+)), else negative binomial. Differences of 5 standard errors count,
    and of 2 percent of zeros.
    """
    ratio = f.variance / f.mean
    if ratio <= 1 + SIGMAS * math.sqrt(2 / max(1, f.n - 1)):
        return "Poisson", f"variance {ratio:.2g} times the mean"
    r = f.mean**2 / (f.variance - f.mean)
    expected, seen = (r / (r + f.mean)) ** r, f.zeros / f.n
    spread = f"variance {ratio:.2g} times the mean"
    if seen <= expected + max(0.02, SIGMAS * math.sqrt(expected * (1 - expected) / f.n)):
        return "NegativeBinomial", spread
    excess = f"{spread}, and {seen:.0%} zeros where a negative binomial has {expected:.0%}"
    mean, variance = f.positives
    rate = _truncated(mean)
    m = f.n - f.zeros
    if variance <= mean * (1 + rate - mean) * (1 + SIGMAS * math.sqrt(2 / max(1, m - 1))):
        return "ZeroInflatedPoisson", excess
    return "ZeroInflatedNegativeBinomial", excess


def _truncated(mean: float) -> float:
    """The rate l of a Poisson whose values above 0 have this mean: l = mean (1 - e^-l), by iteration, a contraction for mean > 1."""
    rate = mean
    for _ in range(100):
        rate = mean * -math.expm1(-rate)
    return rate


def unit(f: Figures) -> Choice | None:
    """Broken numbers from 0 to 1 that come within 0.1 of both, spread at least a third as much as the continuous Bernoulli of their mean:
    it has no other variance, and numbers close together are not for it."""
    if f.low < 0 or f.high > 1 or f.low > 0.1 or f.high < 0.9 or f.whole:
        return None
    spread = f.variance / continuous_bernoulli_variance(f.mean)
    if spread < 1 / 3:
        return None
    return Choice("unit", f"from {f.low:.3g} to {f.high:.3g}, within [0, 1], variance {spread:.2g} times a continuous Bernoulli's")


def continuous_bernoulli_variance(mean: float) -> float:
    """The variance 1 / e^2 - 1 / (4 sinh^2(e / 2)) of the density proportional to exp(e x) on [0, 1] that has this mean
    1 / (1 - exp(-e)) - 1 / e, found by halving (Loaiza-Ganem & Cunningham, 2019).

    >>> round(continuous_bernoulli_variance(0.5), 4), round(continuous_bernoulli_variance(0.01), 6)
    (0.0833, 0.0001)
    """
    low, high = -1e6, 1e6
    for _ in range(100):
        e = (low + high) / 2
        if _tilted_mean(e) < mean:
            low = e
        else:
            high = e
    if abs(e) < 1e-3:
        return 1 / 12
    return 1 / e**2 - (0.25 / math.sinh(e / 2) ** 2 if abs(e) < 1000 else 0.0)


def _tilted_mean(e: float) -> float:
    if abs(e) < 1e-3:
        return 0.5 + e / 12
    return -1 / math.expm1(-e) - 1 / e if e > -700 else -1 / e


def positive(f: Figures) -> Choice | None:
    """Greater than 0, skewed to the right by more than 1 (and 5 standard errors), and the logarithm less skewed."""
    if f.low > 0 and f.skewness > max(1.0, SIGMAS * math.sqrt(6 / f.n)) and abs(f.log_skewness) < f.skewness:
        return Choice("positive", f"all greater than 0, skewness {f.skewness:.2g}, of the logarithm {f.log_skewness:.2g}")
    return None


def heavy(f: Figures) -> Choice | None:
    """Excess kurtosis above 1 by 5 standard errors (sqrt(24 / n) of Gaussian numbers), or more than 1 in 1000, and 2, beyond 5 robust
    standard deviations (of Gaussian numbers 1 in 2 million is)."""
    if f.kurtosis > 1 + SIGMAS * math.sqrt(24 / f.n):
        return Choice("heavy-tailed", f"excess kurtosis {f.kurtosis:.2g}, {f.outliers} of {f.n} beyond 5 robust standard deviations")
    if f.outliers > max(1.0, f.n / 1000):
        return Choice("heavy-tailed", f"{f.outliers} of {f.n} beyond 5 robust standard deviations")
    return None


def gaussian(f: Figures) -> Choice:
    """What is left."""
    return Choice("continuous", f"skewness {f.skewness:.2g}, excess kurtosis {f.kurtosis:.2g}")


RULES = (binary, levels, count, unit, positive, heavy, gaussian)
