"""Two processes train what one does: the same curve and weights up to rounding; and what happens when one of them dies.

This file is also the script that torchrun starts: each process runs `CASES` and leaves what came out for the tests to read.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vaekit import ELBO, IWAE, VAE, Conditional, InputError, NonFiniteError, Training, commands, fit, heads, priors
from vaekit.cli import main
from vaekit.data import binarise
from vaekit.data.core import DataSet, Split
from vaekit.objectives import NVIL, REINFORCE, STL, VIMCO, Beta, BetaTC, Capacity, DReG, FreeBits, Linear, RunningMean
from vaekit.quantise import Codebook
from vaekit.runs import open_run
from vaekit.torchrun import Ended, told
from vaekit.train import load_weights, read_csv, save_weights
from vaekit.train.checks import check_divisible
from vaekit.train.normalise import over_all
from vaekit.train.ranks import Part

quiet: Callable[..., Any] = partial(fit, progress=False)
ADAM = partial(torch.optim.Adam, lr=2e-2)
ROWS = 52


def data() -> DataSet:
    """Drawn anew at each read; 52 training rows in batches of 17 leave one in the last, so that a process has none of it."""
    grey = torch.rand(3, ROWS, 6, generator=torch.Generator().manual_seed(0)).mul(255).to(torch.uint8)
    return binarise(DataSet("noise", train=Split(grey[0]), test=Split(grey[1]), valid=Split(grey[2, :41])))


def normalised() -> VAE:
    """Batch normalisation of rows and of K samples of them; and of as many pseudo-inputs as a process has rows, which all of them have.

    Not right after a layer with a bias: that has no gradient then but rounding, of which Adam makes steps like any other."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.BatchNorm1d(8), nn.Linear(8, 4))
    decoder = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.BatchNorm1d(8, momentum=0.3), nn.Linear(8, 6))
    posterior = Conditional(encoder, heads.Gaussian(2))
    return VAE(priors.VampPrior(posterior, torch.rand(10, 6), low=-9, high=9), posterior, Conditional(decoder, heads.Bernoulli(6)))


def normalised_images() -> VAE:
    """Batch normalisation of images, such as takes a single row too, with its variants."""
    torch.manual_seed(0)
    encoder = nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)),
        nn.Conv2d(1, 4, 2, bias=False),
        nn.BatchNorm2d(4, momentum=None),
        nn.Tanh(),
        nn.BatchNorm2d(4, affine=False),
        nn.Flatten(),
        nn.Linear(8, 4),
    )
    decoder = nn.Sequential(nn.Linear(2, 6), nn.Unflatten(1, (1, 2, 3)), nn.BatchNorm2d(1, track_running_stats=False), nn.Flatten())
    return VAE(priors.StandardNormal(2), Conditional(encoder, heads.Gaussian(2)), Conditional(decoder, heads.Bernoulli(6)))


def model(*extra: nn.Module, unused: bool = False) -> VAE:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(6, 8), *extra, nn.Tanh(), nn.Linear(8, 4))
    decoder = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 6))
    made = VAE(priors.StandardNormal(2), Conditional(encoder, heads.Gaussian(2)), Conditional(decoder, heads.Bernoulli(6)))
    if unused:
        made.extra = nn.Linear(3, 3)
    return made


class Breaking(nn.Module):
    """NaN for examples whose first pixel is not set, from the seventh pass in training on."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, h: Tensor) -> Tensor:
        if self.training:
            self.passes += 1
        return torch.where((self.passes < 7) | (h[:, :1] > -0.2), h, torch.nan)


class Drawing(nn.Module):
    """Draws from torch's global generator, as dropout does, and keeps it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[list[float]] = []

    def forward(self, h: Tensor) -> Tensor:
        if self.training:
            self.seen.append(torch.rand(2).tolist())
        return h


