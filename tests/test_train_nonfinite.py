"""A NaN is found at the step where it arises, and the message names the term, the level, the rows and the step."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from vaekit import ELBO, IWAE, VAE, Batch, Conditional, Ladder, NonFiniteError, Rung, Training, fit, heads, priors
from vaekit.data.core import Split
from vaekit.dist import DiagGaussian
from vaekit.models.core import LatentModel
from vaekit.objectives import Loss
from vaekit.train import loop
from vaekit.train.checkpoint import Checkpoints
from vaekit.train.run import permutation

quiet: Callable[..., Any] = partial(fit, progress=False)
ROWS, BATCH = 40, 8
BAD = (7, 21)  # the rows that do harm, in their first channel
TRAINING = Training(3, BATCH, optimiser=partial(torch.optim.SGD, lr=0.0))


class Poison(nn.Module):
    """c -> distribution, spoilt by ``spoil`` from call ``after`` on (in training), wherever the input's first entry is large."""

    def __init__(self, inner: nn.Module, spoil: Callable[[Distribution, Tensor], Distribution], after: int = 0) -> None:
        super().__init__()
        self.inner = inner
        self.spoil = spoil
        self.after = after
        self.calls = 0

    def forward(self, c: Tensor) -> Distribution:
        d = self.inner(c)
        self.calls += self.training
        hit = (c[..., :1] > 50) & torch.tensor(self.training and self.calls > self.after)
        return self.spoil(d, hit)


def nan_scale(d: Any, hit: Tensor) -> Distribution:
    return DiagGaussian(d.loc, d.log_scale.masked_fill(hit, torch.nan))


def huge_scale(d: Any, hit: Tensor) -> Distribution:
    return DiagGaussian(d.loc, d.log_scale.masked_fill(hit, 1000.0))


def tiny_scale(d: Any, hit: Tensor) -> Distribution:
    return DiagGaussian(d.loc, d.log_scale.masked_fill(hit, -1000.0))


class Root(torch.autograd.Function):
    """The identity, with an infinite gradient where told."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, hit: Tensor) -> Tensor:
        ctx.save_for_backward(hit)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (hit,) = ctx.saved_tensors
        return grads[0].masked_fill(hit, torch.nan), None


def nan_gradient(d: Any, hit: Tensor) -> Distribution:
    return DiagGaussian(Root.apply(d.loc, hit), d.log_scale)


def rows() -> Split:
    x = torch.randn(ROWS, 4, generator=torch.Generator().manual_seed(0))
    for row in BAD:
        x[row, 0] = 100.0
    return Split(x)


def linear(n: int, d: int) -> Conditional:
    torch.manual_seed(0)
    layer = nn.Linear(n, 2 * d)
    nn.init.normal_(layer.weight, std=1e-3)
    return Conditional(layer, heads.Gaussian(d))


def flat(posterior: Callable[[nn.Module], nn.Module] = lambda q: q, likelihood: Callable[[nn.Module], nn.Module] = lambda p: p) -> VAE:
    return VAE(priors.StandardNormal(2), posterior(linear(4, 2)), likelihood(linear(2, 4)))


class Copy(nn.Module):
    """q(z | x) = N(x_1, tiny): it hands x's first entry down, so that what is below knows which rows to spoil."""

    def __init__(self, width: int, inner: nn.Module) -> None:
        super().__init__()
        self.width = width
        self.inner = inner

    def forward(self, d: Tensor) -> Distribution:
        return DiagGaussian(d[..., :1].expand(*d.shape[:-1], self.width) + 0 * self.inner(d).loc, torch.full((self.width,), -3.0))


