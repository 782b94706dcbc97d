"""The explorer's page without a browser: tables in their own units, what is refused of them, and a map by UMAP."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from test_explore import HOSTILE, data, model, recipe, unpacked
from vaekit import heads
from vaekit.data.tables import Schema
from vaekit.errors import InputError
from vaekit.evaluate import latents
from vaekit.explore import collect, neighbours
from vaekit.explore import contents as contents_module
from vaekit.explore import tables as tables_module
from vaekit.explore.graphs import Layout, row_of
from vaekit.recipes import own
from vaekit.recipes.core import Recipe

pytest.importorskip("onnxruntime")


@pytest.fixture
def no_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Making ONNX files takes seconds, which a test of anything else need not."""
    monkeypatch.setattr(contents_module, "_parts", lambda *_: {})


class FakeUMAP:
    """Stands for the package, which is large: places that follow from the codes, and a record of what was asked."""

    asked: dict[str, Any]

    def __init__(self, **options: Any) -> None:
        type(self).asked = options

    def fit_transform(self, z: Any) -> Any:
        return z[:, :2] ** 3

    def transform(self, z: Any) -> Any:
        return z[:, :2] ** 3 + 100


@pytest.fixture
def fake_umap(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("umap")
    module.__spec__ = ModuleSpec("umap", None)
    module.UMAP = FakeUMAP  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "umap", module)


def test_umap_places_the_codes_of_the_map(no_networks: None, fake_umap: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "FITTED", 30)
    vae, rows = model(), data()
    found = collect(Recipe(vae, lambda: rows), samples=1, seed=4, umap=True)
    z = latents(vae, rows.train.take(torch.randperm(40, generator=torch.Generator().manual_seed(4)))).z.numpy()
    places = z[:, :2] ** 3 + 100 * (np.arange(40) >= 30)[:, None]
    assert np.allclose(unpacked(found.blocks["umap"]), places - places.mean(0), atol=1e-4)
    assert FakeUMAP.asked["random_state"] == 4 and FakeUMAP.asked["n_neighbors"] == 15
    with pytest.raises(InputError, match="5 rows or more, and there are 3"):
        collect(recipe(), samples=1, points=3, umap=True)


def test_umap_missing_names_the_extra(no_networks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'vaekit\[umap\]'"):
        neighbours.require_umap()


def test_umap_itself() -> None:
    """Two far groups stay apart, the same at every run; codes that came later lie in their group."""
    pytest.importorskip("umap")
    z = torch.randn(60, 3, generator=torch.Generator().manual_seed(0)) + 40 * (torch.arange(60) % 2).unsqueeze(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "FITTED", 50)
        places, again = (unpacked(neighbours.umap_of(z, seed=0)) for _ in range(2))
    middle = [places[:50][n::2].mean(0) for n in (0, 1)]
    nearer = [int(np.argmin([np.linalg.norm(place - one) for one in middle])) for place in places]
    assert np.array_equal(places, again) and nearer == [n % 2 for n in range(60)]


def table_recipe(tmp_path: Path, **options: Any) -> Recipe:
    pd = pytest.importorskip("pandas")
    g = np.random.default_rng(0)
    frame = pd.DataFrame({"size": g.normal(3, 2, 60), HOSTILE: g.choice(["a", "<b>", "c"], 60), "count": g.poisson(3, 60)})
    frame.loc[::7, "size"] = None
    path = tmp_path / "rows.csv"
    frame.to_csv(path, index=False)
    return own.table(str(path), hidden=8, latent=2, **options)


def test_a_table_in_its_own_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents_module, "graphs", lambda *_: {})
    rows_recipe = table_recipe(tmp_path)
    found = collect(rows_recipe, samples=1)
    assert rows_recipe.known is not None and isinstance(rows_recipe.known.schema, Schema)
    rows = unpacked(found.blocks["rows"])
    shown = rows_recipe.data().train.take(torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)))
    decoded = rows_recipe.known.schema.decode(rows)
    columns = found.about["columns"]
    assert [column["name"] for column in columns] == ["size", HOSTILE, "count"] and found.about["kind"] == "table"
    assert np.array_equal(np.isnan(rows), ~shown.mask[:].numpy()) and np.isnan(rows).any()  # type: ignore[index]
    size = columns[0]["loc"] + columns[0]["scale"] * rows[:, 0]
    assert np.allclose(size, decoded["size"], equal_nan=True)
    assert [columns[1]["categories"][int(code)] for code in rows[:, 1]] == decoded[HOSTILE].tolist()
    assert columns[2]["decimals"] == 0 and (columns[2]["low"], columns[2]["high"]) == (rows[:, 2].min(), rows[:, 2].max())
    assert "images" not in found.blocks and len(found.about["extremes"]["best"]) == 12


