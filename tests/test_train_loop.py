"""What `fit` does to the weights and what it reports, against answers known beforehand."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, MultivariateNormal

from vaekit import ELBO, VAE, Batch, Conditional, InputError, Loss, Objective, Training, fit, heads, priors
from vaekit.data.core import DataSet, Split
from vaekit.dist import DiagGaussian
from vaekit.models.core import LatentModel
from vaekit.objectives import Beta, Cosine, Linear, Schedule, Stages
from vaekit.train import loop
from vaekit.train.files import read
from vaekit.train.run import permutation

SGD = partial(torch.optim.SGD, lr=1.0)
quiet: Callable[..., Any] = partial(fit, progress=False)


class Slope(Objective):
    """surrogate = -slope theta, bound = -(theta - peak)^2, with theta the first decoder bias: SGD at rate 1 adds ``slope`` a step."""

    def __init__(self, slope: float = 1.0, peak: float = 3.0) -> None:
        super().__init__()
        self.slope = slope
        self.peak = peak
        self.seen: list[Tensor] = []

    def forward(self, model: LatentModel, batch: Batch, step: int = 0) -> Loss:
        assert batch.index is not None
        if self.training:
            self.seen.append(batch.index.clone())
        theta = theta_of(model)
        bound = -((theta - self.peak) ** 2)
        return Loss(-self.slope * theta.expand(batch.size), bound.detach().expand(batch.size), {"theta": theta.detach().expand(batch.size)})


def theta_of(model: nn.Module) -> Tensor:
    return dict(model.named_parameters())["likelihood.net.bias"][0]


def theta(model: nn.Module) -> float:
    return float(theta_of(model).detach())


def small(dropout: float = 0.0) -> VAE:
    """3-dimensional data, 2 latent dimensions; theta starts at 0."""
    torch.manual_seed(0)
    model = VAE(
        priors.StandardNormal(2),
        Conditional(nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 4)), heads.Gaussian(2)),
        Conditional(nn.Linear(2, 6), heads.Gaussian(3)),
    )
    nn.init.zeros_(model.likelihood.net.bias)
    return model


def rows(n: int, seed: int = 0) -> Split:
    return Split(torch.randn(n, 3, generator=torch.Generator().manual_seed(seed)))


def dataset(n: int = 4, valid: int = 4) -> DataSet:
    return DataSet("toy", train=rows(n), test=rows(4, 1), valid=rows(valid, 2))


class Isotropic(nn.Module):
    """p(x | z) = N(W z + b, sigma^2 I)."""

    def __init__(self, n: int, d: int) -> None:
        super().__init__()
        self.linear = nn.Linear(n, d)
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, c: Tensor) -> Distribution:
        mean = self.linear(c)
        return DiagGaussian(mean, self.log_scale.expand_as(mean))


class Full(nn.Module):
    """q(z | x) = N(V x + a, L L^T): it can hold PPCA's exact posterior, in whichever rotation the decoder finds."""

    def __init__(self, n: int, d: int) -> None:
        super().__init__()
        self.linear = nn.Linear(n, d)
        self.lower = nn.Parameter(torch.zeros(d, d))

    def forward(self, c: Tensor) -> Distribution:
        tril = self.lower.tril(-1) + torch.diag(self.lower.diagonal().exp())
        return MultivariateNormal(self.linear(c), scale_tril=tril, validate_args=False)


