"""Resuming is exact: an interrupted or killed run ends as the one that was left alone, bit for bit."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import resume_kills
from vaekit import ELBO, IWAE, VAE, Batch, Conditional, InputError, Loss, Training, fit, heads, priors
from vaekit.data.binarise import binarise
from vaekit.data.core import DataSet, Split
from vaekit.models.core import LatentModel
from vaekit.objectives import Beta, Cosine, Linear, Objective, Schedule
from vaekit.train import Interrupted, WarmAdagrad, progress, read_csv
from vaekit.train.checkpoint import Checkpoints
from vaekit.train.identity import checksum

quiet: Callable[..., Any] = partial(fit, progress=False)
EPOCHS, BATCHES = 4, 4  # 50 rows in batches of 15: the last is smaller


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: a checkpoint a step on a slow disk is mostly waiting."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def data() -> DataSet:
    grey = torch.rand(3, 50, 6, generator=torch.Generator().manual_seed(0)).mul(255).to(torch.uint8)
    return binarise(DataSet("noise", train=Split(grey[0]), test=Split(grey[1]), valid=Split(grey[2])))


def model() -> VAE:
    """Convolutions have weights of another layout in training, dropout draws noise, batch normalisation keeps buffers, and the decoder's
    first layer is tied to its second."""
    torch.manual_seed(0)
    tied = nn.Linear(8, 8)
    seen = nn.Sequential(nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, 2), nn.Conv2d(4, 8, (1, 2)), nn.Flatten())
    return VAE(
        priors.StandardNormal(2),
        Conditional(nn.Sequential(seen, nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 4)), heads.Gaussian(2)),
        Conditional(nn.Sequential(nn.Linear(2, 8), tied, nn.ReLU(), tied, nn.Linear(8, 6)), heads.Bernoulli(6)),
    )


class Stopping(ELBO):
    """The ELBO, and a signal to this very process within step number ``at``."""

    def __init__(self, at: int | None = None, number: int = signal.SIGINT) -> None:
        super().__init__(penalty=Beta(Linear(0, 1, 10)))
        self._at = at  # underscored: no setting of the run, or a resumed one could not differ
        self._number = number

    def forward(self, model: LatentModel, batch: Batch, step: int = 0) -> Loss:
        if self.training and step == self._at:
            os.kill(os.getpid(), self._number)
        return super().forward(model, batch, step)


def settings(**changes: Any) -> Training:
    return Training(**({"epochs": EPOCHS, "batch_size": 15, "seed": 3} | changes))


def same(one: nn.Module, other: nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def rows(folder: Path) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in read_csv(folder / "metrics.csv")]


OPTIMISERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "Adam": partial(torch.optim.Adam, lr=0.01, amsgrad=True),
    "AdamW": partial(torch.optim.AdamW, lr=0.01),
    "Adagrad": partial(torch.optim.Adagrad, lr=0.05),
    "WarmAdagrad": partial(WarmAdagrad, lr=0.05, warmup=5),
    "Adamax": partial(torch.optim.Adamax, lr=0.01),
    "RMSprop": partial(torch.optim.RMSprop, lr=0.01, momentum=0.9, centered=True),
    "SGD": partial(torch.optim.SGD, lr=0.01, momentum=0.9, nesterov=True),
}
SETTINGS: dict[str, dict[str, Any]] = {name: {"optimiser": optimiser} for name, optimiser in OPTIMISERS.items()} | {
    "everything": {"ema": 0.9, "clip": 0.5, "schedule": Cosine(1, 0, 16), "patience": 3},
    "float64": {"precision": "64-true", "ema": 0.9},
    "one checkpoint, each step": {"keep": 1, "checkpoint_minutes": 0},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_an_interrupted_run_ends_as_one_in_peace(name: str, memory: Path) -> None:
    training = settings(**SETTINGS[name])
    whole = quiet(model(), data(), objective=Stopping(), training=training, out=memory / "whole")
    for at in (1, 6, 11):  # within the first, second and third epoch: steps 6 and 11 are mid-epoch and the epoch's last
        with pytest.raises(Interrupted) as stopped:
            quiet(model(), data(), objective=Stopping(at), training=training, out=memory / "parts", resume=True)
        assert stopped.value.step == at + 1 and stopped.value.path is not None and stopped.value.path.exists()
    resumed = quiet(model(), data(), objective=Stopping(), training=training, out=memory / "parts", resume=True)
    assert same(whole.model, resumed.model)
    assert resumed.step == whole.step == EPOCHS * BATCHES and resumed.best_step == whole.best_step
    assert rows(memory / "whole") == rows(memory / "parts") and len(rows(memory / "whole")) == EPOCHS
    assert [r["step"] for r in resumed.history] == [r["step"] for r in whole.history]
    assert not same(model(), whole.model)


def test_killed_runs_end_as_one_in_peace(memory: Path) -> None:
    found = resume_kills.check(memory, kills=3, epochs=60, seed=1)
    assert found["weights_identical"] and found["state_identical"] and found["metrics_identical"], found
    assert max(found["steps_at_kills"]) > 0, "no kill came after the first step: the test has lost its point"


def test_a_finished_run_resumes_to_itself_and_can_be_prolonged(tmp_path: Path) -> None:
    short = quiet(model(), data(), training=settings(epochs=2), out=tmp_path / "run")
    again = quiet(model(), data(), training=settings(epochs=2), out=tmp_path / "run", resume=True)
    assert same(short.model, again.model) and again.step == short.step
    longer = quiet(model(), data(), training=settings(epochs=4), out=tmp_path / "run", resume=True)
    assert same(longer.model, quiet(model(), data(), training=settings(epochs=4)).model)


def test_early_stopping_goes_on_where_it_was(tmp_path: Path) -> None:
    """A learning rate of 0: no epoch is better than the first after the warm-up (10 steps, so the third), and patience ends the run after
    three more, however often interrupted."""
    training = settings(epochs=20, patience=3, optimiser=partial(torch.optim.SGD, lr=0.0))
    frozen = Split(torch.zeros(50, 6))
    still = DataSet("still", train=frozen, test=frozen, valid=frozen)

    def plain() -> VAE:  # nothing that changes without a learning rate
        return VAE(
            priors.StandardNormal(2), Conditional(nn.Linear(6, 4), heads.Gaussian(2)), Conditional(nn.Linear(2, 6), heads.Bernoulli(6))
        )

    with pytest.raises(Interrupted):
        quiet(plain(), still, objective=Stopping(9), training=training, out=tmp_path, resume=True)
    fitted = quiet(plain(), still, objective=Stopping(), training=training, out=tmp_path, resume=True)
    assert len(fitted.history) == 6 and fitted.best_step == 3 * BATCHES


def test_sigterm_ends_in_order_and_the_handlers_come_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match=r"interrupted after step 3 \(saved as .*step-00000003.safetensors\)"):
        quiet(model(), data(), objective=Stopping(2, signal.SIGTERM), training=settings(), out=tmp_path)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_an_interruption_at_an_epochs_end_keeps_its_row(tmp_path: Path) -> None:
    with pytest.raises(Interrupted) as stopped:
        quiet(model(), data(), objective=Stopping(BATCHES - 1), training=settings(), out=tmp_path)
    assert stopped.value.step == BATCHES and [row["step"] for row in rows(tmp_path)] == [BATCHES]


def test_an_interruption_without_a_folder(tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match="interrupted after step 3 .nothing saved: the run has no folder") as stopped:
        quiet(model(), data(), objective=Stopping(2), training=settings())
    assert stopped.value.path is None and isinstance(stopped.value, KeyboardInterrupt)


def test_training_works_outside_the_main_thread() -> None:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(quiet(model(), data(), training=settings(epochs=1))))
    thread.start()
    thread.join()
    assert found and same(found[0].model, quiet(model(), data(), training=settings(epochs=1)).model)


@pytest.mark.parametrize(
    ("changes", "message"),
    {
        "seed": ({"seed": 4}, "trained with seed 3 and is to go on with 4"),
        "batch size": ({"batch_size": 10}, "trained with batch_size 15 and is to go on with 10"),
        "repeat": ({"repeat": 2}, "trained with repeat 1 and is to go on with 2"),
        "ema": ({"ema": 0.9}, "trained with ema None and is to go on with 0.9"),
        "clip": ({"clip": 1.0}, "trained with clip None"),
        "schedule": ({"schedule": Cosine(1, 0, 9)}, "trained with schedule Constant"),
        "precision": ({"precision": "64-true"}, "trained with precision 32-true"),
        "learning rate": ({"optimiser": partial(torch.optim.Adam, lr=0.5)}, "trained with optimiser Adam .*'lr': 0.001.*'lr': 0.5"),
        "optimiser": ({"optimiser": partial(torch.optim.SGD, lr=0.001)}, "trained with optimiser Adam .* go on with SGD"),
    }.values(),
)
def test_another_setting_is_another_run(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    quiet(model(), data(), training=settings(epochs=1), out=tmp_path)
    with pytest.raises(InputError, match=message):
        quiet(model(), data(), training=settings(**changes), out=tmp_path, resume=True)


def test_other_data_or_another_model_is_another_run(tmp_path: Path) -> None:
    quiet(model(), data(), training=settings(epochs=1), out=tmp_path)
    with pytest.raises(InputError, match="trained with rows 50 and is to go on with 40"):
        quiet(model(), data().train.head(40), training=settings(), out=tmp_path, resume=True)
    wider = model()
    wider.likelihood.net[4] = nn.Linear(8, 6, bias=False)
    with pytest.raises(InputError, match=r"is of another model: model.likelihood.net.4.bias is not in this model"):
        quiet(wider, data(), training=settings(), out=tmp_path, resume=True)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (ELBO(5), r"objective ELBO\(k=1, closed_form=None\) and is to go on with ELBO\(k=5, closed_form=None\)"),
        (ELBO(closed_form=False), "closed_form=None.* go on with .*closed_form=False"),
        (
            ELBO(penalty=Beta(100.0)),
            r"objective.penalty Beta\(weight=Constant\(value=1.0\).* go on with Beta\(weight=Constant\(value=100.0\)",
        ),
        (ELBO(penalty=Beta(Linear(0, 1, 9))), r"go on with Beta\(weight=Linear\(start=0, end=1, steps=9\)"),
        (IWAE(1), r"objective ELBO\(.* go on with IWAE\(k=1\)"),
    ],
)
def test_another_objective_is_another_run(objective: Objective, message: str, tmp_path: Path) -> None:
    quiet(model(), data(), objective=ELBO(), training=settings(epochs=1), out=tmp_path)
    with pytest.raises(InputError, match=f"trained with .*{message}"):
        quiet(model(), data(), objective=objective, training=settings(), out=tmp_path, resume=True)
    quiet(model(), data(), objective=ELBO(), training=settings(), out=tmp_path, resume=True)


def test_a_schedule_of_ones_own_tells_its_settings(tmp_path: Path) -> None:
    class Step(Schedule):
        settled = 3

        def __init__(self, height: float) -> None:
            self.height = height

        def __call__(self, step: int) -> float:
            return self.height if step >= self.settled else 0.0

    quiet(model(), data(), objective=ELBO(penalty=Beta(Step(1.0))), training=settings(epochs=1), out=tmp_path)
    with pytest.raises(InputError, match=r"Step\(height=1.0\).*Step\(height=2.0\)"):
        quiet(model(), data(), objective=ELBO(penalty=Beta(Step(2.0))), training=settings(), out=tmp_path, resume=True)
    quiet(model(), data(), objective=ELBO(penalty=Beta(Step(1.0))), training=settings(), out=tmp_path, resume=True)


def test_another_head_of_the_same_width_is_another_run(tmp_path: Path) -> None:
    quiet(model(), data(), training=settings(epochs=1), out=tmp_path)
    other = model()
    other.likelihood.head = heads.ContinuousBernoulli(6)
    with pytest.raises(InputError, match=r"model.likelihood.head Bernoulli\(.* go on with ContinuousBernoulli\("):
        quiet(other, data(), training=settings(), out=tmp_path, resume=True)
    other = model()
    other.posterior.net[3].p = 0.5
    with pytest.raises(InputError, match=r"model.posterior.net.3 Dropout\(p=0.2, .* go on with Dropout\(p=0.5, "):
        quiet(other, data(), training=settings(), out=tmp_path, resume=True)


def test_other_rows_are_another_run(tmp_path: Path) -> None:
    quiet(model(), data(), training=settings(epochs=1), out=tmp_path)
    for name, split in (("training", "train"), ("validation", "valid")):
        changed = data()
        last = getattr(changed, split).x[49]
        last[5] = 1 - last[5].int()
        with pytest.raises(
            InputError, match=rf"trained with {name} data [0-9a-f]{{8}}, prepared by \w+ and is to go on with [0-9a-f]{{8}},"
        ):
            quiet(model(), changed, training=settings(), out=tmp_path, resume=True)
    fixed = replace(data(), train=Split(data().train.x))  # no longer binarised
    with pytest.raises(InputError, match="prepared by bernoulli and is to go on with .* prepared by to_float"):
        quiet(model(), fixed, training=settings(), out=tmp_path, resume=True)
    grey = data()
    grey.test.x.zero_()  # no part of training
    quiet(model(), grey, training=settings(), out=tmp_path, resume=True)


def test_a_mask_counts_as_data() -> None:
    x, mask = torch.zeros(4, 3), torch.ones(4, 3, dtype=torch.bool)
    whole = checksum(Split(x, mask=mask))
    mask[3, 2] = False
    assert len({whole, checksum(Split(x, mask=mask)), checksum(Split(x))}) == 3
    assert checksum(Split(x.expand(4, 3)[:, ::2])) == checksum(Split(torch.zeros(4, 2)))


def test_a_folder_is_not_trained_over(tmp_path: Path) -> None:
    quiet(model(), data(), training=settings(epochs=1), out=tmp_path)
    with pytest.raises(InputError, match="holds a run already: resume it"):
        quiet(model(), data(), training=settings(epochs=1), out=tmp_path)
    with pytest.raises(InputError, match="needs the folder of the run"):
        quiet(model(), data(), resume=True)


def test_two_processes_cannot_train_into_one_folder(tmp_path: Path) -> None:
    class Second(ELBO):
        def forward(self, model_: LatentModel, batch: Batch, step: int = 0) -> Loss:
            if self.training and step == 1:
                with pytest.raises(InputError, match="another process is training into"):
                    quiet(model(), data(), training=settings(), out=tmp_path, resume=True)
            return super().forward(model_, batch, step)

    quiet(model(), data(), objective=Second(), training=settings(epochs=1), out=tmp_path)
    quiet(model(), data(), objective=Second(), training=settings(epochs=1), out=tmp_path, resume=True)  # released


def test_a_checkpoint_holds_the_training_weights_and_model_safetensors_the_final_ones(tmp_path: Path) -> None:
    fitted = quiet(model(), data(), training=settings(ema=0.9), out=tmp_path)
    (path, tensors, value) = Checkpoints(tmp_path / "checkpoints", 3).load() or pytest.fail("no checkpoint")
    assert path.name == "step-00000016.safetensors" and value["at"]["epoch"] == EPOCHS
    final = fitted.model.state_dict()
    name = "likelihood.net.0.weight"
    assert torch.equal(tensors[f"ema/model.{name}"], final[name]) and not torch.equal(tensors[f"module/model.{name}"], final[name])


class Lost(ELBO):
    """The ELBO, and at step ``at`` an end without a word, as a kill would be: nothing is written any more. A step takes so long."""

    def __init__(self, at: int | None = None, seconds: float = 0.0) -> None:
        super().__init__(penalty=Beta(Linear(0, 1, 10)))
        self._at = at
        self._seconds = seconds
        self._time = 0.0

    def forward(self, model: LatentModel, batch: Batch, step: int = 0) -> Loss:
        if self.training and step == self._at:
            raise MemoryError
        self._time += self._seconds * self.training
        return super().forward(model, batch, step)


@pytest.mark.parametrize(
    ("changes", "seconds", "kept"),
    {
        "epochs that end at once": ({}, 0.0, [0]),
        "epochs of 4 seconds": ({}, 1.0, [0, 8]),
        "epochs of 6 seconds": ({}, 1.5, [0, 4, 8, 12]),
        "an interval of one's own": ({"checkpoint_minutes": 0}, 0.0, [0, *range(1, 15)]),
        "the best weights": ({"patience": 3, "optimiser": partial(torch.optim.SGD, lr=0.0)}, 0.0, [0, 12]),  # settled in the third epoch
    }.values(),
)
def test_when_a_checkpoint_is_written(
    changes: dict[str, Any], seconds: float, kept: list[int], memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a run that dies between two of them goes on from the earlier one, over the rows that it had written since."""
    training, lost = settings(keep=99, **changes), Lost(14, seconds)
    whole = quiet(model(), data(), objective=Lost(), training=training, out=memory / "whole")
    with pytest.raises(MemoryError), monkeypatch.context() as patched:
        patched.setattr(progress, "time", SimpleNamespace(monotonic=lambda: lost._time))
        quiet(model(), data(), objective=lost, training=training, out=memory / "parts")
    store = Checkpoints(memory / "parts" / "checkpoints", 99)
    assert [int(path.stem[5:]) for path in store.paths()] == kept
    assert len(rows(memory / "parts")) == 3
    resumed = quiet(model(), data(), objective=Lost(), training=training, out=memory / "parts", resume=True)
    assert same(whole.model, resumed.model) and rows(memory / "whole") == rows(memory / "parts")
    assert int(store.paths()[-1].stem[5:]) == EPOCHS * BATCHES


def test_metrics_of_a_torn_file(tmp_path: Path) -> None:
    """Rows after the checkpoint and a line cut short are what a kill leaves; resuming mends them."""
    training = settings(epochs=2)
    quiet(model(), data(), training=training, out=tmp_path)
    expected = rows(tmp_path)
    text = (tmp_path / "metrics.csv").read_text()
    (tmp_path / "metrics.csv").write_text(text + text.splitlines()[-1].replace("2,8", "3,12", 1) + "\n4,16,1.0")
    quiet(model(), data(), training=training, out=tmp_path, resume=True)
    assert rows(tmp_path) == expected


def test_the_step_zero_checkpoint_makes_the_first_weights_the_runs_own(tmp_path: Path) -> None:
    """A resumed run does not depend on how the model given to it was initialised."""
    with pytest.raises(Interrupted):
        quiet(model(), data(), objective=Stopping(0), training=settings(), out=tmp_path)
    other = model()
    for p in other.parameters():
        nn.init.normal_(p)
    resumed = quiet(other, data(), objective=Stopping(), training=settings(), out=tmp_path, resume=True)
    assert same(resumed.model, quiet(model(), data(), objective=Stopping(), training=settings()).model)
