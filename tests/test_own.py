"""``vaekit train PATH``: from a file to a model, scores and samples, for tables, images and counts."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from scipy import sparse, stats

from vaekit import commands, dist, launch
from vaekit.cli import main
from vaekit.data.tables import Known, Schema, inspect
from vaekit.errors import InputError
from vaekit.heads import Columns
from vaekit.recipes import own
from vaekit.recipes.flags import describe, parse, parse_many
from vaekit.types import Batch

pd = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")
N = 300


def frame(missing: float = 0.2) -> Any:
    """Columns of every kind that depend on one z, 20% of the cells missing."""
    r = np.random.default_rng(0)
    z = r.normal(size=N)
    level = np.clip(np.rint(z + 1 + 0.3 * r.normal(size=N)), 0, 2).astype(int)
    table = pd.DataFrame(
        {
            "temp": 20 + 5 * z + r.normal(size=N),
            "income": np.exp(1 + 0.5 * z + 0.3 * r.normal(size=N)),
            "visits": r.poisson(np.exp(1 + 0.5 * z)),
            "member": r.random(N) < 1 / (1 + np.exp(-2 * z)),
            "city": np.array(["Bonn", "Köln", "Ulm"])[r.permutation(3)[level]],
            "size": np.array(["s", "m", "l"])[level],
            "day": pd.Timestamp("2020-01-01") + pd.to_timedelta(np.rint(100 * z), unit="D"),
            "id": [f"p{i}" for i in range(N)],
        }
    )
    for name in table.columns[:-1]:
        table[name] = table[name].astype(object).where(r.random(N) >= missing, None)
    return table


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "people.csv"
    frame().to_csv(path, index=False)
    return path


def vaekit(*words: object) -> int:
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def run(people: Path) -> Path:
    out = people.parent / "run"
    flags = ["--drop", "id", "--kind", "size=s<m<l", "--kind", "visits=ZeroInflatedPoisson", "--epochs", 4, "--hidden", 16]
    assert vaekit("train", people, *flags, "--out", out) == 0
    return out


# ---- tables


def test_a_table_trains_and_its_samples_are_of_the_same_types(run: Path, people: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert vaekit("sample", run, "--n", 50) == 0
    assert capsys.readouterr().out.strip() == str(run / "samples.csv")
    made, given = pd.read_csv(run / "samples.csv"), pd.read_csv(people).drop(columns="id")
    assert list(made.columns) == list(given.columns) and len(made) == 50 and not made.isna().any().any()
    assert made["visits"].dtype == "int64" and made["member"].dtype == "bool" and made["temp"].dtype == "float64"
    assert (made["visits"] >= 0).all() and (made["income"] > 0).all()
    assert set(made["city"]) <= {"Bonn", "Köln", "Ulm"} and set(made["size"]) <= {"s", "m", "l"}
    assert all(re.fullmatch(r"\d{4}-\d{2}-\d{2}", day) for day in made["day"])
    assert vaekit("sample", run, "--n", 5, "--out", run.parent / "five.parquet") == 0
    assert len(pd.read_parquet(run.parent / "five.parquet")) == 5
    assert vaekit("sample", run, "--out", run.parent / "five.png") == 2


def test_draws_are_draws_and_means_are_means(run: Path) -> None:
    drawn, mean = (commands.sample(run, n=200, seed=3, mean=mean, out=run.parent / "s.csv")[0] for mean in (None, True))
    again, other = (commands.sample(run, n=200, seed=seed, out=run.parent / "s.csv")[0] for seed in (3, 4))
    assert torch.equal(drawn, again) and not torch.equal(drawn, other)
    assert mean[:, 0].std() < drawn[:, 0].std()


def test_what_was_found_is_said_and_kept(people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--drop", "id", "--kind", "size=s<m<l", "--epochs", 1, "--hidden", 4]
    assert vaekit("train", people, *flags, "--out", tmp_path / "run") == 0
    out = capsys.readouterr().out
    assert "people: 240 training, 30 validation, 30 test rows" in out and "levels in the user's order" in out
    known = Known.from_json(json.loads((tmp_path / "run" / "schema.json").read_text()))
    assert known.rows == (240, 30, 30) and known.describe() in out
    found = inspect(people, overrides={"size": ("s", "m", "l")}, drop=["id"])
    assert known == Known.of(found) and isinstance(known.schema, Schema)
    assert [column.likelihood for column in known.schema.columns] == [
        *("Gaussian", "LogNormal"),
        *("NegativeBinomial", "Bernoulli", "Categorical", "Ordinal", "Gaussian"),
    ]


def test_the_run_opens_without_its_data_and_by_what_it_knows(run: Path, people: Path, tmp_path: Path, capsys: Any) -> None:
    assert vaekit("evaluate", run, "--samples", 3) == 0
    expected = json.loads((run / "evaluation.json").read_text())["test"]
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    config = json.loads((copy / "run.json").read_text())
    config["arguments"]["path"] = str(tmp_path / "gone.csv")
    (copy / "run.json").write_text(json.dumps(config))
    capsys.readouterr()
    assert vaekit("sample", copy, "--n", 3) == 0
    assert vaekit("evaluate", copy) == 2 and "gone.csv" in capsys.readouterr().err
    # Other rows in its place: an inference would have other scales, the run keeps its own.
    pd.read_csv(people).assign(temp=lambda t: t["temp"] * 1.5).to_csv(tmp_path / "gone.csv", index=False)
    assert vaekit("evaluate", copy, "--samples", 3) == 0
    kept, scale = (Known.from_json(json.loads((folder / "schema.json").read_text())).schema for folder in (run, copy))
    assert kept == scale
    assert json.loads((copy / "evaluation.json").read_text())["test"]["elbo"] < expected["elbo"] - 0.1
    capsys.readouterr()
    (copy / "schema.json").unlink()
    assert vaekit("sample", copy) == 2 and "has lost schema.json" in capsys.readouterr().err
    (copy / "schema.json").write_text('{"name": 3}')
    assert vaekit("sample", copy) == 2 and "damaged" in capsys.readouterr().err


def test_every_command_works_on_a_table(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (("reconstruct",), ("embed",), ("report",), ("traverse",), ("interpolate",), ("evaluate", "--diagnose")):
        assert vaekit(words[0], run, *words[1:]) == 0, capsys.readouterr().err
    assert list(pd.read_csv(run / "reconstructions.csv").columns) == ["temp", "income", "visits", "member", "city", "size", "day"]


def test_nats_are_of_the_data_as_they_are(tmp_path: Path) -> None:
    """Column by column against scipy's densities in the units of the file."""
    r = np.random.default_rng(1)
    table = pd.DataFrame({"a": r.normal(50, 9, 200), "b": np.exp(r.normal(2, 0.7, 200)), "c": r.poisson(20, 200), "d": r.normal(size=200)})
    table.to_csv(tmp_path / "t.csv", index=False)
    recipe = own.table(str(tmp_path / "t.csv"), kind=("a=continuous", "b=positive", "c=Poisson", "d=heavy-tailed"))
    head = recipe.model.get_submodule("likelihood.head")
    assert isinstance(head, Columns) and recipe.known is not None and isinstance(recipe.known.schema, Schema)
    head.requires_grad_(False)
    found = inspect(tmp_path / "t.csv", schema=recipe.known.schema)
    x = found.data.train.x
    assert isinstance(x, torch.Tensor)
    rows = recipe.known.schema.decode(x)
    parts = dist.log_prob_parts(head(torch.zeros(len(x), head.features)), x)
    a, b, _, d = recipe.known.schema.columns
    sds = [(1 + floor**2) ** 0.5 for floor in recipe.known.floors]  # at h = 0, with the floor that was chosen
    np.testing.assert_allclose(parts[:, 0], stats.norm(a.loc, a.scale * sds[0]).logpdf(rows["a"]), atol=1e-4)
    np.testing.assert_allclose(parts[:, 1], stats.lognorm(b.scale * sds[1], scale=np.exp(b.loc)).logpdf(rows["b"]), atol=1e-4)
    np.testing.assert_allclose(parts[:, 2], stats.poisson(1.0).logpmf(rows["c"]), rtol=1e-4)
    np.testing.assert_allclose(parts[:, 3], stats.t(5.0, d.loc, d.scale * sds[3]).logpdf(rows["d"]), atol=1e-4)
    assert abs(float(recipe.model.sample(2000)[:, 2].mean()) - 20) < 4  # rates begin at their means


