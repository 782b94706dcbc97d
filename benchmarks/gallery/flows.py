"""Flow posteriors: the four energies of Rezende and Mohamed, and eight posteriors in one network on static MNIST, compared in pairs.

Run: python -m benchmarks.gallery.flows
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gallery.common import once, picture, quick, run, trained, write
from vaekit import heads, priors
from vaekit.conditional import Learned
from vaekit.data.densities import energy
from vaekit.evaluate.passes import batches, observing
from vaekit.infer.fit import fit_density
from vaekit.models import LatentModel
from vaekit.objectives import Linear
from vaekit.recipes import flows
from vaekit.recipes.core import Recipe
from vaekit.viz.figure import BLUE, GREY, INK, blank, put_note, put_title, styled

COMMAND = "python -m benchmarks.gallery.flows"

# --- the energies -----------------------------------------------------------------------------------------------------------------------

STEPS, WARMUP = (20, 5) if quick else (2000, 500)
RATE, RATES = 1e-2, {"iaf_8": 3e-3}  # at 1e-2 the IAF's networks may diverge
GRID = 21 if quick else 81  # points a side of the pictures, over [-4, 4]^2
FAMILIES: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "gaussian": ("Gaussian", lambda: priors.FullNormal(2)),
    "planar_2": ("planar, 2", lambda: Learned(heads.Planar(2, flows=2))),
    "planar_8": ("planar, 8", lambda: Learned(heads.Planar(2, flows=8))),
    "planar_32": ("planar, 32", lambda: Learned(heads.Planar(2, flows=32))),
    "radial_32": ("radial, 32", lambda: Learned(heads.Radial(2, flows=32))),
    "triangular_16": ("triangular\nSylvester, 16", lambda: Learned(heads.TriangularSylvester(2, flows=16))),
    "orthogonal_16": ("orthogonal\nSylvester, 16", lambda: Learned(heads.OrthogonalSylvester(2, flows=16, columns=2))),
    "iaf_8": ("IAF, 8", lambda: Learned(heads.IAF(2, flows=8, hidden=(64, 64), context=1))),
}


def points() -> Tensor:
    """The pixels of a picture, from the top left, ``[GRID, GRID, 2]``."""
    line = torch.linspace(-4, 4, GRID)
    return torch.stack(torch.meshgrid(line, line.flip(0), indexing="xy"), -1)


def image(log_p: Tensor) -> list[list[float]]:
    return [[round(value, 4) for value in row] for row in log_p.exp().tolist()]


def approach(family: str, number: int) -> dict[str, Any]:
    """KL(q || p) after the fit, and q in the picture."""
    log_density, log_z = energy(number)
    torch.manual_seed(number)
    q = FAMILIES[family][1]()
    result = fit_density(q, log_density, steps=STEPS, lr=RATES.get(family, RATE), warmup=WARMUP, log_z=log_z)
    with torch.no_grad():
        return {"kl": result.kl, "se": result.se, "density": image(q().log_prob(points()))}


def energies() -> None:
    cells = {
        (name, number): once(f"flows-energy-{number}-{name}", lambda: approach(name, number))  # noqa: B023  called at once
        for name in FAMILIES
        for number in (1, 2, 3, 4)
    }
    write(
        "gallery/flows-energies",
        command=COMMAND,
        seed=[1, 2, 3, 4],
        settings={
            "steps": STEPS,
            "samples": 256,
            "lr": RATE,
            "lr_iaf": RATES["iaf_8"],
            "warmup": WARMUP,
            "schedule": "cosine to 0",
            "precision": "float32",
        },
        figures={f"u{number}_{name}": {"value": cell["kl"], "error": cell["se"], "unit": "nats"} for (name, number), cell in cells.items()},
    )
    canvas = blank(980, 470, constrained=True)
    with styled():
        panels = canvas.subplots(4, len(FAMILIES) + 1)
        for row, number in enumerate((1, 2, 3, 4)):
            log_density, log_z = energy(number)
            shown = [("target", image(log_density(points()) - log_z)), *((FAMILIES[n][0], cells[n, number]["density"]) for n in FAMILIES)]
            top = max(map(max, shown[0][1]))
            for panel, (title, density) in zip(panels[row], shown, strict=True):
                panel.imshow(density, cmap="Blues", vmin=0, vmax=top, extent=(-4, 4, -4, 4))
                panel.set_xticks([])
                panel.set_yticks([])
                if row == 0:
                    panel.set_title(title, fontsize=8)
            panels[row, 0].set_ylabel(f"$U_{number}$", rotation=0, labelpad=10)
        put_title(canvas, "Four densities and what is fitted to each by the reverse KL; the number of flows behind the name")
        picture("flows-energies", canvas)


# --- the paired run ---------------------------------------------------------------------------------------------------------------------

EPOCHS, MORE = (1, 1) if quick else (12, 8)  # of the Gaussian alone; of each posterior from there on
LR = 3e-4  # from there on, falling to 0: a step of the usual size changes a flow by more than the posterior is wide
LATENT = 4 if quick else 20
HIDDEN = 16 if quick else 300
SAMPLES = 2 if quick else 16
ROWS = 300
POSTERIORS: dict[flows.Posterior, tuple[str, int]] = {
    "gaussian": ("diagonal Gaussian", 0),
    "planar": ("planar", 16),
    "radial": ("radial", 16),
    "householder": ("Householder", 4),
    "orthogonal": ("orthogonal Sylvester", 4),
    "householder_sylvester": ("Householder Sylvester", 4),
    "triangular": ("triangular Sylvester", 4),
    "iaf": ("IAF", 4),
}


def recipe(posterior: flows.Posterior, epochs: int, lr: float = 1e-3) -> Recipe:
    plan = flows.mnist(posterior, flows=POSTERIORS[posterior][1], latent=LATENT, hidden=HIDDEN, epochs=epochs, lr=lr)
    if not quick:
        return plan

    def few() -> Any:
        data = plan.data()
        return replace(data, train=data.train.head(ROWS), valid=None, test=data.test.head(ROWS))

    return replace(plan, data=few)


def branch(posterior: flows.Posterior, gaussian: nn.Module) -> Recipe:
    """The recipe with the weights of the Gaussian that was trained before: the flows, the identity still, change nothing at first."""
    plan = recipe(posterior, MORE, LR)
    shapes = plan.model.state_dict()
    with torch.no_grad():
        for name, value in gaussian.state_dict().items():
            shapes[name][: len(value)] = value  # the last layer has more rows, which are 0
    return replace(plan, training=replace(plan.training, schedule=Linear(1, 0, MORE * 500)))


def bounds(posterior: flows.Posterior, gaussian: nn.Module) -> list[float]:
    """The test bound of every image, each the mean of log w over its samples."""
    model = trained(f"flows-{posterior}", lambda: branch(posterior, gaussian)).model

    def measure() -> list[float]:
        return [round(value, 4) for value in per_image(model, recipe(posterior, MORE)).tolist()]

    return once(f"flows-{posterior}-bounds", measure)


def per_image(model: LatentModel, plan: Recipe) -> Tensor:
    with observing(model, seed=0):
        found = [model.infer(batch, SAMPLES).log_w.mean(0) for batch in batches(plan.data().test, 500, torch.device("cpu"))]
    return torch.cat(found)


def figure(values: Tensor) -> dict[str, Any]:
    return {"value": float(values.mean()), "error": float(values.std()) / math.sqrt(len(values)), "unit": "nats"}


def paired() -> None:
    gaussian = trained("flows-start", lambda: recipe("gaussian", EPOCHS)).model
    found = {name: torch.tensor(bounds(name, gaussian), dtype=torch.float64) for name in POSTERIORS}
    gains = {name: figure(found[name] - found["gaussian"]) for name in POSTERIORS if name != "gaussian"}
    write(
        "gallery/flows",
        command=COMMAND,
        seed=0,
        settings={
            "recipe": "flows:mnist",
            "epochs": [EPOCHS, MORE],
            "lr": [1e-3, LR],
            "schedule": "second part: linear to 0",
            "latent": LATENT,
            "hidden": HIDDEN,
            "flows": {name: count for name, (_, count) in POSTERIORS.items()},
            "samples": SAMPLES,
            "examples": len(found["gaussian"]),
        },
        figures={f"nelbo_{name}": figure(-values) for name, values in found.items()}
        | {f"gain_{name}": gain for name, gain in gains.items()}
        | {f"flows_{name}": {"value": count, "error": None, "unit": "flows"} for name, (_, count) in POSTERIORS.items() if count}
        | {
            "epochs_before": {"value": EPOCHS, "error": None, "unit": "epochs"},
            "epochs_after": {"value": MORE, "error": None, "unit": "epochs"},
        },
    )
    canvas = blank(700, 300, constrained=True)
    with styled():
        panel = canvas.subplots()
        order = sorted(gains, key=lambda name: float(gains[name]["value"]))
        for place, name in enumerate(order):
            panel.errorbar(gains[name]["value"], place, xerr=2 * gains[name]["error"], fmt="o", color=BLUE, capsize=3)
        panel.axvline(0, color=GREY, linewidth=0.8)
        panel.set_yticks(range(len(order)), [f"{POSTERIORS[name][0]}, {POSTERIORS[name][1]}" for name in order], color=INK)
        panel.set_xlabel("test bound above the diagonal Gaussian's, nats per image")
        put_title(canvas, "What a flow posterior gains on static MNIST")
        put_note(
            canvas, "Bars: two standard errors of the paired difference over the test images. The number of flows stands behind the name."
        )
        picture("flows-gains", canvas)


def main() -> None:
    energies()
    paired()


if __name__ == "__main__":
    run(main)
