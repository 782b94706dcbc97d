"""Quantisers, and priors over their codes. A VQ-VAE is the ordinary `VAE`:

    quantiser = Codebook(512, 64)
    VAE(UniformCodes(quantiser, (8, 8)), Conditional(encoder, heads.Quantised(quantiser, (8, 8)), event_dim=3), likelihood)

trained by `objectives.VQ`. See `vaekit.quantise.core`.
"""

from vaekit.quantise.codebook import Codebook
from vaekit.quantise.core import Quantisation, Quantiser, nearest
from vaekit.quantise.fsq import FSQ
from vaekit.quantise.priors import AutoregressiveCodes, CodePrior, UniformCodes

__all__ = ["Quantiser", "Quantisation", "Codebook", "FSQ", "nearest", "CodePrior", "UniformCodes", "AutoregressiveCodes"]
