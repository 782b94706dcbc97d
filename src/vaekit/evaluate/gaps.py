r"""Where the bound loses: to a family of q that is too narrow, or to an encoder that does not find the family's best member.

.. math:: \underbrace{\log p(x) - L[q(z|x)]}_{\text{inference gap}} = \underbrace{\log p(x) - L[q^*]}_{\text{approximation}}
          + \underbrace{L[q^*] - L[q(z|x)]}_{\text{amortisation}}, \qquad q^* = \arg\max_{q \in Q} L[q]

q* is found for each x by itself (`vaekit.infer.svi`), then once more in a richer family, whose bound says how much of the approximation gap
such a family would close. A search may stop short of q*: the amortisation gap is then underestimated, the approximation gap overestimated,
by the same amount. log p(x) is the importance-weighted estimate with the best q found as the proposal, or one that is given. The best q
seeks modes: of a posterior with several it may hold one, and its samples then miss the rest of log p(x) with a small stated error. A k-hat
above 0.7 often tells (`Gaps.doubts`), but only annealing goes to look: give ``log_likelihood=annealed_log_likelihood(model, split)``.

Cremer, Li and Duvenaud, "Inference suboptimality in variational autoencoders", ICML 2018.
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
from vaekit.evaluate.importance import doubts, require_likelihood
from vaekit.evaluate.pareto import k_hat
from vaekit.evaluate.passes import device_of, observing
from vaekit.evaluate.stream import blocks, check_finite, entries, tile
from vaekit.heads import Head, TriangularSylvester
from vaekit.infer.svi import amortised, log_weights, svi, widened
from vaekit.matmul import matching_matmul
from vaekit.models.core import LatentModel, Trace

__all__ = ["Gaps", "Part", "gaps"]

ELBO, LOCAL, RICHER, LOG_PX = range(4)
NEGLIGIBLE = 0.01
"""Nats of gap that nobody would act on."""
UNSETTLED = 0.05
"""A larger share of searches that ran out of steps is spoken of."""


@dataclass(frozen=True, eq=False)
class Part:
    """One number of every example with its Monte Carlo error, nats, float64 ``[N]`` each; NaN errors where one sample cannot tell.

    Attributes:
        values: one an example.
        mc_se: their Monte Carlo errors.
    """

    values: Tensor
    mc_se: Tensor

    @property
    def mean(self) -> float:
        """Mean over the examples."""
        return float(self.values.mean())

    @property
    def se(self) -> float:
        """Standard error of `mean` over examples; NaN for a single one."""
        return float(self.values.std() / math.sqrt(len(self.values))) if len(self.values) > 1 else math.nan

    @property
    def mc_error(self) -> float:
        """Monte Carlo standard error of `mean` for these very examples."""
        return float(self.mc_se.square().sum().sqrt() / len(self.mc_se))

    def __str__(self) -> str:
        return f"{self.mean:.3f} +- {self.se:.3f} nats over examples (Monte Carlo error {self.mc_error:.3f})"


@dataclass(frozen=True, eq=False)
class Gaps:
    """What `gaps` found. Every part is a difference of the same four estimates, so that the parts add up for each example.

    Attributes:
        estimates: of L[q(z|x)], L[q*], L of the richer q and log p(x), ``[4, N]`` float64.
        covariance: of their Monte Carlo errors, ``[N, 4, 4]``: they share random numbers, so a difference has less noise than its terms.
        log_likelihood: the estimate of log p(x) with what is known about it.
        settled: bool ``[N]``: both searches ended before the steps ran out.
    """

    estimates: Tensor
    covariance: Tensor
    log_likelihood: LogLikelihood
    settled: Tensor

    @property
    def elbo(self) -> Part:
        """The bound of the encoder's q(z|x)."""
        return self._part(ELBO)

    @property
    def local(self) -> Part:
        """That of the best q found in the same family for each x."""
        return self._part(LOCAL)

    @property
    def richer(self) -> Part:
        """That of the best q found in the richer family."""
        return self._part(RICHER)

    @property
    def log_px(self) -> Part:
        """log p(x)."""
        return self._part(LOG_PX)

    @property
    def amortisation(self) -> Part:
        """`local` less `elbo`: what a better encoder could gain at most."""
        return self._part(LOCAL, ELBO)

    @property
    def approximation(self) -> Part:
        """`log_px` less `local`: what only another family could gain."""
        return self._part(LOG_PX, LOCAL)

    @property
    def closed(self) -> Part:
        """The part of `approximation` that the richer family closes, `richer` less `local`."""
        return self._part(RICHER, LOCAL)

    @property
    def inference(self) -> Part:
        """`approximation` + `amortisation`."""
        return Part(self.approximation.values + self.amortisation.values, self._part(LOG_PX, ELBO).mc_se)

    @property
    def sentence(self) -> str:
        """Which part is the larger one, and what usually helps."""
        total, encoder, family, closed = self.inference, self.amortisation, self.approximation, self.closed
        if not total.mean > max(NEGLIGIBLE, 2 * total.mc_error):
            return f"No inference gap is seen: {total}; q(z | x) is as good as the posterior as far as these samples can tell."
        if math.isnan(total.mc_error):
            return f"The bound lies {total.mean:.2f} nats below log p(x), by an error that one sample cannot tell: take more samples."
        difference = math.sqrt(float(_difference_variance(self.covariance, torch.tensor([1.0, -2.0, 0.0, 1.0])).sum())) / len(self.settled)
        parts = f"amortisation {encoder.mean:.2f}, approximation {family.mean:.2f}, of which a richer q closes {closed.mean:.2f}"
        gap = f"The bound lies {total.mean:.2f} nats below log p(x) ({parts})"
        if not abs(family.mean - encoder.mean) > 2 * difference:
            return f"{gap}: about as much for the encoder as for the family of q; a larger encoder and a richer posterior would both help."
        if encoder.mean > family.mean:
            return (
                f"{gap}, most of it because the encoder does not find the best q of its own family: a larger encoder, longer training or "
                "more data for it usually helps, a richer posterior less."
            )
        helps = "such as a flow, usually helps" if 2 * closed.mean > family.mean else "richer still than the one tried here, would help"
        return f"{gap}, most of it because the family of q is too narrow: a richer posterior, {helps}; a larger encoder does less."

    @property
    def doubts(self) -> list[str]:
        """One sentence on each reason not to believe the parts; an empty list where there is none."""
        found = doubts(self.log_likelihood)
        open_, n = int((~self.settled).sum()), len(self.settled)
        if open_ > UNSETTLED * n:
            found.append(
                f"For {open_} of {n} examples a bound still rose when the steps ran out, so the amortisation gap, or what a richer q "
                "closes, is larger than stated; take more steps."
            )
        below = int((self.amortisation.values < -3 * self.amortisation.mc_se).sum())
        if below:
            found.append(
                f"For {below} of {n} examples the best q found lies below the encoder's by more than three Monte Carlo errors: the search "
                "failed there; take more steps."
            )
        return found

    def as_dict(self) -> dict[str, dict[str, float | None]]:
        """For JSON: mean, se and mc_error of each part; None for an error that is not known."""
        names = ("elbo", "local", "richer", "log_px", "amortisation", "approximation", "closed", "inference")
        parts = (*map(self._part, range(4)), self.amortisation, self.approximation, self.closed, self.inference)
        return {
            name: {key: _plain(getattr(part, key)) for key in ("mean", "se", "mc_error")} for name, part in zip(names, parts, strict=True)
        }

    def __str__(self) -> str:
        return " ".join([self.sentence, *self.doubts])

    def __len__(self) -> int:
        return self.estimates.shape[1]

    def _part(self, plus: int, minus: int | None = None) -> Part:
        sign = torch.zeros(4)
        sign[plus] = 1
        if minus is not None:
            sign[minus] = -1
        values = self.estimates[plus] if minus is None else self.estimates[plus] - self.estimates[minus]
        return Part(values, _difference_variance(self.covariance, sign).sqrt())


