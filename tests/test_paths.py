"""Paths through latent space on linear decoders, whose frames are known exactly, for flat models and ladders."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import zuko
from torch import Tensor, nn
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Distribution, Independent

from oracles import PPCA, LinearLadder
from vaekit import VAE, Batch, Conditional, dist, heads, priors
from vaekit.dist import Categorical, OneHot
from vaekit.errors import InputError
from vaekit.evaluate import Latents, continuous, interpolate, leading, quantiles, spherical, straight, traverse
from vaekit.models.core import LatentModel

T = torch.linspace(0, 1, 5, dtype=torch.float64)


def slerp(a: Tensor, b: Tensor, t: float) -> np.ndarray:
    """One pair, in numpy, by the arccosine."""
    u, v = a.numpy(), b.numpy()
    angle = math.acos(float(u @ v / np.linalg.norm(u) / np.linalg.norm(v)))
    return (math.sin((1 - t) * angle) * u + math.sin(t * angle) * v) / math.sin(angle)


@pytest.mark.parametrize("make", [PPCA, LinearLadder])
def test_straight_frames_of_a_linear_decoder_lie_on_the_line_of_the_reconstructions(make: type) -> None:
    oracle = make()
    model, x0, x1 = oracle.model(), Batch(oracle.x[:3]), Batch(oracle.x[3:])
    found = interpolate(model, x0, x1, steps=5)
    a, b = model.reconstruct(x0), model.reconstruct(x1)
    want = torch.stack([(1 - t) * a + t * b for t in T], 1)
    assert found.x.shape == (3, 5, 4)
    torch.testing.assert_close(found.x, want)
    assert not torch.allclose(found.x[0, 0], found.x[0, 4])
    joined = torch.cat([z.flatten(2) for z in found.z], -1)
    torch.testing.assert_close(joined[:, 2], 0.5 * (model.embed(x0) + model.embed(x1)))
    with torch.no_grad():
        torch.testing.assert_close(found.x, oracle.likelihood(found.z[-1]).mean)


def test_spherical_frames_of_probabilistic_pca() -> None:
    oracle = PPCA()
    model, x0, x1 = oracle.model(), Batch(oracle.x[:3]), Batch(oracle.x[3:])
    found = interpolate(model, x0, x1, steps=5, along=spherical)
    a, b = model.embed(x0), model.embed(x1)
    w, bias = oracle.likelihood.weight.detach().numpy(), oracle.likelihood.bias.detach().numpy()
    for r in range(3):
        for s, t in enumerate(T.tolist()):
            z = slerp(a[r], b[r], t)
            np.testing.assert_allclose(found.z[0][r, s].numpy(), z, atol=1e-12)
            np.testing.assert_allclose(found.x[r, s].numpy(), w @ z + bias, atol=1e-12)


def test_each_level_of_a_ladder_moves_in_the_units_of_its_prior() -> None:
    """z_1 = u_1 and z_2 = A z_1 + a + s u_2, each u on its own arc; the ends are the reconstructions."""
    oracle = LinearLadder()
    model, x0, x1 = oracle.model(), Batch(oracle.x[:1]), Batch(oracle.x[1:2])
    found = interpolate(model, x0, x1, steps=5, along=spherical)
    torch.testing.assert_close(found.x[:, 0], model.reconstruct(x0))
    torch.testing.assert_close(found.x[:, -1], model.reconstruct(x1))
    lower = oracle.lower
    weight, bias, scale = (p.detach() for p in (lower.weight, lower.bias, lower.log_scale.exp()))
    ends = [model.embed(x)[0].split([2, 2]) for x in (x0, x1)]
    u = [(z2 - weight @ z1 - bias) / scale for z1, z2 in ends]
    for s, t in enumerate(T.tolist()):
        z1 = torch.from_numpy(slerp(ends[0][0], ends[1][0], t))
        z2 = weight @ z1 + bias + scale * torch.from_numpy(slerp(u[0], u[1], t))
        torch.testing.assert_close(found.z[0][0, s], z1)
        torch.testing.assert_close(found.z[1][0, s], z2)


def test_an_arc_turns_about_the_mean_of_the_prior() -> None:
    oracle = PPCA()
    prior = priors.DiagNormal(2).double()
    with torch.no_grad():
        prior.loc.copy_(torch.tensor([3.0, -1.0]))
        prior.log_scale.copy_(torch.tensor([0.5, -0.5]))
    model = VAE(prior, oracle.encoder, oracle.likelihood)
    x0, x1 = Batch(oracle.x[:1]), Batch(oracle.x[1:2])
    middle = interpolate(model, x0, x1, steps=3, along=spherical).z[0][0, 1]
    loc, scale = prior.loc.detach(), prior.log_scale.exp().detach()
    a, b = ((model.embed(x)[0] - loc) / scale for x in (x0, x1))
    torch.testing.assert_close(middle, loc + scale * torch.from_numpy(slerp(a, b, 0.5)))


def test_arcs_keep_their_radius_and_lines_do_not() -> None:
    torch.manual_seed(0)
    u = 7 * nn.functional.normalize(torch.randn(2, 6, 40, dtype=torch.float64), dim=-1)
    assert torch.allclose(spherical(u[0], u[1], T).norm(dim=-1), torch.full((6, 5), 7.0, dtype=torch.float64))
    assert (straight(u[0], u[1], T).norm(dim=-1)[:, 2] < 6).all()
    same = spherical(u[0], 2 * u[0], T)  # parallel: the straight line, and no 0 / 0
    torch.testing.assert_close(same, straight(u[0], 2 * u[0], T))
    torch.testing.assert_close(spherical(torch.zeros_like(u[0]), u[1], T)[:, -1], u[1])
    with pytest.raises(InputError, match="pair 1: the two ends lie opposite each other"):
        spherical(u[0, :3], torch.stack([u[1, 0], -u[0, 1], u[1, 2]]), T)


def test_traversals_of_probabilistic_pca() -> None:
    """From the prior's centre x = b + v W_d; through an example, the other coordinates are those of its code."""
    oracle = PPCA()
    model = oracle.model()
    w, bias = oracle.likelihood.weight.detach(), oracle.likelihood.bias.detach()
    values = torch.tensor([-2.0, 0.0, 1.5])
    found = traverse(model, dimensions=[1, 0], values=values)
    want = torch.stack([torch.stack([bias + v * w[:, d] for v in values]) for d in (1, 0)])
    torch.testing.assert_close(found.x, want)
    start = Batch(oracle.x[4:5])
    through = traverse(model, start, dimensions=[1], values=values)
    code = model.embed(start)[0]
    for s, v in enumerate(values):
        torch.testing.assert_close(through.x[0, s], bias + w[:, 0] * code[0] + w[:, 1] * v)


