"""One plain sentence on each thing that looks wrong: what it is, how it shows, what usually helps."""

from __future__ import annotations

import math
from typing import NamedTuple

from vaekit.evaluate.latent import ACTIVE, Latents
from vaekit.evaluate.likelihood import Evaluation
from vaekit.evaluate.measure import Measure
from vaekit.evaluate.residuals import Residuals

__all__ = ["Finding", "advise"]

NEGLIGIBLE = 0.1
"""Nats of KL below which a level counts as collapsed: 0.14 bits about x."""
FEW = 10
"""Fewer examples than this say nothing about latent dimensions."""


class Finding(NamedTuple):
    """One plain sentence about a run: what is wrong, how it shows, what usually helps.

    Severities: "error", the result is wrong; "warning", look at it; "info", worth knowing; "ok", as it should be.
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
) -> list[Finding]:
    """Findings on a trained model, the gravest first; an empty list where nothing looks wrong.

    Args:
        test: the evaluation on held-out data.
        train: the same on training data, for overfitting; its ELBOs are compared, which do not depend on the number of samples.
        latents: for inactive units level by level; without it the counts in ``test`` are used.
        residuals: for the variance of a Gaussian likelihood.
        measure: what log p(x | z) is, for what may be compared with it.
    """
    found = [*_units(test, latents), *_variance(residuals), *_overfitting(test, train), *_weights(test), *_meaning(measure)]
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
                "posterior has collapsed onto the prior; warm the KL up from 0, use free bits, or a weaker decoder.",
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
