"""Latents from the posterior itself, by Markov chains (see `vaekit.infer.core`), and densities fitted without data.

=================  ==========================================================
``sample``         warm up, then draw: what most people need
``log_posterior``  a model and a batch as a target
``HMC``, ``NUTS``  the kernels, pure functions from state to state
``leapfrog``       the integrator
``fit_density``    a family fitted to an unnormalised density by the reverse KL
``ais``            log p(x) by annealed importance sampling, `reverse_ais` from above
``svi``            the best q of a family for each x by itself, from the encoder's on
=================  ==========================================================
"""

from vaekit.infer.adapt import DualAveraging, nudged
from vaekit.infer.ais import Annealed, Plan, ais, plan, refreshed, reverse_ais
from vaekit.infer.core import Info, Kernel, Layout, LogDensity, State, drawn_momentum, kinetic, leapfrog, start
from vaekit.infer.fit import FitResult, fit_density
from vaekit.infer.hmc import HMC
from vaekit.infer.laplace import laplace
from vaekit.infer.nuts import NUTS
from vaekit.infer.path import Path, posterior_path, prior_path
from vaekit.infer.project import TrapezoidRule, kl_by_quadrature, moment_match
from vaekit.infer.sample import Draws, Warmup, r_hat, sample
from vaekit.infer.schedule import Adaptive, linear, sigmoidal
from vaekit.infer.svi import Family, Local, amortised, log_weights, svi, widened
from vaekit.infer.target import log_posterior

__all__ = [
    "HMC",
    "NUTS",
    "Adaptive",
    "Annealed",
    "Draws",
    "DualAveraging",
    "Family",
    "FitResult",
    "Info",
    "Kernel",
    "Layout",
    "Local",
    "LogDensity",
    "Path",
    "Plan",
    "State",
    "TrapezoidRule",
    "Warmup",
    "ais",
    "amortised",
    "drawn_momentum",
    "fit_density",
    "kinetic",
    "kl_by_quadrature",
    "laplace",
    "leapfrog",
    "linear",
    "log_posterior",
    "log_weights",
    "moment_match",
    "nudged",
    "plan",
    "posterior_path",
    "prior_path",
    "r_hat",
    "refreshed",
    "reverse_ais",
    "sample",
    "sigmoidal",
    "start",
    "svi",
    "widened",
]