def ladder(**spoils: Callable[[nn.Module], nn.Module]) -> Ladder:
    """Level 0 copies x's first entry, level 1 sees it, so that any part below can be spoilt for the bad rows."""
    keep: Callable[[nn.Module], nn.Module] = lambda module: module  # noqa: E731
    return Ladder(
        bottom_up=[nn.Identity(), nn.Identity()],
        rungs=[
            Rung(priors.StandardNormal(2), Copy(2, linear(4, 2))),
            Rung(spoils.get("prior", keep)(linear(2, 2)), spoils.get("posterior", keep)(linear(2 + 4, 2)), merge=First()),
        ],
        likelihood=spoils.get("likelihood", keep)(linear(2, 4)),
    )


class Noise(nn.Module):
    """q(z | x) = N(0, I), whatever x."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(d))

    def forward(self, x: Tensor) -> Distribution:
        return DiagGaussian(self.loc.expand(len(x), -1), torch.zeros_like(self.loc))


class First(nn.Module):
    """h' = h: the state handed down stays level 0's, where the marker is."""

    def forward(self, h: Tensor, z: Tensor) -> Tensor:
        return h + 0 * z


def poison(spoil: Callable[[Any, Tensor], Distribution], after: int = 0) -> Callable[[nn.Module], nn.Module]:
    return lambda inner: Poison(inner, spoil, after)


def first_step(after: int = 0) -> tuple[int, list[int]]:
    """The step from number ``after`` on in which a bad row comes, and which of the bad rows are in it."""
    step = 0
    for epoch in range(3):
        for index in permutation(ROWS, TRAINING.seed, epoch).split(BATCH):
            found = sorted(set(index.tolist()) & set(BAD))
            if found and step >= after:
                return step, found
            step += 1
    raise AssertionError


def message(model: LatentModel, *, data: Split | None = None, objective: Any = None, training: Training = TRAINING, **more: Any) -> str:
    with pytest.raises(NonFiniteError) as caught:
        quiet(model, rows() if data is None else data, objective=objective, training=training, **more)
    assert all(bool(p.isfinite().all()) for p in model.parameters())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def examples(found: list[int]) -> str:
    return f"for {len(found)} of {BATCH} examples (row{'s' if len(found) > 1 else ''} {', '.join(map(str, found))})"


CASES: dict[str, tuple[Callable[[], LatentModel], str]] = {
    "NaN scale of q": (lambda: flat(posterior=poison(nan_scale)), "level 0: log_scale of q(z | x) (DiagGaussian) is NaN"),
    "infinite scale of q": (lambda: flat(posterior=poison(huge_scale)), "level 0: z is infinite"),
    "NaN scale of q at level 1": (lambda: ladder(posterior=poison(nan_scale)), "level 1: log_scale of q(z | x) (DiagGaussian) is NaN"),
    "infinite scale of q at level 1": (lambda: ladder(posterior=poison(huge_scale)), "level 1: z is infinite"),
    "NaN scale of p at level 1": (lambda: ladder(prior=poison(nan_scale)), "level 1: log_scale of p(z | above) (DiagGaussian) is NaN"),
    "zero scale of p at level 1": (lambda: ladder(prior=poison(tiny_scale)), "level 1: log p(z | above) is infinite"),
    "NaN in the decoder": (lambda: ladder(likelihood=poison(nan_scale)), "log_scale of p(x | z) (DiagGaussian) is NaN"),
    "zero scale in the decoder": (lambda: ladder(likelihood=poison(tiny_scale)), "log p(x | z) is infinite"),
    "NaN in a gradient alone": (
        lambda: ladder(likelihood=poison(nan_gradient)),
        "the gradient of model.likelihood.inner.net.bias (and of 5 before it), first made by RootBackward, is not finite",
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("after", [0, 6])
def test_the_first_term_is_named(name: str, after: int) -> None:
    make, term = CASES[name]
    model = make()
    for module in model.modules():
        if isinstance(module, Poison):
            module.after = after
    step, found = first_step(after)
    text = message(model)
    assert text.startswith(f"step {step}, epoch {step // 5 + 1}: {term} {examples(found)}; "), text
    assert "the weights were not updated; there is no checkpoint, because the run has no folder" in text


def test_both_kinds_of_gpu_bookkeeping_give_the_same_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking every few steps only, going back to the copy and repeating: the same step, rows and weights."""

    class Late(ELBO):
        """The encoder sees NaN in the bad rows from step 6 on."""

        def forward(self, model: LatentModel, batch: Batch, step: int = 0) -> Loss:
            bad = (batch.x[:, :1] > 50) & (step >= 6) & self.training
            return super().forward(model, batch._replace(x=batch.x.masked_fill(bad, torch.nan)), step)

    step, found = first_step(6)
    models = flat(), flat()
    for every, model in zip((1, 4), models, strict=True):
        monkeypatch.setitem(loop.CHECK_EVERY, "cpu", every)
        text = message(model, objective=Late(), training=Training(3, BATCH, ema=0.9, optimiser=partial(torch.optim.Adam, lr=1e-3)))
        assert text.startswith(f"step {step}, epoch {step // 5 + 1}: level 0: loc of q(z | x) (DiagGaussian) is NaN {examples(found)}")
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))


