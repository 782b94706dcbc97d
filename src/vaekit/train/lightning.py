"""A vaekit model in a ``lightning.Trainer`` of your own: what `fit` does in a step, as a ``LightningModule``.

`vaekit.train` itself does not import this module, because Lightning takes seconds to import: write
``from vaekit.train.lightning import LightningVAE``.

What is the Trainer's own: its checkpoints are pickles, which execute code when they are read, so read none of a stranger's; for weights
that can be passed on use `vaekit.train.save_weights(module.model, path)`. And `fit` looks at the model and the data before the first
step, stops at a value that is not finite and resumes bit for bit; here that is left to the Trainer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from vaekit.data.core import Split
from vaekit.errors import InputError
from vaekit.models.core import LatentModel
from vaekit.objectives.core import Objective
from vaekit.objectives.elbo import ELBO
from vaekit.objectives.schedules import Schedule
from vaekit.tensors import seed_noise
from vaekit.train.checks import check_objective, schedule_values
from vaekit.train.meter import values_of
from vaekit.train.ranks import restore_noise
from vaekit.train.run import permutation
from vaekit.train.settings import ADAM, ALWAYS
from vaekit.train.step import Step
from vaekit.types import Batch

__all__ = ["Batches", "LightningVAE"]


class LightningVAE(LightningModule):
    """A model and an objective for ``Trainer.fit``: the step of `vaekit.fit`, and the names that it logs.

    A batch is a `Batch`, a tensor x, or a tuple (x, ...) as data sets with labels give it, of which only x is used. Logged, as means over
    an epoch: ``train/surrogate``, ``train/bound``, ``train/log_px``, ``train/rate_0`` and so on, ``train/grad_norm`` before any clipping,
    ``train/lr``, and ``valid/...`` (but ``valid/active``), ``test/...``. Validation draws the same noise each time and leaves that of
    training as it was.

    Clipping, precision, devices, accumulation and the number of epochs are the Trainer's. ``schedule`` counts optimiser steps.

    Args:
        model: any `LatentModel`; trained in place.
        objective: default ``ELBO()``.
        optimiser: parameters -> a torch optimiser, as in `Training`; default Adam with 1e-3.
        schedule: multiplies the optimiser's learning rate, a function of the step.
        seed: of the noise of validation.

    Raises:
        InputError: an objective that is none; at the first step, a batch that is none.

    >>> from lightning.pytorch import Trainer
    >>> from vaekit import VAE, Conditional, heads, priors
    >>> _ = torch.manual_seed(0)
    >>> model = VAE(
    ...     priors.StandardNormal(2),
    ...     Conditional(nn.Linear(6, 4), heads.Gaussian(2)),
    ...     Conditional(nn.Linear(2, 12), heads.Gaussian(6)),
    ... )
    >>> quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    >>> trainer = Trainer(max_epochs=2, accelerator="cpu", **quiet)
    >>> trainer.fit(LightningVAE(model), Batches(Split(torch.randn(64, 6)), batch_size=16))
    >>> trainer.global_step, sorted(trainer.callback_metrics)[:3]
    (8, ['train/bound', 'train/grad_norm', 'train/log_px'])
    """

    def __init__(
        self,
        model: LatentModel,
        objective: Objective | None = None,
        *,
        optimiser: Callable[[Iterable[nn.Parameter]], Optimizer] = ADAM,
        schedule: Schedule = ALWAYS,
        seed: int = 0,
    ) -> None:
        super().__init__()
        objective = ELBO() if objective is None else objective
        check_objective(objective)
        self.module = Step(model, objective)
        self._optimiser = optimiser
        self._schedule = schedule
        self._seed = seed
        self._noise: dict[str, Tensor] = {}
        self._size = 1

    @property
    def model(self) -> LatentModel:
        """The model that was given."""
        return self.module.model

    def configure_optimizers(self) -> Any:
        optimiser = self._optimiser([p for p in self.module.parameters() if p.requires_grad])
        scheduler = LambdaLR(optimiser, self._schedule)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_fit_start(self) -> None:
        self.train()  # Lightning keeps the modes it finds, and `fit` and `load` return models in evaluation mode

    def training_step(self, batch: Any, index: int) -> Tensor:
        return self._logged("train", batch)

    def validation_step(self, batch: Any, index: int) -> None:
        self._logged("valid", batch)

    def test_step(self, batch: Any, index: int) -> None:
        self._logged("test", batch)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        norm = get_total_norm([p.grad for p in self.module.parameters() if p.grad is not None])
        self.log("train/grad_norm", norm, on_step=False, on_epoch=True, batch_size=self._size)

    def on_train_epoch_end(self) -> None:
        last = self.global_step - 1
        optimiser = self.optimizers(use_pl_optimizer=False)
        group = (optimiser[0] if isinstance(optimiser, list) else optimiser).param_groups[0]
        rate = group["initial_lr"] * self._schedule(last)  # the scheduler has gone on to the next step
        self.log_dict({"train/lr": rate, **schedule_values(self.module.objective, last)})

    def on_validation_start(self) -> None:
        self._own_noise()

    def on_validation_end(self) -> None:
        restore_noise(self._noise, self.device)

    def on_test_start(self) -> None:
        self._own_noise()

    def on_test_end(self) -> None:
        restore_noise(self._noise, self.device)

    def _own_noise(self) -> None:
        cuda = {"cuda": torch.cuda.get_rng_state(self.device)} if self.device.type == "cuda" else {}
        self._noise = {"cpu": torch.get_rng_state()} | cuda
        seed_noise(self._seed, self.device)

    def _logged(self, part: str, batch: Any) -> Tensor:
        batch = _batch(batch)
        self._size = batch.size
        loss = self.module(batch, self.global_step)
        means = {f"{part}/{name}": value.detach().mean() for name, value in values_of(loss).items()}
        self.log_dict(means, on_step=False, on_epoch=True, batch_size=batch.size)
        return loss.surrogate.mean()


class Batches:
    """The batches of a split as `fit` sees them: an iterable for ``Trainer.fit`` that needs no workers, for the rows are in memory.

    With a ``seed`` each pass is in the order that ``fit`` with that seed has in that epoch, counted from the first pass; with None always
    in the order of the rows, for validation.

    Raises:
        InputError: ``batch_size`` below 1.

    >>> rows = Batches(Split(torch.arange(6.0).view(3, 2)), batch_size=2, seed=None)
    >>> len(rows), [batch.index.tolist() for batch in rows]
    (2, [[0, 1], [2]])
    """

    def __init__(self, split: Split, *, batch_size: int = 128, seed: int | None = 0) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size={batch_size}: at least 1 is needed")
        self.split = split
        self.batch_size = batch_size
        self.seed = seed
        self._epoch = 0

    def __len__(self) -> int:
        return -(-len(self.split) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        # A generator, so that an iterator that is asked for and not used, which is how the Trainer sees whether there is one, is no pass.
        n, epoch = len(self.split), self._epoch
        self._epoch += 1
        order = torch.arange(n) if self.seed is None else permutation(n, self.seed, epoch)
        for index in order.split(self.batch_size):
            yield self.split.batch(index)


def _batch(batch: object) -> Batch:
    """What the Trainer was given, as a `Batch`."""
    if isinstance(batch, Batch):
        return batch
    x = batch[0] if isinstance(batch, tuple | list) and batch else batch
    if not isinstance(x, Tensor):
        raise InputError(f"a batch is a {type(batch).__name__}: give a Batch(x), a tensor x, or a tuple (x, ...) that begins with x")
    if not x.is_floating_point():
        raise InputError(f"x is {str(x.dtype)[6:]}, and a model takes floating numbers: divide bytes by 255, or use vaekit.data.to_float")
    return Batch(x)
