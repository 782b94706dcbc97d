"""The MLP VAE of the tutorials, trained by `vaekit.fit` and by a ``lightning.Trainer``: the same bound within the noise of the seeds.

Both begin with the same weights. The Trainer reads a torch DataLoader that shuffles for itself, so that order and noise differ; one
further epoch is run with the same order and noise, after which the weights must be the same to the bit.

Run: python -m benchmarks.gallery.lightning_mlp
"""

from __future__ import annotations

import statistics
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.gallery.common import once, picture, quick, run, trained, write
from vaekit.data.core import DataSet
from vaekit.evaluate import evaluate
from vaekit.models import LatentModel
from vaekit.recipes import tutorials
from vaekit.recipes.core import Recipe
from vaekit.train import Fitted, fit
from vaekit.train.lightning import Batches, LightningVAE
from vaekit.viz import pairs
from vaekit.viz.figure import BLUE, ORANGE, blank, put_legend, put_title, styled

SEEDS = [0, 1, 2]
EPOCHS, SAMPLES = (2, 2) if quick else (5, 20)
LR = 1e-3
QUIET: dict[str, Any] = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_model_summary": False}
Row = dict[str, Any]


def small(data: DataSet) -> DataSet:
    return DataSet(data.name, train=data.train.head(1000), test=data.test.head(200)) if quick else data


def recipe() -> Recipe:
    plan = tutorials.mlp(lr=LR, epochs=EPOCHS)
    return replace(plan, data=lambda: small(tutorials.mnist_signed()))


def model(seed: int) -> LatentModel:
    """The weights that `trained` begins with under the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return recipe().model


def tested(of: LatentModel) -> Row:
    found = evaluate(of, small(tutorials.mnist_signed()).test, samples=SAMPLES)
    return {"bound": found.elbo, "se": found.elbo_se, "log_px": found.log_px, "kl": sum(found.rates)}


class Record(Callback):
    """The training bound of each epoch."""

    def __init__(self) -> None:
        self.bounds: list[float] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.bounds.append(float(trainer.callback_metrics["train/bound"]))


def by_trainer(seed: int) -> Row:
    train = small(tutorials.mnist_signed()).train
    module = LightningVAE(model(seed), optimiser=partial(torch.optim.Adam, lr=LR))
    seed_everything(100 + seed, verbose=False)
    rows = DataLoader(TensorDataset(train.batch(torch.arange(len(train))).x, train.label), batch_size=128, shuffle=True)  # type: ignore[arg-type]
    record = Record()
    Trainer(max_epochs=EPOCHS, enable_progress_bar=False, callbacks=[record], **QUIET).fit(module, rows)
    return tested(module.model) | {"train": record.bounds}


def same_order() -> float:
    """The largest difference between any two weights after an epoch of each with the same batches and noise."""
    plan = recipe()
    train = plan.data().train
    once_fitted = fit(model(0), train, objective=plan.objective, training=replace(plan.training, epochs=1), progress=False)
    module = LightningVAE(model(0), plan.objective, optimiser=plan.training.optimiser)
    trainer = Trainer(max_epochs=1, enable_progress_bar=False, **QUIET)
    torch.manual_seed(plan.training.seed)
    trainer.fit(module, Batches(train, batch_size=plan.training.batch_size, seed=plan.training.seed))
    both = zip(once_fitted.model.state_dict().values(), module.model.state_dict().values(), strict=True)
    return max(float((a.double() - b.double()).abs().max()) for a, b in both)


def over_seeds(values: list[float], unit: str = "nats") -> Row:
    return {"value": statistics.mean(values), "error": statistics.stdev(values) / len(values) ** 0.5, "unit": unit}


def curves(fits: list[Fitted], ours: list[Row], theirs: list[Row]) -> None:
    with styled():
        figure = blank(620, 360, constrained=True)
        axes = figure.add_subplot()
        epochs = range(1, EPOCHS + 1)
        for fitted, row in zip(fits, theirs, strict=True):
            (line,) = axes.plot(epochs, [epoch["train/bound"] for epoch in fitted.history], color=BLUE, linewidth=1)
            (dashed,) = axes.plot(epochs, row["train"], "--", color=ORANGE, linewidth=1)
        (left,) = axes.plot([EPOCHS + 0.15] * len(ours), [row["bound"] for row in ours], "o", color=BLUE)
        (right,) = axes.plot([EPOCHS + 0.3] * len(theirs), [row["bound"] for row in theirs], "s", color=ORANGE)
        axes.set_xlabel("epoch")
        axes.set_ylabel("bound (nats)")
        axes.grid()
        put_legend(axes, [line, left, dashed, right], ["fit: training", "test", "Trainer: training", "test"], beside=False)
        put_title(figure, "Three seeds by fit and by a lightning.Trainer")
    picture("lightning_mlp", figure)


def main() -> None:
    fits = [trained(f"lightning_mlp-fit-{seed}", recipe, seed) for seed in SEEDS]
    ours = [once(f"lightning_mlp-fit-{seed}-tested", partial(tested, fitted.model)) for seed, fitted in zip(SEEDS, fits, strict=True)]
    theirs = [once(f"lightning_mlp-trainer-{seed}", partial(by_trainer, seed)) for seed in SEEDS]
    weights = once("lightning_mlp-same-order", same_order)
    curves(fits, ours, theirs)
    test = small(tutorials.mnist_signed()).test.batch(torch.arange(8))
    picture("lightning_mlp-reconstructions", pairs((test.x + 1) / 2, (fits[0].model.reconstruct(test) + 1) / 2))
    gaps = [b["bound"] - a["bound"] for a, b in zip(ours, theirs, strict=True)]
    training = [b["train"][-1] - fitted.history[-1]["train/bound"] for fitted, b in zip(fits, theirs, strict=True)]
    write(
        "gallery/lightning_mlp",
        command="python -m benchmarks.gallery.lightning_mlp",
        seed=SEEDS,
        settings={"recipe": "tutorials:mlp", "epochs": EPOCHS, "batch_size": 128, "lr": LR, "alpha": 1.0, "samples": SAMPLES},
        figures={
            "fit_bound": over_seeds([row["bound"] for row in ours]),
            "trainer_bound": over_seeds([row["bound"] for row in theirs]),
            "difference": over_seeds(gaps),
            "training_difference": over_seeds(training),
            "fit_log_px": over_seeds([row["log_px"] for row in ours]),
            "trainer_log_px": over_seeds([row["log_px"] for row in theirs]),
            "fit_kl": over_seeds([row["kl"] for row in ours]),
            "trainer_kl": over_seeds([row["kl"] for row in theirs]),
            "spread": {"value": statistics.stdev([row["bound"] for row in ours]), "error": None, "unit": "nats"},
            "error_over_examples": {"value": ours[0]["se"], "error": None, "unit": "nats"},
            "same_order_weights": {"value": weights, "error": None, "unit": "largest difference"},
        },
    )


if __name__ == "__main__":
    run(main)
