"""Do the estimates of log p(x) hold the exact value within the errors that they state?

Probabilistic PCA and a linear-Gaussian ladder of two levels, in 2, 10 and 50 dimensions a level and twice as many of data, with weights
N(0, 1 / d) and noise of 1. One trial is one example that the model made, with random numbers of its own; 1000 trials a model, in five
parts: with 200, one in fourteen estimators that are exactly right would hold fewer than 93%.

iwae      log-likelihood by importance sampling from a q that is wrong: the exact posterior with 1.1 times its standard deviation in every
          direction and a mean that is half a (Mahalanobis) standard deviation off
ais       annealing from p(z): `bdmc`'s lower side
reverse   annealing back from the exact sample: `bdmc`'s upper side
sandwich  lower - t se < log p(x) < upper + t se

An estimate holds log p(x) if that lies within t of the stated standard errors (``LogLikelihood.mc_se``) of it, t the 97.5% point of
Student's distribution with K - 1 degrees of freedom, for the error of K chains is itself estimated from them (K = 100: 1.984).

    python -m benchmarks.annealed_oracles [--quick]
"""

from __future__ import annotations

import math
import time
from functools import partial
from typing import Any

import torch
from scipy import stats
from torch import Tensor, nn
from torch.distributions import Distribution, MultivariateNormal

from benchmarks.gallery.common import once, quick, run, write
from vaekit import Conditional, heads, priors
from vaekit.data.core import Split
from vaekit.evaluate import Annealing, bdmc
from vaekit.evaluate.estimates import LogLikelihood
from vaekit.evaluate.log_likelihood import log_likelihood
from vaekit.models import VAE, Ladder, LatentModel, Rung

NOISE = 1.0
TRIALS, PARTS = (20, 1) if quick else (200, 5)
CHAINS = {2: 400, 10: 300, 50: 100}
IMPORTANCE = 10_000
SEED = 0
DIMENSIONS = (2, 10) if quick else (2, 10, 50)
TEMPERATURES = {2: 200, 10: 400, 50: 750}
LEAPFROGS = 5


class Wrong(nn.Module):
    """N(A c + a + shift, 1.1^2 S), the shift half a standard deviation long: a posterior that is near the exact N(A c + a, S)."""

    a_matrix: Tensor
    a: Tensor
    tril: Tensor

    def __init__(self, a_matrix: Tensor, a: Tensor, cov: Tensor) -> None:
        super().__init__()
        tril = torch.linalg.cholesky(cov)
        self.register_buffer("a_matrix", a_matrix.float())
        self.register_buffer("a", (a + tril @ torch.full_like(a, 0.5 / math.sqrt(len(a)))).float())
        self.register_buffer("tril", (1.1 * tril).float())

    def forward(self, c: Tensor) -> Distribution:
        return MultivariateNormal(c @ self.a_matrix.mT + self.a, scale_tril=self.tril, validate_args=False)


def affine(n: int, d: int) -> Conditional:
    linear = nn.Linear(n, d)
    nn.init.normal_(linear.weight, std=1 / math.sqrt(n))
    nn.init.normal_(linear.bias, std=0.5)
    return Conditional(linear, heads.GaussianFixed(d, NOISE))


def joined(conditionals: list[Conditional], d: int) -> tuple[Tensor, Tensor]:
    """Mean and covariance of (z_1, ..., x), float64: each v = W u + b + noise with u the part before."""
    mean, cov, part = torch.zeros(d, dtype=torch.float64), torch.eye(d, dtype=torch.float64), slice(0, d)
    for conditional in conditionals:
        w, b = (t.detach().double() for t in conditional.net.parameters())
        cross = w @ cov[part]
        own = w @ cov[part, part] @ w.mT + NOISE**2 * torch.eye(len(b), dtype=torch.float64)
        cov = torch.cat([torch.cat([cov, cross.mT], 1), torch.cat([cross, own], 1)])
        mean = torch.cat([mean, w @ mean[part] + b])
        part = slice(len(mean) - len(b), len(mean))
    return mean, cov


