"""The same model in a Trainer and in `fit`: the same batches, order and noise give the same weights, bit for bit."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from vaekit import heads, priors
from vaekit.conditional import Conditional
from vaekit.data.core import DataSet, Split
from vaekit.errors import InputError
from vaekit.matmul import matching_matmul
from vaekit.models import VAE, LatentModel
from vaekit.nn import Layer, mlp
from vaekit.objectives import ELBO, IWAE, Beta, Linear, Objective, Reconstruction
from vaekit.train import Training, fit, load_weights, save_weights
from vaekit.train.lightning import Batches, LightningVAE
from vaekit.types import Batch

ROWS = torch.rand(90, 6, generator=torch.Generator().manual_seed(7))
DATA = DataSet("random", train=Split(ROWS[:60]), test=Split(ROWS[60:]), valid=Split(ROWS[60:]))
ADAM = partial(torch.optim.Adam, lr=0.01, fused=True)
QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
pytestmark = pytest.mark.filterwarnings("ignore:.*dataloader.*does not have many workers", "ignore:.*LeafSpec")


def network(point: bool = False) -> LatentModel:
    torch.manual_seed(3)
    q = heads.Point(2) if point else heads.Gaussian(2)
    encoder = mlp(6, [Layer(8, norm=partial(nn.BatchNorm1d, momentum=0.7))], q.features)
    return VAE(priors.StandardNormal(2), Conditional(encoder, q), Conditional(mlp(2, [8], 12), heads.Gaussian(6)))


def trained(objective: Objective, point: bool, **more: Any) -> tuple[LatentModel, LightningVAE, Trainer]:
    model = network(point)
    module = LightningVAE(model, objective, optimiser=ADAM, schedule=Linear(1.0, 0.1, 12), seed=5)
    trainer = Trainer(max_epochs=3, num_sanity_val_steps=2, **QUIET, **more)
    torch.manual_seed(5)
    with matching_matmul(torch.device("cpu")):  # as `fit` multiplies
        trainer.fit(module, Batches(DATA.train, batch_size=16, seed=5), Batches(DATA.test, batch_size=16, seed=None))
    return model, module, trainer


@pytest.mark.parametrize(
    ("objective", "point"),
    [(ELBO(2, penalty=Beta(Linear(0.0, 1.0, 8))), False), (IWAE(3), False), (Reconstruction(), True)],
    ids=["elbo-warm-up", "iwae", "autoencoder"],
)
def test_trainer_and_fit_give_the_same_weights_and_logs(objective: Objective, point: bool) -> None:
    """12 steps in 3 epochs: batch normalisation, a learning-rate schedule, a KL warm-up, clipping, validation."""
    settings = Training(epochs=3, batch_size=16, seed=5, clip=0.5, optimiser=ADAM, schedule=Linear(1.0, 0.1, 12))
    fitted = fit(network(point), DATA, objective=objective, training=settings, progress=False)
    model, module, trainer = trained(objective, point, gradient_clip_val=0.5)
    assert trainer.global_step == fitted.step == 12
    theirs = model.state_dict()
    for name, t in fitted.model.state_dict().items():
        assert torch.equal(t, theirs[name]), name
    row = fitted.history[-1]
    assert set(trainer.callback_metrics) == set(row) - {"epoch", "step", "seconds", "valid/active"}
    for name, value in trainer.callback_metrics.items():
        assert float(value) == pytest.approx(row[name], rel=1e-5, abs=1e-6), name
    assert module.model is model


def test_any_batch_and_an_ordinary_loader() -> None:
    """(x, y), a bare tensor and a Batch are one and the same batch; a torch DataLoader trains."""
    module = LightningVAE(network())
    trainer = Trainer(max_epochs=4, **QUIET)
    torch.manual_seed(0)
    labels = torch.arange(60)
    trainer.fit(module, DataLoader(TensorDataset(DATA.train.x, labels), batch_size=20, shuffle=True))
    assert trainer.global_step == 12 and float(trainer.callback_metrics["train/bound"]) < 0
    found = []
    for batch in ((ROWS, labels), ROWS, Batch(ROWS), [ROWS]):
        found.append(Trainer(**QUIET).test(module, DataLoader([batch], batch_size=None), verbose=False)[0])
    assert all(one == found[0] for one in found) and set(found[0]) == {f"test/{n}" for n in ("surrogate", "bound", "log_px", "rate_0")}
    loss = module.module.eval()(Batch(ROWS), 0)
    assert found[0]["test/surrogate"] == pytest.approx(float(loss.surrogate.mean()), abs=0.5)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"x": ROWS}, "a batch is a dict: give a Batch"),
        ([], "a batch is a list"),
        (torch.zeros(3, 6, dtype=torch.uint8), "x is uint8, and a model takes floating numbers: divide bytes by 255"),
    ],
)
def test_other_batches_are_refused(batch: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        LightningVAE(network()).training_step(batch, 0)


def test_a_penalty_is_no_objective() -> None:
    with pytest.raises(InputError, match=r"use objective=ELBO\(penalty=Beta"):
        LightningVAE(network(), Beta(2.0))  # type: ignore[arg-type]


def test_weights_are_exported_without_pickle(tmp_path: Path) -> None:
    model, _, _ = trained(ELBO(), False)
    save_weights(model, tmp_path / "model.safetensors")
    again = network()
    load_weights(again, tmp_path / "model.safetensors")
    torch.testing.assert_close(again.eval().embed(Batch(ROWS)), model.eval().embed(Batch(ROWS)), rtol=0, atol=0)


def test_training_goes_on_without_it() -> None:
    """`import vaekit.train` loads neither this module nor Lightning."""
    code = "import sys, vaekit.train; sys.exit('lightning' in sys.modules or 'vaekit.train.lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
