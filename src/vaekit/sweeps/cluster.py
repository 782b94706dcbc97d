"""A sweep on the machines of a Ray cluster: Ray Tune hands out groups of cells, and each worker trains its own as `Work` does here.

Nothing of the sweep's state is Ray's: the cells' folders, on storage that all machines share, are all that a sweep goes on from.
"""

from __future__ import annotations

import importlib
import math
import os
import shutil
import signal
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vaekit import __version__
from vaekit.errors import InputError, LostRankError
from vaekit.recipes.core import find
from vaekit.sweeps.groups import divided, noted
from vaekit.sweeps.plan import Plan, check_source
from vaekit.sweeps.work import ENDED, Work

__all__ = ["Cluster", "connected", "parts_of"]

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # Ray would report to its makers
    "RAY_AIR_NEW_OUTPUT": "0",  # tables on standard output
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours
}
STORE = 128 * 2**20
"""Bytes of Ray's store of objects, which a sweep hardly uses; by default a third of the memory."""

PATIENCE = 10.0
"""Seconds that a cluster has to answer."""

TRIES = 1
"""How often what a worker left when it died is begun again, by another."""


@contextmanager
def connected(address: str, device: str | None) -> Iterator[Cluster]:
    """Connect to a cluster; on the way out all of our workers end, and a local cluster with them.

    Args:
        address: "local" for a cluster of this machine that ends with the sweep, "auto" for the one that runs here, or ``HOST:PORT``.
        device: what the cells are to be trained on; each worker has a GPU where the cluster has any, unless this is "cpu".

    Raises:
        InputError: no Ray, no cluster, no GPU where one is asked for.
    """
    device = device or "auto"
    if device.startswith("cuda:"):
        raise InputError(f"--device {device} with --ray: each worker has the device that Ray gives it; use cuda, cpu or auto")
    if address.startswith("ray://"):
        raise InputError(f"--ray {address}: Ray's client is not used; run the sweep on a machine of the cluster, with --ray auto")
    ray = _ray()
    if ray.is_initialized():
        raise InputError("this process is connected to Ray already: call ray.shutdown() before, or sweep in a process of its own")
    before = dict(os.environ)
    os.environ.update(QUIET)
    passed_on = {name: value for name, value in os.environ.items() if name.startswith("VAEKIT_")} | QUIET
    local: dict[str, Any] = {"include_dashboard": False, "object_store_memory": STORE} if address == "local" else {}
    try:
        try:
            _answers(address)
            ray.init(address=address, log_to_driver=False, logging_level="CRITICAL", runtime_env={"env_vars": passed_on}, **local)
        except (OSError, RuntimeError, ValueError, OverflowError) as error:
            raise InputError(f"--ray {address}: no such cluster answers ({_line(error)}); start one with: ray start --head") from error
        with _interruptible():
            resources = ray.cluster_resources()
            kind = "GPU" if device == "cuda" or (device == "auto" and resources.get("GPU", 0) >= 1) else "CPU"
            slots = int(resources.get(kind, 0))
            if slots < 1:
                raise InputError(f"--ray {address}: the cluster has no {kind}; train on something else, or start it with one")
            yield Cluster(ray, address, kind, slots)
    finally:
        ray.shutdown()
        for name in os.environ.keys() - before.keys():  # ours, and those that Ray sets
            del os.environ[name]
        os.environ.update(before)


@dataclass(frozen=True)
class Cluster:
    """A cluster that we are connected to: the module ``ray``, its address, and how many workers it has room for (``slots``), each with a
    CPU or, where ``kind`` is GPU, with one of each."""

    ray: Any
    address: str
    kind: str
    slots: int

    def train(self, work: Work, *, resume_line: str) -> None:
        """Train what has not ended.

        Args:
            work: all of the sweep.
            resume_line: the command that goes on, for the message.

        Raises:
            InputError: a worker does not see the folder, or refuses what it is given.
            LostRankError: a worker died, and the one that took its place did so too. The other cells have been trained.
        """
        parts = parts_of(work, self.slots)
        if not parts:
            return
        work.note(f"{sum(map(len, parts))} cells in {len(parts)} parts for {self.slots} {self.kind}s of the Ray cluster {self.address}")
        refused = _tune(self.ray, work, parts, self.kind)
        if refused:
            names, error = refused[0]
            more = f" (and {len(refused) - 1} more: {work.path / 'log.txt'})" if len(refused) > 1 else ""
            raise type(error)(f"{_named(names)}: {error}{more}; what else there was is trained; continue with: {resume_line}")


