"""KL between Gaussians, both ways: a correlated Gaussian and two bimodal densities fitted by minimising KL(q || p) and KL(p || q).

Run: python -m benchmarks.gallery.gaussian_kl
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal

from benchmarks.gallery.common import once, picture, quick, run, write
from vaekit.dist import DiagGaussian, Mixture, closed_form_kl, full_gaussian
from vaekit.infer.fit import fit_density
from vaekit.infer.project import TrapezoidRule, kl_by_quadrature, moment_match
from vaekit.priors import DiagNormal, FullNormal
from vaekit.viz.figure import BLUE, GREEN, GREY, ORANGE, Figure, blank, put_legend, put_title, styled

Fit = dict[str, Any]
LogDensity = Callable[[Tensor], Tensor]

SEEDS = [0] if quick else [0, 1, 2, 3, 4]
STEPS, SAMPLES = (200, 64) if quick else (4000, 256)
CORRELATION = 0.9
PLANE = TrapezoidRule((-14.0, -14.0), (14.0, 14.0), 281 if quick else 561)
LINE = TrapezoidRule((-14.0,), (14.0,), 2801)


def tensor(*rows: Any) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


CORRELATED = full_gaussian(tensor(0, 0), tensor([1, CORRELATION], [CORRELATION, 1]))
TWO_HILLS = Mixture(
    tensor(0, 0),
    full_gaussian(tensor([-1.6, -1.6], [1.6, 1.6]), torch.stack([tensor([0.6, -0.3], [-0.3, 0.6]), tensor([0.5, 0.2], [0.2, 0.5])])),
)
TWO_PEAKS = Mixture(tensor(math.log(0.6), math.log(0.4)), DiagGaussian(tensor([-2.0], [2.5]), tensor([0.5], [0.8]).log()))


def both(q: Distribution, log_p: LogDensity, rule: TrapezoidRule) -> Fit:
    """A Gaussian's parameters and its two divergences."""
    q_full = q if isinstance(q, MultivariateNormal) else full_gaussian(q.mean, torch.diag_embed(q.variance))
    return {
        "mean": q_full.mean.tolist(),
        "covariance": q_full.covariance_matrix.tolist(),
        "kl_qp": kl_by_quadrature(q.log_prob, log_p, rule),
        "kl_pq": kl_by_quadrature(log_p, q.log_prob, rule),
    }


def reverse(family: DiagNormal | FullNormal, log_p: LogDensity, rule: TrapezoidRule, *, start: Tensor, seed: int) -> Fit:
    """argmin KL(q || p) by stochastic gradients, from a mean."""
    torch.manual_seed(seed)
    family.double()
    with torch.no_grad():
        family.loc.copy_(start)
        family.log_scale.fill_(math.log(0.5))
    fit_density(family, log_p, steps=STEPS, samples=SAMPLES, lr=0.02)
    with torch.no_grad():
        return both(family(), log_p, rule)


def forward_diagonal(log_p: LogDensity, rule: TrapezoidRule) -> Fit:
    """argmin KL(p || q) over diagonal Gaussians."""
    q = moment_match(log_p, rule)
    return both(DiagGaussian(q.mean, 0.5 * q.variance.log()), log_p, rule)


def closed_against_quadrature() -> float:
    """The largest difference between `closed_form_kl` and quadrature over the ordered pairs of N(0, I), diagonal and full Gaussians."""
    gaussians: list[Distribution] = [
        DiagGaussian(torch.zeros(2).double(), torch.zeros(2).double()),
        DiagGaussian(tensor(0.5, -0.3), tensor(0.7, 1.1).log()),
        full_gaussian(tensor(-0.4, 0.2), tensor([0.9, 0.4], [0.4, 0.7])),
        full_gaussian(tensor(0.3, 0.6), tensor([0.6, -0.3], [-0.3, 0.8])),
    ]
    found = 0.0
    for q, p in itertools.product(gaussians, repeat=2):
        kl = closed_form_kl(q, p)
        if kl is None:
            raise RuntimeError("every pair of Gaussians has a closed form")
        found = max(found, abs(float(kl) - kl_by_quadrature(q.log_prob, p.log_prob, PLANE)))
    return found


