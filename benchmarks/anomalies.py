"""Outliers on eight sets of ADBench: `vaekit.apps.anomaly.VAEOutlierDetector` as it comes, beside four detectors of scikit-learn.

Two settings, five seeds each: "normal", fitted to half of the normal rows and tested on the other half and all anomalies; and "mixed",
fitted to all rows without their labels and tested on them. The estimator is told which of them it is, by ``novelty``, as scikit-learn's
`LocalOutlierFactor` is; the rest is as it comes. Columns are standardised for all detectors alike. The figure is the area under
the ROC curve in percent, the median over seeds with half the range as its error.

All eight were looked at when the defaults of `VAEOutlierDetector` were chosen. With ``--tables others`` six are taken that were not: MNIST,
images of one digit among those of another, and scikit-learn's digits, one among the rest, where others of the digits had been.

With ``--modes`` or ``--detectors`` a part is measured, and the rest of the record stays as it is: ``measured_with`` among its settings says
which commit each part is of.

The data are the archives of ADBench (Han et al., NeurIPS 2022) in the folder ``adbench`` of the data folder, VAEKIT_DATA.
Run: python -m benchmarks.anomalies; python -m benchmarks.anomalies --tables others --seeds 2
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

from benchmarks.record import RESULTS, commit, write
from vaekit.apps.anomaly import VAEOutlierDetector
from vaekit.data import mnist_grey

Array = NDArray[np.float64]
Detector = Callable[[Array, Array, int], Array]
SETS = {
    "cardio": "6_cardio",
    "ionosphere": "18_Ionosphere",
    "mammography": "23_mammography",
    "pendigits": "28_pendigits",
    "satellite": "30_satellite",
    "satimage2": "31_satimage-2",
    "shuttle": "32_shuttle",
    "thyroid": "38_thyroid",
}
CHOSEN_ON = (*SETS, "breast cancer", "wine", "iris", "digits 0, 1, 8, 3")
"""Tables that were looked at when the defaults were chosen: all of these, and some of scikit-learn's."""
OTHERS = ("mnist_0_6", "mnist_1_7", "mnist_4_9", "digits_2", "digits_5", "digits_9")
"""Tables that were not: ordinary rows and anomalies, by digits."""
MOST = 10_000
"""Rows that the one-class SVM is fitted to at most: its time grows with their square."""
PUBLISHED = {
    "mixed": {"cardio": 95.00, "mammography": 88.67, "thyroid": 95.56, "satimage2": 98.51, "pendigits": 93.66, "ionosphere": 78.55},
    "normal": {"cardio": 96.55, "mammography": 89.58, "thyroid": 98.55, "satimage2": 98.98, "pendigits": 94.50, "ionosphere": 89.76},
}
"""AUROC of ADBench's VAE, unsupervised and semi-supervised."""


def vae(train: Array, test: Array, seed: int) -> Array:
    """Trained on normal rows alone where the tested ones are others."""
    return -VAEOutlierDetector(novelty=train is not test, random_state=seed).fit(train).score_samples(test)


def pca(train: Array, test: Array, seed: int) -> Array:
    """Sum of squared components, each over its variance."""
    found = PCA().fit(train)
    scores: Array = (found.transform(test) ** 2 / np.maximum(found.explained_variance_, 1e-9)).sum(1)
    return scores


def forest(train: Array, test: Array, seed: int) -> Array:
    scores: Array = -IsolationForest(random_state=seed).fit(train).score_samples(test)
    return scores


def svm(train: Array, test: Array, seed: int) -> Array:
    rows = np.random.default_rng(seed).permutation(len(train))[:MOST]
    scores: Array = -OneClassSVM().fit(train[rows]).decision_function(test)
    return scores


def neighbours(train: Array, test: Array, seed: int) -> Array:
    """Distance to the fifth neighbour; of a row that was fitted itself, itself not counted."""
    own = train is test
    scores: Array = NearestNeighbors(n_neighbors=5).fit(train).kneighbors(None if own else test)[0][:, -1]
    return scores


def centre(train: Array, test: Array, seed: int) -> Array:
    """Squared distance from the means: what a VAE is left with whose latents have all collapsed."""
    scores: Array = ((test - train.mean(0)) ** 2).sum(1)
    return scores


DEFAULT: dict[str, Detector] = {"vae": vae, "pca": pca, "forest": forest, "svm": svm, "neighbours": neighbours}
DETECTORS = DEFAULT | {"centre": centre}
MODES = ("normal", "mixed")
RECORD = "tables/anomalies"


