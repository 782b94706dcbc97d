"""Several models at once against each of them alone: the same weights, rows and checkpoints, to float error; and sweeps as a person runs
them."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import signal
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from torch import Tensor, nn

from vaekit import ELBO, IWAE, VAE, Conditional, InputError, NonFiniteError, Objective, Training, commands, fit, heads, priors, viz
from vaekit.cli import main
from vaekit.data import binarise
from vaekit.data.core import DataSet, Split
from vaekit.objectives import Beta, FreeBits, Linear
from vaekit.runs import open_run
from vaekit.sweeps import rows
from vaekit.train import Checkpoints, Fitted, read_csv
from vaekit.train.alike import Comparison
from vaekit.train.memory import _of_the_container, available, fitting, needed
from vaekit.train.program import NotTogetherError, Recorded, recorded
from vaekit.train.stack import Cell
from vaekit.train.step import Step
from vaekit.train.together import fit_together

ROWS, BATCH, D = 70, 16, 12  # four full batches and one of six


def model(seed: int, *extra: nn.Module, px: nn.Module | None = None) -> VAE:
    torch.manual_seed(seed)
    # Adam would magnify the rounding of a bias before a normalisation, whose gradient is 0
    encoder = nn.Sequential(nn.Linear(D, 8, bias=not extra), *extra, nn.Tanh(), nn.Linear(8, 6))
    decoder = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, D))
    return VAE(priors.StandardNormal(3), Conditional(encoder, heads.Gaussian(3)), Conditional(decoder, px or heads.Bernoulli(D)))


def data() -> DataSet:
    x = torch.rand(ROWS + 20, D, generator=torch.Generator().manual_seed(1))
    return DataSet("toy", train=Split(x[:ROWS]), valid=Split(x[ROWS:]), test=Split(x[ROWS:]))


def grid(objective: Callable[[float], Objective], *extra: Callable[[], nn.Module], **settings: Any) -> list[Cell]:
    """3 seeds x 2 weights x 2 learning rates."""
    training = Training(**({"epochs": 3, "batch_size": BATCH, "device": "cpu"} | settings))
    return [
        Cell(
            model(seed, *(make() for make in extra), px=heads.GaussianFixed(D, 0.5)),
            objective(beta),
            replace(training, seed=seed, optimiser=partial(settings.get("optimiser", torch.optim.Adam), lr=lr)),
        )
        for seed in (0, 1, 2)
        for beta in (0.5, 4.0)
        for lr in (1e-2, 3e-3)
    ]


CASES: dict[str, tuple[Callable[[], list[Cell]], Callable[[], DataSet]]] = {
    "Gaussian, closed form": (lambda: grid(lambda beta: ELBO(closed_form=True, penalty=Beta(beta))), data),
    "IWAE": (lambda: grid(lambda beta: IWAE(3)), data),
    "batch normalisation": (
        lambda: grid(lambda beta: ELBO(2, closed_form=False, penalty=FreeBits(0.1, beta)), lambda: nn.BatchNorm1d(8)),
        data,
    ),
    "drawn anew at each read": (
        lambda: grid(lambda beta: ELBO(penalty=Beta(beta)), optimiser=partial(torch.optim.AdamW, weight_decay=0.1)),
        lambda: binarise(data()),
    ),
    "clipped, averaged, warmed up": (
        lambda: grid(lambda beta: ELBO(penalty=Beta(Linear(0, 1, 7))), clip=0.5, ema=0.9, schedule=Linear(1, 0.2, 12), repeat=2),
        data,
    ),
}


def closeness(cells: Sequence[Cell], alone: Sequence[Cell]) -> float:
    """The largest difference of two cells' weights, as a part of the largest weight of that tensor."""

    def differences(a: nn.Module, b: nn.Module) -> list[float]:
        return [
            float((t - u).abs().max() / u.abs().max().clamp(min=1e-2))
            for t, u in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
        ]

    return max(max(differences(one.model, other.model)) for one, other in zip(cells, alone, strict=True))


