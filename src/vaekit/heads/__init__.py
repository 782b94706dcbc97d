"""From a network's numbers to a distribution. See `vaekit.heads.core`."""

from vaekit.heads.core import Head
from vaekit.heads.gaussian import Gaussian

__all__ = ["Gaussian", "Head"]
