r"""Wake-sleep and reweighted wake-sleep: every term a log-likelihood of samples that are held fixed, so that any latent will do.

.. math:: \text{wake } \theta: \; \sum_k \bar w_k \nabla_\theta \log p(x, z_k), \quad
          \text{wake } \phi: \; \sum_k \bar w_k \nabla_\phi \log q(z_k | x), \quad
          \text{sleep } \phi: \; \nabla_\phi \log q(z | x),\; x, z \sim p(x, z)

with z_k ~ q(z | x) and self-normalised weights w_k = p(x, z_k) / q(z_k | x). The wake phases follow the gradients of log p(x) and of
-KL(p(z|x) || q), up to a bias of order 1 / K; the sleep phase follows -E_{p(x)} KL(p(z|x) || q) without bias. No function has all of them
as its gradient: each term may reach its own parameters alone.

Hinton, Dayan, Frey and Neal, "The wake-sleep algorithm for unsupervised neural networks", Science 1995; Bornschein and Bengio,
"Reweighted Wake-Sleep", ICLR 2015.
"""

from __future__ import annotations

import weakref

import torch
from torch import Tensor

from vaekit import bounds
from vaekit.errors import InputError
from vaekit.models.core import LatentModel
from vaekit.objectives.core import Loss, Objective, samples, terms
from vaekit.tensors import evaluating
from vaekit.types import Batch

__all__ = ["RWS", "WakeSleep"]


class WakeSleep(Objective):
    r"""surrogate = -log p(x, z) - log q(z' | x'), with z ~ q(z | x) and x', z' ~ p(x, z), all of them held fixed.

    The reported bound is the ELBO, log p(x, z) - log q(z | x) at the same z; ``logs`` add ``log_q_dream``, log q(z' | x').

    Hinton, Dayan, Frey and Neal, "The wake-sleep algorithm for unsupervised neural networks", Science 1995.

    Raises:
        InputError: at the first step, a parameter that p(x, z) and q(z | x) share (a `VampPrior`, a ladder whose merge learns): the two
            phases would pull it apart.

    >>> from vaekit import Conditional, VAE, heads, priors
    >>> _ = torch.manual_seed(0)
    >>> model = VAE(
    ...     priors.StandardNormal(2),
    ...     Conditional(torch.nn.Linear(6, 4), heads.Gaussian(2)),
    ...     Conditional(torch.nn.Linear(2, 6), heads.Bernoulli(6)),
    ... )
    >>> loss = WakeSleep()(model, Batch(torch.ones(8, 6)))
    >>> loss.bound.shape, sorted(loss.logs)
    (torch.Size([8]), ['log_px', 'log_q_dream', 'rate_0'])
    """

    per_example = True

    def __init__(self) -> None:
        super().__init__()
        self._apart = _Apart()

    def forward(self, model: LatentModel, batch: Batch, step: int = 0) -> Loss:
        self._apart.check(self, model, batch)
        t = model.infer(batch, 1, reparam=False)
        log_px, rate = t.log_px, t.rate
        log_q_dream = model.dream(batch.size, context=batch.c).log_qz[0]
        bound = (log_px - rate.sum(-1))[0].detach()
        return Loss(-(log_px + t.log_pz)[0] - log_q_dream, bound, terms(log_px, rate) | {"log_q_dream": log_q_dream.detach()})


