"""The naive Monte Carlo estimate of log p(x) against the exact value as the latent dimension grows, beside importance sampling from q.

Probabilistic PCA: z ~ N(0, I), x | z ~ N(W z, I) with 64 observed numbers. Two q's: the exact posterior with its scale inflated by 1.2,
and the best diagonal Gaussian, which is what a Gaussian encoder tends to.

Run: python -m benchmarks.gallery.naive
"""

from __future__ import annotations

import math
import statistics
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, MultivariateNormal

from benchmarks.gallery import common
from vaekit.bounds import Weights
from vaekit.data import Split
from vaekit.dist import DiagGaussian
from vaekit.evaluate import naive_log_likelihood
from vaekit.models import VAE
from vaekit.priors import StandardNormal
from vaekit.viz.figure import BLUE, GREEN, ORANGE, Figure, blank, put_legend, put_note, put_title, styled

DATA, EXAMPLES, SIGNAL, INFLATED = 64, 20, 3.0, 1.2
LATENTS = (1, 2, 5, 10, 20, 50)
SAMPLES = (100, 1_000) if common.quick else (100, 1_000, 10_000, 100_000)
REPEATS = {100: 20, 1_000: 10, 10_000: 3, 100_000: 1}
METHODS = {"naive": "prior", "diagonal": "best diagonal q", "inflated": "p(z | x), wider"}
ROWS = 20_000


class Likelihood(nn.Module):
    """N(W z, I)."""

    w: Tensor

    def __init__(self, w: Tensor) -> None:
        super().__init__()
        self.register_buffer("w", w)

    def forward(self, z: Tensor) -> Distribution:
        return DiagGaussian(z @ self.w.mT, torch.zeros_like(self.w[:, 0]))


class Posterior(nn.Module):
    """N(A x, L L^T), or with its diagonal alone."""

    gain: Tensor
    tril: Tensor

    def __init__(self, gain: Tensor, tril: Tensor, diagonal: bool) -> None:
        super().__init__()
        self.register_buffer("gain", gain)
        self.register_buffer("tril", tril)
        self.diagonal = diagonal

    def forward(self, x: Tensor) -> Distribution:
        loc = x @ self.gain.mT
        if self.diagonal:
            return DiagGaussian(loc, self.tril.diagonal().log())
        return MultivariateNormal(loc, scale_tril=self.tril, validate_args=False)


def model(latent: int, method: str) -> tuple[VAE, Split, Tensor]:
    """A model with that q, examples that it generates, and their exact log p(x) in float64."""
    g = torch.Generator().manual_seed(latent)
    w = SIGNAL * torch.randn(DATA, latent, generator=g, dtype=torch.float64) / DATA**0.5
    x = torch.randn(EXAMPLES, latent, generator=g, dtype=torch.float64) @ w.mT
    x = (x + torch.randn(x.shape, generator=g, dtype=torch.float64)).float()
    precision = torch.eye(latent, dtype=torch.float64) + w.mT @ w
    gain = torch.linalg.solve(precision, w.mT)
    if method == "inflated":
        tril = INFLATED * torch.linalg.cholesky(torch.linalg.inv(precision))
    else:  # KL(q || p(z | x)) is least for a diagonal q of the same mean and of variance 1 / precision_dd
        tril = torch.diag(precision.diagonal().rsqrt())
    exact = MultivariateNormal(torch.zeros(DATA, dtype=torch.float64), torch.eye(DATA, dtype=torch.float64) + w @ w.mT).log_prob(x.double())
    posterior = Posterior(gain.float(), tril.float(), method != "inflated")
    return VAE(StandardNormal(latent), posterior, Likelihood(w.float())), Split(x), exact


