"""One plain sentence on each thing that looks wrong: what it is, how it shows, what usually helps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from vaekit.evaluate.aggregate import Aggregate
from vaekit.evaluate.calibration import Calibration
from vaekit.evaluate.codes import Usage
from vaekit.evaluate.latent import ACTIVE, Latents
from vaekit.evaluate.likelihood import Evaluation
from vaekit.evaluate.measure import Measure
from vaekit.evaluate.residuals import Residuals
from vaekit.train.collapse import NEGLIGIBLE

__all__ = ["Finding", "advise"]

FEW = 10
"""Fewer examples than this say nothing about latent dimensions."""
ABSURD = 1000
"""Nats of KL a latent dimension that no data ask for."""
MISSED = 0.1
"""How far the coverage of an interval may lie from its mass."""


class Finding(NamedTuple):
    """One plain sentence about a run: what is wrong, how it shows, what usually helps.

    Each has a ``severity``: "error", the result is wrong; "warning", look at it; "info", worth knowing; "ok", as it should be.
    """

    severity: str
    sentence: str


def advise(
    test: Evaluation,
    *,
    train: Evaluation | None = None,
    latents: Latents | None = None,
    residuals: Residuals | None = None,
    measure: Measure | None = None,
    aggregate: Aggregate | None = None,
    calibration: Calibration | None = None,
    codes: Sequence[Usage] = (),
) -> list[Finding]:
    """Findings on a trained model, the gravest first; an empty list where nothing looks wrong.

    Args:
        test: the evaluation on held-out data.
        train: the same on training data, for overfitting; its ELBOs are compared, which do not depend on the number of samples.
        latents: for inactive units level by level; without it the counts in ``test`` are used.
        residuals: for the variance of a Gaussian likelihood.
        measure: what log p(x | z) is, for what may be compared with it.
        aggregate: the posteriors together, for the distance of their mixture from the prior.
        calibration: for the intervals of any likelihood that has some.
        codes: use of the codes of each quantised level; of their vectors' dimensions nothing is said then.
    """
    found = [*([] if codes else _units(test, latents)), *_exploded(test), *_variance(residuals), *_intervals(calibration, residuals)]
    found += [*_overfitting(test, train), *_codes(codes), *_aggregate(aggregate), *_weights(test), *_meaning(measure)]
    return sorted(found, key=lambda finding: finding.severity != "warning")


def _collapsed(test: Evaluation) -> list[int]:
    """Levels whose rate is 0 within its error: the KL is what a level tells of x, whatever the prior and the units of z."""
    return [n for n, (rate, se) in enumerate(zip(test.rates, test.rates_se, strict=True)) if not rate > NEGLIGIBLE + 2 * se]


def _units(test: Evaluation, latents: Latents | None) -> list[Finding]:
    if test.examples < FEW:
        return []  # a variance over so few examples says nothing, and neither does the error of a rate
    collapsed = _collapsed(test)
    if len(collapsed) == len(test.rates):
        return [
            Finding(
                "warning",
                f"All {test.latent_dim} latent dimensions are inactive (KL {sum(test.rates):.2f} nats): the decoder ignores z, the "
                "posterior has collapsed onto the prior; learn the variance of p(x | z) if it is fixed, warm the KL up from 0, use free "
                "bits, or a weaker decoder.",
            )
        ]
    return [*(_collapsed_level(test, n) for n in collapsed), *_inactive(test, latents, collapsed)]


def _collapsed_level(test: Evaluation, n: int) -> Finding:
    return Finding(
        "warning",
        f"Level {n} (from the top, 0 to {len(test.rates) - 1}) has collapsed: its KL is {test.rates[n]:.2f} +- {test.rates_se[n]:.2f} "
        "nats, so it tells nothing about x; warm the KL up from 0, use free bits, or leave the level out.",
    )


def _inactive(test: Evaluation, latents: Latents | None, collapsed: list[int]) -> list[Finding]:
    """Inactive dimensions in the levels that carry something; none of them active contradicts the rate, so nothing is said then."""
    if len(test.rates) > 1 and latents is not None:
        levels = list(zip(latents.sizes, latents.active.split(latents.sizes), strict=True))
        carrying = [(size, int(on.sum())) for n, (size, on) in enumerate(levels) if n not in collapsed]
    elif collapsed:
        return []  # which of the inactive dimensions lie in other levels is not known
    else:
        carrying = [(test.latent_dim, test.active_units)]
    carrying = [(size, on) for size, on in carrying if on > 0]
    size, on = sum(size for size, _ in carrying), sum(on for _, on in carrying)
    if size == on:
        return []
    of = "" if len(carrying) == len(test.rates) or len(test.rates) == 1 else " of the other levels"
    severity = "warning" if size - on > size / 2 else "info"
    return [
        Finding(
            severity,
            f"{size - on} of {size} latent dimensions{of} are inactive (variance of their posterior means under {ACTIVE} of the "
            "prior's): they do no harm, but a smaller latent space would do; if too few are left, warm the KL up or use free bits.",
        )
    ]


def _exploded(test: Evaluation) -> list[Finding]:
    """A rate that no data ask for: the KL of a dimension grows by a nat each time that its standard deviation falls by e."""
    if not sum(test.rates) > ABSURD * test.latent_dim:
        return []
    level = max(range(len(test.rates)), key=lambda n: test.rates[n])
    return [
        Finding(
            "warning",
            f"The KL is {sum(test.rates):.3g} nats for {test.latent_dim} latent dimensions, most of it at level {level}: a mean or a scale "
            "of q(z | x) or p(z) has exploded; lower the learning rate, clip the gradient, or give the scale a floor (min_scale).",
        )
    ]


def _variance(r: Residuals | None) -> list[Finding]:
    if r is None or 0.8 < r.standardised < 1.25:
        return []
    way = "too wide" if r.standardised < 1 else "too narrow"
    return [
        Finding(
            "warning",
            f"The decoder's standard deviation is {way}: {r.sigma:.3g} on average where the residuals are {r.residual:.3g} "
            f"(standardised residuals {r.standardised:.2f}, not 1), so the likelihood is far from what these means could give; "
            "learn the variance, or train longer if it is learned.",
        )
    ]


def _intervals(c: Calibration | None, r: Residuals | None) -> list[Finding]:
    """Where the variance fits on average, or is no Gaussian's, the intervals may still be wrong."""
    if c is None or _variance(r):
        return []
    off = [inside - mass for mass, inside in zip(c.nominal, c.coverage, strict=True)]
    mass, inside, se = max(zip(c.nominal, c.coverage, c.coverage_se, strict=True), key=lambda entry: abs(entry[1] - entry[0]))
    if not abs(inside - mass) > max(MISSED, 3 * se):
        return []
    way = "too wide" if off[0] > 0 else "too narrow"
    shape = (
        f"p(x | z) is {way}: its scale does not fit; learn the scale, or train longer if it is learned."
        if r is None
        else "the variance fits on average but not everywhere, or the errors are no Gaussian's (heavier tails, or many entries that are "
        "exact); a variance for each entry, or another likelihood, would fit better."
    )
    return [Finding("warning", f"{100 * inside:.0f}% of the data lie in the central {100 * mass:.0f}% intervals of p(x | z): {shape}")]