@pytest.mark.parametrize(("name", "size"), [*((name, None) for name in CASES), ("IWAE", 5), ("drawn anew at each read", 1)])
def test_each_model_is_the_one_that_it_would_be_alone(name: str, size: int | None) -> None:
    make, given = CASES[name]
    cells, alone = make(), make()
    if size == 1:  # models in turn, by a program that is the same for all
        cells = [replace(cell, training=replace(cell.training, compile=True)) for cell in cells]
    rows = [fit(c.model, given(), objective=c.objective, training=c.training, progress=False).history for c in alone]
    found = fit_together(cells, given(), size=size, progress=False)
    assert closeness(cells, alone) < 2e-5
    for i, history in enumerate(rows):
        assert not isinstance(found[i], NonFiniteError)
        for mine, theirs in zip(found[i].history, history, strict=True):
            assert list(mine) == list(theirs)
            assert {k: v for k, v in mine.items() if k != "seconds"} == pytest.approx(
                {k: v for k, v in theirs.items() if k != "seconds"}, rel=1e-4
            )
    assert max(closeness([a], [b]) for a, b in zip(cells[1:], cells, strict=False)) > 1e-2, "cells differ from each other"


def test_stacked_pictures_are_compiled_and_score_as_alone(tmp_path: Path) -> None:
    """Of a large Bernoulli event a program has a derivative of its own, which cannot be vectorised over models."""

    def cells() -> list[Cell]:
        found = []
        for seed in range(3):
            torch.manual_seed(seed)
            q, px = Conditional(nn.Linear(96, 4), heads.Gaussian(2)), Conditional(nn.Linear(2, 96), heads.Bernoulli(96))
            model = VAE(priors.StandardNormal(2), q, px)
            found.append(Cell(model, ELBO(), Training(2, BATCH, device="cpu", seed=seed, compile=True)))
        return found

    split = Split(torch.rand(64, 96, generator=torch.Generator().manual_seed(0)).round())
    stacked, alone, notes = cells(), cells(), []
    fit_together(stacked, split, size=3, note=notes.append, progress=False)
    for cell in alone:
        fit(cell.model, split, objective=cell.objective, training=replace(cell.training, compile=False), progress=False)
    assert closeness(stacked, alone) < 2e-5
    assert "compiled" in notes[0] and not any("not compiled" in note for note in notes), notes


def standardised(x: Tensor) -> Tensor:
    """By the batch: rows that are prepared with others' are others."""
    return (x - x.mean(0)) / x.std(0)


def test_a_batch_is_prepared_with_its_own_rows_alone() -> None:
    split = Split(torch.rand(ROWS, D, generator=torch.Generator().manual_seed(1)), prepare=standardised)
    stacked, alone = (grid(lambda beta: ELBO(penalty=Beta(beta)))[::4] for _ in range(2))
    fit_together(stacked, split, size=3, progress=False)
    for cell in alone:
        fit(cell.model, split, objective=cell.objective, training=cell.training, progress=False)
    assert closeness(stacked, alone) < 2e-5


class Averaging(nn.Module):
    """Puts a new tensor in the place of its buffer, or counts in a plain number."""

    mean: Tensor

    def __init__(self, counts: bool) -> None:
        super().__init__()
        self.counts, self.calls = counts, 0
        self.register_buffer("mean", torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        if self.counts:
            self.calls += 1
        else:
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return x


@pytest.mark.parametrize("counts", [False, True])
def test_what_changes_out_of_sight_is_not_stacked(counts: bool) -> None:
    cells = grid(lambda beta: ELBO(penalty=Beta(beta)), lambda: Averaging(counts))[:2]
    with pytest.raises(NotTogetherError, match="plain attributes"):
        fit_together(cells, data(), size=2, progress=False)


def test_a_tie_on_either_side_is_a_difference() -> None:
    def pair(tied: bool) -> nn.Module:
        first, second = nn.Linear(2, 2), nn.Linear(2, 2)
        return nn.Sequential(first, first if tied else second)

    assert Comparison().run(pair(False), pair(False)) is None and Comparison().run(pair(True), pair(True)) is None
    assert Comparison().run(pair(True), pair(False)) is not None
    assert Comparison().run(pair(False), pair(True)) is not None


class Killed(BaseException):
    """The process is gone: nothing catches this."""


def folders(cells: list[Cell], out: Path) -> list[Cell]:
    return [replace(cell, out=out / str(number)) for number, cell in enumerate(cells)]


def weights(out: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in sorted(out.glob("*/model.safetensors"))}


@pytest.mark.parametrize(("minutes", "saves"), [(1.0, 1), (1.0, 7), (0.0, 13)])
def test_a_killed_group_goes_on_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minutes: float, saves: int) -> None:
    def cells(out: str) -> list[Cell]:
        settings = {"checkpoint_minutes": minutes, "ema": 0.9, "schedule": Linear(1, 0.2, 12)}
        return folders(grid(lambda beta: ELBO(penalty=Beta(beta)), lambda: nn.BatchNorm1d(8), **settings)[::4], tmp_path / out)

    fit_together(cells("whole"), binarise(data()), progress=False)
    calls, save = iter(range(saves)), Checkpoints.save

    def dies(store: Checkpoints, *args: Any) -> Path:
        if next(calls, None) is None:  # between two members of a group: not all have this one
            raise Killed
        return save(store, *args)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Checkpoints, "save", dies)
        fit_together(cells("killed"), binarise(data()), progress=False)
    fit_together(cells("killed"), binarise(data()), resume=True, progress=False)
    assert len(weights(tmp_path / "whole")) == 3
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
    for number in range(3):
        rows = [read_csv(tmp_path / out / str(number) / "metrics.csv") for out in ("whole", "killed")]
        assert [{k: v for k, v in row.items() if k != "seconds"} for row in rows[0]] == [
            {k: v for k, v in row.items() if k != "seconds"} for row in rows[1]
        ]


