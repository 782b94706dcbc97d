"""The network as a LightningModule in Lightning's Trainer."""

from __future__ import annotations

import logging
import tempfile
import time
import warnings

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from network import BATCH, Network, answer, bound, data, loss_function
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset


class Module(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.network = Network()

    def training_step(self, batch: list[Tensor], number: int) -> Tensor:
        (x,) = batch
        recon, mu, logvar = self.network(x)
        loss = loss_function(recon, x, mu, logvar) / len(x)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


class Stopwatch(Callback):
    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_epoch_start(self, *args: object) -> None:
        self.start = time.perf_counter()

    def on_train_epoch_end(self, *args: object) -> None:
        self.seconds.append(time.perf_counter() - self.start)


def main() -> None:
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    train, test, epochs = data()
    module, watch = Module(), Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        trainer = lightning.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            devices=1,
            callbacks=[watch],
            default_root_dir=folder,
            enable_progress_bar=False,
            enable_model_summary=False,
            logger=False,
        )
        trainer.fit(module, DataLoader(TensorDataset(train), batch_size=BATCH, shuffle=True))
    answer(watch.seconds, bound(module.network, test), f"lightning {lightning.__version__}, torch {torch.__version__}")


if __name__ == "__main__":
    main()