@torch.no_grad()
def importance(vae: VAE, split: Split, samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Estimates of log p(x) and effective sample sizes, ``[N]`` each."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        x, w = split.pick(torch.arange(len(split))), Weights.empty(len(split))
        size = ROWS // len(split)
        for start in range(0, samples, size):
            w = w.update(vae.infer(x, min(size, samples - start)).log_w)
    return w.iwae, w.ess


def cell(latent: int, method: str, samples: int) -> dict[str, float]:
    """Mean error over examples and repetitions in nats, its standard error (over examples), and the mean effective sample size."""
    vae, split, exact = model(latent, method)
    errors, ess = [], []
    for seed in range(2 if common.quick else REPEATS[samples]):
        if method == "naive":
            found = naive_log_likelihood(vae, split, samples=samples, seed=seed)
            log_px, n = found.log_px, found.ess
        else:
            log_px, n = importance(vae, split, samples, seed)
        errors.append(log_px - exact)
        ess.append(n)
    error = torch.stack(errors).mean(0)
    return {
        "error": float(error.mean()),
        "se": float(error.std() / len(error) ** 0.5),
        "rmse": float(torch.stack(errors).square().mean().sqrt()),
        "ess": float(torch.stack(ess).mean()),
    }


def drawn(found: dict[tuple[int, str, int], dict[str, float]]) -> Figure:
    with styled():
        figure = blank(880, 360, constrained=True)
        left, right = figure.subplots(1, 2, sharey=True)
        for samples, style in zip(SAMPLES, ("v", "s", "D", "o"), strict=False):
            shade = 0.35 + 0.65 * SAMPLES.index(samples) / (len(SAMPLES) - 1)
            naive = [found[d, "naive", samples]["rmse"] for d in LATENTS]
            left.plot(
                LATENTS,
                naive,
                color=ORANGE,
                marker=style,
                markersize=4,
                alpha=shade,
                label=f"{samples:,}" if samples > SAMPLES[0] else f"K = {samples:,}",
            )
        handles = []
        for method, colour in zip(METHODS, (ORANGE, BLUE, GREEN), strict=True):
            rmse = [found[d, method, SAMPLES[-1]]["rmse"] for d in LATENTS]
            handles.extend(right.plot(LATENTS, rmse, color=colour, marker="o", markersize=4))
        for axes in (left, right):
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_xticks(LATENTS, [str(d) for d in LATENTS])
            axes.minorticks_off()
            axes.set_xlabel("latent dimensions")
            axes.grid()
        right.tick_params(labelleft=True)
        left.set_ylabel("RMS error of log p(x), nats")
        right.set_xlabel(f"latent dimensions, K = {SAMPLES[-1]:,}")
        left.set_ylim(bottom=3e-4)
        lines, names = left.get_legend_handles_labels()
        put_legend(left, lines, names, beside=False)
        put_legend(right, handles, list(METHODS.values()), beside=False)
        put_title(figure, "Samples from the prior do not find z in more than a few dimensions")
        put_note(
            figure,
            "Left: samples from the prior, by their number K. Right: from the prior and from two q's. In one dimension the best diagonal q "
            "is p(z | x), and its error lies below the axis.",
        )
    return figure


def main() -> None:
    keys = [(d, method, k) for d in LATENTS for method in METHODS for k in SAMPLES]
    found = {key: common.once(f"naive/{key[1]}-{key[0]}-{key[2]}", partial(cell, *key)) for key in keys}
    figures: dict[str, dict[str, object]] = {}
    for (d, method, k), value in found.items():
        figures[f"{method}_{d}_{k}"] = {"value": value["error"], "error": value["se"], "unit": "nats"}
        figures[f"{method}_{d}_{k}_rmse"] = {"value": value["rmse"], "error": None, "unit": "nats"}
        figures[f"{method}_{d}_{k}_ess"] = {"value": value["ess"], "error": None, "unit": "samples"}
    for d in LATENTS:
        exact = model(d, "naive")[2]
        spread = statistics.stdev(exact.tolist()) / math.sqrt(len(exact))
        figures[f"exact_{d}"] = {"value": float(exact.mean()), "error": spread, "unit": "nats"}
    common.picture("naive-error", drawn(found))
    common.write(
        "gallery/naive",
        command="python -m benchmarks.gallery.naive",
        seed=[0],
        settings={
            "model": f"x = W z + e, {DATA} numbers, W_ij ~ N(0, {SIGNAL}^2 / {DATA}), e ~ N(0, I)",
            "examples": EXAMPLES,
            "repeats": {str(k): REPEATS[k] for k in SAMPLES},
        },
        figures=figures,
    )


if __name__ == "__main__":
    common.run(main)
