"""``vaekit score`` and ``vaekit impute``: a trained run on data that it has not seen."""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from vaekit import filling, launch, scoring
from vaekit.cli import main
from vaekit.data.tables import Schema, read_table
from vaekit.errors import InputError
from vaekit.models import VAE

pd = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")
N = 400


def vaekit(*words: object) -> int:
    return main([str(word) for word in words])


def numbers() -> Any:
    """Two normal columns in units of their own, and a positive one, all of one z; an identifier besides."""
    r = np.random.default_rng(0)
    z = r.normal(size=N)
    table = {"id": [f"p{n}" for n in range(N)], "warm": 300 + 20 * z + 8 * r.normal(size=N), "far": 2e6 + 1e5 * z + 4e4 * r.normal(size=N)}
    return pd.DataFrame(table | {"pay": np.exp(8 + 0.5 * z + 0.2 * r.normal(size=N))})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("newdata")
    numbers().to_csv(place / "x.csv", index=False)
    assert vaekit("train", place / "x.csv", "--drop", "id", "--latent", 1, "--epochs", 2, "--hidden", 4, "--out", place / "run") == 0
    return place


@pytest.fixture(scope="module")
def linear(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run with weights by which p(u) = N(0, A A' + diag(s^2)), A and s as `TRUE`, and q(z | x) as near to the posterior as it comes."""
    from safetensors.torch import save_file

    model = launch.load(folder / "run")[1].model
    assert isinstance(model, VAE)
    decoder = [m for m in model.likelihood.modules() if isinstance(m, torch.nn.Linear)]
    # SiLU(x) - SiLU(-x) = x: two layers of two units each carry z through
    with torch.no_grad():
        for layer in decoder:
            layer.weight.zero_()
            layer.bias.zero_()
        decoder[0].weight[:2, 0] = torch.tensor([1.0, -1.0])
        decoder[1].weight[:2, :2] = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
        decoder[2].weight[:3, :2] = torch.tensor(A).float().unsqueeze(1) * torch.tensor([1.0, -1.0])
        for layer in model.posterior.modules():
            if isinstance(layer, torch.nn.Linear):
                layer.weight.zero_()
                layer.bias.zero_()
        last = [m for m in model.posterior.modules() if isinstance(m, torch.nn.Linear)][-1]
        last.bias.zero_()  # q(z | x) = N(0, 1) = p(z): importance samples from the prior
    place = tmp_path_factory.mktemp("linear")
    import shutil

    shutil.copytree(folder / "run", place / "run")
    save_file(model.state_dict(), place / "run" / "model.safetensors")
    return place / "run"


A = np.array([0.8, 0.7, 0.9])


def exact(run: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the `linear` run: location and scale of (warm, far, log pay), and the covariance of the standardised ones."""
    recipe = launch.load(run)[1]
    model = recipe.model
    assert isinstance(model, VAE) and recipe.known is not None and isinstance(recipe.known.schema, Schema)
    px = model.likelihood(torch.zeros(1, 1, 1))
    spread = px.parts[0].stddev[0, 0].double().detach().numpy()
    columns = recipe.known.schema.modelled
    return np.array([c.loc for c in columns]), np.array([c.scale for c in columns]), np.outer(A, A) + np.diag(spread**2)


def logs(table: Any) -> np.ndarray:
    return np.stack([table["warm"], table["far"], np.log(table["pay"])], 1).astype(float)


def test_scores_are_the_exact_density_in_the_units_of_the_data(linear: Path, folder: Path, tmp_path: Path) -> None:
    table = numbers().iloc[:30].copy()
    table.loc[3:9, "far"] = np.nan
    table.loc[5:12, "pay"] = np.nan
    table.to_csv(tmp_path / "new.csv", index=False)
    with pytest.warns(UserWarning, match='"id" is not in the schema'):
        found = scoring.score(linear, tmp_path / "new.csv", tmp_path / "s.csv", samples=20_000, explain=True)
    loc, scale, covariance = exact(linear)
    y = logs(table)
    u = (y - loc) / scale

    def log_px(row: int, seen: np.ndarray) -> float:
        """log p(x) of these columns in the units of the data, of pay instead of its logarithm."""
        volume = np.log(scale)[seen].sum() + (y[row, 2] if seen[2] else 0)
        return float(stats.multivariate_normal(cov=covariance[np.ix_(seen, seen)]).logpdf(u[row, seen]) - volume)

    want = [log_px(n, ~np.isnan(row)) for n, row in enumerate(y)]
    np.testing.assert_allclose(found.log_px, want, atol=0.03)
    written = pd.read_csv(tmp_path / "s.csv")
    assert list(written) == ["row", "log_px", "log_px of warm", "log_px of far", "log_px of pay"]
    np.testing.assert_allclose(written["log_px"], found.log_px)
    assert written["log_px of far"].isna().sum() == 7 and written["log_px of pay"].isna().sum() == 8
    rest = log_px(0, np.array([True, True, False]))  # log p(x_d | rest) = log p(x) - log p(rest)
    assert written["log_px of pay"][0] == pytest.approx(want[0] - rest, abs=0.05)


def test_p_values_are_the_places_among_the_test_rows_and_no_unit_matters(linear: Path, tmp_path: Path) -> None:
    """By the exact density: (1 + how many of the run's 40 test rows are as strange) / 41, of standardised values where some are missing."""
    loc, scale, covariance = exact(linear)

    def strangeness(u: np.ndarray) -> np.ndarray:
        """-log p(u_obs)."""
        seen = ~np.isnan(u)
        return np.array([-stats.multivariate_normal(cov=covariance[np.ix_(m, m)]).logpdf(row[m]) for row, m in zip(u, seen, strict=True)])

    r = np.random.default_rng(5)
    u = r.multivariate_normal(np.zeros(3), covariance, size=60) * np.linspace(0.3, 3, 60)[:, None]
    u[::3, 1] = np.nan
    y = loc + scale * u
    pd.DataFrame({"warm": y[:, 0], "far": y[:, 1], "pay": np.exp(y[:, 2])}).to_csv(tmp_path / "new.csv", index=False)
    found = scoring.score(linear, tmp_path / "new.csv", tmp_path / "n.parquet", alpha=0.1, samples=20_000)
    held = launch.load(linear)[1].data().split("test").batch(torch.arange(40)).x.double().numpy()

    def log_volume(u: np.ndarray) -> np.ndarray:
        return u[:, 2] * scale[2]  # of a positive column the volume depends on the value: density of pay, not of its logarithm

    own = strangeness(held) + log_volume(held)
    want = (1 + (own >= (strangeness(u) + log_volume(u))[:, None]).sum(1)) / 41
    assert found.held_out == 40 and found.p_values is not None and found.alarms is not None
    assert np.abs(found.p_values - want).max() < 1.5 / 41 and (np.abs(found.p_values - want) > 1e-9).mean() < 0.1
    assert 0 < found.alarms.mean() < 1 and (found.alarms == (found.p_values <= 0.1)).all()
    frame = pd.read_parquet(tmp_path / "n.parquet")
    assert frame["alarm"].dtype == bool and (frame["alarm"] == found.alarms).all()


def test_a_table_is_filled_with_conditional_means_and_nothing_else_changes(linear: Path, tmp_path: Path) -> None:
    table = numbers().iloc[:60].copy()
    table.loc[3:9, "far"] = np.nan
    table.loc[5:12, "pay"] = np.nan
    table.loc[7, "warm"] = np.nan
    table["note"] = "left as it is"
    table.to_csv(tmp_path / "holes.csv", index=False)
    done = filling.impute(linear, tmp_path / "holes.csv", tmp_path / "full.csv", draws=200, coverage=0.9, samples=8192)
    assert done.cells == 16 and done.rows == 60 and len(done.paths) == 202
    full = pd.read_csv(tmp_path / "full.csv", float_precision="round_trip")
    assert list(full) == list(table) and full["id"].tolist() == table["id"].tolist() and full["note"].tolist() == table["note"].tolist()
    loc, scale, covariance = exact(linear)
    intervals = pd.read_csv(done.paths[-1]).set_index(["row", "column"])
    assert len(intervals) == 16
    draws = np.stack([logs(pd.read_csv(path)) for path in done.paths[1:-1]])
    for n, row in enumerate(logs(table)):
        seen = ~np.isnan(row)
        got = logs(full)[n]
        np.testing.assert_array_equal(got[seen], row[seen])
        if seen.all():
            continue
        gain = covariance[np.ix_(~seen, seen)] @ np.linalg.inv(covariance[np.ix_(seen, seen)])
        mean = loc[~seen] + scale[~seen] * (gain @ ((row - loc) / scale)[seen])
        left = covariance[np.ix_(~seen, ~seen)] - gain @ covariance[np.ix_(seen, ~seen)]
        sd = scale[~seen] * np.sqrt(np.diag(left))
        assert (np.abs(got[~seen] - mean) < 0.05 * sd).all()
        drawn = draws[:, n][:, ~seen]
        assert (np.abs(drawn.mean(0) - mean) < 4.5 * sd / math.sqrt(200)).all()
        assert (np.abs(np.log(drawn.std(0) / sd)) < 0.25).all()
        for name, m, s in zip(np.array(["warm", "far", "pay"])[~seen], mean, sd, strict=True):
            ends = intervals.loc[(n, name)]
            low, high = (math.log(ends[end]) if name == "pay" else ends[end] for end in ("lower", "upper"))
            np.testing.assert_allclose([low, high], [m - 1.645 * s, m + 1.645 * s], atol=0.12 * s)


def mixed() -> Any:
    r = np.random.default_rng(1)
    z = r.normal(size=N)
    level = np.clip(np.rint(z + 1), 0, 2).astype(int)
    return pd.DataFrame(
        {
            "temp": 20 + 5 * z + r.normal(size=N),
            "visits": r.poisson(np.exp(1 + 0.5 * z)),
            "member": z > 0,
            "city": pd.Categorical(np.array(["Bonn", "Köln", "Ulm"])[level]),
            "day": pd.Timestamp("2020-01-01") + pd.to_timedelta(np.rint(100 * z), unit="D"),
            "same": 7,
        }
    )


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_types_of_a_mixed_table_stay_and_no_hole_is_left(kind: str, tmp_path: Path) -> None:
    table = mixed()
    r = np.random.default_rng(2)
    for name in table:
        nullable = {"visits": "Int64", "member": "boolean", "same": "Int64"}.get(name)
        table[name] = (table[name].astype(nullable) if nullable else table[name]).mask(r.random(N) < 0.2)
    source = tmp_path / f"holes.{kind}"
    table.to_csv(source, index=False) if kind == "csv" else table.to_parquet(source, index=False)
    assert vaekit("train", source, "--epochs", 2, "--hidden", 8, "--out", tmp_path / "run") == 0
    assert vaekit("impute", tmp_path / "run", source, tmp_path / f"full.{kind}", "--coverage", 0.9, "--draws", 1) == 0
    before = read_table(source)
    for place in (tmp_path / f"full.{kind}", tmp_path / f"full-1.{kind}"):
        full = read_table(place)
        assert list(full) == list(before) and not full.isna().any().any()
        for name in full:
            seen = before[name].notna()
            assert full[name][seen].astype(object).tolist() == before[name][seen].astype(object).tolist(), name
            if kind == "parquet":
                assert full[name].dtype == before[name].dtype, name
        assert set(full["city"]) <= {"Bonn", "Köln", "Ulm"} and set(full["same"]) == {7}
        assert (full["visits"].astype(float) % 1 == 0).all() and (full["visits"] >= 0).all()


def test_score_takes_a_split_or_data_and_says_what_it_found(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = folder / "run"
    assert vaekit("score", run, tmp_path / "s.npy", "--split", "test", "--samples", 8) == 0
    assert np.load(tmp_path / "s.npy").shape == (40,)
    assert "40 rows, log p(x) " in capsys.readouterr().out
    again = scoring.score(run, None, tmp_path / "again.csv", split="test", samples=8)
    np.testing.assert_array_equal(again.log_px, np.load(tmp_path / "s.npy"))  # noise is the same at every call


@pytest.mark.filterwarnings("ignore:.*not in the schema")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["score", "RUN", "s.csv"], "say what to score"),
        (["score", "RUN", "x.csv", "s.csv", "--split", "test"], "say what to score"),
        (["score", "RUN", "a", "b", "c"], "was given 3 files"),
        (["score", "RUN", "x.csv", "s.txt"], 'writes .csv or .parquet or .npy, not ".txt"'),
        (["score", "RUN", "x.csv", "s.npy", "--explain"], "would hold one number a row"),
        (["score", "RUN", "x.csv", "s.csv", "--alpha", "0.001"], "hold out at least 999 rows"),
        (["score", "RUN", "x.csv", "s.csv", "--alpha", "2"], "a rate of false alarms lies between 0 and 1"),
        (["score", "RUN", "s.csv", "--split", "test", "--alpha", "0.1"], "cannot judge these"),
        (["impute", "RUN", "x.csv", "f.npy"], 'writes .csv or .parquet, not ".npy"'),
        (["impute", "RUN", "x.csv", "f.csv", "--coverage", "90"], "lies between 0 and 1"),
        (["impute", "RUN", "gone.csv", "f.csv"], "there is no file or folder"),
        (["impute", "RUN", "x.csv", "nowhere/f.csv"], "nowhere"),
        (["evaluate", "RUN", "--split", "test", "--data", "x.csv"], "give one of them"),
        (["embed", "RUN", "--split", "valid", "--data", "x.csv"], "give one of them"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_line(
    words: list[str], said: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert vaekit(*(word.replace("RUN", "run") for word in words)) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert said in told
    assert not list(folder.glob("s.*")) and not list(folder.glob("f.*"))


def test_only_tables_are_filled_and_images_are_scored(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((60, 6, 6)))
    assert vaekit("train", tmp_path / "x.npy", "--epochs", 1, "--hidden", 8, "--out", tmp_path / "run") == 0
    with pytest.raises(InputError, match="was not trained on a table"):
        filling.impute(tmp_path / "run", tmp_path / "x.npy", tmp_path / "f.csv")
    assert len(scoring.score(tmp_path / "run", tmp_path / "x.npy", tmp_path / "s.csv").log_px) == 60
    with pytest.raises(InputError, match="explained of vectors"):
        scoring.score(tmp_path / "run", tmp_path / "x.npy", tmp_path / "s.csv", explain=True)


def given_city() -> Any:
    r = np.random.default_rng(3)
    city = np.array(["Bonn", "Ulm", None], dtype=object)[r.integers(0, 3, 120)]
    return pd.DataFrame({"city": city, "u": r.normal(size=120), "v": r.normal(size=120), "k": r.integers(0, 9, 120) + 0.5})


def test_holes_are_filled_given_other_columns_which_stay_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = given_city()
    table.to_csv(tmp_path / "t.csv", index=False)
    words = ["--condition", "city", "--epochs", 1, "--hidden", 4, "--out", tmp_path / "run"]
    assert vaekit("train", tmp_path / "t.csv", *words) == 0
    table.loc[2:7, "u"] = np.nan
    table.to_csv(tmp_path / "holes.csv", index=False)
    capsys.readouterr()
    assert vaekit("impute", tmp_path / "run", tmp_path / "holes.csv", tmp_path / "f.csv", "--draws", 1, "--coverage", 0.9) == 0
    left = int(table["city"].isna().sum())
    assert (
        f"6 missing values in 120 rows filled; {left} of columns that the model is conditioned on stay missing" in capsys.readouterr().out
    )
    for name in ("f.csv", "f-1.csv"):
        full = pd.read_csv(tmp_path / name, dtype={"city": object}, float_precision="round_trip")
        assert full["u"].notna().all() and full["city"].isna().tolist() == table["city"].isna().tolist()
        assert (full["v"] == table["v"]).all() and (full["city"].dropna() == table["city"].dropna()).all()
    assert set(pd.read_csv(tmp_path / "f-intervals.csv")["column"]) == {"u"}


def test_whole_numbers_with_gaps_are_filled_with_broken_ones_where_training_had_such(tmp_path: Path) -> None:
    table = given_city().drop(columns="city")
    table.to_parquet(tmp_path / "t.parquet")
    assert vaekit("train", tmp_path / "t.parquet", "--kind", "k=continuous", "--epochs", 1, "--hidden", 4, "--out", tmp_path / "run") == 0
    table["k"] = pd.array([None, 3, *[5] * 118], dtype="Int64")
    table.to_parquet(tmp_path / "holes.parquet")
    assert vaekit("impute", tmp_path / "run", tmp_path / "holes.parquet", tmp_path / "f.parquet") == 0
    full = pd.read_parquet(tmp_path / "f.parquet")["k"]
    assert full.dtype == np.float64 and full[1:].tolist() == [3, *[5] * 118] and full[0] % 1 != 0


def test_endings_in_capitals_are_the_same_files(folder: Path, tmp_path: Path) -> None:
    for name in ("s.NPY", "s.PARQUET", "s.CSV"):
        scoring.score(folder / "run", None, tmp_path / name, split="test", samples=2)
    assert np.load(tmp_path / "s.NPY").shape == (40,) and len(pd.read_parquet(tmp_path / "s.PARQUET")) == 40
    with pytest.raises(InputError, match="would hold one number a row"):
        scoring.score(folder / "run", None, tmp_path / "e.NPY", split="test", explain=True)
    assert vaekit("sample", folder / "run", "--n", 3, "--out", tmp_path / "x.NPY") == 0
    assert np.load(tmp_path / "x.NPY").shape == (3, 3)


def refused_at_once(run: Path, source: Path, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal before any row is scored."""

    def work(*_: object) -> None:
        raise AssertionError("rows were scored")

    with monkeypatch.context() as patch, pytest.raises(InputError, match=said) as error:
        patch.setattr(scoring, "_scored", work)
        scoring.score(run, source, run.parent / "s.csv", explain=True)
    assert "\n" not in str(error.value)


def test_what_cannot_be_explained_is_refused_before_the_work(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((40, 4, 4)))
    assert vaekit("train", tmp_path / "x.npy", "--epochs", 1, "--hidden", 8, "--out", tmp_path / "images") == 0
    refused_at_once(tmp_path / "images", tmp_path / "x.npy", "explained of vectors", monkeypatch)
    given_city().drop(columns="city").mask(np.random.default_rng(0).random((120, 3)) < 0.2).to_csv(tmp_path / "t.csv", index=False)
    words = ["--missing", "self-masking", "--epochs", 1, "--hidden", 4, "--kind", "k=continuous", "--out", tmp_path / "mask"]
    assert vaekit("train", tmp_path / "t.csv", *words) == 0
    refused_at_once(tmp_path / "mask", tmp_path / "t.csv", "model of the mask", monkeypatch)
    monkeypatch.setattr(scoring, "EXPLAINED", 2)
    with pytest.warns(UserWarning, match="left out"):
        refused_at_once(folder / "run", folder / "x.csv", "3 columns are to be explained, by 256 samples each", monkeypatch)


def test_explained_counts_have_the_names_of_their_genes(tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata")
    genes = pd.DataFrame(index=["ACTB", "CD4", "NKG7"])
    x = np.random.default_rng(0).poisson(4.0, (60, 3)).astype(np.float32)
    anndata.AnnData(x, var=genes).write_h5ad(tmp_path / "c.h5ad")
    words = ["--epochs", 1, "--hidden", 4, "--latent", 1, "--out", tmp_path / "run"]
    assert vaekit("train", tmp_path / "c.h5ad", *words) == 0
    scoring.score(tmp_path / "run", None, tmp_path / "s.csv", split="test", samples=4, explain=True)
    assert list(pd.read_csv(tmp_path / "s.csv")) == ["row", "log_px", *(f"log_px of {name}" for name in genes.index)]


TEXT_TABLE = """ u ;"k";note;ok;day;city
1,50;3;NA;true;2020-03-05;Köln
;7;1.50;true;2020-03-06;Bonn
"-0,250";;"a;b";;2020-03-07; Ulm
2,5;4;007;FALSE;;NA
"""


@pytest.mark.parametrize(("encoding", "line_end"), [("cp1252", "\r\n"), ("utf-8-sig", "\n"), ("utf-16", "\n")])
def test_fields_of_a_text_file_that_are_no_holes_stay_as_they_are_written(encoding: str, line_end: str, tmp_path: Path) -> None:
    r = np.random.default_rng(0)
    drawn = zip(r.normal(size=90), r.integers(0, 2000, 90), r.integers(1, 29, 90), ["Köln", "Bonn", "Ulm"] * 30, strict=True)
    more = [f"{v:.3f};{k};-;{'TRUE' if v > 0 else 'FALSE'};2021-01-{d:02};{c}".replace(".", ",") for v, k, d, c in drawn]
    text = (TEXT_TABLE + "\n".join(more) + "\n").replace("\n", line_end)
    source, out = tmp_path / "t.csv", tmp_path / "f.csv"
    source.write_bytes(text.encode(encoding))
    assert vaekit("train", source, "--drop", "note", "--epochs", 1, "--hidden", 4, "--out", tmp_path / "run") == 0
    assert vaekit("impute", tmp_path / "run", source, out) == 0
    made = out.read_bytes().decode(encoding)
    assert out.read_bytes()[:2] == source.read_bytes()[:2] and made.count("\r\n") == text.count("\r\n") and made.count("\n") == 95
    before, after = ([line.split(";") for line in one.replace('"a;b"', "a,b").replace('"', "").splitlines()] for one in (text, made))
    holes = {(2, 0), (3, 1), (3, 3), (4, 4), (4, 5)}
    for n, (old, new) in enumerate(zip(before, after, strict=True)):
        for d, (one, other) in enumerate(zip(old, new, strict=True)):
            assert (one == other) != ((n, d) in holes), (n, d, one, other)
    full = read_table(out)
    assert not full.drop(columns="note").isna().any().any() and full["u"].dtype == np.float64 and full["k"].dtype == np.int64
    assert "," in after[2][0] and len(after[4][4]) == 10 and after[4][5] in ("Köln", "Bonn", "Ulm")
    old, new = read_table(source), full
    for name in ("u", "k", "day", "city", "note"):
        seen = old[name].notna()
        assert (old[name][seen] == new[name][seen]).all()


def test_filled_fields_are_written_as_their_column_is() -> None:
    """What no file of its own shows: columns without another value, times in a column of days, tables of several endings."""
    from vaekit.data.tables.fields_back import _written

    stamp = pd.Timestamp
    assert _written([stamp("2020-03-05")], ["2020-03-06"], False) == _written([stamp("2020-03-05")], [], False) == ["2020-03-05"]
    assert _written([stamp("2020-03-05 12:00")], ["2020-03-06"], False) == ["2020-03-05T12:00:00"]
    assert _written([stamp("2020-03-05", tz="UTC")], [], False) == ["2020-03-05T00:00:00+00:00"]
    assert _written([True, False], ["true"], False) == ["true", "False"]
    assert _written([1e-7, 2.0, 1234.5], ["1"], True) == ["0,0000001", "2", "1234,5"]
    assert _written([3, "a"], [], True) == ["3", "a"]


def test_a_file_without_a_header_packed_with_tabs_is_filled_in_its_own_way(tmp_path: Path) -> None:
    r = np.random.default_rng(0)
    rows = [[f"{v:.2f}" for v in row] for row in r.normal(size=(80, 2))]
    np.savetxt(tmp_path / "t.tsv", r.normal(size=(80, 2)), delimiter="\t")
    rows[3][1] = rows[5][0] = "?"
    with gzip.open(tmp_path / "holes.tsv.gz", "wt") as file:
        file.write("\n".join("\t".join(row) for row in rows))
    assert vaekit("train", tmp_path / "t.tsv", "--epochs", 1, "--hidden", 4, "--out", tmp_path / "run") == 0
    assert vaekit("impute", tmp_path / "run", tmp_path / "holes.tsv.gz", tmp_path / "f.csv") == 0
    made = [line.split("\t") for line in (tmp_path / "f.csv").read_text().splitlines()]
    assert len(made) == 80
    assert [(n, d) for n in range(80) for d in range(2) if made[n][d] != rows[n][d]] == [(3, 1), (5, 0)]
    assert not read_table(tmp_path / "f.csv").isna().any().any()
