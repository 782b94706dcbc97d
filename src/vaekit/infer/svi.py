r"""The posterior of each example by itself: q(z; h_b) with numbers h_b of its own instead of those that an encoder gives for x_b.

.. math:: h_b^* = \arg\max_h \; E_{q(z; h)}[\log p(x_b, z) - \log q(z; h)], \qquad b = 1 \dots B

A family is a function ``h [B, F] -> q(z; h)``: a head of `vaekit.heads`, whatever comes out of it. The examples share nothing but the
decoder, whose weights stay as they are, so the B problems are solved side by side and each has its own end.

`amortised` is the encoder's q(z | x) as such numbers, where the search `svi` begins; `widened` is the same q in a richer family.

Hoffman, Blei, Wang and Paisley, "Stochastic variational inference", JMLR 2013; Cremer, Li and Duvenaud, "Inference suboptimality in
variational autoencoders", ICML 2018.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import singledispatch

import torch
from torch import Size, Tensor, nn
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

from vaekit.conditional import Conditional
from vaekit.dist import DiagGaussian, Flow, describe, draw, has_density, is_discrete
from vaekit.errors import InputError
from vaekit.heads import FlowHead, FullGaussian, Gaussian, Head
from vaekit.models.core import LatentModel, Trace
from vaekit.models.picks import Level, at_centre
from vaekit.tensors import evaluating, seed_noise
from vaekit.types import Batch

__all__ = ["Family", "Local", "amortised", "log_weights", "svi", "widened"]

Family = Callable[[Tensor], Distribution]
"""h ``[B, F]`` -> q(z; h) of batch shape ``[B]``, with reparameterised samples."""

WINDOWS = 20
"""The bound is judged over so many stretches of the whole search."""
CUT, LEAST = 3.0, 0.02
"""A stretch without a rise divides an example's step size by this; below this share of the first one the example is done."""
CHECK = 1000
"""Fresh samples that decide between where an example began and where it ended."""


@dataclass(frozen=True, eq=False)
class Local:
    """q(z; h_b) for each example b.

    Attributes:
        family: from numbers to distributions.
        h: the numbers, ``[B, F]``, without gradient.
        steps: steps that the search took for each example, int64 ``[B]``; 0 for an encoder's q.
        settled: bool ``[B]``: the bound had stopped rising before the steps ran out.
    """

    family: Family
    h: Tensor
    steps: Tensor
    settled: Tensor

    @staticmethod
    def begin(family: Family, h: Tensor) -> Local:
        """Before any search, at the numbers h ``[B, F]`` of ``family``."""
        steps = torch.zeros(len(h), dtype=torch.int64, device=h.device)
        return Local(family, h.detach().clone(), steps, steps.bool())

    @property
    def q(self) -> Distribution:
        """The distributions, batch shape ``[B]``."""
        return self.family(self.h)


def amortised(model: LatentModel, batch: Batch) -> Local:
    """q(z | x) of a flat model, with the numbers that its encoder gives for x as ``h``.

    Where the posterior is a `Conditional`, the family is its head, with the head's own weights, if it has any (those of an `heads.IAF`),
    held fixed. Otherwise it is known for Gaussians alone, diagonal or full.

    Raises:
        InputError: several levels; a posterior without a density, or without a reparameterised sample; one that is neither from a
            `Conditional` nor Gaussian.
    """
    calls: list[tuple[nn.Module, Tensor, Distribution]] = []

    def record(head: nn.Module, args: tuple[Tensor, ...], q: Distribution) -> None:
        calls.append((head, args[0], q))

    with ExitStack() as stack, evaluating(model), torch.no_grad():
        for module in model.modules():
            if isinstance(module, Conditional):
                stack.callback(module.head.register_forward_hook(record).remove)
        levels = model.trace(at_centre(), batch).levels
    q = levels[0].q
    if len(levels) > 1 or q is None:
        raise InputError(
            f"local inference in a model of {len(levels)} levels: below the top q depends on the latents above, so the best member of its "
            "family for one x is a function, not a row of numbers; use a flat model"
        )
    if not has_density(q):
        raise InputError(f"q(z | x) = {describe(q)} is a point and has no density, so there is no bound that local inference could raise")
    if is_discrete(q) or not q.has_rsample:
        raise InputError(
            f"q(z | x) = {describe(q)} has no reparameterised sample, so no gradient of the bound leads to a better one: "
            "local inference takes continuous latents"
        )
    known = next(((head, h) for head, h, made in calls if made is q), None)
    return Local.begin(*(_numbers(q) if known is None else known))


@singledispatch
def _numbers(q: Distribution) -> tuple[Family, Tensor]:
    """A family and the numbers that make q."""
    raise InputError(
        f"q(z | x) = {describe(q)} does not say which numbers it is made from: make the posterior a Conditional(network, head), whose "
        "numbers can be moved"
    )