def test_tables_that_cannot_be_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="has a model of the mask") as error:
        collect(table_recipe(tmp_path, missing="self-masking"), samples=1)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="has a context"):
        collect(table_recipe(tmp_path, condition=("count",)), samples=1)
    monkeypatch.setattr(tables_module, "COLUMNS", 2)
    with pytest.raises(InputError, match="up to 2 columns, and this one has 3"):
        collect(table_recipe(tmp_path), samples=1)


def test_rows_say_what_the_columns_distributions_are() -> None:
    """Every kind's parameters, by the moments that they give in closed form; classes' probabilities in the table's order."""
    column = heads.Column
    columns = [
        column("zero_inflated_negative_binomial"),
        column("categorical", size=3),
        column("gaussian"),
        column("student"),
        column("bernoulli"),
        column("negative_binomial"),
        column("categorical", size=4),
        column("zero_inflated_poisson"),
        column("discretised_logistic", size=4),
        column("continuous_bernoulli"),
    ]
    head = heads.Columns(columns)
    px = head(torch.randn(5, head.features, generator=torch.Generator().manual_seed(0)))
    sizes = tuple({"bernoulli": 2}.get(c.kind, c.size if c.kind == "categorical" else 0) for c in columns)
    rows = row_of(px, Layout(head.groups, sizes)).detach()
    middle, a, b, c = rows[:, :40].view(5, 4, 10).unbind(1)
    parts = {d: (part, n) for part, group in zip(px.parts, head.groups, strict=True) for n, d in enumerate(group)}  # type: ignore[attr-defined]
    assert torch.equal(middle, px.mean)
    for d in (0, 5, 7):
        part, n = parts[d]
        base = a[:, d] + a[:, d] ** 2 / b[:, d]
        mean, variance = (1 - c[:, d]) * a[:, d], (1 - c[:, d]) * (base + c[:, d] * a[:, d] ** 2)
        assert torch.allclose(mean, middle[:, d]) and torch.allclose(variance, part.variance[:, n], rtol=1e-4)
    assert torch.allclose(a[:, 2], middle[:, 2]) and torch.allclose(b[:, 2] ** 2, parts[2][0].variance[:, 0])
    assert torch.allclose(b[:, 3] ** 2 * c[:, 3] / (c[:, 3] - 2), parts[3][0].variance[:, 0]) and torch.equal(a[:, 3], middle[:, 3])
    assert torch.allclose(-1 / torch.expm1(-a[:, 9]) - 1 / a[:, 9], middle[:, 9], atol=1e-4)
    edges = (torch.arange(3) + 0.5) / 3
    above = torch.sigmoid((a[:, 8, None] - edges) / b[:, 8, None])
    assert torch.allclose(above.sum(1) / 3, middle[:, 8], atol=1e-5)
    p = rows[:, 40:].split([3, 2, 4], 1)
    assert all(torch.allclose(each.sum(1), torch.ones(5)) for each in p)
    assert torch.equal(p[0].argmax(1).float(), middle[:, 1]) and torch.equal(p[2].argmax(1).float(), middle[:, 6])
    assert torch.allclose(p[1][:, 1], middle[:, 4])
