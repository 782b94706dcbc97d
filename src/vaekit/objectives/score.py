r"""Gradients of the encoder by its score, for any q, discrete latents too: nothing is differentiated through z.

.. math:: \nabla_\phi E_q[\log w] = E_q\left[ (\log w - b) \, \nabla_\phi \log q_\phi(z | x) \right]

holds for every baseline b that does not depend on this z, since E[nabla log q] = 0; b decides the variance. Baselines here are made of
other samples of the same example, of other steps, or of x. z is all levels together and log q the sum over them.

Williams, "Simple Statistical Gradient-Following Algorithms", Machine Learning 1992; Mnih and Gregor, "Neural Variational Inference and
Learning in Belief Networks", ICML 2014; Mnih and Rezende, "Variational Inference for Monte Carlo Objectives", ICML 2016.
"""

from __future__ import annotations

import abc
from typing import ClassVar

import torch
from torch import Tensor, nn

from vaekit import bounds
from vaekit.errors import InputError
from vaekit.models.core import LatentModel
from vaekit.objectives.core import Loss, Objective, samples, terms
from vaekit.types import Batch

__all__ = ["NVIL", "REINFORCE", "VIMCO", "Baseline", "LeaveOneOut", "RunningMean"]


class Baseline(nn.Module, abc.ABC):
    """log-weights ``[K, B]``, detached -> b, of a shape that broadcasts with them.

    Implementing a Baseline: write ``forward``. b for sample k must not depend on sample k; what is remembered goes into buffers, and
    changes only in training mode.
    """

    per_example: ClassVar[bool] = False
    """As `Objective.per_example`."""

    @abc.abstractmethod
    def forward(self, log_w: Tensor) -> Tensor:
        """b in nats."""


class LeaveOneOut(Baseline):
    r"""b_k = (1/(K-1)) sum_{j != k} log w_j: the other samples of the same example; needs K of 2 or more.

    Raises:
        InputError: K below 2, when it is called.

    >>> LeaveOneOut()(torch.tensor([[1.0], [2.0], [6.0]])).flatten()
    tensor([4.0000, 3.5000, 1.5000])
    """

    per_example = True

    def forward(self, log_w: Tensor) -> Tensor:
        k = log_w.shape[0]
        if k < 2:
            raise InputError(f"LeaveOneOut with k={k}: the baseline is made of the other samples; take k of 2 or more, or RunningMean()")
        return (log_w.sum(0) - log_w) / (k - 1)


class _Running(nn.Module):
    """An exponential moving average of steps before this one, without the weight of its start (0 before the first step)."""

    total: Tensor
    weight: Tensor

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("total", torch.zeros(()))
        self.register_buffer("weight", torch.zeros(()))

    def value(self) -> Tensor:
        return self.total / self.weight.clamp(min=torch.finfo(self.weight.dtype).tiny)

    @torch.no_grad()
    def update(self, value: Tensor) -> None:
        self.total.lerp_(value.to(self.total.dtype), 1 - self.decay)
        self.weight.lerp_(torch.ones_like(self.weight), 1 - self.decay)


class RunningMean(Baseline):
    """b = the mean of log w over earlier steps, forgotten by ``decay`` a step; this step's own samples are not in it.

    Raises:
        InputError: a decay outside of [0, 1).

    >>> baseline = RunningMean(0.5)
    >>> [baseline(torch.full((1, 4), value)).item() for value in (-8.0, -4.0, -4.0)]
    [0.0, -8.0, -5.333333492279053]
    """

    def __init__(self, decay: float = 0.8) -> None:
        super().__init__()
        self._mean = _Running(_decay("RunningMean", decay))

    def forward(self, log_w: Tensor) -> Tensor:
        b = self._mean.value()
        if self.training:
            self._mean.update(log_w.mean())
        return b


