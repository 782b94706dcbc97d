"""Several processes as one training: this process among those that ``torchrun`` has started, and starting them.

``vaekit train RECIPE --devices N`` does what ``torchrun --nproc-per-node N -m vaekit train RECIPE`` does, on one machine, and reports in
one line what went wrong: each process leaves its last words in a file, and of those the command that started them prints one.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["LOST", "Rank", "last_words", "leave_resume_line", "quiet", "start", "this_rank"]

LOST = 75
"""Exit status of a process that ended because another one had: nothing was wrong with itself."""

PARENT = "VAEKIT_RESUME_LINE"
"""Set by `start`: a file for the command that continues the run."""


class Rank(NamedTuple):
    """One process of ``size``: its ``number`` from 0, its number ``local`` among the ``here`` on this machine, and ``attempt``, how
    often all were started anew."""

    number: int
    size: int
    local: int
    here: int
    attempt: int


def this_rank() -> Rank | None:
    """What torchrun says of this process; None where it did not start it, or started it alone."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RESTART_COUNT")
    rank = Rank(*(int(os.environ[name]) for name in names))
    return rank if rank.size > 1 else None


def last_words(message: str, status: int) -> bool:
    """Leave a message where torchrun finds it; whether to print it here as well, so that it is printed once. ``status`` is the exit
    status."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if file and "TORCHELASTIC_RUN_ID" in os.environ:
        Path(file).write_text(json.dumps({"message": {"message": message, "extraInfo": {"timestamp": str(int(time.time()))}}}))
    rank = this_rank()
    if rank is None:
        return True
    return rank.number == 0 and (PARENT not in os.environ or status == 130)  # of an interruption the command itself hears nothing


def quiet() -> None:
    """Before torch is imported: its libraries advise against what is meant here, and complain of each connection that ends."""
    if this_rank() is not None:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def leave_resume_line(line: str) -> None:
    """Tell the command that started this process how the run is continued, should it die."""
    if PARENT in os.environ:
        Path(os.environ[PARENT]).write_text(line)


def start(words: Sequence[str], devices: int) -> int:
    """Run ``vaekit`` with ``words`` in ``devices`` processes on this machine and wait for them; the exit status.

    When one dies the others are ended at once, and one line on standard error says which and by what.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.disable(logging.CRITICAL)  # what torch has to say of it is said here, in one line
    threads = max(1, (os.cpu_count() or 1) // devices)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # else each process takes all cores
    with tempfile.TemporaryDirectory(prefix="vaekit-", ignore_cleanup_errors=True) as folder:
        line = Path(folder, "resume")
        os.environ[PARENT] = str(line)
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=devices,
            run_id=str(uuid.uuid4()),
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            elastic_launch(config, sys.executable)("-P", "-m", "vaekit", *words)
        except ChildFailedError as error:
            ended = [Ended(rank, f.pid, f.exitcode, f.timestamp, _words(f.error_file)) for rank, f in error.failures.items()]
            status, message = told(ended, devices, line.read_text() if line.exists() else "")
            if message:
                print(f"vaekit: {message}", file=sys.stderr)
            return status
        except SignalException:
            return 130
        finally:
            del os.environ[PARENT]
            logging.disable(logging.NOTSET)
    return 0


class Ended(NamedTuple):
    """A process that has failed: by a signal where ``status`` is negative. ``words`` are those that it left."""

    rank: int
    pid: int
    status: int
    time: int
    words: str


def told(ended: Sequence[Ended], devices: int, resume: str) -> tuple[int, str]:
    """Exit status and the one line for processes that have failed.

    >>> told([Ended(0, 10, 75, 5, "lost"), Ended(1, 11, -9, 5, "")], 2, "vaekit train digits --out run --resume")
    (1, 'rank 1 of 2 (process 11) was killed by SIGKILL; continue with: vaekit train digits --out run --resume')
    >>> told([Ended(0, 10, 2, 5, "no such file")], 2, "")
    (2, 'no such file')
    """
    victims = (LOST, -signal.SIGTERM)  # the latter those that were still there when torch ended them
    cause = min(ended, key=lambda one: (one.status in victims, one.time, one.rank))
    if cause.status == 130:  # the first process has said it
        return 130, ""
    if cause.words and cause.status not in victims:
        return max(cause.status, 1), cause.words
    who = f"rank {cause.rank} of {devices} (process {cause.pid})"
    if cause.status == LOST:
        what = f"{who} lost contact with another process"
    elif cause.status < 0:
        what = f"{who} was killed by {_signal(-cause.status)}"
    else:
        what = f"{who} ended with status {cause.status}"
    return 1, what + (f"; continue with: {resume}" if resume else "")


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _words(file: str) -> str:
    """What a process has left with `last_words`."""
    try:
        return str(json.loads(Path(file).read_text())["message"]["message"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
