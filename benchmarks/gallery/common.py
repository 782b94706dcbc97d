"""What the gallery's scripts share: work that survives an interruption, and where the results go.

A script calls ``run(main)``. Under ``--quick`` it does everything in small and writes only below a temporary folder.
"""

from __future__ import annotations

import csv
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import record
from vaekit.recipes.core import Recipe
from vaekit.train import Fitted, fit
from vaekit.viz import png
from vaekit.viz.figure import Figure

__all__ = ["once", "picture", "quick", "run", "series", "trained", "work", "write"]

ROOT = Path(__file__).resolve().parents[2]
quick = "--quick" in sys.argv[1:]
_HERE = Path(tempfile.mkdtemp(prefix="gallery-")) if quick else ROOT


def run(main: Callable[[], None]) -> None:
    """The script's entry: ``--quick`` is its one flag."""
    if unknown := [word for word in sys.argv[1:] if word != "--quick"]:
        sys.exit(f"unknown argument {unknown[0]}: the one flag is --quick")
    main()
    if quick:
        print(f"quick run, nothing kept but {_HERE}")


def work(name: str) -> Path:
    """The folder in which ``name`` is being worked on; git ignores it."""
    path = _HERE / "runs" / "gallery" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def trained(name: str, recipe: Callable[[], Recipe], seed: int = 0) -> Fitted:
    """Train the recipe under ``seed`` (weights, order and noise), or go on where an interrupted script left it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        plan = recipe()
    training = replace(plan.training, seed=seed)
    fitted = fit(plan.model, plan.data(), objective=plan.objective, training=training, out=work(name), resume=True)
    print(f"{name}: {fitted.step} steps, {fitted.seconds:.0f} s, {fitted.history[-1]}", flush=True)
    return fitted


def once(name: str, function: Callable[[], Any]) -> Any:
    """The JSON value of ``function()``, kept: an interrupted script does not repeat it."""
    path = work(f"{name}.json")
    if not path.exists():
        value = function()
        scratch = work(f"{name}.tmp")
        scratch.write_text(json.dumps(value), encoding="utf-8")
        scratch.replace(path)
        print(f"{name}: {json.dumps(value)[:300]}", flush=True)
    return json.loads(path.read_text(encoding="utf-8"))


def write(name: str, **fields: Any) -> Path:
    """`benchmarks.record.write`, into the repository unless this is a quick run."""
    return record.write(name, **fields, results=_HERE / "benchmarks" / "results")


def picture(name: str, figure: Figure) -> None:
    """``docs/gallery/<name>.png``."""
    path = _HERE / "docs" / "gallery" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(figure))


def series(name: str, columns: Mapping[str, Sequence[float]]) -> None:
    """``benchmarks/results/gallery/<name>.csv``: the points of a curve, one column each."""
    path = _HERE / "benchmarks" / "results" / "gallery" / f"{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
