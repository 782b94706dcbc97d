"""The loop of pytorch/examples, vae/main.py: a DataLoader and one optimiser step per batch."""

from __future__ import annotations

import torch
from network import BATCH, Network, answer, bound, data, loss_function, timed
from torch.utils.data import DataLoader, TensorDataset


def main() -> None:
    train, test, epochs = data()
    network = Network()
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    loader = DataLoader(TensorDataset(train), batch_size=BATCH, shuffle=True)

    def epoch() -> None:
        total = 0.0
        for (x,) in loader:
            optimiser.zero_grad()
            recon, mu, logvar = network(x)
            loss = loss_function(recon, x, mu, logvar)
            loss.backward()
            total += loss.item()
            optimiser.step()

    answer(timed(epoch, epochs), bound(network, test), f"torch {torch.__version__}")


if __name__ == "__main__":
    main()
