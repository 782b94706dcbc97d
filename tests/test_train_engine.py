"""A compiled step against the same step as it comes: equal to rounding, and everything that `fit` promises holds for it too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vaekit import ELBO, IWAE, VAE, Conditional, NonFiniteError, Objective, Training, fit, heads, priors
from vaekit.data.core import Split
from vaekit.evaluate import evaluate
from vaekit.objectives import VQ, Beta, BetaTC, Linear, Schedule
from vaekit.quantise import Codebook, UniformCodes
from vaekit.recipes.digits import digits
from vaekit.train.adam import InGraphAdam
from vaekit.train.engine import COMPILE_FROM, Engine, worth_compiling
from vaekit.train.meter import Meter, Sums
from vaekit.train.step import Step

quiet: Callable[..., Any] = partial(fit, progress=False)
ROWS, BATCH = 70, 16  # four full batches and one of six


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    yield
    torch._dynamo.reset()


def model(px: nn.Module | None = None, *extra: nn.Module) -> VAE:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(12, 8), *extra, nn.ReLU(), nn.Linear(8, 6))
    decoder = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 12))
    return VAE(priors.StandardNormal(3), Conditional(encoder, heads.Gaussian(3)), Conditional(decoder, px or heads.Bernoulli(12)))


def flipped(x: Tensor) -> Tensor:
    return torch.bernoulli(x)


def data(**kwargs: Any) -> Split:
    return Split(torch.rand(ROWS, 12, generator=torch.Generator().manual_seed(1)), **kwargs)


class Counted(Engine):
    """An engine that says how often each way was taken."""

    taken: list[str]

    def __call__(self, index: Tensor, step: int, *, careful: bool) -> Sums:
        self.how = "compiled"
        found = super().__call__(index, step, careful=careful)
        Counted.taken.append(self.how)
        return found

    def _plain(self, index: Tensor, step: int) -> Sums:
        self.how = "plain"
        return super()._plain(index, step)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    Counted.taken = []
    monkeypatch.setattr("vaekit.train.loop.Engine", Counted)
    return Counted.taken


CASES: dict[str, dict[str, Any]] = {
    "Adam": {},
    "Adam, weight decay, clipped, averaged": {
        "optimiser": partial(torch.optim.Adam, lr=1e-2, weight_decay=0.1),
        "clip": 0.5,
        "ema": 0.9,
        "schedule": Linear(1, 0.2, 20),
    },
    "AdamW": {"optimiser": partial(torch.optim.AdamW, lr=1e-2, betas=(0.8, 0.99), eps=1e-4, weight_decay=0.1)},
    "SGD": {"optimiser": partial(torch.optim.SGD, lr=1e-2, momentum=0.9)},
    "bfloat16": {"precision": "bf16-mixed"},
    "amsgrad": {"optimiser": partial(torch.optim.Adam, lr=1e-2, amsgrad=True)},
}
OBJECTIVES: dict[str, Objective] = {"SGD": IWAE(5), "AdamW": ELBO(2, closed_form=False)}
EXTRA: dict[str, Callable[[], tuple[nn.Module, ...]]] = {
    "AdamW": lambda: (nn.Dropout(0.3),),
    "SGD": lambda: (nn.BatchNorm1d(8), nn.Dropout(0.3)),  # Adam would magnify the rounding of a bias before a normalisation
}


@pytest.mark.parametrize("name", CASES)
def test_the_compiled_step_is_the_step(name: str, taken: list[str]) -> None:
    """Four epochs of noise, dropout, binarisation, clipping: the same weights, buffers and rows of the history, to rounding."""
    settings = {"epochs": 4, "batch_size": BATCH, "optimiser": partial(torch.optim.Adam, lr=1e-2)} | CASES[name]
    found = []
    for compiled in (False, True):
        fitted = quiet(
            model(None, *EXTRA.get(name, tuple)()),
            data(prepare=flipped),
            objective=OBJECTIVES.get(name),
            training=Training(**settings, compile=compiled),
        )
        found.append((fitted.model.state_dict(), fitted.history))
    first = 0 if name in ("amsgrad", "SGD") else 1
    assert taken == ["plain"] * 20 + (["plain"] * first + ["compiled"] * (4 - first) + ["plain"] + (["compiled"] * 4 + ["plain"]) * 3)
    loose = name == "bfloat16"
    for key, plain in found[0][0].items():
        torch.testing.assert_close(found[1][0][key], plain, rtol=1e-2 if loose else 2e-4, atol=5e-3 if loose else 1e-5, msg=key)
    for plain, fast in zip(found[0][1], found[1][1], strict=True):
        del plain["seconds"], fast["seconds"]
        assert fast == pytest.approx(plain, rel=1e-2 if loose else 1e-5)


def coded(**settings: Any) -> VAE:
    torch.manual_seed(0)
    codes = Codebook(8, 2, **settings)
    decoder = nn.Sequential(nn.Flatten(), nn.Linear(6, 12))
    q = Conditional(nn.Linear(12, 6), heads.Quantised(codes, (3,)))
    return VAE(UniformCodes(codes, (3,)), q, Conditional(decoder, heads.GaussianFixed(12, 0.3), event_dim=2))


OTHERS: dict[str, tuple[Callable[[], VAE], Objective]] = {
    "beta-TC, stratified": (model, BetaTC(ROWS, 4.0, stratified=True)),
    "codes by averages, revived": (partial(coded, revive=0.1), VQ()),
    "codes by gradient": (partial(coded, decay=None), VQ()),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_promise_to_compile_is_kept(name: str, taken: list[str]) -> None:
    make, objective = OTHERS[name]
    found = []
    for compiled in (False, True):
        fitted = quiet(make(), data(), objective=objective, training=Training(3, BATCH, compile=compiled))
        found.append((fitted.model.state_dict(), fitted.history))
    assert taken.count("compiled") == 11, "it ran as it is"
    for key, plain in found[0][0].items():
        torch.testing.assert_close(found[1][0][key], plain, rtol=2e-4, atol=1e-5, msg=key)
    for plain, fast in zip(found[0][1], found[1][1], strict=True):
        del plain["seconds"], fast["seconds"]
        assert fast == pytest.approx(plain, rel=1e-5, abs=1e-6)


def test_adam_in_a_program_follows_torch_to_the_last_steps() -> None:
    """300 updates with gradients of all sizes, against torch's own in float64."""
    generator = torch.Generator().manual_seed(0)
    for kind, decay in ((torch.optim.Adam, 0.0), (torch.optim.Adam, 0.3), (torch.optim.AdamW, 0.3)):
        ours, theirs = (nn.Parameter(torch.ones(5, dtype=torch.float64)) for _ in range(2))
        a, b = (kind([p], lr=0.03, weight_decay=decay) for p in (ours, theirs))
        assert InGraphAdam.suits(a)
        adam = InGraphAdam(a, [ours])
        for step in range(300):
            grad = torch.randn(5, generator=generator, dtype=torch.float64) * torch.logspace(-6, 3, 5, dtype=torch.float64)
            a.param_groups[0]["lr"] = b.param_groups[0]["lr"] = 0.03 / (1 + step)
            theirs.grad = grad
            b.step()
            if step == 0:
                ours.grad = grad
                a.step()
            else:
                moments = adam.moments()
                assert moments is not None
                adam.apply((grad,), moments)
                adam.count()
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
        assert a.state[ours]["step"] == b.state[theirs]["step"] == 300
    for wrong in (
        torch.optim.Adam([ours], amsgrad=True),
        torch.optim.Adam([ours], maximize=True),
        torch.optim.SGD([ours]),
        torch.optim.Adam([{"params": [ours]}, {"params": [theirs]}]),
    ):
        assert not InGraphAdam.suits(wrong)


