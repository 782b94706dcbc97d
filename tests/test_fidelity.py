"""Synthetic tables beside real ones: what is the same is found to be, and what is not is exposed by what is to expose it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score

from vaekit import commands, synthetic
from vaekit.apps import closest
from vaekit.apps.associations import association, distance
from vaekit.apps.fidelity import Fidelity, auroc, fidelity, told_apart
from vaekit.apps.gaps import with_gaps
from vaekit.cli import main
from vaekit.data.tables import Schema, read_table
from vaekit.errors import InputError
from vaekit.models import NotAtRandom
from vaekit.train import save_weights

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
        assert f.distance < 0.1 and f.difference < 0.13 and f.closeness.copies < 0.1 * 400
        assert all(c.missing == 0 and 0.1 < c.missing_real < 0.3 for c in f.columns)
        assert len(f.notes) == 1 and "7 of 7 columns are complete in the synthetic table alone" in f.notes[0]
    ratio = np.mean([f.distance for f in found]) / np.mean([np.mean([c.usual for c in f.columns]) for f in found])
    assert 0.8 < ratio < 1.25


def gappy(n: int, seed: int, gaps: bool) -> Any:
    """b is missing where a is large, and c where a and b are there and a is small."""
    r = np.random.default_rng(seed)
    a = r.normal(size=n)
    b = a + r.normal(size=n)
    gone = r.random(n) < 1 / (1 + np.exp(-3 * a))
    c = np.where(gaps & ~gone & (a < -0.5), np.nan, b + r.normal(size=n))
    return pd.DataFrame({"a": a, "b": np.where(gaps & gone, np.nan, b), "c": c})


def test_gaps_that_depend_on_values_do_not_condemn_rows_of_the_process() -> None:
    found = [looked(gappy(400, 3 * s, False), gappy(300, 3 * s + 1, True), gappy(400, 3 * s + 2, True), seed=s) for s in range(5)]
    z = [(f.auroc - 0.5) / f.auroc_se for f in found]
    assert abs(np.mean(z)) < 3 / 5**0.5 and max(z) < 3, z
    for d in (1, 2):
        assert np.mean([f.columns[d].distance for f in found]) < 1.5 * np.mean([f.columns[d].usual for f in found])
    assert np.mean([p.difference for f in found for p in f.pairs]) < 1.5 * np.mean([p.usual for f in found for p in f.pairs])
    assert all(f.columns[d].missing == 0 for f in found for d in (1, 2)) and "columns with fewer gaps" in found[0].notes[0]


def test_columns_that_are_missing_together_and_more_than_gaps_are_fitted_to() -> None:
    """70 columns of which 50 are looked at; and one without any value in the training rows."""
    r = np.random.default_rng(0)
    x, real = r.normal(size=(500, 73)), r.normal(size=(500, 73))
    real[real[:, 0] > 0, 70] = np.nan
    real[np.isnan(real[:, 70]) | (r.random(500) < 0.1), 71] = np.nan
    real[:, 72] = np.nan
    columns = Schema.infer(pd.DataFrame(x)).modelled
    seen, which = with_gaps(columns, x, real, r)
    gaps = np.isnan(seen)
    assert which.tolist() == [70, 71, 72] and gaps[:, 72].all() and not gaps[:, :70].any()
    assert (gaps[:, 70] == (x[:, 0] > 0)).mean() > 0.97 and gaps[gaps[:, 70], 71].mean() > 0.95
    assert 0.03 < gaps[~gaps[:, 70], 71].mean() < 0.2
    kept = with_gaps(columns, np.where(gaps, np.nan, x), real, r)
    assert not len(kept[1]) and np.array_equal(np.isnan(kept[0]), gaps)  # gaps that a table has are its own


def test_the_classifier_of_the_fewest_rows() -> None:
    """Apart by 100 standard deviations, and not at all."""
    r = np.random.default_rng(0)
    columns = Schema.infer(pd.DataFrame(r.normal(size=(60, 2)))).modelled
    for n in (20, 24):
        assert told_apart(columns, r.normal(size=(n, 2)), r.normal(size=(n, 2)) + 100)[0] > 0.99
    z = [(a - 0.5) / e for a, e in (told_apart(columns, *r.normal(size=(2, 20, 2)), seed=s) for s in range(12))]
    assert abs(np.mean(z)) < 3 / 12**0.5 and max(map(abs, z)) < 3.5 and np.std(z) > 0.3


def test_one_outlier_does_not_make_all_values_the_same() -> None:
    """Nor where most of the values are one."""
    r = np.random.default_rng(0)
    columns = Schema.infer(pd.DataFrame(r.normal(size=(60, 2)))).modelled
    train, x = r.normal(size=(2, 200, 2))
    train[:, 1], x[:, 1] = r.integers(0, 10, (2, 200)) * (r.random((2, 200)) < 0.4)
    train[0] = 123456789.123
    copied = np.concatenate([x, train[:50].astype(np.float32)])
    _, _, same = closest.closest(columns, copied, train, np.zeros(2))
    assert not same[:200].any() and same[200:].all()


def test_what_lacking_cells_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is looked for where none is lacking, and the order of the training rows does not matter."""
    r = np.random.default_rng(0)
    columns = Schema.infer(pd.DataFrame(r.normal(size=(60, 2)))).modelled
    x, real, train = r.normal(size=(3, 300, 2))
    train = np.sort(train, 0)
    seen: list[Any] = []
    plain = closest.closest

    def spied(*given: Any) -> Any:
        seen.append(given[3])
        return plain(*given)

    monkeypatch.setattr(closest, "closest", spied)
    closest.closeness(columns, x, real, train)
    assert len(seen) == 2
    real[0, 0] = np.nan
    closest.closeness(columns, x, real, train)
    assert len(seen) == 5 and seen[2] == pytest.approx(2 / np.pi**0.5, rel=0.15)


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
    assert "under training, 500 training rows beside these" in f.describe()
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
    more = torch.cat([schema.encode(numbers[:30])[0]] * 2)
    found = fidelity(schema, more, *(schema.encode(part)[0] for part in (numbers[30:60], numbers[60:])))
    assert "60 synthetic rows beside 30 held-out ones; under training, 30 training rows" in found.describe()


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
    assert {"split": "test", "seed": 0} | found.as_dict() == kept and kept["columns"][0]["missing"] == 0


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


