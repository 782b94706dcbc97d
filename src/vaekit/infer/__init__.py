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
    "sample",
    "Draws",
    "Warmup",
    "r_hat",
    "log_posterior",
    "LogDensity",
    "Kernel",
    "HMC",
    "NUTS",
    "State",
    "Info",
    "Layout",
    "start",
    "leapfrog",
    "kinetic",
    "drawn_momentum",
    "DualAveraging",
    "nudged",
    "ais",
    "reverse_ais",
    "plan",
    "Annealed",
    "Plan",
    "refreshed",
    "Path",
    "prior_path",
    "posterior_path",
    "sigmoidal",
    "linear",
    "Adaptive",
    "svi",
    "Local",
    "Family",
    "amortised",
    "log_weights",
    "fit_density",
    "FitResult",
    "kl_by_quadrature",
    "TrapezoidRule",
    "moment_match",
    "laplace",
    "widened",
]
