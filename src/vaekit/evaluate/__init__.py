"""Numbers with their errors, and what they say about a model. The only layer that knows bits per dimension."""

from vaekit.evaluate.advice import Finding, advise
from vaekit.evaluate.classifier import Classifier, classifier
from vaekit.evaluate.codes import codes
from vaekit.evaluate.geometry import Completeness, Continuity, completeness, continuity, gaussian_fit
from vaekit.evaluate.gradients import GradientMoments, gradient_moments
from vaekit.evaluate.latent import ACTIVE, Latents, embed, latents
from vaekit.evaluate.likelihood import Evaluation, evaluate
from vaekit.evaluate.measure import Measure, measure
from vaekit.evaluate.naive import NaiveLikelihood, naive_log_likelihood
from vaekit.evaluate.paths import Frames, continuous, interpolate, leading, quantiles, spherical, straight, traverse
from vaekit.evaluate.reconstruction import Reconstructed, reconstruction, scorable
from vaekit.evaluate.residuals import Residuals, residuals

__all__ = [
    "ACTIVE",
    "Classifier",
    "Completeness",
    "Continuity",
    "Evaluation",
    "Finding",
    "Frames",
    "GradientMoments",
    "Latents",
    "Measure",
    "NaiveLikelihood",
    "Reconstructed",
    "Residuals",
    "advise",
    "classifier",
    "codes",
    "completeness",
    "continuity",
    "continuous",
    "embed",
    "evaluate",
    "gaussian_fit",
    "gradient_moments",
    "interpolate",
    "latents",
    "leading",
    "measure",
    "naive_log_likelihood",
    "quantiles",
    "reconstruction",
    "residuals",
    "scorable",
    "spherical",
    "straight",
    "traverse",
]
