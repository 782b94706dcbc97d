"""pythae: its VAE and BaseTrainer with this network."""

from __future__ import annotations

import logging
import tempfile
import time
from importlib.metadata import version

import torch
from network import BATCH, Network, answer, bound, data
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback
from torch import Tensor


class Encoder(BaseEncoder):
    def __init__(self, network: Network) -> None:
        super().__init__()
        self.fc1, self.fc21, self.fc22 = network.fc1, network.fc21, network.fc22

    def forward(self, x: Tensor) -> ModelOutput:
        h = torch.relu(self.fc1(x))
        return ModelOutput(embedding=self.fc21(h), log_covariance=self.fc22(h))


class Decoder(BaseDecoder):
    def __init__(self, network: Network) -> None:
        super().__init__()
        self.fc3, self.fc4 = network.fc3, network.fc4

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=torch.sigmoid(self.fc4(torch.relu(self.fc3(z)))))


class Stopwatch(TrainingCallback):
    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_epoch_begin(self, *args: object, **kwargs: object) -> None:
        self.start = time.perf_counter()

    def on_epoch_end(self, *args: object, **kwargs: object) -> None:
        self.seconds.append(time.perf_counter() - self.start)


def main() -> None:
    logging.disable(logging.CRITICAL)
    train, test, epochs = data()
    network, watch = Network(), Stopwatch()
    config = VAEConfig(input_dim=(784,), latent_dim=20, reconstruction_loss="bce")
    model = VAE(config, encoder=Encoder(network), decoder=Decoder(network))
    with tempfile.TemporaryDirectory() as folder:
        settings = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=epochs,
            learning_rate=1e-3,
            per_device_train_batch_size=BATCH,
            optimizer_cls="Adam",
            no_cuda=True,
        )
        rows = BaseDataset(train, torch.zeros(len(train)))
        trainer = BaseTrainer(model, train_dataset=rows, training_config=settings, callbacks=[watch])
        trainer.train()
    answer(watch.seconds, bound(network, test), f"pythae {version('pythae')}, torch {torch.__version__}")


if __name__ == "__main__":
    main()
