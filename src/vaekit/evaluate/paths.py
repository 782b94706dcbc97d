r"""Ways through latent space, decoded: between two examples, and along one dimension.

A path is drawn in the units of the prior, level by level from the top,

.. math:: z_l(t) = \mu_l(z_{<l}(t)) + \sigma_l(z_{<l}(t)) \, u_l(t),

mu_l and sigma_l the mean and the standard deviation of p(z_l | z_<l) (0 and 1 where it has none in closed form, as a flow). For a flat
model under N(0, I), u is z. Below the top of a ladder u_l is what a level adds to the levels above it: the path stays where the prior
expects it, and a step in z_1 reaches x through z_2. A line between two values of z_2 itself would do neither.

Both functions leave the model's mode and everybody's random numbers as they were, and nothing is sampled: the same call, the same frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaekit.dist import centre, describe, is_discrete
from vaekit.errors import InputError
from vaekit.evaluate.latent import Latents
from vaekit.evaluate.passes import observing
from vaekit.models.core import LatentModel
from vaekit.models.picks import Level, at_centre, from_p
from vaekit.types import Batch

__all__ = ["Frames", "Line", "continuous", "interpolate", "leading", "quantiles", "spherical", "straight", "traverse"]

Line = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(u0 ``[R, D]``, u1 ``[R, D]``, t ``[S]`` from 0 to 1) -> ``[R, S, D]``, u0 at t = 0 and u1 at t = 1: `straight` or `spherical`."""


@dataclass(frozen=True)
class Frames:
    """R paths of S steps.

    Attributes:
        x: centres of p(x | z), ``[R, S, *]``.
        z: the latents that were decoded, one tensor a level from the top down, ``[R, S, *]`` each.
    """

    x: Tensor
    z: tuple[Tensor, ...]


def straight(u0: Tensor, u1: Tensor, t: Tensor) -> Tensor:
    """(1 - t) u0 + t u1, ``[R, S, D]``.

    >>> straight(torch.zeros(1, 2), torch.tensor([[2.0, 4.0]]), torch.tensor([0.0, 0.5, 1.0]))
    tensor([[[0., 0.],
             [1., 2.],
             [2., 4.]]])
    """
    return torch.lerp(u0.unsqueeze(1), u1.unsqueeze(1), t.view(1, -1, 1))


def spherical(u0: Tensor, u1: Tensor, t: Tensor) -> Tensor:
    r"""(sin((1 - t) a) u0 + sin(t a) u1) / sin a, a the angle between u0 and u1, ``[R, S, D]``.

    In many dimensions a standard normal lies near a sphere, and the middle of a straight line inside it, where there is hardly any
    probability; this line stays outside (White, "Sampling Generative Networks", 2016). Straight where u0 and u1 are parallel.

    Raises:
        InputError: u0 and u1 point in opposite directions, between which there is no one arc.

    >>> spherical(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), torch.tensor([0.5]))
    tensor([[[0.7071, 0.7071]]])
    """
    a, b = torch.nn.functional.normalize(u0, dim=-1), torch.nn.functional.normalize(u1, dim=-1)
    # twice the arctangent: exact for small angles and near pi, where the arccosine of the product is not
    angle = (2 * torch.atan2((a - b).norm(dim=-1), (a + b).norm(dim=-1))).view(-1, 1, 1)
    sine, small = angle.sin(), angle < 1e-4
    if bool(((sine < 1e-4) & ~small).any()):
        row = int(((sine < 1e-4) & ~small).flatten().nonzero()[0])
        raise InputError(f"pair {row}: the two ends lie opposite each other, so that no one arc joins them: use a straight line")
    t = t.view(1, -1, 1)
    safe = torch.where(small, torch.ones_like(sine), sine)
    arc = ((1 - t) * angle).sin() / safe * u0.unsqueeze(1) + (t * angle).sin() / safe * u1.unsqueeze(1)
    return torch.where(small, straight(u0, u1, t), arc)


def interpolate(model: LatentModel, x0: Batch, x1: Batch, *, steps: int = 9, along: Line = straight) -> Frames:
    """R paths from the centre of q(z | x0_r) to that of q(z | x1_r), all levels moving together.

    The first and the last frame are the reconstructions of x0 and x1.

    Args:
        model: any model with continuous latents.
        x0: where the paths begin, ``[R, *]``, on the model's device.
        x1: where they end, ``[R, *]``.
        steps: S, the ends included.
        along: `straight`, or `spherical`, which turns about the prior's mean.

    Raises:
        InputError: fewer than 2 steps; unequal numbers of examples; discrete or quantised latents, between which nothing lies.

    >>> from vaekit import Conditional, VAE, heads, priors
    >>> _ = torch.manual_seed(0)
    >>> model = VAE(
    ...     priors.StandardNormal(2),
    ...     Conditional(torch.nn.Linear(6, 4), heads.Gaussian(2)),
    ...     Conditional(torch.nn.Linear(2, 6), heads.Bernoulli(6)),
    ... )
    >>> interpolate(model, Batch(torch.zeros(3, 6)), Batch(torch.ones(3, 6)), steps=5).x.shape
    torch.Size([3, 5, 6])
    """
    if steps < 2:
        raise InputError(f"{steps} steps were asked for; an interpolation has at least 2, its ends")
    with observing(model, 0):
        u0, u1 = _codes(model, x0), _codes(model, x1)
        if x0.size != x1.size:
            raise InputError(f"{x0.size} examples to begin with and {x1.size} to end with: give as many of one as of the other")
        t = torch.linspace(0, 1, steps, dtype=u0[0].dtype, device=u0[0].device)
        return _decode(model, [along(a, b, t) for a, b in zip(u0, u1, strict=True)])


