"""``vaekit compare``: runs side by side."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from vaekit import launch, viz
from vaekit.cli import main
from vaekit.comparing import Comparison, compare
from vaekit.errors import InputError
from vaekit.evaluate import evaluate
from vaekit.evaluate.likelihood import each


def vaekit(*words: object) -> int:
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("compare")
    for name, flags in {"a": [], "b": ["--latent", 3, "--seed", 5]}.items():
        assert vaekit("train", "digits", "--hidden", 16, "--epochs", 2, *flags, "--out", place / name) == 0
    np.save(place / "x.npy", np.random.default_rng(0).random((80, 6, 6)))
    assert vaekit("train", place / "x.npy", "--epochs", 1, "--hidden", 8, "--out", place / "other") == 0
    return place


@pytest.fixture(scope="module")
def found(folder: Path) -> Comparison:
    return compare([folder / "a", folder / "b"], samples=20, out=folder / "page.html")


def test_numbers_are_those_of_evaluate_and_differences_are_paired(folder: Path, found: Comparison) -> None:
    terms = []
    for number, name in enumerate("ab"):
        recipe = launch.load(folder / name)[1]
        rows = recipe.data().split("test")
        alone = evaluate(recipe.model, rows, samples=20)
        assert found.terms["log p(x), at least"][number].value == pytest.approx(-alone.nll)
        assert found.terms["evidence lower bound"][number].error == pytest.approx(alone.elbo_se)
        assert found.terms["KL(q(z | x) || p(z))"][number].value == pytest.approx(sum(alone.rates))
        terms.append(each(recipe.model, rows, samples=20)[0].numpy())
    d = terms[1][:, 1] - terms[0][:, 1]
    (less,) = found.differences["log p(x), at least"]
    assert less.paired and less.value == pytest.approx(d.mean())
    assert less.error == pytest.approx(d.std(ddof=1) / math.sqrt(len(d)))
    a, b = (t.error for t in found.terms["log p(x), at least"])
    assert less.error < 0.9 * math.hypot(a, b)  # or pairing would be for nothing


def test_settings_that_differ_are_shown_and_no_others(found: Comparison) -> None:
    assert found.settings["latent"] == (16, 3) and found.settings["seed"][1] == 5
    assert not {"recipe", "hidden", "epochs", "precision", "version of torch"} & set(found.settings)
    assert found.runs == ("a", "b") and found.notes == ()


def test_runs_on_other_data_are_not_paired_and_other_kinds_of_numbers_are_named(folder: Path) -> None:
    found = compare([folder / "a", folder / "other"], samples=2)
    less, (a, b) = found.differences["log p(x), at least"][0], found.terms["log p(x), at least"]
    assert not less.paired and less.value == pytest.approx(b.value - a.value)
    assert less.error == pytest.approx(math.hypot(a.error, b.error))
    assert any("same kind of number" in note for note in found.notes) and any("not the same ones" in note for note in found.notes)


def test_one_row_that_differs_is_enough_not_to_pair(folder: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((80, 6, 6))
    np.save(tmp_path / "x.npy", x)
    assert vaekit("train", tmp_path / "x.npy", "--epochs", 1, "--hidden", 8, "--out", tmp_path / "one") == 0
    x[:, 0, 0] += 1e-6  # whichever rows the test rows are
    np.save(tmp_path / "x.npy", x)
    same = compare([folder / "other", tmp_path / "one"], samples=1)
    assert not same.differences["evidence lower bound"][0].paired
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((80, 6, 6)))
    again = compare([folder / "other", tmp_path / "one"], samples=1)
    assert again.differences["evidence lower bound"][0].paired
    assert again.runs == ("other", "one") and "path" in again.settings


def test_a_model_of_the_mask_and_a_context_are_named(tmp_path: Path) -> None:
    """log p(x, m) is less than log p(x) by the mask's nats, and log p(x | c) more by what c tells."""
    r = np.random.default_rng(0)
    rows = [
        ",".join((f"{a:.3f}" if r.random() < 0.5 else "", f"{a + r.normal():.3f}", "uv"[n % 2])) for n, a in enumerate(r.normal(size=90))
    ]
    (tmp_path / "x.csv").write_text("a,b,g\n" + "\n".join(rows))
    for name, flags in {
        "plain": ["--drop", "g"],
        "mask": ["--drop", "g", "--missing", "self-masking"],
        "given": ["--condition", "g"],
    }.items():
        assert vaekit("train", tmp_path / "x.csv", *flags, "--hidden", 4, "--epochs", 1, "--out", tmp_path / name) == 0
    assert any("of which values are observed" in note for note in compare([tmp_path / "plain", tmp_path / "mask"], samples=2).notes)
    found = compare([tmp_path / "plain", tmp_path / "given"], samples=2)
    assert len(found.notes) == 1 and "what c tells" in found.notes[0] and found.differences["evidence lower bound"][0].paired


