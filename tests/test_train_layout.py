"""Convolutions train with their channels innermost, which changes nothing but the time, and nobody finds them so afterwards."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vaekit import ELBO, VAE, Batch, Conditional, Loss, Training, fit, heads, priors
from vaekit.data.core import Split
from vaekit.models.core import LatentModel
from vaekit.nn import conv_decoder, conv_encoder
from vaekit.train.keep import as_parameters, channels_last
from vaekit.train.run import permutation

SHAPE = (3, 8, 8)


def model() -> VAE:
    torch.manual_seed(0)
    return VAE(
        priors.StandardNormal(2),
        Conditional(conv_encoder(SHAPE, channels=(6, 8), features=4), heads.Gaussian(2), event_dim=3),
        Conditional(conv_decoder(2, SHAPE, channels=(8, 6)), heads.Bernoulli(SHAPE)),
    )


def rows() -> Split:
    return Split(torch.rand(64, *SHAPE, generator=torch.Generator().manual_seed(1)).round())


class Watching(ELBO):
    """The ELBO, and a note of whether the second convolution's weight is stored row by row."""

    def __init__(self) -> None:
        super().__init__()
        self._by_rows: set[bool] = set()

    def forward(self, model: LatentModel, batch: Batch, step: int = 0) -> Loss:
        if self.training:
            self._by_rows.add(convolution(model).weight.is_contiguous())
        return super().forward(model, batch, step)


def convolution(model: nn.Module) -> nn.Conv2d:
    return [part for part in model.modules() if isinstance(part, nn.Conv2d)][1]


@pytest.mark.parametrize("fused", [None, False])
def test_a_run_is_that_of_a_plain_loop(fused: bool | None) -> None:
    objective = Watching()
    fitted = fit(
        model(),
        rows(),
        objective=objective,
        training=Training(epochs=3, batch_size=16, seed=5, optimiser=lambda p: torch.optim.Adam(p, 1e-2, fused=fused)),
        progress=False,
    )
    assert objective._by_rows == {False} and convolution(fitted.model).weight.is_contiguous()
    assert all(p.is_contiguous() and p.grad is None for p in fitted.model.parameters() if p.dim() == 4 and p.shape[1] > 1)

    plain, x = model(), rows().x
    optimiser = torch.optim.Adam(plain.parameters(), 1e-2, foreach=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        for epoch in range(3):
            for index in permutation(64, 5, epoch).split(16):
                optimiser.zero_grad()
                ELBO()(plain, Batch(x[index])).surrogate.mean().backward()
                optimiser.step()
    for mine, theirs in zip(fitted.model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=1e-4)
    assert float((convolution(plain).weight - convolution(model()).weight).abs().max()) > 1e-2, "nothing was learned"


def test_averages_get_the_layout_of_their_parameters() -> None:
    """A fused update walks raw memory: averages stored row by row would meet the wrong weights."""
    net = nn.Conv2d(3, 4, 3)
    channels_last(net)
    optimiser = torch.optim.Adam(net.parameters(), 1e-2, fused=True)
    net(torch.rand(2, 3, 5, 5)).square().sum().backward()
    optimiser.step()
    state = optimiser.state_dict()
    values = {n: s["exp_avg"].contiguous() for n, s in state["state"].items()}
    state["state"] = {n: s | {"exp_avg": values[n], "exp_avg_sq": s["exp_avg_sq"].contiguous()} for n, s in state["state"].items()}
    optimiser.load_state_dict(state)
    assert optimiser.state[net.weight]["exp_avg"].stride() != net.weight.stride()
    as_parameters(optimiser)
    for name in ("exp_avg", "exp_avg_sq"):
        assert optimiser.state[net.weight][name].stride() == net.weight.stride()
    assert torch.equal(optimiser.state[net.weight]["exp_avg"], values[0])
