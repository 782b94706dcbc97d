"""What a person can get wrong, each with its one line on standard error, exit status 2, no traceback and nothing lost."""

from __future__ import annotations

import errno
import gzip
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vaekit import files
from vaekit.cli import main

MINE = '''
import numpy as np
from torch import nn
from vaekit import VAE, Conditional, Training, data, heads, nn as nets, priors
from vaekit.recipes.core import Recipe

def model(width=6):
    q, px = heads.Gaussian(2), heads.Bernoulli(width)
    return VAE(priors.StandardNormal(2), Conditional(nets.mlp(width, [8], q.features), q), Conditional(nets.mlp(2, [8], px.features), px))

def rows(**change):
    x = np.random.default_rng(0).random((60, 6), dtype=np.float32)
    return lambda: data.arrays(change.get("f", lambda x: x)(x))

def fine(epochs: int = 1) -> Recipe:
    """Random rows."""
    return Recipe(model(), rows(), training=Training(epochs=epochs, batch_size=16))

def bytes255() -> Recipe:
    return Recipe(model(), rows(f=lambda x: 255 * x))

def negative() -> Recipe:
    return Recipe(model(), rows(f=lambda x: x - 0.5))

def infinite() -> Recipe:
    return Recipe(model(), rows(f=lambda x: np.where(x > 0.99, np.inf, x)))

def empty() -> Recipe:
    return Recipe(model(), rows(f=lambda x: x[:0]))

def narrow() -> Recipe:
    return Recipe(model(4), rows())

def mismatched() -> Recipe:
    return Recipe(VAE(priors.StandardNormal(3), model().posterior, model().likelihood), rows())

def words() -> Recipe:
    return Recipe(model(), rows(f=lambda x: x.astype(str)))

def bits() -> Recipe:
    q, px = heads.Bernoulli(4), heads.Bernoulli(6)
    return Recipe(VAE(priors.Bernoulli(4), Conditional(nets.mlp(6, [], 4), q), Conditional(nets.mlp(4, [], 6), px)), rows())

def needs(latent: int) -> Recipe:
    return fine()
'''


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe file and one small finished run of it and of digits."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "mine.py").write_text(MINE)
    before = os.getcwd()
    os.chdir(folder)
    try:
        assert main(["train", "digits", "--epochs", "1", "--hidden", "8", "--out", "run"]) == 0
        assert main(["train", "mine.py:fine", "--out", "outside"]) == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh copy of it, as the working directory."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def cut(path: str, share: float = 0.5) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        data = (folder / path).read_bytes()
        (folder / path).write_bytes(data[: int(len(data) * share)])

    return prepare


def put(path: str, text: str) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)

    return prepare


def edit(**changes: object) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        path = folder / "run" / "run.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return prepare


def remove(path: str) -> Callable[[Path], None]:
    return lambda folder: (folder / path).unlink()


def mnist(images: bytes) -> Callable[[Path], None]:
    """A data folder with broken MNIST images."""

    def prepare(folder: Path) -> None:
        (folder / "data" / "mnist").mkdir(parents=True)
        (folder / "data" / "mnist" / "train-images-idx3-ubyte.gz").write_bytes(images)
        os.environ["VAEKIT_DATA"] = str(folder / "data")  # put back by the test

    return prepare


def nothing(folder: Path) -> None:
    pass


