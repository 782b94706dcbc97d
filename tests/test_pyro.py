"""The Pyro adapter: the same bound and gradients as ours from the same network and noise, and exact posterior moments by Pyro's NUTS."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pyro
import pytest
import torch
from pyro import infer, poutine
from pyro.ops.stats import effective_sample_size
from torch import Tensor, nn

from oracles import PPCA, LinearLadder, z_score
from tables import LIKELIHOODS, POSTERIORS, PRIORS
from vaekit import dist, heads, priors
from vaekit.apps.pyro import Adapted, PyroPair, pyro_pair
from vaekit.conditional import Conditional
from vaekit.errors import InputError
from vaekit.models import VAE
from vaekit.objectives import ELBO
from vaekit.types import Batch

f64 = torch.float64


@pytest.fixture(autouse=True)
def empty_store() -> Iterator[None]:
    """Pyro's store is global: what one test registers, the next would find."""
    pyro.clear_param_store()
    torch.manual_seed(0)
    yield
    pyro.clear_param_store()


def double(model: nn.Module) -> nn.Module:
    model.double()
    prior = model.prior
    if isinstance(prior, priors.VampPrior):
        prior.posterior.double()
    return model


def with_likelihood(name: str) -> tuple[nn.Module, Tensor]:
    row = LIKELIHOODS[name]
    px, x, q = row.conditional(2), row.data(5), heads.Gaussian(2)
    net = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), q.features))
    return VAE(priors.StandardNormal(2), Conditional(net, q, event_dim=x.dim() - 1), px), x


def binary(posterior: nn.Module, prior: nn.Module) -> tuple[nn.Module, Tensor]:
    return VAE(prior, posterior, Conditional(nn.Linear(2, 6), heads.Bernoulli(6))), torch.randint(2, (5, 6)).float()


def vamp() -> tuple[nn.Module, Tensor]:
    """As it is used: the prior's posterior is the model's own."""
    posterior = POSTERIORS["gaussian"](6, 2)
    return binary(posterior, priors.VampPrior(posterior, torch.rand(3, 6)))


MODELS: dict[str, Any] = (
    {f"p(x|z) {name}": lambda name=name: with_likelihood(name) for name in LIKELIHOODS}
    | {f"q {name}": lambda make=make: binary(make(6, 2), priors.StandardNormal(2)) for name, make in POSTERIORS.items()}
    | {f"p(z) {name}": lambda make=make: binary(POSTERIORS["gaussian"](6, 2), make(2)) for name, make in PRIORS.items()}
    | {"vamp": vamp}
)


def replayed(pair: PyroPair, batch: Batch) -> tuple[Tensor, Tensor]:
    """Pyro's z, and its log p(x, z) - log q(z | x), summed over the batch."""
    q = poutine.trace(pair.guide).get_trace(batch)
    p = poutine.trace(poutine.replay(pair.model, q)).get_trace(batch)
    return q.nodes["z"]["value"], p.log_prob_sum() - q.log_prob_sum()


@pytest.mark.parametrize("name", MODELS)
def test_same_bound_and_gradients_for_the_same_latents(name: str) -> None:
    model, x = MODELS[name]()
    _, log_w = replayed(pyro_pair(model), Batch(x))
    assert log_w.dtype == torch.float32
    pyro.clear_param_store()

    model, batch = double(model), Batch(x.double())
    torch.manual_seed(1)
    z, log_w = replayed(pyro_pair(model), batch)
    torch.testing.assert_close(log_w, model.score(batch, z[None]).log_w.sum(), rtol=1e-9, atol=1e-9)
    torch.manual_seed(1)
    loss = infer.Trace_ELBO().differentiable_loss(pyro_pair(model).model, pyro_pair(model).guide, batch)
    torch.manual_seed(1)
    ours = ELBO(closed_form=False)(model, batch)
    torch.testing.assert_close(loss.detach(), -ours.bound.sum(), rtol=1e-9, atol=1e-9)
    parameters = list(model.parameters())
    for theirs, own in zip(*(torch.autograd.grad(value, parameters) for value in (loss, ours.surrogate.sum())), strict=True):
        torch.testing.assert_close(theirs, own, rtol=1e-8, atol=1e-9)


def test_float32_bounds_agree_to_1e_4_on_a_network_of_full_size() -> None:
    q, px = heads.Gaussian(50), heads.Bernoulli((1, 28, 28))
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, 400), nn.Softplus(), nn.Linear(400, 100))
    decoder = nn.Sequential(nn.Linear(50, 400), nn.Softplus(), nn.Linear(400, 784))
    model = VAE(priors.StandardNormal(50), Conditional(encoder, q, 3), Conditional(decoder, px))
    batch = Batch(torch.rand(32, 1, 28, 28))
    z, log_w = replayed(pyro_pair(model), batch)
    assert abs(log_w - model.score(batch, z[None]).log_w.sum()) / batch.size < 1e-4


