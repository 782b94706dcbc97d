"""Missing entries of four tables that come with scikit-learn, 10, 30 and 50% of them completely at random.

`vaekit.apps.imputer.VAEImputer` as it comes, its conditional means, beside the column's mean, nearest neighbours (5) and
IterativeImputer of scikit-learn. Columns are standardised with the complete table's mean and standard deviation, as in MIWAE (Mattei and
Frellsen, 2019), and the figure is the root of the mean squared error over the missing entries; a constant column is left out.
Coverage is the share of missing entries inside intervals of 90%.

Run: python -m benchmarks.imputation
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn import datasets
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer

from benchmarks.record import write
from vaekit.apps.imputer import VAEImputer

Array = NDArray[np.float64]
TABLES = {
    "breast_cancer": datasets.load_breast_cancer,
    "wine": datasets.load_wine,
    "diabetes": datasets.load_diabetes,
    "digits": datasets.load_digits,
}
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
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--record", default="tables/imputation", help="name of the record; empty for none")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="sklearn")
    figures: dict[str, dict[str, float | str | None]] = {}
    for name in given.tables:
        for share in given.shares:
            start = time.process_time()
            found = [measured(name, share / 100, seed, given.rivals) for seed in range(given.seeds)]
            for key in found[0]:
                values = [row[key] for row in found]
                unit = "0 to 1" if key == "coverage" else "standard deviations"
                figures[f"{name}_{share}_{key}"] = {
                    "value": statistics.mean(values),
                    "error": statistics.stdev(values) if len(values) > 1 else None,
                    "unit": unit,
                }
            square = [row["vae"] ** 2 for row in found]
            figures[f"{name}_{share}_vae_mse"] = {"value": statistics.mean(square), "error": None, "unit": "variances"}
            row = " ".join(f"{key} {statistics.mean(r[key] for r in found):.3f}" for key in found[0])
            print(f"{name} {share}%: {row} (MSE {statistics.mean(square):.3f}, {time.process_time() - start:.0f} s)", flush=True)
    published = {"breast_cancer_50_vae_mse": {"value": 0.287, "tolerance": 0.03, "direction": "at_most", "source": "MIWAE, table 3"}}
    if given.record:
        write(
            given.record,
            command="python -m benchmarks.imputation",
            seed=list(range(given.seeds)),
            settings={"defaults": repr(VAEImputer().get_params())},
            figures=figures,
            published=published if "breast_cancer_50_vae_mse" in figures else None,
        )


if __name__ == "__main__":
    main()
