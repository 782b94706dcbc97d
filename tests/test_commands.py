"""Every command, as a person runs it, on a small run of the digits; and every recipe for two steps."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from vaekit import commands
from vaekit.cli import main
from vaekit.data import digits
from vaekit.data.core import DataSet, Split
from vaekit.errors import InputError
from vaekit.launch import resume_line
from vaekit.recipes.core import find, names
from vaekit.recipes.flags import complete, describe, flags, parse
from vaekit.runs import open_run
from vaekit.train import fit

TABLE = """
import numpy as np
from vaekit import VAE, Conditional, Recipe, Training, data, heads, nn, priors

def rows() -> Recipe:
    x = np.random.default_rng(0).normal(size=(40, 6))
    q, px = heads.Gaussian(2), heads.GaussianShared(6)
    model = VAE(priors.StandardNormal(2), Conditional(nn.mlp(6, [8], q.features), q), Conditional(nn.mlp(2, [8], px.features), px))
    return Recipe(model, lambda: data.arrays(x), training=Training(epochs=2, precision="bf16-mixed"))
"""
SHAPES = {
    "discrete": (1, 28, 28),
    "digits": (1, 8, 8),
    "mnist": (1, 28, 28),
    "cifar10": (3, 32, 32),
    "vq": (3, 32, 32),
    "tutorials": (1, 28, 28),
    "flows": (1, 28, 28),
    "posterior": (1, 28, 28),
    "sprites": (1, 32, 32),
    "aevb": (1, 28, 28),
    "aevb:freyfaces": (1, 28, 20),
}
SMALL = {
    "aevb:mnist": {"warmup": 0},
    "aevb:freyfaces": {"warmup": 0},
    "posterior:mcem": {"warmup": 0},
    "posterior:wake_sleep": {"warmup": 0},
    "discrete:categorical": {"start": 0.5},
    "mnist:iwae": {"k": 3},
    "mnist:ladder": {"warmup": 0},
    "cifar10:resnet": {"width": 4, "latent": 8},
}
IDLE = {"posterior:mcem": "posterior."}  # parameters that the objective has no use for, by the start of their names


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished two-dimensional run of the digits, made by the command line."""
    path = tmp_path_factory.mktemp("runs")
    before = os.getcwd()
    os.chdir(path)
    try:
        assert main(["train", "digits", "--latent", "2", "--epochs=3", "--hidden", "32", "--seed", "5", "--out", "run"]) == 0
        assert main(["evaluate", "run", "--samples", "50"]) == 0
    finally:
        os.chdir(before)
    return path


@pytest.fixture(autouse=True)
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def test_run_folder_rebuilds_the_run(folder: Path) -> None:
    config = json.loads((folder / "run" / "run.json").read_text())
    assert config["recipe"] == "digits" and config["state"] == "finished" and config["format"] == 1 and config["seed"] == 5
    assert config["arguments"] == {"latent": 2, "hidden": 32, "k": 1, "lr": 2e-3, "batch_size": 64, "epochs": 3}
    assert config["command"] == "vaekit train digits --latent=2 --epochs=3 --hidden=32 --seed=5 --out run"
    assert {"model.safetensors", "metrics.csv", "log.txt", "checkpoints"} <= {p.name for p in (folder / "run").iterdir()}


def test_the_same_seed_gives_the_same_weights(folder: Path) -> None:
    run = commands.train("digits", {"latent": 2, "epochs": 3, "hidden": 32}, seed=5, out="again")
    other = commands.train("digits", {"latent": 2, "epochs": 3, "hidden": 32}, seed=6, out="other")
    assert run.weights.read_bytes() == (folder / "run" / "model.safetensors").read_bytes()
    assert other.weights.read_bytes() != run.weights.read_bytes()


def test_runs_are_numbered_and_never_overwritten(folder: Path) -> None:
    paths = [commands.train("digits", {"epochs": 1, "hidden": 8}).path for _ in range(2)]
    assert [str(path) for path in paths] == ["runs/digits-1", "runs/digits-2"]


def test_evaluate_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "run", "--samples", "50", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    keys = ["examples", "samples", "elbo", "elbo_se", "nll", "nll_se", "ess", "bits_per_dim", "active_units", "latent_dim"]
    assert set(keys) <= set(found)
    assert found["examples"] == len(digits().test) and found["samples"] == 50 and found["latent_dim"] == 2
    assert 0 < found["nll"] < -found["elbo"] and 1 <= found["ess"] <= 50
    assert found["bits_per_dim"] == pytest.approx(found["nll"] / (64 * math.log(2)))
    assert found["elbo"] == pytest.approx(found["log_px"] - sum(found["rates"]))
    assert json.loads((folder / "run" / "evaluation.json").read_text())["test"] == found
    again = commands.evaluate("run", samples=50)
    assert again.nll == found["nll"]  # deterministic


