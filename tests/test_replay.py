"""Several steps started as one against the same steps one by one: the same bits on a processor, and a recording that fails or lies spoils
nothing."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vaekit import ELBO, VAE, Batch, Conditional, InputError, Loss, NonFiniteError, Objective, Training, commands, fit, heads, priors
from vaekit.data import Split, Stream, on_disk
from vaekit.data.core import DataSet
from vaekit.models.core import LatentModel
from vaekit.noise import drawn_by
from vaekit.objectives import Beta, Linear, Schedule
from vaekit.runs import open_run
from vaekit.train import Interrupted, read_csv, replay
from vaekit.train.adam import InGraphAdam
from vaekit.train.ema import EMA
from vaekit.train.meter import Meter
from vaekit.train.replay import Launches, Program

quiet: Callable[..., Any] = partial(fit, progress=False)
ROWS, BATCH = 86, 16  # five full batches and one of six: in groups of three 3 + 2, and the odd one
ADAM = partial(torch.optim.Adam, lr=1e-2)


def model(px: nn.Module | None = None, *extra: nn.Module) -> VAE:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(12, 8), *extra, nn.ReLU(), nn.Linear(8, 6))
    decoder = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 12))
    return VAE(priors.StandardNormal(3), Conditional(encoder, heads.Gaussian(3)), Conditional(decoder, px or heads.Bernoulli(12)))


def normalised() -> VAE:
    return model(None, nn.BatchNorm1d(8), nn.Dropout(0.3))


def flipped(x: Tensor) -> Tensor:
    return torch.bernoulli(x)


def data() -> DataSet:
    x = torch.rand(2 * ROWS, 12, generator=torch.Generator().manual_seed(1))
    train, rest = Split(x[:ROWS], prepare=flipped), Split(x[ROWS:], prepare=flipped)
    return DataSet("noise", train=train, test=rest, valid=rest.head(20))


def rows(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


def same(one: nn.Module, other: nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


Recorder = Callable[[Program], Program]


class Starts:
    """What was recorded and started. ``how`` makes of a program what is started in its place."""

    def __init__(self) -> None:
        self.recorded: list[int] = []
        self.started: list[int] = []
        self.how: Recorder = lambda program: program

    def __call__(self, device: torch.device) -> Recorder:
        def record(program: Any) -> Program:
            size = len(program.__self__.rows)
            self.recorded.append(size)
            start = self.how(program)

            def counted() -> None:
                self.started.append(size)
                start()

            return counted

        return record


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> Starts:
    found = Starts()
    monkeypatch.setattr(replay, "recorder", found)
    return found


CASES: dict[str, dict[str, Any]] = {
    "Adam": {},
    "a schedule, clipped": {"schedule": Linear(1, 0.3, 20), "clip": 0.5},
    "AdamW, another seed": {"optimiser": partial(torch.optim.AdamW, lr=1e-2, betas=(0.8, 0.99), weight_decay=0.1), "seed": 7},
    "bfloat16": {"precision": "bf16-mixed"},
    "averaged": {"ema": 0.9, "patience": 9},
}


@pytest.mark.parametrize("name", CASES)
def test_steps_started_as_one_are_the_steps(name: str, starts: Starts) -> None:
    """Noise, dropout, binarisation, batch normalisation, clipping, a falling learning rate: weights, buffers and history to the bit. The
    average of the weights is computed in another order, so to rounding."""
    settings: dict[str, Any] = {"epochs": 4, "batch_size": BATCH, "optimiser": ADAM} | CASES[name]
    plain, launched = (quiet(normalised(), data(), training=Training(**settings, replay=n)) for n in (1, 3))
    # the first step makes Adam's averages, so groups begin with the next multiple of three; the first of each size goes beside plain steps
    assert starts.recorded == [2, 3] and starts.started == [2, *[3, 2] * 3]
    if "ema" not in settings:
        assert same(plain.model, launched.model)
        assert rows(plain.history) == rows(launched.history)
    else:
        for a, b in zip(plain.model.parameters(), launched.model.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)
        for one, other in zip(rows(plain.history), rows(launched.history), strict=True):
            assert one == pytest.approx(other, rel=1e-6)
    assert not same(normalised(), launched.model)


def test_batches_visited_several_times(starts: Starts) -> None:
    settings: dict[str, Any] = {"epochs": 2, "batch_size": BATCH, "optimiser": ADAM, "repeat": 2}
    plain, launched = (quiet(model(), data(), training=Training(**settings, replay=n)) for n in (1, 4))
    assert starts.started == [4, 2, 4, 4, 2] and same(plain.model, launched.model)


def test_compiled_steps_may_be_started_as_one(starts: Starts) -> None:
    settings: dict[str, Any] = {"epochs": 3, "batch_size": BATCH, "optimiser": ADAM, "clip": 0.5, "compile": True}
    alone, launched = (quiet(model(), data(), training=Training(**settings, replay=n)) for n in (1, 3))
    torch._dynamo.reset()
    assert starts.started == [2, 3, 2, 3, 2]
    for a, b in zip(alone.model.parameters(), launched.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)
    for one, other in zip(rows(alone.history), rows(launched.history), strict=True):
        assert one == pytest.approx(other, rel=1e-7)


def test_an_average_by_a_weight_in_a_tensor() -> None:
    """The average's closed form, in float64, after steps whose weights come as tensors."""
    layer = nn.Linear(3, 2).double()
    ema, values = EMA(layer, 0.8), torch.randn(6, 2, 3, dtype=torch.float64)
    for step, value in enumerate(values):
        layer.weight.data.copy_(value)
        ema.blend(torch.tensor(ema.weight(step), dtype=torch.float64))
    powers = 0.8 ** torch.arange(5, -1, -1, dtype=torch.float64)
    torch.testing.assert_close(ema.average["weight"], (powers.view(-1, 1, 1) * values).sum(0) / powers.sum(), rtol=1e-12, atol=1e-14)


