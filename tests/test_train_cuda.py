"""What is different on a GPU: where things lie, the second random generator, and looking for NaN every so many steps only."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from test_train_resume import Stopping, data, model, quiet, rows, same, settings
from vaekit import ELBO, Batch, Loss, NonFiniteError
from vaekit.data import FileRows, Split, Stream, bernoulli, binarise, on_disk
from vaekit.models.core import LatentModel
from vaekit.objectives import Cosine
from vaekit.train import Interrupted
from vaekit.train.replay import captured
from vaekit.train.run import permutation

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("optimiser", [partial(torch.optim.Adam, lr=0.01), partial(torch.optim.Adagrad, lr=0.05)])
def test_resuming_on_a_gpu_is_exact(precision: str, optimiser: partial[torch.optim.Optimizer], tmp_path: Path) -> None:
    everything = {"ema": 0.9, "clip": 0.5, "schedule": Cosine(1, 0, 16), "patience": 3, "checkpoint_minutes": 0}
    training = settings(device="cuda", precision=precision, optimiser=optimiser, **everything)
    whole = quiet(model(), data(), objective=Stopping(), training=training, out=tmp_path / "whole")
    assert all(p.device.type == "cuda" for p in whole.model.parameters())
    for at in (1, 6):
        with pytest.raises(Interrupted):
            quiet(model(), data(), objective=Stopping(at), training=training, out=tmp_path / "parts", resume=True)
    resumed = quiet(model(), data(), objective=Stopping(), training=training, out=tmp_path / "parts", resume=True)
    assert same(whole.model, resumed.model) and rows(tmp_path / "whole") == rows(tmp_path / "parts")


def test_a_run_from_a_gpu_goes_on_without_one(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        quiet(model(), data(), objective=Stopping(6), training=settings(device="cuda"), out=tmp_path)
    fitted = quiet(model(), data(), objective=Stopping(), training=settings(device="cpu"), out=tmp_path, resume=True)
    assert fitted.step == 16 and all(p.device.type == "cpu" for p in fitted.model.parameters())


class Waiting(ELBO):
    """Promises what it does not keep."""

    compiles = True

    def forward(self, model: LatentModel, batch: Batch, step: int = 0) -> Loss:
        loss = super().forward(model, batch, step)
        assert float(loss.surrogate.detach().sum()) < float("inf")  # waits for the device
        return loss


def test_steps_as_one_cuda_graph_are_the_steps(tmp_path: Path) -> None:
    """Weights and rows to rounding: the update reads its learning rate in float32. 50 rows in batches of 10, three steps to a graph."""
    everything = {"ema": 0.9, "clip": 0.5, "schedule": Cosine(1, 0, 30), "batch_size": 10, "epochs": 6, "device": "cuda"}
    plain, launched = (quiet(model(), data(), training=settings(**everything, replay=n), out=tmp_path / str(n)) for n in (1, 3))
    log = (tmp_path / "3" / "log.txt").read_text()
    assert "3 full batches at a time, as one launch" in log and "one by one" not in log, log
    for a, b in zip(plain.model.parameters(), launched.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    for one, other in zip(rows(tmp_path / "1"), rows(tmp_path / "3"), strict=True):
        assert one == pytest.approx(other, rel=1e-3)


def test_a_run_of_cuda_graphs_resumes_to_the_bit(tmp_path: Path) -> None:
    training = settings(device="cuda", batch_size=10, replay=3, epochs=6)
    whole = quiet(model(), data(), training=training, out=tmp_path / "whole")
    quiet(model(), data(), training=settings(device="cuda", batch_size=10, replay=3, epochs=3), out=tmp_path / "parts")
    resumed = quiet(model(), data(), training=training, out=tmp_path / "parts", resume=True)
    assert same(whole.model, resumed.model) and rows(tmp_path / "whole") == rows(tmp_path / "parts")


def test_what_no_cuda_graph_can_hold_goes_one_by_one(tmp_path: Path) -> None:
    everything = {"device": "cuda", "batch_size": 10}
    plain = quiet(model(), data(), objective=Waiting(), training=settings(**everything))
    launched = quiet(model(), data(), objective=Waiting(), training=settings(**everything, replay=3), out=tmp_path)
    assert same(plain.model, launched.model) and "one by one" in (tmp_path / "log.txt").read_text()


def test_a_broken_recording_leaves_the_generator_in_order() -> None:
    """What waits is found before the recording; so here the recording alone is broken."""
    calls: list[int] = []

    def program() -> None:
        calls.append(1)
        torch.randn(5, device="cuda")
        if len(calls) == 3:
            torch.cuda.synchronize()

    with pytest.raises(Exception, match=r"."):
        captured(program, torch.device("cuda", 0))
    torch.cuda.manual_seed(3)
    first = torch.randn(5, device="cuda")
    torch.cuda.manual_seed(3)
    assert torch.equal(first, torch.randn(5, device="cuda")) and torch.cuda.current_stream() == torch.cuda.default_stream()


def test_nan_on_a_gpu_is_found_at_its_step() -> None:
    class Late(ELBO):
        def forward(self, model: LatentModel, batch: Batch, step: int = 0) -> Loss:
            loss = super().forward(model, batch, step)
            bad = torch.zeros_like(loss.surrogate)
            bad[1] = torch.nan if step == 6 else 0.0
            return loss._replace(surrogate=loss.surrogate + bad)

    trained = model()
    with pytest.raises(NonFiniteError, match=r"step 6, epoch 2: the surrogate, .* is NaN for 1 of 15 examples"):
        quiet(trained, data(), objective=Late(), training=settings(device="cuda"))
    assert all(bool(p.isfinite().all()) for p in trained.parameters())


def test_the_callers_gpu_generator_is_untouched() -> None:
    before = torch.cuda.get_rng_state()
    quiet(model(), data(), training=settings(device="cuda", epochs=1))
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_rows_from_a_file_and_batches_from_a_loader_reach_the_gpu(tmp_path: Path) -> None:
    x = np.random.RandomState(0).randint(0, 256, (60, 6)).astype(np.uint8)
    np.save(tmp_path / "x.npy", x)
    rows, training = torch.from_numpy(x), settings(device="cuda")

    def batches(epoch: int) -> Iterator[torch.Tensor]:
        return (rows[index] for index in permutation(60, training.seed, epoch).split(training.batch_size))

    held = binarise(on_disk(tmp_path / "x.npy")).test
    sources = [Split(rows, prepare=bernoulli), Split(FileRows(tmp_path / "x.npy"), prepare=bernoulli)]
    fitted = [quiet(model(), source, training=training) for source in [*sources, Stream(batches, prepare=bernoulli, valid=held)]]
    assert same(fitted[0].model, fitted[1].model) and same(fitted[0].model, fitted[2].model)