def test_linear_vae_reaches_the_evidence_of_probabilistic_pca() -> None:
    """The ELBO's optimum over linear models is the maximum likelihood of PPCA, which the eigenvalues of the covariance give."""
    n, d, latent = 1000, 5, 2
    g = torch.Generator().manual_seed(0)
    w = torch.randn(d, latent, generator=g) * torch.tensor([0.8, 0.5])
    x = torch.randn(n, latent, generator=g) @ w.T + 0.5 * torch.randn(n, d, generator=g) + torch.randn(d, generator=g)
    eigenvalues = torch.linalg.eigvalsh(torch.cov(x.double().T, correction=0)).flip(0)
    noise = eigenvalues[latent:].mean()
    optimum = -0.5 * (d * math.log(2 * math.pi) + eigenvalues[:latent].log().sum() + (d - latent) * noise.log() + d)

    torch.manual_seed(0)
    model = VAE(priors.StandardNormal(latent), Full(d, latent), Isotropic(latent, d))
    training = Training(
        epochs=40, batch_size=100, optimiser=partial(torch.optim.Adam, lr=0.05), schedule=Cosine(1, 0, 400), ema=0.98, precision="64-true"
    )
    fitted = quiet(model, Split(x), objective=ELBO(k=2), training=training)
    loss = ELBO(k=1000)(fitted.model.double(), Batch(x.double()), 0)
    assert loss.bound is not None
    gap = float(optimum - loss.bound.mean())
    assert abs(gap) < 0.002, gap  # nats; the first epoch is 4 away, the noise of the evaluation 0.0003
    learned = model.state_dict()["likelihood.log_scale"].mul(2).exp()
    assert float(learned / noise) == pytest.approx(1, abs=0.02)
    assert fitted.history[-1]["train/bound"] == pytest.approx(float(optimum), abs=0.05)


def test_ema_is_the_geometric_average() -> None:
    decay, steps = 0.7, 6
    fitted = quiet(small(), rows(12), objective=Slope(), training=Training(2, 4, optimiser=SGD, ema=decay))
    thetas = torch.arange(1, steps + 1).double()  # after steps 1..6
    weights = decay ** (steps - thetas)
    assert theta(fitted.model) == pytest.approx(float((weights * thetas).sum() / weights.sum()), rel=1e-6)


def test_validation_sees_the_average_and_training_does_not() -> None:
    fitted = quiet(small(), dataset(8), objective=Slope(), training=Training(1, 4, optimiser=SGD, ema=0.5))
    row = fitted.history[0]
    assert row["train/theta"] == pytest.approx(0.5)  # 0 at the first step, 1 at the second
    assert row["valid/theta"] == pytest.approx((0.5 * 1 + 1 * 2) / 1.5)


def test_clip_bounds_the_step_and_logs_the_norm_before_it() -> None:
    fitted = quiet(small(), rows(8), objective=Slope(slope=10.0), training=Training(1, 4, optimiser=SGD, clip=0.25))
    assert theta(fitted.model) == pytest.approx(0.5, rel=1e-4)
    assert fitted.history[0]["train/grad_norm"] == pytest.approx(10.0)


def test_schedule_multiplies_the_learning_rate_of_each_step() -> None:
    schedule = Stages(ends=(2, 4), values=(1.0, 0.5, 0.25))
    training = Training(3, 4, optimiser=partial(torch.optim.SGD, lr=2.0), schedule=schedule)
    fitted = quiet(small(), rows(8), objective=Slope(), training=training)
    assert [row["train/lr"] for row in fitted.history] == [2.0, 1.0, 0.5]
    assert theta(fitted.model) == pytest.approx(2 * (2 * 1 + 2 * 0.5 + 2 * 0.25))


def test_every_epoch_covers_every_row_once_in_its_own_order() -> None:
    objective, again, other = Slope(), Slope(), Slope()
    quiet(small(), rows(10), objective=objective, training=Training(3, 4, optimiser=SGD))
    quiet(small(), rows(10), objective=again, training=Training(3, 4, optimiser=SGD))
    quiet(small(), rows(10), objective=other, training=Training(3, 4, optimiser=SGD, seed=1))
    assert [len(index) for index in objective.seen] == [4, 4, 2] * 3
    epochs = [torch.cat(objective.seen[i : i + 3]) for i in (0, 3, 6)]
    for epoch in epochs:
        assert sorted(epoch.tolist()) == list(range(10))
    assert not torch.equal(epochs[0], epochs[1])
    assert torch.equal(torch.cat(objective.seen), torch.cat(again.seen))
    assert not torch.equal(torch.cat(objective.seen), torch.cat(other.seen))


