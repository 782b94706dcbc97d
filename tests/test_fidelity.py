"""Synthetic tables beside real ones: what is the same is found to be, and what is not is exposed by what is to expose it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from vaekit import commands, synthetic
from vaekit.apps import closest
from vaekit.apps.associations import association, distance
from vaekit.apps.fidelity import Fidelity, auroc, fidelity, told_apart
from vaekit.cli import main
from vaekit.data.tables import Schema, read_table
from vaekit.errors import InputError

pd = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")
mixed = pytest.importorskip("benchmarks.mixed_table")


def rows(n: int, seed: int, missing: float = mixed.MISSING) -> Any:
    """Rows of the process, without one of its counts: 7 columns."""
    return mixed.rows(n, seed, missing).drop(columns="children")


def looked(made: Any, real: Any, train: Any, seed: int = 0) -> Fidelity:
    schema = Schema.infer(pd.concat([real, train]))
    return fidelity(schema, *(schema.encode(frame)[0] for frame in (made, real, train)), seed=seed)


# ---- the parts, against others' and by hand


def schema() -> Schema:
    return Schema.infer(rows(300, 0))


def test_distances_are_scipys() -> None:
    x, y = schema().encode(rows(200, 1))[0].double().numpy(), schema().encode(rows(150, 2))[0].double().numpy()
    for d, column in enumerate(schema().modelled):
        a, b = x[~np.isnan(x[:, d]), d], y[~np.isnan(y[:, d]), d]
        found = distance(column, x[:, d], y[:, d])
        if column.size:
            shares = [(np.mean(a == code), np.mean(b == code)) for code in range(column.size)]
            assert found == pytest.approx(0.5 * sum(abs(p - q) for p, q in shares)), column.name
        else:
            assert found == pytest.approx(stats.ks_2samp(a, b).statistic), column.name
    assert np.isnan(distance(schema().modelled[0], x[:0, 0], y[:, 0]))


def test_associations_by_their_definitions() -> None:
    """In words of their own: from the contingency table of scipy, the analysis of variance of scipy, the correlation of scipy."""
    columns = {column.name: column for column in schema().modelled}
    x = dict(zip(columns, schema().encode(rows(250, 3))[0].double().numpy().T, strict=True))
    for a, b in itertools.combinations(columns, 2):
        both = ~(np.isnan(x[a]) | np.isnan(x[b]))
        u, v, n = x[a][both], x[b][both], int(both.sum())
        found = association(columns[a], columns[b], x[a], x[b])
        if columns[a].size and columns[b].size:
            counts = np.array([[np.sum((u == i) & (v == j)) for j in np.unique(v)] for i in np.unique(u)])
            r, c = counts.shape
            phi2 = stats.chi2_contingency(counts, correction=False).statistic / n - (r - 1) * (c - 1) / (n - 1)
            least = min(r - (r - 1) ** 2 / (n - 1), c - (c - 1) ** 2 / (n - 1)) - 1
            expected = (max(phi2, 0) / least) ** 0.5
        elif columns[a].size or columns[b].size:
            number, code = (v, u) if columns[a].size else (u, v)
            parts = [stats.rankdata(number)[code == one] for one in np.unique(code)]
            f, within, between = stats.f_oneway(*parts).statistic, n - len(parts), len(parts) - 1
            expected = max(0.0, 1 - (n - 1) / (f * between + within)) ** 0.5
        else:
            expected = stats.spearmanr(u, v).statistic
        assert found == pytest.approx(expected), (a, b)
    assert np.isnan(association(columns["income"], columns["visits"], np.ones(5), np.arange(5.0)))


def test_independent_columns_have_no_association_on_average() -> None:
    """Without the correction V of 60 rows of 4 x 3 categories is 0.2 on average."""
    r = np.random.default_rng(0)
    columns = {column.name: column for column in schema().modelled}
    city, size, income = (columns[name] for name in ("city", "size", "income"))
    drawn = [(r.integers(4, size=60).astype(float), r.integers(4, size=60).astype(float), r.normal(size=60)) for _ in range(300)]
    assert np.mean([association(city, size, u, v) ** 2 for u, v, _ in drawn]) < 0.015
    assert np.mean([association(city, income, u, w) ** 2 for u, _, w in drawn]) < 0.02
    assert abs(np.mean([association(income, income, w, u) for u, _, w in drawn])) < 0.03


def test_the_area_under_the_curve_and_its_error() -> None:
    r = np.random.default_rng(0)
    found = []
    for _ in range(300):
        p, n = r.normal(1, 1, 40).round(1), r.normal(0, 1, 30).round(1)
        area, error = auroc(p, n)
        assert area == pytest.approx(roc_auc_score(np.repeat([1, 0], [40, 30]), np.concatenate([p, n])))
        found.append((area, error))
    areas, errors = np.array(found).T
    assert abs(areas.mean() - stats.norm.cdf(2**-0.5)) < 4 * areas.std() / 300**0.5
    assert 0.85 < errors.mean() / areas.std() < 1.15


def test_the_closest_row_by_every_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    found = schema()
    x, train = (found.encode(rows(n, seed))[0].double().numpy() for n, seed in ((40, 4), (60, 5)))
    x[3], x[7] = train[11], np.nan
    lacking = np.linspace(0.1, 0.7, 7)
    near, which, same = closest.closest(found.modelled, x, train, lacking)
    kinds = [column.kind for column in found.modelled]
    spread = [1.0 if k == "binary" else 3.0 if k == "ordinal" else np.nanstd(train[:, d]) for d, k in enumerate(kinds)]

    def delta(d: int, u: float, v: float) -> float:
        return float(u != v) if kinds[d] == "categorical" else abs(u - v) / spread[d]

    for i, row in enumerate(x):
        every = [sum(lacking[d] if np.isnan(row[d] + one[d]) else delta(d, row[d], one[d]) for d in range(7)) / 7 for one in train]
        assert near[i] == pytest.approx(min(every)) and every[which[i]] == min(every), i
    assert same[3] and not same[7] and same.sum() < 8
    monkeypatch.setattr(closest, "PAIRS", 100)
    assert np.array_equal(closest.closest(found.modelled, x, train, lacking)[0], near)


def test_ties_are_shared_out() -> None:
    """Of a table of two truths every row is a copy, and of rows of the process 5% are close all the same."""
    r = np.random.default_rng(0)
    table = pd.DataFrame({"a": r.random(900) < 0.5, "b": r.random(900) < 0.5})
    found = looked(table[:300], table[300:600], table[600:]).closeness
    assert found.copies == 300 == found.copies_held_out
    assert found.close == pytest.approx(0.05) and found.closer == pytest.approx(0.5)


# ---- whole tables


def test_rows_of_the_same_process_are_alike() -> None:
    """Over seeds, by z-scores: a complete synthetic table beside one with gaps, as models give them."""
    found = [looked(rows(400, 3 * s, missing=0.0), rows(300, 3 * s + 1), rows(500, 3 * s + 2), seed=s) for s in range(6)]
    for values, expected in (
        ([(f.auroc, f.auroc_se) for f in found], 0.5),
        ([(f.closeness.close, f.closeness.close_se) for f in found], 0.05),
        ([(f.closeness.closer, f.closeness.closer_se) for f in found], 0.5),
    ):
        z = [(value - expected) / error for value, error in values]
        assert max(map(abs, z)) < 3.5 and abs(sum(z)) / 6**0.5 < 3, z
        assert all(0.003 < error < 0.06 for _, error in values)
    for f in found:
        assert f.distance < 0.1 and f.difference < 0.1 and f.closeness.copies < 0.1 * 400
        assert all(c.missing == 0 and 0.1 < c.missing_real < 0.3 for c in f.columns)
        assert len(f.notes) == 1 and "columns complete in the synthetic table alone" in f.notes[0]
    ratio = np.mean([f.distance for f in found]) / np.mean([np.mean([c.usual for c in f.columns]) for f in found])
    assert 0.8 < ratio < 1.25


@pytest.mark.parametrize(("missing", "filled", "least"), [(0.0, False, 1.0), (0.2, False, 0.8), (0.2, True, 0.5)])
def test_a_copy_of_the_training_rows_is_exposed(missing: float, filled: bool, least: float) -> None:
    """Complete rows, rows with their gaps, and rows whose gaps were filled in; by the distances alone, for all else is as it should be."""
    whole = rows(500, 0, missing=0.0)
    train = whole.mask(np.random.default_rng(0).random(whole.shape) < missing)
    f = looked((whole if filled else train)[:400], rows(300, 1, missing=missing), train)
    assert f.closeness.close >= least and f.closeness.closer > 0.5 + 0.45 * least
    assert f.closeness.copies >= (400 if missing == 0 else 300) and f.closeness.copies_held_out <= (0 if missing == 0 else 15)
    assert f.distance < 0.1 and f.difference < 0.1 and abs(f.auroc - 0.5) < 4 * f.auroc_se


def test_shuffled_columns_are_exposed_by_what_sees_more_than_one() -> None:
    r = np.random.default_rng(0)
    train, real = rows(1000, 0), rows(500, 1)
    made = pd.DataFrame({name: train[name].iloc[r.permutation(1000)].array for name in train})
    f = looked(made, real, train)
    usual = np.mean([c.usual for c in f.columns])
    assert f.distance == pytest.approx(usual) and usual < 0.06
    assert f.difference > 3 * np.mean([p.usual for p in f.pairs])
    assert f.auroc > 0.5 + 6 * f.auroc_se
    assert f.closeness.close < 0.05


def test_one_wrong_column_is_the_one_that_is_named() -> None:
    train, real = rows(600, 0), rows(400, 1)
    made = rows(500, 2).assign(temperature=lambda t: t["temperature"] + 5)
    f = looked(made, real, train)
    worst = max(f.columns, key=lambda c: c.distance)
    assert worst.name == "temperature" and worst.distance > 0.25
    assert max(c.distance for c in f.columns if c.name != "temperature") < 0.12
    assert "temperature" in f.describe() and json.loads(json.dumps(f.as_dict(), allow_nan=False))["rows"] == 500


def test_many_columns_many_categories_and_empty_columns() -> None:
    r = np.random.default_rng(0)
    numbers = pd.DataFrame(r.normal(size=(90, 60)), columns=[f"n{i}" for i in range(60)]).assign(
        c=pd.Categorical(r.integers(0, 300, 90), categories=range(300)), e=[*r.normal(size=30), *[np.nan] * 60]
    )
    schema = Schema.infer(numbers)
    f = fidelity(schema, *(schema.encode(part)[0] for part in (numbers[:30], numbers[30:60], numbers[60:])))
    assert np.isnan(f.columns[-1].distance) and f.as_dict()["columns"][-1]["distance"] is None  # no two tables have a value of it
    assert len(f.pairs) == 1000 and "1000 of 1891 pairs" in f.notes[0]


def test_what_is_refused() -> None:
    found = Schema.infer(rows(100, 0))
    x = found.encode(rows(100, 0))[0]
    with pytest.raises(InputError, match=r"held-out rows of shape \[100, 3\]"):
        fidelity(found, x, x[:, :3], x)
    with pytest.raises(InputError, match="5 synthetic rows say little"):
        fidelity(found, x[:5], x, x)


def test_the_error_of_what_the_classifier_says() -> None:
    """Over pairs of small tables of one process, whose folds share chance differences: z-scores, their mean and their spread."""
    found = Schema.infer(rows(500, 0))
    z = []
    for seed in range(20):
        a, b = (found.encode(rows(40, 1000 + 2 * seed + i))[0].double().numpy() for i in (0, 1))
        area, error = told_apart(found.modelled, a, b, seed=seed)
        z.append((area - 0.5) / error)
    assert abs(np.mean(z)) < 3 / 20**0.5 and 0.65 < np.std(z) < 1.15
    assert told_apart(found.modelled, a, b, seed=19) == (area, error)


# ---- a run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fidelity")
    path = mixed.save(rows(1500, 0), folder / "table.csv")
    made = commands.train("own:table", {"path": str(path), "kind": mixed.KINDS, "epochs": 20}, out=folder / "run", compile=False)
    return made.path


def test_a_run_and_its_own_rows(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fidelity", str(run), "--n", "600"]) == 0
    out = capsys.readouterr().out
    assert "600 synthetic rows beside 150 held-out ones" in out and "rank correlation" in out
    kept = json.loads((run / "fidelity.json").read_text())
    assert kept["auroc"] < 0.6 and kept["closeness"]["copies"] < 0.1 * 600 and kept["train"] == 1200
    assert sum(column["distance"] for column in kept["columns"]) / 7 < 0.1
    found = synthetic.fidelity(run, n=600)
    assert found.as_dict() == kept and kept["columns"][0]["missing"] == 0


def test_a_table_that_somebody_made(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The very rows that it was trained on."""
    before = (run / "fidelity.json").read_bytes() if (run / "fidelity.json").exists() else None
    _, recipe = commands.load(run)
    assert recipe.known is not None and isinstance(recipe.known.schema, Schema)
    copied = mixed.save(recipe.known.schema.decode(recipe.data().train.x), tmp_path / "copied.csv")
    assert main(["fidelity", str(run), str(copied), "--split", "valid", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["closeness"]["copies"] > 1000 and found["closeness"]["close"] > 0.75 and found["held_out"] == 150
    assert ((run / "fidelity.json").read_bytes() if before else None) == before
    assert synthetic.fidelity(run, copied).auroc != found["auroc"]  # beside the test rows
    strange = mixed.save(read_table(copied).assign(city="Paris"), tmp_path / "strange.csv")
    for words, message in (
        ([str(strange)], 'column "city" holds'),
        ([str(copied), "--n", "5"], "leave out one"),
        (["--split", "train"], "no rows to compare with"),
        (["--n", "5"], "5 synthetic rows"),
    ):
        assert main(["fidelity", str(run), *words]) == 2
        assert message in capsys.readouterr().err


def test_columns_that_are_given_are_looked_at_too(run: Path, tmp_path: Path) -> None:
    """Drawn from the training rows they are right alone, and what the others have to do with them is the model's."""
    path = mixed.save(rows(1500, 0), tmp_path / "table.csv")
    arguments = {"path": str(path), "kind": mixed.KINDS, "condition": ("city",), "epochs": 15}
    made = commands.train("own:table", arguments, out=tmp_path / "run", compile=False)
    f, free = synthetic.fidelity(made, n=1200), synthetic.fidelity(run, n=1200)
    assert [c.name for c in f.columns] == [c.name for c in free.columns] and len(f.pairs) == 21
    city, other = (next(c for c in one.columns if c.name == "city") for one in (f, free))
    assert city.usual == other.usual and city.missing_real == other.missing_real > 0
    assert abs(f.auroc - 0.5) < 4 * f.auroc_se and f.difference < 0.15
    city_and_temperature = next(p for p in f.pairs if {p.a, p.b} == {"city", "temperature"})
    assert city_and_temperature.synthetic > 0.3 and abs(city_and_temperature.difference) < 0.25


def test_only_tables_have_columns(tmp_path: Path) -> None:
    made = commands.train("digits", {"epochs": 1, "hidden": 4}, out=tmp_path / "run", compile=False)
    with pytest.raises(InputError, match="only a table has columns"):
        synthetic.fidelity(made)
