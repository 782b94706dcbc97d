"""Several models at once against each of them alone: the same weights, rows and checkpoints, to float error; and sweeps as a person runs
them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from vaekit import ELBO, IWAE, VAE, Conditional, NonFiniteError, Objective, Training, fit, heads, priors
from vaekit.data import binarise
from vaekit.data.core import DataSet, Split
from vaekit.objectives import Beta, FreeBits, Linear
from vaekit.train.together import Cell, fit_together

ROWS, BATCH, D = 70, 16, 12  # four full batches and one of six


def model(seed: int, *extra: nn.Module, px: nn.Module | None = None) -> VAE:
    torch.manual_seed(seed)
    # Adam would magnify the rounding of a bias before a normalisation, whose gradient is 0
    encoder = nn.Sequential(nn.Linear(D, 8, bias=not extra), *extra, nn.Tanh(), nn.Linear(8, 6))
    decoder = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, D))
    return VAE(priors.StandardNormal(3), Conditional(encoder, heads.Gaussian(3)), Conditional(decoder, px or heads.Bernoulli(D)))


def data() -> DataSet:
    x = torch.rand(ROWS + 20, D, generator=torch.Generator().manual_seed(1))
    return DataSet("toy", train=Split(x[:ROWS]), valid=Split(x[ROWS:]), test=Split(x[ROWS:]))


def grid(objective: Callable[[float], Objective], *extra: Callable[[], nn.Module], **settings: Any) -> list[Cell]:
    """3 seeds x 2 weights x 2 learning rates."""
    training = Training(**({"epochs": 3, "batch_size": BATCH, "device": "cpu"} | settings))
    return [
        Cell(
            model(seed, *(make() for make in extra), px=heads.GaussianFixed(D, 0.5)),
            objective(beta),
            replace(training, seed=seed, optimiser=partial(settings.get("optimiser", torch.optim.Adam), lr=lr)),
        )
        for seed in (0, 1, 2)
        for beta in (0.5, 4.0)
        for lr in (1e-2, 3e-3)
    ]


CASES: dict[str, tuple[Callable[[], list[Cell]], Callable[[], DataSet]]] = {
    "Gaussian, closed form": (lambda: grid(lambda beta: ELBO(closed_form=True, penalty=Beta(beta))), data),
    "IWAE": (lambda: grid(lambda beta: IWAE(3)), data),
    "batch normalisation": (
        lambda: grid(lambda beta: ELBO(2, closed_form=False, penalty=FreeBits(0.1, beta)), lambda: nn.BatchNorm1d(8)),
        data,
    ),
    "drawn anew at each read": (
        lambda: grid(lambda beta: ELBO(penalty=Beta(beta)), optimiser=partial(torch.optim.AdamW, weight_decay=0.1)),
        lambda: binarise(data()),
    ),
    "clipped, averaged, warmed up": (
        lambda: grid(lambda beta: ELBO(penalty=Beta(Linear(0, 1, 7))), clip=0.5, ema=0.9, schedule=Linear(1, 0.2, 12), repeat=2),
        data,
    ),
}


def closeness(cells: Sequence[Cell], alone: Sequence[Cell]) -> float:
    """The largest difference of two cells' weights, as a part of the largest weight of that tensor."""

    def differences(a: nn.Module, b: nn.Module) -> list[float]:
        return [
            float((t - u).abs().max() / u.abs().max().clamp(min=1e-2))
            for t, u in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
        ]

    return max(max(differences(one.model, other.model)) for one, other in zip(cells, alone, strict=True))


@pytest.mark.parametrize(("name", "size"), [*((name, None) for name in CASES), ("IWAE", 5), ("drawn anew at each read", 1)])
def test_each_model_is_the_one_that_it_would_be_alone(name: str, size: int | None) -> None:
    make, given = CASES[name]
    cells, alone = make(), make()
    if size == 1:  # models in turn, by a program that is the same for all
        cells = [replace(cell, training=replace(cell.training, compile=True)) for cell in cells]
    rows = [fit(c.model, given(), objective=c.objective, training=c.training, progress=False).history for c in alone]
    found = fit_together(cells, given(), size=size, progress=False)
    assert closeness(cells, alone) < 2e-5
    for i, history in enumerate(rows):
        assert not isinstance(found[i], NonFiniteError)
        for mine, theirs in zip(found[i].history, history, strict=True):
            assert list(mine) == list(theirs)
            assert {k: v for k, v in mine.items() if k != "seconds"} == pytest.approx(
                {k: v for k, v in theirs.items() if k != "seconds"}, rel=1e-4
            )
    assert max(closeness([a], [b]) for a, b in zip(cells[1:], cells, strict=False)) > 1e-2, "cells differ from each other"