def starts(n: int) -> Tensor:
    """Means to start from, the same each time: ``[n, 2]`` over the square in which the two hills lie."""
    return torch.rand(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 6 - 3


def mass_on_one_side(fit: Mapping[str, Any]) -> float:
    """The share of q that lies on the side of the diagonal z_1 + z_2 = 0 where more of it does."""
    mean, cov = tensor(*fit["mean"]), tensor(*fit["covariance"])
    return float(torch.special.ndtr(mean.sum().abs() / cov.sum().sqrt()))


def ellipses(axes: Any, fit: Mapping[str, Any], colour: str) -> Any:
    """One and two standard deviations."""
    root = torch.linalg.cholesky(tensor(*fit["covariance"]))
    angle = torch.linspace(0, 2 * math.pi, 200, dtype=torch.float64)
    circle = torch.stack([angle.cos(), angle.sin()], -1)
    for radius in (1, 2):
        line = tensor(*fit["mean"]) + radius * circle @ root.mT
        (handle,) = axes.plot(line[:, 0], line[:, 1], color=colour, linewidth=1.6)
    return handle


def plane_figure(title: str, log_p: LogDensity, panels: Mapping[str, list[Fit]], *, half: float, gaussian: bool) -> Figure:
    """p in grey with q's ellipses, one panel for each entry."""
    with styled():
        figure = blank(330 * len(panels), 400, constrained=True)
        line = torch.linspace(-half, half, 161, dtype=torch.float64)
        p = log_p(torch.cartesian_prod(line, line)).exp().reshape(161, 161).mT
        contours = [math.exp(-2) * float(p.max()), math.exp(-0.5) * float(p.max())] if gaussian else 7
        for axes, (name, fits) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
            axes.contour(line, line, p, levels=contours, colors=GREY, linewidths=1.0)
            for fit, colour in zip(fits, (ORANGE, BLUE), strict=False):
                ellipses(axes, fit, colour)
            axes.set_title(name)
            axes.set_aspect("equal")
            axes.set_xlabel("$z_1$")
        put_title(figure, title)
    return figure


def line_figure(curves: Mapping[str, tuple[Fit, str]]) -> Figure:
    with styled():
        figure = blank(760, 330, constrained=True)
        axes = figure.subplots()
        z = torch.linspace(-6, 7, 600, dtype=torch.float64)
        handles: list[Any] = [axes.fill_between(z, TWO_PEAKS.log_prob(z[:, None]).exp(), color="#d8dde2", linewidth=0)]
        for fit, colour in curves.values():
            q = full_gaussian(tensor(*fit["mean"]), tensor(*fit["covariance"]))
            handles += axes.plot(z, q.log_prob(z[:, None]).exp(), color=colour, linewidth=1.6)
        axes.set_xlabel("$z$")
        axes.set_ylim(bottom=0)
        put_legend(axes, handles, ["p", *curves], beside=False)
        put_title(figure, "A Gaussian fitted to two peaks")
    return figure


def nats(value: float, error: float | None = None) -> dict[str, Any]:
    return {"value": value, "error": error, "unit": "nats"}


def mean_and_error(values: list[float]) -> tuple[float, float | None]:
    v = tensor(*values)
    return float(v.mean()), float(v.std() / len(values) ** 0.5) if len(values) > 1 else None


def main() -> None:
    origin, n_starts = torch.zeros(2, dtype=torch.float64), 3 if quick else 12
    diagonal = partial(reverse, log_p=CORRELATED.log_prob, rule=PLANE, start=origin)
    correlated = [once(f"gaussian_kl/correlated-{seed}", partial(diagonal, DiagNormal(2), seed=seed)) for seed in SEEDS]
    broad = once("gaussian_kl/correlated-forward", lambda: forward_diagonal(CORRELATED.log_prob, PLANE))
    full = partial(reverse, log_p=TWO_HILLS.log_prob, rule=PLANE)
    hills = [once(f"gaussian_kl/hills-{i}", partial(full, FullNormal(2), start=at, seed=i)) for i, at in enumerate(starts(n_starts))]
    hills_forward = once("gaussian_kl/hills-forward", lambda: both(moment_match(TWO_HILLS.log_prob, PLANE), TWO_HILLS.log_prob, PLANE))
    one = partial(reverse, log_p=TWO_PEAKS.log_prob, rule=LINE, seed=0)
    peaks = {
        side: once(f"gaussian_kl/peaks-{side}", partial(one, DiagNormal(1), start=tensor(at)))
        for side, at in (("left", -1.5), ("right", 1.5))
    }
    peaks_forward = once("gaussian_kl/peaks-forward", lambda: both(moment_match(TWO_PEAKS.log_prob, LINE), TWO_PEAKS.log_prob, LINE))

    lower, upper = (min((f for f in hills if sign * f["mean"][0] > 0), key=lambda f: f["kl_qp"], default=hills[0]) for sign in (-1, 1))
    picture(
        "gaussian_kl-correlated",
        plane_figure(
            "A correlated Gaussian (grey) fitted by a diagonal one",
            CORRELATED.log_prob,
            {"minimising KL(q || p)": correlated[:1], "minimising KL(p || q)": [broad]},
            half=3.0,
            gaussian=True,
        ),
    )
    picture(
        "gaussian_kl-hills",
        plane_figure(
            "Two hills (grey) fitted by a full Gaussian",
            TWO_HILLS.log_prob,
            {"KL(q || p), one start": [lower], "KL(q || p), another start": [upper], "KL(p || q)": [hills_forward]},
            half=4.5,
            gaussian=False,
        ),
    )
    named = {"KL(q || p), from the left": (peaks["left"], ORANGE), "KL(q || p), from the right": (peaks["right"], BLUE)}
    picture("gaussian_kl-peaks", line_figure(named | {"KL(p || q)": (peaks_forward, GREEN)}))

    variance, error = mean_and_error([0.5 * sum(f["covariance"][i][i] for i in range(2)) for f in correlated])
    figures: dict[str, dict[str, Any]] = {
        "closed_form_error": nats(once("gaussian_kl/closed", closed_against_quadrature)),
        "reverse_variance": {"value": variance, "error": error, "unit": "variance"},
        "forward_variance": {"value": broad["covariance"][0][0], "error": None, "unit": "variance"},
        "hills_starts": {"value": len(hills), "error": None, "unit": "starts"},
        "hills_on_one_hill": {"value": sum(mass_on_one_side(f) > 0.99 for f in hills), "error": None, "unit": "starts"},
        "hills_lower": {"value": sum(f["mean"][0] < 0 for f in hills), "error": None, "unit": "starts"},
        "hills_forward_one_side": {"value": mass_on_one_side(hills_forward), "error": None, "unit": "probability"},
    }
    table = {"reverse": correlated[0], "forward": broad, "hills_lower_fit": lower, "hills_upper_fit": upper, "hills_forward": hills_forward}
    table |= {"peaks_left": peaks["left"], "peaks_right": peaks["right"], "peaks_forward": peaks_forward}
    for name, fit in table.items():
        figures |= {f"{name}_kl_qp": nats(fit["kl_qp"]), f"{name}_kl_pq": nats(fit["kl_pq"])}
    exact = 1 - CORRELATION**2
    published = {
        "reverse_variance": (exact, 0.002, "closed form, 1 / (Sigma^-1)_ii"),
        "forward_variance": (1.0, 1e-6, "closed form, Sigma_ii"),
        "reverse_kl_qp": (-0.5 * math.log(exact), 1e-3, "closed form, -log(1 - r^2) / 2"),
        "forward_kl_pq": (-0.5 * math.log(exact), 1e-6, "closed form, -log(1 - r^2) / 2: the mutual information of the two dimensions"),
        "closed_form_error": (0.0, 1e-8, "quadrature"),
    }
    write(
        "gallery/gaussian_kl",
        command="python -m benchmarks.gallery.gaussian_kl",
        seed=SEEDS,
        settings={"steps": STEPS, "samples": SAMPLES, "lr": 0.02, "correlation": CORRELATION, "starts": len(hills)},
        figures=figures,
        published={
            key: {"value": value, "tolerance": tolerance, "direction": "within", "source": source}
            for key, (value, tolerance, source) in published.items()
        },
    )


if __name__ == "__main__":
    run(main)