def test_repeat_takes_each_batch_several_times_in_a_row() -> None:
    objective, once = Slope(), Slope()
    quiet(small(), rows(10), objective=once, training=Training(2, 4, optimiser=SGD))
    fitted = quiet(small(), rows(10), objective=objective, training=Training(2, 4, optimiser=SGD, repeat=3))
    assert fitted.step == 18
    assert [index.tolist() for index in objective.seen] == [index.tolist() for index in once.seen for _ in range(3)]


def test_permutation_is_uniform() -> None:
    first = torch.tensor([int(permutation(4, seed=0, epoch=e)[0]) for e in range(2000)])
    counts = torch.bincount(first, minlength=4)
    assert float(((counts - 500) ** 2 / 500).sum()) < 16.3  # chi-squared, 3 degrees of freedom, p = 0.001


def test_averages_weigh_examples_not_batches() -> None:
    """A frozen model whose decoder ignores z: the mean over the epoch is the mean over the rows, for every batch size."""
    split = rows(23)

    def deterministic() -> VAE:
        model = small()
        nn.init.zeros_(model.likelihood.net.weight)
        return model

    frozen = partial(torch.optim.SGD, lr=0.0)
    with torch.no_grad():
        loss = ELBO()(deterministic().double(), Batch(split.x.double()), 0)
    assert loss.bound is not None
    expected = {"bound": loss.bound.mean(), "surrogate": loss.surrogate.mean()} | {name: v.mean() for name, v in loss.logs.items()}
    for batch_size in (1, 7, 11, 22, 64):
        data = DataSet("toy", train=split, test=split, valid=split)
        training = Training(1, batch_size, optimiser=frozen, precision="64-true")
        row = quiet(deterministic(), data, training=training).history[0]
        for name, value in expected.items():
            assert row[f"train/{name}"] == pytest.approx(float(value), rel=1e-6)
            assert row[f"valid/{name}"] == pytest.approx(float(value), rel=1e-6)
    assert row["train/bound"] == pytest.approx(row["train/log_px"] - row["train/rate_0"], rel=1e-6)


def test_early_stopping_returns_the_best_epoch() -> None:
    """One step of 1 an epoch, the bound peaks at theta = 3: best after epoch 3, stopped after two more."""
    fitted = quiet(small(), dataset(4), objective=Slope(peak=3.2), training=Training(50, 4, optimiser=SGD, patience=2))
    assert len(fitted.history) == 5 and fitted.step == 5 and fitted.best_step == 3
    assert theta(fitted.model) == 3.0
    assert [row["valid/bound"] for row in fitted.history] == pytest.approx([-((e - 3.2) ** 2) for e in range(1, 6)], rel=1e-5)


class WarmedUp(Slope):
    """`Slope`, with a penalty whose schedules settle as told."""

    def __init__(self, *schedules: Schedule, peak: float) -> None:
        super().__init__(peak=peak)
        self.penalties = nn.ModuleList(map(Beta, schedules))


def test_early_stopping_waits_for_the_warm_up() -> None:
    """The peak lies at theta = 1.2, within the warm-up of 6 steps: the first bound that counts is that of epoch 6."""
    objective = WarmedUp(Linear(0, 1, 4), Linear(0, 1, 6), peak=1.2)
    fitted = quiet(small(), dataset(4), objective=objective, training=Training(50, 4, optimiser=SGD, patience=2))
    assert len(fitted.history) == 8 and fitted.best_step == 6 and theta(fitted.model) == 6.0


@pytest.mark.filterwarnings("ignore:Beta. its schedule settles")
def test_a_warm_up_that_never_ends_leaves_the_last_weights() -> None:
    objective = WarmedUp(Linear(0, 1, 100), peak=1.2)
    fitted = quiet(small(), dataset(4), objective=objective, training=Training(5, 4, optimiser=SGD, patience=2))
    assert len(fitted.history) == 5 and fitted.best_step is None and theta(fitted.model) == 5.0


