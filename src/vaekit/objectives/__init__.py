"""What training minimises and what it reports. See `vaekit.objectives.core`."""

from vaekit.objectives.core import Loss, Objective, terms
from vaekit.objectives.elbo import ELBO
from vaekit.objectives.importance import IWAE
from vaekit.objectives.rates import Beta, Capacity, FreeBits, Penalty
from vaekit.objectives.schedules import Constant, Cosine, Cyclical, Linear, Schedule, Stages, as_schedule

__all__ = [
    "ELBO",
    "IWAE",
    "Beta",
    "Capacity",
    "Constant",
    "Cosine",
    "Cyclical",
    "FreeBits",
    "Linear",
    "Loss",
    "Objective",
    "Penalty",
    "Schedule",
    "Stages",
    "as_schedule",
    "terms",
]
