"""What is picked at each level of a model: latents, with the densities that score them, from q, from p or as told. How a model asks for
them is told in `vaekit.models.core`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Size, Tensor
from torch.distributions import Distribution

from vaekit import noise
from vaekit.dist import centre, describe, draw, has_density, is_discrete, tempered
from vaekit.errors import InputError

__all__ = ["Level", "Pick", "at_centre", "from_p", "from_q", "given", "prefix"]


@dataclass(frozen=True)
class Level:
    """One latent: its value ``z [K, B, *]``, its conditional prior p and posterior q (None where there is no x), and both log-densities,
    ``log_p`` and ``log_q`` ``[K, B]`` nats (``log_q`` None too where q is a point mass, which has none)."""

    z: Tensor
    p: Distribution
    q: Distribution | None
    log_p: Tensor
    log_q: Tensor | None

    @property
    def informed(self) -> bool:
        """Whether z tells of x. Where q is p itself it is drawn anew, as missing values are: no code of x, and of rate 0."""
        return self.q is not self.p


Pick = Callable[[int, Distribution | None, Distribution], Level]
"""(level number from 0 at the top, q or None, p) -> the chosen Level."""


def from_q(k: int, *, reparam: bool = True) -> Pick:
    """K = ``k`` samples z ~ q(z | x), ``[K, B, *]``. ``reparam=False`` detaches them, for estimators that differentiate log q instead.

    Raises:
        InputError: ``k`` below 1; at a level without q, as there is no x.
    """
    if k < 1:
        raise InputError(f"{k} samples were asked for; at least 1 is needed")

    def pick(level: int, q: Distribution | None, p: Distribution) -> Level:
        if q is None:
            raise InputError("a sample from q(z | x) needs a batch x; sample from the prior with from_p instead")
        _check_pair(level, q, p)
        shape = _missing(q, (k, q.batch_shape[-1]))
        if not has_density(q):
            with noise.along(1):
                z = q.rsample(shape) if reparam else q.sample(shape)
            return Level(z, p, q, p.log_prob(z), None)
        with noise.along(1):
            z, log_q = draw(q, shape, reparam)
        return Level(z, p, q, p.log_prob(z), log_q)

    return pick


def from_p(k: int, n: int, *, temperature: float = 1.0) -> Pick:
    """``[k, n]`` ancestral samples z ~ p(z), their noise scaled by ``temperature``; log p(z) is that of the model at temperature 1.

    A level that is no code of x (see `Level.informed`) is drawn as it is: the temperature is that of the codes.

    Raises:
        InputError: a temperature that is negative or not finite.
    """
    if not 0 <= temperature < math.inf:
        raise InputError(f"temperature {temperature}: it must be 0 or more and finite; 1 is the model's own, 0 leaves out the noise")

    def pick(level: int, q: Distribution | None, p: Distribution) -> Level:
        with noise.along(1):
            z, _ = draw(p if q is p else tempered(p, temperature), _missing(p, (k, n)), False)
        return _scored(level, z, q, p)

    return pick


def given(z: Tensor | Sequence[Tensor]) -> Pick:
    """The latents as told, ``[K, B, *]`` each, from the top level down; a flat model takes one tensor.

    Raises:
        InputError: in the pass: fewer latents than levels, or of another shape.
    """
    zs = (z,) if isinstance(z, Tensor) else tuple(z)

    def pick(level: int, q: Distribution | None, p: Distribution) -> Level:
        if level >= len(zs):
            raise InputError(
                f"{len(zs)} level(s) of latents were given and the model asks for level {level}; use prefix() for the top levels"
            )
        z, event = zs[level], p.event_shape
        if z.dim() != 2 + len(event) or z.shape[2:] != event:
            raise InputError(
                f"level {level}: the latents given have shape {list(z.shape)}; they must be [K, B, {', '.join(map(str, event))}]"
            )
        return _scored(level, z, q, p)

    return pick


def prefix(z: Tensor | Sequence[Tensor], rest: Pick) -> Pick:
    """The first levels as told by ``z``, ``[K, B, *]`` of each, the remaining ones by ``rest``."""
    zs = (z,) if isinstance(z, Tensor) else tuple(z)
    first = given(zs)
    return lambda level, q, p: (first if level < len(zs) else rest)(level, q, p)


def at_centre() -> Pick:
    """Every latent at the centre of its posterior, K = 1: for embeddings and reconstructions. A score at this point is no bound."""

    def pick(level: int, q: Distribution | None, p: Distribution) -> Level:
        d = p if q is None else q
        z = centre(d)
        return _scored(level, z.reshape((1,) * (2 - len(d.batch_shape)) + z.shape), q, p)

    return pick


def _missing(d: Distribution, shape: tuple[int, int]) -> Size:
    """The leading part of [K, B] that the batch shape of d still lacks: [K, B] for (), [K] for (B,), nothing for (K, B)."""
    return Size(shape[: 2 - len(d.batch_shape)])


def _check_pair(level: int, q: Distribution | None, p: Distribution) -> None:
    """Tensors of other shapes would broadcast, and the numbers be wrong without a word. Shapes are static: a compiled step pays nothing."""
    if q is not None and q.event_shape != p.event_shape:
        raise InputError(
            f"level {level}: q(z | x) = {describe(q)} has events {list(q.event_shape)}, p(z) = {describe(p)} has {list(p.event_shape)}: "
            "give both one size, and wrap what counts as one event into Independent(..., 1)"
        )
    if q is not None and is_discrete(q) != is_discrete(p):
        raise InputError(
            f"level {level}: of q(z | x) = {describe(q)} and p(z) = {describe(p)} one has a density and the other probabilities, which "
            "cannot be compared: give both the same kind of latent"
        )
    for d in (p,) if q is None else (p, q):
        if len(d.batch_shape) > 2:
            raise InputError(
                f"level {level}: {describe(d)} has batch shape {list(d.batch_shape)}, which is more than [K, B]: wrap it into Independent"
            )


def _scored(level: int, z: Tensor, q: Distribution | None, p: Distribution) -> Level:
    _check_pair(level, q, p)
    return Level(z, p, q, p.log_prob(z), None if q is None or not has_density(q) else q.log_prob(z))
