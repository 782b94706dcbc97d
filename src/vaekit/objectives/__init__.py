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
    "Objective",
    "Loss",
    "terms",
    "ELBO",
    "IWAE",
    "STL",
    "DReG",
    "RWS",
    "WakeSleep",
    "MCEM",
    "REINFORCE",
    "VIMCO",
    "NVIL",
    "Baseline",
    "LeaveOneOut",
    "RunningMean",
    "Relaxed",
    "StraightThrough",
    "VQ",
    "Reconstruction",
    "BetaTC",
    "FactorVAE",
    "DIPVAE",
    "InfoVAE",
    "MMDKernel",
    "RBF",
    "IMQ",
    "mmd",
    "Penalty",
    "Beta",
    "FreeBits",
    "Capacity",
    "Schedule",
    "as_schedule",
    "Constant",
    "Linear",
    "Cosine",
    "Exponential",
    "Cyclical",
    "Stages",
]
