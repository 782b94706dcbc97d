r"""A table of every kind of column whose exact likelihood is known, and what `vaekit train PATH` makes of it.

Two latents z ~ N(0, I) decide on eight columns: a number, a positive number, two counts, a truth, a category, a level and a date; a fifth
of the cells is then missing completely at random. The density of what is left of a row is an integral over z in two dimensions,

.. math:: p(x_{obs}) = \int N(z; 0, I) \prod_{d \in obs} p(x_d | z) dz,

which the trapezoid rule on a grid gives to many digits, as it does for all that is smooth and vanishes at both ends. Dates are scored by
the mass of their day, numbers by their density in their own unit, as the recipe's are. Rows of the process that the model never saw are
scored by both; the difference, which is never below 0 but by chance, is what the model misses. Beside it stands the product of the
columns' own exact marginals: the best that a model of independent columns can do. Rows that the model draws are compared with rows of the
process by `vaekit.apps.fidelity`.

Run: python -m benchmarks.mixed_table
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.special import expit, gammaln, log_expit, log_ndtr, log_softmax, logsumexp, xlogy

from benchmarks.record import write
from vaekit import commands
from vaekit.apps.fidelity import Fidelity, fidelity
from vaekit.data.tables import Schema, rows_of
from vaekit.evaluate import log_likelihood

Array = NDArray[np.float64]
CITIES, SIZES = ("Bonn", "Köln", "Trier", "Ulm"), ("s", "m", "l", "xl")
KINDS = (f"size={'<'.join(SIZES)}",)
"""What a .csv file cannot say: that the sizes have an order."""
START = np.datetime64("2020-01-01", "D")
MISSING = 0.2
CITY = np.array([[1.5, 0.0, 0.0], [0.0, 1.5, 0.3], [-1.5, 0.5, 0.0], [0.0, -1.5, -0.3]])
CUTS = np.array([-2.0, 0.0, 1.5])
R, TEMPERATURE, INCOME, DAYS = 3.0, 2.0, 0.3, 90.0


@dataclass(frozen=True)
class Means:
    """What z ``[*, 2]`` makes of the columns."""

    temperature: Array
    income: Array
    visits: Array
    children: Array
    member: Array
    city: Array
    size: Array
    joined: Array


def means(z: Array) -> Means:
    a, b = z[..., 0], z[..., 1]
    return Means(
        temperature=15 + 8 * np.sin(a) + 3 * b,
        income=10 + 0.6 * b - 0.2 * a**2,
        visits=np.exp(0.8 + 0.7 * a),
        children=np.exp(0.3 - 0.5 * a * b),
        member=2 * a - b,
        city=np.stack([a, b, a * b], -1) @ CITY.T,
        size=1.5 * (a + b),
        joined=200 * b + 60 * a,
    )


def rows(n: int, seed: int, missing: float = MISSING) -> pd.DataFrame:
    """n rows of the process, in pandas' own dtypes, a share of the cells missing."""
    r = np.random.default_rng(seed)
    m = means(r.standard_normal((n, 2)))
    level = (r.logistic(size=n)[:, None] + m.size[:, None] > CUTS).sum(1)
    frame = pd.DataFrame(
        {
            "temperature": m.temperature + TEMPERATURE * r.standard_normal(n),
            "income": np.exp(m.income + INCOME * r.standard_normal(n)),
            "visits": pd.array(r.poisson(r.gamma(R, m.visits / R)), dtype="Int64"),
            "children": pd.array(r.poisson(m.children), dtype="Int64"),
            "member": pd.array(r.random(n) < expit(m.member), dtype="boolean"),
            "city": pd.Categorical.from_codes((m.city + r.gumbel(size=(n, 4))).argmax(1), list(CITIES)),
            "size": pd.Categorical.from_codes(level, list(SIZES), ordered=True),
            "joined": pd.to_datetime(START + np.rint(m.joined + DAYS * r.standard_normal(n)).astype("timedelta64[D]")).astype(
                "datetime64[ns]"
            ),
        }
    )
    return frame.mask(r.random(frame.shape) < missing)


