r"""A hierarchy of latents, inferred and generated from the top down.

.. math:: p(x, z) = p(x | h_L) \prod_l p(z_l | h_{l-1}), \quad q(z | x) = \prod_l q(z_l | h_{l-1}, d_l(x)), \; h_l = merge_l(h_{l-1}, z_l)

d_l are features of x from a bottom-up pass, h_l the state that a level hands down. With the default merge h_l = z_l the hierarchy is
a Markov chain; a merge that concatenates gives skip connections, one that adds a residual state.

q sees the state from above and features from below, joined by a network; Sonderby et al. combine the two Gaussians by their precisions.

Sonderby et al., "Ladder Variational Autoencoders", NeurIPS 2016; Kingma et al., "Improved Variational Inference with Inverse
Autoregressive Flow", NeurIPS 2016; Child, "Very Deep VAEs", ICLR 2021.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaekit.errors import InputError
from vaekit.models.core import LatentModel
from vaekit.models.picks import Level, Pick
from vaekit.models.view import View, check_context, context_of, joined, plain_input
from vaekit.types import Batch

__all__ = ["Ladder", "Rung", "replace"]


def replace(h: Tensor | None, z: Tensor) -> Tensor:
    """h' = z ``[K, B, D]``: the next level sees this level's latent alone (a Markov chain)."""
    return z


class Rung(nn.Module):
    """One level: p(z | h), q(z | h, d) and the state that it hands down, h' = merge(h, z).

    Args:
        prior: at the top ``() -> p(z)``; below ``h [K, B, H] -> p(z | h)``.
        posterior: at the top ``d [B, F] -> q(z | d)``; below ``[h, d] [K, B, H + F] -> q(z | h, d)``.
        merge: ``(h or None, z) -> h'``; default: h' = z.
    """

    def __init__(self, prior: nn.Module, posterior: nn.Module, merge: nn.Module | None = None) -> None:
        super().__init__()
        self.prior = prior
        self.posterior = posterior
        self.merge = replace if merge is None else merge


class Ladder(LatentModel):
    """L levels; a flat `VAE` is a ladder with one.

    Args:
        bottom_up: L modules from the data upwards: the first sees x, each further one the features below it; vectors ``[B, F]``.
        rungs: L rungs from the top down; rung l gets the features of ``bottom_up[L - 1 - l]``.
        likelihood: ``h_L [K, B, H] -> p(x | z)``; with a context it sees (h_L, c).
        view: what the first bottom-up module sees of a batch: `plain_input`, `with_mask`, `with_context`, ...
        context: C, the numbers per example of the context c; 0 for a model without.
        conditional_prior: whether the rungs' priors are conditioned on c too: ``c -> p(z)`` at the top, ``(h, c) -> p(z | h)`` below.

    Raises:
        InputError: no level, or the numbers of bottom-up modules and rungs differ; a negative size of the context, or a conditional prior
            without a context.

    >>> from vaekit import Conditional, heads, priors
    >>> def gaussian(n, d):
    ...     return Conditional(nn.Linear(n, 2 * d), heads.Gaussian(d))
    >>> _ = torch.manual_seed(0)
    >>> ladder = Ladder(
    ...     bottom_up=[nn.Linear(6, 8), nn.Linear(8, 8)],
    ...     rungs=[Rung(priors.StandardNormal(2), gaussian(8, 2)), Rung(gaussian(2, 3), gaussian(2 + 8, 3))],
    ...     likelihood=Conditional(nn.Linear(3, 6), heads.Bernoulli(6)),
    ... )
    >>> [tuple(z.shape) for z in ladder.infer(Batch(torch.ones(4, 6)), k=5).z]
    [(5, 4, 2), (5, 4, 3)]
    """

    def __init__(
        self,
        bottom_up: Sequence[nn.Module],
        rungs: Sequence[Rung],
        likelihood: nn.Module,
        *,
        view: View = plain_input,
        context: int = 0,
        conditional_prior: bool = False,
    ) -> None:
        super().__init__()
        self.view, self.context, self.conditional_prior = view, check_context("Ladder", context, conditional_prior), conditional_prior
        if not rungs or len(bottom_up) != len(rungs):
            raise InputError(f"a ladder needs as many bottom-up modules as rungs, at least one: got {len(bottom_up)} and {len(rungs)}")
        self.bottom_up = nn.ModuleList(bottom_up)
        self.rungs = nn.ModuleList(rungs)
        self.likelihood = likelihood

    def unroll(self, pick: Pick, batch: Batch | None = None, context: Tensor | None = None) -> tuple[tuple[Level, ...], Distribution]:
        c = context_of(self.context, batch, context)
        seen = c if self.conditional_prior else None
        features = [] if batch is None else self._features(self.view(batch))
        levels: list[Level] = []
        h: Tensor | None = None
        for number, rung in enumerate(cast("Iterable[Rung]", self.rungs)):
            above = h if seen is None else seen if h is None else joined(h, seen, 2)
            p = rung.prior() if above is None else rung.prior(above)
            q = None if batch is None else rung.posterior(_join(h, features[number]))
            level = pick(number, q, p)
            levels.append(level)
            h = rung.merge(h, level.z)
        return tuple(levels), self.likelihood(h if c is None or h is None else joined(h, c, 2))

    def _features(self, x: Tensor) -> list[Tensor]:
        """Bottom-up features, the top level's first."""
        features = []
        for module in self.bottom_up:
            x = module(x)
            features.append(x)
        return features[::-1]


def _join(h: Tensor | None, d: Tensor) -> Tensor:
    return d if h is None else torch.cat([h, d.expand(*h.shape[:-1], d.shape[-1])], -1)
