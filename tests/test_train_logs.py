"""Rows of numbers: the CSV gives back the same bits, TensorBoard holds them, and stderr gets a bar or lines."""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from vaekit import VAE, Conditional, InputError, Training, fit, heads, priors
from vaekit.data.core import DataSet, Split
from vaekit.train import CSV, Logger, TensorBoard, TextLog, read_csv
from vaekit.train.progress import Bar, Lines, Silent, progress_for

ROWS = [{"epoch": e, "step": 10 * e, "train/bound": -math.pi / e, "seconds": 0.1 * e} for e in (1, 2, 3)]


def logged(path: Path, rows: Any = ROWS) -> CSV:
    log = CSV(path)
    log.begin(0)
    for row in rows:
        log.log(row)
    return log


def test_csv_gives_back_the_same_numbers(tmp_path: Path) -> None:
    odd = [
        *ROWS,
        {"epoch": 4, "step": 40, "train/bound": float("nan"), "seconds": 1e-300},
        {"epoch": 5, "step": 50, "train/bound": -math.inf, "seconds": 1e22},
    ]
    logged(tmp_path / "m.csv", odd)
    found = read_csv(tmp_path / "m.csv")
    assert [repr(row) for row in found] == [repr(row) for row in odd]
    assert (tmp_path / "m.csv").read_text().splitlines()[0] == "epoch,step,train/bound,seconds"


def test_csv_takes_new_columns_and_missing_ones(tmp_path: Path) -> None:
    rows = [ROWS[0], ROWS[1] | {"valid/bound": -2.0}, ROWS[2]]
    logged(tmp_path / "m.csv", rows)
    assert read_csv(tmp_path / "m.csv") == rows


def test_csv_forgets_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    logged(tmp_path / "m.csv")
    with open(tmp_path / "m.csv", "a") as file:
        file.write("4,20,-0.")  # torn: a number, but not the one that was meant
    log = CSV(tmp_path / "m.csv")
    log.begin(20)
    assert read_csv(tmp_path / "m.csv") == ROWS[:2]
    log.log(ROWS[2])
    assert read_csv(tmp_path / "m.csv") == ROWS
    CSV(tmp_path / "m.csv").begin(0)
    assert read_csv(tmp_path / "m.csv") == []


def test_csv_of_another_kind_is_not_taken(tmp_path: Path) -> None:
    for text in ("a,b\n1,2\n", "step\nx\n", "step\n1,2,3\n"):
        (tmp_path / "m.csv").write_text(text)
        with pytest.raises(InputError, match="is no metrics file of vaekit: move it away"):
            read_csv(tmp_path / "m.csv")


def test_tensorboard_holds_the_rows_and_purges_later_ones(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for start, rows in ((0, ROWS), (20, [ROWS[2] | {"train/bound": -7.0}])):
        log = TensorBoard(tmp_path)
        log.begin(start)
        for row in rows:
            log.log(row)
        log.close()
    events = accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    scalars = {event.step: event.value for event in events.Scalars("train/bound")}
    assert scalars == pytest.approx({10: -math.pi, 20: -math.pi / 2, 30: -7.0})


def test_tensorboard_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match=r"pip install 'vaekit\[tensorboard\]'"):
        TensorBoard(tmp_path)


def test_text_log(tmp_path: Path) -> None:
    log = TextLog(tmp_path / "log.txt")
    log.begin(0)
    log.log(ROWS[0])
    log.begin(10)
    text = (tmp_path / "log.txt").read_text()
    assert "started" in text and "epoch 1  step 10  train/bound -3.14  0 s" in text and "resumed at step 10" in text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def model() -> VAE:
    torch.manual_seed(0)
    return VAE(priors.StandardNormal(2), Conditional(nn.Linear(3, 4), heads.Gaussian(2)), Conditional(nn.Linear(2, 6), heads.Gaussian(3)))


def data() -> DataSet:
    x = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    return DataSet("toy", train=Split(x[:8]), test=Split(x[8:10]), valid=Split(x[10:]))