def test_repeated_values_cannot_have_a_density_without_bound(tmp_path: Path) -> None:
    r = np.random.default_rng(2)
    table = pd.DataFrame(
        {
            "round": np.rint(r.normal(0, 4, 400)) / 2 + 0.25,
            "fine": r.normal(size=400),
            "half": np.where(r.random(400) < 0.5, 0, r.normal(size=400)),
        }
    )
    table.to_csv(tmp_path / "t.csv", index=False)
    recipe = own.table(str(tmp_path / "t.csv"), kind=("round=continuous", "fine=continuous", "half=continuous"))
    known = recipe.known
    assert known is not None and isinstance(known.schema, Schema)
    step = 0.25 / known.schema.columns[0].scale  # half a rounding step
    assert step <= known.floors[0] < 2 * step and known.floors[1] == 2.0**-7 and 2.0**-7 <= known.floors[2] < 0.1
    head = recipe.model.get_submodule("likelihood.head")
    assert isinstance(head, Columns)
    h = torch.full((1, head.features), -60.0)  # log-scales far below any floor
    peak = dist.log_prob_parts(head(h), torch.zeros(1, 3)).abs().max()
    assert head.columns[0].min_scale == known.floors[0] and torch.isfinite(peak)


def test_the_bound_and_the_length_follow_the_data(people: Path, tmp_path: Path) -> None:
    assert type(own.table(str(people), drop=("id",)).objective).__name__ == "IWAE"
    frame(0.0).to_csv(tmp_path / "full.csv", index=False)
    full = own.table(str(tmp_path / "full.csv"), drop=("id",), batch_size=60)
    assert type(full.objective).__name__ == "ELBO" and full.training.epochs == 500 and full.training.patience == 50
    short = own.table(str(people), drop=("id",), epochs=3, patience=2)
    assert short.training.patience == 2 and short.training.compile is False  # compiling would take longer than it saves
    assert own.table(str(people), drop=("id",), epochs=10_000).training.compile is None