def test_a_compiled_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    settings = Training(6, BATCH, compile=True, ema=0.9, clip=1.0, seed=4, checkpoint_minutes=0)
    whole = quiet(model(), data(), training=settings, out=tmp_path / "whole")

    quiet(model(), data(), training=Training(3, BATCH, compile=True, ema=0.9, clip=1.0, seed=4), out=tmp_path / "parts")
    resumed = quiet(model(), data(), training=settings, out=tmp_path / "parts", resume=True)
    assert all(torch.equal(a, b) for a, b in zip(whole.model.state_dict().values(), resumed.model.state_dict().values(), strict=True))


def test_a_step_that_was_not_finite_is_found_and_undone(tmp_path: Path) -> None:
    """The program has changed the weights before anybody looks: the run goes back, and stops at that step with the weights before it."""
    x = torch.rand(ROWS, 12, generator=torch.Generator().manual_seed(1))
    x[33, 4] = 1e30  # squared, in the log-density of a Gaussian, it is infinite
    found = []
    for compiled in (False, True):
        trained = model(heads.GaussianFixed(12, 1.0))
        with torch.no_grad():
            trained.posterior.net[0].weight[:, 4] = 0  # q is finite all the same
        with pytest.raises(NonFiniteError, match=r"^step \d+, epoch 1: .*the weights were not updated") as error:
            quiet(trained, Split(x), training=Training(3, BATCH, compile=compiled))
        found.append((str(error.value).split(";")[0], trained.state_dict()))
    assert found[0][0] == found[1][0]
    for key, plain in found[0][1].items():
        torch.testing.assert_close(found[1][1][key], plain)


