"""Adagrad with a warm-up, against torch's own with its accumulators set by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.optim import Adagrad

from vaekit.errors import InputError
from vaekit.train import WarmAdagrad


def gradients(model: nn.Linear, x: torch.Tensor) -> None:
    model.zero_grad()
    (model(x).square().sum() + model.bias.sum()).backward()


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_it_is_adagrad_with_the_squares_of_the_first_batches(weight_decay: float) -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(4, 3).double(), torch.randn(10, 5, 4, dtype=torch.float64)
    other, start = copy.deepcopy(model), model.weight.detach().clone()
    warm = WarmAdagrad(model.parameters(), lr=0.1, warmup=6, weight_decay=weight_decay)
    plain = Adagrad(other.parameters(), lr=0.1, weight_decay=weight_decay)
    for p in other.parameters():
        plain.state[p]["sum"].zero_()
    for batch in x[:6]:
        gradients(other, batch)
        for p in other.parameters():
            assert p.grad is not None
            plain.state[p]["sum"] += (p.grad + weight_decay * p.detach()) ** 2
    for n, batch in enumerate(x):
        gradients(model, batch)
        warm.step()
        if n < 6:
            assert torch.equal(model.weight, other.weight)
            assert model.weight.grad is not None
            continue
        gradients(other, batch)
        plain.step()
        torch.testing.assert_close(model.weight, other.weight, rtol=1e-12, atol=0)
    assert not torch.equal(model.weight, start)


def test_a_restart_in_the_warm_up_changes_nothing() -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(4, 3), torch.randn(8, 5, 4)
    twin = copy.deepcopy(model)
    optimiser, first = WarmAdagrad(model.parameters(), warmup=4), WarmAdagrad(twin.parameters(), warmup=4)
    second = WarmAdagrad(twin.parameters(), warmup=4)
    for n, batch in enumerate(x):
        if n == 2:
            second.load_state_dict(copy.deepcopy(first.state_dict()))
        for network, chosen in ((model, optimiser), (twin, first if n < 2 else second)):
            gradients(network, batch)
            chosen.step()
    assert torch.equal(model.weight, twin.weight)


def test_a_negative_warm_up_is_refused() -> None:
    with pytest.raises(InputError, match="warmup=-1"):
        WarmAdagrad(nn.Linear(1, 1).parameters(), warmup=-1)