class REINFORCE(Objective):
    r"""The ELBO with the score-function gradient of the encoder.

    .. math:: \nabla_\phi \approx \frac1K \sum_k (\log w_k - b_k) \nabla_\phi \log q(z_k | x), \qquad
              \nabla_\theta \approx \frac1K \sum_k \nabla_\theta \log p(x, z_k)

    Any posterior will do whose log q(z | x) has a gradient (that of a code, which is certain, has none). Without a baseline the variance is
    that of log w itself, some hundreds of nats squared for an image.

    Williams, "Simple Statistical Gradient-Following Algorithms", Machine Learning 1992.

    Args:
        k: samples per example.
        baseline: `RunningMean`, `LeaveOneOut` or another `Baseline`; None for b = 0. `NVIL` learns one.

    Raises:
        InputError: k < 1 or no whole number; a baseline that is none; `LeaveOneOut` with k = 1 (at the first step).

    >>> from vaekit import Conditional, VAE, heads, priors
    >>> _ = torch.manual_seed(0)
    >>> model = VAE(
    ...     priors.StandardNormal(2),
    ...     Conditional(torch.nn.Linear(6, 4), heads.Gaussian(2)),
    ...     Conditional(torch.nn.Linear(2, 6), heads.Bernoulli(6)),
    ... )
    >>> REINFORCE(k=2, baseline=LeaveOneOut())(model, Batch(torch.ones(8, 6))).bound.shape
    torch.Size([8])
    """

    per_example = True

    def __init__(self, k: int = 1, *, baseline: Baseline | None = None) -> None:
        super().__init__()
        if baseline is not None and not isinstance(baseline, Baseline):
            raise InputError(
                f"REINFORCE(baseline=...) is a {type(baseline).__name__}: use RunningMean(), LeaveOneOut() or another Baseline; a network "
                "that learns one from x is what NVIL(net) takes"
            )
        self.k = samples("REINFORCE", k)
        self.baseline = baseline

    def forward(self, model: LatentModel, batch: Batch, step: int = 0) -> Loss:
        t = model.infer(batch, self.k, reparam=False)
        log_px, log_qz, rate = t.log_px, t.log_qz, t.rate
        log_w = (log_px - rate.sum(-1)).detach()
        signal = log_w if self.baseline is None else log_w - self.baseline(log_w)
        surrogate = (log_px + t.log_pz + signal * log_qz).mean(0)
        return Loss(-surrogate, bounds.elbo(log_w), terms(log_px, rate))


class NVIL(Objective):
    r"""REINFORCE with a learned baseline C(x), a running mean c and variance normalisation.

    .. math:: \nabla_\phi \approx \frac1K \sum_k \frac{\log w_k - C(x) - c}{\max(1, \sigma)} \, \nabla_\phi \log q(z_k | x)

    C learns by least squares in the same backward pass: the objective's parameters are trained with the model's. c and sigma are moving
    averages over earlier steps; the paper's Algorithm 1 puts the present batch into them first, which makes them depend on these z and
    the gradient slightly biased. Dividing by max(1, sigma) changes the length of the encoder's gradient and not its direction; with
    ``normalise=False`` it is the ELBO's own. ``logs`` add ``baseline_error``, the squared error of C(x) + c.
    Mnih and Gregor, "Neural Variational Inference and Learning in Belief Networks", ICML 2014.

    Args:
        net: C, x ``[B, *]`` -> one number per example, ``[B]`` or ``[B, 1]``; missing entries of x are 0.
        k: samples per example.
        decay: of the moving averages.
        normalise: divide by max(1, sigma).

    Raises:
        InputError: k < 1 or no whole number; a decay outside of [0, 1); a net that is no module, or gives other than one number per
            example (at the first step).

    >>> from vaekit import Conditional, VAE, heads, priors
    >>> _ = torch.manual_seed(0)
    >>> model = VAE(
    ...     priors.StandardNormal(2),
    ...     Conditional(torch.nn.Linear(6, 4), heads.Gaussian(2)),
    ...     Conditional(torch.nn.Linear(2, 6), heads.Bernoulli(6)),
    ... )
    >>> sorted(NVIL(nn.Linear(6, 1))(model, Batch(torch.ones(8, 6))).logs)
    ['baseline_error', 'log_px', 'rate_0']
    """

    def __init__(self, net: nn.Module, k: int = 1, *, decay: float = 0.8, normalise: bool = True) -> None:
        super().__init__()
        if not isinstance(net, nn.Module):
            raise InputError(f"NVIL(net={net!r}) is no module: give a network from x to one number, nn.mlp(shape, [100], 1)")
        self.net = net
        self.k = samples("NVIL", k)
        self.normalise = normalise
        self._mean = _Running(_decay("NVIL", decay))
        self._variance = _Running(decay)

    def forward(self, model: LatentModel, batch: Batch, step: int = 0) -> Loss:
        t = model.infer(batch, self.k, reparam=False)
        log_px, log_qz, rate = t.log_px, t.log_qz, t.rate
        log_w = (log_px - rate.sum(-1)).detach()
        error = log_w - self._baseline(batch)
        centred = error - self._mean.value()
        scale = self._variance.value().sqrt().clamp(min=1.0) if self.normalise else torch.ones_like(self._mean.total)
        signal = centred.detach() / scale
        surrogate = (0.5 * centred.square() / scale - (log_px + t.log_pz + signal * log_qz)).mean(0)
        if self.training:
            self._mean.update(error.detach().mean())
            self._variance.update(error.detach().var(correction=0))
        logs = terms(log_px, rate) | {"baseline_error": centred.detach().square().mean(0)}
        return Loss(surrogate, bounds.elbo(log_w), logs)

    def _baseline(self, batch: Batch) -> Tensor:
        c: Tensor = self.net(batch.input)
        if c.shape not in ((batch.size,), (batch.size, 1)):
            raise InputError(
                f"NVIL: the baseline network gives {list(c.shape)} for {batch.size} examples: it must give one number each, [B] or [B, 1]"
            )
        return c.reshape(batch.size)


