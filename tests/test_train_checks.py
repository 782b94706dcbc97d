"""Mistakes that cost a second and not a night: settings that cannot be, data that cannot be scored, networks for other data."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Dirichlet, Distribution, Independent, Poisson

from vaekit import ELBO, IWAE, VAE, Conditional, InputError, Training, fit, heads, priors
from vaekit.data.arrays import arrays
from vaekit.data.core import DataSet, Split
from vaekit.objectives import Beta, Cyclical, Linear
from vaekit.train import PRECISIONS

quiet: Callable[..., Any] = partial(fit, progress=False)
ONE = Training(1, 4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs=0: at least 1"),
        ({"epochs": 2.5}, "epochs=2.5 is no whole number"),
        ({"epochs": True}, "epochs=True is no whole number"),
        ({"batch_size": 0}, "batch_size=0: at least 1"),
        ({"patience": 0}, "patience=0: at least 1"),
        ({"keep": 0}, "keep=0: at least 1"),
        ({"seed": -1}, "seed=-1: at least 0"),
        ({"ema": 1.0}, r"ema=1\.0: the decay lies between 0 and 1"),
        ({"ema": 0.0}, r"ema=0\.0"),
        ({"ema": float("nan")}, "ema=nan"),
        ({"clip": 0.0}, r"clip=0\.0: the largest gradient norm is positive"),
        ({"clip": float("nan")}, "clip=nan"),
        ({"checkpoint_minutes": -1.0}, r"checkpoint_minutes=-1\.0"),
        ({"schedule": 0.5}, "schedule=0.5 is no Schedule"),
        ({"optimiser": 1e-3}, r"optimiser=0\.001 is no function"),
        (
            {"optimiser": torch.optim.Adam([nn.Parameter(torch.zeros(1))])},
            r"^optimiser is an Adam that is built already: give what builds it, functools.partial\(torch.optim.Adam, lr=1e-3\)$",
        ),
        ({"precision": "bf16"}, 'unknown precision "bf16"; did you mean "bf16-mixed"'),
        ({"precision": "8"}, "choose from: 32-true, 64-true, auto, bf16-mixed"),
        ({"device": "gpu"}, 'unknown device "gpu"; choose from: auto, cpu, cuda'),
        ({"device": "cuda:x"}, 'unknown device "cuda:x"'),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Training(**settings)


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(InputError, match=r'device "cuda:99" was asked for and torch sees (no|\d+) CUDA device.*use "auto" or "cpu"'):
        Training(device="cuda:99").torch_device()
    assert Training(device="cpu").torch_device() == torch.device("cpu")


def binary(width: int = 6) -> VAE:
    return VAE(
        priors.StandardNormal(2),
        Conditional(nn.Linear(width, 4), heads.Gaussian(2)),
        Conditional(nn.Linear(2, width), heads.Bernoulli(width)),
    )


class Given(nn.Module):
    """A likelihood from a function of the network's output."""

    def __init__(self, features: int, make: Callable[[Tensor], Distribution]) -> None:
        super().__init__()
        self.net = nn.Linear(2, features)
        self.make = make

    def forward(self, z: Tensor) -> Distribution:
        return self.make(self.net(z))


def scored_by(make: Callable[[Tensor], Distribution], width: int = 6) -> VAE:
    return VAE(priors.StandardNormal(2), Conditional(nn.Linear(width, 4), heads.Gaussian(2)), Given(width, make))


def counts(h: Tensor) -> Distribution:
    return Independent(Poisson(h.exp(), validate_args=False), 1, validate_args=False)


def shares(h: Tensor) -> Distribution:
    return Dirichlet(h.exp(), validate_args=False)


def uniform(low: float, high: float, n: int = 20, width: int = 6) -> Split:
    x = torch.rand(n, width, generator=torch.Generator().manual_seed(0)) * (high - low) + low
    x[0, 0], x[-1, -1] = low, high
    return Split(x)


@pytest.mark.parametrize(
    ("model", "split", "message"),
    [
        (
            binary,
            uniform(0, 255),
            r"training data lie in \[0, 255\] and p\(x \| z\), Bernoulli, scores values in \[0, 1\]: divide the data by 255",
        ),
        (binary, uniform(-1, 1), r"lie in \[-1, 1\] .*scores values in \[0, 1\]: rescale the data, or choose a likelihood for such values"),
        (binary, uniform(0, 3000), r"lie in \[0, 3000\].*: rescale the data"),
        (lambda: scored_by(counts), uniform(0, 5), r"scores counts 0, 1, 2, \.\.\.: rescale"),
        (lambda: scored_by(shares), uniform(0, 1), r"Dirichlet, scores Simplex"),
    ],
)
def test_data_outside_the_support(model: Callable[[], VAE], split: Split, message: str) -> None:
    with pytest.raises(InputError, match=message):
        quiet(model(), split, training=ONE)