class RWS(Objective):
    r"""surrogate = -sum_k w_k log p(x, z_k) - log q, with w the normalised weights of K samples z_k ~ q(z | x), held fixed.

    The term of q is the wake phase's, sum_k w_k log q(z_k | x), the sleep phase's, log q(z' | x') of a dream, or the mean of both. The
    reported bound is that of `IWAE` with the same K; ``logs`` add ``ess`` and, with the sleep phase, ``log_q_dream``.

    Bornschein and Bengio, "Reweighted Wake-Sleep", ICLR 2015.

    Args:
        k: samples per example.
        wake_phi: train q on the weighted samples of the data.
        sleep_phi: train q on dreams.

    Raises:
        InputError: k < 1 or no whole number; neither phase for q; the wake phase for q with k = 1, where the weight is 1 and the mean
            gradient 0; at the first step, a parameter that p(x, z) and q(z | x) share.

    >>> from vaekit import Conditional, VAE, heads, priors
    >>> _ = torch.manual_seed(0)
    >>> model = VAE(
    ...     priors.StandardNormal(2),
    ...     Conditional(torch.nn.Linear(6, 4), heads.Gaussian(2)),
    ...     Conditional(torch.nn.Linear(2, 6), heads.Bernoulli(6)),
    ... )
    >>> loss = RWS(5)(model, Batch(torch.ones(8, 6)))
    >>> loss.bound.shape, sorted(loss.logs)
    (torch.Size([8]), ['ess', 'log_px', 'rate_0'])
    """

    per_example = True

    def __init__(self, k: int, *, wake_phi: bool = True, sleep_phi: bool = False) -> None:
        super().__init__()
        self.k = samples("RWS", k)
        if not (wake_phi or sleep_phi):
            raise InputError("RWS(wake_phi=False, sleep_phi=False) never trains q(z | x): choose at least one of the two")
        if wake_phi and self.k == 1:
            raise InputError(
                "RWS(k=1, wake_phi=True): one sample has weight 1 and its gradient of log q is noise of mean 0; use WakeSleep()"
            )
        self.wake_phi = wake_phi
        self.sleep_phi = sleep_phi
        self._apart = _Apart()

    def forward(self, model: LatentModel, batch: Batch, step: int = 0) -> Loss:
        self._apart.check(self, model, batch)
        t = model.infer(batch, self.k, reparam=False)
        log_px, rate = t.log_px, t.rate
        log_w = (log_px - rate.sum(-1)).detach()
        w = log_w.softmax(0)
        logs = terms(log_px, rate) | {"ess": bounds.ess(log_w)}
        phi: list[Tensor] = []
        if self.wake_phi:
            phi.append((w * t.log_qz).sum(0))
        if self.sleep_phi:
            phi.append(model.dream(batch.size, context=batch.c).log_qz[0])
            logs["log_q_dream"] = phi[-1].detach()
        surrogate = -(w * (log_px + t.log_pz)).sum(0) - torch.stack(phi).mean(0)
        return Loss(surrogate, bounds.iwae(log_w), logs)


class _Apart:
    """Remembers the last model whose p and q were seen to share no parameter: looking costs two backward passes."""

    def __init__(self) -> None:
        self.seen: weakref.ref[LatentModel] | None = None

    def check(self, objective: Objective, model: LatentModel, batch: Batch) -> None:
        blind = torch.compiler.is_compiling() or torch.is_inference_mode_enabled()  # in which there is no gradient to look at
        if blind or (self.seen is not None and self.seen() is model):
            return
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        devices = [batch.x.device] if batch.x.is_cuda else []
        # A step is the same whether it was looked at or not: neither its noise nor the averages of a batch normalisation move.
        with torch.enable_grad(), torch.random.fork_rng(devices), evaluating(model):
            t = model.infer(batch, 1, reparam=False)
            reached = [_reached(log_p, [p for _, p in named]) for log_p in (t.log_joint, t.log_qz)]
        both = [name for (name, _), a, b in zip(named, *reached, strict=True) if a and b]
        if both:
            raise InputError(
                f"{type(objective).__name__}: {both[0]} is a parameter of both p(x, z) and q(z | x), and the phases of the two would "
                "each move it for their own end: give each its own, or use ELBO or IWAE"
            )
        self.seen = weakref.ref(model)


def _reached(log_p: Tensor, parameters: list[Tensor]) -> list[bool]:
    """Which parameters a log-density depends on."""
    if not log_p.requires_grad:
        return [False] * len(parameters)
    return [g is not None for g in torch.autograd.grad(log_p.sum(), parameters, retain_graph=True, allow_unused=True)]