def test_a_cell_is_an_ordinary_run(tmp_path: Path) -> None:
    """What a group has saved `fit` goes on from, and the other way round."""
    settings = {"epochs": 2}

    def cells(out: str, **settings: Any) -> list[Cell]:
        return folders(grid(lambda beta: ELBO(penalty=Beta(beta)), **settings)[:4], tmp_path / out)

    fit_together(cells("group", **settings), data(), progress=False)
    longer, whole = cells("group", epochs=4), cells("whole", epochs=4)
    fit(longer[3].model, data(), objective=longer[3].objective, training=longer[3].training, out=longer[3].out, resume=True, progress=False)
    fit(whole[3].model, data(), objective=whole[3].objective, training=whole[3].training, progress=False)
    assert closeness([longer[3]], [whole[3]]) < 2e-5

    for cell in cells("single", **settings):
        fit(cell.model, data(), objective=cell.objective, training=cell.training, out=cell.out, progress=False)
    longer = cells("single", epochs=4)
    found = fit_together(longer, data(), resume=True, progress=False)
    assert closeness([longer[3]], [whole[3]]) < 2e-5
    assert [row["epoch"] for row in ended(found[3]).history] == [1, 2, 3, 4]
    with pytest.raises(InputError, match="holds a run already"):
        fit_together(longer, data(), progress=False)


def ended(found: Fitted | NonFiniteError) -> Fitted:
    assert isinstance(found, Fitted)
    return found


def test_one_that_is_lost_does_not_disturb_the_others(tmp_path: Path) -> None:
    def cells(out: str) -> list[Cell]:
        made = grid(lambda beta: ELBO(penalty=Beta(beta)), epochs=4)[:4]
        wild = replace(made[1].training, optimiser=partial(torch.optim.Adam, lr=1e20))
        return folders([made[0], replace(made[1], training=wild), *made[2:]], tmp_path / out)

    ends: list[int] = []
    found = fit_together(cells("lost"), data(), done=lambda number, end: ends.append(number), progress=False)
    assert isinstance(found[1], NonFiniteError) and "a gradient became NaN or infinite" in str(found[1]) and ends == [0, 1, 2, 3]
    alone = cells("alone")
    for number in (0, 2, 3):
        cell = alone[number]
        fit(cell.model, data(), objective=cell.objective, training=cell.training, progress=False)
        assert closeness([Cell(ended(found[number]).model, ELBO(), cell.training)], [cell]) < 2e-5
    assert weights(tmp_path / "lost").keys() == {"0", "2", "3"}
    with pytest.raises(NonFiniteError, match=r"step \d"):  # alone, from its last checkpoint, it says what was wrong
        cell = cells("lost")[1]
        fit(cell.model, data(), objective=cell.objective, training=cell.training, out=cell.out, resume=True, progress=False)


def flipped(x: Tensor) -> Tensor:
    return torch.bernoulli(x)


def drawn() -> DataSet:
    given = data()
    return replace(given, train=Split(given.train.x, prepare=flipped))