def traverse(model: LatentModel, start: Batch | None = None, *, dimensions: Sequence[int], values: Tensor) -> Frames:
    """R paths, one a dimension: u_d takes each of the S values while the other dimensions stay as they are.

    Args:
        model: any model with continuous latents.
        start: one example, whose centre of q(z | x) the paths go through; by default the centre of the prior.
        dimensions: which latent dimensions, counted over the levels from the top down as in ``model.embed``; see `leading`.
        values: ``[S]``, in standard deviations of p(z_l | z_<l) from its mean; see `quantiles`.

    Raises:
        InputError: more than one example; a dimension that there is not; values that are not finite or no list of numbers; discrete or
            quantised latents; a level whose prior has no standard deviation in closed form.

    >>> from vaekit import Conditional, VAE, heads, priors
    >>> _ = torch.manual_seed(0)
    >>> model = VAE(
    ...     priors.StandardNormal(2),
    ...     Conditional(torch.nn.Linear(6, 4), heads.Gaussian(2)),
    ...     Conditional(torch.nn.Linear(2, 6), heads.Bernoulli(6)),
    ... )
    >>> traverse(model, dimensions=[1], values=torch.tensor([-2.0, 2.0])).z[0]
    tensor([[[ 0., -2.],
             [ 0.,  2.]]])
    """
    if start is not None and start.size != 1:
        raise InputError(f"a traversal starts from one example, not from {start.size}")
    if values.dim() != 1 or not len(values) or not bool(values.isfinite().all()):
        raise InputError(f"a traversal takes a list of finite values, not {values.tolist()}")
    with observing(model, 0):
        codes = _codes(model, start, scaled=True)
        total = sum(u.shape[1] for u in codes)
        for d in dimensions:
            if not 0 <= d < total:
                raise InputError(f"there is no latent dimension {d}; this model has 0 to {total - 1}")
        u = torch.cat(codes, -1).expand(len(dimensions), len(values), total).clone()
        for row, d in enumerate(dimensions):
            u[row, :, d] = values.to(u)
        return _decode(model, u.split([part.shape[1] for part in codes], -1))


def leading(found: Latents, n: int) -> list[int]:
    """The n dimensions of ``found``, those of the largest KL, largest first; by their variance over the data where there is no KL per
    dimension.

    Raises:
        InputError: n below 1 or above the number of dimensions.
    """
    order = (found.variance if found.kl is None else found.kl).argsort(descending=True)
    if not 1 <= n <= len(order):
        raise InputError(f"{n} latent dimensions were asked for; this model has {len(order)}: ask for 1 to {len(order)}")
    return order[:n].tolist()


def quantiles(n: int) -> Tensor:
    """``[n]`` quantiles of N(0, 1) at equal steps of probability, 2% to 98%: each stands for the same share of the prior.

    Raises:
        InputError: ``n`` below 2.

    >>> quantiles(3)
    tensor([-2.0537,  0.0000,  2.0537])
    """
    if n < 2:
        raise InputError(f"{n} steps were asked for; a traversal has at least 2")
    return torch.special.ndtri(torch.linspace(0.02, 0.98, n, dtype=torch.float64)).float()


def continuous(model: LatentModel) -> bool:
    """Whether there are paths at all: no level's p(z_l | z_<l) is discrete."""
    with observing(model, 0):
        return not any(is_discrete(level.p) for level in model.trace(from_p(1, 1)).levels)


def _codes(model: LatentModel, batch: Batch | None, *, scaled: bool = False) -> list[Tensor]:
    """u of each level at the centre of q(z | x), of p(z) where there is no batch, ``[B, D_l]``; ``scaled`` insists on real units."""
    codes = []
    for number, level in enumerate(level for level in model.trace(at_centre(), batch).levels if level.informed):
        for name, d in (("q(z | x)", level.q), ("p(z)", level.p)):
            if d is not None and (is_discrete(d) or not level.z.is_floating_point()):
                raise InputError(
                    f"level {number}: {name} is {describe(d)}, whose values are discrete: between two of them lies none that the decoder "
                    "was trained on, so there is no path to draw; compare samples or reconstructions instead"
                )
        units = _units(level.p)
        if scaled and units is None:
            raise InputError(
                f"level {number}: p(z) is {describe(level.p)}, which has no standard deviation in closed form to step by: "
                "draw interpolations instead"
            )
        loc, scale = (torch.zeros(()).to(level.z), torch.ones(()).to(level.z)) if units is None else units
        codes.append(((level.z - loc) / scale)[0].flatten(1))
    return codes


def _decode(model: LatentModel, codes: Sequence[Tensor]) -> Frames:
    """The frames of u ``[R, S, D_l]`` a level that tells of x; below these, of values that are missing, all is at its centre."""
    rows, steps = codes[0].shape[:2]

    def pick(number: int, q: Distribution | None, p: Distribution) -> Level:
        if number >= len(codes):
            return at_centre()(number, q, p)
        z = codes[number].reshape(1, rows * steps, *p.event_shape)
        units = _units(p)
        if units is not None:
            z = units[0] + units[1] * z
        return Level(z, p, q, p.log_prob(z), None)

    t = model.trace(pick)
    return Frames(centre(t.px)[0].unflatten(0, (rows, steps)), tuple(z[0].unflatten(0, (rows, steps)) for z in t.z[: len(codes)]))


def _units(p: Distribution) -> tuple[Tensor, Tensor] | None:
    """Mean and standard deviation of every dimension, None where they have no closed form."""
    try:
        return p.mean, p.variance.sqrt()
    except NotImplementedError:
        return None
