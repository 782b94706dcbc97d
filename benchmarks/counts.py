"""Counts of 32,738 genes in 2,700 cells (PBMC 3k, 10x Genomics) by four likelihoods, through `vaekit train FILE --likelihood ...`.

The rows of the file are shuffled three times, so that the recipe's division (80% training, 10% validation, 10% test) is another each time.
A figure of a likelihood is the mean over the test cells of all divisions; its error is the standard error over these cells. Differences are
taken cell by cell. "alone" are models without latents: each gene by itself, given the cell's total, fitted by maximum likelihood on the
training cells.

Every training is a process of its own. Its memory is the most that it has held above what it held when all was imported; "reading" is
that of looking at the file and dividing it, "scoring" that of opening the largest run and scoring its test cells. "copies" is
by how much more memory an epoch takes on four times the cells. The time of a step is taken with zeros set apart and without, in turn.

The constructed process is that of `benchmarks.count_process`: what the recipe lacks of its known log-likelihood.

Run: python -m benchmarks.counts   (about 15 minutes on one core)
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.cells import MARKERS, Share, groups, normalised, purity, scores
from benchmarks.cells_map import picture
from benchmarks.count_process import Process, entropy_of_totals
from benchmarks.count_runs import MAPPED, one_epoch, reading, scoring, steps, training
from benchmarks.record import write
from vaekit import commands, viz
from vaekit.data.core import DataSet, Split
from vaekit.data.tables import inspect, sized
from vaekit.evaluate import log_likelihood

Array = npt.NDArray[Any]
LIKELIHOODS = ("Poisson", "ZeroInflatedPoisson", "NegativeBinomial", "ZeroInflatedNegativeBinomial")
SHORT = {"Poisson": "poisson", "ZeroInflatedPoisson": "zip", "NegativeBinomial": "nb", "ZeroInflatedNegativeBinomial": "zinb"}
SEEDS = (0, 1, 2)
DIVISIONS = {"Poisson": 3, "ZeroInflatedPoisson": 3, "NegativeBinomial": 3, "ZeroInflatedNegativeBinomial": 2}  # the slowest on fewer
ARGUMENTS: dict[str, Any] = {"epochs": 12, "lr": 3e-3}
COMPONENTS = 10  # of the PCA, as many as latents
PICTURE = Path(__file__).resolve().parents[1] / "docs" / "gallery" / "counts.png"


def shuffled(source: Path, seed: int, path: Path, *, copies: int = 1) -> None:
    """The file with its rows in another order, each so many times."""
    from scipy.sparse import csr_array

    found = np.load(source)
    matrix = csr_array((found["data"], found["indices"].astype(np.int64), found["indptr"].astype(np.int64)), shape=tuple(found["shape"]))
    matrix = matrix[np.tile(np.random.default_rng(seed).permutation(matrix.shape[0]), copies)]
    parts = {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr, "shape": np.array(matrix.shape)}
    np.savez(path, allow_pickle=False, genes=found["genes"], **parts)


def matrix_of(split: Split) -> Any:
    """The rows of a split, sparse."""
    from scipy.sparse import csr_array, vstack

    return vstack([csr_array(split.batch(index).x.numpy()) for index in torch.arange(len(split)).split(200)]).tocsr()


def totals_of(split: Split) -> Array:
    """The totals that the model is given."""
    context = sized(split).c
    return np.exp(context[:, 0].double().numpy()) if context is not None else np.zeros(0)


def alone(data: DataSet) -> dict[str, Array]:
    """log p(x) of the test cells, gene by gene."""
    fitted = Share.of(matrix_of(data.train), totals_of(data.train))
    x, totals = matrix_of(data.test), totals_of(data.test)
    return {"alone_nb": fitted.log_prob(x, totals), "alone_poisson": fitted.poisson(x, totals)}


def biology(data: DataSet, genes: list[str], folder: Path) -> dict[str, Any]:
    """How pure the neighbourhoods of the test cells are, in z and in principal components of normalised counts; and all for the map."""
    from scipy.sparse import vstack
    from sklearn.decomposition import PCA

    names = ("train", "valid", "test")
    parts = [matrix_of(data.split(name)) for name in names]
    x = vstack(parts).tocsr()
    z = np.concatenate([np.load(folder / f"z-{name}.npy") for name in names])
    group, n = groups(scores(x, genes)), parts[0].shape[0]
    logs = normalised(x)
    components = PCA(COMPONENTS, svd_solver="arpack", random_state=0).fit(logs[:n]).transform(logs)
    known = np.flatnonzero(group >= 0)
    place, tested = group[known], np.flatnonzero(known >= x.shape[0] - parts[2].shape[0])
    found = {name: purity(points[known], place, of=tested) for name, points in (("z", z), ("pca", components))}
    share = np.bincount(place) / len(place)
    return {
        **{name: float(values.mean()) for name, values in found.items()},
        **{f"{name}_groups": [float(values[place[tested] == g].mean()) for g in range(len(MARKERS))] for name, values in found.items()},
        "chance": float(share[place[tested]].mean()),
        "sizes": np.bincount(place, minlength=len(MARKERS)).tolist(),
        "unknown": int((group < 0).sum()),
        "map": (z, group, logs, genes),
    }


def constructed(samples: int) -> dict[str, float]:
    """By how much the recipe's held-out nats exceed those of the process, as a part of them."""
    from scipy.sparse import csr_array, save_npz

    found: dict[str, float] = {}
    for likelihood, zeros in ((MAPPED, 0.0), ("ZeroInflatedNegativeBinomial", 0.3)):
        process = Process.of(0, zeros=zeros)
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/process.npz"
            save_npz(path, csr_array(process.draw(2000, 1)[0]))
            flags = {"path": path, "likelihood": likelihood, "latent": 2, "hidden": 64, "lr": 5e-3, "epochs": 30}
            _, recipe = commands.load(commands.train("own:counts", flags, out=f"{folder}/run", seed=0, device="cpu"), device="cpu")
        x, size = process.draw(1000, 2)
        exact = process.log_prob(x, size)
        over = exact - log_likelihood(recipe.model, sized(Split(torch.tensor(x).float())), samples=samples).log_px.numpy()
        name = f"constructed_{SHORT[likelihood]}"
        found |= {f"{name}_entropy": -float(exact.mean()), f"{name}_over": float(over.mean())}
        found[f"{name}_over_se"] = float(over.std(ddof=1) / len(over) ** 0.5)
        found[f"{name}_told"] = entropy_of_totals(x)
    return found


