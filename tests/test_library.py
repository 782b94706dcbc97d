"""A step from a shared library is the step, and making it leaves this process as it was."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vaekit import library
from vaekit.compiling import Compiled
from vaekit.library import NotBuiltError, build

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks")


class Fit:
    """Two steps' worth of state: a weight that is learned, a running mean, and noise."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.weight = torch.randn(5, 3, requires_grad=True)
        self.mean = torch.zeros(3)
        self.table = torch.randn(7, 5)

    def step(self, rows: Tensor, rates: list[Tensor]) -> tuple[str, list[Tensor | None], Tensor]:
        x = self.table[rows] + torch.randn(len(rows), 5)
        y = x @ self.weight
        self.mean.lerp_(y.detach().mean(0), 0.5)
        (grad,) = torch.autograd.grad((y - self.mean).square().sum(), [self.weight])
        with torch.no_grad():
            self.weight.sub_(rates[0] * grad + rates[1])
        return "two parts", [grad, None], y.detach().sum(0)

    def tensors(self) -> list[Tensor]:
        return [self.weight, self.mean, self.table]


ROWS, RATES = torch.tensor([1, 6, 1, 0]), [torch.tensor(0.01), torch.tensor([0.5, 0.0, -0.5])]


def none() -> dict[str, Any]:
    return {}


def torch_noise() -> dict[str, Any]:
    return {"fallback_random": True}


def test_the_same_numbers() -> None:
    """Plain steps and the library's from the same seeds: noise, gradients, both tensors changed in place, and what does not change."""
    plain, fast = Fit(), Fit()
    before = [t.clone() for t in fast.tensors()]
    state = torch.get_rng_state()
    step = build(fast.step, (ROWS, RATES), fast.tensors(), torch_noise)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(before, fast.tensors(), strict=True))  # what the fork did is the fork's
    for rows in (ROWS, torch.tensor([3, 3, 2, 5])):
        torch.manual_seed(7)
        expected = plain.step(rows, RATES)
        torch.manual_seed(7)
        found = step(rows, RATES)
        assert found[0] == "two parts" and found[1][1] is None
        torch.testing.assert_close(found[1][0], expected[1][0])
        torch.testing.assert_close(found[2], expected[2])
        torch.testing.assert_close(fast.tensors(), plain.tensors())
    assert not torch.equal(before[0], fast.weight) and not torch.equal(before[1], fast.mean)


