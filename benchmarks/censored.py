"""Values that are missing because they are large: models that take them for missing at random, and models of the mask.

Breast cancer (569 rows, 30 columns), each of the first 15 columns without the values above its mean, as in Ipsen, Mattei and Frellsen
("not-MIWAE", ICLR 2021, section 4.2 and Table 1): the root mean squared error of the imputed values, columns standardised. Their table has
the linear models and the MICE that are quoted besides.

Run: python -m benchmarks.censored [seeds]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from statistics import mean, stdev
from typing import Literal

import numpy as np
import pandas as pd
import torch
from sklearn.datasets import load_breast_cancer

from benchmarks.record import write
from vaekit import fit
from vaekit.apps.impute import impute
from vaekit.data.tables import Schema
from vaekit.recipes import own
from vaekit.types import Batch

SEEDS = int(sys.argv[1]) if len(sys.argv) > 1 else 3
KINDS: tuple[Literal["at-random", "self-masking", "not-at-random"], ...] = ("at-random", "self-masking", "not-at-random")
EPOCHS, LATENT, SAMPLES = 250, 8, 512
SOURCE = "Ipsen, Mattei and Frellsen, not-MIWAE, ICLR 2021, Table 1, Breast"
PUBLISHED = {"at-random": 1.20, "self-masking": 0.74, "not-at-random": 1.10}


def table() -> tuple[pd.DataFrame, pd.DataFrame]:
    """All values, and those that are observed."""
    x = load_breast_cancer().data
    x = (x - x.mean(0)) / x.std(0)
    seen = np.ones_like(x, dtype=bool)
    half = x.shape[1] // 2
    seen[:, :half] = x[:, :half] <= 0
    names = [f"x{d}" for d in range(x.shape[1])]
    return pd.DataFrame(x, columns=names), pd.DataFrame(np.where(seen, x, np.nan), columns=names)


def error(kind: Literal["at-random", "self-masking", "not-at-random"], seed: int) -> float:
    """Of one run."""
    truth, observed = table()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "breast.csv"
        observed.to_csv(path, index=False)
        torch.manual_seed(seed)
        kinds = tuple(f"{name}=continuous" for name in observed)
        recipe = own.table(str(path), kind=kinds, missing=kind, latent=LATENT, epochs=EPOCHS)
        fit(recipe.model, recipe.data(), objective=recipe.objective, training=recipe.training, progress=False)
    if recipe.known is None or not isinstance(recipe.known.schema, Schema):
        raise ValueError("the recipe has found no table")
    schema = recipe.known.schema
    x, mask = schema.encode(observed)
    made = schema.decode_array(impute(recipe.model, Batch(x.nan_to_num(), mask=mask), samples=SAMPLES).mean)
    gone = observed.isna().to_numpy()
    return float(np.sqrt(((made - truth.to_numpy())[gone] ** 2).mean()))


def main() -> None:
    truth, observed = table()
    gone = observed.isna().to_numpy()
    filled = observed.fillna(observed.mean()).to_numpy()
    plain = float(np.sqrt(((filled - truth.to_numpy())[gone] ** 2).mean()))
    print(f"mean of what is observed: {plain:.3f}", flush=True)
    figures: dict[str, dict[str, float | str | None]] = {"mean": {"value": plain, "error": None, "unit": "standard deviations"}}
    for kind in KINDS:
        found = []
        for seed in range(1, SEEDS + 1):
            found.append(error(kind, seed))
            print(f"{kind}, seed {seed}: {found[-1]:.3f}", flush=True)
        spread = stdev(found) / len(found) ** 0.5 if len(found) > 1 else None
        figures[kind] = {"value": mean(found), "error": spread, "unit": "standard deviations"}
    write(
        "censored/breast",
        command=f"python -m benchmarks.censored {SEEDS}",
        seed=list(range(1, SEEDS + 1)),
        settings={"recipe": "own:table", "latent": LATENT, "epochs": EPOCHS, "samples": SAMPLES, "kind": "continuous"},
        figures=figures,
        published={
            "mean": {"value": 1.82, "tolerance": 0.02, "direction": "within", "source": SOURCE},  # the same entries are missing
            **{kind: {"value": value, "tolerance": 0.05, "direction": "at_most", "source": SOURCE} for kind, value in PUBLISHED.items()},
        },
    )


if __name__ == "__main__":
    main()
