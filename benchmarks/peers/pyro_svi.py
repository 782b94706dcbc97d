"""Pyro: the VAE of its tutorial with this network, SVI with Trace_ELBO."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from network import BATCH, Network, answer, bound, data, timed
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset


def main() -> None:
    train, test, epochs = data()
    network = Network()

    def model(x: Tensor) -> None:
        pyro.module("network", network)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 20), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(network.decode(z), validate_args=False).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        pyro.module("network", network)
        with pyro.plate("data", len(x)):
            mu, logvar = network.encode(x)
            pyro.sample("z", dist.Normal(mu, torch.exp(0.5 * logvar)).to_event(1))

    svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), loss=Trace_ELBO())
    loader = DataLoader(TensorDataset(train), batch_size=BATCH, shuffle=True)

    def epoch() -> None:
        for (x,) in loader:
            svi.step(x)

    answer(timed(epoch, epochs), bound(network, test), f"pyro {pyro.__version__}, torch {torch.__version__}")


if __name__ == "__main__":
    main()