REFUSED: dict[str, tuple[Callable[[], list[Cell]], Callable[[], DataSet], str]] = {
    "dropout": (lambda: grid(lambda beta: ELBO(), lambda: nn.Dropout(0.3)), data, "other means than vaekit.noise"),
    "data drawn elsewhere": (lambda: grid(lambda beta: ELBO()), drawn, "other means than vaekit.noise"),
    "SGD": (lambda: grid(lambda beta: ELBO(), optimiser=torch.optim.SGD), data, "SGD as it is set, is neither plain Adam"),
    "patience": (lambda: grid(lambda beta: ELBO(), patience=2), data, "patience"),
    "another k": (lambda: grid(lambda beta: ELBO(int(beta) + 1)), data, "not alike"),
    "another schedule": (lambda: grid(lambda beta: ELBO(penalty=Beta(Linear(0, beta, 5)))), data, "not alike"),
    "float64": (lambda: grid(lambda beta: ELBO(), precision="64-true"), data, "float64"),
    "data-dependent": (lambda: grid(lambda beta: ELBO(), Branch), data, "stacked, they cannot be computed"),
}


class Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if bool(x.mean() > 0) else 2 * x


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_stacked_is_refused_before_anything_is_written(name: str, tmp_path: Path) -> None:
    make, given, why = REFUSED[name]
    with pytest.raises(NotTogetherError, match=why):
        fit_together(folders(make(), tmp_path), given(), progress=False)
    assert not list(tmp_path.iterdir())


RECIPE = """
import numpy as np
from functools import partial
from torch.optim import Adam
from vaekit import ELBO, VAE, Conditional, Recipe, Training, data, heads, nn, priors
from vaekit.objectives import Beta

def table(beta: float = 1.0, lr: float = 1e-2, widths: tuple[int, ...] = (8,), epochs: int = 2) -> Recipe:
    x = np.random.default_rng(0).normal(size=(60, 6))
    q, px = heads.Gaussian(2), heads.GaussianShared(6)
    model = VAE(
        priors.StandardNormal(2),
        Conditional(nn.mlp(6, list(widths), q.features), q),
        Conditional(nn.mlp(2, list(widths), px.features), px),
    )
    training = Training(epochs=epochs, batch_size=16, optimiser=partial(Adam, lr=lr), device="cpu")
    return Recipe(model, lambda: data.arrays(x, valid=0.2), ELBO(penalty=Beta(beta)), training)
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "mine.py"
    file.write_text(RECIPE)
    return file


def last(run: Path) -> dict[str, float]:
    return {name: value for name, value in read_csv(run / "metrics.csv")[-1].items() if name != "seconds"}


def test_a_sweep_on_the_command_line(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "mine.py", "--beta", "1,4", "--seed", "0..2"]) == 0
    folder = Path("sweeps/mine-1")
    shown = capsys.readouterr().out
    assert "next: vaekit evaluate sweeps/mine-1/beta-1_seed-0 --trust" in shown
    assert "6 cells by one program, 6 at once" in (folder / "log.txt").read_text()

    assert main(["train", "mine.py", "--beta", "4", "--seed", "2", "--out", "alone"]) == 0
    assert last(folder / "beta-4_seed-2") == pytest.approx(last(Path("alone")), rel=1e-5)
    assert main(["evaluate", str(folder / "beta-4_seed-2"), "--trust", "--samples", "5"]) == 0
    runs = [open_run(folder / f"beta-4_seed-{seed}") for seed in (0, 1, 2)]
    assert [run.config.seed for run in runs] == [0, 1, 2] and {run.config.arguments["beta"] for run in runs} == {4.0}
    assert runs[0].config.end == {"epochs": 2, "planned": 2, "best": 2, "kept": 2} and runs[0].config.state == "finished"

    with (folder / "table.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [(row["beta"], row["n"], row["failed"]) for row in table] == [("1.0", "3", "0"), ("4.0", "3", "0")]
    bounds = [last(run.path)["valid/bound"] for run in runs]
    assert float(table[1]["valid/bound"]) == pytest.approx(statistics.fmean(bounds), rel=1e-12)
    assert float(table[1]["valid/bound_se"]) == pytest.approx(statistics.stdev(bounds) / 3**0.5, rel=1e-9)
    assert (folder / "table.txt").read_text() in shown

    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/model.safetensors")}
    assert main(["sweep", "mine.py", "--out", str(folder), "--resume"]) == 0  # nothing is left to do
    assert before == {path: path.stat().st_mtime_ns for path in folder.glob("*/model.safetensors")}


def test_a_sweep_that_was_killed_goes_on(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells of three groups, of which the second is cut off; a failed cell is said at the end, and again."""
    flags = {"widths": ((8,), (4, 4)), "lr": (1e-2, 1e20)}
    whole = commands.sweep("mine.py", flags, seeds=(0, 1), out="whole")
    assert set(whole.failed) == {f"widths-{w}_lr-1e+20_seed-{s}" for w in ("8", "4,4") for s in (0, 1)}
    assert all("step" in why for why in whole.failed.values())
    calls, save = iter(range(14)), Checkpoints.save

    def dies(store: Checkpoints, *args: Any) -> Path:
        if next(calls, None) is None:
            raise Killed
        return save(store, *args)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Checkpoints, "save", dies)
        commands.sweep("mine.py", flags, seeds=(0, 1), out="killed")
    assert 0 < len(weights(Path("killed"))) < len(weights(Path("whole"))) == 4
    resumed = commands.sweep("mine.py", out="killed", resume=True)
    assert weights(Path("killed")) == weights(Path("whole"))
    assert resumed.failed.keys() == whole.failed.keys()
    assert Path("killed/table.csv").read_text() == Path("whole/table.csv").read_text()
    assert [(row.n, row.failed) for row in rows(resumed)] == [(2, 0), (0, 2), (2, 0), (0, 2)]
    assert main(["sweep", "mine.py", "--out", "killed", "--resume"]) == 1