def test_particles_are_samples_and_the_closed_form_is_pyros_mean_field() -> None:
    oracle = PPCA()
    model, batch = oracle.model(), Batch(oracle.x)
    pair = pyro_pair(model)
    vectorised = {"num_particles": 5, "vectorize_particles": True, "max_plate_nesting": 1}  # told, for finding it out takes noise
    objectives = [
        (infer.Trace_ELBO(**vectorised), ELBO(5, closed_form=False)),
        (infer.TraceMeanField_ELBO(), ELBO(closed_form=True)),
        (infer.TraceMeanField_ELBO(**vectorised), ELBO(5, closed_form=True)),
    ]
    for theirs, ours in objectives:
        torch.manual_seed(3)
        loss = theirs.loss(pair.model, pair.guide, batch)
        torch.manual_seed(3)
        assert loss == pytest.approx(-ours(model, batch).bound.sum().item(), abs=1e-9)


def test_masks_hide_what_is_missing() -> None:
    oracle = PPCA()
    x, mask = oracle.x.clone(), torch.rand(oracle.x.shape) < 0.6
    x[~mask] = torch.nan
    model, batch = oracle.model(), Batch(x, mask=mask)
    z, log_w = replayed(pyro_pair(model), batch)
    torch.testing.assert_close(log_w, model.score(batch, z[None]).log_w.sum(), rtol=1e-12, atol=1e-12)
    assert all(g.isfinite().all() for g in torch.autograd.grad(log_w, list(model.parameters())))
    entries = torch.tensor([0, 2, 3])
    mask = torch.zeros_like(mask).index_fill(1, entries, True)
    _, log_w = replayed(pyro_pair(oracle.exact(entries.tolist()), name="exact"), Batch(x.nan_to_num(7.0), mask=mask))
    x = x.nan_to_num(7.0)
    torch.testing.assert_close(log_w, oracle.evidence(x, entries).sum(), rtol=1e-9, atol=1e-9)


def test_svi_trains_the_models_own_parameters_in_place() -> None:
    """One step of SGD on the sum over the batch, by hand; a parameter of somebody else stays in the store."""
    oracle = PPCA()
    model, batch = oracle.model(), Batch(oracle.x)
    before = {name: (p, p.detach().clone()) for name, p in model.named_parameters()}
    torch.manual_seed(5)
    grads = torch.autograd.grad(ELBO(closed_form=False)(model, batch).surrogate.sum(), [p for p, _ in before.values()])
    model.prior.frozen = nn.Parameter(torch.ones(1, dtype=f64), requires_grad=False)
    pyro.param("theirs", torch.tensor(1.0))
    pair = pyro_pair(model.eval())
    torch.manual_seed(5)
    infer.SVI(pair.model, pair.guide, pyro.optim.SGD({"lr": 1e-3}), infer.Trace_ELBO()).step(batch)
    now = dict(model.named_parameters())
    for (name, (own, start)), grad in zip(before.items(), grads, strict=True):
        assert now[name] is own
        torch.testing.assert_close(own.detach(), start - 1e-3 * grad, rtol=1e-12, atol=1e-12)
    assert set(pyro.get_param_store().keys()) == {"theirs", *(f"vae$$${name}" for name in before)}


