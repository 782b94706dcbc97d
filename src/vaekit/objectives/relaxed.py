r"""Discrete latents, trained by a gradient that passes through the sample. The estimators are biased; what they report is not.

.. math:: \text{bound} = E_{q(z|x)} [\log p(x | z)] - KL(q(z | x) \| p(z)), \qquad z \text{ discrete}

The gradient is taken of something else, which is the whole difference between the estimators (z~ is the relaxed sample, lambda the
temperature):

==================================================  ==================================================  ============================
objective                                           surrogate is minus                                  gradient through
==================================================  ==================================================  ============================
``Relaxed(temperature=l)``                          log p(x | z~) - log q_l(z~ | x) / p_l(z~)           z~ (Concrete)
``Relaxed(temperature=l, closed_form=True)``        log p(x | z~) - KL(q || p)                          z~ (Gumbel-softmax)
``Relaxed(temperature=l, straight_through=True)``   log p(x | z) - KL(q || p)                           z, as if it were z~
``StraightThrough()``                               log p(x | z) - KL(q || p)                           z, as if it were E z
==================================================  ==================================================  ============================

The first alone is a bound: on log p_l(x) of the relaxed model, whose prior and posterior are both relaxed. That is why it is the default
of the soft pass. But its rate stays above the discrete one however small l is: at equal temperatures it is the KL of two logistic
variables at every l. In the second the KL is that of other variables than the sample, so that it bounds nothing (a decoder may read more
from values between the discrete ones than the KL charges for); its gradient tends to the exact one as l -> 0, so it is the one to anneal.
Hard samples are those of the discrete model, for which the closed form is exact.

Maddison, Mnih and Teh, ICLR 2017; Jang, Gu and Poole, ICLR 2017; Bengio, Leonard and Courville, "Estimating or Propagating Gradients
Through Stochastic Neurons for Conditional Computation", 2013.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vaekit.dist import relaxed
from vaekit.errors import InputError
from vaekit.models.core import LatentModel, Trace, require_kl
from vaekit.models.relaxed import from_relaxed, from_straight_through
from vaekit.objectives.core import Loss, Objective, samples, terms
from vaekit.objectives.schedules import Schedule, as_schedule
from vaekit.types import Batch

__all__ = ["Relaxed", "StraightThrough"]


class Relaxed(Objective):
    r"""Concrete relaxation, Gumbel-softmax, and straight-through Gumbel-softmax: see the table of `vaekit.objectives.relaxed`.

    ``bound`` and ``logs`` are those of the discrete model: a soft pass is followed by a discrete one without gradient, and in evaluation
    mode, where no gradients are recorded, there is only the discrete one. The relaxed bound is minus the surrogate.

    Maddison, Mnih and Teh, "The Concrete Distribution", ICLR 2017; Jang, Gu and Poole, "Categorical Reparameterization with
    Gumbel-Softmax", ICLR 2017.

    Args:
        k: samples per example.
        temperature: lambda of q, a number or a schedule: ``Exponential(1.0, 0.5, steps)`` anneals. High: biased; low: noisy.
        prior_temperature: lambda of p, used by the relaxed densities alone; None for the same. Maddison et al. found q at 2/3 and p at 1/2
            best for binary latents.
        straight_through: discrete samples forwards, the gradient of the relaxed ones backwards.
        closed_form: True takes the KL of the discrete model in closed form, False log q - log p at the sample. None is False for
            the soft pass and, for the straight-through one, the closed form where every level has one.

    Raises:
        InputError: k < 1 or no whole number; a temperature that is not positive; a prior temperature where no relaxed density is
            used; at the first step, a prior or posterior that is neither Bernoulli nor OneHot.

    >>> import torch
    >>> from vaekit import Conditional, VAE, heads, priors
    >>> _ = torch.manual_seed(0)
    >>> model = VAE(
    ...     priors.Bernoulli(4),
    ...     Conditional(torch.nn.Linear(6, 4), heads.Bernoulli(4)),
    ...     Conditional(torch.nn.Linear(4, 6), heads.Bernoulli(6)),
    ... )
    >>> loss = Relaxed(temperature=0.5)(model, Batch(torch.ones(8, 6)))
    >>> loss.surrogate.shape, loss.bound.shape, sorted(loss.logs)
    (torch.Size([8]), torch.Size([8]), ['log_px', 'rate_0'])
    """

    per_example = True

    def __init__(
        self,
        k: int = 1,
        *,
        temperature: float | Schedule = 0.5,
        prior_temperature: float | Schedule | None = None,
        straight_through: bool = False,
        closed_form: bool | None = None,
    ) -> None:
        super().__init__()
        if prior_temperature is not None and (straight_through or closed_form):
            raise InputError(
                f"Relaxed(prior_temperature={prior_temperature}): only the relaxed densities have one, and straight_through and "
                "closed_form=True do not use them; leave it out"
            )
        self.k = samples("Relaxed", k)
        self.temperature = _temperature("temperature", temperature)
        self.prior_temperature = None if prior_temperature is None else _temperature("prior_temperature", prior_temperature)
        self.straight_through = straight_through
        self.closed_form = closed_form
        self.schedules = tuple(s for s in (self.temperature, self.prior_temperature) if s is not None)

    def forward(self, model: LatentModel, batch: Batch, step: int = 0) -> Loss:
        if self.straight_through:
            return _discrete(model.trace(from_relaxed(self.k, self.temperature(step), straight_through=True), batch), self.closed_form)
        if not self.training and not torch.is_grad_enabled():
            t = model.infer(batch, self.k, reparam=False)
            for level in t.levels:  # what training would refuse
                if level.q is not None:
                    relaxed(level.q, 1.0)
                    relaxed(level.p, 1.0)
            return _discrete(t, None)
        prior = None if self.prior_temperature is None else self.prior_temperature(step)
        t = model.trace(from_relaxed(self.k, self.temperature(step), prior_temperature=prior), batch)
        rate = require_kl(t) if self.closed_form else t.rate
        surrogate = (rate.sum(-1) - t.log_px).mean(0)
        with torch.no_grad():
            true = _discrete(model.infer(batch, self.k, reparam=False), None)
        return Loss(surrogate, true.bound, true.logs)


class StraightThrough(Objective):
    r"""The straight-through estimator: z ~ q(z | x) forwards, dz / dphi = d E[z] / dphi backwards.

    Not the same as ``Relaxed(temperature=1, straight_through=True)``: there the gradient is that of a relaxed sample drawn with the same
    noise as z, dz~ = z~ (1 - z~) dl for a binary variable; here it is its mean's, p (1 - p) dl, whatever z came out.

    Bengio, Leonard and Courville, "Estimating or Propagating Gradients Through Stochastic Neurons for Conditional Computation", 2013.

    Args:
        k: samples per example.
        closed_form: True insists on the KL in closed form, False samples log q - log p, whose gradient then also passes through z. None
            takes the closed form where every level has one.

    Raises:
        InputError: k < 1 or no whole number; at the first step, a posterior that is neither Bernoulli nor OneHot.

    >>> from vaekit import Conditional, VAE, heads, priors
    >>> from vaekit.nn import mlp
    >>> _ = torch.manual_seed(0)
    >>> model = VAE(
    ...     priors.OneHot((2, 3)),
    ...     Conditional(torch.nn.Linear(6, 6), heads.OneHot((2, 3))),
    ...     Conditional(mlp((2, 3), [], 6), heads.Bernoulli(6), event_dim=2),
    ... )
    >>> loss = StraightThrough()(model, Batch(torch.ones(8, 6)))
    >>> torch.equal(loss.surrogate, -loss.bound)
    True
    """

    per_example = True

    def __init__(self, k: int = 1, *, closed_form: bool | None = None) -> None:
        super().__init__()
        self.k = samples("StraightThrough", k)
        self.closed_form = closed_form

    def forward(self, model: LatentModel, batch: Batch, step: int = 0) -> Loss:
        return _discrete(model.trace(from_straight_through(self.k), batch), self.closed_form)


def _discrete(t: Trace, closed_form: bool | None) -> Loss:
    """The ELBO of discrete samples; its gradient is that of the way in which they were made."""
    log_px = t.log_px
    kl: Tensor | None = require_kl(t) if closed_form else None if closed_form is False else t.kl
    rate = t.rate if kl is None else kl
    bound = (log_px - rate.sum(-1)).mean(0)
    return Loss(-bound, bound.detach(), terms(log_px, rate))


def _temperature(name: str, value: float | Schedule) -> Schedule:
    schedule = as_schedule(value)
    for step in (0, schedule.settled or 0):
        if not schedule(step) > 0:
            raise InputError(f"Relaxed({name}={schedule(step)} at step {step}): a relaxation needs a positive temperature")
    return schedule