def test_ctrl_c_says_the_line_that_goes_on(recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("vaekit.train.tile.Tile._look", lambda tile: os.kill(os.getpid(), signal.SIGINT))
        assert main(["sweep", "mine.py", "--seed", "0..1", "--epochs", "3", "--out", "stopped"]) == 130
    assert "continue with: vaekit sweep mine.py --out stopped --resume" in capsys.readouterr().err
    assert main(["sweep", "mine.py", "--out", "stopped", "--resume"]) == 0
    assert main(["sweep", "mine.py", "--seed", "0..1", "--epochs", "3", "--out", "whole"]) == 0
    assert weights(Path("stopped")) == weights(Path("whole")) != {}


def test_a_path_with_commas_is_one_table(recipe: Path) -> None:
    path = recipe.parent / "a,b" / "x,y.csv"
    path.parent.mkdir()
    path.write_text("u,v\n" + "".join(f"{n % 7 / 3},{n % 11 / 5}\n" for n in range(60)))
    assert main(["sweep", str(path), "--latent", "1,2", "--epochs", "1", "--out", "table"]) == 0
    arguments = [open_run(run).config.arguments for run in sorted(Path("table").glob("latent-*"))]
    assert [one["path"] for one in arguments] == [str(path)] * 2
    assert main(["sweep", str(path), "--path", "other.csv"]) == 2


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--bta", "1,2"], 'unknown flag --bta; did you mean "--beta"?'),
        (["--beta", "1,two"], '--beta takes a number, not "two"'),
        (["--beta", "1..4"], "a range is first..last in whole numbers"),
        (["--seed", "9..0"], "from the smaller to the larger number"),
        (["--seed", "1,1"], "1 is there twice"),
        (["--seed", "-1"], "a seed is a whole number from 0"),
        (["--epochs", "1..200", "--seed", "0..99"], "these flags make 20000 cells"),
        (["--epochs", "0,1"], "epochs=0: at least 1 is needed"),
        (["--resume"], "--resume needs to know which sweep"),
        (["--resume", "--out", "."], "is no sweep"),
    ],
)
def test_what_is_asked_wrongly_is_one_line(words: list[str], why: str, recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "mine.py", *words]) == 2
    error = capsys.readouterr().err
    assert why in error and error.count("\n") == 1
    assert not Path("sweeps").exists()