def test_diagnose(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Figures and findings for people, the same as JSON, and a file in the run folder; a section of the report."""
    assert main(["evaluate", "run", "--diagnose"]) == 0
    out = capsys.readouterr().out
    n = len(digits().test)
    assert out.startswith(f"{n} test examples, 5 samples of z each\n  evidence lower bound") and "mutual information I(x; z)" in out
    assert "active latent dimensions" in out and "data in the central 80% of p(x | z)" in out and "+-" in out and "nan" not in out
    assert main(["evaluate", "run", "--diagnose", "--json", "--split", "valid", "--samples", "2"]) == 0
    found = json.loads(capsys.readouterr().out)
    kept = json.loads((folder / "run" / "diagnosis.json").read_text())
    assert set(kept) == {"test", "valid"} and kept["valid"] == found and found["test"]["samples"] == 2
    assert found["aggregate"]["rate"] == pytest.approx(found["aggregate"]["mutual_information"] + found["aggregate"]["gap"])
    assert len(found["kl"]) == len(found["variance"]) == 2 and abs(sum(found["kl"]) - found["test"]["rates"][0]) < 0.2
    assert commands.diagnose("run").as_dict() == kept["test"]  # deterministic
    assert commands.diagnose("run", split="train", samples=1).train is None  # nothing to compare it with


def test_damaged_weights_are_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No traceback, no NaN, but which weights: on the command line and in the report."""
    shutil.copytree(folder / "run", folder / "broken")
    weights = load_file(folder / "broken" / "model.safetensors")
    name = next(name for name in weights if name.startswith("likelihood") and name.endswith("bias"))
    weights[name][0] = math.nan
    save_file(weights, folder / "broken" / "model.safetensors")
    assert main(["evaluate", "broken", "--diagnose"]) == 0
    out = capsys.readouterr().out
    assert f"error: The weights are damaged: 1 of {weights[name].numel()} values of {name} are NaN" in out
    assert "error: No number can be trusted: " in out and "p(x | z)" in out and "evidence lower bound" not in out
    page = commands.report("broken").read_text()
    assert f"values of {name} are NaN" in page and "Numbers" not in page and ">nan" not in page


def test_sample_reconstruct_embed(folder: Path) -> None:
    x, _ = commands.sample("run", n=10, out="x.npy")
    np.testing.assert_array_equal(np.load("x.npy"), x.numpy())
    assert x.shape == (10, 1, 8, 8) and (x >= 0).all() and (x <= 1).all() and x.std(0).mean() > 0.01
    assert torch.equal(commands.sample("run", n=10, out="y.npy")[0], x)
    assert not torch.equal(commands.sample("run", n=10, seed=1, out="y.npy")[0], x)
    cold, _ = commands.sample("run", n=3, temperature=0, out="z.png")
    assert torch.allclose(cold[0], cold[1])
    drawn, _ = commands.sample("run", n=10, mean=False, out="y.npy")
    assert torch.equal((16 * drawn).round(), 16 * drawn)  # grey levels, as the data, and no means
    assert main(["sample", "run", "--n", "4"]) == 0
    assert Image.open(folder / "run" / "figures" / "samples.png").size[0] >= 64
    x_hat, _ = commands.reconstruct("run", n=5)
    assert x_hat.shape == (5, 1, 8, 8) and (folder / "run" / "figures" / "reconstructions.png").is_file()
    z, _ = commands.embed("run", split="test", out="z.npz")
    with np.load("z.npz") as stored:
        np.testing.assert_array_equal(stored["z"], z.numpy())
        np.testing.assert_array_equal(stored["label"], digits().test.label.numpy())


def test_reconstruct_takes_any_split_and_any_rows(folder: Path) -> None:
    first, _ = commands.reconstruct("run", n=5, split="valid", out="x.npy")
    assert torch.equal(first, commands.reconstruct("run", n=8, split="valid", out="x.npy")[0][:5])
    assert not torch.equal(first, commands.reconstruct("run", n=5, out="x.npy")[0])  # the test split
    drawn, again, other = (commands.reconstruct("run", n=5, split="valid", seed=seed, out="x.npy")[0] for seed in (1, 1, 2))
    assert torch.equal(drawn, again) and not torch.equal(drawn, first) and not torch.equal(drawn, other)
    everything, _ = commands.reconstruct("run", n=len(digits().valid), split="valid", out="x.npy")
    assert all(any(torch.allclose(row, one, atol=1e-6) for one in everything) for row in drawn)
    assert main(["reconstruct", "run", "--split", "train", "--seed", "3", "--n", "2"]) == 0


def test_interpolate_and_traverse(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The ends of a line are the reconstructions of its examples; every traversal goes through the prior's centre."""
    x, _ = commands.interpolate("run", rows=[0, 5, 7, 3], steps=5, out="x.npy")
    assert x.shape == (2, 5, 1, 8, 8) and np.array_equal(np.load("x.npy"), x.numpy())
    x_hat, _ = commands.reconstruct("run", n=8, out="y.npy")
    torch.testing.assert_close(x[:, [0, -1]], torch.stack([x_hat[[0, 5]], x_hat[[7, 3]]]))
    arc, _ = commands.interpolate("run", rows=[0, 5, 7, 3], steps=5, arc=True, out="y.npy")
    torch.testing.assert_close(arc[:, 0], x[:, 0])
    assert not torch.allclose(arc[:, 2], x[:, 2])
    z, _ = commands.traverse("run", steps=3, out="z.npy")
    centre, _ = commands.sample("run", n=1, temperature=0, out="y.npy")
    assert z.shape == (2, 3, 1, 8, 8) and not torch.allclose(z[0, 0], z[1, 0], atol=1e-2)
    torch.testing.assert_close(z[:, 1], centre.expand(2, -1, -1, -1))
    through, _ = commands.traverse("run", dimensions=1, steps=3, row=4, out="z.png")
    assert not torch.allclose(through[0], z[0], atol=1e-2)
    capsys.readouterr()
    for command, name in (("interpolate run --rows 1,2 --arc", "interpolations"), ("traverse run --dimensions 1 --steps 4", "traversals")):
        assert main(command.split()) == 0
        assert capsys.readouterr().out.strip() == f"run/figures/{name}.png"
        assert Image.open(folder / "run" / "figures" / f"{name}.png").size[0] >= 400


def test_report_is_one_file_with_its_pictures(folder: Path) -> None:
    path = commands.report("run")
    text = path.read_text()
    drawn = {p.stem for p in (folder / "run" / "figures").glob("*.png")}
    assert {"reconstructions", "samples", "interpolations", "manifold", "latents", "kl", "curves", "information", "intervals"} <= drawn
    assert text.count("data:image/png;base64,") == 9 and "http" not in text.replace("http-equiv", "")
    assert "50 importance samples" in text and "nats" in text


def test_report_of_a_run_that_nobody_evaluated_says_so(folder: Path) -> None:
    run = commands.train("digits", {"epochs": 1, "hidden": 8}, out="fresh")
    text = commands.report(run).read_text()
    assert "a quick look" in text and "vaekit evaluate fresh" in text and "--trust" not in text
    assert "manifold" not in {p.stem for p in run.figures.glob("*.png")}  # eight latent dimensions


def test_a_finished_run_resumes_to_itself(folder: Path) -> None:
    before = (folder / "run" / "model.safetensors").read_bytes()
    assert main(["train", "digits", "--out", "run", "--resume"]) == 0
    assert (folder / "run" / "model.safetensors").read_bytes() == before


def test_the_same_words_resume_what_auto_has_meant(folder: Path) -> None:
    words = ["train", "digits", "--epochs", "1", "--hidden", "8", "--precision", "auto", "--device", "cpu", "--out", "automatic"]
    assert main(words) == 0
    assert main([*words, "--resume"]) == 0
    run = open_run(folder / "automatic")
    assert run.config.precision in ("32-true", "bf16-mixed")
    assert resume_line(run).endswith("--resume --device cpu"), "without it the run would go on on a GPU"


def test_a_recipe_of_your_own_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = """
from vaekit.recipes.core import Recipe
from vaekit.recipes.digits import digits

def tiny(hidden: int = 8, widths: tuple[int, ...] = (4, 2), deep: bool = False) -> Recipe:
    '''A small variant.'''
    assert widths == (3, 5) and deep
    return digits(epochs=1, hidden=hidden)
"""
    (folder / "mine.py").write_text(source)
    assert main(["train", "./mine.py:tiny", "--widths", "3,5", "--deep", "--out", "mine"]) == 0
    assert main(["train", "mine.py", "--widths", "3,5", "--deep", "--out", "unnamed"]) == 0  # the file's only recipe
    (folder / "mine.py").unlink()  # the run holds its own copy
    assert main(["evaluate", "unnamed", "--samples", "2", "--trust"]) == 0
    assert main(["evaluate", "mine", "--samples", "2", "--trust"]) == 0
    assert main(["evaluate", "mine", "--samples", "2"]) == 2
    assert "--trust" in capsys.readouterr().err


def test_nothing_is_read_off_an_encoder_that_nobody_trained(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """MCEM trains the decoder alone: samples and traversals are the model's, reconstructions and codes would be noise."""
    (folder / "em.py").write_text("""
from vaekit import Recipe, Training, VAE, Conditional, data, heads, nn, priors
from vaekit.objectives import MCEM

def run() -> Recipe:
    q, px = heads.Gaussian(2), heads.DiscretisedLogistic((1, 8, 8), bins=17)
    model = VAE(
        priors.StandardNormal(2),
        Conditional(nn.mlp((1, 8, 8), [4], q.features), q, event_dim=3),
        Conditional(nn.mlp(2, [4], px.features), px),
    )
    return Recipe(model, data.digits, MCEM(1297, 2, updates=1, warmup=0), Training(epochs=1, batch_size=1297))
""")
    assert main(["train", "em.py:run", "--out", "em"]) == 0
    for words in (["reconstruct", "em"], ["embed", "em"], ["interpolate", "em"], ["traverse", "em", "--row", "0"]):
        capsys.readouterr()
        assert main([*words, "--trust"]) == 2
        assert "leaves the encoder q(z | x) as it was drawn" in capsys.readouterr().err
    assert main(["sample", "em", "--trust"]) == main(["traverse", "em", "--trust"]) == 0
    with pytest.warns(UserWarning, match="leaves the encoder"):
        commands.evaluate("em", samples=2, trust=True)
    page = commands.report("em", trust=True).read_text()
    assert "leaves the encoder" in page and "collapsed" not in page and not (folder / "em" / "figures" / "reconstructions.png").exists()


def test_tables_are_written_as_arrays(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --out, where pictures make no sense; and fewer test rows than the default asks for."""
    (folder / "table.py").write_text(TABLE)
    assert main(["train", "table.py:rows", "--out", "table"]) == 0
    assert "vaekit evaluate table --trust" in capsys.readouterr().out
    made = {"sample": ("samples", 64), "reconstruct": ("reconstructions", 4), "interpolate": ("interpolations", 2, 9)}
    for command, (name, *rows) in {**made, "traverse": ("traversals", 2, 9)}.items():
        assert main([command, "table", "--trust"]) == 0
        assert capsys.readouterr().out.strip() == f"table/figures/{name}.npy"
        assert np.load(f"table/figures/{name}.npy").shape == (*rows, 6)
    assert main(["report", "table", "--trust"]) == 0
    page = (folder / "table" / "report.html").read_text()
    assert "run: vaekit evaluate table --trust" in page and "vaekit report table --trust" in page
    config = json.loads((folder / "table" / "run.json").read_text())
    assert config["precision"] == "bf16-mixed"  # the recipe's own
    assert config["end"] == {"epochs": 2, "planned": 2, "best": config["end"]["best"], "kept": 2}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_training_in_order(number: int, folder: Path) -> None:
    """Status 130, a checkpoint, the command that goes on; and it goes on."""
    name = f"stopped-{number}"
    code = "import sys; from vaekit.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "train", "digits", "--hidden", "8", "--epochs", "2000", "--out", name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not (folder / name / "metrics.csv").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        out, error = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, ""), error
    last = error.splitlines()[-1]
    assert last.startswith("vaekit: interrupted") and last.endswith(f"continue with: vaekit train digits --out {name} --resume")


def test_ctrl_c_while_importing() -> None:
    """No traceback, status 130, also before anything runs: the first module that the command imports takes a minute."""
    code = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background begins without
from vaekit.cli import main
class Slow:
    def find_spec(self, *_):
        sys.meta_path.remove(self)
        print(0, flush=True)
        time.sleep(60)
sys.meta_path.insert(0, Slow())
sys.exit(main())
"""
    with subprocess.Popen([sys.executable, "-c", code, "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "0\n"
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=50)
    assert process.returncode == 130 and error == "vaekit: interrupted\n"


def test_two_starts_into_one_folder(folder: Path) -> None:
    """One trains, the other is told so, and nothing is removed."""
    code = "import sys; from vaekit.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "train", "digits", "--hidden", "8", "--epochs", "2", "--out", "race"]
    both = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [process.communicate(timeout=120)[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 2], errors
    assert (folder / "race" / "model.safetensors").is_file()


@pytest.mark.parametrize("stderr", ["2>&-", "2>/dev/full"])
def test_training_does_not_need_its_audience(stderr: str, folder: Path) -> None:
    code = "import sys; from vaekit.cli import main; sys.exit(main())"
    name = f"alone{len(stderr)}"
    command = f'"{sys.executable}" -c "{code}" train digits --hidden 8 --epochs 2 --out {name} {stderr}'
    assert subprocess.run(["sh", "-c", command], stdout=subprocess.DEVNULL, check=False).returncode == 0
    assert (folder / name / "model.safetensors").is_file()


def test_nothing_typed_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Usage:") and "..." not in out.partition("Commands:")[2]


def test_list_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    for name in ("digits", "mnist:example", "mnist:iwae", "mnist:ladder", "cifar10:resnet", "frey_faces", "omniglot"):
        assert name in out
    assert main(["train", "mnist:example", "--help"]) == 0
    out = capsys.readouterr().out
    assert "--latent" in out and "latent dimensions. (default 20)" in out and "--resume" in out


@pytest.mark.parametrize("name", [name for name in names() if not name.startswith("own:")])  # those are for data: test_own
def test_every_recipe_builds_and_trains_two_steps(name: str) -> None:
    """On black and white at random (levels of any scale) in the data set's shape, without a download: finite, and the weights move."""
    torch.manual_seed(0)
    recipe = find(name)(**SMALL.get(name, {}))
    shape = SHAPES.get(name, SHAPES[name.partition(":")[0]])
    x = torch.randint(0, 2, (2 * 8, *shape)).float()
    data = DataSet("random", train=Split(x), test=Split(x), valid=Split(x))
    before = {n: p.detach().clone() for n, p in recipe.model.named_parameters()}
    training = replace(recipe.training, epochs=1, batch_size=8, device="cpu")
    fitted = fit(recipe.model, data, objective=recipe.objective, training=training)
    assert fitted.step == 2 * training.repeat and all(math.isfinite(v) for v in fitted.history[-1].values())
    moved = [not torch.equal(before[n], p) for n, p in recipe.model.named_parameters() if not n.startswith(IDLE.get(name, "-"))]
    assert sum(moved) > 0.9 * len(moved)
    assert recipe.model.sample(2).shape == (2, *shape)


def test_flags() -> None:
    def recipe(
        latent: int = 20,
        lr: float = 1e-3,
        deep: bool = True,
        widths: tuple[int, ...] | None = (3, 4),
        name: str | None = None,
        kind: Literal["a", "b"] = "a",
        model: object = None,
    ) -> None:
        """First line.

        Args:
            latent: how many.
            lr: its line is long: it goes
                on here.

        Raises:
            InputError: never.
        """

    tokens = ["--latent=3", "--lr", "2", "--no-deep", "--widths", "1,2,3", "--name", "none"]
    assert parse(recipe, tokens) == {"latent": 3, "lr": 2.0, "deep": False, "widths": (1, 2, 3), "name": None}
    assert complete(recipe, {"lr": 2.0})["latent"] == 20
    assert "how many. (default 20)" in describe(recipe)
    assert "its line is long: it goes on here. (default 0.001)" in describe(recipe) and "never" not in describe(recipe)
    assert {flag.name: flag.takes for flag in flags(recipe)} == {
        "--latent": "a whole number",
        "--lr": "a number",
        "--deep": "true or false",
        "--widths": "whole numbers with commas between them or none",
        "--name": "a word or none",
        "--kind": "one of these words",
        "--model": "a value",
    }
    assert "(default 3,4)" in describe(recipe) and " a or b. (default a)" in describe(recipe)  # what is typed, not its Python
    assert parse(recipe, ["--kind", "b", "--widths", "none"]) == {"kind": "b", "widths": None}
    with pytest.raises(InputError, match='--kind has no option "c"'):
        parse(recipe, ["--kind", "c"])
    with pytest.raises(InputError, match="--model cannot be set from the command line"):
        parse(recipe, ["--model", "c"])
    with pytest.raises(InputError, match="unknown argument"):
        complete(recipe, {"latnt": 1})


def test_command_line_as_a_process(folder: Path) -> None:
    """The installed entry point: status and streams as a shell sees them."""
    code = "import sys; from vaekit.cli import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code, "evaluate", "nowhere"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "vaekit: no run folder nowhere\n")