def test_the_same_table_pairs_whatever_its_columns_are_taken_for(tmp_path: Path) -> None:
    r = np.random.default_rng(0)
    rows = [f"{n},{1e4 + v:.3f},{'uvw'[n % 3]},2020-01-{1 + n % 28:02d}" for n, v in zip(r.poisson(4, 90), r.normal(size=90), strict=True)]
    (tmp_path / "x.csv").write_text("n,x,g,day\n" + "\n".join(rows))
    for name, flags in {"a": [], "b": ["--kind", "n=continuous", "--kind", "x=heavy-tailed"], "c": ["--drop", "g"]}.items():
        assert vaekit("train", tmp_path / "x.csv", *flags, "--hidden", 4, "--epochs", 1, "--out", tmp_path / name) == 0
    assert compare([tmp_path / "a", tmp_path / "b"], samples=2).differences["evidence lower bound"][0].paired
    assert not compare([tmp_path / "a", tmp_path / "c"], samples=2).differences["evidence lower bound"][0].paired
    table = (tmp_path / "x.csv").read_text().replace(",w,", ",v,")
    (tmp_path / "x.csv").write_text(table)
    assert vaekit("train", tmp_path / "x.csv", "--hidden", 4, "--epochs", 1, "--out", tmp_path / "d") == 0
    with pytest.raises(InputError):  # "w" is gone from the data of the first
        compare([tmp_path / "a", tmp_path / "d"], samples=2, split="nothing")


def test_the_command_prints_text_json_and_a_page(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = tmp_path / "<script>alert(1)</script>"  # the / is a folder of its own
    hostile.parent.mkdir(exist_ok=True)
    shutil.copytree(folder / "b", hostile)
    assert vaekit("compare", folder / "a", hostile, "--samples", 2, "--out", tmp_path / "p.html") == 0
    told = capsys.readouterr().out
    assert "what differs" in told and "  latent" in told and "less a, of each example, paired" in told
    page = (tmp_path / "p.html").read_text()
    assert "<script" not in page and "Paired: of each example" in page and page.count("<img") == 1
    assert vaekit("compare", folder / "a", folder / "b", "--samples", 2, "--json") == 0
    read = json.loads(capsys.readouterr().out)
    assert read["settings"]["latent"] == [16, 3] and read["differences"]["evidence lower bound"][0]["paired"] is True


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a"], "compare two or more"),
        (["a", "./a"], "is given twice"),
        (["a", "gone"], "no run folder gone"),
        (["a", "b", "--out", "p.pdf"], 'writes .html, not ".pdf"'),
        (["a", "b", "--split", "tset"], "tset"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_a_line(
    words: list[str], said: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert vaekit("compare", *words) == 2
    assert said in capsys.readouterr().err.strip().splitlines()[-1]


def test_curves_of_runs_keep_their_late_range_and_a_missing_term_is_left_out() -> None:
    step = list(range(100))
    runs = {
        "a": {"step": step, "train/bound": [-1e4, *(-100 + 0.1 * n for n in range(99))]},
        "b": {"step": step, "train/bound": [-90.0] * 100, "valid/bound": [math.nan] * 100},
    }
    (axes,) = viz.beside(runs).axes
    low, high = axes.get_ylim()
    assert -105 < low < -99 and -90.2 < high < -88 and len(axes.get_lines()) == 2
    with pytest.raises(InputError, match="nothing to draw"):
        viz.beside({"a": {"step": [1.0], "lr": [0.1]}})


def test_each_gives_what_evaluate_averages_with_the_rate_of_every_level() -> None:
    from vaekit import VAE, Conditional, heads, priors
    from vaekit.data.core import Split

    torch.manual_seed(0)
    q, p = torch.nn.Linear(4, 4), torch.nn.Linear(2, 4)
    model = VAE(priors.StandardNormal(2), Conditional(q, heads.Gaussian(2)), Conditional(p, heads.Bernoulli(4)))
    rows = Split((torch.rand(7, 4) < 0.5).float())
    values, k = each(model, rows, samples=3)
    alone = evaluate(model, rows, samples=3)
    assert values.shape == (7, 5) and k == 3
    assert float(values[:, 0].mean()) == pytest.approx(alone.elbo) and float(values[:, 4].mean()) == pytest.approx(alone.rates[0])