def conditioned(mean: Tensor, cov: Tensor, of: slice, on: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """A, a and S of v_of given v_on."""
    gain = torch.linalg.solve(cov[on][:, on], cov[on, of]).mT
    return gain, mean[of] - gain @ mean[on], cov[of, of] - gain @ cov[on, of]


def ppca(d: int) -> tuple[LatentModel, MultivariateNormal]:
    """The model and p(x)."""
    px = affine(d, 2 * d)
    mean, cov = joined([px], d)
    q = Wrong(*conditioned(mean, cov, slice(0, d), list(range(d, 3 * d))))
    return VAE(priors.StandardNormal(d), q, px), MultivariateNormal(mean[d:], cov[d:, d:])


def ladder(d: int) -> tuple[LatentModel, MultivariateNormal]:
    lower, px = affine(d, d), affine(d, 2 * d)
    mean, cov = joined([lower, px], d)
    x = list(range(2 * d, 4 * d))
    top = Wrong(*conditioned(mean, cov, slice(0, d), x))
    middle = Wrong(*conditioned(mean, cov, slice(d, 2 * d), [*range(d), *x]))
    rungs = [Rung(priors.StandardNormal(d), top), Rung(lower, middle)]
    return Ladder([nn.Identity(), nn.Identity()], rungs, px), MultivariateNormal(mean[2 * d :], cov[2 * d :, 2 * d :])


MODELS = {"ppca": ppca, "ladder": ladder}


def measured(kind: str, d: int, part: int) -> dict[str, Any]:
    torch.manual_seed(SEED)  # the weights are those of every part
    model, evidence = MODELS[kind](d)
    seed = SEED + 1 + 2 * part
    start = time.perf_counter()
    annealing = Annealing(TEMPERATURES[d], leapfrogs=LEAPFROGS)
    found = bdmc(model, TRIALS, samples=CHAINS[d], annealing=annealing, seed=seed, batch_size=TRIALS)
    annealed = time.perf_counter() - start
    exact = evidence.log_prob(found.x.double())
    iwae = log_likelihood(model, Split(found.x), samples=IMPORTANCE, seed=seed + 1)
    low = found.lower.log_px - quantile(found.lower) * found.lower.mc_se
    high = found.upper.log_px + quantile(found.upper) * found.upper.mc_se
    return {
        **{
            f"{name}_{what}": value
            for name, e in (("iwae", iwae), ("ais", found.lower), ("reverse", found.upper))
            for what, value in quality(e, exact).items()
        },
        "sandwich_holds": float(((low < exact) & (exact < high)).double().mean()),
        "width": found.width,
        "width_se": found.width_se,
        "annealing_seconds": annealed,
        "iwae_seconds": time.perf_counter() - start - annealed,
    }


def quantile(found: LogLikelihood) -> float:
    return float(stats.t.ppf(0.975, found.samples - 1))


def pooled(parts: list[dict[str, Any]]) -> dict[str, float]:
    """Root mean squares of errors, sums of times, means of the rest."""
    found: dict[str, float] = {}
    for name in parts[0]:
        values = torch.tensor([part[name] for part in parts], dtype=torch.float64)
        if name.endswith(("rms", "stated")):
            found[name] = float(values.square().mean().sqrt())
        elif name.endswith("_se"):
            found[name] = float(values.square().sum().sqrt() / len(parts))
        else:
            found[name] = float(values.sum() if name.endswith("seconds") else values.mean())
    return found


def quality(found: LogLikelihood, exact: Tensor) -> dict[str, float]:
    """How often it holds, and its errors: of one example as stated, as they are (root mean square), and their mean."""
    error = found.log_px - exact
    return {
        "holds": float((error.abs() < quantile(found) * found.mc_se).double().mean()),
        "stated": float(found.mc_se.square().mean().sqrt()),
        "rms": float(error.square().mean().sqrt()),
        "bias": float(error.mean()),
        "bias_se": float(error.std() / math.sqrt(len(error))),
        "ess": float(found.ess.mean()),
    }


def main() -> None:
    figures: dict[str, dict[str, Any]] = {}
    for kind in MODELS:
        for d in DIMENSIONS:
            names = [f"annealed-oracles-{kind}-{d}-{part}" for part in range(PARTS)]
            found = pooled([once(name, partial(measured, kind, d, part)) for part, name in enumerate(names)])
            for name in ("iwae", "ais", "reverse", "sandwich"):
                share = found[f"{name}_holds"]
                error = math.sqrt(share * (1 - share) / (TRIALS * PARTS))
                figures[f"{kind}_{d}_{name}_holds"] = {"value": share, "error": error, "unit": "share of trials"}
                if name != "sandwich":
                    figures[f"{kind}_{d}_{name}_bias"] = {"value": found[f"{name}_bias"], "error": found[f"{name}_bias_se"], "unit": "nats"}
                    figures[f"{kind}_{d}_{name}_stated"] = {"value": found[f"{name}_stated"], "error": None, "unit": "nats"}
                    figures[f"{kind}_{d}_{name}_rms"] = {"value": found[f"{name}_rms"], "error": None, "unit": "nats"}
            figures[f"{kind}_{d}_width"] = {"value": found["width"], "error": found["width_se"], "unit": "nats"}
            figures[f"{kind}_{d}_seconds"] = {"value": found["annealing_seconds"], "error": None, "unit": "s"}
    holds = {key: f["value"] for key, f in figures.items() if key.endswith("_holds")}
    worst = min(holds, key=lambda key: holds[key])
    print(f"worst: {worst} {holds[worst]:.3f}")
    figures["worst"] = {"value": holds[worst], "error": None, "unit": "share of trials"}
    for name in ("iwae", "ais", "reverse", "sandwich"):
        shares = [value for key, value in holds.items() if key.endswith(f"_{name}_holds")]
        share = sum(shares) / len(shares)
        error = math.sqrt(share * (1 - share) / (TRIALS * PARTS * len(shares)))
        figures[f"{name}_holds"] = {"value": share, "error": error, "unit": "share of trials"}
    write(
        "annealed/oracles",
        command="python -m benchmarks.annealed_oracles",
        seed=SEED,
        settings={
            "trials": TRIALS * PARTS,
            "chains": {str(d): CHAINS[d] for d in DIMENSIONS},
            "temperatures": {str(d): TEMPERATURES[d] for d in DIMENSIONS},
            "leapfrogs": LEAPFROGS,
            "importance_samples": IMPORTANCE,
            "noise": NOISE,
            "q": "exact posterior, 1.1 times as wide, mean off by half a standard deviation, at each level",
            "nominal": 0.95,
        },
        figures=figures,
        published={"worst": {"value": 0.93, "tolerance": 0.0, "direction": "at_least", "source": "the goal of this comparison"}},
    )


if __name__ == "__main__":
    run(main)
