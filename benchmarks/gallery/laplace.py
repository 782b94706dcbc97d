"""Variational against Laplace approximation of p(z) proportional to exp(-z^2 / 2) sigmoid(20 z + 4) (Bishop, 2006, figure 10.1).

Run: python -m benchmarks.gallery.laplace
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution

from benchmarks.gallery.common import once, picture, quick, run, write
from vaekit.dist import full_gaussian
from vaekit.infer import TrapezoidRule, kl_by_quadrature, laplace, moment_match
from vaekit.infer.fit import fit_density
from vaekit.priors import DiagNormal
from vaekit.viz.figure import BLUE, GREEN, ORANGE, Figure, blank, put_legend, put_title, styled

SEEDS = [0] if quick else [0, 1, 2, 3, 4]
STEPS, SAMPLES = (200, 64) if quick else (4000, 256)
LINE = TrapezoidRule((-14.0,), (14.0,), 5601)
NAMES = {"laplace": ("Laplace", ORANGE), "variational": ("variational, KL(q || p)", BLUE), "moments": ("moments, KL(p || q)", GREEN)}


def log_density(z: Tensor) -> Tensor:
    return -0.5 * z[..., 0].square() + F.logsigmoid(20 * z[..., 0] + 4)


def measured(q: Distribution) -> dict[str, float]:
    return {
        "mean": float(q.mean),
        "sd": float(q.variance.sqrt()),
        "kl_qp": kl_by_quadrature(q.log_prob, log_density, LINE),
        "kl_pq": kl_by_quadrature(log_density, q.log_prob, LINE),
    }


def by_laplace() -> dict[str, float]:
    q = laplace(log_density, torch.zeros(1))
    return measured(q) | {"log_z": float(log_density(q.mean) - q.log_prob(q.mean))}


def by_variation(seed: int) -> dict[str, float]:
    torch.manual_seed(seed)
    family = DiagNormal(1).double()
    fit_density(family, log_density, steps=STEPS, samples=SAMPLES, lr=0.02)
    with torch.no_grad():
        found = measured(family())
    return found | {"log_z": log_z() - found["kl_qp"]}  # the bound: log Z - KL(q || p)


def log_z() -> float:
    return float(LINE.log_integral(log_density(LINE.nodes)))


def drawn(fits: dict[str, dict[str, float]]) -> Figure:
    """The density, and its negative logarithm."""
    z = torch.linspace(-2, 4, 601, dtype=torch.float64).unsqueeze(-1)
    log_p = log_density(z) - log_z()
    with styled():
        figure = blank(960, 330, constrained=True)
        left, right = figure.subplots(1, 2)
        handles: list[Any] = [left.fill_between(z[:, 0], log_p.exp(), color="#d8dde2", linewidth=0)]
        right.plot(z, -log_p, color="#a9b1b8", linewidth=4)
        for key, (_, colour) in NAMES.items():
            q = full_gaussian(torch.tensor([fits[key]["mean"]]).double(), torch.tensor([[fits[key]["sd"] ** 2]]).double())
            handles += left.plot(z, q.log_prob(z).exp(), color=colour, linewidth=1.6)
            right.plot(z, -q.log_prob(z), color=colour, linewidth=1.6)
        left.set_ylabel("density")
        right.set_ylabel("negative log density, nats")
        right.set_ylim(0, 15)
        for axes in (left, right):
            axes.set_xlabel("$z$")
            axes.set_xlim(-2, 4)
            axes.set_ylim(bottom=0)
        put_legend(right, handles, ["p", *(name for name, _ in NAMES.values())], beside=True)
        put_title(figure, "A skewed posterior and three Gaussians")
    return figure


def main() -> None:
    runs = [once(f"laplace/variational-{seed}", partial(by_variation, seed)) for seed in SEEDS]
    fits = {
        "laplace": once("laplace/laplace", by_laplace),
        "variational": runs[0],
        "moments": once("laplace/moments", lambda: measured(moment_match(log_density, LINE))),
    }
    picture("laplace", drawn(fits))
    figures: dict[str, dict[str, Any]] = {"log_z": {"value": log_z(), "error": None, "unit": "nats"}}
    for name, fit in fits.items():
        for key, value in fit.items():
            figures[f"{name}_{key}"] = {"value": value, "error": None, "unit": "nats" if key in ("kl_qp", "kl_pq", "log_z") else "z"}
    for key in runs[0]:
        values = torch.tensor([fit[key] for fit in runs], dtype=torch.float64)
        error = float(values.std() / math.sqrt(len(runs))) if len(runs) > 1 else None
        figures[f"variational_{key}"] |= {"value": float(values.mean()), "error": error}
    write(
        "gallery/laplace",
        command="python -m benchmarks.gallery.laplace",
        seed=SEEDS,
        settings={"steps": STEPS, "samples": SAMPLES, "lr": 0.02},
        figures=figures,
    )


if __name__ == "__main__":
    run(main)
