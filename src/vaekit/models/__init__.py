"""Latent variable models. Read `vaekit.models.core` first."""

from vaekit.models.codes import code_model
from vaekit.models.core import LatentModel, Level, Pick, Trace, at_centre, from_p, from_q, given, prefix
from vaekit.models.ladder import Ladder, Rung
from vaekit.models.relaxed import from_relaxed, from_straight_through
from vaekit.models.vae import VAE

__all__ = [
    "VAE",
    "Ladder",
    "LatentModel",
    "Level",
    "Pick",
    "Rung",
    "Trace",
    "at_centre",
    "code_model",
    "from_p",
    "from_q",
    "from_relaxed",
    "from_straight_through",
    "given",
    "prefix",
]
