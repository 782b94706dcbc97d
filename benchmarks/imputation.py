"""Missing entries of four tables that come with scikit-learn, 10, 30 and 50% of them completely at random.

`vaekit.apps.imputer.VAEImputer` as it comes, its conditional means, beside the column's mean, nearest neighbours (5) and
IterativeImputer of scikit-learn. Columns are standardised with the complete table's mean and standard deviation, as in MIWAE (Mattei and
Frellsen, 2019), and the figure is the root of the mean squared error over the missing entries; a constant column is left out.
Coverage is the share of missing entries inside intervals of 90%. One rule sets the steps of training for every table
(`vaekit.apps.imputer.steps_of_table`); it and the other defaults were chosen looking at these tables with seeds 0 and 1, at their missing
entries too.
Seeds draw which entries are missing and start the models; the record says which seeds each table and share has. With ``--cells FILE`` an
interrupted run goes on where it was, and the record is of all that is in the file; ``--seeds 0`` writes it and measures nothing.

Run: python -m benchmarks.imputation
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn import datasets
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer

from benchmarks.record import write
from vaekit.apps.imputer import VAEImputer, steps_of_table

Array = NDArray[np.float64]
PUBLISHED = {"breast_cancer_50_vae_mse": {"value": 0.287, "tolerance": 0.03, "direction": "at_most", "source": "MIWAE, table 3"}}
TABLES = {
    "wine": datasets.load_wine,
    "diabetes": datasets.load_diabetes,
    "breast_cancer": datasets.load_breast_cancer,
    "digits": datasets.load_digits,
}
SEEDS = {"wine": 5, "diabetes": 5, "breast_cancer": 5, "digits": 3}
RIVALS: dict[str, Callable[[int], object]] = {
    "mean": lambda seed: SimpleImputer(),
    "neighbours": lambda seed: KNNImputer(),
    "iterative": lambda seed: IterativeImputer(random_state=seed),
}


def table(name: str) -> Array:
    X: Array = TABLES[name](return_X_y=True)[0].astype(np.float64)
    X = X[:, X.std(0) > 0]
    scaled: Array = (X - X.mean(0)) / X.std(0)
    return scaled


def measured(name: str, share: float, seed: int, rivals: list[str]) -> dict[str, float]:
    X = table(name)
    hidden = np.random.default_rng(seed).random(X.shape) < share
    seen = np.where(hidden, np.nan, X)
    vae = VAEImputer(random_state=seed).fit(seen)
    made = vae.impute_distribution(seen, coverage=0.9)
    if made.lower is None or made.upper is None:
        raise ValueError("intervals were asked for")
    inside = (made.lower <= X) & (made.upper >= X)
    found = {"vae": rmse(made.mean, X, hidden), "coverage": float(inside[hidden].mean())}
    for rival in rivals:
        found[rival] = rmse(RIVALS[rival](seed).fit_transform(seen), X, hidden)  # type: ignore[attr-defined]
    return found


def rmse(made: Array, X: Array, hidden: NDArray[np.bool_]) -> float:
    return float(np.sqrt(np.square(made - X)[hidden].mean()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--shares", nargs="+", type=int, default=[10, 30, 50], help="percent")
    parser.add_argument("--rivals", nargs="*", choices=RIVALS, default=list(RIVALS))
    parser.add_argument("--seeds", type=int, help="of each table, in place of 5 and of 3 for digits")
    parser.add_argument("--cells", type=Path, help="file of single measurements: those in it are not repeated, new ones are added")
    parser.add_argument("--record", default="tables/imputation", help="name of the record; empty for none")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="sklearn")
    wanted = {name: SEEDS[name] if given.seeds is None else given.seeds for name in given.tables}
    kept = {} if given.cells is None or not given.cells.exists() else dict(map(json.loads, given.cells.read_text().splitlines()))
    for seed in range(max(wanted.values())):
        for name in (name for name, count in wanted.items() if seed < count):
            for share in given.shares:
                cell, start = f"{name}_{share}_{seed}", time.process_time()
                if cell in kept:
                    continue
                kept[cell] = measured(name, share / 100, seed, given.rivals)
                row = " ".join(f"{key} {value:.3f}" for key, value in kept[cell].items())
                print(f"{name} {share}% seed {seed}: {row} ({time.process_time() - start:.0f} s)", flush=True)
                if given.cells:
                    given.cells.write_text("".join(json.dumps(found) + "\n" for found in kept.items()))
    if given.record:
        save(given.record, kept)


def save(record: str, kept: dict[str, dict[str, float]]) -> None:
    """The record of the cells "table_share_seed"."""
    cells: dict[str, dict[int, dict[str, float]]] = {}
    for key, found in kept.items():
        cell, _, seed = key.rpartition("_")
        cells.setdefault(cell, {})[int(seed)] = found
    figures: dict[str, dict[str, float | str | None]] = {}
    for cell, by_seed in cells.items():
        figures |= summary(cell, list(by_seed.values()))
    write(
        record,
        command="python -m benchmarks.imputation",
        seed=sorted({seed for by_seed in cells.values() for seed in by_seed}),
        settings={
            "defaults": repr(VAEImputer().get_params()),
            "steps": {name: steps_of_table(*table(name).shape) for name in TABLES},
            "seeds": {cell: sorted(by_seed) for cell, by_seed in cells.items()},
            "rivals": "SimpleImputer(), KNNImputer(), IterativeImputer(random_state=seed), all else as scikit-learn has it",
            "error": "standard deviation over seeds",
        },
        figures=figures,
        published=PUBLISHED if "breast_cancer_50_vae_mse" in figures else None,
    )


def summary(cell: str, found: list[dict[str, float]]) -> dict[str, dict[str, float | str | None]]:
    """Means over the seeds and standard deviations of one table with one share missing."""
    values = {key: [row[key] for row in found] for key in found[0]} | {"vae_mse": [row["vae"] ** 2 for row in found]}
    units = {"coverage": "0 to 1", "vae_mse": "variances"}
    return {
        f"{cell}_{key}": {
            "value": statistics.mean(each),
            "error": statistics.stdev(each) if len(each) > 1 else None,
            "unit": units.get(key, "standard deviations"),
        }
        for key, each in values.items()
    }


if __name__ == "__main__":
    main()