def test_traversals_of_a_ladder_go_through_the_levels_below() -> None:
    oracle = LinearLadder()
    a_matrix, a, s = (p.detach() for p in (oracle.lower.weight, oracle.lower.bias, oracle.lower.log_scale.exp()))
    w, b = oracle.likelihood.weight.detach(), oracle.likelihood.bias.detach()
    found = traverse(oracle.model(), dimensions=[0, 3], values=torch.tensor([2.0]))
    torch.testing.assert_close(found.x[0, 0], w @ (a_matrix[:, 0] * 2 + a) + b)
    torch.testing.assert_close(found.x[1, 0], w @ (a + 2 * s * torch.tensor([0.0, 1.0])) + b)
    assert [tuple(z.shape) for z in found.z] == [(2, 1, 2), (2, 1, 2)]


def test_nothing_is_left_behind() -> None:
    """Dropout is off inside and on again afterwards; nobody's random numbers move; the same call gives the same frames."""
    torch.manual_seed(0)
    q = heads.Gaussian(2)
    encoder = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, q.features))
    model = VAE(priors.StandardNormal(2), Conditional(encoder, q), Conditional(nn.Linear(2, 4), heads.Bernoulli(4))).train()
    before = torch.get_rng_state()
    a, b = (interpolate(model, Batch(torch.zeros(1, 4)), Batch(torch.ones(1, 4))) for _ in range(2))
    traverse(model, dimensions=[0], values=quantiles(3))
    assert torch.equal(a.x, b.x) and torch.equal(torch.get_rng_state(), before)
    assert model.training and encoder[1].training and not a.x.requires_grad


class Fixed(nn.Module):
    """A distribution of ``[B, 3]`` logits, whatever it is asked about."""

    def __init__(self, make: type) -> None:
        super().__init__()
        self.make, self.logits = make, nn.Parameter(torch.zeros(4, 3) if make in (Categorical, OneHot) else torch.zeros(3))

    def forward(self, x: Tensor | None = None) -> Distribution:
        logits = self.logits if x is None else self.logits.expand(len(x), *self.logits.shape)
        return (
            Independent(TorchBernoulli(logits=logits, validate_args=False), 1, validate_args=False)
            if self.make is TorchBernoulli
            else self.make(logits)
        )


