"""Sweeps over a Ray cluster of two machines, which are two nodes on this one: the runs, weights and tables of a sweep without it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import vaekit
from vaekit import InputError, commands
from vaekit.cli import main
from vaekit.runs import open_run
from vaekit.sweeps import cluster as clusters
from vaekit.sweeps.groups import divided
from vaekit.train import Checkpoints

ray = pytest.importorskip("ray", reason="needs Ray Tune: pip install 'vaekit[ray]'")
pytest.importorskip("ray.tune", reason="needs Ray Tune: pip install 'vaekit[ray]'")

RECIPE = """
import os, signal
import numpy as np
from functools import partial
from pathlib import Path
from torch.optim import Adam
from vaekit import ELBO, VAE, Conditional, Recipe, Training, data, heads, nn, priors
from vaekit.objectives import Beta

def table(beta: float = 1.0, lr: float = 1e-2, width: int = 8, epochs: int = 2, dies: int = 0) -> Recipe:
    x = np.random.default_rng(0).normal(size=(60, 6))
    with open("pids", "a") as file:
        file.write(f"{os.getpid()} {os.environ.get('RAY_USAGE_STATS_ENABLED')}\\n")
    def read():
        if dies and os.getpid() != int(Path("driver").read_text()):
            with open("deaths", "a") as file:
                file.write(f"{dies}\\n")
            if Path("deaths").read_text().count(str(dies)) <= (1 if dies == 1 else 99):
                os.kill(os.getpid(), signal.SIGKILL)
        return data.arrays(x, valid=0.2)
    q, px = heads.Gaussian(2), heads.GaussianShared(6)
    model = VAE(
        priors.StandardNormal(2),
        Conditional(nn.mlp(6, [width], q.features), q),
        Conditional(nn.mlp(2, [width], px.features), px),
    )
    training = Training(epochs=epochs, batch_size=16, optimiser=partial(Adam, lr=lr), device="cpu")
    return Recipe(model, read, ELBO(penalty=Beta(beta)), training)
"""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a cluster of two nodes with one processor each."""
    from ray.cluster_utils import Cluster

    before = dict(os.environ)
    os.environ.update(RAY_USAGE_STATS_ENABLED="0")
    node = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
    yield cluster.address
    cluster.shutdown()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(RECIPE)
    (tmp_path / "driver").write_text(str(os.getpid()))
    return tmp_path / "mine.py"


def weights(out: str) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in sorted(Path(out).glob("*/model.safetensors"))}