TRAINING = Training(epochs=3, batch_size=17, optimiser=ADAM, device="cpu", seed=5)
CASES: dict[str, Callable[[], tuple[VAE, dict[str, Any]]]] = {
    "ELBO": lambda: (model(), {"objective": ELBO(2), "training": TRAINING}),
    "ELBO, sharded": lambda: (model(), {"objective": ELBO(2), "training": replace(TRAINING, strategy="fsdp", devices=2)}),
    "IWAE, clipped": lambda: (model(), {"objective": IWAE(5), "training": replace(TRAINING, clip=0.1, batch_size=20)}),
    "stopped early": lambda: (
        model(unused=True),
        {"objective": ELBO(penalty=Beta(Linear(0.0, 1.0, 2))), "training": replace(TRAINING, epochs=40, patience=2)},
    ),
    "stopped early, sharded, averaged": lambda: (
        model(unused=True),
        {"training": replace(TRAINING, epochs=40, patience=2, ema=0.5, clip=0.1, strategy="fsdp", devices=2)},
    ),
    "several levels of paths": lambda: (model(), {"objective": DReG(3), "training": replace(TRAINING, epochs=1)}),
    "normalised": lambda: (normalised(), {"objective": ELBO(2), "training": replace(TRAINING, batch_size=20)}),
    "normalised images": lambda: (normalised_images(), {"training": TRAINING}),
    "normalised images, sharded": lambda: (normalised_images(), {"training": replace(TRAINING, strategy="fsdp", devices=2, epochs=2)}),
}
LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "rows": (lambda: nn.BatchNorm1d(3), (3,)),
    "rows of several values": (lambda: nn.BatchNorm1d(3, momentum=0.4, eps=0.1), (3, 4)),
    "images": (lambda: nn.BatchNorm2d(3, momentum=None), (3, 2, 2)),
    "volumes without weights": (lambda: nn.BatchNorm3d(3, affine=False), (3, 2, 1, 2)),
    "without averages": (lambda: nn.BatchNorm2d(3, track_running_stats=False), (3, 2, 1)),
    "frozen": (lambda: nn.BatchNorm1d(3).requires_grad_(False), (3,)),
}
ROWS_OF_LAYERS = 7


def several(settings: dict[str, Any]) -> dict[str, Any]:
    return settings | {"training": replace(settings["training"], devices=2)}


def alone(settings: dict[str, Any]) -> dict[str, Any]:
    return settings | {"training": replace(settings["training"], devices=1, strategy="ddp")}


def refused(settings: dict[str, Any], made: VAE | None = None) -> str:
    with pytest.raises((InputError, NonFiniteError)) as caught:
        quiet(made or model(), data(), **settings)
    return str(caught.value)


def differences(layer: nn.Module, shape: tuple[int, ...], cut: int) -> dict[str, float]:
    """How much a layer whose input is cut in two, ``cut`` rows and the rest, differs from the same layer with all of it."""
    torch.manual_seed(1)
    for p in layer.double().parameters():
        nn.init.normal_(p)
    whole, found = deepcopy(layer), {}
    number = int(os.environ["RANK"])
    rows = slice(0, cut) if number == 0 else slice(cut, ROWS_OF_LAYERS)
    weight = float(rows.start < rows.stop)
    rows = rows if weight else slice(0, 1)  # as `Several.share` does it
    with over_all(layer, lambda: weight):
        for turn in range(3):
            x, by = (torch.randn(ROWS_OF_LAYERS, *shape, dtype=torch.float64) for _ in range(2))
            x = (3 * x + 5 + turn).requires_grad_()
            part = x.detach()[rows].requires_grad_()
            if turn == 2:
                whole.eval()
                layer.eval()
            want, got = whole(x), layer(part)
            (want.sin() * by).sum().backward()
            (weight * (got.sin() * by[rows]).sum()).backward()
            found |= {f"{turn}: output": float((got - want[rows]).detach().abs().max())}
            found[f"{turn}: gradient"] = float((part.grad - weight * x.grad[rows]).abs().max())
        for name, p in layer.named_parameters():
            if p.grad is not None:
                torch.distributed.all_reduce(p.grad)
                found[f"gradient of {name}"] = float((p.grad - whole.get_parameter(name).grad).abs().max())
        found |= {name: float((b - whole.get_buffer(name)).abs().max()) for name, b in layer.named_buffers()}
    assert "forward" not in vars(layer)
    return found


