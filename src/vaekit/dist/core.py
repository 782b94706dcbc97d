r"""What the package asks of a distribution beyond ``torch.distributions``: eight functions that dispatch on its type.

A distribution has batch shape ``[K, B]``, ``[B]`` or ``[]`` and event shape ``[*]``. Every function below has a default that holds
for any ``torch.distributions.Distribution``; a distribution for which more is known registers its own with ``@function.register``.

========================  ===================================================================================
``log_prob_parts``        log p(x) split over the factors of x that are independent, for masks and error maps
``log_prob_observed``     log p of the observed entries of x
``draw``                  a sample and its log-density together, reparameterised or detached
``has_density``           False for a point mass, whose log-density does not exist
``is_discrete``           whether z has a probability mass rather than a density
``closed_form_kl``        KL(q || p) in nats, or None where no closed form is known
``centre``                one representative point: the mean, or the mode where there is no mean
``tempered``              the same family with its noise scaled by a temperature
========================  ===================================================================================
"""

from __future__ import annotations

from functools import singledispatch

import torch
from torch import Size, Tensor
from torch.distributions import Bernoulli, Distribution, Independent, MultivariateNormal, Normal, TransformedDistribution, kl_divergence
from torch.distributions.transforms import Transform
from zuko.distributions import NormalizingFlow

from vaekit.errors import InputError

__all__ = ["centre", "closed_form_kl", "describe", "draw", "has_density", "is_discrete", "log_prob_observed", "log_prob_parts", "tempered"]

SampleShape = Size | list[int] | tuple[int, ...]


def describe(d: Distribution) -> str:
    """The name of a distribution in messages: ``Independent(Bernoulli)`` rather than ``Independent``."""
    inner = getattr(d, "base_dist", None)
    return type(d).__name__ if inner is None else f"{type(d).__name__}({describe(inner)})"


def sum_event(parts: Tensor, event_dim: int) -> Tensor:
    """Sum over the last ``event_dim`` dimensions, of which there may be none."""
    return parts.flatten(-event_dim).sum(-1) if event_dim else parts


@singledispatch
def log_prob_parts(d: Distribution, x: Tensor) -> Tensor:
    """log-density of each independent factor of x, ``[*batch, *factors]`` nats: sums to ``d.log_prob(x)`` over the event.

    Raises:
        InputError: where the event does not factorise (a full-covariance Gaussian, a flow).
    """
    raise InputError(
        f"{describe(d)} does not factorise over the entries of x, so a mask of observed entries cannot be applied: "
        "use a likelihood that is independent per entry, or complete data"
    )


@log_prob_parts.register
def _(d: Independent, x: Tensor) -> Tensor:
    return log_prob_parts(d.base_dist, x) if d.base_dist.event_shape else d.base_dist.log_prob(x)


@singledispatch
def log_prob_observed(d: Distribution, x: Tensor, mask: Tensor | None) -> Tensor:
    """log p(x_observed) under d, ``[*batch]`` nats: the factors of x where ``mask`` is True, summed; all of x where it is None.

    Missing entries may hold anything, NaN included: neither the value nor the gradient sees them. A factor that covers several
    entries (the channels of a pixel) counts as observed where all of them are.
    """
    if mask is None:
        return d.log_prob(x)
    parts = log_prob_parts(d, torch.where(mask, x, torch.zeros_like(x)))
    n = len(d.event_shape)
    return sum_event(torch.where(factor_mask(parts, mask, n), parts, torch.zeros_like(parts)), n)


def factor_mask(parts: Tensor, mask: Tensor, event_dim: int) -> Tensor:
    """A mask of entries as a mask of factors: one that covers several entries (the channels of a pixel) needs all of them."""
    for dim in range(-event_dim, 0):
        if parts.shape[dim] == 1 and mask.shape[dim] > 1:
            mask = mask.all(dim, keepdim=True)
    return mask


@singledispatch
def has_density(d: Distribution) -> bool:
    """Whether ``d.log_prob`` exists. A point mass in a continuous space (`dist.Point`) can be drawn from but has none."""
    return True


@singledispatch
def is_discrete(d: Distribution) -> bool:
    """Whether ``d.log_prob`` is the logarithm of a probability rather than of a density: the two cannot be compared."""
    try:
        return d.support is not None and bool(d.support.is_discrete)
    except NotImplementedError:  # a distribution that does not say, as a flow
        return False


