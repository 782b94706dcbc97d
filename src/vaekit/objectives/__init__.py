"""What training minimises and what it reports. See `vaekit.objectives.core`."""

from vaekit.objectives.core import Loss, Objective, terms
from vaekit.objectives.elbo import ELBO
from vaekit.objectives.importance import IWAE
from vaekit.objectives.mcem import MCEM
from vaekit.objectives.moments import DIPVAE, IMQ, RBF, InfoVAE, MMDKernel, mmd
from vaekit.objectives.paths import STL, DReG
from vaekit.objectives.rates import Beta, Capacity, FreeBits, Penalty
from vaekit.objectives.reconstruction import Reconstruction
from vaekit.objectives.relaxed import Relaxed, StraightThrough
from vaekit.objectives.schedules import Constant, Cosine, Cyclical, Exponential, Linear, Schedule, Stages, as_schedule
from vaekit.objectives.score import NVIL, REINFORCE, VIMCO, Baseline, LeaveOneOut, RunningMean
from vaekit.objectives.tc import BetaTC, FactorVAE
from vaekit.objectives.vq import VQ
from vaekit.objectives.wake import RWS, WakeSleep

__all__ = [
    "DIPVAE",
    "ELBO",
    "IMQ",
    "IWAE",
    "MCEM",
    "NVIL",
    "RBF",
    "REINFORCE",
    "RWS",
    "STL",
    "VIMCO",
    "VQ",
    "Baseline",
    "Beta",
    "BetaTC",
    "Capacity",
    "Constant",
    "Cosine",
    "Cyclical",
    "DReG",
    "Exponential",
    "FactorVAE",
    "FreeBits",
    "InfoVAE",
    "LeaveOneOut",
    "Linear",
    "Loss",
    "MMDKernel",
    "Objective",
    "Penalty",
    "Reconstruction",
    "Relaxed",
    "RunningMean",
    "Schedule",
    "Stages",
    "StraightThrough",
    "WakeSleep",
    "as_schedule",
    "mmd",
    "terms",
]