def test_looking_seldom_changes_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for every in (1, 3):
        monkeypatch.setitem(loop.CHECK_EVERY, "cpu", every)
        found.append(quiet(flat(), rows(), training=Training(3, BATCH, ema=0.9)))
    assert all(torch.equal(a, b) for a, b in zip(*(f.model.parameters() for f in found), strict=True))
    assert found[0].history[-1]["train/bound"] == found[1].history[-1]["train/bound"]


def test_nan_in_x() -> None:
    """A `prepare` that goes wrong only later, or the check before the first step would find it."""
    rotten = False

    def prepare(x: Tensor) -> Tensor:
        return x.masked_fill((x > 50) & torch.tensor(rotten), torch.nan)

    class Rotting(ELBO):
        def forward(self, model: LatentModel, batch: Batch, step: int = 0) -> Loss:
            nonlocal rotten
            rotten = step >= 5
            return super().forward(model, batch, step)

    step, found = first_step(6)
    text = message(flat(), data=Split(rows().x, prepare=prepare), objective=Rotting())
    assert text.startswith(f"step {step}, epoch {step // 5 + 1}: x is NaN {examples(found)}; clean the data or give a mask; ")


def test_the_objective_with_more_samples_is_repeated_as_it_was() -> None:
    step, found = first_step()
    text = message(ladder(likelihood=poison(nan_scale)), objective=IWAE(5))
    assert text.startswith(f"step {step}, epoch {step // 5 + 1}: log_scale of p(x | z) (DiagGaussian) is NaN {examples(found)}")


