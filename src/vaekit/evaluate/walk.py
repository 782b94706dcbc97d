"""One walk down a model's levels for every batch of a data set, and what is kept of it for `diagnose`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Size, Tensor
from torch.distributions import Distribution

from vaekit.bounds import Weights
from vaekit.data.core import Split
from vaekit.dist import Certain, DiagGaussian, Quantised, centre, describe, draw, gaussian_kl_parts, has_density
from vaekit.errors import InputError
from vaekit.evaluate.aggregate import Aggregate, aggregate
from vaekit.evaluate.calibration import Intervals
from vaekit.evaluate.codes import Usage, usage
from vaekit.evaluate.faults import broken, seen_in
from vaekit.evaluate.latent import Latents
from vaekit.evaluate.likelihood import Evaluation, summary
from vaekit.evaluate.measure import Measure, measured
from vaekit.evaluate.passes import batches, device_of, dtype_of, observing
from vaekit.evaluate.residuals import Residuals
from vaekit.evaluate.stream import entries
from vaekit.models.core import LatentModel, Trace
from vaekit.models.picks import Level, Pick
from vaekit.train.collapse import offset
from vaekit.types import Batch

__all__ = ["Walk", "walk"]

PAIRS = 2000
"""Draws of z whose density under all posteriors is made, or N where that is more."""
SLOW = 1000
"""Examples, about, whose posteriors are compared with one another where a density is not as cheap as a diagonal Gaussian's."""