def test_groups_begin_when_the_schedules_have_settled(starts: Starts) -> None:
    objective = ELBO(penalty=Beta(Linear(0, 1, 7)))  # settled at step 7, the second epoch's second
    plain, launched = (quiet(model(), data(), objective=objective, training=Training(3, BATCH, replay=n)) for n in (1, 3))
    assert starts.started == [2, 3, 2] and same(plain.model, launched.model)


class Interrupting:
    """Binarisation, and a signal to this very process in call number ``at``."""

    __module__ = __name__

    def __init__(self, at: int) -> None:
        self.at, self.calls = at, 0

    def __call__(self, x: Tensor) -> Tensor:
        self.calls += len(x) in (BATCH, 6)
        if self.calls == self.at:
            os.kill(os.getpid(), signal.SIGINT)
        return torch.bernoulli(x)


def test_an_interrupted_run_ends_as_one_in_peace(tmp_path: Path, starts: Starts) -> None:
    """Interrupted within a group, the run ends after it; resumed mid-epoch, it has the same groups, and the same end to the bit."""

    def train(at: int, out: Path) -> Any:
        x = torch.rand(ROWS, 12, generator=torch.Generator().manual_seed(1))
        split = Split(x, prepare=Interrupting(at))
        settings = Training(4, BATCH, optimiser=ADAM, ema=0.9, schedule=Linear(1, 0, 24), replay=3)
        return quiet(model(), split, training=settings, out=out, resume=True)

    whole = train(-1, tmp_path / "whole")
    steps = []
    for at in (12, 12, 9):
        with pytest.raises(Interrupted) as stopped:
            train(at, tmp_path / "parts")
        steps.append(stopped.value.step)
    assert any(step % 6 not in (0, 5) for step in steps) and steps == sorted(set(steps)), steps
    resumed = train(-1, tmp_path / "parts")
    assert same(whole.model, resumed.model) and resumed.step == 24
    assert rows(read_csv(tmp_path / "whole" / "metrics.csv")) == rows(read_csv(tmp_path / "parts" / "metrics.csv"))


def test_a_step_that_was_not_finite_is_found_and_undone() -> None:
    x = torch.rand(ROWS, 12, generator=torch.Generator().manual_seed(1))
    x[33, 4] = 1e30  # squared, in the log-density of a Gaussian, it is infinite
    found = []
    for n in (1, 2):
        trained = model(heads.GaussianFixed(12, 1.0))
        with torch.no_grad():
            trained.posterior.net[0].weight[:, 4] = 0  # q is finite all the same
        with pytest.raises(NonFiniteError, match=r"^step \d+, epoch 1: .*the weights were not updated") as error:
            quiet(trained, Split(x), training=Training(3, BATCH, seed=2, replay=n))
        found.append((str(error.value).split(";")[0], trained.state_dict()))
    assert found[0][0] == found[1][0]
    assert all(torch.equal(found[1][1][name], t) for name, t in found[0][1].items())