@_numbers.register
def _(q: DiagGaussian) -> tuple[Family, Tensor]:
    return Gaussian(tuple(q.event_shape)), torch.cat([q.mean.flatten(1), 2 * q.log_scale.expand_as(q.mean).flatten(1)], -1)


@_numbers.register
def _(q: Independent) -> tuple[Family, Tensor]:
    if not isinstance(q.base_dist, Normal):
        return _numbers.dispatch(Distribution)(q)
    return _numbers(DiagGaussian(q.base_dist.loc, q.base_dist.scale.log(), len(q.event_shape)))


@_numbers.register
def _(q: MultivariateNormal) -> tuple[Family, Tensor]:
    d, tril = q.event_shape[0], q.scale_tril
    rows, columns = torch.tril_indices(d, d, -1)
    return FullGaussian(d).to(q.loc.device), torch.cat([q.loc, 2 * tril.diagonal(dim1=-2, dim2=-1).log(), tril[..., rows, columns]], -1)


def widened(local: Local, head: Head) -> Local:
    """The same q as a member of a larger family, from where `svi` can go on.

    Args:
        local: any; for a full covariance a diagonal Gaussian.
        head: a `heads.FlowHead`, whose flows are put on top of q as they are at 0, the identity; or `heads.FullGaussian`.

    Raises:
        InputError: another head, or one for other latents or with weights that examples would share; latents that are no vectors.
    """
    q, name = local.q, type(head).__name__
    d, n = q.event_shape.numel(), local.h.shape[-1]
    if head.size != d:
        raise InputError(f"a richer q by {name}({head.size}): the model has {d} latent numbers, so give {name}({d}, ...)")
    more = copy.deepcopy(head).to(local.h.device)
    zeros = local.h.new_zeros(len(local.h), more.features - 2 * d)
    if isinstance(more, FullGaussian):
        if not isinstance(q, DiagGaussian):
            raise InputError(f"a richer q by FullGaussian: it contains diagonal Gaussians, not q = {describe(q)}; take a flow head")
        return Local.begin(more, torch.cat([_numbers(q)[1], zeros], -1))
    if not isinstance(more, FlowHead):
        raise InputError(
            f"a richer q by {name}: give a head whose every number belongs to one example and which contains q at 0: heads.FullGaussian, "
            "Planar, Radial, Householder, OrthogonalSylvester, HouseholderSylvester or TriangularSylvester"
        )
    _vector(q)  # now rather than at the first step
    flows, size = more, zeros.shape[-1] // more.flows

    def family(h: Tensor) -> Distribution:
        transforms = [t for k, part in enumerate(h[..., n:].split(size, -1)) for t in flows.transforms(k, part)]
        return Flow(_vector(local.family(h[..., :n])), transforms)

    return Local.begin(family, torch.cat([local.h, zeros], -1))


def _vector(q: Distribution) -> Distribution:
    if isinstance(q, DiagGaussian):
        return DiagGaussian(q.mean.flatten(1), q.log_scale.expand_as(q.mean).flatten(1))
    if len(q.event_shape) == 1:
        return q
    raise InputError(f"a flow on top of q = {describe(q)}: its events {list(q.event_shape)} are no vectors, which flows take")


def svi(model: LatentModel, batch: Batch, start: Local, *, steps: int = 1000, samples: int = 8, lr: float = 0.05) -> Local:
    """Raise the bound of every example from ``start`` by Adam on reparameterised samples of q(z; h).

    The step size falls from ``lr`` to 0 along a cosine and, for each example by itself, to a third each time that its bound has not risen
    over a twentieth of the steps; after four such times the example is done. An end whose bound, by 1000 fresh samples, is below that of
    the start is given up for the start. The decoder runs in evaluation mode; its weights, their gradients and its mode stay as they were.
    Random numbers come from torch's global generator.

    Args:
        model: a flat model.
        batch: x, with its mask if it has one.
        start: from `amortised`, `widened` or an earlier search.
        steps: the most that any example takes.
        samples: z per example and step.
        lr: first step size, in units of ``h``: latent units for a mean, nats for a log-variance.

    Raises:
        InputError: steps or samples below 1, lr not positive; inference mode.

    >>> from vaekit import VAE, heads, priors
    >>> _ = torch.manual_seed(0)
    >>> same = nn.Identity()
    >>> q, px = Conditional(nn.Linear(2, 4), heads.Gaussian(2)), Conditional(same, heads.GaussianFixed(2, 1.0))
    >>> model, batch = VAE(priors.StandardNormal(2), q, px), Batch(torch.tensor([[2.0, -2.0]]))
    >>> found = svi(model, batch, amortised(model, batch))
    >>> found.q.mean.round(decimals=1), found.q.variance.round(decimals=1)  # p(z | x) = N(x / 2, I / 2)
    (tensor([[ 1., -1.]]), tensor([[0.5000, 0.5000]]))
    """
    if steps < 1 or samples < 1:
        raise InputError(f"svi(steps={steps}, samples={samples}): at least 1 of each is needed")
    if not 0 < lr < math.inf:
        raise InputError(f"svi(lr={lr}): the step size is positive and finite")
    if torch.is_inference_mode_enabled():
        raise InputError("torch.inference_mode() is on and records no gradients, which local inference follows: use torch.no_grad()")
    with evaluating(model):
        end = _ascend(model, batch, start, steps, samples, lr)
        seed = int(torch.randint(2**62, ()))
        before, after = (log_weights(model, batch, local, CHECK, seed=seed, chunk=samples).mean(0) for local in (start, end))
        better = ((after > before) | before.isnan()).to(end.h.device)
    return Local(start.family, torch.where(better.unsqueeze(-1), end.h, start.h), end.steps, end.settled)


