"""Variational autoencoders: three conditional distributions, p(z), q(z|x) and p(x|z), and one bound.

``import vaekit`` loads nothing: each public name is imported from its module when it is first used (PEP 562), so
that the command line answers at once and a script pays for what it touches.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import bounds, commands, data, dist, evaluate, heads, infer, models, nn, objectives, priors, quantise, recipes, train, viz  # noqa: F401
    from .conditional import Conditional
    from .errors import InputError, NonFiniteError
    from .models.core import LatentModel, Trace
    from .models.ladder import Ladder, Rung
    from .models.picks import Level, from_p, from_q, given, prefix
    from .models.vae import VAE
    from .objectives.core import Loss, Objective
    from .objectives.elbo import ELBO
    from .objectives.importance import IWAE
    from .recipes.core import Recipe
    from .train import Training, fit
    from .types import Batch

__version__ = "0.1.0.dev0"

__all__ = [
    "Batch",
    "Conditional",
    "LatentModel",
    "Trace",
    "Level",
    "from_q",
    "from_p",
    "given",
    "prefix",
    "VAE",
    "Ladder",
    "Rung",
    "Objective",
    "Loss",
    "ELBO",
    "IWAE",
    "fit",
    "Training",
    "InputError",
    "NonFiniteError",
    "Recipe",
]

# Not in __all__: "from vaekit import *" must not hide torch's nn behind ours.
_MODULES = (
    "bounds",
    "commands",
    "data",
    "dist",
    "evaluate",
    "heads",
    "infer",
    "models",
    "nn",
    "objectives",
    "priors",
    "quantise",
    "recipes",
    "train",
    "viz",
)

# Public name -> the module that defines it.
_HOME = {
    "Batch": "types",
    "Conditional": "conditional",
    "LatentModel": "models.core",
    "Trace": "models.core",
    "Level": "models.picks",
    "from_q": "models.picks",
    "from_p": "models.picks",
    "given": "models.picks",
    "prefix": "models.picks",
    "VAE": "models.vae",
    "Ladder": "models.ladder",
    "Rung": "models.ladder",
    "Objective": "objectives.core",
    "Loss": "objectives.core",
    "ELBO": "objectives.elbo",
    "IWAE": "objectives.importance",
    "fit": "train",
    "Training": "train",
    "InputError": "errors",
    "NonFiniteError": "errors",
    "Recipe": "recipes.core",
}


def __getattr__(name: str) -> object:
    if name in _HOME:
        value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
        globals()[name] = value  # the next use does not come here
        return value
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
