"""Latents from the posterior itself, by Markov chains (see `vaekit.infer.core`), and densities fitted without data.

=================  ==========================================================
``sample``         warm up, then draw: what most people need
``log_posterior``  a model and a batch as a target
``HMC``, ``NUTS``  the kernels, pure functions from state to state
``leapfrog``       the integrator
``fit_density``    a family fitted to an unnormalised density by the reverse KL
=================  ==========================================================
"""

from vaekit.infer.adapt import DualAveraging, nudged
from vaekit.infer.core import Info, Kernel, Layout, LogDensity, State, drawn_momentum, kinetic, leapfrog, start
from vaekit.infer.fit import FitResult, fit_density
from vaekit.infer.hmc import HMC
from vaekit.infer.laplace import laplace
from vaekit.infer.nuts import NUTS
from vaekit.infer.project import TrapezoidRule, kl_by_quadrature, moment_match
from vaekit.infer.sample import Draws, Warmup, r_hat, sample
from vaekit.infer.target import log_posterior

__all__ = [
    "HMC",
    "NUTS",
    "Draws",
    "DualAveraging",
    "FitResult",
    "Info",
    "Kernel",
    "Layout",
    "LogDensity",
    "State",
    "TrapezoidRule",
    "Warmup",
    "drawn_momentum",
    "fit_density",
    "kinetic",
    "kl_by_quadrature",
    "laplace",
    "leapfrog",
    "log_posterior",
    "moment_match",
    "nudged",
    "r_hat",
    "sample",
    "start",
]