@is_discrete.register
def _(d: Independent) -> bool:
    return is_discrete(d.base_dist)


@singledispatch
def draw(d: Distribution, shape: Size, reparam: bool = True) -> tuple[Tensor, Tensor]:
    """z ~ d and log d(z): ``[*shape, *batch, *event]`` and ``[*shape, *batch]``.

    Args:
        d: the distribution.
        shape: extra leading dimensions, as in ``d.rsample(shape)``.
        reparam: differentiate through the sample. False detaches z but keeps log d(z) differentiable (score-function estimators).

    Raises:
        InputError: ``reparam`` is True, gradients are recorded, and the distribution has no reparameterised sample.
    """
    if not reparam:
        z = d.sample(shape)
    elif d.has_rsample:
        z = d.rsample(shape)
    elif not torch.is_grad_enabled():  # nothing is differentiated, so nothing can be wrong: evaluation takes any posterior
        z = d.sample(shape)
    else:
        raise InputError(
            f"{describe(d)} has no reparameterised sample, so this objective's gradient would be wrong: "
            "use a posterior that has one, or an objective for discrete latents (Relaxed, StraightThrough, NVIL, VIMCO, RWS)"
        )
    return z, d.log_prob(z)


@draw.register
def _(d: NormalizingFlow, shape: Size, reparam: bool = True) -> tuple[Tensor, Tensor]:
    if reparam:
        return d.rsample_and_log_prob(shape)  # the density of an own sample needs no inverse
    z = d.rsample(shape).detach()
    return z, d.log_prob(z)


def closed_form_kl(q: Distribution, p: Distribution) -> Tensor | None:
    """KL(q || p) = E_q[log q(z) - log p(z)] in nats, ``[*batch]``, or None where no closed form is registered for the pair."""
    if isinstance(q, Independent | Bernoulli) and q.batch_shape != p.batch_shape:  # torch's KL of Bernoullis does not broadcast
        shape = torch.broadcast_shapes(q.batch_shape, p.batch_shape)
        q, p = q.expand(shape), p.expand(shape)
    try:
        return kl_divergence(q, p)
    except NotImplementedError:
        return None


@singledispatch
def centre(d: Distribution) -> Tensor:
    """One point that stands for the distribution, ``[*batch, *event]``: its mean; its mode where a mean makes no sense.

    For a flow or another transformed distribution it is the image of the base distribution's centre, which is neither, but is where an
    embedding should be drawn.

    Raises:
        InputError: the distribution has no mean.
    """
    try:
        return d.mean
    except NotImplementedError as error:
        raise InputError(
            f"{describe(d)} has no mean, so there is no one point to show for it: register one with vaekit.dist.centre"
        ) from error


@centre.register
def _(d: TransformedDistribution) -> Tensor:
    z = centre(d.base_dist)
    for transform in d.transforms:
        z = transform(z)
    return z


@centre.register
def _(d: Independent) -> Tensor:
    return centre(d.base_dist)


@centre.register
def _(d: torch.distributions.Categorical) -> Tensor:
    return d.mode


@centre.register
def _(d: NormalizingFlow) -> Tensor:
    inverse: Transform = d.transform.inv
    return inverse(centre(d.base))


@singledispatch
def tempered(d: Distribution, temperature: float) -> Distribution:
    """The distribution d with its noise scaled by ``temperature``: 1 leaves it as it is, at 0 none is left (a mixture still
    chooses one of its components).

    Raises:
        InputError: the distribution has no scale that could be changed.
    """
    if temperature == 1.0:
        return d
    raise InputError(f"temperature {temperature}: {describe(d)} has no scale to change; use temperature 1")


@tempered.register
def _(d: Normal, temperature: float) -> Distribution:
    return Normal(d.loc, d.scale * temperature, validate_args=False)


@tempered.register
def _(d: MultivariateNormal, temperature: float) -> Distribution:
    return MultivariateNormal(d.loc, scale_tril=d.scale_tril * temperature, validate_args=False)


@tempered.register
def _(d: Independent, temperature: float) -> Distribution:
    return Independent(tempered(d.base_dist, temperature), d.reinterpreted_batch_ndims, validate_args=False)


@tempered.register
def _(d: NormalizingFlow, temperature: float) -> Distribution:
    return NormalizingFlow(d.transform, tempered(d.base, temperature))