def gaps(
    model: LatentModel,
    split: Split,
    *,
    samples: int = 1000,
    steps: int = 1000,
    draws: int = 8,
    richer: Head | None = None,
    log_likelihood: LogLikelihood | None = None,
    seed: int = 0,
    batch_size: int = 100,
    watch: Callable[[int, int], None] | None = None,
) -> Gaps:
    """The inference gap of every example of ``split`` in its parts, by local optimisation of q.

    The decoder runs about ``2 steps draws + 3 samples`` times for an example, less where the searches end early; take some hundred
    examples. The model's weights, their gradients, its mode and the caller's random numbers are left as they were. Deterministic for a
    seed and a batch size; another batch size gives other random numbers.

    Args:
        model: a flat model with continuous latents; see `vaekit.infer.amortised`.
        split: the data, on any device.
        samples: fresh samples of each q behind its bound, and behind the estimate of log p(x).
        steps: the most that each of the two searches takes; see `vaekit.infer.svi`.
        draws: samples of each step.
        richer: a flow head, put on top of the best q of the same family, or `heads.FullGaussian`; see `vaekit.infer.widened`. Default:
            ``heads.TriangularSylvester(D, flows=4)``, of 4 D (D + 2) numbers per example.
        log_likelihood: an estimate of log p(x) of the same examples, by annealing for one; default: importance sampling from the
            richer q.
        seed: of all random numbers.
        batch_size: examples at a time.
        watch: called with (examples done, examples in all).

    Raises:
        InputError: samples, steps, draws or batch_size below 1; a model without a likelihood, with discrete latents or of several levels;
            a ``log_likelihood`` of other examples; an estimate that is not finite.

    >>> from vaekit import VAE, Conditional, heads, priors
    >>> _ = torch.manual_seed(0)
    >>> q = Conditional(torch.nn.Linear(2, 4), heads.Gaussian(2))  # untrained; p(z | x) itself is a diagonal Gaussian
    >>> model = VAE(priors.StandardNormal(2), q, Conditional(torch.nn.Identity(), heads.GaussianFixed(2, 1.0)))
    >>> found = gaps(model, Split(torch.randn(10, 2)), samples=200, steps=300)
    >>> found.amortisation.mean > 0.5, abs(found.approximation.mean) < 0.05
    (True, True)
    """
    for name, value in (("samples", samples), ("steps", steps), ("draws", draws), ("batch_size", batch_size)):
        if value < 1:
            raise InputError(f"gaps({name}={value}): at least 1 is needed")
    if log_likelihood is not None and len(log_likelihood) != len(split):
        raise InputError(
            f"gaps: log p(x) of {len(log_likelihood)} examples was given and the split has {len(split)}: give that of the same examples"
        )
    log_w, counted, settled = [], [], []
    with observing(model, seed), matching_matmul(device_of(model)):
        for seen in blocks(model, split, batch_size, seed):
            require_likelihood(seen)
            weights, done = _searched(model, seen, samples, steps, draws, richer)
            log_w.append(weights)
            settled.append(done)
            counted.append(entries(seen).double().cpu())
            if watch is not None:
                watch(sum(len(part) for part in settled), len(split))
    return _result(torch.cat(log_w, -1), torch.cat(counted), torch.cat(settled), log_likelihood, seed)