def test_data_inside_the_support_pass() -> None:
    whole = Split(torch.arange(120).remainder(7).float().view(20, 6))
    quiet(scored_by(counts), whole, training=ONE)
    quiet(scored_by(shares), Split(torch.softmax(torch.randn(20, 6), -1)), training=ONE)
    quiet(binary(), Split((torch.rand(20, 6) * 255).to(torch.uint8)), training=ONE)


@pytest.mark.parametrize("name", ["validation", "test"])
def test_every_split_is_looked_at_to_its_last_row(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from vaekit.train import checks

    monkeypatch.setattr(checks, "CHUNK", 24)  # four rows at a time
    good, bad = uniform(0, 1), uniform(0, 1)
    bad.x[-1, 3] = 1.5
    splits = {"valid": good, "test": good} | {{"validation": "valid"}.get(name, name): bad}
    with pytest.raises(InputError, match=rf"the {name} data lie in \[0, 1\.5\]"):
        quiet(binary(), DataSet("toy", train=good, **splits), training=ONE)
    quiet(binary(), DataSet("toy", train=good, valid=good, test=good), training=ONE)


def test_masked_entries_may_hold_anything() -> None:
    x = uniform(0, 1).x.clone()
    x[3, 2], x[5, 1] = torch.nan, 40.0
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[3, 2] = mask[5, 1] = False
    fitted = quiet(binary(), Split(x, mask=mask), training=ONE)
    assert np.isfinite(fitted.history[0]["train/bound"])
    mask[5, 1] = True
    with pytest.raises(InputError, match=r"lie in \[0, 40\]"):
        quiet(binary(), Split(x, mask=mask), training=ONE)


def test_nan_without_a_mask() -> None:
    split = Split(uniform(0, 1).x, prepare=lambda x: x.masked_fill(x > 0.9, torch.nan))
    with pytest.raises(InputError, match=r"the training data hold \d+ values that are NaN or infinite: clean them, or mark them missing"):
        quiet(binary(), split, training=ONE)


def test_networks_for_other_data() -> None:
    with pytest.raises(
        InputError, match=r"the model cannot take training rows of shape \[9\] \(.*\): build its first layer for that shape"
    ):
        quiet(binary(), uniform(0, 1, width=9), training=ONE)
    short = VAE(priors.StandardNormal(2), Conditional(nn.Linear(6, 4), heads.Gaussian(2)), Conditional(nn.Linear(2, 1), heads.Bernoulli(1)))
    # [K, B, 1] and [B, 6] broadcast: without the check this trains
    with pytest.raises(InputError, match=r"training rows have shape \[6\] and p\(x \| z\), Bernoulli, scores \[1\]"):
        quiet(short, uniform(0, 1), training=ONE)
    images = VAE(
        priors.StandardNormal(2),
        Conditional(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 4)), heads.Gaussian(2), event_dim=1),
        Conditional(nn.Linear(2, 16), heads.Bernoulli((1, 4, 4))),
    )
    with pytest.raises(InputError, match="the model cannot take training rows"):
        quiet(images, Split(torch.rand(8, 1, 4, 4)), training=ONE)


def test_data_of_another_kind() -> None:
    with pytest.raises(InputError, match=r"data is a Tensor: make a data set of it with vaekit\.data\.arrays"):
        quiet(binary(), uniform(0, 1).x, training=ONE)


def test_patience_needs_validation_data() -> None:
    with pytest.raises(InputError, match="patience stops on the validation bound and the data have no validation split"):
        quiet(binary(), arrays(uniform(0, 1).x, valid=0, test=4), training=Training(2, 4, patience=1))


def test_nothing_to_train() -> None:
    frozen = binary().requires_grad_(False)
    with pytest.raises(InputError, match="the model has no parameter to train"):
        quiet(frozen, uniform(0, 1), training=ONE)


def test_weights_that_are_not_finite_from_the_start() -> None:
    model = binary()
    nn.init.constant_(model.posterior.net.bias, torch.nan)
    with pytest.raises(InputError, match=r"posterior.net.bias holds NaN or infinite values before the first step"):
        quiet(model, uniform(0, 1), training=ONE)


def test_precisions() -> None:
    assert PRECISIONS == ("32-true", "64-true", "bf16-mixed", "auto")
    assert Training(precision="auto", device="cpu").resolved().precision in ("32-true", "bf16-mixed")
    assert Training(precision="64-true").resolved() == Training(precision="64-true")
    with pytest.raises(InputError, match='is float64 and precision "32-true" means float32'):
        quiet(binary().double(), uniform(0, 1), training=ONE)
    fitted = quiet(binary().double(), uniform(0, 1), training=Training(1, 4, precision="64-true"))  # comes back as it came
    assert fitted.model.posterior.net.weight.dtype == torch.float64


def test_a_lonely_row_under_batch_normalisation() -> None:
    model = binary()
    model.posterior.net = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4))
    with pytest.raises(InputError, match="20 training rows in batches of 19 leave one row alone"):
        quiet(model, uniform(0, 1), training=Training(1, 19))
    quiet(model, uniform(0, 1), training=Training(1, 18))