def test_progress_fits_where_stderr_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    make: Callable[..., Any] = partial(progress_for, epochs=2, steps=8, start=0)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert isinstance(make(show=True), Lines) and isinstance(make(show=False), Silent)
    monkeypatch.setattr(sys, "stderr", Terminal())
    bar = make(show=True)
    assert isinstance(bar, Bar)
    bar.close()


def test_lines_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    fit(model(), data(), training=Training(2, 4))
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 2
    assert err.splitlines()[1].startswith("epoch 2/2  step 4  train/bound -") and "valid/bound -" in err
    fit(model(), data(), training=Training(2, 4), progress=False)
    assert capsys.readouterr() == ("", "")


def test_short_epochs_share_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    fit(model(), data(), training=Training(300, 4))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) < 100 and lines[0].startswith("epoch 1/300") and lines[-1].startswith("epoch 300/300")
    monkeypatch.setattr(Lines, "least", 0.0)
    fit(model(), data(), training=Training(5, 4))
    assert [line.split("  ")[0] for line in capsys.readouterr().err.splitlines()] == [f"epoch {n}/5" for n in range(1, 6)]


def test_long_epochs_get_lines_in_between(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lines, "interval", 0.0)
    fit(model(), data(), training=Training(1, 2))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5 and lines[0].startswith("epoch 1/1  step 1/4  train/bound -")


def test_one_bar_in_a_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(Bar, "interval", 0.0)
    fit(model(), data(), training=Training(1, 4), out=tmp_path)
    terminal.truncate(0)
    fit(model(), data(), training=Training(2, 4), out=tmp_path, resume=True)
    text = terminal.getvalue()
    assert "epoch 2/2" in text and "4/4" in text and "bound=-" in text and "valid=-" in text and "step/s" in text
    assert text.count("\n") == 1  # one bar for the whole run, closed at its end


def test_fit_writes_its_files_and_feeds_other_loggers(tmp_path: Path) -> None:
    class Memory(Logger):
        def __init__(self) -> None:
            self.rows: list[Any] = []
            self.calls: list[str] = []

        def begin(self, step: int) -> None:
            self.calls.append(f"begin {step}")

        def log(self, row: Any) -> None:
            self.rows.append(dict(row))

        def close(self) -> None:
            self.calls.append("close")

    memory = Memory()
    fitted = fit(model(), data(), training=Training(2, 4), out=tmp_path, loggers=[memory], progress=False)
    assert memory.rows == fitted.history == read_csv(tmp_path / "metrics.csv") and memory.calls == ["begin 0", "close"]
    assert {p.name for p in tmp_path.iterdir()} == {".lock", "checkpoints", "log.txt", "metrics.csv", "model.safetensors"}
    wanted = {
        "train/surrogate",
        "train/bound",
        "train/log_px",
        "train/rate_0",
        "train/grad_norm",
        "train/lr",
        "valid/bound",
        "valid/log_px",
    }
    assert wanted <= set(fitted.history[0])
    assert fitted.history[0]["train/bound"] == pytest.approx(fitted.history[0]["train/log_px"] - fitted.history[0]["train/rate_0"])


def test_nothing_of_lightning_is_heard(tmp_path: Path) -> None:
    import subprocess

    code = (
        "import torch, warnings; warnings.simplefilter('default')\n"
        "from vaekit import VAE, Conditional, Training, fit, heads, priors\nfrom vaekit.data.core import Split\n"
        "q = Conditional(torch.nn.Linear(3, 4), heads.Gaussian(2))\npx = Conditional(torch.nn.Linear(2, 6), heads.Gaussian(3))\n"
        "m = VAE(priors.StandardNormal(2), q, px)\n"
        "fit(m, Split(torch.randn(8, 3)), training=Training(1, 4), progress=False)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize("make", [CSV, TextLog])
def test_a_full_disk_is_one_line(make: Callable[[Path], Logger]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    log = make(Path("/dev/full"))
    if isinstance(log, CSV):
        log.columns = list(ROWS[0])
    with pytest.raises(InputError, match="no space left to write /dev/full"):
        log.log(ROWS[0])