def _ascend(model: LatentModel, batch: Batch, start: Local, steps: int, samples: int, lr: float) -> Local:
    """Adam (Kingma and Ba, 2015) with a state, a step size and an end for each row of h."""
    beta1, beta2, epsilon = 0.9, 0.99, 1e-8
    h, taken, share = start.h.clone(), torch.zeros_like(start.steps), torch.ones_like(start.h[:, 0])
    m, v, average = torch.zeros_like(h), torch.zeros_like(h), torch.zeros_like(h)
    mean, variance = torch.full_like(share, -math.inf), torch.zeros_like(share)
    window = max(1, -(-steps // WINDOWS))
    live = torch.arange(len(h), device=h.device)
    for first in range(0, steps, window):
        part = Batch(*(None if t is None else t.index_select(0, live) for t in batch))  # type: ignore[arg-type]  # x is never None
        row, m_row, v_row, total, values = h[live], m[live], v[live], torch.zeros_like(h[live]), []
        for t in range(first, min(first + window, steps)):
            bound, gradient = _gradient(model, part, start.family, row, samples)
            m_row, v_row = torch.lerp(gradient, m_row, beta1), torch.lerp(gradient.square(), v_row, beta2)
            step = m_row / (1 - beta1 ** (t + 1)) / ((v_row / (1 - beta2 ** (t + 1))).sqrt() + epsilon)
            row = row + lr * 0.5 * (1 + math.cos(math.pi * t / steps)) * share[live].unsqueeze(-1) * step
            total = total + row
            values.append(bound)
        h[live], m[live], v[live], average[live] = row, m_row, v_row, total / len(values)
        taken[live] += len(values)
        bounds = torch.stack(values)
        now, noise = bounds.mean(0), bounds.var(0, correction=0) / len(values)
        risen = now - mean[live] > (noise + variance[live]).sqrt()  # False where the bound is NaN
        share[live] = torch.where(risen, share[live], share[live] / CUT)
        mean[live], variance[live] = now, noise
        live = live[share[live] > LEAST]
        if len(live) == 0:
            break
    return Local(start.family, average, taken, share <= LEAST)


def _gradient(model: LatentModel, batch: Batch, family: Family, h: Tensor, samples: int) -> tuple[Tensor, Tensor]:
    """The bound ``[B]`` and its gradient in h ``[B, F]``, set to 0 where it is not finite: one bad sample does no harm."""
    with torch.enable_grad():
        h = h.detach().requires_grad_()
        bound = _log_w(model, batch, family(h), samples).mean(0)
        (gradient,) = torch.autograd.grad(bound.sum(), h)  # of h alone: the weights' .grad is not touched
    fine = gradient.isfinite().all(-1, keepdim=True)
    return bound.detach(), torch.where(fine, gradient, torch.zeros_like(gradient))


def log_weights(model: LatentModel, batch: Batch, local: Local, k: int, *, seed: int, chunk: int = 100) -> Tensor:
    """log p(x, z) - log q(z; h), ``[k, B]`` nats, float64 on the CPU, for k fresh samples z ~ q(z; h) of each example, q being ``local``.

    For one seed and ``chunk`` families that begin with the same draws share them: the differences of their bounds have less noise than the
    bounds. The caller's random numbers are left as they were. Call ``model.eval()`` first. k or ``chunk`` below 1: InputError.
    """
    if k < 1 or chunk < 1:
        raise InputError(f"log_weights(k={k}, chunk={chunk}): at least 1 of each is needed")
    with torch.no_grad(), torch.random.fork_rng([local.h.device] if local.h.is_cuda else []):
        seed_noise(seed, local.h.device)
        q = local.q
        return torch.cat([_log_w(model, batch, q, min(chunk, k - start)).double().cpu() for start in range(0, k, chunk)])


def _log_w(model: LatentModel, batch: Batch, q: Distribution, samples: int) -> Tensor:
    """A pass through the model with z ~ q in the place of its own posterior, which does not run."""
    z, log_q = draw(q, Size([samples]))

    def pick(number: int, _: Distribution | None, p: Distribution) -> Level:
        value = z.reshape(*z.shape[:2], *p.event_shape)
        return Level(value, p, None, p.log_prob(value), log_q)

    return Trace(batch, *model.unroll(pick, None if batch.c is None else batch)).log_w