def test_a_run_that_goes_back_goes_on_as_if_nothing_had_been(monkeypatch: pytest.MonkeyPatch, taken: list[str]) -> None:
    """A look that finds a step not finite where the careful repetition finds nothing: the learning rate goes on falling."""
    settings = {"epochs": 5, "batch_size": BATCH, "schedule": Linear(1, 0, 25), "optimiser": partial(torch.optim.Adam, lr=1e-2)}
    plain = quiet(model(), data(), training=Training(**settings)).model
    answers, honest = iter([False]), Meter.finite
    monkeypatch.setattr(Meter, "finite", lambda meter: next(answers, True) and honest(meter))
    taken.clear()
    found = quiet(model(), data(), training=Training(**settings, compile=True)).model
    assert taken[:10] == ["plain", *["compiled"] * 3, "plain", *["plain"] * 5] and "compiled" in taken[10:]
    for a, b in zip(found.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=2e-4, atol=1e-5)


def test_a_warm_up_runs_as_it_is_until_its_schedules_settle(taken: list[str]) -> None:
    objective = ELBO(penalty=Beta(Linear(0, 1, 7)))
    fast = quiet(model(), data(), objective=objective, training=Training(3, BATCH, compile=True))
    assert taken == ["plain"] * 7 + ["compiled"] * 2 + ["plain"] + ["compiled"] * 4 + ["plain"]
    plain = quiet(model(), data(), objective=objective, training=Training(3, BATCH))
    assert fast.history[-1]["train/bound"] == pytest.approx(plain.history[-1]["train/bound"], rel=1e-5)


def test_hooks_are_not_frozen() -> None:
    found = []
    for compiled in (False, True):
        trained, calls = model(), []

        def hook(layer: nn.Module, args: object, out: Tensor, calls: list[int] = calls) -> Tensor:
            calls.append(1)
            return 2 * out if len(calls) > 6 else out

        trained.posterior.net[0].register_forward_hook(hook)
        found.append(quiet(trained, data(), training=Training(4, BATCH, compile=compiled)).history[-1]["train/bound"])
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_the_last_steps_gradients_are_gone_before_the_forward_pass() -> None:
    """At whose end a step holds most. Among the activations they also keep the heap from being used again: a sixth of a ResNet's memory."""
    held: list[bool] = []
    vae = model()
    vae.likelihood.register_forward_pre_hook(lambda *_: held.append(any(p.grad is not None for p in vae.parameters())))
    quiet(vae, data(), training=Training(2, BATCH))
    assert len(held) >= 10
    assert not any(held)


