"""The models behind the estimators: how they are built for D columns, and how they are trained without a trace on disk or screen."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from vaekit import heads
from vaekit.conditional import Conditional
from vaekit.data.core import DataSet, Split
from vaekit.models import VAE, with_mask
from vaekit.nn import Layer, mlp
from vaekit.objectives.core import Objective
from vaekit.objectives.schedules import Constant, Cosine
from vaekit.tensors import seed_noise
from vaekit.train import Training, fit
from vaekit.types import Batch

__all__ = ["Hide", "Plan", "build", "train"]

FAR = 8.0
"""Standard deviations beyond which the encoder no longer sees how far away an entry lies; the likelihood does."""
ROUND = 50
"""Steps, at least, between two looks at the held-out rows."""
ENOUGH = 20
"""Held-out rows whose mean bound is good enough to stop by."""


class Network(nn.Module):
    """A multilayer perceptron of SiLU units beside a linear map of the same input: their sum.

    Columns of small tables mostly depend on each other linearly. The map learns that part in few steps, and what is left to the perceptron
    is how the rows bend away from it.
    """

    def __init__(self, in_features: int, layers: Sequence[int], out_features: int) -> None:
        super().__init__()
        self.curved = mlp(in_features, [Layer(width, nn.SiLU) for width in layers], out_features)
        self.straight = nn.Linear(in_features, out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        bent: Tensor = self.curved(x)
        return bent + self.straight(x)


class Hide(nn.Module):
    r"""In training, entries of (x, m) ``[B, 2 D]`` shown as missing ones are, (0, 0), each row's own share of them, drawn anew each time.

    .. math:: s_b \sim U(0, 2 \bar s), \quad (x_{bd}, m_{bd}) \to (0, 0) \text{ with probability } \min(s_b, 1)

    The likelihood still scores every observed entry: log p(x) is bounded from below by any q, that of fewer entries too. The entries
    that were hidden have to be told from the others, as missing ones will have to be, and cannot be passed through by heart (denoising:
    Vincent, Larochelle, Bengio and Manzagol, 2008; Im, Ahn, Memisevic and Bengio, "Denoising Criterion for Variational Auto-Encoding
    Framework", AAAI 2017).

    Args:
        share: the share hidden in the mean, :math:`\bar s`, in [0, 1).

    >>> layer = Hide(0.2)
    >>> bool((layer.eval()(torch.ones(5, 6)) == 1).all())
    True
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, h: Tensor) -> Tensor:
        if not self.training or self.share == 0:
            return h
        rows, columns = h.shape[0], h.shape[1] // 2
        shown = torch.rand(rows, columns, device=h.device) >= 2 * self.share * torch.rand(rows, 1, device=h.device)
        return h * torch.cat([shown, shown], 1)


class Encoder(nn.Sequential):
    """A `Network` behind a clamp: q(z | x) of an absurd row is that of a merely strange one, and finite. In training `Hide` comes first."""

    def __init__(self, in_features: int, layers: Sequence[int], out_features: int, hide: float = 0.0) -> None:
        super().__init__(Hide(hide), nn.Hardtanh(-FAR, FAR), Network(in_features, layers, out_features))


def build(head: heads.Head, prior: Callable[[int], nn.Module], latent: int, layers: Sequence[int], seed: int, *, hide: float = 0.0) -> VAE:
    """A VAE of standardised columns; its encoder is told which entries were observed. The caller's random numbers are left alone.

    Args:
        head: of p(x | z); its event is a row.
        prior: latent dimensions -> the prior.
        latent: D.
        layers: widths of the hidden layers of the encoder, and of the decoder in this order too.
        seed: of the initial weights.
        hide: the share of the entries that the encoder is not shown in training, in the mean.
    """
    with torch.random.fork_rng(devices=[]):
        seed_noise(seed, torch.device("cpu"))
        return VAE(
            prior(latent),
            Conditional(Encoder(2 * head.size, layers, 2 * latent, hide), heads.Gaussian(latent)),
            Conditional(Network(latent, layers, head.features), head),
            view=with_mask,
        )


@dataclass(frozen=True)
class Plan:
    """How `train` trains.

    Attributes:
        objective: whose surrogate is minimised.
        steps: of the optimiser, at least; rounded up to whole passes.
        batch_size: rows a step.
        learning_rate: of Adam.
        anneal: whether it falls to 0 along half a cosine.
        held_out: share of the rows to stop early by; 0 for none. Not used where that would be fewer than `ENOUGH` rows.
        patience: looks at the held-out rows without a better bound before training stops.
        seed: of the split, the order and the noise.
    """

    objective: Objective
    steps: int
    batch_size: int
    learning_rate: float
    anneal: bool
    held_out: float
    patience: int
    seed: int


def train(model: VAE, batch: Batch, plan: Plan) -> int:
    """Train on a batch's rows in place as ``plan`` says, in float32; the model comes back in float64, in which it is to be evaluated. The
    steps behind its weights: fewer than were done where it was best before the last."""
    generator = torch.Generator().manual_seed(plan.seed)
    order = torch.randperm(batch.size, generator=generator)
    held = int(plan.held_out * batch.size)
    held = held if held >= ENOUGH else 0
    rows = order[held:]
    size = min(plan.batch_size, len(rows))
    # few rows are passed over many times in a row, because what surrounds an epoch costs as much as some of its steps
    passes = max(1, min(-(-ROUND * size // len(rows)), plan.steps * size // len(rows)))
    train_rows = _split(batch, rows.repeat(passes))
    per_epoch = -(-len(train_rows) // size)
    epochs = -(-plan.steps // per_epoch)
    valid = _split(batch, order[:held]) if held else None
    data = train_rows if valid is None else DataSet("rows", train=train_rows, test=valid, valid=valid)
    training = Training(
        epochs=epochs,
        batch_size=size,
        optimiser=partial(torch.optim.Adam, lr=plan.learning_rate),
        schedule=Cosine(1, 0, epochs * per_epoch) if plan.anneal else Constant(1.0),
        clip=CLIP * math.sqrt(batch.x.shape[1]),
        patience=plan.patience if held else None,
        seed=plan.seed,
        device="cpu",
        compile=False,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="level .* has collapsed")  # columns without a common cause have no latent
        fitted = fit(model.float(), data, objective=plan.objective, training=training, progress=False)
    model.double()
    return fitted.step if not held or fitted.best_step is None else fitted.best_step


CLIP = 10.0
"""Largest gradient norm, times the square root of the number of columns."""


def _split(batch: Batch, rows: torch.Tensor) -> Split:
    return Split(batch.x[rows].float(), mask=None if batch.mask is None else batch.mask[rows])