class Coins(nn.Module):
    """q(z | x) and p(z) of two binary latents."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.net = nn.Linear(inputs, 2)

    def forward(self, *x: Tensor) -> dist.Bernoulli:
        return dist.Bernoulli(self.net(*x) if x else self.net.bias)


def test_score_function_gradients_of_discrete_latents() -> None:
    """The exact ELBO by enumeration of 4 latents; 400 draws of its gradient, 3 examples."""
    model = VAE(Coins(1), Coins(6), Conditional(nn.Linear(2, 6), heads.Bernoulli(6))).double()
    batch = Batch(torch.randint(2, (3, 6)).double())
    codes = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=f64)] * 2)[:, None].expand(4, 3, 2)
    t = model.score(batch, codes)
    parameters = [p for name, p in model.named_parameters() if name != "prior.net.weight"]
    exact = torch.autograd.grad(-(t.log_qz.exp() * t.log_w).sum(), parameters)
    pair = pyro_pair(model)
    draws = []
    for _ in range(400):
        model.zero_grad()
        infer.Trace_ELBO().loss_and_grads(pair.model, pair.guide, batch)
        draws.append([p.grad.clone() for p in parameters])
    for got, want in zip(zip(*draws, strict=True), exact, strict=True):
        varies = torch.stack(got).std(0) > 1e-12
        assert z_score(torch.stack(got)[:, varies], want[varies]).abs().max() < 4.5


class OneWay(dist.DiagGaussian):
    """A posterior that cannot score an outside point, as a planar flow cannot."""

    def log_prob(self, value: Tensor) -> Tensor:
        raise InputError("no inverse")


@dist.draw.register
def _(d: OneWay, shape: torch.Size, reparam: bool = True) -> tuple[Tensor, Tensor]:
    return dist.draw(dist.DiagGaussian(d.loc, d.log_scale), shape, reparam)


def test_a_flow_without_an_inverse_can_be_the_guide() -> None:
    oracle = PPCA()
    model = oracle.model()
    encoder = oracle.encoder

    class Posterior(nn.Module):
        def forward(self, x: Tensor) -> OneWay:
            q = encoder(x)
            return OneWay(q.loc, q.log_scale)

    z, log_w = replayed(pyro_pair(oracle.model(Posterior())), Batch(oracle.x))
    torch.testing.assert_close(log_w, model.score(Batch(oracle.x), z[None]).log_w.sum())


def test_pyros_nuts_finds_the_exact_posterior() -> None:
    """400 draws of 3 examples after 100 of warm-up: means and second moments by z-score, the error from the effective sample size."""
    oracle = PPCA()
    batch = Batch(oracle.x[:3])
    model = oracle.model().eval().requires_grad_(False)
    pyro.set_rng_seed(0)
    chain = infer.MCMC(infer.NUTS(pyro_pair(model).model), num_samples=400, warmup_steps=100, disable_progbar=True)
    chain.run(batch)
    z, exact = chain.get_samples()["z"], oracle.exact().infer(batch).levels[0].q
    assert z.shape == (400, 3, 2) and not pyro.get_param_store().keys()
    cov = exact.covariance_matrix
    centred = z - exact.mean
    cross = (centred.prod(-1, keepdim=True), cov[..., :1, 1])
    for values, expected in ((z, exact.mean), (centred.square(), cov.diagonal(dim1=-2, dim2=-1)), cross):
        ess = effective_sample_size(values[None], chain_dim=0, sample_dim=1)
        assert ess.min() > 100
        assert ((values.mean(0) - expected) / (values.std(0) / ess.sqrt())).abs().max() < 4.5


def test_predictive_generates_and_pairs_travel_to_other_processes() -> None:
    oracle = PPCA()
    pair, batch = pyro_pair(oracle.model().eval().requires_grad_(False)), Batch(oracle.x)  # Pyro hangs weak references on what it trains
    drawn = infer.Predictive(poutine.uncondition(pair.model), num_samples=20_000, parallel=True)(batch)
    mean, cov = oracle.joint()
    x = drawn["x"].reshape(-1, 4)
    assert drawn["z"].shape == (20_000, 6, 2) and len(x) == 120_000
    assert z_score(x, mean[2:]).abs().max() < 4.5
    assert z_score((x[:, 0] - mean[2]) * (x[:, 1] - mean[3]), cov[2, 3]).abs() < 4.5
    again = pickle.loads(pickle.dumps(pair))
    torch.manual_seed(0)
    z, log_w = replayed(pair, batch)
    torch.manual_seed(0)
    pyro.clear_param_store()
    torch.testing.assert_close(replayed(again, batch), (z, log_w))


def test_adapted_distributions_expand_to_the_left_only() -> None:
    q = Adapted(dist.DiagGaussian(torch.zeros(3, 2), torch.zeros(3, 2)))
    wide = q.expand((7, 3))
    assert wide.batch_shape == (7, 3) and wide().shape == (7, 3, 2) and wide.log_prob(torch.zeros(2)).shape == (7, 3)
    for shape in ((4,), (3, 4), ()):
        with pytest.raises(InputError, match="cannot be expanded"):
            q.expand(shape)


def test_refusals() -> None:
    oracle = PPCA()
    model, batch = oracle.model(), Batch(oracle.x)
    with pytest.raises(InputError, match="takes a flat model, and this is a Ladder"):
        pyro_pair(LinearLadder().model())
    with pytest.raises(InputError, match="not a Linear"):
        pyro_pair(nn.Linear(2, 2))
    pair, context = pyro_pair(model), Batch(oracle.x, c=oracle.x)
    for half in pair:
        with pytest.raises(InputError, match="takes no context"):
            half(context)
    pair.guide(batch)
    with pytest.raises(InputError, match="another tensor than this model's as \"vae.*name of its own"):
        pyro_pair(PPCA(seed=3).model()).model(batch)
    pyro_pair(PPCA(seed=3).model(), name="other").model(batch)
    wrong = pyro_pair(VAE(priors.StandardNormal(3).double(), oracle.encoder, oracle.likelihood), name="wrong")
    with pytest.raises(InputError, match="events"):
        replayed(wrong, batch)


def test_without_pyro_the_extra_is_named() -> None:
    code = "import sys; sys.modules['pyro'] = None; import vaekit.apps; import vaekit.apps.pyro"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert (
        done.stderr.splitlines()[-1].startswith("vaekit.errors.InputError: vaekit.apps.pyro needs Pyro") and "vaekit[pyro]" in done.stderr
    )