def worker(folder: Path) -> None:
    """What each of two processes does. The first two are killed at step 10 of a run that goes on here, and two others take their place."""
    first = os.environ["RANK"] == "0"
    assert main(["train", str(folder / "mine.py"), "--out", str(folder / "disturbed"), "--resume"]) == 0
    for name, case in CASES.items():
        made, settings = case()
        if not first:  # what the first process begins with is what counts
            for p in made.parameters():
                nn.init.ones_(p)
        fitted = quiet(made, data(), **several(settings))
        assert type(next(made.parameters()).data) is Tensor
        if first:
            save_weights(made, folder / f"{name}.safetensors")
            (folder / f"{name}.json").write_text(json.dumps([fitted.history, fitted.step, fitted.best_step]))
    for name, made in (
        ("sharded", normalised_images()),
        ("whole", normalised_images()),
    ):  # each goes on from where the test's one process stopped
        settings = {"training": replace(TRAINING, devices=2, strategy="fsdp" if name == "sharded" else "ddp", ema=0.9)}
        quiet(made, data(), out=folder / f"from one, {name}", resume=True, **settings)
    quiet(normalised_images(), data(), training=replace(TRAINING, epochs=1, devices=2, strategy="fsdp", ema=0.9), out=folder / "to one")
    drawing = Drawing()
    quiet(model(drawing), data(), training=replace(TRAINING, epochs=1, devices=2))
    said = {"non-finite": refused({"training": replace(TRAINING, devices=2)}, model(Breaking()))}
    said |= {"three": refused({"training": replace(TRAINING, devices=3)}), "one": refused({"training": TRAINING})}
    layers = {f"{name}, {cut}": differences(make(), shape, cut) for name, (make, shape) in LAYERS.items() for cut in (5, ROWS_OF_LAYERS)}
    (folder / f"rank {os.environ['RANK']}.json").write_text(json.dumps([said, drawing.seen, layers]))
    recipe = str(folder / "mine.py")
    commands.train(recipe, out=folder / "undisturbed")
    os.environ["FAULT"] = "end 5"
    with pytest.raises(KeyboardInterrupt, match=r"interrupted after step 6 .*--resume --devices 2" if first else "after step 6"):
        commands.train(recipe, out=folder / "asked")
    commands.train(recipe, out=folder / "asked", resume=True)


MINE = """
import os, signal
from functools import partial
import torch
from test_distributed import ADAM, TRAINING, data, model
from dataclasses import replace
from vaekit import ELBO, Recipe
from vaekit.objectives import Schedule

class Fault(Schedule):
    def __call__(self, step):
        what, _, at = os.environ.get("FAULT", "").partition(" ")
        if at == str(step) and (what == "end" or os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"):
            if what in ("kill", "end") and os.environ["RANK"] == "1":
                os.kill(os.getpid(), signal.SIGKILL if what == "kill" else signal.SIGTERM)
            if what == "interrupt" and os.environ["RANK"] == "0":
                os.kill(os.getppid(), signal.SIGINT)
        return 1.0

    @property
    def settled(self):
        return 0

def run() -> Recipe:
    "Three epochs of four steps."
    return Recipe(model(torch.nn.Dropout(0.2)), data, ELBO(), replace(TRAINING, schedule=Fault(), checkpoint_minutes=0, ema=0.9))
"""


