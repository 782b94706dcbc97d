"""Numbers with their errors, and what they say about a model. The only layer that knows bits per dimension."""

from vaekit.evaluate.advice import Finding, advise
from vaekit.evaluate.aggregate import Aggregate, aggregate
from vaekit.evaluate.annealed import Annealing, Sandwich, SideBySide, annealed_log_likelihood, bdmc, side_by_side
from vaekit.evaluate.calibration import Calibration
from vaekit.evaluate.classifier import Classifier, classifier
from vaekit.evaluate.codes import Usage, codes
from vaekit.evaluate.diagnose import Diagnosis, diagnose
from vaekit.evaluate.disentangle import Disentanglement, disentanglement
from vaekit.evaluate.distances import FrechetDistance, KernelDistance, frechet_distance, gaussian_frechet, kernel_distance
from vaekit.evaluate.estimates import LogLikelihood
from vaekit.evaluate.features import ClassifierFeatures, classifier_features
from vaekit.evaluate.gaps import Gaps, Part, gaps
from vaekit.evaluate.geometry import Completeness, Continuity, completeness, continuity, gaussian_fit
from vaekit.evaluate.gradients import GradientMoments, gradient_moments
from vaekit.evaluate.importance import doubts
from vaekit.evaluate.latent import ACTIVE, Latents, embed, latents
from vaekit.evaluate.likelihood import Evaluation, evaluate
from vaekit.evaluate.log_likelihood import log_likelihood
from vaekit.evaluate.measure import Measure, measure
from vaekit.evaluate.naive import NaiveLikelihood, naive_log_likelihood
from vaekit.evaluate.neighbours import NeighbourScores, neighbour_scores
from vaekit.evaluate.pareto import k_hat
from vaekit.evaluate.paths import Frames, continuous, interpolate, leading, quantiles, spherical, straight, traverse
from vaekit.evaluate.quality import SampleQuality, sample_quality
from vaekit.evaluate.reconstruction import Reconstructed, reconstruction, scorable
from vaekit.evaluate.residuals import Residuals, residuals

__all__ = [
    "evaluate",
    "Evaluation",
    "log_likelihood",
    "LogLikelihood",
    "doubts",
    "k_hat",
    "annealed_log_likelihood",
    "Annealing",
    "bdmc",
    "Sandwich",
    "side_by_side",
    "SideBySide",
    "naive_log_likelihood",
    "NaiveLikelihood",
    "measure",
    "Measure",
    "diagnose",
    "Diagnosis",
    "advise",
    "Finding",
    "aggregate",
    "Aggregate",
    "gaps",
    "Gaps",
    "Part",
    "latents",
    "Latents",
    "embed",
    "codes",
    "Usage",
    "ACTIVE",
    "reconstruction",
    "Reconstructed",
    "scorable",
    "residuals",
    "Residuals",
    "Calibration",
    "disentanglement",
    "Disentanglement",
    "gradient_moments",
    "GradientMoments",
    "sample_quality",
    "SampleQuality",
    "classifier",
    "Classifier",
    "classifier_features",
    "ClassifierFeatures",
    "frechet_distance",
    "FrechetDistance",
    "gaussian_frechet",
    "kernel_distance",
    "KernelDistance",
    "neighbour_scores",
    "NeighbourScores",
    "interpolate",
    "traverse",
    "Frames",
    "straight",
    "spherical",
    "quantiles",
    "leading",
    "continuous",
    "continuity",
    "Continuity",
    "completeness",
    "Completeness",
    "gaussian_fit",
]
