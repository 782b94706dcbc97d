"""The explorer's page without a browser: what is in it, what is refused, and that words from outside are data."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from vaekit import VAE, Conditional, commands, heads, priors
from vaekit.cli import main
from vaekit.data.core import DataSet, Split
from vaekit.errors import InputError
from vaekit.evaluate import latents, log_likelihood
from vaekit.explore import collect, explore, html
from vaekit.explore import contents as contents_module
from vaekit.explore import page as page_module
from vaekit.explore.pack import Block, evenly
from vaekit.models import Ladder, LatentModel, Rung
from vaekit.models.picks import from_p
from vaekit.objectives import ELBO
from vaekit.recipes.core import Recipe

pytest.importorskip("onnxruntime")

SHAPE = (1, 4, 4)
HOSTILE = "</script><script>alert(1)</script>\n\u202etxt.exe <!--"


@pytest.fixture(autouse=True)
def fake_assets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's own files need Node to be built; what is tested here does not depend on them."""
    files = {"explorer.js": b"1", "explorer.css": b"a{}", "body.html": b"<p id='title'></p>", "runtime.wasm.gz": b"\x1f\x8b"}
    monkeypatch.setattr(page_module, "assets", lambda: files)


@pytest.fixture
def no_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Making ONNX files takes seconds, which a test of anything else need not."""
    monkeypatch.setattr(contents_module, "_parts", lambda *_: {})


def model(shape: tuple[int, ...] = SHAPE, latent: int = 3) -> VAE:
    torch.manual_seed(0)
    q, px = heads.Gaussian(latent), heads.Bernoulli(shape)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(shape).numel(), q.features))
    return VAE(
        priors.StandardNormal(latent), Conditional(encoder, q, event_dim=len(shape)), Conditional(nn.Linear(latent, px.features), px)
    )


def data(shape: tuple[int, ...] = SHAPE, n: int = 40, names: tuple[str, ...] | None = None) -> DataSet:
    x = torch.rand(n, *shape, generator=torch.Generator().manual_seed(1))
    split = Split(x, label=torch.arange(n) % 3)
    return DataSet("toy", train=split, test=split, label_names=names)


def recipe(vae: LatentModel | None = None, rows: DataSet | None = None) -> Recipe:
    rows = data() if rows is None else rows
    return Recipe(model() if vae is None else vae, lambda: rows)


def unpacked(block: Block) -> Any:
    kind = {"f4": "<f4", "u2": "<u2"}[block.dtype]
    return np.frombuffer(gzip.decompress(block.data), kind).reshape(block.shape)


def test_what_is_shown_is_what_the_model_says(no_networks: None) -> None:
    """Codes, labels, nats and widths of the same rows in the same order; the axes are principal."""
    vae, rows = model(), data()
    found = collect(Recipe(vae, lambda: rows), samples=5, seed=3)
    index = torch.randperm(40, generator=torch.Generator().manual_seed(3))
    shown = rows.train.take(index)
    z = latents(vae, shown).z.numpy()
    block = found.blocks["z"]
    back = np.array(block.low)[:, None] + np.array(block.step)[:, None] * unpacked(block)
    assert np.abs(back.T - z).max() <= np.max(block.step) / 2 + 1e-6
    assert unpacked(found.blocks["label"]).tolist() == (index % 3).tolist()
    nats = -log_likelihood(vae, shown, samples=5, seed=3).log_px.numpy()
    assert np.allclose(unpacked(found.blocks["nats"]), nats)
    with torch.no_grad():
        std = vae.posterior(shown.batch(torch.arange(40)).x).variance.sqrt()
    active = np.array(found.about["active"])
    assert np.allclose(unpacked(found.blocks["width"]), np.exp(np.log(std.numpy()[:, active]).mean(1)), rtol=1e-5)
    centred = z - z.mean(0)
    axes = np.array(found.about["axes"])
    variances = (centred @ axes.T).var(0)
    assert np.allclose(axes @ axes.T, np.eye(3), atol=1e-6)
    assert np.allclose(np.cov(centred @ axes.T, rowvar=False, bias=True), np.diag(variances), atol=1e-6)
    assert np.allclose(found.about["share"], variances / variances.sum(), atol=1e-6) and (np.diff(variances) <= 0).all()
    best, worst = found.about["extremes"]["best"], found.about["extremes"]["worst"]
    assert nats[best[0]] == nats.min() and nats[worst[0]] == nats.max()
    assert np.allclose(unpacked(found.blocks["images"])[0], shown.batch(torch.tensor([best[0]])).x[0])


def test_rows_beyond_the_bound_are_drawn_with_a_seed(no_networks: None) -> None:
    few, again, others = (collect(recipe(), points=10, samples=1, seed=seed) for seed in (0, 0, 1))
    assert few.about["points"] == 10 and few.about["rows"] == 40
    assert few.blocks["z"] == again.blocks["z"] != others.blocks["z"]


def test_codes_keep_their_places() -> None:
    z = torch.randn(500, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([1e-3, 1.0, 50.0, 0.0])
    block = evenly(z)
    back = np.array(block.low)[:, None] + np.array(block.step)[:, None] * unpacked(block)
    assert (np.abs(back.T - z.numpy()).max(0) <= 0.51 * np.array(block.step) + 1e-12).all()


@pytest.mark.parametrize("prior", [priors.GaussianMixture(3, 2), priors.StandardNormal(3)])
def test_a_prior_without_a_temperature_gives_draws(prior: nn.Module, no_networks: None) -> None:
    vae = model()
    vae.prior = prior
    found = collect(recipe(vae), samples=1)
    if isinstance(prior, priors.StandardNormal):
        assert found.about["prior"] == {"mean": [0.0] * 3, "std": [1.0] * 3} and "draws" not in found.blocks
    else:
        assert found.about["prior"] is None and unpacked(found.blocks["draws"]).shape == (2000, 3)
        with torch.no_grad():
            assert vae.trace(from_p(1, 1)).levels[0].z.shape == (1, 1, 3)


def test_words_from_outside_are_data(no_networks: None) -> None:
    """A label, a data set and a title that try to end the script, to break the line and to turn the direction of reading."""
    rows = data(names=(HOSTILE, "b", "c"))
    page = html(collect(recipe(rows=rows), samples=1), title=HOSTILE, facts={HOSTILE: "x"})
    assert "alert(1)</script>" not in page and "\u202e" not in page and "<!--" not in page
    assert page.count("<script") == page.count("</script>") == 2 + len(re.findall(r'id="block-', page))
    about = json.loads(re.search(r'id="about">(.*?)</script>', page, re.S)[1])  # type: ignore[index]
    shown = "</script><script>alert(1)</script>\\n\\u202etxt.exe <!--"
    assert about["labels"][0] == about["title"] == shown
    assert "connect-src" not in page and "default-src 'none'" in page and "unsafe-inline" not in page


def ladder() -> Ladder:
    def gaussian(inputs: int, size: int) -> Conditional:
        return Conditional(nn.Linear(inputs, 2 * size), heads.Gaussian(size))

    rungs = [Rung(priors.StandardNormal(2), gaussian(5, 2)), Rung(gaussian(2, 3), gaussian(2 + 5, 3))]
    bottom_up = [nn.Sequential(nn.Flatten(), nn.Linear(16, 5)), nn.Linear(5, 5)]
    return Ladder(bottom_up, rungs, Conditional(nn.Linear(3, 16), heads.Bernoulli(SHAPE)))


def discrete() -> VAE:
    vae = model()
    vae.prior = priors.Bernoulli(3)
    vae.posterior = Conditional(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), heads.Bernoulli(3), event_dim=3)
    return vae


def damaged() -> VAE:
    vae = model()
    with torch.no_grad():
        vae.posterior.net[1].bias.fill_(float("nan"))
    return vae


def holes() -> DataSet:
    split = Split(data().train.x, mask=torch.ones(40, *SHAPE, dtype=torch.bool))
    return DataSet("holes", train=split, test=split)


class Untrained(ELBO):
    trains_q = False


REFUSED: dict[str, tuple[Callable[[], Recipe], str]] = {
    "table": (lambda: recipe(model((6,)), data((6,))), r"images of 1 or 3 channels, and an example of toy is \[6\]"),
    "channels": (lambda: recipe(model((2, 4, 4)), data((2, 4, 4))), "images of 1 or 3 channels"),
    "ladder": (lambda: recipe(ladder()), "has 2 levels of latents"),
    "missing pixels": (lambda: recipe(rows=holes()), "missing pixels"),
    "discrete": (lambda: recipe(discrete()), "latents are discrete"),
    "context": (lambda: Recipe(model(), data, contexts=torch.eye(2)), "has a context"),
    "untrained encoder": (lambda: Recipe(model(), data, objective=Untrained()), "trains the decoder alone"),
    "double precision": (lambda: recipe(model().double()), "computes in torch.float64"),
    "not finite": (lambda: recipe(damaged()), "not finite|nan"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_shown_is_refused_in_one_line(name: str) -> None:
    make, why = REFUSED[name]
    with pytest.raises(InputError, match=why) as error:
        collect(make(), samples=1)
    assert "\n" not in str(error.value)


def test_a_model_whose_score_has_no_graph_is_shown_without() -> None:
    vae = model()
    q = heads.MixtureGaussian(3, 2)
    vae.posterior = Conditional(nn.Sequential(nn.Flatten(), nn.Linear(16, q.features)), q, event_dim=3)
    found = collect(recipe(vae), samples=1)
    assert found.about["score"] is None and "draws random numbers of its own" in found.about["unscored"]
    assert found.about["encoder"] == ["centre"] and {"encoder", "decoder"} <= set(found.blocks) and "score" not in found.blocks


def test_the_command(no_networks: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = commands.train("digits", {"epochs": 1, "hidden": 8, "latent": 2}, out=tmp_path / "run")
    out = tmp_path / "page.html"
    assert main(["explore", str(run.path), "--out", str(out), "--samples", "1", "--points", "50"]) == 0
    assert "opens from the disk" in capsys.readouterr().out and out.read_text().startswith("<!doctype html>")
    assert explore(run, samples=1, points=10) == run.path / "explorer.html"
    for words, why in (
        (["--out", "page.pdf"], "a .html file"),
        (["--split", "tset"], "test"),
        (["--map", "umpa"], 'did you mean "umap"'),
    ):
        assert main(["explore", str(run.path), *words]) == 2
        assert why in capsys.readouterr().err
    run.weights.write_bytes(b"damaged")
    out.unlink()
    assert main(["explore", str(run.path), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and run.weights.name in error and not out.exists()


def test_without_assets_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(page_module, "ASSETS", ("no-such-file.js",))
    with pytest.raises(InputError, match="run make explorer") as error:
        explore(tmp_path)
    assert "\n" not in str(error.value)
