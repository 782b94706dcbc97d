"""Distributions that torch and zuko lack, and what the package asks of any distribution. See `vaekit.dist.core`."""

from vaekit.dist.bernoulli import Bernoulli
from vaekit.dist.categorical import Categorical
from vaekit.dist.continuous_bernoulli import ContinuousBernoulli
from vaekit.dist.core import centre, closed_form_kl, describe, draw, log_prob_observed, log_prob_parts, tempered
from vaekit.dist.discretised import DiscretisedLogistic, DiscretisedLogisticMixture, Grid
from vaekit.dist.gaussian import DiagGaussian, gaussian_kl_parts
from vaekit.dist.mixture import Mixture
from vaekit.dist.optimal import OptimalGaussian

__all__ = [
    "Bernoulli",
    "Categorical",
    "ContinuousBernoulli",
    "DiagGaussian",
    "DiscretisedLogistic",
    "DiscretisedLogisticMixture",
    "Grid",
    "Mixture",
    "OptimalGaussian",
    "centre",
    "closed_form_kl",
    "describe",
    "draw",
    "gaussian_kl_parts",
    "log_prob_observed",
    "log_prob_parts",
    "tempered",
]