def test_averages_from_a_checkpoint_meet_parameters_that_lie_in_columns(tmp_path: Path) -> None:
    """The fused update walks raw memory: with a transposed weight it is not asked for, and a resumed run is the same run."""

    def columns() -> VAE:
        made = model()
        linear = made.posterior.net[0]
        linear.weight = nn.Parameter(linear.weight.detach().t().contiguous().t())
        assert not linear.weight.is_contiguous()
        return made

    whole = quiet(columns(), data(), training=Training(4, BATCH), out=tmp_path / "whole")
    quiet(columns(), data(), training=Training(2, BATCH), out=tmp_path / "parts")
    resumed = quiet(columns(), data(), training=Training(4, BATCH), out=tmp_path / "parts", resume=True)
    assert all(torch.equal(a, b) for a, b in zip(whole.model.state_dict().values(), resumed.model.state_dict().values(), strict=True))


class Swinging(Schedule):
    """A weight that never settles."""

    settled = None

    def __call__(self, step: int) -> float:
        return 1.0 + 0.5 * (step % 2)


def test_a_schedule_without_an_end_is_followed(taken: list[str]) -> None:
    quiet(model(), data(), objective=ELBO(penalty=Beta(Swinging())), training=Training(2, BATCH, compile=True))
    assert taken == ["plain"] * 10


class Undecided(nn.Module):
    """A layer whose operations depend on values, which no program can hold."""

    def forward(self, x: Tensor) -> Tensor:
        return x if float(x.detach().sum()) > 0 else 0.5 * x


def test_what_cannot_be_compiled_trains_as_it_is_and_the_log_says_so(tmp_path: Path, taken: list[str]) -> None:
    fast = quiet(model(None, Undecided()), data(), training=Training(2, BATCH, compile=True), out=tmp_path)
    plain = quiet(model(None, Undecided()), data(), training=Training(2, BATCH))
    for a, b in zip(fast.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=2e-4, atol=1e-5)
    text = (tmp_path / "log.txt").read_text()
    assert "32-true on cpu, each full batch compiled into one program" in text
    assert text.count("was not compiled and runs as it is, slower") == 1


def test_two_runs_in_one_process_do_not_share_a_program() -> None:
    """Nothing is checked from call to call, so a second model must not meet the first one's program."""
    one, other = model(), model()
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(2)
    first = {name: p.clone() for name, p in quiet(one, data(), training=Training(2, BATCH, compile=True)).model.named_parameters()}
    quiet(other, data(), objective=ELBO(penalty=Beta(3.0)), training=Training(2, BATCH, compile=True))
    assert all(torch.equal(p, first[name]) for name, p in one.named_parameters())
    plain = model()
    with torch.no_grad():
        for p in plain.parameters():
            p.mul_(2)
    quiet(plain, data(), objective=ELBO(penalty=Beta(3.0)), training=Training(2, BATCH))
    for a, b in zip(other.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=2e-4, atol=1e-5)


class Permuted(nn.Module):
    """A weight that is used as its transpose: its gradient comes in another layout than it has itself."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 3, generator=torch.Generator().manual_seed(2)).mT.contiguous())

    def forward(self, z: Tensor) -> Tensor:
        return torch.einsum("...i,io->...o", z, self.weight)


def test_gradients_of_any_layout_meet_their_weights() -> None:
    """amsgrad is no part of the program: torch's fused update, which walks raw memory, gets the gradients."""
    found = []
    for compiled in (False, True):
        trained = model()
        trained.likelihood.net = nn.Sequential(Permuted(), nn.ReLU(), nn.Linear(8, 12))
        optimiser = partial(torch.optim.Adam, lr=1e-2, amsgrad=True)
        found.append(quiet(trained, data(), training=Training(3, BATCH, optimiser=optimiser, compile=compiled)).model.state_dict())
    for key, plain in found[0].items():
        torch.testing.assert_close(found[1][key], plain, rtol=2e-4, atol=1e-5, msg=key)


