r"""A latent variable model, and the record of one pass through it. Read this first.

Notation: x data, z = (z_1 ... z_L) latents from the top down, K samples, B examples; every log-density is ``[K, B]`` nats.

.. math:: p(x, z) = p(x | z) \prod_l p(z_l | z_{<l}), \qquad q(z | x) = \prod_l q(z_l | z_{<l}, x), \qquad
          \log w = \log p(x, z) - \log q(z | x)

A model never samples by itself. It walks down its levels and asks a *pick* (`vaekit.models.picks`) for each latent, so that inference,
generation, scoring of given latents and everything built on them are one loop with another pick:

    ``from_q(k)``          z_l ~ q(z_l | z_<l, x)              inference
    ``from_p(k, n)``       z_l ~ p(z_l | z_<l)                 generation
    ``given(z)``           z_l as told                         scoring
    ``prefix(z, rest)``    the first levels as told, the others by another pick
    ``at_centre()``        z_l at the centre of q (of p where there is no x)
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaekit import noise
from vaekit.dist import centre, closed_form_kl, describe, log_prob_observed
from vaekit.errors import InputError
from vaekit.models.picks import Level, Pick, at_centre, from_p, from_q, given
from vaekit.tensors import evaluating
from vaekit.text import notebook_table
from vaekit.types import Batch

__all__ = ["LatentModel", "Trace", "require_kl"]


@dataclass(frozen=True)
class Trace:
    """One pass through a model: what was picked at every level, and p(x | z). Everything else is derived, anew at each access.

    Attributes:
        batch: the data, None where the pass was a generation.
        levels: from the top down.
        px: p(x | z), batch shape ``[K, B]``.
    """

    batch: Batch | None
    levels: tuple[Level, ...]
    px: Distribution

    @property
    def z(self) -> tuple[Tensor, ...]:
        """The latents, ``[K, B, *]`` each."""
        return tuple(level.z for level in self.levels)

    @property
    def log_px(self) -> Tensor:
        """log p(x | z) of the observed entries, ``[K, B]`` nats."""
        batch = self._observed()
        return log_prob_observed(self.px, batch.x, batch.mask)

    @property
    def log_pz(self) -> Tensor:
        """log p(z), ``[K, B]`` nats."""
        return torch.stack([level.log_p for level in self.levels]).sum(0)

    @property
    def log_qz(self) -> Tensor:
        """log q(z | x), ``[K, B]`` nats."""
        return torch.stack([self._log_q(level) for level in self.levels]).sum(0)

    @property
    def log_joint(self) -> Tensor:
        """log p(x, z), ``[K, B]`` nats."""
        return self.log_px + self.log_pz

    @property
    def log_w(self) -> Tensor:
        """log p(x, z) - log q(z | x), ``[K, B]`` nats: the log importance weight."""
        return self.log_joint - self.log_qz

    @property
    def rate(self) -> Tensor:
        """log q(z_l | z_<l, x) - log p(z_l | z_<l) of each informed level, ``[K, B, L]`` nats: its mean over z is the level's KL."""
        return torch.stack([self._log_q(level) - level.log_p for level in self.levels if level.informed], -1)

    @property
    def kl(self) -> Tensor | None:
        """KL(q(z_l | z_<l, x) || p(z_l | z_<l)) in closed form, ``[K or 1, B, L]`` nats; None where some level has none."""
        kls = []
        for level in filter(lambda level: level.informed, self.levels):
            self._log_q(level)
            kl = closed_form_kl(level.q, level.p) if level.q is not None else None
            if kl is None:
                return None
            kls.append(kl if kl.dim() == 2 else kl.unsqueeze(0))
        return torch.stack(torch.broadcast_tensors(*kls), -1)

    def _observed(self) -> Batch:
        if self.batch is None:
            raise InputError("this pass has no data to score: it generated x; use score(batch, z) or dream(n)")
        return self.batch

    def _log_q(self, level: Level) -> Tensor:
        if level.q is not None and level.log_q is None:
            raise InputError(
                f"q(z | x) = {describe(level.q)} has no density, so there are no log q(z | x), no KL and no bound: "
                "train it with Reconstruction(), or take a posterior that has one, such as heads.Gaussian"
            )
        if level.log_q is None:
            raise InputError("this pass has no posterior q(z | x), because it was made without a batch x")
        return level.log_q


