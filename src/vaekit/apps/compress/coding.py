"""Examples onto a stack and back: the model's loop with the stack as the pick. Levels int64 ``[S, F]``, S rows of which some count."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import torch
from torch import Size, Tensor
from torch.distributions import Distribution

from vaekit.apps.compress.codes import Code, code
from vaekit.apps.compress.stack import Stack, Words
from vaekit.apps.compress.symbols import Numbering
from vaekit.dist.core import describe, is_discrete
from vaekit.errors import InputError
from vaekit.models.core import LatentModel
from vaekit.models.picks import Level, Pick, _scored
from vaekit.types import Batch

__all__ = ["Coder", "random_words"]


class Coder:
    """Bits-back coding with one model, S rows at a time.

    Args:
        model: in evaluation mode, on the processor; under ``no_grad``.
        size: S.
        dtype: of the networks' input.

    Raises:
        InputError: p(x | z) is not discrete, or a distribution has no code.
    """

    def __init__(self, model: LatentModel, size: int, dtype: torch.dtype) -> None:
        self.model, self.size, self.dtype = model, size, dtype
        self.latents = 0

        def counted(p: Code) -> Tensor:
            self.latents += p.size[1]
            return _fixed(p)

        _, px = self._unroll(self._chosen(counted), None)
        if not is_discrete(px):
            raise InputError(
                f"p(x | z) = {describe(px)} has a density, and continuous data cannot be coded without loss: round them to levels and "
                "train with heads.DiscretisedLogistic, heads.Bernoulli or heads.Categorical"
            )
        self.event_shape = px.event_shape
        self.numbering = self._code(px).numbering

    def push(self, stack: Stack, levels: Tensor, rows: int, number: int) -> int:
        """Code rows, levels int64 ``[S, F]``, onto the stack; the bits that their latents took from it. ``number`` is that of the group."""
        stack.scramble(rows * self.latents, number)
        before = stack.bits
        found, px = self._popped(stack, levels, rows)
        taken = before - stack.bits
        stack.push(self._code(px), levels, rows)
        for p, z in reversed(found):
            stack.push(p, z, rows)
        return taken

    def pop(self, stack: Stack, rows: int, number: int) -> Tensor:
        """The rows, levels int64 ``[S, F]``, that `push` put there last under the same ``number``; the stack is as it was before."""
        latents: list[Tensor] = []

        def pop(p: Code) -> Tensor:
            latents.append(stack.pop(p, rows))
            return latents[-1]

        _, px = self._unroll(self._chosen(pop), None)
        levels = stack.pop(self._code(px), rows)
        posteriors: list[Code] = []

        def told(q: Code) -> Tensor:
            posteriors.append(q)
            return latents[len(posteriors) - 1]

        self._unroll(self._inferred(told), self._batch(levels))
        for q, z in zip(reversed(posteriors), reversed(latents), strict=True):
            stack.push(q, z, rows)
        stack.scramble(rows * self.latents, number)
        return levels

    def needed(self, levels: Tensor) -> int:
        """Words that the latents of the first row of levels ``[S, F]`` take from a stack."""
        stack = Stack(random_words(1 << 16))
        self._popped(stack, levels, 1)
        return (1 << 16) - len(stack.words) + 3

    def probe(self) -> str:
        """A checksum of the masses that the model gives to fixed latents and data: of all arithmetic on which decoding depends."""
        seen = hashlib.sha256()

        def noted(found: Code) -> Tensor:
            return _fixed(found, seen.update)

        _, px = self._unroll(self._chosen(noted), None)
        self._unroll(self._inferred(noted), self._batch(noted(self._code(px))))
        return seen.hexdigest()

    def _popped(self, stack: Stack, levels: Tensor, rows: int) -> tuple[list[tuple[Code, Tensor]], Distribution]:
        """z ~ q(z | x) from the stack: the codes of p and the latents, and p(x | z)."""
        found: list[tuple[Code, Tensor]] = []

        def pop(q: Code) -> Tensor:
            return stack.pop(q, rows)

        _, px = self._unroll(self._inferred(pop, found), self._batch(levels))
        return found, px

    def _unroll(self, pick: Pick, batch: Batch | None) -> tuple[tuple[Level, ...], Distribution]:
        t = self.model.trace(pick, batch)
        return t.levels, t.px

    def _batch(self, levels: Tensor) -> Batch:
        return Batch(self.numbering.values(levels).to(self.dtype))

    def _chosen(self, choose: Callable[[Code], Tensor]) -> Pick:
        """Latents whose levels are chosen by their p(z_l | z_<l)."""

        def pick(level: int, q: Distribution | None, p: Distribution) -> Level:
            found = self._code(p)
            return self._level(found.numbering, choose(found), q, p)

        return pick

    def _inferred(self, choose: Callable[[Code], Tensor], kept: list[tuple[Code, Tensor]] | None = None) -> Pick:
        """Latents whose levels are chosen by their q(z_l | z_<l, x); the codes of p and the levels are ``kept``."""

        def pick(level: int, q: Distribution | None, p: Distribution) -> Level:
            if q is None:
                raise InputError(f"level {level} of this model has no q(z | x), so it cannot be coded")
            prior = self._code(p)
            levels = choose(self._code(q, prior.numbering))
            if kept is not None:
                kept.append((prior, levels))
            return self._level(prior.numbering, levels, q, p)

        return pick

    def _level(self, numbering: Numbering, levels: Tensor, q: Distribution | None, p: Distribution) -> Level:
        return _scored(0, numbering.values(levels).to(self.dtype).unsqueeze(0), q, p)

    def _code(self, d: Distribution, numbering: Numbering | None = None) -> Code:
        try:
            d = d.expand(Size((1, self.size)))
        except NotImplementedError:
            return code.dispatch(Distribution)(d, numbering)  # which says that it cannot
        return code(d, numbering)


def random_words(n: int) -> Words:
    """n words of numpy's frozen generator, none of them 0."""
    return np.random.RandomState(0).randint(1, 2**32, n, dtype=np.uint32)


def _fixed(found: Code, look: Callable[[bytes], None] = lambda masses: None) -> Tensor:
    """Levels ``[S, F]`` that are always the same, from all values of each symbol alike; ``look`` at the masses on the way."""
    noise = torch.from_numpy(np.random.RandomState(0).randint(0, 2**31, found.size, dtype=np.int64))
    levels = torch.zeros_like(noise)
    for columns, alphabet_of in found.steps:
        alphabet = alphabet_of(levels)
        levels[:, columns] = noise[:, columns] % alphabet.levels
        digits = alphabet.split(levels[:, columns])
        for i in range(alphabet.digits):
            look(alphabet.masses(digits[:i]).contiguous().numpy().tobytes())
    return levels
