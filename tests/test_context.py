"""Masks that an encoder sees, and contexts: exact evidences, errors, and training with both, compiled and not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, MultivariateNormal

from oracles import PPCA, Affine, Full
from vaekit import ELBO, IWAE, VAE, Batch, Conditional, LatentModel, Training, fit, heads, priors
from vaekit.data.core import DataSet, Split
from vaekit.dist import DiagGaussian
from vaekit.errors import InputError
from vaekit.infer import log_posterior
from vaekit.models import Ladder, Rung, from_q, plain_input, with_context, with_mask, with_mask_and_context
from vaekit.objectives import RWS
from vaekit.train.identity import checksum

f64 = torch.float64
quiet: Callable[..., Any] = partial(fit, progress=False)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    yield
    torch._dynamo.reset()


# Views


def test_views_join_mask_and_context_along_columns_and_channels() -> None:
    x, m = torch.tensor([[1.0, math.nan], [3.0, 4.0]]), torch.tensor([[True, False], [True, True]])
    c = torch.tensor([[7.0], [8.0]])
    assert torch.equal(plain_input(Batch(x, mask=m)), torch.tensor([[1.0, 0.0], [3.0, 4.0]]))
    assert torch.equal(with_mask(Batch(x, mask=m)), torch.tensor([[1.0, 0, 1, 0], [3, 4, 1, 1]]))
    assert torch.equal(with_context(Batch(x, c, m)), torch.tensor([[1.0, 0, 7], [3, 4, 8]]))
    assert torch.equal(with_mask_and_context(Batch(x, c, m)), torch.tensor([[1.0, 0, 1, 0, 7], [3, 4, 1, 1, 8]]))
    assert with_mask(Batch(x.double(), mask=m)).dtype == f64
    images, seen = torch.rand(2, 3, 4, 5), torch.rand(2, 3, 4, 5) < 0.5
    view = with_mask_and_context(Batch(images, c, seen))
    assert view.shape == (2, 7, 4, 5) and torch.equal(view[:, 3:6], seen.float()) and bool((view[1, 6] == 8).all())


@pytest.mark.parametrize("view, width", [(with_mask, 8), (with_mask_and_context, 10)])
def test_a_mask_of_ones_is_no_mask(view: Any, width: int) -> None:
    torch.manual_seed(0)
    context = width - 8
    model = VAE(
        priors.StandardNormal(2),
        Conditional(nn.Linear(width, 4), heads.Gaussian(2)),
        Conditional(nn.Linear(2 + context, 8), heads.Gaussian(4)),
        view=view,
        context=context,
    )
    x, c = torch.randn(5, 4), torch.randn(5, context) if context else None
    found = []
    for mask in (None, torch.ones(5, 4, dtype=torch.bool)):
        torch.manual_seed(1)
        found.append(model.infer(Batch(x, c, mask), 3).log_w)
    torch.testing.assert_close(*found)


def test_a_missing_entry_is_not_an_entry_of_zero() -> None:
    torch.manual_seed(0)
    model = VAE(
        priors.StandardNormal(2),
        Conditional(nn.Linear(8, 4), heads.Gaussian(2)),
        Conditional(nn.Linear(2, 8), heads.Gaussian(4)),
        view=with_mask,
    )
    x, holes = torch.randn(5, 4), torch.ones(5, 4, dtype=torch.bool)
    holes[:, 1], x[:, 1] = False, 0.0
    assert not torch.allclose(model.embed(Batch(x)), model.embed(Batch(x, mask=holes)))
    x[:, 1] = math.nan
    assert model.infer(Batch(x, mask=holes)).log_w.isfinite().all()


# Exact evidences


class Masked(nn.Module):
    """The exact posterior of probabilistic PCA whatever is missing, from (x, m): S = (I + W' M W / s^2)^-1, mean S W' M (x - b) / s^2."""

    def __init__(self, px: Affine) -> None:
        super().__init__()
        self.px = [px]  # not a part: it is the likelihood's

    def forward(self, view: Tensor) -> Distribution:
        px = self.px[0]
        x, m = view.chunk(2, -1)
        precision = m * (-2 * px.log_scale).exp()
        wanted = torch.eye(px.weight.shape[1], dtype=x.dtype) + px.weight.mT @ (precision.unsqueeze(-1) * px.weight)
        cov = torch.linalg.inv(wanted)
        mean = (cov @ (px.weight.mT @ (precision * (x - px.bias)).unsqueeze(-1))).squeeze(-1)
        return MultivariateNormal(mean, cov)


def patterns() -> tuple[PPCA, Batch, Tensor]:
    """Probabilistic PCA, rows with holes (one row with nothing in it), and the exact evidence of what is observed."""
    oracle = PPCA()
    mask = torch.rand(6, 4, generator=torch.Generator().manual_seed(5)) < 0.6
    mask[0], mask[1] = False, True
    rows = [oracle.evidence(x, m.nonzero()[:, 0]) if m.any() else torch.zeros((), dtype=f64) for x, m in zip(oracle.x, mask, strict=True)]
    return oracle, Batch(torch.where(mask, oracle.x, math.nan), mask=mask), torch.stack(rows)


def test_with_the_exact_posterior_of_every_pattern_log_w_is_the_evidence_of_what_is_observed() -> None:
    oracle, batch, exact = patterns()
    model = VAE(priors.StandardNormal(2).double(), Masked(oracle.likelihood), oracle.likelihood, view=with_mask)
    log_w = model.infer(batch, 7).log_w
    torch.testing.assert_close(log_w, exact.expand(7, 6))


def test_the_masked_bound_rises_to_the_evidence() -> None:
    oracle, batch, exact = patterns()
    torch.manual_seed(0)

    class Prior(nn.Module):
        def forward(self, view: Tensor) -> Distribution:
            return DiagGaussian(torch.zeros(len(view), 2, dtype=f64), torch.full((len(view), 2), 0.1, dtype=f64))

    model = VAE(priors.StandardNormal(2).double(), Prior(), oracle.likelihood, view=with_mask)
    means = []
    for k in (1, 20, 2000):
        bounds = torch.stack([IWAE(k)(model, batch).bound for _ in range(60)])
        assert ((bounds.mean(0) - exact) / (bounds.std(0) / math.sqrt(60))).max() < 4
        means.append(float((bounds.mean(0) - exact).detach().sum()))
    assert means[0] < means[1] < means[2] and means[2] > -0.1


def test_fit_by_the_masked_bound_finds_the_maximum_of_the_exact_evidence() -> None:
    """MIWAE on probabilistic PCA with 40% missing, by `fit`, against a direct maximisation of the exact evidence."""
    g = torch.Generator().manual_seed(0)
    truth = PPCA(1, 5, seed=3)
    with torch.no_grad():
        mean, cov = truth.joint()
        x = mean[1:] + torch.randn(400, 5, generator=g, dtype=f64) @ torch.linalg.cholesky(cov[1:, 1:]).mT
    mask = torch.rand(400, 5, generator=g) < 0.6

    def evidence(model: PPCA) -> Tensor:
        mean, cov = model.joint()
        mean, cov, m = mean[1:], cov[1:, 1:], mask.to(f64)
        held = cov * m.unsqueeze(1) * m.unsqueeze(2) + torch.diag_embed(1 - m)  # missing entries: a standard normal apart
        r = torch.where(mask, x - mean, torch.zeros_like(x))
        constant = 0.5 * math.log(2 * math.pi) * (5 - m.sum(1))
        return (MultivariateNormal(torch.zeros(5, dtype=f64), held).log_prob(r) + constant).mean()

    best = PPCA(1, 5, seed=3)
    parameters = list(best.likelihood.parameters())
    optimiser = torch.optim.LBFGS(parameters, max_iter=200)

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = -evidence(best)
        loss.backward()
        return loss

    optimiser.step(closure)
    learned = PPCA(1, 5, seed=8)
    start = float(evidence(learned).detach())
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(10, 24), nn.Tanh(), nn.Linear(24, 2))
    model = VAE(priors.StandardNormal(1), Conditional(encoder, heads.Gaussian(1)), learned.likelihood.float(), view=with_mask)
    data = Split(torch.where(mask, x, math.nan).float(), mask=mask)
    training = Training(120, 100, optimiser=partial(torch.optim.Adam, lr=1e-2), compile=False)
    quiet(model, data, objective=IWAE(10), training=training)
    model.double()
    found, top = float(evidence(learned).detach()), float(evidence(best).detach())
    assert top - 0.02 < found <= top + 1e-6 and start < top - 0.5
    with torch.no_grad():
        reported = float(IWAE(200)(model, data.batch(torch.arange(400))._replace(x=data.x.double())).bound.mean())
    assert abs(reported - found) < 0.05


class Given(nn.Module):
    """N(A c + a, S): a conditional prior."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Affine(2, 2, 0.9, torch.Generator().manual_seed(4))

    def forward(self, c: Tensor) -> Distribution:
        return self.inner(c)


def conditional(prior: bool, ladder: bool) -> tuple[LatentModel, Batch, Tensor]:
    """x = W z + V c + b + noise, z ~ N(0, I) or N(A c + a, T): the model with its exact posterior, data, and log p(x | c)."""
    g = torch.Generator().manual_seed(1)
    px, pz = Affine(4, 5, 0.7, g), Given()
    with torch.no_grad():
        w, v = px.weight[:, :2], px.weight[:, 2:]
        a_matrix = pz.inner.weight if prior else torch.zeros(2, 2, dtype=f64)
        a, t = (pz.inner.bias, pz.inner.cov) if prior else (torch.zeros(2, dtype=f64), torch.eye(2, dtype=f64))
        c, s = torch.randn(6, 2, generator=g, dtype=f64), w @ t @ w.mT + px.cov
        mean = (c @ a_matrix.mT + a) @ w.mT + c @ v.mT + px.bias
        x = mean + torch.randn(6, 5, generator=g, dtype=f64) @ torch.linalg.cholesky(s).mT
        gain = t @ w.mT @ torch.linalg.inv(s)
        by_c = a_matrix - gain @ (w @ a_matrix + v)
        q = Full(torch.cat([gain, by_c], 1), a - gain @ (w @ a + px.bias), t - gain @ w @ t)
        top = pz if prior else priors.StandardNormal(2).double()
        settings: dict[str, Any] = {"view": with_context, "context": 2, "conditional_prior": prior}
        model = Ladder([nn.Identity()], [Rung(top, q)], px, **settings) if ladder else VAE(top, q, px, **settings)
        return model, Batch(x, c), MultivariateNormal(mean, s).log_prob(x)


@pytest.mark.parametrize("ladder", [False, True])
@pytest.mark.parametrize("prior", [False, True])
def test_with_the_exact_posterior_log_w_is_the_conditional_evidence(prior: bool, ladder: bool) -> None:
    model, batch, exact = conditional(prior, ladder)
    t = model.infer(batch, 7)
    torch.testing.assert_close(t.log_w, exact.expand(7, 6))
    torch.testing.assert_close(model.score(batch, t.z).log_w, t.log_w)
    torch.testing.assert_close(log_posterior(model, batch)(t.z), t.log_joint)


@pytest.mark.parametrize("prior", [False, True])
def test_samples_and_dreams_follow_the_context(prior: bool) -> None:
    model, _, _ = conditional(prior, False)
    torch.manual_seed(0)
    c = torch.tensor([3.0, -2.0], dtype=f64)
    x = model.sample(20_000, mean=False, context=c)
    px = model.likelihood
    centre = c @ model.prior.inner.weight.mT + model.prior.inner.bias if prior else torch.zeros(2, dtype=f64)
    mean = torch.cat([centre, c]) @ px.weight.mT + px.bias
    assert ((x.mean(0) - mean) / (x.std(0) / math.sqrt(20_000))).abs().max() < 4.5
    each = c * torch.tensor([[1.0], [0.0], [-1.0]], dtype=f64)
    t = model.dream(3, context=each)
    assert torch.equal(t.batch.c, each)
    exact = MultivariateNormal(
        (each @ model.prior.inner.weight.mT + model.prior.inner.bias if prior else torch.zeros(3, 2, dtype=f64)) @ px.weight[:, :2].mT
        + each @ px.weight[:, 2:].mT
        + px.bias,
        px.weight[:, :2] @ (model.prior.inner.cov if prior else torch.eye(2, dtype=f64)) @ px.weight[:, :2].mT + px.cov,
    ).log_prob(t.batch.x)
    torch.testing.assert_close(t.log_w[0], exact)
    seen = Batch(t.batch.x, each)
    assert model.reconstruct(seen).shape == (3, 5) and model.embed(seen).shape == (3, 2)


def test_a_ladder_of_two_levels_with_conditional_priors() -> None:
    torch.manual_seed(0)

    def gaussian(n: int, d: int) -> Conditional:
        return Conditional(nn.Linear(n, 2 * d), heads.Gaussian(d))

    model = Ladder(
        [nn.Linear(6 + 6 + 2, 8), nn.Linear(8, 8)],
        [Rung(gaussian(2, 3), gaussian(8, 3)), Rung(gaussian(3 + 2, 4), gaussian(3 + 8, 4))],
        Conditional(nn.Linear(4 + 2, 6), heads.Bernoulli(6)),
        view=with_mask_and_context,
        context=2,
        conditional_prior=True,
    )
    batch = Batch(torch.ones(5, 6), torch.randn(5, 2), torch.rand(5, 6) < 0.5)
    t = model.trace(from_q(3), batch)
    t.log_w.mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert model.sample(4, context=torch.zeros(2)).shape == (4, 6)
    assert t.kl is not None and t.kl.shape == (3, 5, 2)


# Mistakes


def small(context: int = 2, **settings: Any) -> VAE:
    view = settings.pop("view", with_context if context else plain_input)
    q = Conditional(nn.Linear(4 + context, 4), heads.Gaussian(2))
    px = Conditional(nn.Linear(2 + context, 8), heads.Gaussian(4))
    return VAE(priors.StandardNormal(2), q, px, view=view, context=context, **settings)


MISTAKES: dict[str, tuple[Callable[[], object], str]] = {
    "no context for the batch": (
        lambda: small().infer(Batch(torch.zeros(3, 4))),
        r"takes a context of 2 numbers.*given none: give Batch\(x, c\)",
    ),
    "no context for samples": (lambda: small().sample(3), r"takes a context of 2 numbers.*given none: give context="),
    "no context for dreams": (lambda: small().dream(3), r"given none"),
    "another width": (lambda: small().infer(Batch(torch.zeros(3, 4), torch.zeros(3, 5))), r"context of 2 numbers.*\[3, 5\]"),
    "another number": (lambda: small().sample(3, context=torch.zeros(2, 2)), r"3 examples were asked for with a context \[2, 2\]"),
    "a context not taken": (
        lambda: small(0).infer(Batch(torch.zeros(3, 4), torch.zeros(3, 5))),
        r"takes no context.*c \[3, 5\].*context=5",
    ),
    "a context not taken by samples": (lambda: small(0).sample(3, context=torch.zeros(5)), r"takes no context"),
    "an encoder that would ignore it": (
        lambda: small(view=plain_input).infer(Batch(torch.zeros(3, 4), torch.zeros(3, 2))),
        r"encoder takes no context",
    ),
    "both": (lambda: small().trace(from_q(1), Batch(torch.zeros(3, 4), torch.zeros(3, 2)), torch.zeros(3, 2)), r"both given"),
    "negative": (lambda: VAE(nn.Identity(), nn.Identity(), nn.Identity(), context=-1), r"VAE\(context=-1\)"),
    "a prior without it": (lambda: small(0, conditional_prior=True), r"conditional_prior=True\) needs a context"),
    "c of integers": (
        lambda: Split(torch.zeros(3, 4), c=torch.zeros(3, 2, dtype=torch.int64)),
        r"context c is int64 \[3, 2\].*float32 \[3, C\]",
    ),
    "c of other rows": (lambda: Split(torch.zeros(3, 4), c=torch.zeros(2, 2)), r"3 rows need float32"),
    "c not finite": (lambda: Split(torch.zeros(3, 4), c=torch.tensor([[0.0], [math.nan], [0.0]])), r"context c of row 1 is not finite"),
    "splits that differ": (
        lambda: DataSet("toy", train=Split(torch.zeros(3, 4), c=torch.zeros(3, 2)), test=Split(torch.zeros(3, 4))),
        r'"toy": test rows have a context of 0 numbers, train rows one of 2',
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_told(name: str) -> None:
    make, message = MISTAKES[name]
    with pytest.raises(InputError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


# Rows and training


def rows(n: int = 70, seed: int = 1) -> Split:
    g = torch.Generator().manual_seed(seed)
    x, c = torch.randn(n, 4, generator=g), torch.randn(n, 2, generator=g)
    return Split(x + c.sum(1, keepdim=True), mask=torch.rand(n, 4, generator=g) < 0.7, c=c)


def test_a_split_carries_its_context() -> None:
    split, index = rows(), torch.tensor([5, 0, 5])
    assert torch.equal(split.batch(index).c, split.c[index])
    assert torch.equal(split.take(index).batch(torch.tensor([1])).c, split.c[:1])
    assert torch.equal(split.head(3).c, split.c[:3]) and torch.equal(split.to("cpu").c, split.c)
    assert repr(split) == "Split(70 rows of [4], float32, with missing entries, with a context of 2)"
    other = Split(split.x, mask=split.mask, c=-split.c)
    assert checksum(split) != checksum(other) != checksum(Split(split.x, mask=split.mask))


@pytest.mark.parametrize("objective", [ELBO(2), IWAE(5)], ids=["elbo", "iwae"])
def test_training_with_context_and_mask_compiled_and_not(objective: Any) -> None:
    found = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = VAE(
            priors.StandardNormal(2),
            Conditional(nn.Linear(10, 4), heads.Gaussian(2)),
            Conditional(nn.Linear(4, 8), heads.Gaussian(4)),
            view=with_mask_and_context,
            context=2,
        )
        data = DataSet("toy", train=rows(), test=rows(20, 2), valid=rows(20, 3))
        fitted = quiet(
            model, data, objective=objective, training=Training(12, 16, optimiser=partial(torch.optim.Adam, lr=1e-2), compile=compiled)
        )
        found.append((fitted.model.state_dict(), fitted.history))
        assert fitted.history[-1]["train/bound"] > fitted.history[0]["train/bound"]
    for key, plain in found[0][0].items():
        torch.testing.assert_close(found[1][0][key], plain, rtol=2e-4, atol=1e-5, msg=key)
    for plain, fast in zip(found[0][1], found[1][1], strict=True):
        del plain["seconds"], fast["seconds"]
        assert fast == pytest.approx(plain, rel=1e-5)


def test_training_in_double_precision_and_in_the_sleep_phase() -> None:
    quiet(small(), Split(rows().x, c=rows().c), training=Training(1, 16, precision="64-true"))
    loss = RWS(3)(small(), rows().batch(torch.arange(5))._replace(mask=None))
    assert loss.surrogate.isfinite().all()