def test_a_given_column_that_has_nothing_to_do_with_the_others_is_exposed(tmp_path: Path) -> None:
    """Rows of the process, and the same rows with the given column shuffled, beside a model that is conditioned on it."""

    def drawn(n: int, seed: int) -> Any:
        r = np.random.default_rng(seed)
        g = r.integers(0, 3, n)
        return pd.DataFrame({"g": np.array(["l", "m", "s"])[g], "a": 2 * g + r.normal(size=n), "b": r.normal(size=n) - g})

    drawn(1500, 0).to_csv(tmp_path / "t.csv", index=False)
    made = commands.train(
        "own:table", {"path": str(tmp_path / "t.csv"), "condition": ("g",), "epochs": 1}, out=tmp_path / "run", compile=False
    )
    true = drawn(400, 1)
    true.to_csv(tmp_path / "right.csv", index=False)
    true.assign(g=np.random.default_rng(0).permutation(true["g"])).to_csv(tmp_path / "wrong.csv", index=False)
    right, wrong = (synthetic.fidelity(made, tmp_path / f"{name}.csv") for name in ("right", "wrong"))
    assert abs(right.auroc - 0.5) < 3 * right.auroc_se and wrong.auroc > 0.5 + 4 * wrong.auroc_se
    assert [c.distance for c in wrong.columns] == [c.distance for c in right.columns]
    for p, q in zip(right.pairs, wrong.pairs, strict=True):
        if "g" in (p.a, p.b):
            assert p.difference < 0.15 and q.synthetic < 0.2 and q.difference > 0.4


def test_a_model_of_the_mask_says_what_would_be_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Complete rows of the process, b missing where it is large, by the true p(m | x): alike, and not where gaps depend on a alone."""

    def drawn(n: int, seed: int, gaps: bool) -> Any:
        r = np.random.default_rng(seed)
        a = r.normal(size=n)
        b = a + r.normal(size=n)
        return pd.DataFrame({"g": r.integers(0, 2, n), "a": a, "b": np.where(gaps & (r.random(n) < 1 / (1 + np.exp(-4 * b))), np.nan, b)})

    drawn(6000, 0, True).to_csv(tmp_path / "t.csv", index=False)
    drawn(800, 1, False).to_csv(tmp_path / "made.csv", index=False)
    arguments = {"path": str(tmp_path / "t.csv"), "kind": ("b=continuous",), "condition": ("g",), "epochs": 1, "hidden": 4, "k": 1}
    found = {}
    for missing in ("at-random", "self-masking"):
        made = commands.train("own:table", {**arguments, "missing": missing}, out=tmp_path / missing, compile=False)
        _, recipe = commands.load(made)
        if isinstance(recipe.model, NotAtRandom):
            assert recipe.known is not None and isinstance(recipe.known.schema, Schema)
            b = recipe.known.schema.modelled[1]
            with torch.no_grad():  # the true one: -4 b = -4 (loc + scale u)
                recipe.model.missing.scaled.copy_(torch.tensor([[-0.4 * b.scale], [-0.4 * b.loc]]))
            save_weights(recipe.model, made.path / "model.safetensors")
        found[missing] = synthetic.fidelity(made, tmp_path / "made.csv")
    right, wrong = found["self-masking"], found["at-random"]
    assert right.columns[2].missing == pytest.approx(right.columns[2].missing_real, abs=0.07) and wrong.columns[2].missing == 0
    assert right.columns[2].distance < 0.12 and wrong.columns[2].distance > 0.2
    assert abs(right.auroc - 0.5) < 3 * right.auroc_se and wrong.auroc > 0.5 + 2 * wrong.auroc_se
    assert "the run's model of the mask" in right.notes[0] and len(right.notes) == 1
    assert "training rows, which assumes" in wrong.notes[0]


def test_only_tables_have_columns(tmp_path: Path) -> None:
    made = commands.train("digits", {"epochs": 1, "hidden": 4}, out=tmp_path / "run", compile=False)
    with pytest.raises(InputError, match="only a table has columns"):
        synthetic.fidelity(made)