def log_terms(frame: pd.DataFrame, z: Array) -> Array:
    """log p(x_d | z) in nats of the table's own units, 0 where x_d is missing: ``[D, N, G]`` for z ``[G, 2]``."""
    m = means(z)
    x = {name: frame[name].astype("float64").to_numpy()[:, None] for name in ("temperature", "income", "visits", "children", "member")}
    x |= {name: frame[name].cat.codes.to_numpy(dtype=np.float64)[:, None] for name in ("city", "size")}
    day = (frame["joined"] - pd.Timestamp(START)).dt.days.to_numpy(dtype=np.float64)[:, None]
    city, level = x["city"].astype(int), np.maximum(x["size"].astype(int), 0)
    edges = np.concatenate([[-np.inf], CUTS, [np.inf]])
    found = np.stack(
        [
            normal((x["temperature"] - m.temperature) / TEMPERATURE) - np.log(TEMPERATURE),
            normal((np.log(x["income"]) - m.income) / INCOME) - np.log(INCOME) - np.log(x["income"]),
            negative_binomial(x["visits"], m.visits, R),
            xlogy(x["children"], m.children) - m.children - gammaln(x["children"] + 1),
            np.where(x["member"] == 1, log_expit(m.member), log_expit(-m.member)),
            log_softmax(m.city, axis=-1).T[city[:, 0]],
            logistic(m.size - edges[level + 1], m.size - edges[level]),
            interval((day - 0.5 - m.joined) / DAYS, (day + 0.5 - m.joined) / DAYS),
        ]
    )
    return np.where(frame.isna().to_numpy().T[:, :, None], 0.0, found)


def normal(u: Array) -> Array:
    return -0.5 * u**2 - 0.5 * np.log(2 * np.pi)


def negative_binomial(x: Array, mean: Array, r: float) -> Array:
    found: Array = gammaln(x + r) - gammaln(r) - gammaln(x + 1) + r * np.log(r / (r + mean)) + xlogy(x, mean / (r + mean))
    return found


def logistic(low: Array, high: Array) -> Array:
    """log of expit(high) - expit(low), as the product expit(high) expit(-low) (1 - exp(low - high))."""
    found: Array = log_expit(high) + log_expit(-low) + np.log1p(-np.exp(low - high))
    return found


def interval(low: Array, high: Array) -> Array:
    """log of the standard normal's mass between the two, in the lower tail, where it is exact."""
    low, high = np.where(low > 0, -high, low), np.where(low > 0, -low, high)
    top: Array = log_ndtr(high)
    return top + np.log1p(-np.exp(log_ndtr(low) - top))


def exact(frame: pd.DataFrame, step: float = 0.2, reach: float = 7.0) -> tuple[Array, Array]:
    """(log p(x_obs) ``[N]``, log p(x_d) of each column alone ``[N, D]``, 0 where it is missing)."""
    points = np.arange(-reach, reach + step / 2, step)
    z = np.stack(np.meshgrid(points, points, indexing="ij"), -1).reshape(-1, 2)
    log_w = normal(z).sum(-1) + 2 * np.log(step)
    joint, alone = [], []
    for start in range(0, len(frame), 200):
        terms = log_terms(frame.iloc[start : start + 200], z)
        joint.append(logsumexp(terms.sum(0) + log_w, axis=-1))
        alone.append(logsumexp(terms + log_w, axis=-1).T)
    return np.concatenate(joint), np.concatenate(alone)


def save(frame: pd.DataFrame, path: Path) -> Path:
    """As .csv or .parquet, by the name."""
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path, index=False)
    return path


def scores(run: Any, path: Path, samples: int, seed: int = 0) -> Array:
    """The importance-weighted log p(x_obs) of every row of a file ``[N]``, in nats of its own units."""
    _, recipe = commands.load(run, device="cpu")
    if recipe.known is None or not isinstance(recipe.known.schema, Schema):
        raise ValueError(f"{run} is no run of a table")
    split, _ = rows_of(path, recipe.known.schema)
    found: Array = log_likelihood(recipe.model, split, samples=samples, seed=seed).log_px.double().numpy()
    return found


@dataclass(frozen=True)
class Measured:
    """Means over held-out rows, nats a row, and the standard errors of the paired differences."""

    entropy: float
    gap: float
    gap_se: float
    independent: float

    @property
    def percent(self) -> float:
        return 100 * self.gap / self.entropy

    @property
    def dependence(self) -> float:
        """The share of what the columns tell of each other that the model has found."""
        return 100 * (1 - self.gap / self.independent)