class VIMCO(Objective):
    r"""The IWAE bound with score-function gradients whose baselines come from the other samples.

    .. math:: \nabla_\phi \approx \sum_k (L - L_{-k}) \nabla_\phi \log q(z_k | x) - \tilde w_k \nabla_\phi \log q(z_k | x), \qquad
              L = \log \frac1K \sum_j w_j, \qquad
              L_{-k} = \log \frac1K \left( \sum_{j \ne k} w_j + \exp \frac{1}{K-1} \sum_{j \ne k} \log w_j \right)

    L_{-k} puts the geometric mean of the others in the place of w_k. The decoder's gradient is the IWAE's. ``logs`` add the effective
    sample size ``ess``. Mnih and Rezende, "Variational Inference for Monte Carlo Objectives", ICML 2016.

    Args:
        k: samples per example, 2 or more. Memory for the baselines is K^2 B numbers.

    Raises:
        InputError: k < 2, or no whole number.

    >>> VIMCO(1)
    Traceback (most recent call last):
    vaekit.errors.InputError: VIMCO(k=1): a sample's baseline is made of the other samples; take k of 2 or more, or REINFORCE or NVIL
    """

    per_example = True

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = samples("VIMCO", k)
        if self.k < 2:
            raise InputError(f"VIMCO(k={k}): a sample's baseline is made of the other samples; take k of 2 or more, or REINFORCE or NVIL")

    def forward(self, model: LatentModel, batch: Batch, step: int = 0) -> Loss:
        t = model.infer(batch, self.k, reparam=False)
        log_px, log_qz, rate = t.log_px, t.log_qz, t.rate
        log_w = log_px - rate.sum(-1)
        bound = bounds.iwae(log_w)
        signal = bound.detach() - _others(log_w.detach())
        return Loss(-bound - (signal * log_qz).sum(0), bound.detach(), terms(log_px, rate) | {"ess": bounds.ess(log_w.detach())})


def _others(log_w: Tensor) -> Tensor:
    """L_{-k}, ``[K, B]``. The K x K matrix keeps every digit; a difference of sums would lose them where one w dominates."""
    k = log_w.shape[0]
    mean = (log_w.sum(0) - log_w) / (k - 1)
    own = torch.eye(k, dtype=torch.bool, device=log_w.device).unsqueeze(-1)
    return bounds.iwae(torch.where(own, mean.unsqueeze(0), log_w.unsqueeze(1)))  # [j, k, B]: w_j, but w_k's stand-in at j = k


def _decay(name: str, decay: float) -> float:
    if not 0 <= decay < 1:
        raise InputError(f"{name}(decay={decay}): the decay lies in [0, 1); 0.8 forgets a step by a fifth each time")
    return float(decay)
