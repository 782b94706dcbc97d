"""Latent variable models. Read `vaekit.models.core` first."""

from vaekit.models.core import LatentModel, Level, Pick, Trace, at_centre, from_p, from_q, given, prefix
from vaekit.models.ladder import Ladder, Rung
from vaekit.models.vae import VAE

__all__ = ["VAE", "Ladder", "LatentModel", "Level", "Pick", "Rung", "Trace", "at_centre", "from_p", "from_q", "given", "prefix"]
