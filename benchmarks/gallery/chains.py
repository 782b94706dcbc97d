"""Probabilistic PCA for the page of Monte Carlo EM: its posterior is known, so are the chains' moments and the order of the integrator."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.gallery.common import once, picture, quick
from vaekit import Batch, Conditional, heads, priors
from vaekit.infer import HMC, NUTS, Kernel, Warmup, leapfrog, log_posterior, sample, start
from vaekit.models import VAE
from vaekit.viz.figure import BLUE, GREY, ORANGE, Figure, blank, put_title, styled

__all__ = ["measured"]


def measured() -> dict[str, dict[str, object]]:
    """The figures of the record; draws the picture."""
    kernels: dict[str, Kernel] = {"hmc": HMC(leapfrogs=10), "nuts": NUTS()}
    figures: dict[str, dict[str, object]] = {}
    for name, kernel in kernels.items():
        found = once(f"mcem-ppca-{name}", partial(moments, kernel))
        figures[f"ppca_{name}_mean"] = {"value": found["mean"], "error": found["mean_se"], "unit": "posterior sd"}
        figures[f"ppca_{name}_cov"] = {"value": found["cov"], "error": found["cov_se"], "unit": "posterior variances"}
        figures[f"ppca_{name}_z"] = {"value": found["z"], "error": None, "unit": "standard errors"}
        figures[f"ppca_{name}_accept"] = {"value": found["accept"], "error": None, "unit": "share"}
        figures[f"ppca_{name}_leapfrogs"] = {"value": found["leapfrogs"], "error": None, "unit": "steps"}
    found = once("mcem-ppca-energy", energy)
    slope = math.log(found["error"][-2] / found["error"][-1]) / math.log(2)
    figures["ppca_energy_slope"] = {"value": slope, "error": None, "unit": "power of the step size"}
    picture("mcem-ppca", ppca_figure(found))
    return figures


def ppca() -> tuple[VAE, Batch, Tensor, Tensor]:
    """z ~ N(0, I_2), x ~ N(W z + b, 0.5^2 I_4); the model, two examples, and the exact posterior's means and covariance."""
    torch.manual_seed(0)
    linear = nn.Linear(2, 4).double()
    nn.init.normal_(linear.weight, std=0.8)
    model = VAE(priors.StandardNormal(2).double(), nn.Identity(), Conditional(linear, heads.GaussianFixed(4, 0.5)))
    w, b = linear.weight.detach(), linear.bias.detach()
    x = torch.tensor([[-1.5, 0.5], [1.5, -0.5]], dtype=torch.float64) @ w.mT + b + 0.5 * torch.randn(2, 4, dtype=torch.float64)
    cov = torch.linalg.inv(torch.eye(2, dtype=torch.float64) + w.mT @ w / 0.25)
    return model, Batch(x), (x - b) @ w @ cov / 0.25, cov


def moments(kernel: Kernel) -> dict[str, float]:
    """Errors of mean and covariance in posterior standard deviations, and the largest of them in standard errors, over the chains."""
    model, batch, mean, cov = ppca()
    chains, draws = (20, 20) if quick else (400, 100)
    init = torch.randn(chains, 2, 2, dtype=torch.float64)
    got = sample(log_posterior(model, batch), init, kernel, warmup=Warmup(100), draws=draws, seed=1)
    u = torch.linalg.solve(torch.linalg.cholesky(cov), (got.z - mean).unsqueeze(-1)).squeeze(-1)  # N(0, I) if all is right
    outer = (u.unsqueeze(-1) * u.unsqueeze(-2)).mean(0) - torch.eye(2, dtype=torch.float64)
    each = torch.cat([u.mean(0).flatten(1), outer.flatten(1)], 1)  # one row a chain
    error, se = each.mean(0), each.std(0) / chains**0.5
    return {
        "mean": float(error[:4].abs().max()),
        "mean_se": float(se[:4].max()),
        "cov": float(error[4:].abs().max()),
        "cov_se": float(se[4:].max()),
        "z": float((error / se).abs().max()),
        "accept": float(got.accept.mean()),
        "leapfrogs": float(got.leapfrogs.mean()),
    }


def energy() -> dict[str, list[float]]:
    """Root mean square energy error after one unit of time, by step size."""
    model, batch, mean, cov = ppca()
    density = log_posterior(model, batch)
    torch.manual_seed(2)
    z = mean + torch.randn(1000, 2, 2, dtype=torch.float64) @ torch.linalg.cholesky(cov).mT
    state, r, one = start(density, z), torch.randn_like(z), torch.ones((), dtype=torch.float64)
    sizes, errors = [], []
    for n in (4, 8, 16, 32, 64, 128):
        end, momentum = leapfrog(density, state, r, one / n, one, steps=n)
        change = 0.5 * (momentum.square() - r.square()).sum(-1) - end.log_p + state.log_p
        sizes.append(1 / n)
        errors.append(float(change.square().mean().sqrt()))
    return {"size": sizes, "error": errors}


def ppca_figure(found: dict[str, list[float]]) -> Figure:
    model, batch, mean, cov = ppca()
    got = sample(log_posterior(model, batch), torch.randn(4, 2, 2).double(), NUTS(), warmup=Warmup(100), draws=150, seed=3)
    figure = blank(820, 360, constrained=True)
    with styled():
        left, right = figure.subplots(1, 2)
        angle = torch.linspace(0, 2 * math.pi, 200, dtype=torch.float64)
        circle = torch.stack([angle.cos(), angle.sin()], -1) @ torch.linalg.cholesky(cov).mT
        for i, colour in enumerate((BLUE, ORANGE)):
            z = got.z[:, :, i].flatten(0, 1)
            left.plot(z[:, 0], z[:, 1], ".", ms=2, color=colour, label=f"NUTS, x{i + 1}")
            for radius in (1, 2):
                ring = mean[i] + radius * circle
                left.plot(ring[:, 0], ring[:, 1], color=GREY, lw=1, label="exact, 1 and 2 sd" if i == radius - 1 == 0 else None)
        left.set(xlabel="z1", ylabel="z2", aspect="equal", title="posterior draws")
        left.set_ylim(-2.6, None)
        left.legend(loc="lower center")
        size, error = found["size"], found["error"]
        right.loglog(size, error, "o-", color=BLUE, label="leapfrog")
        right.loglog(size, [error[-1] * (s / size[-1]) ** 2 for s in size], "--", color=GREY, label="slope 2")
        right.set(xlabel="step size", ylabel="energy error (nats)", title="after one unit of time")
        right.legend(loc="best")
    put_title(figure, "Probabilistic PCA: exact posterior, chains and integrator")
    return figure