def ended(pids: set[int], seconds: float = 20.0) -> bool:
    """Whether the processes are gone, or go soon."""
    until = time.monotonic() + seconds
    while any(_alive(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(map(_alive, pids))


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def processes() -> dict[int, str]:
    """Those that have called the recipe, and what each says of Ray's statistics."""
    lines = [line.split() for line in Path("pids").read_text().splitlines()]
    return {int(pid): said for pid, said in lines}


def test_cells_are_those_of_a_sweep_without_ray(recipe: Path, address: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A group that is divided; cells that fail, which take no other with them."""
    flags = ["mine.py", "--lr", "0.01,1e20", "--beta", "1,4", "--seed", "0..1"]
    assert main(["sweep", *flags, "--at-once", "2", "--out", "plain"]) == 1
    plain = capfd.readouterr()
    Path("pids").unlink()
    environment = dict(os.environ)
    assert main(["sweep", *flags, "--at-once", "2", "--out", "spread", "--ray", address]) == 1
    shown = capfd.readouterr()
    assert "8 cells in 2 parts for 2 CPUs of the Ray cluster" in Path("spread/log.txt").read_text()
    assert shown.out.replace("spread", "plain") == plain.out
    assert shown.err.count("\n") == 1 and shown.err.replace("spread", "plain") == plain.err.splitlines(keepends=True)[-1]
    assert weights("spread") == weights("plain") and len(weights("spread")) == 4
    assert Path("spread/table.csv").read_bytes() == Path("plain/table.csv").read_bytes() and Path("spread/sweep.png").is_file()
    states = [open_run(path).config.state for path in sorted(Path("spread").glob("*_seed-*"))]
    assert states == [open_run(path).config.state for path in sorted(Path("plain").glob("*_seed-*"))]
    assert sorted(states) == ["failed"] * 4 + ["finished"] * 4

    workers = {pid: said for pid, said in processes().items() if pid != os.getpid()}
    assert len(workers) >= 2 and set(workers.values()) == {"0"}, "each machine has worked, and none has reported to Ray's makers"
    assert ended(set(workers)) and not ray.is_initialized() and dict(os.environ) == environment
    assert not Path("spread/.ray").exists()

    before = {path: path.stat().st_mtime_ns for path in Path("spread").glob("*/model.safetensors")}
    assert main(["sweep", "mine.py", "--out", "spread", "--resume", "--ray", address]) == 1  # nothing is left to do
    assert before == {path: path.stat().st_mtime_ns for path in Path("spread").glob("*/model.safetensors")}


class Killed(BaseException):
    """The process is gone: nothing catches this."""


def test_an_interrupted_sweep_goes_on_over_ray(recipe: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = {"beta": (1.0, 4.0), "width": (8, 4)}
    commands.sweep("mine.py", flags, seeds=(0, 1), out="whole")
    calls, save = iter(range(5)), Checkpoints.save

    def dies(store: Checkpoints, *args: Any) -> Path:
        if next(calls, None) is None:
            raise Killed
        return save(store, *args)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Checkpoints, "save", dies)
        commands.sweep("mine.py", flags, seeds=(0, 1), out="killed")
    assert weights("killed") == {}
    commands.sweep("mine.py", out="killed", resume=True, ray=address)
    assert weights("killed") == weights("whole") and len(weights("whole")) == 8
    assert "8 cells in 2 parts" in Path("killed/log.txt").read_text()


def test_what_kills_a_worker_is_begun_again_once(recipe: Path, address: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "mine.py", "--dies", "1,2", "--out", "dying", "--ray", address]) == 75
    error = capfd.readouterr().err
    assert (
        "dies-2_seed-1: " in error and "continue with: vaekit sweep mine.py --out dying --resume --ray" in error and error.count("\n") == 1
    )
    assert weights("dying").keys() == {"dies-1_seed-1"}
    assert sorted(Path("deaths").read_text().split()) == ["1", "1", "2", "2"]


def test_ctrl_c_ends_a_local_cluster_and_all_of_its_processes(recipe: Path) -> None:
    words = ["sweep", "mine.py", "--seed", "0..3", "--epochs", "1000", "--out", "stopped", "--ray", "local"]
    here = {**os.environ, "PYTHONPATH": str(Path(vaekit.__file__).parents[1])}
    with subprocess.Popen([sys.executable, "-m", "vaekit", *words], stderr=subprocess.PIPE, text=True, env=here) as process:
        until = time.monotonic() + 120
        while len(list(Path("stopped").glob("*/metrics.csv"))) < 4 and time.monotonic() < until and process.poll() is None:
            time.sleep(0.1)
        family = _descendants(process.pid)
        process.send_signal(signal.SIGINT)
        error = process.communicate()[1]
    assert process.returncode == 130, error
    assert error == "vaekit: interrupted; continue with: vaekit sweep mine.py --out stopped --resume --ray local\n"
    assert len(family) > 2 and ended(family)
    assert [open_run(path).config.state for path in sorted(Path("stopped").glob("seed-*"))] == ["training"] * 4


def _descendants(pid: int) -> set[int]:
    shown = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout.split()
    found, size = {pid}, 0
    while len(found) > size:
        size = len(found)
        found |= {int(child) for child, parent in zip(shown[::2], shown[1::2], strict=True) if int(parent) in found}
    return found - {pid}


def test_a_worker_says_what_it_does_not_see(recipe: Path) -> None:
    commands.sweep("mine.py", out="there")
    here, plan = str(Path.cwd()), clusters.Plan("mine.py", {}, (1,))

    def refused(folder: str, here: str, version: str = vaekit.__version__) -> str:
        return clusters._train({"part": 0}, parts=[("seed-1",)], plan=plan, folder=folder, here=here, version=version)["refused"]

    assert f"does not see {here}/gone/sweep.json: the machines of the cluster must share it" in refused("gone", here)
    assert "does not see /elsewhere: the machines of the cluster must share it" in refused("there", "/elsewhere")
    assert "the sweep was called from 0.0: install the same" in refused("there", here, "0.0")
    recipe.write_text(RECIPE + "# changed")
    assert "mine.py has changed since there was started with it" in refused("there", here)


@pytest.mark.parametrize(
    ("address", "device", "why"),
    [
        ("127.0.0.1:9", None, "no such cluster answers"),
        ("here", None, "an address is HOST:PORT, auto or local"),
        ("ray://127.0.0.1:10001", None, "Ray's client is not used"),
        ("local", "cuda:1", "each worker has the device that Ray gives it"),
    ],
)
def test_a_cluster_that_is_not_there_is_one_line(address: str, device: str | None, why: str, recipe: Path) -> None:
    with pytest.raises(InputError, match=why):
        commands.sweep("mine.py", out="none", ray=address, device=device)
    assert not Path("none").exists() and not ray.is_initialized()


def test_groups_are_divided_evenly_and_into_whole_tiles() -> None:
    assert [len(part) for part in divided(list("abcdefghij"), 5)] == [5, 5]
    assert sorted(len(part) for part in divided(list("abcdefghij"), 3)) == [2, 2, 3, 3]
    assert [len(part) for part in divided(list("abcdefghijk"), 4, tile=3)] == [3, 3, 3, 2]
    assert [len(part) for part in divided(list("abcdefghij"), 7, tile=3)] == [6, 4], "no cell is left to itself"
    for most in range(2, 12):
        parts = divided(list("abcdefghijk"), most)
        assert "".join(name for part in parts for name in part) == "abcdefghijk" and min(map(len, parts)) > 1