def compared(frame: pd.DataFrame, log_px: Array) -> Measured:
    """A model's scores of the rows beside the exact ones."""
    true, alone = exact(frame)
    gap = true - log_px
    return Measured(-float(true.mean()), float(gap.mean()), float(gap.std(ddof=1) / len(gap) ** 0.5), float((true - alone.sum(1)).mean()))


def drawn(run: Any, new: Path, folder: Path) -> Fidelity:
    """As many rows that the model draws as a file holds that it never saw, beside these."""
    recipe = commands.load(run, device="cpu")[1]
    if recipe.known is None or not isinstance(recipe.known.schema, Schema):
        raise ValueError(f"{run} is no run of a table")
    real, _ = rows_of(new, recipe.known.schema)
    made, _ = rows_of(commands.sample(run, n=len(real), out=folder / "made.csv")[1], recipe.known.schema)
    return fidelity(recipe.known.schema, *(split.batch(torch.arange(len(split))).x for split in (made, real, recipe.data().train)))


def measured(seed: int, n: int, held_out: int, samples: int, folder: Path) -> tuple[Measured, Fidelity]:
    """Train on a .csv file with every setting at its default, and score rows of another."""
    frame = rows(held_out, 1000 + seed)
    path, new = save(rows(n, seed), folder / "table.csv"), save(frame, folder / "new.csv")
    run = commands.train("own:table", {"path": str(path), "kind": KINDS}, out=folder / "run", seed=seed, device="cpu")
    return compared(frame, scores(run, new, samples)), drawn(run, new, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, nargs="+", default=[1000, 5000], help="rows to train on, validation and test rows among them")
    parser.add_argument("--held-out", type=int, default=4000)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--record", default="tables/mixed", help="name of the record; empty for none")
    given = parser.parse_args()
    torch.set_num_threads(1)
    figures: dict[str, dict[str, float | str | None]] = {}
    for n in given.n:
        found: list[tuple[Measured, Fidelity]] = []
        for seed in range(given.seeds):
            start = time.process_time()
            with tempfile.TemporaryDirectory() as folder:
                found.append(measured(seed, n, given.held_out, given.samples, Path(folder)))
            one, like = found[-1]
            print(
                f"{n} rows, seed {seed}: entropy {one.entropy:.3f}, gap {one.gap:.3f} +- {one.gap_se:.3f} nats ({one.percent:.2f}%), "
                f"dependence {one.independent:.3f} nats, {one.dependence:.1f}% of it found, AUROC {like.auroc:.3f} +- {like.auroc_se:.3f}, "
                f"closer {like.closeness.closer:.3f} +- {like.closeness.closer_se:.3f}, {time.process_time() - start:.0f} s",
                flush=True,
            )
        values = {
            "entropy": ("nats", [one.entropy for one, _ in found]),
            "gap": ("nats", [one.gap for one, _ in found]),
            "independent": ("nats", [one.independent for one, _ in found]),
            "percent": ("%", [one.percent for one, _ in found]),
            "dependence": ("%", [one.dependence for one, _ in found]),
            "auroc": ("0 to 1", [like.auroc for _, like in found]),
            "close": ("%", [100 * like.closeness.close for _, like in found]),
            "closer": ("0 to 1", [like.closeness.closer for _, like in found]),
        }
        for key, (unit, each) in values.items():
            error = statistics.stdev(each) if len(each) > 1 else None
            figures[f"{key}_{n}"] = {"value": statistics.mean(each), "error": error, "unit": unit}
        figures[f"worst_{n}"] = {"value": max(one.percent for one, _ in found), "error": None, "unit": "%"}
        figures[f"least_{n}"] = {"value": min(one.gap / one.gap_se for one, _ in found), "error": None, "unit": "standard errors"}
    if given.record:
        aim = {"value": 0.0, "tolerance": 5.0, "direction": "within", "source": "the exact likelihood, by quadrature"}
        write(
            given.record,
            command="python -m benchmarks.mixed_table",
            seed=list(range(given.seeds)),
            settings={"rows": given.n, "held_out": given.held_out, "missing": MISSING, "importance_samples": given.samples},
            figures=figures,
            published={f"worst_{n}": aim for n in given.n},
        )


if __name__ == "__main__":
    main()