def mean(values: Array, unit: str = "nats per cell") -> dict[str, Any]:
    """With its standard error over the values."""
    return {"value": float(values.mean()), "error": float(values.std(ddof=1) / math.sqrt(len(values))), "unit": unit}


def spread(values: list[float], unit: str) -> dict[str, Any]:
    """Median, and half of the range."""
    return {"value": statistics.median(values), "error": (max(values) - min(values)) / 2, "unit": unit}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=50, help="importance samples of each cell")
    parser.add_argument("--epochs", type=int, help="a pilot trained for so many; no record is written")
    parser.add_argument("--runs", type=Path, help="keep the runs here, and do not repeat those that are there")
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)  # what a process of its own does
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    arguments = ARGUMENTS if given.epochs is None else ARGUMENTS | {"epochs": given.epochs}
    if given.part:
        kind, path, *words = given.part
        if kind == "training":
            found = training(path, words[0], int(words[1]), given.samples, arguments, Path(words[2]))
        elif kind == "epoch":
            found = one_epoch(path)
        else:
            found = reading(path) if kind == "reading" else scoring(path, given.samples)
        print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as folder:
        measured(given, arguments, given.runs or Path(folder))


def child(given: argparse.Namespace, *words: object) -> dict[str, float]:
    """The answer of a process of its own."""
    command = [sys.executable, "-m", "benchmarks.counts", "--samples", str(given.samples)]
    command += [] if given.epochs is None else ["--epochs", str(given.epochs)]
    done = subprocess.run(
        [*command, "--part", *map(str, words)], env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True, stdout=subprocess.PIPE, text=True
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def kept(path: Path, make: Any) -> dict[str, Any]:
    """What ``make()`` gives, or has given."""
    if not path.exists():
        path.write_text(json.dumps(make()), encoding="utf-8")
    found = dict(json.loads(path.read_text(encoding="utf-8")))
    print(path.stem, found, flush=True)
    return found


def measured(given: argparse.Namespace, arguments: dict[str, Any], folder: Path) -> None:
    source = Path(os.environ["VAEKIT_DATA"]) / "pbmc" / "pbmc3k_counts.npz"
    folder.mkdir(parents=True, exist_ok=True)
    load = os.getloadavg()[0]
    log_px: dict[str, list[Array]] = {}
    answers: dict[str, list[dict[str, Any]]] = {likelihood: [] for likelihood in LIKELIHOODS}
    looks: list[dict[str, Any]] = []
    for seed in SEEDS:
        path = folder / f"pbmc-{seed}.npz"
        shuffled(source, seed, path)
        for likelihood in (name for name in LIKELIHOODS if seed < DIVISIONS[name]):
            name = f"{SHORT[likelihood]}-{seed}"
            answers[likelihood].append(
                kept(folder / f"{name}.json", partial(child, given, "training", path, likelihood, seed, folder / name))
            )
            log_px.setdefault(SHORT[likelihood], []).append(np.load(folder / name / "log_px.npy"))
        found = inspect(path)
        for name, values in alone(found.data).items():
            log_px.setdefault(name, []).append(values)
        looks.append(biology(found.data, list(found.schema.names), folder / f"nb-{seed}"))  # type: ignore[union-attr]
        print({key: value for key, value in looks[-1].items() if key != "map"}, flush=True)
    read = kept(folder / "reading.json", partial(child, given, "reading", folder / "pbmc-0.npz"))
    score = kept(folder / "scoring.json", partial(child, given, "scoring", folder / "zinb-0"))
    copies = {}
    for n in (1, 4):
        shuffled(source, 0, folder / f"copies-{n}.npz", copies=n)
        copies[n] = kept(folder / f"copies-{n}.json", partial(child, given, "epoch", folder / f"copies-{n}.npz"))
    times = kept(folder / "steps.json", partial(steps, str(folder / "pbmc-0.npz"), 5))
    made = kept(folder / "constructed.json", partial(constructed, given.samples))
    genes = looks[0]["map"][2].shape[1]
    every = {name: np.concatenate(parts) for name, parts in log_px.items()}
    figures: dict[str, dict[str, Any]] = {}
    for name, values in every.items():
        figures[f"{name}_log_px"] = mean(values)
        if name != "poisson":
            over = values - every["poisson"][: len(values)]
            figures[f"{name}_over_poisson"] = mean(over)
            figures[f"{name}_median"] = {
                "value": float(np.median(over)),
                "error": None,
                "unit": "nats above the Poisson's, in half of the cells",
            }
            figures[f"{name}_better"] = {"value": 100 * float((over > 0).mean()), "error": None, "unit": "% of the cells"}
    for name in ("poisson", "nb"):
        figures[f"{name}_over_alone"] = mean(every[name] - every[f"alone_{name}"])
    figures["zinb_over_nb"] = mean(every["zinb"] - every["nb"][: len(every["zinb"])])
    for likelihood, found_ in answers.items():
        name = SHORT[likelihood]
        figures[f"{name}_least_over_poisson"] = {
            "value": min(float((a - b).mean()) for a, b in zip(log_px[name], log_px["poisson"], strict=False)),
            "error": None,
            "unit": "nats per cell, in the division where it is least",
        }
        figures[f"{name}_seconds"] = spread([a["seconds"] for a in found_], "s")
        figures[f"{name}_memory"] = spread([a["memory"] * 2**20 / 1e6 for a in found_], "MB")
        figures[f"{name}_weights"] = {"value": found_[0]["weights"] * 2**20 / 1e6, "error": None, "unit": "MB"}
        figures[f"{name}_mc_error"] = {"value": max(a["mc_error"] for a in found_), "error": None, "unit": "nats per cell"}
    figures.pop("poisson_least_over_poisson")
    figures["reading_memory"] = {"value": read["peak"] * 2**20 / 1e6, "error": None, "unit": "MB"}
    figures["scoring_memory"] = {"value": score["peak"] * 2**20 / 1e6, "error": None, "unit": "MB"}
    more = (copies[4]["peak"] - copies[1]["peak"]) * 2**20 / 1e6
    figures["copies_memory"] = {"value": more, "error": None, "unit": "MB"}
    figures["copies_dense"] = {"value": 3 * 2700 * genes * 4 / 1e6, "error": None, "unit": "MB"}
    figures["rows_memory"] = {"value": read["after"] * 2**20 / 1e6, "error": None, "unit": "MB"}
    figures["dense"] = {"value": 2700 * genes * 4 / 1e6, "error": None, "unit": "MB"}
    figures["cells_scored"] = {"value": len(every["nb"]), "error": None, "unit": "cells"}
    figures["dense_step"] = spread([d / a for d, a in zip(times["dense"], times["apart"], strict=True)], "times")
    for key in [key for key in made if key.endswith("_over")]:
        name, entropy = key.removesuffix("_over"), made[key.removesuffix("_over") + "_entropy"]
        figures[name] = {"value": 100 * made[key] / entropy, "error": 100 * made[f"{key}_se"] / entropy, "unit": "%"}
        figures[f"{name}_entropy"] = {"value": entropy, "error": None, "unit": "nats"}
        figures[f"{name}_told"] = {"value": 100 * made[f"{name}_told"] / entropy, "error": None, "unit": "%"}
    for name in ("z", "pca"):
        figures[f"purity_{name}"] = mean(np.array([look[name] for look in looks]), "of 15 neighbours")
        for number, group in enumerate(MARKERS):
            values = np.array([look[f"{name}_groups"][number] for look in looks])
            figures[f"purity_{name}_{group.split()[0].lower()}"] = mean(values, "of 15 neighbours")
    figures["purity_chance"] = mean(np.array([look["chance"] for look in looks]), "of 15 neighbours")
    figures["unknown"] = {"value": looks[0]["unknown"], "error": None, "unit": "cells"}
    for group, size in zip(MARKERS, looks[0]["sizes"], strict=True):
        figures[f"cells_{group.split()[0].lower()}"] = {"value": size, "error": None, "unit": "cells"}
    for key, figure in figures.items():
        print(f"{key}: {figure['value']:.4g} +- {figure['error']} {figure['unit']}", flush=True)
    if given.epochs is not None:
        (folder / "map.png").write_bytes(viz.png(picture(*looks[0]["map"])))
        return  # a pilot
    PICTURE.write_bytes(viz.png(picture(*looks[0]["map"])))
    goal = {"value": 0.0, "tolerance": 0.0, "direction": "at_least", "source": "the goal: better than the Poisson's"}
    write(
        "counts/pbmc3k",
        command="python -m benchmarks.counts",
        seed=list(SEEDS),
        settings={
            "recipe": "own:counts",
            "arguments": arguments,
            "samples": given.samples,
            "divisions": DIVISIONS,
            "components": COMPONENTS,
            "threads": 1,
            "load": load,
        },
        figures=figures,
        published={f"{name}_over_poisson": goal for name in ("zip", "nb", "zinb")},
    )


if __name__ == "__main__":
    main()
