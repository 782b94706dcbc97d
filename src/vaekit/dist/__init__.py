"""Distributions that torch and zuko lack, and what the package asks of any distribution. See `vaekit.dist.core`."""

from vaekit.dist.core import centre, closed_form_kl, describe, draw, log_prob_observed, log_prob_parts, tempered
from vaekit.dist.gaussian import DiagGaussian, gaussian_kl_parts

__all__ = [
    "DiagGaussian",
    "centre",
    "closed_form_kl",
    "describe",
    "draw",
    "gaussian_kl_parts",
    "log_prob_observed",
    "log_prob_parts",
    "tempered",
]
