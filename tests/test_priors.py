"""Every prior of the tables, and every posterior as a VampPrior's component."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import zuko
from torch import nn

from tables import POSTERIORS, PRIORS
from vaekit import dist, heads, priors
from vaekit.conditional import Conditional
from vaekit.errors import InputError
from vaekit.models import VAE
from vaekit.objectives import ELBO, IWAE
from vaekit.types import Batch

f64 = torch.float64
every_prior = pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS)


def perturbed(module: nn.Module) -> nn.Module:
    """Away from the starting values, which hide what they multiply."""
    module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.2 * torch.rand_like(parameter)
    return module


@every_prior
def test_prior_integrates_to_one_and_samples_accordingly(prior: Callable[[int], nn.Module]) -> None:
    p = _with_posterior_in_float64(prior(2))()
    assert p.batch_shape == () and p.event_shape == (2,)
    line = torch.linspace(-9, 9, 241, dtype=f64)
    z = torch.cartesian_prod(line, line)
    weights = p.log_prob(z).exp() * (18 / 240) ** 2
    assert weights.sum().item() == pytest.approx(1, abs=1e-3)
    drawn = p.sample((20_000,))
    for f in (lambda v: v[:, 0], lambda v: v[:, 1].square(), lambda v: v.prod(-1), lambda v: p.log_prob(v)):
        exact = (weights * f(z)).sum()
        assert abs(f(drawn).mean() - exact) < 4 * f(drawn).std() / math.sqrt(len(drawn)) + 1e-3
    assert dist.centre(p).shape == (2,) and dist.tempered(p, 0.5).sample((3,)).shape == (3, 2)


def _with_posterior_in_float64(prior: nn.Module) -> nn.Module:
    if isinstance(prior, priors.VampPrior):
        perturbed(prior._posterior[0])
        prior.double()
        with torch.no_grad():
            prior.logits += torch.linspace(-1, 1, len(prior.logits), dtype=f64)
        return prior
    return perturbed(prior)


@every_prior
def test_prior_trains_in_a_model_and_samples(prior: Callable[[int], nn.Module]) -> None:
    p = prior(2)
    posterior = p._posterior[0] if isinstance(p, priors.VampPrior) else Conditional(nn.Linear(6, 4), heads.Gaussian(2))
    model = VAE(p, posterior, Conditional(nn.Linear(2, 6), heads.Bernoulli(6)))
    batch = Batch(torch.randint(2, (8, 6)).float())
    before = [v.clone() for v in p.parameters()]
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    for objective in (ELBO(3), IWAE(3)):
        optimiser.zero_grad()
        loss = objective(model, batch)
        assert loss.bound.isfinite().all()
        loss.surrogate.mean().backward()
        assert all(v.grad is not None and v.grad.isfinite().all() for v in model.parameters())
        optimiser.step()
    assert all(not torch.equal(a, b) for a, b in zip(before, p.parameters(), strict=True))
    assert model.sample(5).shape == (5, 6) and model.dream(4).log_w.shape == (1, 4)


def test_starting_values() -> None:
    z = torch.randn(7, 3)
    standard = priors.StandardNormal(3)().log_prob(z)
    torch.testing.assert_close(priors.DiagNormal(3)().log_prob(z), standard)
    torch.testing.assert_close(priors.FullNormal(3)().log_prob(z), standard)
    torch.manual_seed(0)
    p = priors.GaussianMixture(4, 2000)()
    assert p.mean.abs().max() < 0.08 and (p.variance - 1).abs().max() < 0.08
    assert priors.StandardNormal((2, 3))().log_prob(torch.zeros(5, 2, 3)).shape == (5,)
    assert priors.DiagNormal((2, 3))().event_shape == (2, 3)


def test_full_normal_has_the_covariance_of_its_factor() -> None:
    prior = perturbed(priors.FullNormal(3))
    factor = prior.lower.tril(-1) + torch.diag(prior.log_scale.exp())
    torch.testing.assert_close(prior().covariance_matrix, factor @ factor.mT)


def test_learned_mixture_finds_two_clusters_that_lie_apart() -> None:
    clusters = [torch.randn(200, 2) * 0.3 - 2, torch.randn(400, 2) * 0.2 + 2]
    prior = priors.GaussianMixture(2, 2)
    optimiser = torch.optim.Adam(prior.parameters(), 0.05)
    for _ in range(250):
        optimiser.zero_grad()
        (-prior().log_prob(torch.cat(clusters)).mean()).backward()
        optimiser.step()
    order = prior.loc[:, 0].argsort()
    learned = [v.detach()[order] for v in (prior.loc, prior.log_scale.exp(), prior.logits.softmax(0))]
    maximum = [
        torch.stack([c.mean(0) for c in clusters]),
        torch.stack([c.std(0, correction=0) for c in clusters]),
        torch.tensor([1, 2]) / 3,
    ]
    torch.testing.assert_close(learned, maximum, atol=1e-3, rtol=0)


# VampPrior


@pytest.mark.parametrize("make", POSTERIORS.values(), ids=POSTERIORS)
def test_vamp_prior_is_the_mean_of_the_posteriors(make: Callable[[int, int], Conditional]) -> None:
    posterior = make(6, 2).double()
    u, z = torch.rand(5, 6, dtype=f64), torch.randn(3, 4, 2, dtype=f64)
    p = priors.VampPrior(posterior, u)()
    each = torch.stack([posterior(u[c : c + 1]).log_prob(z.flatten(0, 1).unsqueeze(1)).reshape(3, 4) for c in range(5)])
    torch.testing.assert_close(p.log_prob(z), each.exp().mean(0).log())
    assert p.sample((3, 4)).shape == (3, 4, 2) and dist.centre(p).shape == (2,)


def test_vamp_prior_on_images_with_weights() -> None:
    posterior = Conditional(nn.Sequential(nn.Flatten(), nn.Linear(16, 4)), heads.Gaussian(2), event_dim=3)
    prior = priors.VampPrior(posterior, torch.rand(5, 1, 4, 4), learn_weights=True)
    assert sorted(dict(prior.named_parameters())) == ["inputs", "logits"] and prior.state_dict().keys() == {"inputs", "logits"}
    with torch.no_grad():
        prior.logits[:] = torch.tensor([0.0, 0.0, 0.0, 0.0, 50.0])
    z = torch.randn(7, 2)
    torch.testing.assert_close(prior().log_prob(z), posterior(prior.inputs[4:]).log_prob(z.unsqueeze(1))[:, 0])


def test_vamp_prior_follows_its_model_through_copies_and_keeps_the_posterior_out_of_its_state() -> None:
    posterior = Conditional(nn.Linear(6, 4), heads.Gaussian(2))
    model = VAE(priors.VampPrior(posterior, torch.rand(3, 6)), posterior, Conditional(nn.Linear(2, 6), heads.Bernoulli(6)))
    names = [name for name, _ in model.named_parameters()]
    assert names == ["prior.inputs", "posterior.net.weight", "posterior.net.bias", "likelihood.net.weight", "likelihood.net.bias"]
    assert list(model.state_dict()) == names
    twin = copy.deepcopy(model)
    assert twin.prior._posterior[0] is twin.posterior and twin.posterior is not posterior
    with torch.no_grad():
        twin.posterior.net.weight.zero_()
        twin.posterior.net.bias.zero_()
    torch.testing.assert_close(twin.prior().log_prob(torch.zeros(2)), priors.StandardNormal(2)().log_prob(torch.zeros(2)))


def test_pseudo_inputs_are_held_in_their_interval_and_find_the_way_back() -> None:
    prior = priors.VampPrior(nn.Identity(), torch.tensor([[0.0, 0.4, 1.0]]))
    seen: list[torch.Tensor] = []

    class Posterior(nn.Module):
        def forward(self, u: torch.Tensor) -> dist.DiagGaussian:
            seen.append(u)
            return dist.DiagGaussian(u, torch.zeros_like(u))

    prior._posterior = (Posterior(),)
    with torch.no_grad():
        prior.inputs[:] = torch.tensor([[-0.2, 0.4, 1.3]])
    for z, kept in (([1.0, 1.0, 1.0], [True, True, False]), ([0.0, 0.0, 0.0], [False, True, True])):
        prior.zero_grad()
        (-prior().log_prob(torch.tensor(z))).backward()  # descent moves u towards z
        torch.testing.assert_close(seen[-1], torch.tensor([[0.0, 0.4, 1.0]]))
        assert prior.inputs.grad is not None and (prior.inputs.grad[0] != 0).tolist() == kept
    free = priors.VampPrior(nn.Identity(), torch.tensor([[-7.0, 9.0]]), low=-math.inf, high=math.inf)
    assert free.inputs.shape == (1, 2)


def test_vamp_prior_compiles_without_graph_breaks() -> None:
    posterior = Conditional(nn.Linear(6, 4), heads.Gaussian(2))
    model = VAE(priors.VampPrior(posterior, torch.rand(3, 6)), posterior, Conditional(nn.Linear(2, 6), heads.Bernoulli(6)))
    batch = Batch(torch.ones(4, 6))
    torch._dynamo.reset()
    torch.manual_seed(0)
    compiled = torch.compile(ELBO(2), fullgraph=True, backend="eager")(model, batch).surrogate
    torch.manual_seed(0)
    torch.testing.assert_close(compiled, ELBO(2)(model, batch).surrogate)
    compiled.sum().backward()
    assert model.prior.inputs.grad is not None


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: priors.VampPrior(nn.Identity(), torch.zeros(6)), r"pseudo-inputs of shape \[6\]: give \[C, \*x\]"),
        (lambda: priors.VampPrior(nn.Identity(), torch.tensor([[-0.5, 2.0]])), r"from -0.5 to 2 are not within \[0, 1\]"),
        (lambda: priors.VampPrior(nn.Identity(), torch.tensor([[math.nan, 0.5]])), r"not within \[0, 1\]"),
        (lambda: priors.GaussianMixture(2, 0), r"GaussianMixture\(components=0\)"),
    ],
)
def test_wrong_arguments_are_told(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_a_zuko_flow_is_a_prior_and_a_posterior_at_once() -> None:
    torch.manual_seed(0)
    model = VAE(
        zuko.flows.MAF(2, transforms=2, hidden_features=(8,)),
        Conditional(nn.Linear(6, 3), zuko.flows.MAF(2, context=3, transforms=2, hidden_features=(8,))),
        Conditional(nn.Linear(2, 6), heads.Bernoulli(6)),
    )
    batch = Batch(torch.ones(4, 6))
    trace = model.infer(batch, 5)
    assert trace.log_w.shape == (5, 4) and trace.kl is None
    torch.testing.assert_close(model.score(batch, trace.z).log_w, trace.log_w, atol=1e-4, rtol=1e-4)
    ELBO(5)(model, batch).surrogate.mean().backward()
    assert all(v.grad is not None and v.grad.isfinite().all() for v in model.parameters())
    assert model.sample(3, temperature=0.5).shape == (3, 6) and model.embed(batch).shape == (4, 2)