def test_a_failed_check_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        quiet(binary(), uniform(0, 255), training=ONE, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def refused(folder: Path, message: str, *, model: VAE | None = None, split: Split | None = None, **more: Any) -> None:
    """Refused with one line, before anything is written."""
    with pytest.raises(InputError, match=message) as caught:
        quiet(
            binary() if model is None else model, uniform(0, 1) if split is None else split, out=folder / "run", **{"training": ONE} | more
        )
    assert "\n" not in str(caught.value) and not (folder / "run").exists()


def test_no_objective(tmp_path: Path) -> None:
    refused(tmp_path, r"objective=Beta\(\.\.\.\) is a penalty and no Objective: use objective=ELBO\(penalty=Beta", objective=Beta(4.0))
    refused(tmp_path, "objective is a float and no Objective", objective=4.0)


def test_optimisers_that_cannot_be(tmp_path: Path) -> None:
    refused(tmp_path, "LBFGS evaluates the loss several times a step", training=Training(1, 4, optimiser=torch.optim.LBFGS))
    wrong: Any = list
    refused(tmp_path, r"optimiser\(parameters\) gave a list", training=Training(1, 4, optimiser=wrong))


def test_what_the_objective_refuses_is_refused_before_the_first_step(tmp_path: Path) -> None:
    model = VAE(
        priors.GaussianMixture(2, 3), Conditional(nn.Linear(6, 4), heads.Gaussian(2)), Conditional(nn.Linear(2, 6), heads.Bernoulli(6))
    )
    refused(tmp_path, "has no closed form", model=model, objective=ELBO(closed_form=True))


def test_a_mask_that_the_likelihood_cannot_apply(tmp_path: Path) -> None:
    x = uniform(0, 1).x
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[-1, -1] = False  # not in the rows that are tried
    head = heads.FullGaussian(6)
    model = VAE(priors.StandardNormal(2), Conditional(nn.Linear(6, 4), heads.Gaussian(2)), Conditional(nn.Linear(2, head.features), head))
    refused(tmp_path, "does not factorise over the entries of x, so a mask", model=model, split=Split(x, mask=mask))
    quiet(model, Split(x), training=ONE)


@pytest.mark.parametrize("rows", [1, 20])
def test_a_likelihood_that_loses_the_samples(rows: int, tmp_path: Path) -> None:
    """With one sample of one row both shapes are the same, and a mean over K would broadcast."""

    class First(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Conditional(nn.Linear(2, 6), heads.Bernoulli(6))

        def forward(self, z: Tensor) -> Distribution:
            d: Distribution = self.inner(z[0])
            return d

    model = VAE(priors.StandardNormal(2), Conditional(nn.Linear(6, 4), heads.Gaussian(2)), First())
    refused(tmp_path, r"of 3 samples for 2 training rows is \[2\] and not \[K, B\] = \[3, 2\]", model=model, split=uniform(0, 1).head(rows))


def test_a_vamp_prior_over_another_posterior(tmp_path: Path) -> None:
    def model(own: bool) -> VAE:
        posterior = Conditional(nn.Linear(6, 4), heads.Gaussian(2))
        other = Conditional(nn.Linear(6, 4), heads.Gaussian(2))
        prior = priors.VampPrior(posterior if own else other, torch.rand(3, 6))
        return VAE(prior, posterior, Conditional(nn.Linear(2, 6), heads.Bernoulli(6)))

    refused(tmp_path, "^prior is a VampPrior over a posterior that is no part of the model, so it would be neither", model=model(own=False))
    quiet(model(own=True), uniform(0, 1), training=ONE)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ELBO(penalty=4.0), r"ELBO\(penalty=4\.0\) is a weight and no penalty: use penalty=Beta\(4\.0\)"),
        (lambda: ELBO(penalty=Linear(0, 1, 5)), r"use penalty=Beta\(Linear\(start=0, end=1, steps=5\)\)"),
        (lambda: ELBO(penalty="beta"), r"ELBO\(penalty=\.\.\.\) is a str"),
        (lambda: ELBO(k=2.5), r"ELBO\(k=2\.5\): k counts samples, so give a whole number"),
        (lambda: IWAE(k=2.5), r"IWAE\(k=2\.5\): .* whole number"),
        (lambda: IWAE(k=True), r"IWAE\(k=True\): .* whole number"),
        (lambda: ELBO(k=0), r"ELBO\(k=0\): at least 1"),
        (lambda: Cyclical(0, 1, 8, ramp=3.0), r"Cyclical\(ramp=3\.0\): .* take one in \(0, 1\]"),
        (lambda: Cyclical(0, 1, 8, ramp=float("nan")), r"Cyclical\(ramp=nan\)"),
    ],
)
def test_objectives_that_cannot_be(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_values_at_the_edge_are_fine() -> None:
    assert IWAE(k=np.int64(2)).k == 2 and Cyclical(0, 1, 8, cycles=1, ramp=1.0)(4) == 0.5


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write .*file"):
        quiet(binary(), uniform(0, 1), training=ONE, out=tmp_path / "file")
