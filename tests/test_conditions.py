"""Columns that a model is conditioned on: exact p(x | c), commands, and what can be wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import sparse
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from vaekit import commands
from vaekit.apps.weighted import log_evidence
from vaekit.cli import main
from vaekit.data.tables import Known, Schema, inspect
from vaekit.errors import InputError
from vaekit.launch import load
from vaekit.nn import LogCounts
from vaekit.recipes import own
from vaekit.types import Batch

pd = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")

SHARE = np.array([0.5, 0.3, 0.2])
MEAN = np.array([[0.0, 0.0, 10.0], [4.0, -1.0, 10.0], [4.0, 6.0, 13.0]])
SLOPE = np.array([1.5, 0.0, -0.5])
COVARIANCE = np.outer([1.0, 0.7, -1.2], [1.0, 0.7, -1.2]) + 0.25 * np.eye(3)
CLASSES = np.array(["a", "b", "c"])


def vaekit(*words: object) -> int:
    return main([str(word) for word in words])


def process(n: int, seed: int) -> Any:
    """x | class, dose ~ N(mean of the class + slope (dose - 3), one covariance), dose ~ N(3, 1)."""
    r = np.random.default_rng(seed)
    g, dose = r.choice(3, n, p=SHARE), r.normal(3, 1, n)
    x = MEAN[g] + SLOPE * (dose[:, None] - 3) + r.multivariate_normal(np.zeros(3), COVARIANCE, n)
    return pd.DataFrame({"u": x[:, 0], "class": CLASSES[g], "v": x[:, 1], "dose": dose, "w": x[:, 2]})


def given(table: Any) -> Any:
    """log p(x | class, dose), exact."""
    g = np.searchsorted(CLASSES, table["class"])
    rest = table[["u", "v", "w"]].to_numpy() - MEAN[g] - SLOPE * (table["dose"].to_numpy()[:, None] - 3)
    return multivariate_normal(np.zeros(3), COVARIANCE).logpdf(rest)


def marginal(table: Any) -> Any:
    """log p(x), exact: a mixture of three Gaussians."""
    x = table[["u", "v", "w"]].to_numpy()
    wide = COVARIANCE + np.outer(SLOPE, SLOPE)
    return logsumexp([multivariate_normal(m, wide).logpdf(x) + np.log(p) for m, p in zip(MEAN, SHARE, strict=True)], axis=0)


def among(values: Any, rows: Any) -> bool:
    """Whether each value is that of a row."""
    return bool((abs(values.to_numpy()[:, None] - rows.to_numpy()).min(1) < 1e-5).all())


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("conditions") / "t.csv"
    process(3000, 0).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def run(table: Path) -> Path:
    flags = ["--latent", 2, "--hidden", 32, "--epochs", 40, "--lr", "0.01", "--out", table.parent / "run"]
    assert vaekit("train", table, "--condition", "class", "--condition", "dose", *flags) == 0
    return table.parent / "run"


# ---- the oracle


def test_held_out_nats_are_those_of_x_given_c_and_the_mutual_information_below_those_of_x(run: Path, table: Path) -> None:
    new = process(1500, 1)
    new.to_csv(table.parent / "new.csv", index=False)
    flags = ["--latent", 4, "--hidden", 32, "--epochs", 40, "--lr", "0.01", "--out", table.parent / "without"]
    assert vaekit("train", table, "--drop", "class", "--drop", "dose", *flags) == 0
    found = {}
    for name in ("run", "without"):
        _, recipe = load(table.parent / name)
        known = recipe.known
        assert known is not None and isinstance(known.schema, Schema)
        x, c = known.schema.encode(new)[0], known.schema.encode_context(new)
        batch = Batch(x, c)
        found[name] = log_evidence(recipe.model, batch, 64, 0).double().numpy()
    error = found["run"] - given(new)
    assert -0.06 < error.mean() < 3 * error.std() / np.sqrt(len(new))  # the truth is the best there is
    information, gap = given(new) - marginal(new), found["run"] - found["without"]
    assert information.mean() > 1.1  # nats: of the class and of the dose
    assert abs((found["run"] - marginal(new)).mean() - information.mean()) < 0.06  # beyond any model of x alone by I(x; c)
    assert information.mean() - 0.06 < gap.mean() < information.mean() + 0.4  # and beyond a trained one, which falls short of log p(x)
    with pytest.warns(UserWarning, match="left out"):  # the same by the command
        told = {name: commands.evaluate(table.parent / name, samples=20, data=table.parent / "new.csv").nll for name in found}
    assert abs(told["without"] - told["run"] - gap.mean()) < 0.2


def test_samples_have_the_moments_of_their_context(run: Path) -> None:
    for g, name in enumerate(CLASSES):
        words = (f"class={name}", "dose=2.5")
        commands.sample(run, n=4000, where=words, out=run.parent / "made.csv", seed=g)
        made = pd.read_csv(run.parent / "made.csv")
        assert list(made.columns) == ["u", "class", "v", "dose", "w"] and set(made["class"]) == {name} and set(made["dose"]) == {2.5}
        x = made[["u", "v", "w"]].to_numpy()
        sd = np.sqrt(np.diag(COVARIANCE))
        assert (abs(x.mean(0) - (MEAN[g] - 0.5 * SLOPE)) < 0.2 * sd).all()
        assert (abs(np.cov(x.T) - COVARIANCE) < 0.2 * np.outer(sd, sd)).all()


def test_without_where_contexts_are_those_of_training_rows(run: Path, table: Path) -> None:
    commands.sample(run, n=4000, out=run.parent / "made.csv")
    made, all_rows = pd.read_csv(run.parent / "made.csv"), pd.read_csv(table)
    share = made["class"].value_counts(normalize=True)[list(CLASSES)]
    assert (abs(share - SHARE) < 0.04).all()
    assert abs(made["dose"].mean() - 3) < 0.1 and among(made["dose"], all_rows["dose"])
    x = made[["u", "v", "w"]].to_numpy()
    assert (abs(x.mean(0) - SHARE @ MEAN) < 0.25).all()
    assert abs(given(made).mean() - given(all_rows).mean()) < 0.2  # each row is a draw under the context that stands beside it
    commands.sample(run, n=500, where=("class=c",), out=run.parent / "made.csv")
    kept = pd.read_csv(run.parent / "made.csv")
    known = Known.from_json(json.loads((run / "schema.json").read_text()))
    assert set(kept["class"]) == {"c"} and kept["dose"].nunique() > 100
    assert among(kept["dose"], all_rows[all_rows["class"] == "c"]["dose"])  # what else is given is that of rows of this class
    assert len(known.given) == 2400 and known == Known.from_json(json.loads(json.dumps(known.to_json())))


def test_the_commands_honour_it(run: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert vaekit("reconstruct", run, "--n", 40, "--out", tmp_path / "r.csv") == 0
    rows = inspect(table, condition=("class", "dose")).data.test
    made = pd.read_csv(tmp_path / "r.csv")
    assert rows.c is not None
    schema = Known.from_json(json.loads((run / "schema.json").read_text())).schema
    assert isinstance(schema, Schema) and isinstance(rows.x, torch.Tensor)
    whole = schema.decode(rows.x[:40], rows.c[:40])
    assert list(made.columns) == list(whole.columns) and (made["class"] == whole["class"]).all()
    np.testing.assert_allclose(made["dose"], whole["dose"], rtol=1e-6)
    assert np.corrcoef(made["u"], whole["u"])[0, 1] > 0.9
    shutil.copytree(run, tmp_path / "copy")
    assert vaekit("report", tmp_path / "copy") == 0 and vaekit("embed", tmp_path / "copy") == 0
    assert vaekit("evaluate", tmp_path / "copy", "--samples", 3) == 0 and vaekit("evaluate", tmp_path / "copy", "--diagnose") == 0
    capsys.readouterr()
    assert vaekit("traverse", tmp_path / "copy") == 2 and "has a context" in capsys.readouterr().err


# ---- what a context holds


def mixed() -> Any:
    r = np.random.default_rng(0)
    n = 80
    level = pd.Categorical(np.array(["s", "m", "l"])[r.integers(0, 3, n)], categories=["s", "m", "l"], ordered=True)
    table = pd.DataFrame(
        {
            "x": r.normal(size=n),
            "size": level,
            "ok": r.random(n) < 0.5,
            "k": r.poisson(80, n),
            "day": pd.Timestamp("2020-01-01") + pd.to_timedelta(r.integers(0, 900, n), unit="D"),
            "city": np.array(["Bonn", "Ulm", "Rom"], dtype=object)[r.integers(0, 3, n)],
            "z": r.normal(size=n),
            "dose": np.round(np.exp(r.normal(size=n)), 2),
        }
    )
    table.loc[3:6, "city"] = None
    table.loc[:1, "size"] = np.nan
    return table


def test_every_kind_of_column_comes_back_from_its_context() -> None:
    table = mixed()
    asked = ("dose", "city", "day", "k", "ok", "size")
    schema = Schema.infer(table, condition=asked, overrides={"k": "count", "dose": "positive"})
    assert [column.name for column in schema.modelled] == ["x", "z"] and schema.condition == ("size", "ok", "k", "day", "city", "dose")
    x, c = schema.encode(table)[0], schema.encode_context(table)
    context = schema.context
    assert x.shape == (80, 2) and c is not None and context is not None and c.shape == (80, context.width) == (80, 2 + 1 + 1 + 1 + 4 + 1)
    assert bool(c.isfinite().all()) and float(c.abs().max()) < 6
    assert c[4, 5:9].tolist() == [0, 0, 0, 1] and c[0, :2].tolist() == [0, 1]  # a missing category is one of its own
    back = schema.decode(x, c)
    assert list(back.columns) == list(table.columns)
    for name in asked:
        assert back[name].dtype == table[name].dtype or name == "ok"
        pd.testing.assert_series_equal(back[name], table[name], check_dtype=name != "ok")  # exactly: 0.37 comes back as 0.37
    again = Schema.from_json(json.loads(json.dumps(schema.to_json())))
    assert again == schema and torch.equal(again.encode_context(table), c)  # type: ignore[arg-type]
    rows = context.numbers([table[column.name] for column in context.columns])
    torch.testing.assert_close(context.collapse(context.expand(rows)), rows)
    chosen = context.chosen(rows, ["day=2020-03-04", "city=", "ok=True", "size=l", "k=99", "dose=0.3"])
    made = schema.decode(torch.zeros(len(chosen), 2), context.expand(chosen))
    first = made.iloc[0]
    assert (first["size"], bool(first["ok"]), first["k"], first["day"], first["dose"]) == ("l", True, 99, pd.Timestamp("2020-03-04"), 0.3)
    assert made["city"].isna().all()


@pytest.mark.parametrize(
    ("change", "condition", "said"),
    [
        ({}, ("sise",), 'no column "sise"'),
        ({"z": 1.0}, ("z",), 'column "z" is the same in every row'),
        ({"z": np.where(np.arange(80) < 8, np.nan, 1.5 * np.arange(80))}, ("z",), 'column "z" misses 10.0% of its values'),
        ({}, ("x", "size", "ok", "k", "day", "city", "z", "dose"), "nothing to model"),
    ],
)
def test_what_cannot_be_given(change: dict[str, Any], condition: tuple[str, ...], said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        Schema.infer(mixed().assign(**change), condition=condition)
    assert "\n" not in str(error.value)


def test_more_of_what_cannot_be_given() -> None:
    table = mixed()
    with pytest.raises(InputError, match='"z" is to be dropped and to be conditioned on'):
        Schema.infer(table, condition=("z",), drop=("z",))
    many = pd.DataFrame({"x": np.arange(1200) % 7 + 0.5, "zip": [f"z{n}" for n in range(1200)]})
    with pytest.raises(InputError, match='"zip" has 1200 categories'):
        Schema.infer(many, condition=("zip",), overrides={"zip": "categorical"})
    schema = Schema.infer(table, condition=("ok",))
    with pytest.raises(InputError, match=r"no context was given.*c \[5, 1\]"):
        schema.decode(torch.zeros(5, len(schema.modelled)))
    with pytest.raises(InputError, match="conditioned on"):
        schema.decode_array(torch.zeros(5, len(schema.modelled)))
    stored = json.loads(json.dumps(schema.to_json())) | {"condition": ["gone"]}
    with pytest.raises(InputError, match="damaged"):
        Schema.from_json(stored)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["clas=b"], 'not conditioned on "clas"; it is conditioned on: class, dose'),
        (["u=3"], 'not conditioned on "u"'),
        (["class"], "write column=value"),
        (["class=d"], "it is one of a, b, c"),
        (["class="], "it is one of a, b, c"),
        (["dose=much"], "takes a number"),
        (["dose=nan"], "a finite number"),
        (["class=a", "class=b"], "given twice"),
    ],
)
def test_mistakes_of_where(words: list[str], said: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert vaekit("sample", run, *[part for word in words for part in ("--where", word)]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"class": "d"}, "column \"class\" holds 'd' in row 0"),
        ({"class": None}, 'column "class" has no value in row 0 (and 4 more), and what is conditioned on must be known'),
        ({"dose": None}, 'column "dose" has no value in row 0'),
    ],
)
def test_new_data_are_checked(change: dict[str, Any], said: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    process(5, 3).assign(**change).to_csv(tmp_path / "new.csv", index=False)
    assert vaekit("evaluate", run, "--data", tmp_path / "new.csv") == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1
    process(5, 3).drop(columns="dose").to_csv(tmp_path / "less.csv", index=False)
    assert vaekit("evaluate", run, "--data", tmp_path / "less.csv") == 2 and '"dose"' in capsys.readouterr().err


# ---- images and counts


@pytest.mark.parametrize("net", ["mlp", "conv"])
def test_images_given_their_class(net: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    r = np.random.default_rng(0)
    for n in range(120):
        folder = tmp_path / "pictures" / ("dark", "light")[n % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(r.integers(0, 80, (8, 6), dtype=np.uint8) + np.uint8(150 * (n % 2))).save(folder / f"{n}.png")
    out = tmp_path / "run"
    flags = ["--net", net, "--epochs", 12, "--hidden", 32, "--latent", 2, "--lr", "0.01", "--batch-size", 16, "--out", out]
    assert vaekit("train", tmp_path / "pictures", "--condition", "label", *flags) == 0
    assert "given label: " in capsys.readouterr().out
    level = [commands.sample(out, n=60, where=(f"label={name}",))[0].mean().item() for name in ("dark", "light")]
    assert level[0] < 0.3 < 0.6 < level[1]
    assert 0.25 < commands.sample(out, n=60)[0].mean().item() < 0.65
    for command in ("reconstruct", "report", "embed"):
        assert vaekit(command, out) == 0, capsys.readouterr().err
    assert vaekit("evaluate", out, "--samples", 2, "--data", tmp_path / "pictures") == 0
    capsys.readouterr()
    assert vaekit("evaluate", out, "--samples", 2, "--data", tmp_path / "pictures" / "dark") == 2
    assert 'conditioned on "label", and these data have none' in capsys.readouterr().err
    assert vaekit("train", tmp_path / "pictures", "--condition", "class") == 2
    assert 'there is no "class" to condition on' in capsys.readouterr().err
    assert vaekit("train", tmp_path / "pictures" / "dark", "--condition", "label") == 2
    assert "lies in the folder of its class" in capsys.readouterr().err


def test_labels_of_an_archive(tmp_path: Path) -> None:
    r = np.random.default_rng(0)
    np.savez(tmp_path / "d.npz", x=r.random((40, 5, 5)).astype(np.float32), y=r.integers(3, 6, 40))
    recipe = own.images(str(tmp_path / "d.npz"), hidden=8, condition=("label",))
    batch = recipe.data().test.batch(torch.arange(4))
    assert recipe.contexts is not None and batch.c is not None and batch.c.shape == (4, 3) and batch.c.sum() == 4
    assert recipe.known is not None and recipe.known.contexts(("label=4",)).tolist()[0] == [0.0, 1.0, 0.0]  # type: ignore[union-attr]
    assert recipe.model.infer(batch, 2).log_w.shape == (2, 4)


def test_counts_given_their_batch_and_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    anndata = pytest.importorskip("anndata")
    r = np.random.default_rng(0)
    batch = r.integers(0, 2, 200)
    share = np.array([[1.0] * 10 + [9.0] * 10, [9.0] * 10 + [1.0] * 10])[batch]
    total = np.array([300.0, 900.0])[batch]
    x = r.poisson(share / share.sum(1, keepdims=True) * total[:, None])
    beside = pd.DataFrame({"batch": batch, "id": [f"c{n}" for n in range(200)]}, index=[str(n) for n in range(200)])
    cells = anndata.AnnData(sparse.csr_matrix(x.astype(np.float32)), obs=beside)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    out = tmp_path / "run"
    flags = ["--epochs", 20, "--hidden", 16, "--latent", 2, "--lr", "0.01", "--batch-size", 16, "--likelihood", "Poisson", "--out", out]
    assert vaekit("train", tmp_path / "cells.h5ad", "--condition", "batch", *flags) == 0
    _, recipe = load(out)
    split = recipe.data().train
    assert split.c is not None and split.c.shape[1] == 3 and recipe.contexts is not None and recipe.contexts.shape[1] == 3
    rows = split.batch(torch.arange(len(split)))
    layer = recipe.model.get_submodule("posterior.net.0")
    assert rows.c is not None and isinstance(layer, LogCounts) and layer.n == 3
    torch.testing.assert_close(rows.c[:, 2], rows.x.sum(1).log())
    for name, high, size in (("0", slice(10, 20), 300), ("1", slice(0, 10), 900)):
        made, _ = commands.sample(out, n=300, where=(f"batch={name}",))
        assert abs(float(made.sum(1).mean()) / size - 1) < 0.1  # the totals are those of this batch's rows
        assert abs(float(made[:, high].sum() / made.sum()) - 0.9) < 0.04
    assert vaekit("evaluate", out, "--samples", 3, "--data", tmp_path / "cells.h5ad") == 0
    capsys.readouterr()
    assert vaekit("train", tmp_path / "cells.h5ad", "--condition", "donor") == 2
    assert 'there is no "donor" to condition on' in capsys.readouterr().err
    sparse.save_npz(tmp_path / "cells.npz", sparse.csr_array(x))
    assert vaekit("train", tmp_path / "cells.npz", "--condition", "batch") == 2
    assert "the obs of an .h5ad file" in capsys.readouterr().err
    assert inspect(cells, condition=("batch",)).data.train.c is not None


def test_a_resumed_run_keeps_its_contexts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    process(200, 5).to_csv(tmp_path / "t.csv", index=False)
    words = ["train", tmp_path / "t.csv", "--out", tmp_path / "run"]
    assert vaekit(*words, "--condition", "class", "--epochs", 1, "--hidden", 4) == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["arguments"]["condition"] == ["class"]
    capsys.readouterr()
    assert vaekit(*words, "--resume", "--condition", "dose") == 2 and "condition" in capsys.readouterr().err
    damaged = json.loads((tmp_path / "run" / "schema.json").read_text())
    damaged["given"] = [[0.0, 1.0]]
    (tmp_path / "run" / "schema.json").write_text(json.dumps(damaged))
    assert vaekit("sample", tmp_path / "run") == 2 and "damaged" in capsys.readouterr().err


def test_where_needs_a_model_that_is_conditioned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = commands.train("digits", {"epochs": 1, "hidden": 8}, out=tmp_path / "digits")
    process(100, 5)[["u", "v"]].to_csv(tmp_path / "t.csv", index=False)
    assert vaekit("train", tmp_path / "t.csv", "--epochs", 1, "--hidden", 4, "--out", tmp_path / "run") == 0
    capsys.readouterr()
    for folder in (run.path, tmp_path / "run"):
        assert vaekit("sample", folder, "--where", "a=1") == 2
        assert "not conditioned on" in capsys.readouterr().err


# ---- what a given column is


def classes(n: int) -> tuple[Any, Any]:
    """Arrays of images of n classes, two of each, and what is beside them."""
    return np.random.default_rng(0).random((2 * n, 4, 4)).astype(np.float32), np.arange(2 * n) % n


def test_labels_of_images_are_categories_however_many(tmp_path: Path) -> None:
    x, y = classes(60)
    np.savez(tmp_path / "d.npz", x=x, y=y)
    found = inspect(tmp_path / "d.npz", condition="label")  # one name is one name
    (column,) = found.schema.context.columns  # type: ignore[union-attr]
    assert column.kind == "categorical" and found.data.train.c is not None and found.data.train.c.shape[1] == 60
    assert bool((found.data.train.c.sum(1) == 1).all())
    np.savez(tmp_path / "one.npz", x=x, y=0 * y)
    with pytest.raises(InputError, match='"label" is the same in every row'):
        inspect(tmp_path / "one.npz", condition=("label",))


def test_whole_numbers_that_are_given_are_names_by_one_rule() -> None:
    anndata = pytest.importorskip("anndata")
    r = np.random.default_rng(0)
    n = 300
    beside = pd.DataFrame({"cls": r.integers(0, 10, n), "many": r.integers(0, 200, n), "label": r.integers(0, 200, n), "same": 3})
    beside.index = beside.index.astype(str)
    cells = anndata.AnnData(sparse.csr_matrix(r.poisson(3, (n, 4)).astype(np.float32)), obs=beside)
    table = beside.assign(x=r.normal(size=n))
    for found in (inspect(cells, condition=("cls", "many", "label")), inspect(table, condition=("cls", "many", "label"))):
        columns = {column.name: column for column in found.schema.context.columns}  # type: ignore[union-attr]
        assert columns["cls"].kind == "categorical" and columns["cls"].size == 10
        assert columns["many"].size == 0 and columns["label"].size == 0  # a column of obs with that name is no label of images
        assert found.data.train.c is not None and found.data.train.c.shape[1] == 12
    asked = inspect(table, condition=("cls",), overrides={"cls": "count"})
    assert asked.data.train.c is not None and asked.data.train.c.shape[1] == 1
    for source in (cells, table):
        with pytest.raises(InputError, match='"same" is the same in every row'):
            inspect(source, condition=("same",))


def test_one_name_is_not_its_letters(tmp_path: Path) -> None:
    table = process(60, 5)
    schema = Schema.infer(table, condition="class", drop="dose")
    assert schema.condition == ("class",) and "dose" not in [column.name for column in schema.columns]
    table.to_csv(tmp_path / "t.csv", index=False)
    recipe = own.table(str(tmp_path / "t.csv"), hidden=4, condition="class", drop="dose", kind="u=heavy-tailed")  # type: ignore[arg-type]
    assert recipe.known is not None and isinstance(recipe.known.schema, Schema)
    assert recipe.known.schema.condition == ("class",) and recipe.known.schema.columns[0].kind == "heavy-tailed"


def test_where_takes_levels_that_gaps_made_floats_and_dates_of_the_zone() -> None:
    n = 90
    stars = np.where(np.arange(n) % 9 == 0, np.nan, np.arange(n) % 3 + 1.0)
    day = pd.Series(pd.Timestamp("2020-03-01") + pd.to_timedelta(np.arange(n) % 40, unit="D")).dt.tz_localize("Europe/Berlin")
    table = pd.DataFrame({"stars": stars, "day": day, "x": np.random.default_rng(0).normal(size=n)})
    schema = Schema.infer(table, condition=("stars", "day"), overrides={"stars": "ordinal"})
    context = schema.context
    assert context is not None
    rows = context.numbers([table["stars"], table["day"]])
    for word in ("stars=3", "stars=3.0"):
        assert (context.chosen(rows, [word])[:, 0] == 2).all() and len(context.chosen(rows, [word])) < n
    with pytest.raises(InputError, match=r"one of 1\.0, 2\.0, 3\.0"):
        context.chosen(rows, ["stars=4"])
    for word in ("day=2020-03-05", "day=2020-03-05T00:00+01:00", "day=2020-03-04T23:00Z"):
        chosen = context.chosen(rows, [word])
        assert set(schema.decode(torch.zeros(len(chosen), 1), context.expand(chosen))["day"]) == {
            pd.Timestamp("2020-03-05", tz="Europe/Berlin")
        }
        assert len(chosen) == (table["day"] == pd.Timestamp("2020-03-05", tz="Europe/Berlin")).sum()  # those rows, and no value put in
    for word in ("day=", "day=soon"):
        with pytest.raises(InputError, match="--where day="):
            context.chosen(rows, [word])


def test_rows_that_have_a_large_count_are_found_by_it() -> None:
    r = np.random.default_rng(0)
    table = pd.DataFrame({"k": 16_000_000 + 1000 * r.integers(0, 60, 500) + 7, "x": r.normal(size=500)})
    found = inspect(table, condition=("k",), overrides={"k": "count"})
    known, column = Known.of(found), found.schema.context
    assert column is not None and column.width == 1
    value = int(table["k"].mode()[0])
    chosen = column.chosen(torch.tensor(known.given), [f"k={value}"])
    assert 0 < len(chosen) <= (table["k"] == value).sum() and (chosen[:, 0] == value).all()
    assert isinstance(found.schema, Schema)
    back = found.schema.decode(torch.zeros(len(chosen), 1), column.expand(chosen))["k"]
    assert (abs(back - value) < 20).all()  # six digits