def _searched(model: LatentModel, seen: Trace, samples: int, steps: int, draws: int, richer: Head | None) -> tuple[Tensor, Tensor]:
    """log w under the three q of one batch, ``[3, K, B]``, from the same random numbers; and whether both searches settled, ``[B]``."""
    batch = seen.batch
    if batch is None:
        raise InputError("gaps: this pass has no data to score")
    start = amortised(model, batch)
    head = TriangularSylvester(start.q.event_shape.numel(), flows=4) if richer is None else richer
    widened(start, head)  # refuses before the first search what it would refuse after
    local = svi(model, batch, start, steps=steps, samples=draws)
    wide = svi(model, batch, widened(local, head), steps=steps, samples=draws)
    fresh = int(torch.randint(2**62, ()))
    log_w = [log_weights(model, batch, q, samples, seed=fresh, chunk=tile(batch)) for q in (start, local, wide)]
    return torch.stack(log_w), (local.settled & wide.settled).cpu()


def _result(log_w: Tensor, counted: Tensor, settled: Tensor, given: LogLikelihood | None, seed: int) -> Gaps:
    """From log w ``[3, K, N]``. psi are the influences of the K samples on the four estimates, whose products give the covariance."""
    k = log_w.shape[1]
    bounds, log_px = log_w.mean(1), iwae(log_w[2])
    for values in (*bounds, log_px):
        check_finite(values)
    psi = torch.cat([log_w - bounds.unsqueeze(1), (torch.exp(log_w[2] - log_px) - 1).unsqueeze(0)])
    nan = torch.full((len(log_px), 4, 4), math.nan, dtype=torch.float64)
    covariance = torch.einsum("akn,bkn->nab", psi, psi) / (k * (k - 1)) if k > 1 else nan
    if given is None:
        given = LogLikelihood("iwae", k, log_px, covariance[:, 3, 3].sqrt(), ess(log_w[2]), k_hat(log_w[2]), counted, seed)
    else:
        covariance[:, LOG_PX], covariance[:, :, LOG_PX] = 0, 0  # other random numbers
        covariance[:, LOG_PX, LOG_PX] = given.mc_se.square()
    return Gaps(torch.cat([bounds, given.log_px.unsqueeze(0)]), covariance, given, settled)


def _difference_variance(covariance: Tensor, sign: Tensor) -> Tensor:
    """Variance ``[N]`` of the sum of the estimates with these signs; rounding may leave a difference of equal ones below 0."""
    sign = sign.to(covariance.dtype)
    return torch.einsum("nab,a,b->n", covariance, sign, sign).clamp(min=0)


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