def test_a_resumed_sweep_keeps_to_what_was_trained_at_once(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Five cells at once in one product round otherwise than two and three: a resume with other memory still ends with the same bits."""
    monkeypatch.setattr("vaekit.train.together.fitting", lambda *given: (3, "a reckoning"))
    assert main(["sweep", "mine.py", "--seed", "0..4", "--out", "whole"]) == 0
    log = Path("whole/log.txt").read_text()
    assert "5 cells by one program, 3 at once (more do not fit into half of the memory: a reckoning);" in log
    calls, save = iter(range(9)), Checkpoints.save

    def dies(store: Checkpoints, *args: Any) -> Path:
        if next(calls, None) is None:
            raise Killed
        return save(store, *args)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Checkpoints, "save", dies)
        main(["sweep", "mine.py", "--seed", "0..4", "--out", "killed"])
    monkeypatch.setattr("vaekit.train.together.fitting", lambda *given: (5, ""))
    assert main(["sweep", "mine.py", "--out", "killed", "--resume"]) == 0
    assert Path("killed/log.txt").read_text().count("3 at once") == 2
    assert weights(Path("killed")) == weights(Path("whole")) != {}
    assert json.loads(Path("killed/seed-0/together.json").read_text()) == {"cells": [f"seed-{n}" for n in range(5)], "at_once": 3}

    assert main(["sweep", "mine.py", "--seed", "0..4", "--at-once", "2", "--out", "asked"]) == 0
    assert json.loads(Path("asked/sweep.json").read_text())["at_once"] == 2
    assert "--at-once=2" in json.loads(Path("asked/sweep.json").read_text())["command"]
    assert "5 cells by one program, 2 at once;" in Path("asked/log.txt").read_text(), "what was asked is not bounded"
    capsys.readouterr()
    for folder in ("asked", "whole"):
        assert main(["sweep", "mine.py", "--at-once", "4", "--out", folder, "--resume"]) == 2
        assert f"{folder} was started with other values of --at-once: leave the flag out" in capsys.readouterr().err


def test_a_start_that_was_killed_is_begun_again_or_answered(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """After each of the first files."""
    commands.sweep("mine.py", {"widths": ((8,), (4, 4))}, seeds=(0, 1), out="whole")
    begun = json.loads(Path("whole/sweep.json").read_text())

    def left(*names: str) -> Path:
        folder = Path("left")
        shutil.rmtree(folder, ignore_errors=True)
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(Path("whole") / name, folder / name)
        for run in folder.glob("*/run.json"):
            run.write_text(run.read_text().replace('"finished"', '"training"'))
        return folder

    cells = [f"widths-{widths}_seed-{seed}" for widths in ("8", "4,4") for seed in (0, 1)]
    start = ["sweep.json"]
    for names in (
        start,
        [*start, "recipe.py"],
        [*start, "recipe.py", f"{cells[0]}/recipe.py"],
        [*start, "recipe.py", f"{cells[0]}/recipe.py", f"{cells[0]}/run.json", f"{cells[1]}/recipe.py"],
        [*start, "recipe.py", *(f"{cell}/{name}" for cell in cells[:2] for name in ("recipe.py", "run.json"))],
        [*start, "recipe.py", *(f"{cell}/{name}" for cell in cells[:2] for name in ("recipe.py", "run.json")), f"{cells[0]}/together.json"],
    ):
        folder = left(*names)
        assert main(["sweep", "mine.py", "--out", "left"]) == 2, "as a new sweep"
        assert "left already holds something, and a run never overwrites: add --resume" in capsys.readouterr().err
        assert main(["sweep", "mine.py", "--out", "left", "--resume"]) == 0, names
        assert weights(folder) == weights(Path("whole")) and len(weights(folder)) == 4
        assert (folder / "recipe.py").read_bytes() == recipe.read_bytes()
    shutil.rmtree("left")
    Path("left").mkdir()
    (Path("left") / ".sweep.json.12.tmp").write_text("{")
    assert main(["sweep", "mine.py", "--out", "left", "--resume"]) == 2
    assert "it has no sweep.json; without --resume one is started" in capsys.readouterr().err
    assert main(["sweep", "mine.py", "--widths", "8/4,4", "--seed", "0,1", "--out", "left"]) == 0
    assert json.loads(Path("left/sweep.json").read_text())["arguments"] == begun["arguments"]

    for lost, why in (
        ("recipe.py", "whole has lost recipe.py, the copy of "),
        (f"{cells[0]}/run.json", f"{cells[0]} has lost its run.json and holds checkpoints: put it back"),
    ):
        kept = Path("whole", lost).read_bytes()
        Path("whole", lost).unlink()
        capsys.readouterr()
        assert main(["sweep", "mine.py", "--out", "whole", "--resume"]) == 2
        assert why in capsys.readouterr().err
        Path("whole", lost).write_bytes(kept)
    note = Path("whole", cells[0], "together.json")
    for text, why in (("{", "is damaged"), ('{"cells": ["other"], "at_once": 2}', "notes of cells trained together that are not its own")):
        note.write_text(text)
        assert main(["sweep", "mine.py", "--out", "whole", "--resume"]) == 2
        assert why in capsys.readouterr().err


def test_the_memory_of_a_model_is_counted() -> None:
    """Weights, gradients, two averages and the update; what is kept for the backward pass grows as the batch."""
    q, px = Conditional(nn.Linear(D, 6), heads.Gaussian(3)), Conditional(nn.Linear(3, D), heads.Bernoulli(D))
    step = Step(VAE(priors.StandardNormal(3), q, px), ELBO())
    weights, split, training = 12 * 6 + 6 + 3 * 12 + 12, data().train, Training(1, BATCH, device="cpu")

    def seen(rows: int) -> Recorded:
        return recorded(step, split, training, torch.arange(rows), 0)

    kept = [seen(rows).kept for rows in (8, 16, 32)]
    assert kept[2] - kept[1] == 2 * (kept[1] - kept[0]) > 2 * 8 * 4 * (12 + 3), "proportional to the batch; x and z at least"
    buffers = 4 * 3  # of the prior
    assert needed(step, seen(16), training) == 5 * 4 * weights + buffers + kept[1]
    assert needed(step, seen(16), replace(training, ema=0.9)) == 6 * 4 * weights + 2 * buffers + kept[1]
    each = needed(step, seen(16), training)
    with pytest.MonkeyPatch.context() as patch:
        for free, count in ((each, 1), (20 * each, 10), (None, None)):
            patch.setattr("vaekit.train.memory.available", lambda device, free=free: free)
            assert fitting(step, seen(16), training, torch.device("cpu"))[0] == count


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="memory is known on Linux and of a GPU")
def test_the_available_memory_is_the_systems_or_the_containers(tmp_path: Path) -> None:
    free = available(torch.device("cpu"))
    assert free is not None and 2**20 < free < 2**50
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 600\ninactive_file 50\n")
    assert _of_the_container(tmp_path) == 350
    (tmp_path / "memory.max").write_text("max\n")
    assert _of_the_container(tmp_path) is None and _of_the_container(tmp_path / "none") is None


def test_the_figure_shows_each_mean_with_its_error() -> None:
    means, errors = [[-3.0, -2.0, math.nan], [-4.0, -3.5, -3.0]], [[0.5, math.nan, math.nan], [0.1, 0.2, 0.3]]
    figure = viz.settings([1.0, 2.0, 40.0], {"valid/bound": (means, errors)}, flag="beta", lines=["k 1", "k 2"], title="toy")
    (axes,) = figure.axes
    assert axes.get_xscale() == "log" and axes.get_xlabel() == "beta" and axes.get_ylabel() == "valid/bound"
    lines = [container.lines for container in axes.containers]
    assert [line[0].get_xydata().tolist() for line in lines] == [[[1, -3], [2, -2]], [[1, -4], [2, -3.5], [40, -3]]]
    segments = lines[1][2][0].get_segments()
    assert [pytest.approx([-4.1, -3.9]), pytest.approx([-3.7, -3.3]), pytest.approx([-3.3, -2.7])] == [list(s[:, 1]) for s in segments]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["k 1", "k 2"]
    many = viz.settings(
        [*range(1, 21), 1000], {"valid/bound": ([[0.0] * 21], [[0.0] * 21])}, flag="k", lines=[""], title="toy", unit="nats"
    )
    assert many.axes[0].get_ylabel() == "valid/bound (nats)"
    FigureCanvasAgg(many).draw()
    boxes = [label.get_window_extent() for label in many.axes[0].get_xticklabels() if label.get_text()]
    assert len(boxes) > 5 and all(a.x1 < b.x0 for a, b in pairwise(boxes))
    with pytest.raises(InputError, match=r"\[2, 3\]"):
        viz.settings([1, 2, 3], {"valid/bound": (means[:1], errors)}, flag="beta", lines=["k 1", "k 2"], title="toy")