def parts_of(work: Work, slots: int) -> list[tuple[str, ...]]:
    """What of ``work`` has not ended, in parts for ``slots`` workers: a group is divided, down to pairs, only where there are workers for
    its parts, and one that has been begun stays as it was begun."""
    # compared on a processor, for this machine need not have the workers' device
    work = Work(work.path, replace(work.plan, device="cpu"), work.function, note=work.note)
    left = {name for name in work.configs if (run := work.open(name)) is None or run.config.state not in ENDED}
    groups, single = work.groups()
    most = max(2, math.ceil(len(left) / slots))
    parts: list[tuple[str, ...]] = []
    for group in groups:
        begun = noted(work.path, group.names[0]) is not None
        parts += [group.names] if begun else divided(group.names, most, work.plan.at_once or 1)
    parts += [(name,) for name in single]
    return [part for part in parts if not left.isdisjoint(part)]


def _answers(address: str) -> None:
    """Knock first: Ray itself waits for minutes."""
    if address in ("local", "auto"):
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError("an address is HOST:PORT, auto or local")
    socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()


def _ray() -> Any:
    try:
        importlib.import_module("ray.tune")
        return importlib.import_module("ray")
    except ImportError as error:
        raise InputError("Ray Tune is not installed: pip install 'vaekit[ray]' on every machine, or sweep without --ray") from error


def _tune(ray: Any, work: Work, parts: Sequence[tuple[str, ...]], kind: str) -> list[tuple[tuple[str, ...], InputError | LostRankError]]:
    """Have the parts trained; those that were not, with the reason."""
    from tqdm import tqdm

    tune: Any = ray.tune
    given = {"parts": parts, "plan": work.plan, "folder": str(work.path), "here": str(Path.cwd()), "version": __version__}
    needs = {"CPU": 1, "GPU": 1} if kind == "GPU" else {"CPU": 1}
    store = work.path.resolve() / ".ray"  # Tune's own notes, which nobody reads again
    refused: list[tuple[tuple[str, ...], InputError | LostRankError]] = []
    with tqdm(desc="sweep", unit="cell", total=sum(map(len, parts)), leave=False, disable=None) as bar:

        class Watch(tune.Callback):
            def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
                for line in trial.last_result.get("notes", []):
                    work.note(line)
                bar.update(len(parts[trial.config["part"]]))

        try:
            results = tune.Tuner(
                tune.with_resources(tune.with_parameters(_train, **given), needs),
                param_space={"part": tune.grid_search(list(range(len(parts))))},
                tune_config=tune.TuneConfig(reuse_actors=True),
                run_config=tune.RunConfig(
                    name="sweep",
                    storage_path=str(store),
                    verbose=0,
                    callbacks=[Watch()],
                    failure_config=tune.FailureConfig(max_failures=TRIES),
                ),
            ).fit()
        finally:
            shutil.rmtree(store, ignore_errors=True)
    for result in results:
        names, why = parts[result.config["part"]], (result.metrics or {}).get("refused")
        error = InputError(why) if why else None if result.error is None else LostRankError(_line(result.error))
        if error is not None:
            refused.append((names, error))
            work.note(f"{_named(names)}: not trained to the end: {error}")
    return refused


def _train(
    config: Mapping[str, int], *, parts: Sequence[tuple[str, ...]], plan: Plan, folder: str, here: str, version: str
) -> dict[str, Any]:
    """One part, in a worker's process."""
    notes: list[str] = []
    path, host = Path(folder), socket.gethostname()
    try:
        if version != __version__:
            raise InputError(f"the worker on {host} has vaekit {__version__}, the sweep was called from {version}: install the same")
        for needed in (Path(here), Path(here) / folder / "sweep.json"):
            if not needed.exists():
                raise InputError(f"the worker on {host} does not see {needed}: the machines of the cluster must share it, at one place")
        os.chdir(here)  # where a recipe's file and what it reads are looked for
        torch.set_flush_denormal(True)  # as the command line does; the process is the worker's own
        function = find(plan.recipe)
        check_source(function, path)
        Work(path, plan, function, note=notes.append, names=parts[config["part"]]).run()
    except InputError as error:
        return {"notes": notes, "refused": str(error)}
    return {"notes": notes}


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM is Ctrl-C, as in training."""
    if threading.current_thread() is not threading.main_thread():  # only there may a program listen to signals
        yield
        return
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _named(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} others"


def _line(error: BaseException) -> str:
    """The last line that says something, of a message that may be a traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__
