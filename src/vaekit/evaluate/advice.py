"""One plain sentence on each thing that looks wrong: what it is, how it shows, what usually helps."""

from __future__ import annotations

import math
from typing import NamedTuple

from vaekit.evaluate.latent import Latents
from vaekit.evaluate.likelihood import Evaluation
from vaekit.evaluate.residuals import Residuals

__all__ = ["Finding", "advise"]


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
) -> list[Finding]:
    """Findings on a trained model, the gravest first; an empty list where nothing looks wrong.

    Args:
        test: the evaluation on held-out data.
        train: the same on training data, for overfitting; its ELBOs are compared, which do not depend on the number of samples.
        latents: for inactive units; without it the counts in ``test`` are used.
        residuals: for the variance of a Gaussian likelihood.
    """
    found = [*_units(test, latents), *_variance(residuals), *_overfitting(test, train), *_weights(test)]
    return sorted(found, key=lambda finding: finding.severity != "warning")


def _units(test: Evaluation, latents: Latents | None) -> list[Finding]:
    dead = test.latent_dim - test.active_units
    if test.active_units == 0:
        return [
            Finding(
                "warning",
                f"All {test.latent_dim} latent dimensions are inactive: the decoder ignores z, the posterior has collapsed onto the prior; "
                "warm the KL up from 0, use free bits, or a weaker decoder.",
            )
        ]
    if dead == 0:
        return []
    nats = ""
    if latents is not None and latents.kl is not None:
        nats = f" and cost {float(latents.kl[~latents.active].sum()):.2f} nats together"
    severity = "warning" if dead > test.latent_dim / 2 else "info"
    return [
        Finding(
            severity,
            f"{dead} of {test.latent_dim} latent dimensions are inactive (variance of their posterior means under 0.01{nats}): "
            "they do no harm, but a smaller latent space would do; if too few are left, warm the KL up or use free bits.",
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
    if not gap > max(3 * se, 0.02 * abs(test.elbo)):
        return []
    return [
        Finding(
            "warning",
            f"The model overfits: the ELBO is {gap:.1f} +- {se:.1f} nats higher on training data than on held-out data; "
            "stop earlier (validation data and patience), use a smaller network, dropout, or more data.",
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
