"""Where the rows of a run go: one row of named numbers an epoch."""

from __future__ import annotations

import abc
import csv
import io
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vaekit.errors import InputError
from vaekit.files import explained, write_bytes

__all__ = ["CSV", "Logger", "TensorBoard", "TextLog", "read_csv", "row_line"]

Row = Mapping[str, float]


class Logger(abc.ABC):
    """Receives each epoch's row. Implementing a Logger: write ``begin``, ``log`` and ``close``."""

    @abc.abstractmethod
    def begin(self, step: int) -> None:
        """Before the first row: the run is at this step, 0 for a new one. Rows of later steps, which a killed run left, go."""

    @abc.abstractmethod
    def log(self, row: Row) -> None:
        """An epoch's row: epoch, step and what was measured."""

    def note(self, text: str) -> None:  # noqa: B027
        """A remark on how the run goes; only a diary keeps it."""

    @abc.abstractmethod
    def close(self) -> None:
        """After the last row, or on the way out of an error."""


class CSV(Logger):
    """``metrics.csv``: a line per row, durable when `log` returns. A number is written so that reading it gives the same bits."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns: list[str] = []

    def begin(self, step: int) -> None:
        self._write([row for row in read_csv(self.path) if row["step"] <= step] if step > 0 else [])

    def log(self, row: Row) -> None:
        if set(row) <= set(self.columns):
            with explained(self.path), open(self.path, "a", encoding="utf-8", newline="") as file:
                file.write(_lines([row], self.columns))
                file.flush()
                os.fsync(file.fileno())
        else:  # a column that was not there before: the header changes, and with it the file
            self._write([*read_csv(self.path), row])

    def close(self) -> None: ...

    def _write(self, rows: Sequence[Row]) -> None:
        self.columns = list(dict.fromkeys(name for row in rows for name in row))
        header = ",".join(self.columns) + "\n" if self.columns else ""
        write_bytes(self.path, (header + _lines(rows, self.columns)).encode())


def read_csv(path: Path) -> list[dict[str, float]]:
    """The rows of a metrics file, whole numbers as int; [] where there is none. A torn last line is left out.

    Raises:
        InputError: another file than `CSV` writes.
    """
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    whole = text[: text.rfind("\n") + 1]  # a line without its end was cut by a kill
    rows = csv.DictReader(io.StringIO(whole))
    try:
        found = [{name: _number(cell) for name, cell in row.items() if cell} for row in rows]
    except (ValueError, AttributeError):  # no number, or a line with more cells than the header
        found = [{}]
    if not all("step" in row for row in found):
        raise InputError(f"{path} is no metrics file of vaekit: move it away to go on without it")
    return found


def _number(cell: str) -> float:
    return int(cell) if cell.lstrip("-").isdigit() else float(cell)


def _lines(rows: Sequence[Row], columns: Sequence[str]) -> str:
    return "".join(",".join(repr(row[name]) if name in row else "" for name in columns) + "\n" for row in rows)


class TextLog(Logger):
    """``log.txt``: a readable line per row, with the time. It is a diary: what a killed run wrote stays."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self, step: int) -> None:
        self._line(f"resumed at step {step}" if step > 0 else "started")

    def log(self, row: Row) -> None:
        self._line(row_line(row))

    def note(self, text: str) -> None:
        self._line(text)

    def close(self) -> None: ...

    def _line(self, text: str) -> None:
        with explained(self.path), open(self.path, "a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}\n")


class TensorBoard(Logger):
    """Event files for TensorBoard, in ``folder``.

    Raises:
        InputError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError("TensorBoard is not installed: pip install 'vaekit[tensorboard]', or train without it") from error
        self.folder = folder
        self._make = SummaryWriter
        self._writer: Any = None

    def begin(self, step: int) -> None:
        self._writer = self._make(str(self.folder), purge_step=step + 1 if step > 0 else None)

    def log(self, row: Row) -> None:
        for name, value in row.items():
            if name != "step":
                self._writer.add_scalar(name, value, row["step"])
        self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def row_line(row: Row, epochs: int | None = None) -> str:
    """A row for people, in nats, of so many ``epochs``: ``epoch 3/10  step 1407  train/bound -105.21  valid/bound -106.30  12 s``."""
    of = "" if epochs is None else f"/{epochs}"
    shown = [name for name in ("train/bound", "valid/bound") if name in row] or ["train/surrogate"]
    terms = "  ".join(f"{name} {row[name]:.2f}" for name in shown)
    return f"epoch {row['epoch']}{of}  step {row['step']}  {terms}  {row['seconds']:.0f} s"