@pytest.mark.parametrize("make", [dist.Bernoulli, Categorical, OneHot, TorchBernoulli])
def test_discrete_latents_are_refused(make: type) -> None:
    decoder = Conditional(nn.Linear(3, 4), heads.Bernoulli(4))
    model = VAE(Fixed(make), Fixed(make), decoder)
    decoder.register_forward_pre_hook(lambda module, inputs: inputs[0].float())  # class numbers are integers
    x = Batch(torch.zeros(1, 4))
    with pytest.raises(InputError, match=r"level 0: q\(z \| x\) is .*(Bernoulli|Categorical|OneHot).*, whose values are discrete"):
        interpolate(model, x, x)
    assert not continuous(model)
    with pytest.raises(InputError, match=r"level 0: p\(z\) is .*, whose values are discrete"):
        traverse(model, dimensions=[0], values=quantiles(3))


def flow_model() -> LatentModel:
    torch.manual_seed(0)
    q = heads.Gaussian(2)
    return VAE(zuko.flows.MAF(2, transforms=1), Conditional(nn.Linear(4, 4), q), Conditional(nn.Linear(2, 4), heads.Bernoulli(4)))


def test_a_flow_as_prior_has_interpolations_in_z_and_no_traversals() -> None:
    model, x0, x1 = flow_model(), Batch(torch.zeros(1, 4)), Batch(torch.ones(1, 4))
    assert continuous(model)
    torch.testing.assert_close(interpolate(model, x0, x1, steps=3).z[0][0, 1], 0.5 * (model.embed(x0) + model.embed(x1))[0])
    with pytest.raises(InputError, match=r"level 0: p\(z\) is NormalizingFlow, which has no standard deviation"):
        traverse(model, dimensions=[0], values=quantiles(3))


def test_a_mixture_as_prior_is_measured_by_its_own_spread() -> None:
    torch.manual_seed(0)
    prior = priors.GaussianMixture(2, 3)
    model = VAE(prior, Conditional(nn.Linear(4, 4), heads.Gaussian(2)), Conditional(nn.Linear(2, 4), heads.Bernoulli(4)))
    with torch.no_grad():
        prior.loc.mul_(4)
        z = prior().sample((200_000,))
    found = traverse(model, dimensions=[1], values=torch.tensor([1.5])).z[0][0, 0, 1]
    want = z[:, 1].mean() + 1.5 * z[:, 1].std()
    assert abs(float(found - want)) < 5 * float(z[:, 1].std()) * 1.5 / 200_000**0.5


def test_leading_dimensions_and_quantiles() -> None:
    z = torch.tensor([[0.0, 1.0, -3.0], [0.0, -1.0, 3.0]])
    found = Latents(z, torch.tensor([0.2, 3.0, 1.0]), (3,), z)
    assert leading(found, 2) == [1, 2] and leading(Latents(z, None, (3,), z), 3) == [2, 1, 0]
    torch.testing.assert_close(torch.special.ndtr(quantiles(5)), torch.tensor([0.02, 0.26, 0.5, 0.74, 0.98]))
    for n in (0, 4):
        with pytest.raises(InputError, match=f"{n} latent dimensions were asked for; this model has 3"):
            leading(found, n)
    with pytest.raises(InputError, match="1 steps were asked for; a traversal has at least 2"):
        quantiles(1)


def test_wrong_requests() -> None:
    oracle = PPCA()
    model, x = oracle.model(), Batch(oracle.x)
    values = torch.tensor([0.0])
    with pytest.raises(InputError, match="1 steps were asked for"):
        interpolate(model, x, x, steps=1)
    with pytest.raises(InputError, match="6 examples to begin with and 2 to end with"):
        interpolate(model, x, Batch(oracle.x[:2]))
    with pytest.raises(InputError, match="starts from one example, not from 6"):
        traverse(model, x, dimensions=[0], values=values)
    with pytest.raises(InputError, match="no latent dimension 2; this model has 0 to 1"):
        traverse(model, dimensions=[2], values=values)
    with pytest.raises(InputError, match="finite values, not .*nan"):
        traverse(model, dimensions=[0], values=torch.tensor([float("nan")]))


def test_a_point_as_posterior_has_paths() -> None:
    """A plain autoencoder: its code is a point, between two points lies a line."""
    oracle = PPCA()

    class Code(nn.Module):
        def forward(self, x: Tensor) -> Distribution:
            return dist.Point(oracle.encoder(x).mean)

    model = oracle.model(Code())
    found = interpolate(model, Batch(oracle.x[:1]), Batch(oracle.x[1:2]), steps=3)
    mean = 0.5 * (oracle.encoder(oracle.x[0]).mean + oracle.encoder(oracle.x[1]).mean)
    torch.testing.assert_close(found.z[0][0, 1], mean.detach())
