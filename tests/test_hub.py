"""A run that is pushed and loaded is the run; what is damaged, foreign or code without trust is refused."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy import sparse

from vaekit import commands, hub
from vaekit.cli import main
from vaekit.errors import InputError
from vaekit.runs import open_run

MINE = '''
from torch import nn

from vaekit import VAE, Conditional, Recipe, Training, data, heads, priors


def run(latent: int = 2) -> Recipe:
    """A model of one's own."""
    q, px = heads.Gaussian(latent), heads.DiscretisedLogistic((1, 8, 8), bins=17)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, q.features))
    decoder = Conditional(nn.Linear(latent, px.features), px)
    model = VAE(priors.StandardNormal(latent), Conditional(encoder, q, event_dim=3), decoder)
    return Recipe(model, data.digits, training=Training(epochs=1))
'''


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "digits"
    made = commands.train("digits", {"epochs": 1, "hidden": 8, "latent": 3}, out=folder)
    commands.evaluate(made, samples=3)
    return folder


@pytest.fixture
def pushed(run: Path, tmp_path: Path) -> Path:
    assert hub.push(run, tmp_path / "model", license="mit") == str(tmp_path / "model")
    return tmp_path / "model"


def sample(recipe: Any) -> torch.Tensor:
    torch.manual_seed(0)
    return recipe.model.sample(4)


def test_what_is_loaded_is_what_was_pushed(run: Path, pushed: Path) -> None:
    names = {"run.json", "model.safetensors", "evaluation.json", "vaekit.json", "README.md"}
    assert {path.name for path in pushed.iterdir()} == names
    found, recipe = hub.load(pushed, device="cpu")
    _, expected = commands.load(run, device="cpu")
    expected_config = replace(open_run(run).config, command=found.config.command)
    assert found.config == expected_config and not recipe.model.training
    assert found.config.command.startswith("vaekit train digits") and str(run) not in (pushed / "run.json").read_text()
    assert all(torch.equal(t, recipe.model.state_dict()[name]) for name, t in expected.model.state_dict().items())
    assert torch.equal(sample(recipe), sample(expected))
    assert [path.name for path in pushed.parent.iterdir()] == ["model"]  # nothing beside it


def test_the_pushed_folder_is_a_run_folder(pushed: Path) -> None:
    assert commands.sample(pushed, n=2)[0].shape == (2, 1, 8, 8)


def test_the_card_says_what_the_run_says(run: Path, pushed: Path) -> None:
    card = (pushed / "README.md").read_text()
    values = json.loads((run / "evaluation.json").read_text())["test"]
    assert card.startswith("---\nlibrary_name: vaekit\nlicense: mit\n")
    assert f"| negative log-likelihood, at most | {values['nll']:.2f} | {values['nll_se']:.2f} |" in card
    assert f"| evidence lower bound | {values['elbo']:.2f} | {values['elbo_se']:.2f} |" in card
    assert "$ vaekit train digits --latent=3 --hidden=8" in card and "--out" not in card
    assert 'hub.load("model")' in card and "trust" not in card


def test_a_run_without_figures_says_so(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "evaluation.json").unlink()
    hub.push(tmp_path / "run", tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    assert "Not evaluated yet" in card and "license: unknown" in card


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


DAMAGE: dict[str, tuple[Any, str]] = {
    "a bit of the weights": (lambda p: flip(p / "model.safetensors"), "model.safetensors is not what was pushed"),
    "weights cut short": (
        lambda p: (p / "model.safetensors").write_bytes((p / "model.safetensors").read_bytes()[:99]),
        "not what was pushed",
    ),
    "other weights": (lambda p: save_file({"w": torch.zeros(2)}, p / "model.safetensors"), "not what was pushed"),
    "other settings": (
        lambda p: (p / "run.json").write_text((p / "run.json").read_text().replace('"latent": 3', '"latent": 4')),
        "run.json is",
    ),
    "no weights": (lambda p: (p / "model.safetensors").unlink(), "has lost model.safetensors"),
    "no run.json": (lambda p: (p / "run.json").unlink(), "has lost run.json"),
    "no sums": (lambda p: (p / "vaekit.json").unlink(), "was not pushed by vaekit"),
    "sums that are no JSON": (lambda p: (p / "vaekit.json").write_text("{"), "vaekit.json is damaged"),
    "sums that are a list": (lambda p: (p / "vaekit.json").write_text("[]"), "vaekit.json is damaged"),
    "sums of nothing": (lambda p: (p / "vaekit.json").write_text('{"format": 1, "kind": "vaekit run"}'), "vaekit.json is damaged"),
    "an export": (lambda p: (p / "vaekit.json").write_text('{"format": 1, "kind": "vaekit export, onnx"}'), "is not a run"),
    "another format": (lambda p: (p / "vaekit.json").write_text('{"format": 2, "kind": "vaekit run"}'), "format 2"),
    "code beside it": (lambda p: (p / "recipe.py").write_text("print()"), "recipe.py that was not pushed"),
    "a path out of it": (
        lambda p: (p / "vaekit.json").write_text((p / "vaekit.json").read_text().replace('"evaluation.json"', '"../evaluation.json"')),
        "vaekit.json is damaged",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_refused(name: str, pushed: Path) -> None:
    damage, words = DAMAGE[name]
    damage(pushed)
    with pytest.raises(InputError, match=words) as info:
        hub.load(pushed)
    assert "\n" not in str(info.value)


def test_the_card_may_be_edited(pushed: Path) -> None:
    (pushed / "README.md").write_text("another card")
    hub.load(pushed, device="cpu")


def test_code_needs_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MINE)
    commands.train(f"{tmp_path}/mine.py:run", out="run")
    Path("mine.py").unlink()
    hub.push("run", "model")
    assert "trust=True" in Path("model/README.md").read_text()
    assert open_run(Path("model")).config.recipe == "mine.py:run" and not any(
        str(tmp_path) in p.read_text("latin-1") for p in Path("model").iterdir()
    )
    with pytest.raises(InputError, match="would be executed"):
        hub.load("model")
    assert hub.load("model", trust=True, device="cpu")[1].model.sample(2).shape == (2, 1, 8, 8)
    Path("model/recipe.py").write_text(MINE + "\nprint('changed')\n")
    with pytest.raises(InputError, match=r"recipe.py is not what was pushed"):
        hub.load("model", trust=True)


def test_what_cannot_be_pushed(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    with pytest.raises(InputError, match="already holds something"):
        hub.push(run, tmp_path)
    with pytest.raises(InputError, match="license"):
        hub.push(run, tmp_path / "model", license="MIT\nhidden: yes")
    with pytest.raises(InputError, match="hf://owner/name"):
        hub.push(run, "hf://digits")
    flip(tmp_path / "run" / "model.safetensors")
    with pytest.raises(InputError, match="train again"):
        hub.push(tmp_path / "run", tmp_path / "model")
    (tmp_path / "run" / "model.safetensors").unlink()
    with pytest.raises(InputError, match="no trained weights"):
        hub.push(tmp_path / "run", tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_what_cannot_be_loaded(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder"):
        hub.load(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"not pushed by vaekit.*commands.load"):
        hub.load(run)
    with pytest.raises(InputError, match="no revision"):
        hub.load(run, revision="main")


class Hub:
    """A hub of folders, with the three calls of huggingface_hub that are used."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.private: bool | None = None

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
        self.private = private
        (self.root / repo_id).mkdir(parents=True, exist_ok=exist_ok)

    def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> None:
        shutil.copytree(folder_path, self.root / repo_id, dirs_exist_ok=True)

    def snapshot_download(self, repo_id: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        if not (self.root / repo_id).is_dir():
            raise OSError("404 Client Error:\nRepository Not Found")
        target = self.root / "cache"
        target.mkdir()
        for name in allow_patterns:
            if (self.root / repo_id / name).is_file():
                shutil.copyfile(self.root / repo_id / name, target / name)
        return str(target)


def test_a_repository(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Hub(tmp_path)
    module = SimpleNamespace(HfApi=lambda: fake, snapshot_download=fake.snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    assert hub.push(run, "hf://me/digits") == "https://huggingface.co/me/digits"
    assert fake.private is True
    (tmp_path / "me/digits/weights.pkl").write_bytes(b"")  # is not fetched
    found, recipe = hub.load("hf://me/digits", device="cpu")
    assert torch.equal(sample(recipe), sample(commands.load(run, device="cpu")[1]))
    assert not (found.path / "weights.pkl").exists() and 'hub.load("hf://me/digits")' in (tmp_path / "me/digits/README.md").read_text()
    with pytest.raises(InputError, match="hub refused .OSError: 404 Client Error: Repository Not Found"):
        hub.load("hf://me/nothing")


def test_the_calls_are_those_of_the_real_package() -> None:
    import inspect

    real = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    for name in ("create_repo", "upload_folder"):
        wanted = {one for one in inspect.signature(getattr(Hub, name)).parameters if one != "self"}
        assert wanted <= set(inspect.signature(getattr(real.HfApi, name)).parameters)
    assert {"repo_id", "revision", "allow_patterns"} <= set(inspect.signature(real.snapshot_download).parameters)


def test_without_the_package(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"pip install 'vaekit\[hub\]'"):
        hub.push(run, "hf://me/digits")
    with pytest.raises(InputError, match=r"pip install 'vaekit\[hub\]'"):
        hub.load("hf://me/digits")


def test_the_commands(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", str(run), str(tmp_path / "model"), "--license", "mit"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'model'}\n"
    out = tmp_path / "out"
    assert main(["export", str(run), str(out), "--format", "torch", "--samples", "3", "--parts", "decoder,score"]) == 0
    assert {path.name for path in out.iterdir()} == {"decoder.pt2", "score.pt2", "vaekit.json"}
    stated = json.loads((out / "vaekit.json").read_text())
    assert stated["run"]["recipe"] == "digits" and stated["run"]["arguments"]["latent"] == 3
    assert stated["parts"]["score"]["inputs"][1]["shape"] == [3, "batch", 3]
    printed = capsys.readouterr().out
    assert f"{stated['parts']['score']['max_difference']:.1e}" in printed and str(out / "score.pt2") in printed
    assert main(["export", str(run), str(tmp_path / "other"), "--parts", "encodr"]) == 2
    assert main(["export", str(run), str(tmp_path / "other"), "--format", "onxx"]) == 2
    assert 'did you mean "encoder"' in capsys.readouterr().err and not (tmp_path / "other").exists()


# ---- runs on data of one's own


def own_table(folder: Path) -> Path:
    pd = pytest.importorskip("pandas")
    r = np.random.default_rng(0)
    frame = pd.DataFrame(r.normal(size=(60, 2)), columns=["u", "v"])
    frame["city"] = np.array(["Bonn", "Ulm"])[r.integers(0, 2, 60)]
    frame.to_csv(folder / "people.csv", index=False)
    return folder / "people.csv"


def own_images(folder: Path) -> Path:
    np.save(folder / "pictures.npy", np.random.default_rng(0).integers(0, 256, (60, 4, 4), dtype=np.uint8))
    return folder / "pictures.npy"


def own_counts(folder: Path) -> Path:
    x = np.random.default_rng(0).poisson(3.0, (60, 4))
    sparse.save_npz(folder / "cells.npz", sparse.csr_array(x))
    return folder / "cells.npz"


OWN: dict[str, tuple[Callable[[Path], Path], dict[str, Any]]] = {
    "table": (own_table, {}),
    "table given a column": (own_table, {"condition": ("city",)}),
    "images": (own_images, {}),
    "counts": (own_counts, {}),
}


@pytest.fixture(scope="module", params=OWN)
def own(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The name of a kind, and a run of it whose data are gone."""
    name = request.param
    make, arguments = OWN[name]
    folder = tmp_path_factory.mktemp("own")
    data = make(folder)
    commands.train(f"own:{name.split()[0]}", {"path": str(data), "epochs": 1, "hidden": 8, "latent": 2, **arguments}, out=folder / "run")
    data.unlink()
    return name, folder / "run"


def test_a_run_on_data_of_ones_own_comes_back_and_its_card_runs(own: tuple[str, Path], tmp_path: Path, monkeypatch: Any) -> None:
    name, run = own
    monkeypatch.chdir(tmp_path)
    hub.push(run, "model")
    assert Path("model/schema.json").read_bytes() == (run / "schema.json").read_bytes()
    assert not any(str(run.parent) in path.read_text("latin-1") for path in Path("model").iterdir())  # no folder of this machine
    state = hub.load("model", device="cpu")[1].model.state_dict()
    assert all(torch.equal(t, state[key]) for key, t in commands.load(run, device="cpu")[1].model.state_dict().items())
    card = Path("model/README.md").read_text()
    names: dict[str, Any] = {}
    exec(card.partition("```python\n")[2].partition("```")[0], names)
    assert names["x"].shape[0] == 16 and names["x"].isfinite().all()
    assert ("It holds 48 training rows of the columns that the model is conditioned on: `city`." in card) == ("given" in name)
    assert "`schema.json` holds what was found in the training data" in card


def test_what_was_found_is_pushed_or_nothing_is(own: tuple[str, Path], tmp_path: Path) -> None:
    shutil.copytree(own[1], tmp_path / "run")
    hub.push(tmp_path / "run", tmp_path / "model")
    flip(tmp_path / "model/schema.json")
    with pytest.raises(InputError, match=r"schema.json is not what was pushed"):
        hub.load(tmp_path / "model")
    sums = json.loads((tmp_path / "model/vaekit.json").read_text())
    del sums["sha256"]["schema.json"]
    (tmp_path / "model/vaekit.json").write_text(json.dumps(sums))
    with pytest.raises(InputError, match=r"schema.json that was not pushed with it"):
        hub.load(tmp_path / "model")
    (tmp_path / "model/schema.json").unlink()
    with pytest.raises(InputError, match=r"pushed without schema.json.*push the run again"):  # as it once was
        hub.load(tmp_path / "model")
    (tmp_path / "run/schema.json").unlink()
    with pytest.raises(InputError, match=r"has lost schema.json"):
        hub.push(tmp_path / "run", tmp_path / "other")
    assert not (tmp_path / "other").exists()