def test_a_run_that_goes_back_records_anew(monkeypatch: pytest.MonkeyPatch, starts: Starts) -> None:
    """A look that finds a step not finite where the careful repetition finds nothing: Adam's averages are other tensors from then on."""
    settings: dict[str, Any] = {"epochs": 5, "batch_size": BATCH, "schedule": Linear(1, 0, 25), "optimiser": ADAM}
    plain = quiet(model(), data(), training=Training(**settings)).model
    honest, looks = Meter.finite, []

    def finite(meter: Meter) -> bool:
        looks.append(meter.count)
        return honest(meter) and not (meter.count == ROWS and looks.count(ROWS) == 2)  # the second epoch's end, once

    monkeypatch.setattr(Meter, "finite", finite)
    launched = quiet(model(), data(), training=Training(**settings, replay=3)).model
    assert looks.count(ROWS) == 6  # the second epoch was trained twice
    assert starts.recorded == [2, 3, 3, 2] and starts.started == [2, *[3, 2] * 4]
    assert same(plain, launched)


def fails(program: Program) -> Program:
    program()  # a warm-up has changed all there is
    raise RuntimeError("operation not permitted when stream is capturing\nmore lines of a message")


def silent(program: Any) -> Program:
    program()
    return lambda: None


def nan(program: Any) -> Program:
    def start() -> None:
        program()
        program.__self__.total.fill_(torch.nan)

    return start


def frozen_rows(program: Any) -> Program:
    def start() -> None:
        program.__self__.rows[1:] = program.__self__.rows[0]
        program()

    return start


def frozen_noise(program: Any) -> Program:
    """As a graph whose generator was not registered."""
    state = torch.get_rng_state()

    def start() -> None:
        now = torch.get_rng_state()
        torch.set_rng_state(state)
        torch.rand(7)
        program()
        torch.set_rng_state(now)

    return start


def wrong_noise(program: Any) -> Program:
    """As much noise as it should be, of a tenth too much spread."""

    def source(kind: str, shape: tuple[int, ...], event_dim: int, like: Tensor) -> Tensor:
        return 1.1 * torch.randn(shape, dtype=like.dtype)

    def start() -> None:
        with drawn_by(source):
            program()

    return start


def wrong_rate(program: Any) -> Program:
    def start() -> None:
        program.__self__.scalars[:, 2] *= 1.05
        program()

    return start


def one_step_short(program: Any) -> Program:
    def start() -> None:
        launch = program.__self__
        rows, scalars = launch.rows, launch.scalars
        launch.rows, launch.scalars = rows[:-1], scalars[:-1]
        program()
        launch.rows, launch.scalars = rows, scalars

    return start