def test_the_repeat_has_the_same_noise() -> None:
    """A fault that depends on the drawn z: without the step's own noise the message would name other rows, or find none."""

    class Far(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner
            self.first: list[bool] = []

        def forward(self, z: Tensor) -> Distribution:
            d = self.inner(z)
            hit = (z[..., :1] > 1.5) & torch.tensor(self.training)
            if not self.first and bool(hit.any()):
                self.first = hit[0, :, 0].tolist()
            return nan_scale(d, hit)

    for seed in range(5):
        model = VAE(priors.StandardNormal(2), Noise(2), Far(linear(2, 4)))
        text = message(model, training=Training(3, BATCH, seed=seed, optimiser=partial(torch.optim.SGD, lr=0.0)))
        step = int(text.split(",")[0].removeprefix("step "))
        index = permutation(ROWS, seed, step // 5).split(BATCH)[step % 5]
        assert examples(sorted(index[torch.tensor(model.likelihood.first)].tolist())) in text


def test_parameters_inside_torch_distributions_are_seen() -> None:
    class Torch(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, c: Tensor) -> Distribution:
            d = self.inner(c)
            scale = d.scale.masked_fill((c[..., :1] > 50) & torch.tensor(self.training), torch.nan)
            return Independent(Normal(d.loc, scale, validate_args=False), 1, validate_args=False)

    step, found = first_step()
    text = message(flat(posterior=Torch))
    assert text.startswith(f"step {step}, epoch {step // 5 + 1}: level 0: scale of q(z | x) (Independent(Normal)) is NaN {examples(found)}")


def test_a_surrogate_alone() -> None:
    class Bad(ELBO):
        def forward(self, model: LatentModel, batch: Batch, step: int = 0) -> Loss:
            loss = super().forward(model, batch, step)
            return loss._replace(surrogate=loss.surrogate / (1 - (batch.x[:, 0] > 50).float()))

    step, found = first_step()
    assert message(flat(), objective=Bad()).startswith(
        f"step {step}, epoch {step // 5 + 1}: the surrogate, though the terms of the bound are finite, is infinite {examples(found)}"
    )


def test_the_last_good_checkpoint_is_named_and_finite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    after = 6
    monkeypatch.setattr("vaekit.train.loop.EPOCH_SECONDS", 0.0)  # one at each epoch's end
    text = message(ladder(likelihood=poison(nan_scale, after)), out=tmp_path)
    step, _ = first_step(after)
    store = Checkpoints(tmp_path / "checkpoints", 3)
    path, tensors, value = store.load() or pytest.fail("no checkpoint")
    assert f"the last good checkpoint is {path}" in text and value["at"]["step"] == step // 5 * 5
    assert all(bool(t.isfinite().all()) for t in tensors.values() if t.is_floating_point())


@pytest.mark.parametrize(("batch", "minutes"), [(BATCH, 0), (1000, 1)])
def test_an_update_that_overflows_is_not_saved(batch: int, minutes: float, tmp_path: Path) -> None:
    """And is found at an epoch's end, whether or not that writes a checkpoint."""
    training = Training(2, batch, optimiser=partial(torch.optim.SGD, lr=1e38), checkpoint_minutes=minutes)
    with pytest.raises(NonFiniteError, match=r"step 0: model\.\S+ is NaN or infinite after the update, .*step-00000000"):
        quiet(flat(), rows(), training=training, out=tmp_path)
    assert [path.name for path in Checkpoints(tmp_path / "checkpoints", 3).paths()] == ["step-00000000.safetensors"]


class Spoilt(ELBO):
    """The ELBO, NaN in training at step 6."""

    def forward(self, model: LatentModel, batch: Batch, step: int = 0) -> Loss:
        loss = super().forward(model, batch, step)
        return loss._replace(surrogate=loss.surrogate * (torch.nan if self.training and step == 6 else 1.0))


def normalised() -> VAE:
    model = flat()
    model.posterior.net = nn.Sequential(nn.BatchNorm1d(4), model.posterior.net)
    return model


@pytest.mark.parametrize("every", [1, 4])
def test_buffers_are_those_before_the_step_and_the_mode_is_evaluation(every: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(loop.CHECK_EVERY, "cpu", every)
    model, good = normalised().train(), normalised()
    index = [i for epoch in (0, 1) for i in permutation(ROWS, 0, epoch).split(BATCH)]
    for i in index[:6]:
        good.posterior.net[0](rows().x[i])
    assert message(model, objective=Spoilt()).startswith("step 6, ")
    for name, b in good.named_buffers():
        torch.testing.assert_close(dict(model.named_buffers())[name], b)
    assert not any(module.training for module in model.modules())


def test_a_buffer_that_breaks_alone_is_not_saved(tmp_path: Path) -> None:
    """A running average that overflows without a trace in the loss."""

    class Counting(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner
            self.register_buffer("average", torch.ones(()))
            self.register_buffer("forbidden", torch.tensor(-torch.inf))  # meant

        def forward(self, c: Tensor) -> Distribution:
            if self.training:
                self.average *= 1e30
            d: Distribution = self.inner(c)
            return d

    training = Training(1, BATCH, checkpoint_minutes=0)
    with pytest.raises(NonFiniteError, match=r"step 1: the buffer model.likelihood.average is NaN or infinite .*step-00000001"):
        quiet(flat(likelihood=Counting), rows(), training=training, out=tmp_path)
