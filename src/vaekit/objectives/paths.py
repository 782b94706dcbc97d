r"""Gradients of the encoder along the path of the sample alone, without the score of q.

.. math:: \frac{d}{d\phi} \log w(z(\phi), \phi) = \frac{\partial \log w}{\partial z} \frac{dz}{d\phi}
          - \frac{\partial}{\partial\phi} \log q_\phi(z | x), \qquad E\left[ \frac{\partial}{\partial\phi} \log q_\phi(z | x) \right] = 0

The second term, the score, is log q differentiated at a z that is held fixed; subtracting it leaves the first, which vanishes with the
whole gradient's variance where q is the exact posterior (log w is then constant in z). z is all levels together: in a ladder q(z_l) also
depends on z_<l through its parameters, and that dependence is part of the path. Holding every z_l fixed, above as well as here, and
passing through the networks once more gives the score of all levels and nothing else.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.modules.dropout import _DropoutNd

from vaekit import bounds
from vaekit.dist import Quantised, describe
from vaekit.errors import InputError
from vaekit.models.core import LatentModel, Trace
from vaekit.models.picks import Level, Pick, from_q
from vaekit.objectives.core import Loss, Objective, samples, terms
from vaekit.types import Batch

__all__ = ["STL", "DReG"]


class STL(Objective):
    r"""Sticking the landing: the ELBO, its encoder gradient without the score term.

    .. math:: \nabla_\phi \approx \frac1K \sum_k \frac{\partial}{\partial z_k} \left[ \log p(x, z_k) - \log q(z_k | x) \right]
              \frac{dz_k}{d\phi}

    Unbiased, and 0 for each single sample where q is the exact posterior. The decoder's gradient and the bound are those of
    ``ELBO(k, closed_form=False)``. Roeder, Wu and Duvenaud, "Sticking the Landing", NeurIPS 2017.

    Args:
        k: samples per example.

    A model of several levels is passed through twice.

    Raises:
        InputError: k < 1 or no whole number; at the first step: a posterior without reparameterised samples, one that cannot score a
            given z (a flow without an inverse), or dropout in a model of several levels.

    >>> import torch
    >>> from vaekit import Conditional, VAE, heads, priors
    >>> _ = torch.manual_seed(0)
    >>> model = VAE(
    ...     priors.StandardNormal(2),
    ...     Conditional(torch.nn.Linear(6, 4), heads.Gaussian(2)),
    ...     Conditional(torch.nn.Linear(2, 6), heads.Bernoulli(6)),
    ... )
    >>> loss = STL(k=2)(model, Batch(torch.ones(8, 6)))
    >>> torch.equal(loss.surrogate, -loss.bound), sorted(loss.logs)
    (True, ['log_px', 'rate_0'])
    """

    per_example = True

    def __init__(self, k: int = 1) -> None:
        super().__init__()
        self.k = samples("STL", k)

    def forward(self, model: LatentModel, batch: Batch, step: int = 0) -> Loss:
        t = _reparameterised(model.infer(batch, self.k))
        log_px, rate = t.log_px, t.rate
        log_w = log_px - rate.sum(-1)
        score = _held(model, batch, t).log_qz if len(t.levels) > 1 else _score(t.levels[0])
        path = log_w + (score - score.detach())
        return Loss(-path.mean(0), log_w.mean(0).detach(), terms(log_px, rate))


class DReG(Objective):
    r"""The IWAE bound with doubly reparameterised gradients of the encoder.

    .. math:: \nabla_\phi \approx \sum_k \tilde w_k^2 \frac{\partial \log w_k}{\partial z_k} \frac{dz_k}{d\phi}, \qquad
              \nabla_\theta \approx \sum_k \tilde w_k \frac{\partial \log p(x, z_k)}{\partial\theta}, \qquad
              \tilde w_k = \frac{w_k}{\sum_j w_j}

    Both are unbiased for the gradient of E log (1/K) sum_k w_k; the signal-to-noise ratio of the encoder's grows as sqrt(K), where that
    of ``IWAE`` falls. K = 1 is ``STL()``. Whatever reaches a parameter through z counts as the encoder's, everything else as theta's, so
    a prior made from the encoder (`VampPrior`) is right too. ``logs`` add the effective sample size ``ess``.
    Tucker, Lawson, Gu and Maddison, "Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives", ICLR 2019.

    Args:
        k: samples per example.

    A model of several levels is passed through twice.

    Raises:
        InputError: as `STL`.

    >>> import torch
    >>> from vaekit import Conditional, VAE, heads, priors
    >>> _ = torch.manual_seed(0)
    >>> model = VAE(
    ...     priors.StandardNormal(2),
    ...     Conditional(torch.nn.Linear(6, 4), heads.Gaussian(2)),
    ...     Conditional(torch.nn.Linear(2, 6), heads.Bernoulli(6)),
    ... )
    >>> DReG(k=5)(model, Batch(torch.ones(8, 6))).bound.shape
    torch.Size([8])
    """

    per_example = True

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = samples("DReG", k)

    def forward(self, model: LatentModel, batch: Batch, step: int = 0) -> Loss:
        t = _reparameterised(model.trace(_apart(from_q(self.k)), batch))
        log_px, log_pz, log_qz, rate = t.log_px, t.log_pz, t.log_qz, t.rate
        log_w = (log_px + log_pz - log_qz).detach()
        w = log_w.softmax(0)
        if len(t.levels) > 1:
            held = _held(model, batch, t)
            path = (log_px + log_pz - log_qz) - held.log_w
            surrogate = (w.square() * path + w * held.log_joint).sum(0)
        else:
            z = t.levels[0].z
            if z.requires_grad:  # not so in validation, nor for a posterior without parameters
                z.register_hook(lambda g: g * w.reshape(w.shape + (1,) * (g.dim() - 2)))
            surrogate = (w * (log_px + log_pz) - w.square() * (log_qz - _score(t.levels[0]))).sum(0)
        return Loss(-surrogate, bounds.iwae(log_w), terms(log_px, rate) | {"ess": bounds.ess(log_w)})


def _apart(pick: Pick) -> Pick:
    """The z that p sees is another tensor than the z that q sees: a hook on it weighs the path through log p(x, z) alone. How log q
    depends on the sample differs from posterior to posterior (a flow's density of its own sample never goes back through z)."""

    def apart(number: int, q: Distribution | None, p: Distribution) -> Level:
        level = pick(number, q, p)
        z = level.z.view_as(level.z)
        return replace(level, z=z, log_p=p.log_prob(z))

    return apart


def _reparameterised(t: Trace) -> Trace:
    """The pass, unless its sample is a straight-through one: that has a gradient, but not the one that the identities here are about."""
    for level in t.levels:
        if isinstance(level.q, Quantised):
            raise InputError(
                f"{describe(level.q)} has no reparameterised sample: its straight-through gradient is none that STL and DReG could weigh; "
                "use VQ()"
            )
    return t


def _score(level: Level) -> Tensor:
    """log q at z held fixed, ``[K, B]``: its gradient is the score."""
    if level.q is None:
        raise InputError("this pass has no posterior q(z | x), because it was made without a batch x")
    try:
        return level.q.log_prob(level.z.detach())
    except (InputError, NotImplementedError) as error:
        raise _no_score(error) from error


def _held(model: LatentModel, batch: Batch, t: Trace) -> Trace:
    """The same latents, held fixed, in a second pass through the networks, which must not differ from the first."""
    _check_dropout(model)
    try:
        return model.score(batch, [z.detach() for z in t.z])
    except NotImplementedError as error:
        raise _no_score(error) from error


def _no_score(error: Exception) -> InputError:
    reason = str(error) or "this posterior does not implement it"
    return InputError(f"STL and DReG need log q(z | x) at a z held fixed; ELBO and IWAE do without: {reason}")


def _check_dropout(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, _DropoutNd) and module.training and module.p > 0:
            raise InputError(
                f"{name} is dropout, and a path gradient of several levels passes through the networks twice, with other units left out: "
                "remove the dropout, or use ELBO or IWAE"
            )
