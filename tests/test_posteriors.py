"""Every posterior of the tables, flows too: density, gradients of its samples, training, mixed precision, ensembles."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tables import POSTERIORS, two_steps
from vaekit import dist, heads
from vaekit.conditional import Conditional
from vaekit.models import VAE
from vaekit.objectives import ELBO
from vaekit.priors import StandardNormal
from vaekit.types import Batch

f64 = torch.float64
posteriors = pytest.mark.parametrize("posterior", POSTERIORS.values(), ids=POSTERIORS)


@posteriors
def test_posterior_density_of_its_own_samples_is_the_density(posterior: Any) -> None:
    q = posterior(6, 2).double()(torch.randn(3, 6, dtype=f64))
    z, log_q = dist.draw(q, torch.Size((4,)))
    torch.testing.assert_close(log_q, q.log_prob(z))
    line = torch.linspace(-9, 9, 181, dtype=f64)
    mass = q.log_prob(torch.cartesian_prod(line, line).unsqueeze(1).expand(-1, 3, 2)).exp().sum(0) * 0.01
    torch.testing.assert_close(mass, torch.ones(3, dtype=f64), atol=2e-3, rtol=0)
    assert dist.centre(q).shape == (3, 2)


@posteriors
def test_posterior_sample_gradients_agree_with_score_function_ones(posterior: Any) -> None:
    """E[f(z)] by 20,000 paths and by 20,000 scores: the same gradient for every weight, by its z-score."""
    q = posterior(3, 2).double()
    n, x = 20_000, torch.randn(1, 3, dtype=f64)
    hidden = torch.randn(1, q.net.out_features, dtype=f64) * 0.5
    h = hidden.expand(n, -1).clone().requires_grad_()

    def f(z: Tensor) -> Tensor:
        return torch.sin(z[..., 0]) + 0.5 * z.prod(-1)

    assert q(x).batch_shape == (1,)
    z, _ = dist.draw(q.head(h), torch.Size())
    (paths,) = torch.autograd.grad(f(z).sum(), h)
    z, log_q = dist.draw(q.head(h), torch.Size(), reparam=False)
    (scores,) = torch.autograd.grad(((f(z) - f(z).mean()).detach() * log_q).sum(), h)
    error = ((paths.var(0) + scores.var(0)) / n).sqrt()
    assert ((paths.mean(0) - scores.mean(0)).abs() / error.clamp(min=1e-9)).max() < 4.5
    assert (paths.mean(0).abs() / error).max() > 5


@posteriors
def test_trains_as_a_posterior(posterior: Any) -> None:
    model = VAE(StandardNormal(2), posterior(6, 2), Conditional(nn.Linear(2, 6), heads.Bernoulli(6)))
    batch = Batch(torch.randint(2, (8, 6)).float())
    two_steps(model, batch, ELBO(3, closed_form=None))
    trace = model.infer(batch, 3)
    torch.testing.assert_close(model.score(batch, trace.z).log_w, trace.log_w, atol=2e-4, rtol=1e-4)
    assert model.embed(batch).shape == (8, 2)


@posteriors
def test_mixed_precision_leaves_densities_in_float32(posterior: Any) -> None:
    """All of a step may run under autocast: what a head gives is drawn and scored in float32 all the same."""
    q, x = posterior(6, 2), torch.randn(4, 6)
    with torch.autocast("cpu", torch.bfloat16):
        d = q(x)
        z, log_q = dist.draw(d, torch.Size((3,)))
        again = d.log_prob(z)
    assert z.dtype == log_q.dtype == again.dtype == torch.float32
    torch.testing.assert_close(log_q, again, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # log_ndtr has no batching rule
@pytest.mark.parametrize("name", ["gaussian", "full_gaussian", "mixture_gaussian"])
def test_an_ensemble_draws_its_own_noise_under_vmap(name: str) -> None:
    head = POSTERIORS[name](6, 2).head
    h = torch.randn(1, 4, head.features).expand(3, -1, -1)
    draw = torch.func.vmap(lambda v: dist.draw(head(v), torch.Size((5,))), randomness="different")
    z, log_q = draw(h)
    assert z.shape == (3, 5, 4, 2) and not torch.equal(z[0], z[1])
    torch.testing.assert_close(log_q[2], head(h[2]).log_prob(z[2]))