def walk(
    model: LatentModel, split: Split, *, samples: int, seed: int, batch_size: int, watch: Callable[[int, int], None] | None = None
) -> Walk:
    """The data set, walked.

    Raises:
        InputError: a posterior without a density.
        Broken: a term that is not finite.
    """
    found = Walk(samples, seed, max(1, min(samples, PAIRS // len(split))), -(-len(split) // SLOW))
    with observing(model, seed):
        for batch in batches(split, batch_size, device_of(model), dtype=dtype_of(model)):
            noise = torch.get_rng_state()
            try:
                levels, px = model.unroll(centre_first(samples), batch)
                fine = found.add(Trace(batch, levels, px), batch)
            except InputError:
                raise
            except ValueError as error:  # torch's distributions look at their arguments
                torch.set_rng_state(noise)
                raise broken(model, batch, samples, []) from error
            if not fine:
                torch.set_rng_state(noise)
                raise broken(model, batch, samples, seen_in(levels, px))
            if watch is not None:
                watch(found.examples, len(split))
    return found


def centre_first(k: int) -> Pick:
    """z of every level at the centre of q, followed by K samples of q: ``[1 + K, B, *]``. The first one's log q is not made: 0."""

    def pick(number: int, q: Distribution | None, p: Distribution) -> Level:
        if q is None or not has_density(q):
            raise InputError(
                "q(z | x) is a point and has no density, so this model has no rate and no bound to be diagnosed; it has a reconstruction "
                "error: see vaekit report, or vaekit.evaluate.reconstruction(model, split)"
            )
        first = centre(q)
        if len(q.batch_shape) == 1:
            rest, log_q = draw(q, Size([k]))
            first = first.unsqueeze(0)
        else:  # below the top, q depends on the state above: one of each row
            rest, log_q = draw(q, Size())
            rest, log_q, first = rest[1:], log_q[1:], first[:1]
        z = torch.cat([first.to(rest.dtype), rest])
        return Level(z, p, q, p.log_prob(z), torch.cat([torch.zeros_like(log_q[:1]), log_q]))

    return pick


class Walk:
    """What is kept: a few numbers an example, the posteriors of the top level, and running sums.

    Args:
        samples: K, of each example.
        seed: of the samples.
        kept: samples of the top level that are kept of each example.
        stride: posteriors that are neither diagonal Gaussians nor codes are kept of every so many batches.
    """

    def __init__(self, samples: int, seed: int, kept: int, stride: int) -> None:
        self.samples, self.seed, self.kept, self.stride = samples, seed, kept, stride
        self.examples = self.observed = 0
        self.measure: Measure | None = None
        self.likelihood = ""
        self.intervals = Intervals()
        self.values: list[Tensor] = []
        self.centres: list[Tensor] = []
        self.offsets: list[Tensor] = []
        self.kl: list[Tensor | None] = []  # sums over the examples so far, by level
        self.sizes: tuple[int, ...] = ()
        self.top: list[Level] = []
        self.count: dict[int, Tensor] = {}
        self.squares: Tensor | None = torch.zeros(4, dtype=torch.float64)

    def add(self, t: Trace, batch: Batch) -> bool:
        """The trace t of a batch, walked by `centre_first`; whether all of its terms are finite. Where they are not it is left out."""
        log_px, rate = t.log_px[1:], t.rate[1:]
        w = Weights.empty(batch.size, log_px.device).update(log_px - rate.sum(-1))
        terms = torch.cat([log_px.unsqueeze(-1), rate], -1).double().mean(0)
        values = torch.cat([torch.stack([w.elbo, w.iwae, w.ess], -1), terms], -1).cpu()
        if not bool(values.isfinite().all()):
            return False
        self.values.append(values)
        self.examples += batch.size
        self.observed += int(entries(t).sum())
        self.measure = self.measure if self.measure is Measure.EXPECTED_MASS else measured(t.px, batch)
        self.likelihood = describe(t.px)
        self.intervals.add(t.px, batch, skip=1)
        self._residuals(t.px, batch)
        levels = [level for level in t.levels if level.informed]
        self.centres.append(torch.cat([level.z[0].flatten(1) for level in levels], -1).cpu())
        self.offsets.append(torch.cat([offset(level)[0].flatten(1) for level in levels], -1).cpu())
        self.sizes = tuple(level.z[0, 0].numel() for level in levels)
        kl = [_kl(level) for level in levels]
        self.kl = [a if b is None else b if a is None else a + b for a, b in zip(self.kl or [None] * len(kl), kl, strict=True)]
        for n, level in enumerate(levels):
            if isinstance(level.q, Quantised):
                chosen = torch.bincount(level.q.codes.flatten(), minlength=level.q.size).cpu()
                self.count[n] = self.count.get(n, torch.zeros_like(chosen)) + chosen
        self._keep(t.levels[0])
        return True

    def evaluation(self) -> Evaluation:
        """Its likelihood is that of so few samples."""
        return summary(torch.cat(self.values), torch.cat(self.offsets), self.observed, samples=self.samples, seed=self.seed)

    def latents(self) -> Latents:
        """The posterior centres and what each dimension costs, from the running sums."""
        known = [kl for kl in self.kl if kl is not None]
        kl = torch.cat(known) / self.examples if len(known) == len(self.kl) else None
        return Latents(torch.cat(self.centres), kl, self.sizes, torch.cat(self.offsets))

    def aggregate(self) -> tuple[Aggregate | None, str]:
        """Of the top level; or why there is none."""
        missing = "no mutual information and no KL(q(z) || p(z)): "
        if self.examples < 2:
            return None, f"{missing}they compare examples, and there is one"
        if self.top[0].p.batch_shape:
            return None, f"{missing}the prior of the top level depends on the example"
        posteriors = [level.q for level in self.top if level.q is not None]
        n = sum(level.z.shape[1] for level in self.top)
        z, log_p = (torch.cat(list(parts), 1) for parts in zip(*[(level.z, level.log_p) for level in self.top], strict=True))
        try:
            found = aggregate(posteriors, z, log_p, seed=self.seed)
        except InputError as error:
            return None, f"{missing}{error}"
        few = f"the mutual information is that of {n} of the examples, for densities of {describe(posteriors[0])} take long"
        return found, few if n < self.examples else ""

    def residuals(self) -> Residuals | None:
        """Of a Gaussian likelihood; None for another one."""
        if self.squares is None or not float(self.squares[3]):
            return None
        return Residuals(*(self.squares[:3] / self.squares[3]).sqrt().tolist())

    def usage(self) -> tuple[Usage, ...]:
        """Of each level that holds codes."""
        return tuple(usage(n, count) for n, count in sorted(self.count.items()))

    def _keep(self, top: Level) -> None:
        """The posterior and its samples; of codes their numbers will do. Of others than Gaussians every so many batches, for data may be
        sorted."""
        q, z, log_p = top.q, top.z[1 : 1 + self.kept], top.log_p[1 : 1 + self.kept]
        if isinstance(q, Quantised):
            q = Certain(q.codes.flatten(1))
            z = q.point.expand(len(z), *q.point.shape)
        elif not isinstance(q, DiagGaussian) and (len(self.values) - 1) % self.stride:
            return
        self.top.append(Level(z, top.p, q, log_p, None))

    def _residuals(self, px: Distribution, batch: Batch) -> None:
        if not isinstance(px, DiagGaussian) or self.squares is None:
            self.squares = None
            return
        r, variance = (batch.input - px.mean[1:]).double(), px.variance[1:].double()
        seen = torch.ones_like(r) if batch.mask is None else batch.mask.expand_as(r).double()
        self.squares += torch.stack([(v * seen).sum() for v in (r.square(), variance, r.square() / variance, torch.ones_like(r))]).cpu()


def _kl(level: Level) -> Tensor | None:
    """KL(q_d || p_d) of each dimension, summed over the batch and averaged over the samples, ``[D]``."""
    if not (isinstance(level.q, DiagGaussian) and isinstance(level.p, DiagGaussian)):
        return None
    kl = gaussian_kl_parts(level.q, level.p)
    kl = kl.flatten(kl.dim() - len(level.q.event_shape))
    return (kl if kl.dim() == 2 else kl[1:].mean(0)).double().sum(0).cpu()
