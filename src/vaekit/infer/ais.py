r"""Annealed importance sampling: from a density that can be sampled to the posterior, by small steps whose weights multiply.

.. math:: \log f_\beta(z) = \log f_0(z) + \beta \, \delta(z), \qquad \delta = \log p(x, z) - \log f_0(z), \qquad
          0 = \beta_0 < \beta_1 < \dots < \beta_{T-1} = 1

.. math:: \log w = \sum_{t=1}^{T-1} (\beta_t - \beta_{t-1}) \, \delta(z_{t-1}), \qquad z_0 \sim f_0, \quad
          z_t \sim \mathcal T_t(\cdot | z_{t-1}), \qquad E[w] = p(x)

:math:`\mathcal T_t` is one transition of Hamiltonian Monte Carlo that leaves f at beta_t as it is; f_0 is normalised. log w lies below
log p(x) on average, and the log of a mean over K chains less so. The same walk backwards, from an *exact* sample of the posterior to
f_0, has E[1 / w] = 1 / p(x): minus the log of the mean of 1 / w lies above log p(x) on average (Grosse, Ghahramani and Adams, 2015).

Both need transitions that do not depend on the chains they move. A step size that follows the acceptance of those very chains breaks
this, and E[w] = p(x) with it. So `plan` runs other chains with other random numbers first, and fixes temperatures and step sizes; `ais`
and `reverse_ais` use them as they are.

=====================  =====================================================================================
``prior_path``         f_0 = p(z), of all levels: works for any model, needs no q
``posterior_path``     f_0 = q(z | x): fewer temperatures where q is near
``sigmoidal, linear``  schedules: tensors of T betas
``Adaptive``           betas such that each step costs the same share of the effective sample size
=====================  =====================================================================================

Neal, "Annealed importance sampling", Statistics and Computing, 2001; Wu, Burda, Salakhutdinov and Grosse, "On the quantitative analysis of
decoder-based generative models", ICLR 2017; Zhou, Johansen and Aston, "Toward automatic model comparison", JCGS 2016.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from vaekit.errors import InputError
from vaekit.infer.adapt import DualAveraging, nudged
from vaekit.infer.hmc import HMC
from vaekit.infer.path import Path, Point, point, transition
from vaekit.infer.schedule import Adaptive, checked

__all__ = ["Annealed", "Plan", "ais", "plan", "refreshed", "reverse_ais"]

SEARCH = 30
"""Transitions at the first temperature that look for its step size."""
ADAPTING = 100
"""Transitions along the temperatures that follow it; fewer than the temperatures where these are many, as it changes slowly."""
RATE = 0.1
"""The most by which log epsilon grows in a transition of the preliminary pass."""


class Plan(NamedTuple):
    """What the pass that counts keeps fixed.

    Attributes:
        betas: ``[T]`` float64, from 0 to 1; from 1 to 0 for the way back.
        epsilon: step size at each beta and example, ``[T, B]``; the one at 0 is not used.
        kernel: leapfrog steps and their jitter.
    """

    betas: Tensor
    epsilon: Tensor
    kernel: HMC

    @property
    def backward(self) -> Plan:
        """The same from the other end."""
        return Plan(self.betas.flip(0), self.epsilon.flip(0), self.kernel)


class Annealed(NamedTuple):
    """What `ais` and `reverse_ais` return.

    Attributes:
        log_w: ``[K, B]`` float64, nats. Forwards E[w] = p(x); backwards w is that of the same path walked forwards, E[1 / w] = 1 / p(x).
        z: where the chains ended, ``[K, B, D]``; forwards, with w as weights, samples of the posterior.
        accept: mean acceptance statistic over the K chains at the T - 2 inner temperatures as they came, ``[T - 2, B]``.
    """

    log_w: Tensor
    z: Tensor
    accept: Tensor


def plan(
    path: Path,
    schedule: Tensor | Adaptive,
    *,
    kernel: HMC | None = None,
    chains: int = 16,
    target: float = 0.8,
    epsilon: float = 0.1,
    most: int = 10_000,
) -> Plan:
    """The preliminary pass: temperatures and a step size for each, from ``chains`` of its own for each example.

    It takes 30 transitions at the first inner temperature and about 100 on the way (at least one at each temperature of an adaptive
    schedule), whose random numbers are spent before those of the pass that counts.

    Args:
        path: see `Path`.
        schedule: betas ``[T]`` from 0 to 1, or `Adaptive`.
        kernel: default ``HMC(10, jitter=0.5)``.
        chains: whose mean acceptance steers the step size of their example.
        target: acceptance that the step sizes aim at.
        epsilon: where the search for them begins.
        most: temperatures that an adaptive schedule may take.

    Raises:
        InputError: betas that do not rise from 0 to 1; no chains; an adaptive schedule that would not end; see also `prior_path`.
    """
    if chains < 1:
        raise InputError(f"plan(chains={chains}): the preliminary pass needs at least 1 chain")
    kernel = HMC(10, jitter=0.5) if kernel is None else kernel
    at = point(path.terms, path.draw(chains))
    steps = torch.full_like(at.delta[0], epsilon)
    first = schedule.after(0.0, at.delta) if isinstance(schedule, Adaptive) else float(checked(schedule)[1])
    search = DualAveraging.begin(steps)
    for _ in range(SEARCH):
        at, accept = transition(path.terms, at, first, search.epsilon, kernel)
        search = search.update(accept.mean(0), target)
    steps = search.final

    def adapted(at: Point, beta: float, steps: Tensor, repeats: int) -> tuple[Point, Tensor]:
        for _ in range(repeats):
            at, accept = transition(path.terms, at, beta, steps, kernel)
            steps = nudged(steps, accept.mean(0), target, rate=RATE)
        return at, steps

    if isinstance(schedule, Adaptive):
        repeats = max(1, round(20 * math.sqrt(schedule.drop)))  # the scale of f changes by sqrt(drop) or less at a step
        betas, found = [0.0, first], [steps, steps]
        while betas[-1] < 1:
            if len(betas) >= most:
                raise InputError(
                    f"the adaptive schedule has reached beta = {betas[-1]:.3g} after {most} temperatures: allow it more of them, "
                    "or a larger drop"
                )
            betas.append(schedule.after(betas[-1], at.delta))
            at, steps = adapted(at, betas[-1], steps, repeats)
            found.append(steps)
        return Plan(torch.tensor(betas, dtype=torch.float64), torch.stack(found), kernel)
    last = len(schedule) - 1
    visits = torch.linspace(1, last, min(last, ADAPTING)).round().long()
    found = []
    for t in visits.tolist():
        at, steps = adapted(at, float(schedule[t]), steps, math.ceil(ADAPTING / len(visits)))
        found.append(steps)
    return Plan(schedule.double().cpu(), _between(visits.to(steps.device), torch.stack(found), last), kernel)


def ais(path: Path, k: int, plan: Plan) -> Annealed:
    """K chains for each example from f_0 to the target; log of the mean of w is a lower bound on log p(x) in expectation.

    Raises:
        InputError: k below 1; a path whose densities have another shape or no gradient.

    >>> from vaekit import VAE, Batch, Conditional, heads, priors
    >>> from vaekit.infer import prior_path, sigmoidal
    >>> _ = torch.manual_seed(0)
    >>> same = torch.nn.Identity()
    >>> model = VAE(priors.StandardNormal(2), same, Conditional(same, heads.GaussianFixed(2, 1.0)))  # x ~ N(0, 2 I)
    >>> path = prior_path(model, Batch(torch.ones(1, 2)))
    >>> found = ais(path, 100, plan(path, sigmoidal(20), kernel=HMC(3)))
    >>> exact = torch.distributions.Normal(0.0, 2**0.5).log_prob(torch.ones(2)).sum()
    >>> bool((found.log_w.exp().mean().log() - exact).abs() < 0.1)
    True
    """
    if k < 1:
        raise InputError(f"ais(k={k}): at least 1 chain is needed")
    return _annealed(path, path.draw(k), plan)


def reverse_ais(path: Path, z: Tensor, plan: Plan) -> Annealed:
    """Chains from exact posterior samples z ``[K, B, D]`` back to f_0 by ``plan``, the one of the way there; minus the log of the mean of 1
    / w bounds log p(x) from above.

    The K chains of an example may begin at one and the same exact sample: each has E[1 / w] = 1 / p(x), and so has their mean, however
    dependent. Only the spread of their weights then says less than the whole about the error of that mean; see `refreshed`.
    """
    found = _annealed(path, z, plan.backward)
    return found._replace(log_w=-found.log_w)


def refreshed(path: Path, z: Tensor, plan: Plan, transitions: int) -> Tensor:
    """z ``[K, B, D]`` after so many transitions at the target, with the step sizes that ``plan`` found there: an exact posterior sample
    stays one, and copies of it part."""
    at = point(path.terms, z)
    for _ in range(transitions):
        at, _accept = transition(path.terms, at, 1.0, plan.epsilon[-1], plan.kernel)
    return at.z


def _annealed(path: Path, z: Tensor, plan: Plan) -> Annealed:
    """log w estimates the log of the ratio of the last normaliser to the first, whichever the direction."""
    at = point(path.terms, z)
    log_w = torch.zeros_like(at.delta, dtype=torch.float64)
    accepted = [plan.epsilon.new_empty(0, z.shape[1])]
    inner = len(plan.betas) - 2
    for t, (before, beta) in enumerate(pairwise(plan.betas.tolist()), 1):
        log_w = log_w + (beta - before) * at.delta.double()
        if t <= inner:
            at, accept = transition(path.terms, at, beta, plan.epsilon[t], plan.kernel)
            accepted.append(accept.mean(0, keepdim=True))
    return Annealed(log_w, at.z, torch.cat(accepted))


def _between(visits: Tensor, found: Tensor, last: int) -> Tensor:
    """Step sizes at 0 .. ``last`` from those at ``visits [V]``: ``[V, B] -> [last + 1, B]``, linear in log epsilon."""
    t = torch.arange(last + 1, device=visits.device).clamp(min=1)
    high = torch.searchsorted(visits, t)
    low = (high - 1).clamp(min=0)
    share = ((t - visits[low]) / (visits[high] - visits[low]).clamp(min=1)).to(found.dtype).unsqueeze(-1)
    return torch.exp(torch.lerp(found.log()[low], found.log()[high], share))
