r"""The evidence lower bound.

.. math:: \log p(x) \ge E_{q(z|x)} \left[ \log p(x | z) \right] - \sum_l E \left[ KL(q(z_l | z_{<l}, x) \| p(z_l | z_{<l})) \right]

Kingma and Welling, "Auto-Encoding Variational Bayes", ICLR 2014.
"""

from __future__ import annotations

from vaekit.errors import InputError
from vaekit.models.core import LatentModel, require_kl
from vaekit.objectives.core import Loss, Objective, samples, terms
from vaekit.objectives.rates import Beta, Penalty
from vaekit.objectives.schedules import Schedule
from vaekit.types import Batch

__all__ = ["ELBO"]


class ELBO(Objective):
    r"""bound = (1/K) sum_k [ log p(x | z_k) - sum_l rate_l ]; surrogate = -(1/K) sum_k [ log p(x | z_k) - penalty(rate) ].

    Kingma and Welling, "Auto-Encoding Variational Bayes", ICLR 2014.

    Args:
        k: samples per example.
        closed_form: True insists on the KL in closed form, False samples log q - log p. None takes the closed form where every level
            has one and samples otherwise. Both are unbiased for the same quantity; the closed form usually varies less, but for a q near
            p(z | x), where log w hardly varies at all.
        penalty: how the rate is weighted in the surrogate (`Beta`, `FreeBits`, `Capacity`); the reported bound is always unweighted.

    Raises:
        InputError: k < 1 or no whole number; a penalty that is none; ``closed_form=True`` for a pair without one (at the first step).

    >>> import torch
    >>> from vaekit import Conditional, VAE, heads, priors
    >>> _ = torch.manual_seed(0)
    >>> model = VAE(
    ...     priors.StandardNormal(2),
    ...     Conditional(torch.nn.Linear(6, 4), heads.Gaussian(2)),
    ...     Conditional(torch.nn.Linear(2, 6), heads.Bernoulli(6)),
    ... )
    >>> loss = ELBO(k=2)(model, Batch(torch.ones(8, 6)))
    >>> torch.equal(loss.surrogate, -loss.bound), sorted(loss.logs)
    (True, ['log_px', 'rate_0'])
    """

    compiles = True
    per_example = True

    def __init__(self, k: int = 1, *, closed_form: bool | None = None, penalty: Penalty | None = None) -> None:
        super().__init__()
        if isinstance(penalty, int | float | Schedule):
            raise InputError(f"ELBO(penalty={penalty!r}) is a weight and no penalty: use penalty=Beta({penalty!r})")
        if penalty is not None and not isinstance(penalty, Penalty):
            raise InputError(
                f"ELBO(penalty=...) is a {type(penalty).__name__}: use Beta(...), FreeBits(...), Capacity(...) or another Penalty"
            )
        self.k = samples("ELBO", k)
        self.closed_form = closed_form
        self.penalty = Beta(1.0) if penalty is None else penalty

    def forward(self, model: LatentModel, batch: Batch, step: int = 0) -> Loss:
        t = model.infer(batch, self.k)
        log_px = t.log_px
        kl = require_kl(t) if self.closed_form else None if self.closed_form is False else t.kl
        rate = t.rate if kl is None else kl
        bound = (log_px - rate.sum(-1)).mean(0)
        surrogate = (self.penalty(rate, step) - log_px).mean(0)
        return Loss(surrogate, bound.detach(), terms(log_px, rate))