def test_early_stopping_with_an_average_returns_the_best_average() -> None:
    decay = 0.5
    fitted = quiet(small(), dataset(4), objective=Slope(peak=3.2), training=Training(50, 4, optimiser=SGD, patience=2, ema=decay))
    averages = [sum(decay ** (t - s) * s for s in range(1, t + 1)) / sum(decay ** (t - s) for s in range(1, t + 1)) for t in range(1, 8)]
    best = min(averages, key=lambda a: abs(a - 3.2))
    assert theta(fitted.model) == pytest.approx(best, rel=1e-6) and fitted.best_step == averages.index(best) + 1


def test_without_patience_the_last_weights_stay() -> None:
    fitted = quiet(small(), dataset(4), objective=Slope(peak=3.2), training=Training(6, 4, optimiser=SGD))
    assert theta(fitted.model) == 6.0 and fitted.best_step == 3


def weights(model: nn.Module) -> Sequence[Tensor]:
    return list(model.state_dict().values())


def equal(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(s, t) for s, t in zip(weights(a), weights(b), strict=True))


def test_validation_leaves_training_noise_alone() -> None:
    training = Training(3, 4)
    with_it = quiet(small(dropout=0.3), dataset(12), training=training)
    without = quiet(small(dropout=0.3), dataset(12).train, training=training)
    assert equal(with_it.model, without.model)
    assert "valid/bound" in with_it.history[0] and "valid/bound" not in without.history[0]


def test_validation_is_the_same_for_the_same_weights() -> None:
    fitted = quiet(small(dropout=0.3), dataset(12), training=Training(3, 4, optimiser=partial(torch.optim.SGD, lr=0.0)))
    bounds = [row["valid/bound"] for row in fitted.history]
    assert bounds[0] == bounds[1] == bounds[2]
    trained = [row["train/bound"] for row in fitted.history]
    assert len(set(trained)) == 3  # new noise each epoch


def test_training_trains_and_validation_evaluates() -> None:
    class Mode(Slope):
        def forward(self, model: LatentModel, batch: Batch, step: int = 0) -> Loss:
            modes = {"model": float(model.training), "objective": float(self.training), "gradient": float(torch.is_grad_enabled())}
            return super().forward(model, batch, step)._replace(logs={name: torch.tensor(mode) for name, mode in modes.items()})

    fitted = quiet(small(), dataset(8), objective=Mode(), training=Training(2, 4, optimiser=SGD))
    for row in fitted.history:
        assert [row[f"train/{name}"] for name in ("model", "objective", "gradient")] == [1, 1, 1]
        assert [row[f"valid/{name}"] for name in ("model", "objective", "gradient")] == [0, 0, 0]
    assert not fitted.model.training


def test_the_seed_decides_and_the_callers_generator_is_untouched() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    model = small()
    torch.set_rng_state(before)
    first = quiet(model, dataset(12), training=Training(2, 4))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(8)
    assert equal(first.model, quiet(small(), dataset(12), training=Training(2, 4)).model)
    assert not equal(first.model, quiet(small(), dataset(12), training=Training(2, 4, seed=1)).model)


def test_a_warm_up_reaches_the_objective_and_is_logged() -> None:
    objective = ELBO(penalty=Beta(Linear(0, 1, 4)))
    fitted = quiet(small(), rows(8), objective=objective, training=Training(3, 4))
    assert [row["train/schedule_0"] for row in fitted.history] == [0.25, 0.75, 1.0]
    first, *_, last = fitted.history
    assert first["train/surrogate"] < -first["train/bound"]  # the rate costs less than 1
    assert last["train/surrogate"] == pytest.approx(-last["train/bound"])


def test_a_warm_up_longer_than_the_run_warns() -> None:
    with pytest.warns(UserWarning, match=r"settles at step 100 and the run ends at step 4, where it is 0\.03 and not yet 1"):
        quiet(small(), rows(8), objective=ELBO(penalty=Beta(Linear(0, 1, 100))), training=Training(2, 4))