def test_it_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same operations are not compiled twice; another number in them, another shape or another literal is another library."""
    folder, factor = library._folder(), random.random()  # which no run before had

    def scaled(factor: float, literal: float) -> Callable[[Tensor], Tensor]:
        return lambda x: x * factor + torch.tensor([literal])

    x, before = torch.arange(4.0), set(folder.iterdir())
    torch.testing.assert_close(build(scaled(factor, 1.0), (x,), [], none)(x), x * factor + 1)

    def compiler(*args: object, **kwargs: object) -> None:
        raise RuntimeError("asked to compile")

    monkeypatch.setattr(torch._inductor, "aot_compile", compiler)
    torch.testing.assert_close(build(scaled(factor, 1.0), (x,), [], none)(x + 1), (x + 1) * factor + 1)
    others: list[tuple[Callable[[Tensor], Tensor], Tensor]] = [
        (scaled(factor + 1, 1.0), x),
        (scaled(factor, 1.5), x),
        (scaled(factor, 1.0), x[:3]),
        (scaled(factor, 1.0), x.double()),
        (scaled(factor, 1.0), torch.arange(8.0)[::2]),
    ]
    for other, given in others:
        with pytest.raises(NotBuiltError, match="RuntimeError: asked to compile"):
            build(other, (given,), [], none)
    # another worker may build meanwhile
    made = [path for path in set(folder.iterdir()) - before if any(str(factor) in file.read_text() for file in path.glob("*.kernel.cpp"))]
    assert len(made) == 1  # and no half-made folder
    shutil.rmtree(made[0])


def test_what_cannot_be_built_says_why() -> None:
    x, hidden = torch.ones(3), torch.ones(3)
    faults: list[tuple[Callable[..., Any], tuple[object, ...], str]] = [
        (lambda x: x + hidden, (x,), "it reads a tensor that is not known to be its own"),
        (lambda x: x * float(x.sum()), (x,), "RuntimeError: It appears that you're trying to get value out of a tracing tensor"),
        (lambda x, y: x + y, (x, x), "a tensor is given twice"),
        (lambda x: x.to_dense(), (x.to_sparse(),), "a tensor is not a plain one"),
        (lambda x: os.kill(os.getpid(), signal.SIGKILL), (x,), "the process that compiles died or took too long"),
    ]
    for function, args, reason in faults:
        with pytest.raises(NotBuiltError, match=re.escape(reason)):
            build(function, args, [], none)
    torch.compiler.set_stance("force_eager")
    try:
        with pytest.raises(NotBuiltError, match="compiling is switched off"):
            build(torch.square, (x,), [], none)
    finally:
        torch.compiler.set_stance("default")


def test_machine_code_is_given_what_it_was_made_for() -> None:
    x = torch.ones(4, 3)
    double = build(lambda x: 2 * x, (x,), [], none)
    assert torch.equal(double(x + 1), 2 * (x + 1))
    for other in (torch.ones(3, 3), torch.ones(3, 4).mT, x.double()):
        with pytest.raises(ValueError, match="for a library that was made for"):
            double(other)
    with pytest.raises(ValueError, match="2 tensors for a library that was made for 1"):
        double(x, x)


def test_the_fork_holds_no_file_of_ours(tmp_path: Path) -> None:
    """Or the lock of a run that was killed would outlive it."""

    def look(x: Tensor) -> None:
        raise ValueError(
            " ".join(os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{n}"))
        )

    with open(tmp_path / "lock", "w"), pytest.raises(NotBuiltError) as caught:
        build(look, (torch.ones(1),), [], none)
    assert "/dev/null /dev/null /dev/null pipe" in str(caught.value) and "lock" not in str(caught.value)


def test_one_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "SECONDS", 0.5)
    begun = time.monotonic()
    with pytest.raises(NotBuiltError, match="died"):
        build(lambda x: time.sleep(60), (torch.ones(1),), [], none)
    assert time.monotonic() - begun < 30


def test_ctrl_c_ends_it(tmp_path: Path) -> None:
    def slow(x: Tensor) -> None:
        (tmp_path / "pid").write_text(str(os.getpid()))
        os.kill(os.getppid(), signal.SIGINT)
        time.sleep(60)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background begins without
    try:
        with pytest.raises(KeyboardInterrupt):
            build(slow, (torch.ones(1),), [], none)
    finally:
        signal.signal(signal.SIGINT, before)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_thread_may_build() -> None:
    found: list[Tensor] = []
    thread = threading.Thread(target=lambda: found.append(build(lambda x: x + 3, (torch.ones(2),), [], none)(torch.zeros(2))))
    thread.start()
    thread.join(120)
    assert [t.tolist() for t in found] == [[3.0, 3.0]]


def test_the_compiler_stays_out_of_this_process() -> None:
    code = """
import sys, torch
from vaekit import ELBO, VAE, Conditional, Training, fit, heads, priors
from vaekit.data import Split
torch.manual_seed(0)
encoder, decoder = Conditional(torch.nn.Linear(6, 4), heads.Gaussian(2)), Conditional(torch.nn.Linear(2, 12), heads.Gaussian(6))
training = Training(epochs=3, batch_size=16, compile=True, device="cpu")
fitted = fit(VAE(priors.StandardNormal(2), encoder, decoder), Split(torch.randn(64, 6)), training=training, progress=False)
print(fitted.step, "torch._inductor.compile_fx" in sys.modules, "torch._inductor.graph" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=280)
    assert done.stdout.split() == ["12", "False", "False"], done.stderr


def test_where_there_is_none_the_process_compiles_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """And says so; what cannot be compiled at all says that alone."""
    fit, plain, notes = Fit(), Fit(), []
    monkeypatch.setattr(library, "hindrance", lambda given, tensors: "there is none")
    step = Compiled(fit.step, differentiates=True, fixed=True, reads=fit.tensors, note=notes.append)
    torch.manual_seed(7)
    found = step(ROWS, RATES)
    torch.manual_seed(7)
    torch.testing.assert_close(found[2], plain.step(ROWS, RATES)[2])
    (note,) = notes
    assert note == "compiled in this process, which takes some hundred MiB: there is none"
    broken = Compiled(lambda x: x if x.sum() > 0 else -x, fixed=True, reads=list, note=notes.append)
    assert broken(torch.ones(2)).tolist() == [1.0, 1.0]
    assert len(notes) == 2 and "was not compiled and runs as it is" in notes[1]
