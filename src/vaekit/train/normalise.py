r"""Batch normalisation by the statistics of the whole batch, of which each of several processes has a part.

With :math:`n_r` values of a channel on process r, their mean :math:`\mu_r` and variance :math:`\sigma_r^2`, and
:math:`\hat x = (x - \mu) / \sqrt{\sigma^2 + \epsilon}`:

.. math:: n = \sum_r n_r, \quad \mu = \frac1n \sum_r n_r \mu_r, \quad
          \sigma^2 = \frac1n \sum_r n_r \left( \sigma_r^2 + (\mu_r - \mu)^2 \right), \quad y = \gamma \hat x + \beta, \\
          \frac{\partial L}{\partial x} = \frac{\gamma}{\sqrt{\sigma^2 + \epsilon}}
          \left( g - \frac1n \sum g - \hat x \, \frac1n \sum g \hat x \right), \quad g = \frac{\partial L}{\partial y}

Sums without bounds go over all processes: one exchange of 2 C + 1 numbers forward, one of 2 C backward. The formulas are those of Ioffe and
Szegedy, "Batch normalization", ICML 2015. torch's ``SyncBatchNorm`` has them for GPUs alone, and counts the row that a process repeats
when there are fewer rows than processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from vaekit.priors import VampPrior

__all__ = ["DIVISIBLE", "over_all"]

DIVISIBLE = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
"""The modules that `over_all` knows; of what is derived from them nobody knows what it does."""

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d

Weight = Callable[[], float | None]
"""1 where the rows that a module sees are a process's part of a batch, 0 where it only repeats another's; None where they are no part."""


@contextmanager
def over_all(module: nn.Module, weight: Weight) -> Iterator[None]:
    """As long as this lasts the batch normalisations of a module take the statistics of all processes' rows, this one's with ``weight()``,
    which all must ask for at once. What is no part of a batch (the pseudo-inputs of a VampPrior, which every process has) they see as they
    always do."""
    inside: list[VampPrior] = []

    def divided() -> float | None:
        return None if inside else weight()

    # the instances' own attributes hide the methods; weights, buffers and their names stay what they are
    changed: list[nn.Module] = []
    for part in module.modules():
        if isinstance(part, DIVISIBLE):
            changed.append(part)
            part.forward = partial(_forward, part, divided)  # type: ignore[method-assign]
        elif isinstance(part, VampPrior):
            changed.append(part)
            part.forward = partial(_apart, part, inside)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for part in changed:
            del part.forward


def _apart(prior: VampPrior, inside: list[VampPrior]) -> Any:
    inside.append(prior)
    try:
        return type(prior).forward(prior)
    finally:
        inside.pop()


def _forward(part: BatchNorm, divided: Weight, x: Tensor) -> Tensor:
    """``part(x)`` by the statistics of all processes, where it takes those of the batch."""
    weight = divided()
    if weight is None or not (part.training or (part.running_mean is None and part.running_var is None)):
        return type(part).forward(part, x)
    part._check_input_dim(x)
    mean, var, n = _statistics(x, weight)
    if n == 1:  # as torch says it
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {[1, *x.shape[1:]]}")
    if part.training and part.track_running_stats:
        factor = part.momentum
        if part.num_batches_tracked is not None:
            part.num_batches_tracked.add_(1)
            factor = 1.0 / float(part.num_batches_tracked) if factor is None else factor
        for kept, found in ((part.running_mean, mean), (part.running_var, var * (n / (n - 1)))):
            if kept is not None:
                kept.lerp_(found.to(kept.dtype), factor or 0.0)
    normalised: Tensor = _Normalise.apply(x, part.weight, part.bias, mean, var, n, weight, part.eps)
    return normalised


def _statistics(x: Tensor, weight: float) -> tuple[Tensor, Tensor, int]:
    """Mean and variance of each channel over all processes, ``[C]`` float64, and the number of values that they are of."""
    own = x.detach()
    var, mean = torch.var_mean(own.float() if own.element_size() < 4 else own, _dims(x), correction=0)
    count = weight * (x.numel() // x.shape[1])
    said = torch.cat([mean.double(), var.double(), mean.new_tensor([count], dtype=torch.float64)])
    heard = [torch.empty_like(said) for _ in range(distributed.get_world_size())]
    distributed.all_gather(heard, said)
    all_ = torch.stack(heard)
    means, variances, counts = all_[:, : x.shape[1]], all_[:, x.shape[1] : -1], all_[:, -1:]
    n = counts.sum()
    mean = (counts * means).sum(0) / n
    return mean, (counts * (variances + (means - mean).square())).sum(0) / n, int(n)


def _dims(x: Tensor) -> list[int]:
    return [dim for dim in range(x.dim()) if dim != 1]


class _Normalise(torch.autograd.Function):
    """gamma (x - mean) / sqrt(var + eps) + beta, whose gradient knows that mean and variance are functions of all processes' x."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gamma: Tensor | None, beta: Tensor | None, mean: Tensor, var: Tensor, n: int, weight: float, eps: float
    ) -> Tensor:
        dtype = torch.promote_types(x.dtype, torch.float32)
        mean, var = mean.to(dtype), var.to(dtype)
        ctx.save_for_backward(x, gamma, mean, torch.rsqrt(var + eps))
        ctx.n, ctx.weight = n, weight
        return F.batch_norm(x, mean, var, gamma, beta, training=False, eps=eps)

    @staticmethod
    @once_differentiable  # the exchange is no operation that autograd could go through again
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, gamma, mean, inverse = ctx.saved_tensors
        (grad,) = grads
        shape = [1, -1, *[1] * (x.dim() - 2)]
        g = grad.to(mean.dtype)
        normed = (x - mean.view(shape)) * inverse.view(shape)
        own = torch.stack([g.sum(_dims(x)), (g * normed).sum(_dims(x))])
        sums = own.to(torch.float64, copy=True)
        distributed.all_reduce(sums)
        # a repeated row is normalised like the others, but has no share in the statistics
        first, second = ((ctx.weight / ctx.n) * sums).to(g.dtype).view(2, *shape)
        scale = inverse if gamma is None else inverse * gamma
        given = (scale.view(shape) * (g - first - normed * second)).to(x.dtype)
        of_gamma, of_beta = ctx.needs_input_grad[1:3]
        return given, own[1] if of_gamma else None, own[0] if of_beta else None, None, None, None, None, None
