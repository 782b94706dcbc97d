"""Every head of the tables against its own total mass, exact moments, numerical gradients and masks."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tables import LIKELIHOODS, Likelihood, two_steps
from vaekit import dist, heads
from vaekit.conditional import Conditional
from vaekit.errors import InputError
from vaekit.models import VAE
from vaekit.objectives import ELBO
from vaekit.priors import StandardNormal
from vaekit.types import Batch

f64 = torch.float64
likelihoods = pytest.mark.parametrize("row", LIKELIHOODS.values(), ids=LIKELIHOODS)


def parameters(head: heads.Head, *batch: int) -> Tensor:
    return 0.7 * torch.randn(*batch, head.features, dtype=f64)


@likelihoods
def test_total_mass_is_one(row: Likelihood) -> None:
    head = row.make().double()
    x, log_w = row.points()
    d = head(parameters(head, 3))
    log_p = d.log_prob(x.unsqueeze(1))
    assert log_p.shape == (len(x), 3)
    torch.testing.assert_close(torch.logsumexp(log_p + log_w.unsqueeze(1), 0), torch.zeros(3, dtype=f64), atol=1e-9, rtol=0)


@likelihoods
def test_samples_have_the_exact_moments(row: Likelihood) -> None:
    """20,000 samples: mean, second moments, products of entries and log-density against sums over the whole space."""
    head = row.make().double()
    d = head(parameters(head, 1))
    x, log_w = row.points()
    weights = (d.log_prob(x.unsqueeze(1)) + log_w.unsqueeze(1)).exp()

    def statistics(v: Tensor) -> Tensor:
        flat = v.flatten(2)[:, 0]
        pairs = (flat.unsqueeze(-1) * flat.unsqueeze(-2)).flatten(1)
        return torch.cat([flat, pairs, d.log_prob(v)], -1)

    sample = d.sample((20_000,))
    assert sample.shape == (20_000, 1, *head.event_shape)
    drawn, exact = statistics(sample), (weights * statistics(x.unsqueeze(1))).sum(0)
    assert ((drawn.mean(0) - exact) / (drawn.std(0) / math.sqrt(len(drawn))).clamp(min=1e-9)).abs().max() < 4.5
    centre = dist.centre(d)
    assert centre.shape == (1, *head.event_shape) and centre.isfinite().all()
    if row.has_mean:
        torch.testing.assert_close(centre[0].flatten(), exact[: head.size], atol=1e-9, rtol=1e-9)


@likelihoods
def test_shapes_with_k_samples_and_the_sum_of_parts(row: Likelihood) -> None:
    head, x = row.make(), row.data(4)
    h = parameters(head, 3, 4).float()
    d = head(h)
    assert d.batch_shape == (3, 4) and d.event_shape == head.event_shape
    assert d.log_prob(x).shape == (3, 4)
    alone = torch.stack([head(h[k, b]).log_prob(x[b]) for k in range(3) for b in range(4)]).reshape(3, 4)
    torch.testing.assert_close(d.log_prob(x), alone)
    if row.factorises:
        parts = dist.log_prob_parts(d, x)
        assert parts.dim() == 2 + len(head.event_shape)
        torch.testing.assert_close(parts.flatten(2).sum(-1), d.log_prob(x))


@likelihoods
def test_gradients_by_finite_differences(row: Likelihood) -> None:
    head, x = row.make().double(), row.data(2).double()
    h = parameters(head, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda v, *_: head(v).log_prob(x), (h, *head.parameters()))


@likelihoods
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_densities_are_float32_whatever_the_network_gives(row: Likelihood, dtype: torch.dtype) -> None:
    head, x = row.make(), row.data(4)
    d = head(parameters(head, 4).to(dtype))
    assert d.log_prob(x).dtype == torch.float32 and d.log_prob(x).isfinite().all() and d.sample().dtype == torch.float32


@likelihoods
def test_a_wrong_width_is_told_with_both_widths(row: Likelihood) -> None:
    head = row.make()
    with pytest.raises(InputError, match=rf"takes {head.features} numbers per example and the network gives {head.features + 1}"):
        head(torch.zeros(2, head.features + 1))


@likelihoods
def test_masks(row: Likelihood) -> None:
    head, x = row.make().double(), row.data(4).double()
    h = parameters(head, 3, 4).requires_grad_()
    full = torch.ones(x.shape, dtype=torch.bool)
    if not row.factorises:
        with pytest.raises(InputError, match="does not factorise"):
            dist.log_prob_observed(head(h), x, full)
        return
    torch.testing.assert_close(dist.log_prob_observed(head(h), x, full), head(h).log_prob(x))
    missing = full.clone()
    missing[..., 1] = False
    holes = torch.where(missing, x, torch.full_like(x, math.nan))
    log_p = dist.log_prob_observed(head(h), holes, missing)
    (grad,) = torch.autograd.grad(log_p.sum(), h)
    assert grad.abs().sum() > 0 and grad.isfinite().all()
    if row.by_column:
        by_column = grad.unflatten(-1, (-1, x.shape[-1]))  # of most heads: the parameters of the last axis' entries
        assert (by_column[..., 1] == 0).all() and by_column[..., 0].abs().sum() > 0
    seen = [n for n in range(x.shape[-1]) if n != 1]
    (of_seen,) = torch.autograd.grad(dist.log_prob_parts(head(h), x)[..., seen].sum(), h)
    torch.testing.assert_close(grad, of_seen)
    parts = dist.log_prob_parts(head(h), x)
    torch.testing.assert_close(log_p, parts[..., seen].flatten(2).sum(-1))


@likelihoods
def test_the_gradient_reaches_samples_or_they_are_refused(row: Likelihood) -> None:
    head = row.make().double()
    h = parameters(head, 2).requires_grad_()
    d = head(h)
    if not d.has_rsample:
        with pytest.raises(InputError, match="no reparameterised sample"):
            dist.draw(d, torch.Size((2,)))
        return
    x, log_p = dist.draw(d, torch.Size((5,)))
    (grad,) = torch.autograd.grad((x.square().sum() + 0 * log_p.sum()), h)
    assert x.shape == (5, 2, *head.event_shape) and grad.isfinite().all() and (grad != 0).any()
    detached, log_p = dist.draw(d, torch.Size((5,)), reparam=False)
    assert not detached.requires_grad and log_p.requires_grad


@likelihoods
def test_compiles_without_graph_breaks(row: Likelihood) -> None:
    head, x = row.make(), row.data(4)
    h = parameters(head, 4).float()

    def program(h: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        d = head(h)
        return d.log_prob(x), d.rsample() if d.has_rsample else x

    torch._dynamo.reset()
    log_p, sample = torch.compile(program, fullgraph=True, backend="eager")(h, x)
    torch.testing.assert_close(log_p, head(h).log_prob(x))
    assert sample.shape == x.shape


@likelihoods
def test_trains_as_a_likelihood(row: Likelihood) -> None:
    x = row.data(8)
    posterior = Conditional(nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 4)), heads.Gaussian(2), x.dim() - 1)
    model = VAE(StandardNormal(2), posterior, row.conditional(2)).train()
    two_steps(model, Batch(x), ELBO(3))
    assert model.eval().sample(5).shape == (5, *x.shape[1:]) and model.reconstruct(Batch(x)).shape == x.shape
    assert model.dream(3).log_w.isfinite().all()


# Single heads


def test_gaussian_reads_a_log_variance_a_link_and_a_floor() -> None:
    h = torch.tensor([[0.3, 1.4]])
    d = heads.Gaussian(1)(h)
    assert d.mean.item() == pytest.approx(0.3) and d.variance.item() == pytest.approx(math.exp(1.4))
    d = heads.Gaussian(1, mean=nn.Sigmoid(), min_scale=0.5)(h)
    assert d.mean.item() == pytest.approx(1 / (1 + math.exp(-0.3))) and d.variance.item() == pytest.approx(math.exp(1.4) + 0.25)
    collapsed = heads.Gaussian(1, min_scale=0.5)(torch.tensor([[0.0, -500.0]], requires_grad=True))
    assert collapsed.scale.item() == pytest.approx(0.5)
    assert torch.autograd.grad(collapsed.log_prob(torch.zeros(1)).sum(), collapsed.loc)[0].isfinite().all()


def test_shared_scale_learns_the_spread_of_the_residuals() -> None:
    torch.manual_seed(0)
    head = heads.GaussianShared(3, scale=2.0)
    assert [name for name, _ in head.named_parameters()] == ["log_scale"]
    x, h = torch.randn(500, 3) * 0.3, torch.zeros(500, 3)
    optimiser = torch.optim.Adam(head.parameters(), 0.1)
    for _ in range(150):
        optimiser.zero_grad()
        (-head(h).log_prob(x).mean()).backward()
        optimiser.step()
    assert head.log_scale.exp().item() == pytest.approx(x.square().mean().sqrt().item(), rel=1e-2)


def test_a_scale_for_each_entry_learns_that_entrys_spread_at_its_pace() -> None:
    torch.manual_seed(0)
    x, h = torch.randn(500, 3) * torch.tensor([0.3, 1.0, 3.0]), torch.zeros(500, 3)
    found = {}
    for pace, rate in ((1.0, 0.1), (10.0, 0.01)):
        head = heads.GaussianEach(3, scale=2.0, pace=pace)
        optimiser = torch.optim.Adam(head.parameters(), rate)
        for _ in range(150):
            optimiser.zero_grad()
            (-head(h).log_prob(x).mean()).backward()
            optimiser.step()
        found[pace] = head(h[:1]).scale[0].detach()
    torch.testing.assert_close(found[1.0], x.square().mean(0).sqrt(), rtol=1e-2, atol=0)
    torch.testing.assert_close(found[10.0], found[1.0], rtol=1e-4, atol=0)  # ten times the pace at a tenth of the rate is the same road
    floored = heads.GaussianEach(2, scale=0.3, min_scale=0.4, mean=nn.Sigmoid())(torch.zeros(1, 2))
    torch.testing.assert_close(floored.scale, torch.full((1, 2), 0.5))
    torch.testing.assert_close(floored.mean, torch.full((1, 2), 0.5))


def test_optimal_scale_averages_batches_and_is_a_density_in_evaluation() -> None:
    head = heads.GaussianOptimal(2, momentum=0.25)
    seen = []
    for step in range(1, 8):
        x = torch.full((3, 2), float(step))
        d = head(torch.zeros(5, 3, 2))
        torch.testing.assert_close(d.log_prob(x), torch.full((5, 3), -math.log(2 * math.pi * step**2) - 1))
        d.log_prob(x)  # a second look at the same batch counts once
        seen.append(float(step**2))
        if step <= 4:
            assert head.variance.item() == pytest.approx(sum(seen) / step)
    expected = sum(seen[:4]) / 4
    for value in seen[4:]:
        expected += 0.25 * (value - expected)
    assert head.variance.item() == pytest.approx(expected) and head.batches == 7
    head.eval()
    d = head(torch.zeros(1, 2))
    assert type(d) is dist.DiagGaussian and d.variance[0, 0].item() == pytest.approx(expected)
    d.log_prob(torch.full((1, 2), 100.0))
    assert head.variance.item() == pytest.approx(expected)  # evaluation does not look at x
    copy = heads.GaussianOptimal(2)
    copy.load_state_dict(head.state_dict())
    assert copy.eval()(torch.zeros(1, 2)).variance[0, 0].item() == pytest.approx(expected)


def test_optimal_scale_respects_its_floor_when_the_fit_is_perfect() -> None:
    head = heads.GaussianOptimal(2, min_scale=0.5)
    assert head(torch.zeros(1, 2)).log_prob(torch.zeros(1, 2)).item() == pytest.approx(-math.log(2 * math.pi * 0.25))
    assert head.variance.item() == pytest.approx(0.25)
    assert heads.GaussianOptimal(2)(torch.zeros(1, 2)).log_prob(torch.zeros(1, 2)).isfinite().logical_not().all()


def test_optimal_scale_with_masks_trains_in_a_model() -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 4)
    batch = Batch(torch.where(x > 1, math.nan, x), mask=x <= 1)
    head = heads.GaussianOptimal(4)
    model = VAE(StandardNormal(2), Conditional(nn.Linear(4, 4), heads.Gaussian(2)), Conditional(nn.Linear(2, 4), head))
    two_steps(model.train(), batch, ELBO(2))
    assert head.batches == 2 and head.variance.isfinite()


def test_full_gaussian_has_the_covariance_of_its_factor_and_is_diagonal_at_zero() -> None:
    torch.manual_seed(0)
    h = torch.randn(4, 9)
    d = heads.FullGaussian(3)(h)
    factor = torch.diag_embed((0.5 * h[:, 3:6]).exp())
    factor[:, 1, 0], factor[:, 2, 0], factor[:, 2, 1] = h[:, 6], h[:, 7], h[:, 8]
    torch.testing.assert_close(d.covariance_matrix, factor @ factor.mT)
    h[:, 6:] = 0
    z = torch.randn(4, 3)
    torch.testing.assert_close(heads.FullGaussian(3)(h).log_prob(z), heads.Gaussian(3)(h[:, :6]).log_prob(z))
    assert heads.FullGaussian(1)(torch.zeros(2, 2)).log_prob(torch.zeros(1)).shape == (2,)


def test_discretised_logistic_reads_locations_and_scales_for_minus_one_to_one() -> None:
    d = heads.DiscretisedLogistic(1, bins=256)(torch.tensor([[0.4, -3.0]]))
    assert isinstance(d, dist.DiscretisedLogistic)
    assert d.loc.item() == pytest.approx((1 + 0.4) / 2) and d.log_scale.exp().item() == pytest.approx(math.exp(-3) / 2) and d.bins == 256


def test_the_vector_layout_of_the_discretised_mixture_is_that_of_a_decoders_channels() -> None:
    torch.manual_seed(0)
    head = heads.DiscretisedLogisticMixture((3, 2, 2), components=2, bins=16)
    assert head.features == 2 * 10 * 4
    channels = torch.randn(5, 20, 2, 2)
    d = head(channels.flatten(1))
    assert isinstance(d, dist.DiscretisedLogisticMixture)
    torch.testing.assert_close(d.logits, channels[:, :2])
    torch.testing.assert_close(d.loc[:, 1], 0.5 + 0.5 * channels[:, 5:8])
    torch.testing.assert_close(d.log_scale[:, 0], channels[:, 8:11] - math.log(2))
    torch.testing.assert_close(d.coefficients[:, 1], torch.tanh(channels[:, 17:20]))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: heads.GaussianFixed(2, 0.0), r"GaussianFixed\(scale=0.0\): a standard deviation must be a positive number"),
        (lambda: heads.GaussianShared(2, scale=math.nan), r"GaussianShared\(scale=nan\)"),
        (lambda: heads.GaussianEach(2, scale=0.0), r"GaussianEach\(scale=0.0\).*positive number"),
        (lambda: heads.GaussianEach(2, pace=-1.0), r"GaussianEach\(pace=-1.0\).*positive number"),
        (lambda: heads.GaussianShared(2, min_scale=-1.0), r"GaussianShared\(min_scale=-1.0\).*number >= 0"),
        (lambda: heads.Gaussian(2, min_scale=-1.0), r"Gaussian\(min_scale=-1.0\)"),
        (lambda: heads.GaussianOptimal(2, momentum=0.0), r"momentum=0.0"),
        (lambda: heads.Categorical(2, 1), r"Categorical\(classes=1\): at least 2"),
        (lambda: heads.DiscretisedLogistic(2, bins=1), r"bins=1"),
        (lambda: heads.DiscretisedLogisticMixture(12), r"DiscretisedLogisticMixture\(12\): the event must be an image"),
        (lambda: heads.DiscretisedLogisticMixture((1, 2, 2), components=0), r"components=0"),
        (lambda: heads.SharedLevels(3, components=1), r"SharedLevels\(components=1\): at least 2"),
        (lambda: heads.MixtureGaussian(2, 0), r"components=0"),
        (lambda: heads.Bernoulli((0, 3)), r"event shape \(0, 3\) has an empty dimension"),
    ],
)
def test_wrong_arguments_are_told(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
