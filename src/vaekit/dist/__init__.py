"""Distributions that torch and zuko lack, and what the package asks of any distribution. See `vaekit.dist.core`."""

from vaekit.dist.bernoulli import Bernoulli
from vaekit.dist.categorical import Categorical
from vaekit.dist.columns import Columns
from vaekit.dist.contaminated import ContaminatedGaussian
from vaekit.dist.continuous_bernoulli import ContinuousBernoulli
from vaekit.dist.core import centre, closed_form_kl, describe, draw, has_density, is_discrete, log_prob_observed, log_prob_parts, tempered
from vaekit.dist.counts import NegativeBinomial, Poisson, ZeroInflated
from vaekit.dist.discretised import DiscretisedLogistic, DiscretisedLogisticMixture, Grid
from vaekit.dist.flow import Flow, Invertible, Transform
from vaekit.dist.gaussian import DiagGaussian, full_gaussian, gaussian_kl_parts
from vaekit.dist.missing import Missing, drawable
from vaekit.dist.mixture import Mixture
from vaekit.dist.one_hot import OneHot
from vaekit.dist.optimal import OptimalGaussian
from vaekit.dist.point import Point
from vaekit.dist.positive import LogNormal, StudentT
from vaekit.dist.quantised import Certain, Quantised
from vaekit.dist.relaxed import BinConcrete, Concrete, relaxed
from vaekit.dist.shared import SharedLevels
from vaekit.dist.transforms import Householder, Planar, Radial, Reversal, Sylvester, Triangular, orthonormal

__all__ = [
    "log_prob_parts",
    "log_prob_observed",
    "draw",
    "has_density",
    "is_discrete",
    "closed_form_kl",
    "centre",
    "tempered",
    "describe",
    "DiagGaussian",
    "full_gaussian",
    "gaussian_kl_parts",
    "OptimalGaussian",
    "ContaminatedGaussian",
    "StudentT",
    "LogNormal",
    "Mixture",
    "Bernoulli",
    "ContinuousBernoulli",
    "Categorical",
    "OneHot",
    "DiscretisedLogistic",
    "DiscretisedLogisticMixture",
    "Grid",
    "SharedLevels",
    "Poisson",
    "NegativeBinomial",
    "ZeroInflated",
    "Columns",
    "Missing",
    "drawable",
    "Flow",
    "Transform",
    "Invertible",
    "Planar",
    "Radial",
    "Householder",
    "Triangular",
    "Sylvester",
    "Reversal",
    "orthonormal",
    "relaxed",
    "BinConcrete",
    "Concrete",
    "Point",
    "Certain",
    "Quantised",
]