class LatentModel(nn.Module, abc.ABC):
    """p(x, z) and q(z | x) as one loop over levels. Implementing a model: write `unroll`; everything below it is final.

    Implementing a LatentModel:
        1. ``unroll(pick, batch)`` walks the levels from the top: build p(z_l | z_<l) and, where there is a batch, q(z_l | z_<l, x) from
           a view of it (`vaekit.models.view`); call ``level = pick(l, q, p)`` and go on with ``level.z``.
        2. At the top p may have batch shape () and q ``[B]``; below, both follow z's ``[K, B]``.
        3. ``context_of(size, batch, context)`` is the c that p is conditioned on, of the batch or, in generation, ``context``.
        4. Return the levels and p(x | z). Never sample, never score.
    """

    @abc.abstractmethod
    def unroll(self, pick: Pick, batch: Batch | None = None, context: Tensor | None = None) -> tuple[tuple[Level, ...], Distribution]:
        """The levels as picked, from the top down, and p(x | z); ``context`` ``[B, C]`` only where there is no batch to carry it."""

    def trace(self, pick: Pick, batch: Batch | None = None, context: Tensor | None = None) -> Trace:
        """`unroll`, kept with its batch.

        Raises:
            InputError: the latents or densities are not ``[K, B]``; a context that the model does not take, or one that it lacks.
        """
        if batch is not None and not isinstance(batch, Batch):
            raise InputError(f"a model takes a Batch, not a {type(batch).__name__}: write Batch(x)")
        levels, px = self.unroll(pick, batch, context)
        for number, level in enumerate(levels):
            shape = level.z.shape[:2] if batch is None else (level.z.shape[0], batch.size)
            if not level.z.shape[:2] == level.log_p.shape == shape or (level.log_q is not None and level.log_q.shape != shape):
                raise InputError(
                    f"level {number}: z {list(level.z.shape)} must begin with [K, B] and its log-density {list(level.log_p.shape)} be "
                    f"[K, B] = {list(shape)}: wrap what counts as one event into Independent(..., 1)"
                )
        return Trace(batch, levels, px)

    def infer(self, batch: Batch, k: int = 1, *, reparam: bool = True) -> Trace:
        """z ~ q(z | x), K = ``k`` samples each: ``[K, B, *]`` per level. With ``reparam=False`` without a gradient through z (see
        `from_q`).

        Raises:
            InputError: ``k`` below 1; q and p of one level with different events, or one with a density and the other with probabilities.
        """
        return self.trace(from_q(k, reparam=reparam), batch)

    def score(self, batch: Batch, z: Tensor | Sequence[Tensor]) -> Trace:
        """The trace of given latents, ``[K, B, *]`` per level.

        Raises:
            InputError: another number of levels than the model has, or of another shape.
        """
        t = self.trace(given(z), batch)
        if not isinstance(z, Tensor) and len(z) != len(t.levels):
            raise InputError(f"{len(z)} levels of latents were given and the model has {len(t.levels)}")
        return t

    def log_joint(self, batch: Batch, z: Tensor | Sequence[Tensor]) -> Tensor:
        """log p(x, z), ``[K, B]`` nats, of given latents, ``[K, B, *]`` per level."""
        return self.score(batch, z).log_joint

    def dream(self, n: int, *, context: Tensor | None = None) -> Trace:
        """n pairs z, x ~ p(x, z) (no gradient through either), with q(z | x) scored at z: z ``[1, n, *]`` of each level, x ``[n, *]``.
        ``context`` as in `sample`.

        Raises:
            InputError: ``context`` for another number of examples.
        """
        c = _contexts(context, n)
        with torch.no_grad():
            made = self.trace(from_p(1, n), context=c)
            with noise.along(1):
                x = made.px.sample()[0]
        return self.score(Batch(x, c), made.z)

    def sample(self, n: int, *, temperature: float = 1.0, mean: bool = True, context: Tensor | None = None) -> Tensor:
        """n new examples, ``[n, *]``: z ~ p(z) with its noise scaled by ``temperature``, then the centre of p(x | z), as papers show it, or
        with ``mean=False`` x ~ p(x | z).

        A model p(x, z | c) needs ``context`` ``[n, C]``, or ``[C]`` for all n.

        Raises:
            InputError: ``n`` below 1; a temperature that is negative or not finite; a context that the model needs and is not given, or
                of another size.
        """
        if n < 1:
            raise InputError(f"{n} samples were asked for; at least 1 is needed")
        with torch.no_grad():
            px = self.trace(from_p(1, n, temperature=temperature), context=_contexts(context, n)).px
            return (centre(px) if mean else px.sample())[0]

    def reconstruct(self, batch: Batch, *, mean: bool = True) -> Tensor:
        """The centre of p(x | z) at the centre of q(z | x), ``[B, *]``; with ``mean=False`` x ~ p(x | z), z ~ q(z | x)."""
        with torch.no_grad():
            px = self.trace(at_centre() if mean else from_q(1, reparam=False), batch).px
            return (centre(px) if mean else px.sample())[0]

    def embed(self, batch: Batch) -> Tensor:
        """The centre of q(z | x), the levels' dimensions flattened and joined from the top down, ``[B, D]``."""
        with torch.no_grad():
            levels = self.trace(at_centre(), batch).levels
            return torch.cat([level.z[0].flatten(1) for level in levels if level.informed], -1)

    def extra_repr(self) -> str:
        return f"parameters={_size(self):,}"

    def _repr_html_(self) -> str:
        """For a notebook: the parts, their shapes and parameters."""
        rows = [
            [name, " → ".join(type(m).__name__ for m in (part, *part.children())), f"{_size(part):,}"]
            for name, part in self.named_children()
        ]
        return notebook_table(
            f"{type(self).__name__}, {_size(self):,} parameters{_shapes(self)}", rows, headers=["part", "made of", "parameters"]
        )


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _shapes(model: LatentModel) -> str:
    """Of z and x, where the model can be run without a context."""
    try:
        with evaluating(model), torch.no_grad(), torch.random.fork_rng(devices=[]):
            t = model.trace(from_p(1, 1))
    except InputError:
        return ""
    z = ", ".join(str(list(level.p.event_shape)) for level in t.levels)
    return f": z {z}, x {list(t.px.event_shape)}"


def _contexts(context: Tensor | None, n: int) -> Tensor | None:
    """One context for each of n examples: ``[n, C]`` from itself, ``[1, C]`` or ``[C]``."""
    if context is None:
        return None
    c = context.unsqueeze(0) if context.dim() == 1 else context
    if c.dim() == 2 and c.shape[0] == 1:
        return c.expand(n, -1)
    if c.shape[:1] != (n,):
        raise InputError(f"{n} examples were asked for with a context {list(context.shape)}: give [{n}, C], or [C] for all of them")
    return c


def require_kl(trace: Trace) -> Tensor:
    """``trace.kl`` ``[K or 1, B, L]``, nats.

    Raises:
        InputError: a pair of q and p without a closed form, which is named; a pass without a posterior.
    """
    kl = trace.kl
    if kl is None:
        for n, level in enumerate(trace.levels):
            if level.q is not None and closed_form_kl(level.q, level.p) is None:
                raise InputError(
                    f"level {n}: KL({describe(level.q)} || {describe(level.p)}) has no closed form; use the sampled KL (closed_form=False)"
                )
        raise InputError("this pass has no posterior q(z | x), because it was made without a batch x")
    return kl
