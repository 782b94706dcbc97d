r"""log p(x) between two bounds: annealed importance sampling from below and, on data that the model made, from above.

.. math:: E\Big[\log \frac1K \sum_k w_k\Big] \le \log p(x) \le E\Big[-\log \frac1K \sum_k \frac1{w_k}\Big]

On the left the chains run from p(z) or q(z | x) to the posterior, on the right from the posterior back (`vaekit.infer.reverse_ais`). The
right needs exact samples of the posterior, which are known for simulated data: after z ~ p(z), x ~ p(x | z), z is one sample of p(z | x).
How far the two are apart there says how good the left one is; it carries over to real data as far as these are like the simulated ones.

Grosse, Ghahramani and Adams, "Sandwiching the marginal likelihood using bidirectional Monte Carlo", 2015; Wu, Burda, Salakhutdinov and
Grosse, "On the quantitative analysis of decoder-based generative models", ICLR 2017.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vaekit.bounds import ess, iwae
from vaekit.data.core import Split
from vaekit.errors import InputError
from vaekit.evaluate.estimates import LogLikelihood
from vaekit.evaluate.importance import importance_log_likelihood, require_likelihood
from vaekit.evaluate.pareto import k_hat
from vaekit.evaluate.passes import device_of, observing
from vaekit.evaluate.stream import blocks, check_finite, entries, tile
from vaekit.infer import HMC, Adaptive, Path, Plan, ais, plan, prior_path, refreshed, reverse_ais, sigmoidal
from vaekit.matmul import matching_matmul
from vaekit.models.core import LatentModel, Trace
from vaekit.models.picks import at_centre, from_p
from vaekit.types import Batch

__all__ = ["Annealing", "Sandwich", "SideBySide", "annealed_log_likelihood", "bdmc", "side_by_side"]

Watch = Callable[[int, int], None]


@dataclass(frozen=True)
class Annealing:
    """How to get from a density that can be sampled to the posterior.

    Attributes:
        temperatures: T; where the schedule is `Adaptive`, the most that it may take.
        leapfrogs: of each transition; the decoder is called T x ``leapfrogs`` times for every chain.
        start: `prior_path`, or `posterior_path` to begin at q(z | x).
        schedule: T -> betas ``[T]``: `sigmoidal` or `linear`; or `Adaptive`.
        chains: of the preliminary pass that sets the step sizes, for each example; see `vaekit.infer.plan`.
        refresh: transitions at the posterior that part the K copies of the one exact sample before they anneal backwards.

    Raises:
        InputError: temperatures below 2, leapfrogs or chains below 1, refresh below 0.
    """

    temperatures: int = 1000
    leapfrogs: int = 10
    start: Callable[[LatentModel, Batch], Path] = prior_path
    schedule: Callable[[int], Tensor] | Adaptive = sigmoidal
    chains: int = 16
    refresh: int = 50

    def __post_init__(self) -> None:
        for name, least in (("temperatures", 2), ("leapfrogs", 1), ("chains", 1), ("refresh", 0)):
            if getattr(self, name) < least:
                raise InputError(f"Annealing({name}={getattr(self, name)}): at least {least} is needed")

    def plan(self, path: Path) -> Plan:
        """`vaekit.infer.plan` with these settings."""
        schedule = self.schedule if isinstance(self.schedule, Adaptive) else self.schedule(self.temperatures)
        return plan(path, schedule, kernel=HMC(self.leapfrogs, jitter=0.5), chains=self.chains, most=self.temperatures)


@dataclass(frozen=True)
class Sandwich:
    """What `bdmc` found on n examples that the model made.

    Attributes:
        lower: the bounds of forward annealing; their means over repetitions lie below log p(x).
        upper: those of reverse annealing, which lie above. The error of one example is that of K independent chains, and they come from
            one exact sample: it is too small where ``Annealing.refresh`` is. ``upper.se`` and `width_se` rest on independent examples and
            hold however dependent the chains.
        temperatures: T; the most of any batch where it was found adaptively.
        x: the examples, ``[n, *]``.
    """

    lower: LogLikelihood
    upper: LogLikelihood
    temperatures: int
    x: Tensor

    @property
    def widths(self) -> Tensor:
        """upper - lower of each example, ``[n]`` nats."""
        return self.upper.log_px - self.lower.log_px

    @property
    def width(self) -> float:
        """Their mean: neither bound is further than this from log p(x) on average."""
        return float(self.widths.mean())

    @property
    def width_se(self) -> float:
        """Its standard error over the examples; NaN for a single one."""
        return float(self.widths.std() / math.sqrt(len(self.widths))) if len(self.widths) > 1 else math.nan

    def __str__(self) -> str:
        return (
            f"Over {len(self.lower)} examples that the model made, log p(x) lies between {self.lower.mean:.2f} and {self.upper.mean:.2f} "
            f"nats on average: the bounds are {self.width:.3f} +- {self.width_se:.3f} nats apart, and neither is off by more than that."
        )


@dataclass(frozen=True)
class SideBySide:
    """What `side_by_side` found: two lower bounds on the same examples, and what annealing misses on examples that the model made.

    Attributes:
        ais: by annealing.
        iwae: by importance sampling from q(z | x).
        simulated: `bdmc` on examples that the model made.
    """

    ais: LogLikelihood
    iwae: LogLikelihood
    simulated: Sandwich

    @property
    def gains(self) -> Tensor:
        """AIS less IWAE of each example, ``[N]`` nats: above 0, the importance samples miss at least so much."""
        return self.ais.log_px - self.iwae.log_px

    @property
    def gain(self) -> float:
        """Their mean."""
        return float(self.gains.mean())

    @property
    def gain_error(self) -> float:
        """The Monte Carlo standard error of `gain` for these very examples."""
        return math.hypot(self.ais.mc_error, self.iwae.mc_error)

    def __str__(self) -> str:
        return (
            f"log p(x) of {len(self.ais)} examples is at least {self.ais.mean:.2f} nats by AIS ({self.ais.samples} chains) and "
            f"{self.iwae.mean:.2f} by IWAE ({self.iwae.samples} samples) on average, a difference of {self.gain:.3f} +- "
            f"{self.gain_error:.3f}; on examples that the model made, AIS lies at most {self.simulated.width:.3f} +- "
            f"{self.simulated.width_se:.3f} nats below log p(x)."
        )


def annealed_log_likelihood(
    model: LatentModel,
    split: Split,
    *,
    samples: int = 16,
    annealing: Annealing | None = None,
    seed: int = 0,
    batch_size: int = 100,
    watch: Watch | None = None,
) -> LogLikelihood:
    """log p(x) of every example of ``split`` by annealed importance sampling with K = ``samples`` chains each; a lower bound on average.

    Deterministic for a seed and a batch size. Memory does not grow with K: chains beyond 20,000 at a time take turns.

    Args:
        model: any model of continuous latents, flat or ladder.
        split: the data, on any device; batches are moved to the model's.
        samples: K, at least 1. Without a second one there is no error.
        annealing: default ``Annealing()``: 1000 temperatures from the prior.
        seed: of all random numbers; the caller's are left as they were.
        batch_size: examples at a time.
        watch: called with (examples done, examples in all).

    Raises:
        InputError: ``samples`` or ``batch_size`` below 1; latents that are discrete or bounded; a posterior without a density; an estimate
            that is not finite.

    >>> from vaekit import VAE, Conditional, heads, priors
    >>> _ = torch.manual_seed(0)
    >>> q = Conditional(torch.nn.Linear(2, 4), heads.Gaussian(2))
    >>> model = VAE(priors.StandardNormal(2), q, Conditional(torch.nn.Identity(), heads.GaussianFixed(2, 1.0)))  # x ~ N(0, 2 I)
    >>> found = annealed_log_likelihood(model, Split(torch.ones(1, 2)), samples=50, annealing=Annealing(20, leapfrogs=3))
    >>> exact = torch.distributions.Normal(0.0, 2**0.5).log_prob(torch.ones(2)).sum().item()
    >>> abs(found.mean - exact) < 2 * found.mc_error < 0.2
    True
    """
    annealing = Annealing() if annealing is None else annealing
    _check(samples=samples, batch_size=batch_size)
    log_w, count = [], []
    with observing(model, seed), matching_matmul(device_of(model)):
        for seen in blocks(model, split, batch_size, seed):
            batch = _batch(seen)
            path = annealing.start(model, batch)
            log_w.append(_forward(path, annealing.plan(path), samples, batch).cpu())
            count.append(entries(seen).cpu())
            if watch is not None:
                watch(sum(len(c) for c in count), len(split))
    return _estimate("ais", torch.cat(log_w, 1), torch.cat(count), seed)


def bdmc(
    model: LatentModel,
    n: int = 100,
    *,
    samples: int = 16,
    annealing: Annealing | None = None,
    seed: int = 0,
    batch_size: int = 100,
    watch: Watch | None = None,
) -> Sandwich:
    """Bidirectional Monte Carlo: both bounds on log p(x) of n examples that the model makes, with K = ``samples`` chains each.

    An example has one exact sample of its posterior, the z it was made from. All K reverse chains begin there: each is a valid one, with
    E[1 / w] = 1 / p(x), so their mean is unbiased and the bound valid however dependent they are. To make them less so, they first take
    ``annealing.refresh`` transitions at the posterior, which keeps every one of them an exact sample.

    Arguments and errors are those of `annealed_log_likelihood`; n is at least 1.

    Raises:
        InputError: as there; ``n`` below 1.
    """
    annealing = Annealing() if annealing is None else annealing
    _check(n=n, samples=samples, batch_size=batch_size)
    lower, upper, count, x, temperatures = [], [], [], [], 0
    with observing(model, seed), matching_matmul(device_of(model)):
        for first in range(0, n, batch_size):
            made = model.trace(from_p(1, min(batch_size, n - first)))
            seen = model.trace(at_centre(), Batch(made.px.sample()[0]))
            batch = _batch(seen)
            path = annealing.start(model, batch)
            fixed = annealing.plan(path)
            lower.append(_forward(path, fixed, samples, batch).cpu())
            upper.append(_backward(path, fixed, samples, batch, path.layout.join(made.z), annealing.refresh).cpu())
            count.append(entries(seen).cpu())
            x.append(batch.x.cpu())
            temperatures = max(temperatures, len(fixed.betas))
            if watch is not None:
                watch(sum(len(c) for c in count), n)
    return Sandwich(
        _estimate("ais", torch.cat(lower, 1), torch.cat(count), seed),
        _estimate("reverse ais", torch.cat(upper, 1), torch.cat(count), seed, sign=-1),
        temperatures,
        torch.cat(x),
    )


def side_by_side(
    model: LatentModel,
    split: Split,
    *,
    samples: int = 16,
    importance_samples: int = 5000,
    n: int = 100,
    annealing: Annealing | None = None,
    seed: int = 0,
    batch_size: int = 100,
) -> SideBySide:
    """The AIS and the IWAE bound of every example of ``split``, and `bdmc` of n examples that the model makes with the same annealing.

    Args:
        importance_samples: K of the IWAE bound.
        n: simulated examples.

    The others, and the errors: as `annealed_log_likelihood`.
    """
    return SideBySide(
        annealed_log_likelihood(model, split, samples=samples, annealing=annealing, seed=seed, batch_size=batch_size),
        importance_log_likelihood(model, split, samples=importance_samples, seed=seed),
        bdmc(model, n, samples=samples, annealing=annealing, seed=seed, batch_size=batch_size),
    )


def _shares(samples: int, batch: Batch) -> list[int]:
    """K in parts whose chains fit into memory together."""
    return [min(tile(batch), samples - start) for start in range(0, samples, tile(batch))]


def _forward(path: Path, fixed: Plan, samples: int, batch: Batch) -> Tensor:
    return torch.cat([ais(path, k, fixed).log_w for k in _shares(samples, batch)])


def _backward(path: Path, fixed: Plan, samples: int, batch: Batch, z: Tensor, refresh: int) -> Tensor:
    starts = (refreshed(path, z.expand(k, -1, -1), fixed, refresh) for k in _shares(samples, batch))
    return torch.cat([reverse_ais(path, start, fixed).log_w for start in starts])


def _estimate(method: str, log_w: Tensor, entries: Tensor, seed: int, *, sign: int = 1) -> LogLikelihood:
    """From log w ``[K, N]``; ``sign=-1`` averages 1 / w instead of w."""
    k = len(log_w)
    log_px, size = sign * iwae(sign * log_w), ess(sign * log_w)
    check_finite(log_px)
    mc_se = ((1 / size - 1 / k).clamp(min=0) * (k / (k - 1))).sqrt() if k > 1 else torch.full_like(log_px, math.nan)  # delta method
    return LogLikelihood(method, k, log_px, mc_se, size, k_hat(sign * log_w), entries, seed)


def _batch(seen: Trace) -> Batch:
    """The batch of a trace, of a model that has a likelihood."""
    require_likelihood(seen)
    if seen.batch is None:
        raise InputError("this pass has no data to score: it generated x; trace a batch")
    return seen.batch


def _check(**numbers: int) -> None:
    for name, value in numbers.items():
        if value < 1:
            raise InputError(f"{name}={value}: annealing needs at least 1")