def test_an_objective_with_parameters_trains_them() -> None:
    class Baseline(Slope):
        def __init__(self) -> None:
            super().__init__()
            self.level = nn.Parameter(torch.zeros(()))

        def forward(self, model: LatentModel, batch: Batch, step: int = 0) -> Loss:
            loss = super().forward(model, batch, step)
            return loss._replace(surrogate=loss.surrogate - self.level)

    objective = Baseline()
    quiet(small(), rows(8), objective=objective, training=Training(2, 4, optimiser=SGD))
    assert objective.level.item() == 4.0


def test_no_bound_is_fine_without_patience() -> None:
    class Unbounded(Slope):
        def forward(self, model: LatentModel, batch: Batch, step: int = 0) -> Loss:
            return super().forward(model, batch, step)._replace(bound=None)

    fitted = quiet(small(), dataset(), objective=Unbounded(), training=Training(2, 4, optimiser=SGD))
    assert "train/bound" not in fitted.history[0] and fitted.best_step is None
    with pytest.raises(InputError, match=r"Unbounded has none: set patience=None"):
        quiet(small(), dataset(), objective=Unbounded(), training=Training(2, 4, patience=1))


def test_frozen_parameters_stay() -> None:
    model = small()
    for p in model.posterior.parameters():
        p.requires_grad_(False)
    before = {name: p.clone() for name, p in model.named_parameters()}
    quiet(model, rows(8), training=Training(1, 4))
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {"likelihood.net.weight", "likelihood.net.bias"}


def test_bfloat16_networks_train_with_float32_densities() -> None:
    fitted = quiet(small(), rows(64), training=Training(20, 16, optimiser=partial(torch.optim.Adam, lr=0.02), precision="bf16-mixed"))
    assert fitted.history[-1]["train/bound"] > fitted.history[0]["train/bound"] + 0.1
    assert all(p.dtype == torch.float32 for p in fitted.model.parameters())


def test_training_announces_nothing(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    quiet(small(), rows(8), training=Training(1, 4, precision="bf16-mixed"))
    assert capfd.readouterr() == ("", "") and not caplog.records


def test_one_device_loads_no_lightning() -> None:
    """It takes seconds and 150 MiB."""
    lines = (
        "import sys, torch, vaekit",
        "from vaekit import VAE, Conditional, Training, fit, heads, priors",
        "from vaekit.data.core import Split",
        "q, px = Conditional(torch.nn.Linear(3, 2), heads.Gaussian(1)), Conditional(torch.nn.Linear(1, 3), heads.Bernoulli(3))",
        "fit(VAE(priors.StandardNormal(1), q, px), Split(torch.ones(4, 3)), training=Training(1, 4), progress=False)",
        "print([name for name in sys.modules if name.partition('.')[0].startswith('lightning')])",
    )
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_model_comes_back_in_its_own_dtype(tmp_path: Path) -> None:
    model = small()
    fitted = quiet(model, dataset(8), training=Training(1, 4, precision="64-true", patience=1, ema=0.9), out=tmp_path)
    assert fitted.model is model
    assert {t.dtype for t in (*model.parameters(), *model.buffers())} == {torch.float32}
    ELBO()(model, Batch(rows(8).x)).surrogate.mean().backward()
    for path in (tmp_path / "model.safetensors", *(tmp_path / "checkpoints").iterdir()):
        tensors, _ = read(path)
        assert {t.dtype for name, t in tensors.items() if "net" in name} == {torch.float64}, path


def test_the_hot_loop_reads_nothing_from_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a look would wait for a GPU, the number of reads does not grow with the number of steps."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Reads(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.count += "_local_scalar_dense" in str(func)
            return func(*args, **(kwargs or {}))

    monkeypatch.setitem(loop.CHECK_EVERY, "cpu", 64)

    def reads(steps: int) -> int:
        with Reads() as mode:
            quiet(small(), rows(4 * steps), training=Training(1, 4, optimiser=SGD, clip=1.0, ema=0.9))
        return mode.count

    few = reads(10)
    assert few > 0 and reads(50) == few