def test_a_hook_of_the_optimiser_is_called_at_every_step() -> None:
    calls = []

    def hooked(parameters: Any) -> torch.optim.Optimizer:
        optimiser = torch.optim.Adam(parameters, 1e-2)
        optimiser.register_step_post_hook(lambda *args: calls.append(1))
        return optimiser

    quiet(model(), data(), training=Training(2, BATCH, optimiser=hooked, compile=True))
    assert len(calls) == 10


def test_when_a_run_is_compiled() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert worth_compiling(Training(), Step(model(), ELBO()), cpu, COMPILE_FROM)
    assert worth_compiling(Training(), Step(model(), IWAE(2)), cpu, COMPILE_FROM)
    assert not worth_compiling(Training(), Step(model(), ELBO()), cpu, COMPILE_FROM - 1)
    images = Step(model(None, nn.Unflatten(1, (8, 1, 1)), nn.BatchNorm2d(8), nn.Flatten()), ELBO())
    assert not worth_compiling(Training(), images, cpu, COMPILE_FROM) and worth_compiling(Training(compile=True), images, cpu, 1)
    assert not worth_compiling(Training(), Step(model(), ELBO()), gpu, COMPILE_FROM)
    assert not worth_compiling(Training(precision="64-true"), Step(model(), ELBO()), cpu, COMPILE_FROM)
    assert not worth_compiling(Training(compile=False), Step(model(), ELBO()), cpu, COMPILE_FROM)
    assert worth_compiling(Training(compile=True), Step(model(), ELBO()), gpu, 1)
    assert not worth_compiling(Training(compile=True, precision="64-true"), Step(model(), ELBO()), cpu, COMPILE_FROM)

    class Custom(ELBO):
        pass

    class Late(Beta):
        pass

    assert not worth_compiling(Training(), Step(model(), Custom()), cpu, COMPILE_FROM)  # what it does with the step is not known
    assert not worth_compiling(Training(compile=True), Step(model(), ELBO(penalty=Late())), cpu, COMPILE_FROM)


class Counting(nn.Module):
    """A layer of a user's that keeps count in a plain number: it doubles x from its fourth call in training on."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += self.training
        return 2 * x if self.calls > 3 else x


def test_counts_in_modules_of_others_are_not_frozen() -> None:
    found = []
    for compiled in (False, True):
        fitted = quiet(model(None, Counting()), data(), training=Training(5, BATCH, compile=compiled))
        found.append((fitted.history[-1]["train/bound"], fitted.model.posterior.net[1].calls))
    assert found[0] == (pytest.approx(found[1][0], rel=1e-5), found[1][1])


def test_bfloat16_leaves_the_bound_within_a_tenth_of_a_nat() -> None:
    """Binary digits, 40 epochs, the same weights and noise: the test bound in float32 of both, mean over three runs."""
    rows = digits().data()
    train, test = (Split((split.x > 7).to(torch.uint8) * 255) for split in (rows.train, rows.test))
    differences = []
    for seed in range(3):
        bounds = []
        for precision in ("32-true", "bf16-mixed"):
            torch.manual_seed(seed)
            encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 16))
            decoder = nn.Sequential(nn.Linear(8, 128), nn.ReLU(), nn.Linear(128, 64))
            vae = VAE(
                priors.StandardNormal(8),
                Conditional(encoder, heads.Gaussian(8), event_dim=3),
                Conditional(decoder, heads.Bernoulli((1, 8, 8))),
            )
            training = Training(40, 64, precision=precision, seed=seed, optimiser=partial(torch.optim.Adam, lr=2e-3))
            bounds.append(evaluate(quiet(vae, train, training=training).model, test, samples=20).elbo)
        differences.append(bounds[1] - bounds[0])
    assert bounds[0] > -24 and abs(sum(differences) / 3) < 0.1, (differences, bounds)
