"""A run and the operating system: one process per folder, and an orderly end when a signal asks for one."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from vaekit.errors import InputError
from vaekit.files import explained

__all__ = ["Interrupted", "Stop", "interruptible", "locked"]


class Interrupted(KeyboardInterrupt):
    """Training was interrupted (Ctrl-C or SIGTERM) and ended in order, after ``step`` steps.

    Attributes:
        step: steps done.
        path: the checkpoint to continue from; None where the run has no folder.
    """

    def __init__(self, step: int, path: Path | None) -> None:
        kept = "nothing saved: the run has no folder" if path is None else f"saved as {path}"
        super().__init__(f"interrupted after step {step} ({kept})")
        self.step = step
        self.path = path


class Stop:
    """Whether a signal has asked the run to end."""

    asked = False


@contextmanager
def interruptible() -> Iterator[Stop]:
    """Turn the first Ctrl-C or SIGTERM into a request to end after the current step. A second one acts at once, as if nothing were here."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():  # only there may a program listen to signals
        yield stop
        return
    # None stands for a handler that was not set from Python
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: FrameType | None) -> None:
        stop.asked = True
        for other, handler in before.items():
            signal.signal(other, handler)

    for number in before:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which the system releases however the process ends.

    Raises:
        InputError: another process holds it, or it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"cannot write into {folder}: it is a file; choose another folder")
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / ".lock", "a+b")  # noqa: SIM115 - closed by the with below
    with file:
        try:
            _lock(file.fileno())
        except OSError as error:
            raise InputError(f"another process is training into {folder}: wait until it ends, or choose another folder") from error
        yield


def _lock(fd: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        os.lseek(fd, 0, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
