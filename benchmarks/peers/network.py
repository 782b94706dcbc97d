"""The network in plain torch, for the peers that take a module; after pytorch/examples' vae/main.py."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

BATCH = 128


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc21, self.fc22 = nn.Linear(784, 400), nn.Linear(400, 20), nn.Linear(400, 20)
        self.fc3, self.fc4 = nn.Linear(20, 400), nn.Linear(400, 784)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = F.relu(self.fc1(x))
        return self.fc21(h), self.fc22(h)

    def decode(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.fc4(F.relu(self.fc3(z))))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mu, logvar = self.encode(x)
        std = torch.exp(0.5 * logvar)
        return self.decode(mu + torch.randn_like(std) * std), mu, logvar


def loss_function(recon: Tensor, x: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """-ELBO, summed over the batch."""
    return F.binary_cross_entropy(recon, x, reduction="sum") - 0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())


def data() -> tuple[Tensor, Tensor, int]:
    """Training rows, test rows and the number of epochs, as the command line says."""
    arrays = np.load(sys.argv[1])
    torch.manual_seed(int(sys.argv[3]))
    return torch.from_numpy(arrays["train"]), torch.from_numpy(arrays["test"]), int(sys.argv[2])


def bound(network: Network, test: Tensor) -> float:
    with torch.no_grad():
        return -float(loss_function(network(test)[0], test, *network.encode(test))) / len(test)


def timed(epoch: Callable[[], None], epochs: int) -> list[float]:
    seconds = []
    for _ in range(epochs):
        start = time.perf_counter()
        epoch()
        seconds.append(time.perf_counter() - start)
    return seconds


def answer(seconds: list[float], test_bound: float, version: str) -> None:
    print(json.dumps({"seconds": seconds, "bound": test_bound, "version": version}))
