"""Numbers with their errors, and what they say about a model. The only layer that knows bits per dimension."""

from vaekit.evaluate.advice import Finding, advise
from vaekit.evaluate.latent import ACTIVE, Latents, embed, latents
from vaekit.evaluate.likelihood import Evaluation, evaluate
from vaekit.evaluate.measure import Measure, measure
from vaekit.evaluate.residuals import Residuals, residuals

__all__ = [
    "ACTIVE",
    "Evaluation",
    "Finding",
    "Latents",
    "Measure",
    "Residuals",
    "advise",
    "embed",
    "evaluate",
    "latents",
    "measure",
    "residuals",
]