def _overfitting(test: Evaluation, train: Evaluation | None) -> list[Finding]:
    if train is None:
        return []
    gap, se = train.elbo - test.elbo, math.hypot(train.elbo_se, test.elbo_se)
    # The gap and the rate are the same in any units of x (a change of units adds the same to both ELBOs); the ELBO itself is not. What
    # is lost on new data is held against what the latents tell of x; the half nat is for models that tell next to nothing.
    if not (gap > 3 * se and gap > 0.05 * sum(test.rates) + 0.5):
        return []
    return [
        Finding(
            "warning",
            f"The model overfits: the ELBO is {gap:.1f} +- {se:.1f} nats higher on training data than on held-out data; "
            "use a smaller network, dropout, more data or, where there is none yet, early stopping (patience).",
        )
    ]


def _codes(codes: Sequence[Usage]) -> list[Finding]:
    """Codes that so many draws would have shown if all were in use."""
    found = []
    for use in codes:
        missing = use.expected - use.used
        if not missing > 0.1 * use.expected:
            continue
        at = f" of level {use.level}" if len(codes) > 1 else ""
        found.append(
            Finding(
                "warning" if missing > 0.5 * use.expected else "info",
                f"{use.dead} of {use.size} codes{at} are dead: {use.draws:,} draws used {use.used} (perplexity {use.perplexity:.1f}), and "
                "as many of equally likely codes would have shown "
                f"{use.expected:.0f}; re-initialise dead codes from the data (Codebook(revive=0.1)), or take a smaller codebook or FSQ.",
            )
        )
    return found


def _aggregate(a: Aggregate | None) -> list[Finding]:
    if a is None or a.examples < FEW:
        return []
    if a.mutual_information > a.ceiling - 0.5:
        return [
            Finding(
                "info",
                f"I(x; z) = {a.mutual_information:.2f} nats is near its ceiling, log N = {a.ceiling:.2f}: the posteriors of these "
                f"{a.examples} examples hardly overlap, so that z tells at least that much of x, and KL(q(z) || p(z)) is {a.gap:.2f} nats "
                "at most; more examples raise the one and lower the other.",
            )
        ]
    if not (a.gap > 1 and a.gap > a.mutual_information):
        return []
    return [
        Finding(
            "warning",
            f"The posteriors together do not fill the prior: KL(q(z) || p(z)) is {a.gap:.2f} +- {a.gap_se:.2f} nats of a rate of "
            f"{a.rate:.2f}, so that samples from p(z) decode latents that the decoder has not met; learn the prior (GaussianMixture, "
            "VampPrior, a flow), or give the KL more weight.",
        )
    ]


def _weights(test: Evaluation) -> list[Finding]:
    found = []
    if test.samples >= 100 and test.ess < max(2.0, 0.01 * test.samples):
        found.append(
            Finding(
                "info",
                f"Few importance samples carry the estimate (effective size {test.ess:.1f} of {test.samples}): the true negative "
                f"log-likelihood may lie clearly below {test.nll:.2f} nats; use more samples.",
            )
        )
    if test.examples < 100:
        found.append(Finding("info", f"Only {test.examples} examples were evaluated: the errors are themselves uncertain."))
    return found


def _meaning(measure: Measure | None) -> list[Finding]:
    match measure:
        case Measure.EXPECTED_MASS:
            sentence = (
                "The likelihood is a Bernoulli and x has grey values: what is called negative log-likelihood and bits per dimension is "
                "an expected log-mass of binary pixels, no likelihood of these x; compare it only with the same on the same data. "
                "Binarise x, or take a likelihood of grey levels (DiscretisedLogistic)."
            )
        case Measure.DENSITY:
            sentence = (
                "The likelihood is a density: negative log-likelihood and bits per dimension are differential, so they depend on the "
                "units of x, may be negative, and count no bits of a code; compare them only for x in the same units."
            )
        case _:
            return []
    return [Finding("info", sentence)]