@cache
def table(name: str) -> tuple[Array, NDArray[np.int64]]:
    """Rows and which of them are anomalies, of MNIST 100 of the pixels that vary, 3000 ordinary rows and 300 others."""
    if name in SETS:
        with np.load(Path(os.environ.get("VAEKIT_DATA", "data")).expanduser() / "adbench" / f"{SETS[name]}.npz") as data:
            return data["X"].astype(np.float64), data["y"]
    source, *digits = name.split("_")
    if source == "digits":
        X, y = load_digits(return_X_y=True)
        return X, (y == int(digits[0])).astype(np.int64)
    train = mnist_grey().train
    if not isinstance(train.x, torch.Tensor) or train.label is None:
        raise TypeError("MNIST is in memory, with labels")
    images, labels = train.x.flatten(1).numpy().astype(np.float64), train.label.numpy()
    ordinary, strange = (images[labels == int(digit)][:rows] for digit, rows in zip(digits, (3000, 300), strict=True))
    varying = np.random.default_rng(0).permutation(np.flatnonzero(images[:10_000].std(0) > 5))[:100]
    return np.concatenate([ordinary, strange])[:, varying], np.repeat([0, 1], [len(ordinary), len(strange)])


def area(name: str, mixed: bool, detector: Detector, seed: int) -> float:
    X, y = table(name)
    if mixed:
        train = test = StandardScaler().fit_transform(X)
        truth = y
    else:
        normal = np.random.default_rng(seed).permutation(np.flatnonzero(y == 0))
        fitted = normal[: len(normal) // 2]
        tested = np.setdiff1d(np.arange(len(y)), fitted)
        scaler = StandardScaler().fit(X[fitted])
        train, test, truth = scaler.transform(X[fitted]), scaler.transform(X[tested]), y[tested]
    return 100 * float(roc_auc_score(truth, detector(train, test, seed)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", choices=("adbench", "others"), default="adbench")
    parser.add_argument("--sets", nargs="+", choices=[*SETS, *OTHERS], help="some of these tables; all of them where it is not given")
    parser.add_argument("--detectors", nargs="+", choices=DETECTORS, default=list(DEFAULT))
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--record", help="name of the record; empty for none")
    given = parser.parse_args()
    every = list(SETS if given.tables == "adbench" else OTHERS)
    sets = every if given.sets is None else given.sets
    record = (RECORD if given.tables == "adbench" else f"{RECORD}-others") if given.record is None else given.record
    if record and set(sets) != set(every):
        parser.error('a record has all sets, for its means are over them: with --sets give --record ""')
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="sklearn")
    found: dict[tuple[str, str, str], list[float]] = {}
    for seed in range(given.seeds):
        for mode in given.modes:
            for method in given.detectors:
                start = time.process_time()
                for name in sets:
                    found.setdefault((mode, name, method), []).append(area(name, mode == "mixed", DETECTORS[method], seed))
                row = " ".join(f"{name} {found[mode, name, method][-1]:.1f}" for name in sets)
                print(f"seed {seed} {mode} {method}: {row} ({time.process_time() - start:.0f} s)", flush=True)
        if record:
            save(record, found, sets, seed + 1)


def save(record: str, found: dict[tuple[str, str, str], list[float]], sets: list[str], seeds: int) -> None:
    """The record of the seeds that are through, and of what is not measured anew."""
    path = RESULTS / f"{record}.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"figures": {}, "settings": {}}
    parts = dict(before["settings"].get("measured_with", {}))
    figures: dict[str, dict[str, float | str | None]] = dict(before["figures"])
    for mode in MODES:
        for method in dict.fromkeys(method for of, _, method in found if of == mode):
            parts[f"{mode}_{method}"] = commit()
            medians = {name: statistics.median(found[mode, name, method]) for name in sets}
            for name, values in ((name, found[mode, name, method]) for name in sets):
                figures[f"{mode}_{name}_{method}"] = {"value": medians[name], "error": (max(values) - min(values)) / 2, "unit": "%"}
            figures[f"{mode}_mean_{method}"] = {"value": statistics.mean(medians.values()), "error": None, "unit": "%"}
    source = "Han et al., ADBench, NeurIPS 2022: VAE"
    published = {
        f"{mode}_{name}_vae": {"value": value, "tolerance": 0.0, "direction": "at_least", "source": source}
        for mode, of_mode in PUBLISHED.items()
        for name, value in of_mode.items()
        if f"{mode}_{name}_vae" in figures
    } or None
    settings = {
        "defaults": repr(VAEOutlierDetector().get_params()),
        "chosen_on": list(CHOSEN_ON),
        "svm_rows": MOST,
        "measured_with": parts,
    }
    command = "python -m benchmarks.anomalies" + (f" --tables others --seeds {seeds}" if set(sets) == set(OTHERS) else "")
    if record not in (RECORD, f"{RECORD}-others"):
        command += f" --record {record}"
    write(record, command=command, seed=list(range(seeds)), settings=settings, figures=figures, published=published)


if __name__ == "__main__":
    main()