def torchrun(*words: str, fault: str = "") -> subprocess.CompletedProcess[str]:
    tests = Path(__file__).parent
    env = os.environ | {"PYTHONPATH": f"{tests.parent / 'src'}:{tests}", "OMP_NUM_THREADS": "1", "FAULT": fault}
    command = [sys.executable, *words]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            out, err = process.communicate(timeout=240)
        except subprocess.TimeoutExpired:
            process.terminate()  # which ends its processes too
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[subprocess.CompletedProcess[str]]]:
    """A folder with what two processes have left, and how the runs ended that left ``disturbed`` there: each start takes ten seconds, so
    that the one which is restarted after a kill does all the rest as well."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "mine.py").write_text(MINE)
    for name in ("sharded", "whole"):
        quiet(normalised_images(), data(), training=replace(TRAINING, epochs=1, ema=0.9), out=folder / f"from one, {name}")
    vaekit = ("-m", "vaekit", "train", str(folder / "mine.py"), "--out", str(folder / "disturbed"), "--devices", "2")
    interrupted = torchrun(*vaekit, fault="interrupt 3")
    killed = torchrun(*vaekit, "--resume", fault="kill 8")
    assert not (folder / "disturbed" / "model.safetensors").exists()
    elastic = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1")
    done = torchrun(*elastic, __file__, str(folder), fault="kill 10")
    assert done.returncode == 0, done.stderr
    return folder, [interrupted, killed]


@pytest.fixture(scope="module")
def folder(disturbed: tuple[Path, object]) -> Path:
    """What two processes have left."""
    return disturbed[0]


def same(got: VAE, want: VAE) -> None:
    for (name, a), b in zip(got.state_dict().items(), want.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=2e-6, msg=lambda text, name=name: f"{name}: {text}")


def same_rows(got: list[dict[str, float]], want: list[dict[str, float]]) -> None:
    assert [list(row) for row in got] == [list(row) for row in want]
    for row, other in zip(got, want, strict=True):
        for key in row.keys() - {"seconds"}:
            assert row[key] == pytest.approx(other[key], rel=2e-5, abs=1e-6), key


@pytest.mark.parametrize("name", CASES)
def test_two_processes_are_one(name: str, folder: Path) -> None:
    want, settings = CASES[name]()
    fitted = quiet(want, data(), **alone(settings))
    got, _ = CASES[name]()
    load_weights(got, folder / f"{name}.safetensors")
    history, step, best_step = json.loads((folder / f"{name}.json").read_text())
    assert (step, best_step) == (fitted.step, fitted.best_step)
    assert step < 160 or "early" not in name, "the case says nothing: it never stopped"
    same_rows(history, fitted.history)
    same(got, want)


def test_a_normalised_layer_of_two_parts_is_that_of_the_whole(folder: Path) -> None:
    """Outputs, gradients and averages, of parts of 5 and 2 rows, and of 7 and none; in evaluation too."""
    for rank in (0, 1):
        layers = json.loads((folder / f"rank {rank}.json").read_text())[2]
        assert len(layers) == 2 * len(LAYERS)
        for name, found in layers.items():
            assert len(found) >= 5 and max(found.values()) < 1e-10, (rank, name, found)


@pytest.mark.parametrize("name", ["sharded", "whole"])
def test_two_go_on_where_one_stopped(name: str, folder: Path) -> None:
    want = normalised_images()
    fitted = quiet(want, data(), training=replace(TRAINING, ema=0.9))
    got = normalised_images()
    load_weights(got, folder / f"from one, {name}" / "model.safetensors")
    same(got, want)
    same_rows(read_csv(folder / f"from one, {name}" / "metrics.csv"), fitted.history)


def test_one_goes_on_where_two_stopped(folder: Path) -> None:
    want, got = normalised_images(), normalised_images()
    fitted = quiet(want, data(), training=replace(TRAINING, ema=0.9))
    went_on = quiet(got, data(), training=replace(TRAINING, ema=0.9), out=folder / "to one", resume=True)
    same(got, want)
    same_rows(went_on.history, fitted.history)


def test_what_no_density_draws_differs_between_processes_and_steps(folder: Path) -> None:
    drawn = [tuple(pair) for rank in (0, 1) for pair in json.loads((folder / f"rank {rank}.json").read_text())[1]]
    assert len(drawn) == 2 * 4 == len(set(drawn))


def test_what_is_not_finite_is_reported_as_by_one_process(folder: Path) -> None:
    want = refused({"training": TRAINING}, model(Breaking()))
    for rank in (0, 1):
        assert json.loads((folder / f"rank {rank}.json").read_text())[0]["non-finite"] == want
    assert "step 6" in want and "of 17 examples (rows " in want


def test_the_number_of_processes_must_be_the_one_asked_for(folder: Path) -> None:
    said = json.loads((folder / "rank 1.json").read_text())[0]
    assert said["three"] == "devices=3 in one of the 2 processes that torchrun has started: ask for devices=2"
    assert said["one"] == "devices=1 in one of the 2 processes that torchrun has started: ask for devices=2"
    with pytest.raises(InputError, match="devices=2 needs 2 processes and this is one: .*torchrun --nproc-per-node 2 SCRIPT.py"):
        quiet(model(), data(), training=replace(TRAINING, devices=2))


def test_a_signal_to_one_process_ends_both_at_the_same_step(folder: Path) -> None:
    assert (folder / "asked" / "model.safetensors").read_bytes() == (folder / "undisturbed" / "model.safetensors").read_bytes()
    assert "resumed at step 6\n" in (folder / "asked" / "log.txt").read_text()


def test_a_run_that_is_interrupted_killed_and_killed_again_ends_as_one_left_alone(
    disturbed: tuple[Path, list[subprocess.CompletedProcess[str]]],
) -> None:
    folder, (interrupted, killed) = disturbed
    run = folder / "disturbed"
    resume = f"continue with: vaekit train {folder / 'mine.py'} --out {run} --resume --devices 2"

    lines = [line for line in interrupted.stderr.splitlines() if not line.startswith("epoch")]
    assert interrupted.returncode == 130 and len(lines) == 1, interrupted.stderr
    assert lines[0].startswith("vaekit: interrupted after step ") and lines[0].endswith(resume)
    assert 4 <= int(lines[0].split()[4]) < 12

    lines = [line for line in killed.stderr.splitlines() if not line.startswith("epoch")]
    assert killed.returncode == 1 and len(lines) == 1, killed.stderr
    assert lines[0].startswith("vaekit: rank 1 of 2 (process ") and lines[0].endswith(f"was killed by SIGKILL; {resume}")

    log = (run / "log.txt").read_text()
    assert "resumed at step 8\n" in log and "resumed at step 10\n" in log
    assert (run / "model.safetensors").read_bytes() == (folder / "undisturbed" / "model.safetensors").read_bytes()
    got, want = (read_csv(at / "metrics.csv") for at in (run, folder / "undisturbed"))
    assert [row | {"seconds": 0} for row in got] == [row | {"seconds": 0} for row in want]


def test_elastic_restart_begins_a_run_that_has_not_begun(folder: Path) -> None:
    """`--resume` alone would refuse a folder without a run; one command line must do for the first start and those that follow."""
    with pytest.raises(InputError, match="no run folder"):
        commands.train(str(folder / "mine.py"), out=folder / "nowhere", resume=True)


def test_the_command_line_starts_processes_only_for_what_can_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[tuple[list[str], int]] = []

    def start(words: list[str], devices: int) -> int:
        started.append((words, devices))
        return 3

    monkeypatch.setattr("vaekit.torchrun.start", start)
    flags = ["--no-compile", "--seed", "4", "--tensorboard", "--strategy", "fsdp", "--out", str(tmp_path)]
    assert main(["train", "digits", "--hidden", "8", "--devices", "2", *flags]) == 3
    ((words, devices),) = started
    assert devices == 2 and words[0] == "train" and words[-3:] == ["digits", "--hidden", "8"]
    assert sorted(words[1:-3]) == sorted(["--devices", "2", *flags])
    assert main(["train", "digits", "--hiden", "8", "--devices", "2"]) == 2
    assert main(["train", "digits", "--devices", "2", "--resume", "--out", str(tmp_path / "none")]) == 2
    assert len(started) == 1 and "no run folder" in capsys.readouterr().err


def test_whether_to_compile_is_kept_with_the_run(tmp_path: Path) -> None:
    run = commands.train("digits", {"epochs": 1, "hidden": 8}, out=tmp_path / "run", compile=False)
    assert open_run(run.path).config.compile is False and "--no-compile" in run.config.command
    commands.train("digits", out=run.path, resume=True)
    assert open_run(run.path).config.compile is False
    with pytest.raises(InputError, match="started with --compile False, and a resumed run cannot change it to True"):
        commands.train("digits", out=run.path, resume=True, compile=True)


def test_the_report_names_the_cause_and_not_its_victims() -> None:
    victim, killed = Ended(0, 10, 75, 3, "process 0 of 2 lost contact"), Ended(1, 11, -9, 5, "")
    assert told([victim, killed], 2, "again") == (1, "rank 1 of 2 (process 11) was killed by SIGKILL; continue with: again")
    assert told([victim._replace(status=-15), killed], 2, "")[1] == "rank 1 of 2 (process 11) was killed by SIGKILL"
    assert told([victim], 2, "") == (1, "rank 0 of 2 (process 10) lost contact with another process")
    refusal = Ended(1, 11, 2, 5, "there is no such file")
    assert told([victim, refusal, refusal], 2, "again") == (2, "there is no such file")
    assert told([Ended(1, 11, 1, 5, "")], 2, "") == (1, "rank 1 of 2 (process 11) ended with status 1")


REFUSED: dict[str, tuple[Callable[[], ELBO | Any], str]] = {
    "FreeBits": (lambda: ELBO(penalty=FreeBits(0.5)), "FreeBits does not promise"),
    "Capacity": (lambda: ELBO(penalty=Capacity(1.0, 1.0)), "Capacity does not promise"),
    "BetaTC": (lambda: BetaTC(52, 2.0), "BetaTC does not promise"),
    "NVIL": (lambda: NVIL(nn.Linear(6, 1)), "NVIL does not promise"),
    "RunningMean": (lambda: REINFORCE(2, baseline=RunningMean()), "RunningMean does not promise"),
    "a subclass": (lambda: type("Mine", (ELBO,), {})(), "Mine does not promise"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_objectives_that_compare_examples_are_refused(name: str) -> None:
    objective, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        check_divisible(model(), objective())


@pytest.mark.parametrize("objective", [ELBO(), IWAE(3), STL(), DReG(2), VIMCO(2), REINFORCE(2)])
def test_a_promise_holds(objective: Any) -> None:
    """The loss of an example does not change with those beside it. (Its noise would: it is drawn as zeros.)"""
    from vaekit import Batch, noise

    check_divisible(model(), objective)
    made, x = model(), torch.rand(6, 6, generator=torch.Generator().manual_seed(2)).round()
    eps = torch.randn(3, 6, 2, generator=torch.Generator().manual_seed(3))
    found = []
    for rows in (slice(0, 6), slice(2, 4)):
        with noise.drawn_by(lambda kind, shape, event_dim, like, rows=rows: eps[: shape[0], rows]):
            loss = objective(made, Batch(x[rows]), 0)
        values = [loss.surrogate, loss.bound, *loss.logs.values()]
        found.append(torch.stack(values)[:, 2:4] if rows.start == 0 else torch.stack(values))
    torch.testing.assert_close(*found)


def test_modules_that_compare_examples_are_refused() -> None:
    class Mine(nn.BatchNorm1d):
        pass

    for part in (Mine(8), nn.SyncBatchNorm(8), nn.InstanceNorm1d(8, track_running_stats=True)):
        with pytest.raises(InputError, match=rf"posterior.net.1 is {type(part).__name__}, .*BatchNorm1d.*devices=1"):
            check_divisible(model(part), ELBO())
    check_divisible(model(nn.GroupNorm(2, 8), nn.BatchNorm1d(8), nn.InstanceNorm1d(8)), ELBO())
    with pytest.raises(InputError, match=r"posterior.net.1 is a Codebook that follows averages"):
        check_divisible(model(Codebook(4, 8, decay=0.9)), ELBO())


def test_settings_are_checked() -> None:
    for wrong, message in (
        ({"devices": 0}, "devices=0: at least 1"),
        ({"strategy": "dpp", "devices": 2}, 'unknown strategy "dpp"; did you mean "ddp"'),
        ({"strategy": "fsdp"}, 'strategy "fsdp" divides a model over several processes and devices=1'),
        ({"batch_size": 2, "devices": 3}, "batch_size=2 cannot be divided over devices=3"),
        ({"device": "cuda:1", "devices": 2}, 'device "cuda:1" is one and devices=2'),
    ):
        with pytest.raises(InputError, match=message):
            Training(**wrong)


def test_the_gradient_of_uneven_parts_is_that_of_the_whole_mean() -> None:
    values = torch.tensor([1.0, 2.0, 3.0, 4.0, 50.0])
    parts = [Part(torch.arange(n, m), 5, 3) for n, m in ((0, 1), (1, 3), (3, 5))]
    assert sum(part.mean(values[part.own]) for part in parts) / 3 == values.mean()
    assert Part(torch.arange(1), 1, 2, weight=0.0).mean(values[:1]) == 0


if __name__ == "__main__":
    worker(Path(sys.argv[1]))
