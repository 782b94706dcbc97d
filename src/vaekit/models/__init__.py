"""Latent variable models. Read `vaekit.models.core` first."""

from vaekit.models.codes import code_model
from vaekit.models.core import LatentModel, Trace
from vaekit.models.ladder import Ladder, Rung
from vaekit.models.missing import NotAtRandom
from vaekit.models.picks import Level, Pick, at_centre, from_p, from_q, given, prefix
from vaekit.models.relaxed import from_relaxed, from_straight_through
from vaekit.models.vae import VAE
from vaekit.models.view import View, plain_input, with_context, with_mask, with_mask_and_context

__all__ = [
    "LatentModel",
    "Trace",
    "Level",
    "Pick",
    "from_q",
    "from_p",
    "given",
    "prefix",
    "at_centre",
    "from_relaxed",
    "from_straight_through",
    "VAE",
    "Ladder",
    "Rung",
    "NotAtRandom",
    "View",
    "plain_input",
    "with_mask",
    "with_context",
    "with_mask_and_context",
    "code_model",
]
