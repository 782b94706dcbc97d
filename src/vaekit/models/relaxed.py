r"""Picks for models with discrete latents whose gradient shall pass through the sample.

The model stays discrete: q(z | x) and p(z) are `vaekit.dist.Bernoulli` or `vaekit.dist.OneHot`. Only what is handed down changes:

    ``from_relaxed(k, lambda)``                         z ~ the relaxed q; log q and log p are the relaxed densities
    ``from_relaxed(k, lambda, straight_through=True)``  z ~ q, with the gradient of that relaxed sample; log q and log p are discrete
    ``from_straight_through(k)``                        z ~ q, with the gradient of q's mean; log q and log p are discrete
"""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Distribution

from vaekit import noise
from vaekit.dist import describe, relaxed
from vaekit.errors import InputError
from vaekit.models.picks import Level, Pick, _check_pair, _missing

__all__ = ["from_relaxed", "from_straight_through"]


def from_relaxed(k: int, temperature: float, *, prior_temperature: float | None = None, straight_through: bool = False) -> Pick:
    r"""K relaxed samples (Maddison et al., 2017; Jang et al., 2017).

    The relaxed log-densities are those of y = logit z (of log z): in the rate log q - log p the change of variable cancels, and
    y is exact where z is rounded to 0 or 1. So ``rate`` is that of the relaxed model, and ``kl``, in closed form, that of the discrete one.

    Args:
        k: samples per example.
        temperature: lambda of q.
        prior_temperature: lambda of p; None for the same.
        straight_through: hand down the nearest discrete value, which is an exact sample of q, with the gradient of the relaxed one.

    Raises:
        InputError: k < 1; a temperature that is not positive; a prior or posterior that is neither Bernoulli nor OneHot.

    >>> import torch
    >>> from vaekit.dist import Bernoulli
    >>> _ = torch.manual_seed(0)
    >>> q, p = Bernoulli(torch.zeros(4, 3)), Bernoulli(torch.zeros(3))
    >>> from_relaxed(2, 0.5)(0, q, p).z.shape, from_relaxed(2, 0.5, straight_through=True)(0, q, p).z.unique()
    (torch.Size([2, 4, 3]), tensor([0., 1.]))
    """
    _at_least_one(k)

    def pick(level: int, q: Distribution | None, p: Distribution) -> Level:
        q = _posterior(level, q, p)
        r, prior = relaxed(q, temperature), relaxed(p, temperature if prior_temperature is None else prior_temperature)
        if type(r) is not type(prior):
            raise InputError(f"level {level}: q(z | x) is {describe(q)} and p(z) {describe(p)}: give both one kind of variable")
        with noise.along(1):
            y = r.rsample_y(_missing(q, (k, q.batch_shape[-1])))
        soft = r.value(y)
        if straight_through:
            return _hard(r.hard(y), soft, q, p)
        return Level(soft, p, q, prior.log_prob_y(y), r.log_prob_y(y))

    return pick


def from_straight_through(k: int) -> Pick:
    """K samples z ~ q(z | x) of discrete variables, each with the gradient of the mean of q (Bengio, Leonard and Courville, 2013).

    Raises:
        InputError: k < 1; a posterior that is neither Bernoulli nor OneHot.
    """
    _at_least_one(k)

    def pick(level: int, q: Distribution | None, p: Distribution) -> Level:
        q = _posterior(level, q, p)
        relaxed(q, 1.0)  # refuses continuous variables: the gradient of a mean would forget their scales
        with noise.along(1):
            z = q.sample(_missing(q, (k, q.batch_shape[-1])))
        return _hard(z, q.mean, q, p)

    return pick


def _hard(z: Tensor, soft: Tensor, q: Distribution, p: Distribution) -> Level:
    z = z + (soft - soft.detach())  # in this order nothing is rounded: the value is exactly z
    return Level(z, p, q, p.log_prob(z), q.log_prob(z))


def _posterior(level: int, q: Distribution | None, p: Distribution) -> Distribution:
    if q is None:
        raise InputError("a sample from q(z | x) needs a batch x; sample from the prior with from_p instead")
    _check_pair(level, q, p)
    return q


def _at_least_one(k: int) -> None:
    if k < 1:
        raise InputError(f"{k} samples were asked for; at least 1 is needed")