def test_a_resumed_run_is_the_run(people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    words = ["train", people, "--drop=id", "--hidden=8", "--epochs=4"]
    assert vaekit(*words, "--out", tmp_path / "whole") == 0
    real = launch.fit

    def stopped(*given: Any, training: Any, **rest: Any) -> Any:
        return real(*given, training=replace(training, epochs=2), **rest)

    monkeypatch.setattr(launch, "fit", stopped)
    assert vaekit(*words, "--out", tmp_path / "run") == 0
    monkeypatch.setattr(launch, "fit", real)
    assert vaekit("train", people, "--out", tmp_path / "run", "--resume", "--hidden=9") == 2
    assert "--hidden 8" in capsys.readouterr().err
    assert vaekit("train", people, "--out", tmp_path / "run", "--resume") == 0
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "run"))
    assert all(torch.equal(one[key], other[key]) for key in one) and one.keys() == other.keys()


def test_other_data_are_checked(run: Path, people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pd.read_csv(people)
    table.to_csv(tmp_path / "same.csv", index=False)
    with pytest.warns(UserWarning, match="id.* not in the schema, and left out"):
        every = commands.evaluate(run, samples=3, data=tmp_path / "same.csv")
    assert every.examples == N
    z, path = commands.embed(run, data=run / "samples.csv") if (run / "samples.csv").is_file() else commands.embed(run)
    assert z.shape[1] == 7 and path.is_file()
    table.drop(columns="visits").to_csv(tmp_path / "less.csv", index=False)
    table.assign(city="Rom").to_csv(tmp_path / "rome.csv", index=False)
    capsys.readouterr()
    for name, said in (("less", '"visits"'), ("rome", "'Rom'"), ("gone", "gone.csv")):
        assert vaekit("evaluate", run, "--data", tmp_path / f"{name}.csv") == 2
        err = capsys.readouterr().err
        assert said in err and err.count("\n") == 1
    assert vaekit("evaluate", run, "--diagnose", "--data", people) == 2


# ---- images and counts


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images") / "pictures"
    r = np.random.default_rng(0)
    for n in range(60):
        (folder / "ab"[n % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(r.integers(0, 256, (6, 5), dtype=np.uint8)).save(folder / "ab"[n % 2] / f"{n:02d}.png")
    return folder


def test_a_folder_of_images(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert vaekit("train", pictures, "--epochs", 2, "--hidden", 8, "--latent", 3, "--out", out) == 0
    assert "images [1, 6, 5]: DiscretisedLogistic" in capsys.readouterr().out
    assert vaekit("sample", out, "--n", 4) == 0 and (out / "figures" / "samples.png").is_file()
    assert vaekit("evaluate", out, "--samples", 3) == 0 and vaekit("reconstruct", out) == 0
    assert set(commands.embed(out, data=pictures)[0].shape) == {60, 3}
    (pictures.parent / "wide").mkdir(exist_ok=True)
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(pictures.parent / "wide" / "a.png")
    capsys.readouterr()
    assert vaekit("evaluate", out, "--data", pictures.parent / "wide") == 2 and "[1, 9, 9]" in capsys.readouterr().err


def test_pixels_have_the_likelihood_of_their_values(pictures: Path, tmp_path: Path) -> None:
    r = np.random.default_rng(0)
    for x, head in (
        (r.integers(0, 2, (30, 4, 4)).astype(bool), "Bernoulli"),
        (r.random((30, 4, 4)).astype(np.float32), "ContinuousBernoulli"),
        (r.integers(0, 256, (30, 4, 4)).astype(np.uint8), "DiscretisedLogistic"),
    ):
        np.save(tmp_path / "x.npy", x)
        assert type(own.images(str(tmp_path / "x.npy"), hidden=8).model.get_submodule("likelihood.head")).__name__ == head
    chosen = own.images(str(tmp_path / "x.npy"), hidden=8, likelihood="ContinuousBernoulli")
    assert chosen.known is not None and "chosen by the user" in chosen.known.describe()
    for shape in ((1, 33, 33), (3, 70, 50)):
        np.save(tmp_path / "x.npy", r.integers(0, 256, (12, *shape)).astype(np.uint8))
        large = own.images(str(tmp_path / "x.npy"), hidden=16)
        assert any(isinstance(module, torch.nn.Conv2d) for module in large.model.modules())
        assert large.model.sample(2).shape == (2, *shape)
    with pytest.raises(InputError, match="two values"):
        own.images(str(pictures), likelihood="Bernoulli")


def cells() -> Any:
    r = np.random.default_rng(0)
    rate = np.exp(r.normal(size=(80, 2)) @ r.normal(size=(2, 20)) - 0.5 + r.normal(size=(80, 1)))
    return sparse.csr_array(r.negative_binomial(2, 2 / (2 + rate)))


def test_counts_given_their_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    matrix = cells()
    sparse.save_npz(tmp_path / "cells.npz", matrix)
    recipe = own.counts(str(tmp_path / "cells.npz"), hidden=8, latent=2)
    data = recipe.data()
    batch = data.train.batch(torch.arange(len(data.train)))
    assert batch.c is not None and torch.allclose(batch.c[:, 0], batch.x.sum(1).clamp(min=1).log())
    z = torch.zeros(1, 2, 2)
    means = recipe.model.score(Batch(batch.x[:2], torch.tensor([[0.0], [3.0]])), z).px.mean[0]
    assert torch.allclose(means[1] / means[0], torch.full((20,), 3.0).exp(), rtol=1e-4)
    assert 0.7 < means[0].sum().item() < 1.5  # the shares begin near those of the data
    shares = batch.x.sum(0) / batch.x.sum()
    assert torch.corrcoef(torch.stack([means[0].log().detach(), shares.log()]))[0, 1] > 0.9
    out = tmp_path / "run"
    assert vaekit("train", tmp_path / "cells.npz", "--epochs", 2, "--hidden", 8, "--likelihood", "Poisson", "--out", out) == 0
    assert "counts [20]: Poisson, because chosen by the user" in capsys.readouterr().out
    x, path = commands.sample(out, n=400)
    sizes = np.log(np.maximum(np.asarray(data.train.batch(torch.arange(64)).x).sum(1), 1))
    assert path.suffix == ".npy" and (x == x.round()).all() and x.shape == (400, 20)
    assert abs(float(x.sum(1).clamp(min=1).log().median()) - float(np.median(sizes))) < 0.5
    assert vaekit("evaluate", out, "--samples", 3) == 0 and vaekit("report", out) == 0
    assert vaekit("evaluate", out, "--samples", 3, "--data", tmp_path / "cells.npz") == 0
    capsys.readouterr()
    for words in (("traverse",), ("interpolate",)):
        assert vaekit(*words, out) == 2 and "has a context" in capsys.readouterr().err


def test_h5ad(tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata")
    anndata.AnnData(sparse.csr_matrix(cells().astype(np.float32))).write_h5ad(tmp_path / "cells.h5ad")
    assert vaekit("train", tmp_path / "cells.h5ad", "--epochs", 1, "--hidden", 8, "--out", tmp_path / "run") == 0
    assert vaekit("evaluate", tmp_path / "run", "--samples", 2) == 0


# ---- what can be wrong


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gone.csv"], "there is no file or folder gone.csv"),
        (["./gone"], "there is no file or folder ./gone"),
        (["PEOPLE"], '"id"'),
        (["PEOPLE", "--drop", "id", "--kind", "tmp=count"], 'no column "tmp"'),
        (["PEOPLE", "--drop", "ids"], 'no column "ids"'),
        (["PEOPLE", "--drop", "id", "--kind", "temp=cuont"], "no kind of column"),
        (["PEOPLE", "--drop", "id", "--kind", "temp"], "age=count"),
        (["PEOPLE", "--drop", "id", "--kind", "temp=unit", "--kind", "temp=count"], "twice"),
        (["PEOPLE", "--likelihood", "Poisson"], "unknown flag --likelihood"),
        (["PEOPLE", "--known", "x"], "unknown flag --known"),
        (["own:images", "--path", "PEOPLE", "--epochs", "1"], "holds table"),
        (["own:table"], "--path is needed"),
        (["EMPTY"], "no images"),
    ],
)
def test_mistakes_in_one_line(words: list[str], said: str, people: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    places = {"PEOPLE": str(people), "EMPTY": "empty"}
    table = pd.read_csv(people).drop(columns="id")
    if words == ["own:images", "--path", "PEOPLE", "--epochs", "1"]:
        table.to_csv(tmp_path / "t.csv", index=False)
        places["PEOPLE"] = "t.csv"
    assert vaekit("train", *[places.get(word, word) for word in words]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1 and not (tmp_path / "runs").exists()


def test_words_may_come_again_and_known_is_no_flag(people: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(own.table, ["--drop", "a", "--drop=b,c", "--kind", "d=count"])["drop"] == ("a", "b", "c")
    with pytest.raises(InputError, match="twice"):
        parse(own.table, ["--latent", "1", "--latent", "2"])
    with pytest.raises(InputError, match="twice"):
        parse_many(own.table, ["--drop", "a", "--drop", "b"])
    assert parse(own.table, ["--drop="]) == {"drop": ()}
    assert "known" not in describe(own.table)
    assert vaekit("train", people, "--help") == 0 and "--latent" in capsys.readouterr().out


def test_a_sweep_of_a_table(people: Path, tmp_path: Path) -> None:
    words = ["sweep", "own:table", "--path", people, "--drop", "id", "--epochs", 1, "--hidden", "4,6", "--out", tmp_path / "sweep"]
    assert vaekit(*words) == 0
    runs = sorted(path.parent for path in (tmp_path / "sweep").rglob("run.json"))
    assert len(runs) == 2 and all(vaekit("sample", run, "--n", 2) == 0 for run in runs)


def test_a_run_without_a_place_is_called_as_its_data(people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for n in (1, 2):
        assert vaekit("train", people, "--drop", "id", "--epochs", 1, "--hidden", 4) == 0
        assert (tmp_path / "runs" / f"people-{n}" / "run.json").is_file()