IDX = b"\0\0\x08\x03\0\0\xea\x60\0\0\0\x1c\0\0\0\x1c"
BAD: dict[str, tuple[str, Callable[[Path], None], str]] = {
    # --- words
    "no such command": ("trian digits", nothing, "No such command 'trian'. Did you mean 'train'"),
    "no run named": ("evaluate", nothing, "Missing argument 'RUN'"),
    "a flag of no command": ("sample run --sead 3", nothing, r"No such option: --sead.*--seed"),
    "a flag of the wrong type": ("sample run --n many", nothing, "'--n': Input should be a valid integer"),
    "no recipe named": ("train", nothing, "which recipe"),
    "unknown recipe": ("train digit", nothing, 'unknown recipe "digit"; did you mean "digits"'),
    "running averages that diverge": (
        "train tutorials:mlp --momentum 2",
        nothing,
        "--momentum 2.0: the weight of the newest batch is above 0",
    ),
    "a rate that is rewarded": ("train tutorials:mlp --alpha -1", nothing, r"Beta\(weight=-1.0\): a weight below 0 rewards the rate"),
    "no rows to train on": ("train posterior:mcem --rows 0", nothing, "0 training images were asked for; choose from 1 to 50000"),
    "no rows to dream of": ("train posterior:wake_sleep --rows 0", nothing, "0 training images were asked for; choose from 1 to 50000"),
    "a total correlation that is rewarded": ("train sprites:beta_tc --beta -1", nothing, r"BetaTC\(beta=-1.0\): a weight is 0 or more"),
    "unknown flag of a recipe": ("train digits --latnt 3", nothing, 'unknown flag --latnt; did you mean "--latent"'),
    "misspelt common flag": ("train digits --resum", nothing, 'unknown flag --resum; did you mean "--resume"'),
    "flag without value": ("train digits --latent", nothing, "--latent needs a value"),
    "flag given twice": ("train digits --latent 2 --latent 3", nothing, "--latent is given twice"),
    "stray word": ("train digits 20", nothing, '"20" stands where a flag should'),
    "word for a number": ("train digits --latent two", nothing, '--latent takes a whole number, not "two"'),
    "fraction for a whole number": ("train digits --latent 2.5", nothing, '--latent takes a whole number, not "2.5"'),
    "nan for a number": ("train digits --lr nan", nothing, '--lr takes a finite number, not "nan"'),
    "needed flag left out": ("train mine.py:needs", nothing, "--latent is needed"),
    # --- values
    "no latent dimension": ("train digits --latent 0", nothing, r"event shape \(0,\) has an empty dimension"),
    "negative learning rate": ("train digits --lr=-1", nothing, "digits cannot be built with these arguments: Invalid learning rate: -1"),
    "no epochs": ("train digits --epochs 0", nothing, "epochs=0: at least 1"),
    "empty batches": ("train digits --batch-size 0", nothing, "batch_size=0: at least 1"),
    "negative seed": ("train digits --seed=-1", nothing, "'--seed': Input should be greater than or equal to 0"),
    "unknown device": ("train digits --device gpu", nothing, 'unknown device "gpu"'),
    "unknown precision": ("train digits --precision 16", nothing, 'unknown precision "16"'),
    "no samples": ("evaluate run --samples 0", nothing, "--samples 0: an estimate needs at least 1"),
    "no samples to diagnose": ("evaluate run --diagnose --samples 0", nothing, "--samples 0: a diagnosis needs at least 1"),
    "a split to diagnose that there is not": ("evaluate run --diagnose --split tset", nothing, 'no split "tset"; did you mean "test"'),
    "unknown split": ("evaluate run --split tset", nothing, 'no split "tset"; did you mean "test"'),
    "nothing to draw": ("sample run --n 0", nothing, "0 samples were asked for; at least 1"),
    "negative temperature": ("sample run --temperature=-1", nothing, "temperature -1.0: it must be 0 or more"),
    "more than there are": ("reconstruct run --n 100000", nothing, r"cannot take the first 100000 rows of \d+"),
    "an odd number of rows": ("interpolate run --rows 0,1,2", nothing, "give an even number of rows, not 3"),
    "rows that are no numbers": ("interpolate run --rows 0;1", nothing, '--rows takes whole numbers with commas between them, not "0;1"'),
    "a row that there is not": ("interpolate run --rows 0,100000", nothing, r"no test row 100000; they are 0 to \d+"),
    "a line without a middle": ("interpolate run --steps 1", nothing, "1 steps were asked for; an interpolation has at least 2"),
    "more dimensions than there are": ("traverse run --dimensions 17", nothing, "17 latent dimensions were asked for; this model has 16"),
    "a traversal without steps": ("traverse run --steps 0", nothing, "0 steps were asked for; a traversal has at least 2"),
    "a traversal from nowhere": ("traverse run --row=-1", nothing, "no test row -1"),
    "a split that there is not": ("reconstruct run --split tset", nothing, 'no split "tset"; did you mean "test"'),
    # --- places
    "folder in use": ("train digits --out run", nothing, "run already holds something, and a run never overwrites: add --resume"),
    "resume without a run": ("train digits --resume", nothing, "add --out RUN"),
    "resume of nothing": ("train digits --resume --out nowhere", nothing, "no run folder nowhere"),
    "resume with another setting": (
        "train digits --resume --out run --latent 3",
        nothing,
        "was started with --latent 16, and .* cannot change it to 3",
    ),
    "resume of another recipe": ("train mnist:example --resume --out run", nothing, "was started with recipe digits, not mnist:example"),
    "resume of a changed recipe file": (
        "train mine.py:fine --resume --out outside",
        put("mine.py", MINE + "\n"),
        "mine.py has changed since outside was started with it",
    ),
    "no such run": ("evaluate nowhere", nothing, "no run folder nowhere"),
    "not a run": ("evaluate .", nothing, "is not a run folder: it has no run.json"),
    "another kind of picture": ("sample run --out x.jpg", nothing, 'writes .png or .npy, not ".jpg"'),
    "another kind of interpolation": ("interpolate run --out x.gif", nothing, 'writes .png or .npy, not ".gif"'),
    "a traversal in no folder": ("traverse run --out no/such/x.png", nothing, r"no/such/x\.png"),
    "a picture of what is none": ("traverse outside --trust --out x.png", nothing, r"shape \[6\] are no pictures; write them as .npy"),
    "picture in no folder": ("sample run --out no/such/x.png", nothing, r"no/such/x\.png"),
    "another kind of table": ("embed run --out z.csv", nothing, 'writes .npz, not ".csv"'),
    # --- files
    "run of another format": ("evaluate run", edit(format=99), "was written in run format 99.*reads format 1"),
    "run.json cut short": ("evaluate run", cut("run/run.json"), "run.json is damaged"),
    "run.json with a missing entry": ("evaluate run", put("run/run.json", '{"format": 1}'), "run.json is damaged"),
    "run of a recipe that is gone": ("evaluate run", edit(recipe="digitz"), 'unknown recipe "digitz"'),
    "weights cut short": ("evaluate run", cut("run/model.safetensors", 0.9), "model.safetensors"),
    "weights gone": (
        "evaluate run",
        remove("run/model.safetensors"),
        "has lost model.safetensors; make it anew with: vaekit train digits .*--resume",
    ),
    "weights of another network": ("evaluate run", edit(arguments={"latent": 5, "hidden": 8}), "model.safetensors"),
    "evaluation.json cut short": ("report run", put("run/evaluation.json", '{"test": {"nll"'), "evaluation.json is damaged"),
    "diagnosis.json cut short": (
        "evaluate run --diagnose",
        put("run/diagnosis.json", '{"test": {"nll"'),
        "diagnosis.json is damaged .*remove it and run: vaekit evaluate --diagnose run",
    ),
    "code from outside without trust": ("evaluate outside", nothing, r"would be executed: read it, then add --trust"),
    "infinite temperature": ("sample run --temperature inf", nothing, "temperature inf: it must be"),
    "seed without end": ("train digits --seed 99999999999999999999999", nothing, "'--seed'"),
    "a family of recipes": ("train mnist", nothing, "choose from: mnist:example, mnist:iwae, mnist:ladder"),
    "recipe file with several recipes": ("train mine.py", nothing, "which recipe of mine.py.*mine.py:fine"),
    "a run that points to code elsewhere": (
        "evaluate run",
        edit(recipe="mine.py:fine", arguments={}),
        "run was trained by mine.py:fine, whose copy .*would be executed: read it, then add --trust",
    ),
    "a run that lost its recipe": (
        "evaluate outside --trust",
        remove("outside/recipe.py"),
        "outside has lost recipe.py, the copy of mine.py:fine",
    ),
    "a folder with a recipe.py of yours": ("train digits --out own", put("own/recipe.py", "keep = 1"), "own already holds something"),
    "no recipe file": ("train ./gone.py:run", nothing, "no recipe file gone.py"),
    "recipe file that does not load": ("train ./bad.py:run", put("bad.py", "def run(:\n"), "bad.py could not be loaded: SyntaxError"),
    "no such recipe in the file": ("train mine.py:fien", nothing, r'mine.py has no recipe "fien".*did you mean "fine"'),
    # --- data
    "bytes under a Bernoulli": ("train mine.py:bytes255", nothing, r"255"),
    "negative values under a Bernoulli": ("train mine.py:negative", nothing, r"-0\.\d+"),
    "infinite values": ("train mine.py:infinite", nothing, "not finite"),
    "an empty data set": ("train mine.py:empty", nothing, "0|empty"),
    "a network for other data": ("train mine.py:narrow", nothing, r"6"),
    "latents of two sizes": ("train mine.py:mismatched", nothing, r"3"),
    "discrete latents under the ELBO": ("train mine.py:bits", nothing, "Bernoulli has no reparameterised sample.*Relaxed, StraightThrough"),
    "words for numbers": ("train mine.py:words", nothing, "str|dtype|<U"),
    "data file cut short": (
        "train mnist:example --epochs 1",
        mnist(gzip.compress(IDX + bytes(47_040_000))[:2000]),
        "train-images-idx3-ubyte",
    ),
    "data file of another kind": ("train mnist:example --epochs 1", mnist(b"<html>404</html>"), "train-images-idx3-ubyte"),
    "data file of another shape": ("train mnist:example --epochs 1", mnist(gzip.compress(IDX + bytes(784))), "train-images-idx3-ubyte"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    command, prepare, pattern = BAD[case]
    monkeypatch.setenv("VAEKIT_DATA", os.environ.get("VAEKIT_DATA", ""))
    monkeypatch.setenv("VAEKIT_CACHE", str(folder / "cache"))
    prepare(folder)
    before = snapshot(folder)
    capfd.readouterr()
    status = main(command.split())
    error = capfd.readouterr().err
    assert status == 2, error
    assert error.startswith("vaekit: ") and error.count("\n") == 1, error
    assert re.search(pattern, error), error
    assert "Traceback" not in error
    assert snapshot(folder) == before  # nothing lost, nothing left behind


def snapshot(folder: Path) -> dict[str, bytes]:
    skip = {"cache", "__pycache__"}
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not skip & set(path.relative_to(folder).parts)
    }


@pytest.mark.parametrize(
    "command",
    [
        "evaluate run --samples 2",
        "evaluate run --diagnose",
        "sample run",
        "reconstruct run",
        "interpolate run",
        "traverse run",
        "embed run",
        "report run",
        "train digits --epochs 1 --hidden 8",
    ],
)
def test_no_space_left(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    before = snapshot(folder)
    assert main(command.split()) == 2
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("vaekit: no space left"), error
    after = snapshot(folder)
    assert {name: after[name] for name in before} == before  # whatever was there still is
    assert not [name for name in after if name.endswith((".tmp", ".part"))]


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a GPU where there is none")
def test_no_gpu(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "digits", "--device", "cuda"]) == 2
    assert re.search(r'device "cuda" was asked for and torch sees no CUDA device', capfd.readouterr().err)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_no_permission(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "locked").mkdir(mode=0o500)
    assert main(["train", "digits", "--out", "locked/run"]) == 2
    assert "no permission to write" in capfd.readouterr().err