LIES: dict[str, tuple[Recorder, str]] = {
    "a recording that fails": (fails, "operation not permitted when stream is capturing$"),
    "a launch that does nothing": (silent, "more or less noise than its steps"),
    "sums that are not finite": (nan, "what it logs is not what the plain steps log"),
    "the first batch again and again": (frozen_rows, "off by"),
    "noise of the recording": (frozen_noise, "more or less noise than its steps"),
    "other noise": (wrong_noise, "off by"),
    "a learning rate that is off by a twentieth": (wrong_rate, "its weights are off by 0.05"),
    "a step too few": (one_step_short, "more or less noise than its steps"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_recording_that_fails_or_lies_spoils_nothing(name: str, starts: Starts, tmp_path: Path) -> None:
    """The run goes on one step at a time, with the bits of the plain run, and says so once."""
    starts.how, said = LIES[name]
    settings: dict[str, Any] = {"epochs": 3, "batch_size": BATCH, "optimiser": ADAM, "ema": 0.9}
    plain = quiet(normalised(), data(), training=Training(**settings))
    launched = quiet(normalised(), data(), training=Training(**settings, replay=3), out=tmp_path)
    assert same(plain.model, launched.model) and rows(plain.history) == rows(launched.history)
    assert len(starts.recorded) == 1 and len(starts.started) <= 1
    (line,) = [line for line in (tmp_path / "log.txt").read_text().splitlines() if "one by one" in line]
    assert "steps are taken one by one and not 3 at a time: " in line
    assert re.search(said, line), line


class Counting(nn.Module):
    """A layer of a user's that keeps count in a plain number: it doubles x from its 20th call in training on."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += self.training
        return 2 * x if self.calls > 20 else x


class Replacing(nn.Module):
    """A layer whose buffer is another tensor after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return x - self.mean


@pytest.mark.parametrize(("layer", "said"), [(Counting, "counts in plain numbers"), (Replacing, "puts new tensors in the place of")])
def test_layers_that_no_recording_can_hold(layer: type[nn.Module], said: str, starts: Starts, tmp_path: Path) -> None:
    plain, launched = (quiet(model(None, layer()), data(), training=Training(4, BATCH, replay=n), out=tmp_path / str(n)) for n in (1, 3))
    assert same(plain.model, launched.model) and said in (tmp_path / "3" / "log.txt").read_text() and len(starts.started) <= 1


class Unpromised(ELBO):
    """Waits for the device, as an objective may that promises nothing."""

    def forward(self, model: LatentModel, batch: Batch, step: int = 0) -> Loss:
        loss = super().forward(model, batch, step)
        assert float(loss.surrogate.detach().sum()) < float("inf")
        return loss


class Swinging(Schedule):
    """A weight that never settles."""

    settled = None

    def __call__(self, step: int) -> float:
        return 1.0 + 0.5 * (step % 2)


def with_hook() -> VAE:
    trained = model()
    trained.posterior.net[0].register_forward_hook(lambda layer, args, out: out)
    return trained


REFUSED: dict[str, tuple[str, Callable[[], VAE], Objective | None, dict[str, Any]]] = {
    "objective": ("does not promise", model, Unpromised(), {}),
    "schedule": ("never settles", model, ELBO(penalty=Beta(Swinging())), {}),
    "hooks": ("hooks", with_hook, None, {}),
    "SGD": ("not torch's fused Adam", model, None, {"optimiser": partial(torch.optim.SGD, lr=0.01)}),
    "amsgrad": ("not torch's fused Adam", model, None, {"optimiser": partial(torch.optim.Adam, amsgrad=True)}),
    "foreach": ("not torch's fused Adam", model, None, {"optimiser": partial(torch.optim.Adam, foreach=True)}),
    "float64": ("in float32", model, None, {"precision": "64-true"}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_started_as_one_goes_one_by_one(name: str, starts: Starts, tmp_path: Path) -> None:
    said, make, objective, settings = REFUSED[name]
    plain, launched = (
        quiet(make(), data(), objective=objective, training=Training(2, BATCH, replay=n, **settings), out=tmp_path / str(n)) for n in (1, 3)
    )
    log = (tmp_path / "3" / "log.txt").read_text()
    assert not starts.recorded and same(plain.model, launched.model)
    assert log.count("steps are taken one by one and not 3 at a time: ") == 1 and said in log and "as one launch" not in log


def test_rows_that_do_not_lie_in_memory_go_one_by_one(starts: Starts, tmp_path: Path) -> None:
    x = np.random.RandomState(0).randint(0, 256, (ROWS, 12)).astype(np.uint8)
    np.save(tmp_path / "x.npy", x)

    def batches(epoch: int) -> Iterator[Tensor]:
        return iter(torch.from_numpy(x).split(BATCH))

    for number, source in enumerate((on_disk(tmp_path / "x.npy"), Stream(batches))):
        quiet(model(), source, training=Training(2, BATCH, replay=3), out=tmp_path / str(number))
        assert "the rows do not lie in memory" in (tmp_path / str(number) / "log.txt").read_text()
    assert not starts.recorded


def test_a_parameter_without_a_gradient_is_left_alone(starts: Starts) -> None:
    def make() -> VAE:
        trained = model()
        trained.unused = nn.Linear(2, 2)
        return trained

    plain, launched = (quiet(make(), data(), training=Training(3, BATCH, replay=n, optimiser=ADAM)) for n in (1, 3))
    assert starts.started == [2, 3, 2, 3, 2] and same(plain.model, launched.model)


def test_how_many_steps_go_at_once() -> None:
    launches = object.__new__(Launches)
    launches.failed, launches.begin, launches.full, launches.training = False, 4, 11, Training(replay=4)
    assert [launches.many(batch, 100) for batch in range(13)] == [4, 1, 1, 1, 4, 1, 1, 1, 3, 1, 1, 1, 1]
    assert [launches.many(0, step) for step in (0, 3, 4)] == [1, 1, 4]
    launches.failed = True
    assert launches.many(0, 100) == 1


def test_scalars_of_the_steps_ahead() -> None:
    """Against the formula of Adam's corrections, and each step's own."""
    p = nn.Parameter(torch.ones(3))
    optimiser = torch.optim.Adam([p], lr=0.5, betas=(0.5, 0.75))
    adam = InGraphAdam(optimiser, [p])
    assert not adam.bound()
    p.grad = torch.ones(3)
    optimiser.step()
    assert adam.bound()
    want = [[0.5 / (1 - 0.5**2), (1 - 0.75**2) ** 0.5, 0.5], [0.25 / (1 - 0.5**3), (1 - 0.75**3) ** 0.5, 0.25]]
    torch.testing.assert_close(adam.scalars([0.5, 0.25]), torch.tensor(want, dtype=torch.float64))


@pytest.mark.parametrize("breaks", [False, True])
def test_the_order_of_a_capture(breaks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With stand-ins for torch's calls, so of their order alone: warmed up on the stream that records, waiting refused in the second round,
    everything put back where the recording breaks off."""
    said: list[str] = []

    class Stream:
        device_index = 0

        def __init__(self, name: object) -> None:
            self.name = name if name == "current" else "side"

        def wait_stream(self, other: Stream) -> None:
            said.append(f"{self.name} waits for {other.name}")

    class Generator:
        def __init__(self, device: object = None) -> None: ...

        def graphsafe_get_state(self) -> str:
            return "fresh"

        def graphsafe_set_state(self, state: str) -> None:
            said.append(f"generator {state}")

    @contextmanager
    def inside(stream: Stream) -> Iterator[None]:
        said.append(f"in {stream.name}")
        yield

    @contextmanager
    def graph(graph: object, stream: Stream) -> Iterator[None]:
        said.append(f"records in {stream.name}")
        yield

    class Graph:
        replay = staticmethod(lambda: said.append("replay"))

    for name, value in {
        "Stream": Stream,
        "current_stream": lambda device: Stream("current"),
        "stream": inside,
        "graph": graph,
        "CUDAGraph": Graph,
        "get_sync_debug_mode": lambda: 0,
        "set_sync_debug_mode": lambda mode: said.append(f"waiting {mode}"),
        "set_stream": lambda stream: said.append(f"back to {stream.name}"),
        "default_generators": (Generator(),),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch, "Generator", Generator)

    def program() -> None:
        said.append("program")
        if breaks and said.count("program") == 3:
            raise RuntimeError("not permitted")

    warm = ["side waits for current", "in side", "program", "waiting error", "program", "waiting 0", "current waits for side"]
    if breaks:
        with pytest.raises(RuntimeError, match="not permitted"):
            replay.captured(program, torch.device("cuda", 0))
        assert said == [*warm, "records in side", "program", "back to current", "generator fresh"]
    else:
        start = replay.captured(program, torch.device("cuda", 0))
        assert said == [*warm, "records in side", "program"]
        start()
        assert said[-1] == "replay"


def test_torch_has_what_a_capture_calls() -> None:
    assert all(hasattr(torch.Generator, name) for name in ("graphsafe_get_state", "graphsafe_set_state"))
    names = ("Stream", "current_stream", "stream", "graph", "CUDAGraph", "get_sync_debug_mode", "set_sync_debug_mode", "set_stream")
    assert all(hasattr(torch.cuda, name) for name in (*names, "default_generators", "is_current_stream_capturing"))


def test_the_setting(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="replay=0: at least 1 is needed"):
        Training(replay=0)
    run = commands.train("digits", {"epochs": 1, "hidden": 8}, out=tmp_path / "run", replay=4)
    assert open_run(run.path).config.replay == 4 and "--replay=4" in run.config.command
    assert "4 full batches at a time, as one launch" in (run.path / "log.txt").read_text()
    commands.train("digits", out=run.path, resume=True)
    with pytest.raises(InputError, match="started with --replay 4, and a resumed run cannot change it to 2"):
        commands.train("digits", out=run.path, resume=True, replay=2)
