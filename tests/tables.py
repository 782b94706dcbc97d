"""The components of the package, one row each. Every generic test runs over these tables; a new component is tested by its new row."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
import zuko
from torch import Tensor, nn

from vaekit import heads, priors
from vaekit.conditional import Conditional, Learned
from vaekit.nn import Layer, conv_decoder, conv_encoder, mlp, resnet_decoder, resnet_encoder
from vaekit.objectives import ELBO, IWAE, NVIL, REINFORCE, RWS, STL, VIMCO, DReG, LeaveOneOut, Objective, RunningMean, WakeSleep
from vaekit.types import Batch

Rule = tuple[Tensor, Tensor]
"""Points of one entry of x and the logarithms of their weights: all values with weight 1, or a quadrature."""


def counting(*values: float) -> Rule:
    return torch.tensor(values, dtype=torch.float64), torch.zeros(len(values), dtype=torch.float64)


def trapezoid(low: float, high: float, n: int) -> Rule:
    """Converges exponentially for smooth densities that vanish at both ends."""
    x = torch.linspace(low, high, n, dtype=torch.float64)
    return x, torch.full_like(x, (high - low) / (n - 1)).log()


def legendre(n: int) -> Rule:
    """Gauss-Legendre on [0, 1], by the eigenvalues of the Jacobi matrix (Golub and Welsch, 1969)."""
    k = torch.arange(1, n, dtype=torch.float64)
    off = k / (4 * k.square() - 1).sqrt()
    x, v = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    return 0.5 * (x + 1), v[0].square().log()


REAL = trapezoid(-14.0, 14.0, 225)
UNIT = legendre(32)


def joined(*edges: float) -> Rule:
    """Gauss-Legendre on each piece, for a density that jumps at the edges."""
    x, log_w = legendre(40)
    pieces = [(a + (b - a) * x, log_w + math.log(b - a)) for a, b in pairwise(edges)]
    return torch.cat([p[0] for p in pieces]), torch.cat([p[1] for p in pieces])


JUMPS = joined(-14.0, -3.0, 0.0, 1.0, 4.0, 14.0)


def sinh(reach: float, n: int) -> Rule:
    """The trapezoid in t of x = sinh(t), for tails of a power."""
    t, log_w = trapezoid(-reach, reach, n)
    return t.sinh(), log_w + t.cosh().log()


def exponential(low: float, high: float, n: int) -> Rule:
    """The trapezoid in log x, for positive x."""
    t, log_w = trapezoid(low, high, n)
    return t.exp(), log_w + t


COUNTS = counting(*range(500))


def scaled(rule: Rule, scale: float, log: bool = False, loc: float = 0.0) -> Rule:
    """A rule for u = (x - loc) / scale, or (log x - loc) / scale, with the weights that a density of x has."""
    u, log_w = rule
    return u, log_w + math.log(scale) + (loc + scale * u if log else 0)


def levels(bins: int) -> Rule:
    return counting(*[k / (bins - 1) for k in range(bins)])


@dataclass(frozen=True)
class Likelihood:
    """A likelihood head on a small event whose whole space can be summed over.

    Attributes:
        make: the head, in evaluation mode.
        rule: points of each entry.
        has_mean: ``mean`` is the exact mean.
        factorises: masks of observed entries can be applied.
        rules: points of each entry of a vector, where they are not the same for all.
        by_column: the last axis of the event is that of h too.
    """

    make: Callable[[], heads.Head]
    rule: Rule
    has_mean: bool = True
    factorises: bool = True
    rules: tuple[Rule, ...] = ()
    by_column: bool = True

    def data(self, n: int) -> Tensor:
        """n valid examples, ``[n, *event]`` float32, from torch's generator."""

        def drawn(rule: Rule, *shape: int) -> Tensor:
            sizes = rule[0].abs()
            values = rule[0][(sizes < 3) & ((sizes > 0.01) | (sizes == 0))].float()  # a rule in log x has most of its points next to 0
            return values[torch.randint(len(values), shape)]

        if self.rules:
            return torch.stack([drawn(rule, n) for rule in self.rules], -1)
        return drawn(self.rule, n, *self.make().event_shape)

    def points(self) -> Rule:
        """All of the space: ``[N, *event]`` and log-weights ``[N]``, float64."""
        shape = self.make().event_shape
        n = shape.numel() if isinstance(shape, torch.Size) else int(torch.tensor(shape).prod())
        rules = self.rules or (self.rule,) * n
        x = torch.cartesian_prod(*[rule[0] for rule in rules]).reshape(-1, *shape)
        log_w = torch.cartesian_prod(*[rule[1] for rule in rules]).reshape(-1, n).sum(-1)
        return x, log_w

    def conditional(self, inputs: int) -> Conditional:
        """p(x | z) for z of ``inputs`` dimensions."""
        head = self.make()
        return Conditional(nn.Linear(inputs, head.features), head)


LIKELIHOODS: dict[str, Likelihood] = {
    "bernoulli": Likelihood(lambda: heads.Bernoulli((1, 2, 2)), counting(0, 1)),
    "continuous_bernoulli": Likelihood(lambda: heads.ContinuousBernoulli((1, 1, 2)), UNIT),
    "gaussian": Likelihood(lambda: heads.Gaussian(2), REAL),
    "gaussian_link_floor": Likelihood(lambda: heads.Gaussian((1, 1, 2), mean=nn.Sigmoid(), min_scale=0.4), REAL),
    "gaussian_fixed": Likelihood(lambda: heads.GaussianFixed((1, 2), 0.7, mean=nn.Sigmoid()), REAL),
    "gaussian_shared": Likelihood(lambda: heads.GaussianShared(2, scale=0.8, min_scale=0.1), REAL),
    "gaussian_each": Likelihood(lambda: heads.GaussianEach((1, 1, 2), scale=0.8, min_scale=0.1), REAL),
    "gaussian_optimal": Likelihood(lambda: heads.GaussianOptimal(2).eval(), REAL),
    "gaussian_contaminated": Likelihood(lambda: heads.GaussianContaminated((1, 1, 2)), JUMPS),
    "full_gaussian": Likelihood(lambda: heads.FullGaussian(2), REAL, factorises=False),
    "mixture_gaussian": Likelihood(lambda: heads.MixtureGaussian(2, 3), REAL, factorises=False),
    "categorical": Likelihood(lambda: heads.Categorical((2, 2), 3), counting(0, 1, 2), has_mean=False),
    "discretised_logistic": Likelihood(lambda: heads.DiscretisedLogistic((1, 1, 2), bins=9), levels(9)),
    "shared_levels": Likelihood(lambda: heads.SharedLevels((1, 1, 2), components=3, bins=6), levels(6)),
    "discretised_mixture_grey": Likelihood(
        lambda: heads.DiscretisedLogisticMixture((1, 1, 2), components=3, bins=6), levels(6), has_mean=False
    ),
    "discretised_mixture_colour": Likelihood(
        lambda: heads.DiscretisedLogisticMixture((3, 1, 2), components=2, bins=3), levels(3), has_mean=False
    ),
    "student": Likelihood(lambda: heads.StudentT((1, 2), df=20.0), sinh(8.0, 301)),
    "log_normal": Likelihood(lambda: heads.LogNormal(2), exponential(-25.0, 25.0, 301)),
    "poisson": Likelihood(lambda: heads.Poisson((1, 2)), counting(*range(80))),
    "negative_binomial": Likelihood(lambda: heads.NegativeBinomial(2, r=2.0), COUNTS),
    "zero_inflated_poisson": Likelihood(lambda: heads.ZeroInflatedPoisson(2), counting(*range(80))),
    "zero_inflated_negative_binomial": Likelihood(lambda: heads.ZeroInflatedNegativeBinomial((1, 2), r=2.0), COUNTS),
    "classes": Likelihood(
        lambda: heads.Classes((2, 4, 3)),
        counting(0, 1),
        has_mean=False,
        rules=tuple(counting(*range(c)) for c in (2, 4, 3)),
        by_column=False,
    ),
    "ordinal": Likelihood(lambda: heads.Ordinal((4, 4)), counting(0, 1, 2, 3), has_mean=False),
    "ordinal_binary": Likelihood(lambda: heads.Ordinal((2, 2)), counting(0, 1), has_mean=False),
    "ordinal_ragged": Likelihood(
        lambda: heads.Ordinal((2, 5, 3)), counting(0, 1), has_mean=False, rules=tuple(counting(*range(c)) for c in (2, 5, 3))
    ),
    "columns_of_numbers": Likelihood(
        lambda: heads.Columns([heads.Column("gaussian", scale=4.0), heads.Column("gaussian", loc=0.5, scale=0.3, log=True)]),
        REAL,
        rules=(scaled(REAL, 4.0), scaled(REAL, 0.3, True, 0.5)),
    ),
    "columns": Likelihood(
        lambda: heads.Columns(
            [
                heads.Column("ordinal", size=3),
                heads.Column("gaussian", loc=1.0, scale=0.2, log=True),
                heads.Column("bernoulli"),
                heads.Column("categorical", size=3),
                heads.Column("poisson"),
            ]
        ),
        REAL,
        has_mean=False,
        rules=(counting(0, 1, 2), scaled(REAL, 0.2, True, 1.0), counting(0, 1), counting(0, 1, 2), counting(*range(50))),
        by_column=False,
    ),
}


def by_head(make: Callable[[int], heads.Head]) -> Callable[[int, int], Conditional]:
    """A row of `POSTERIORS`: a linear map and a head for so many latent dimensions."""

    def posterior(inputs: int, latent: int) -> Conditional:
        head = make(latent)
        return Conditional(nn.Linear(inputs, head.features), head)

    return posterior


def maf(inputs: int, latent: int) -> Conditional:
    return Conditional(nn.Linear(inputs, 5), zuko.flows.MAF(latent, context=5, transforms=2, hidden_features=(16,)))


def iaf(inputs: int, latent: int) -> Conditional:
    flow = zuko.flows.MAF(latent, context=5, transforms=2, hidden_features=(16,))
    return Conditional(nn.Linear(inputs, 5), zuko.flows.Flow(flow.transform.inv, flow.base))


def _iaf_head(latent: int) -> heads.Head:
    """Away from the identity, where it starts."""
    head = heads.IAF(latent, flows=2, hidden=(16,), context=3)
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.2)
    return head


POSTERIORS: dict[str, Callable[[int, int], Conditional]] = {
    "gaussian": by_head(heads.Gaussian),
    "full_gaussian": by_head(heads.FullGaussian),
    "mixture_gaussian": by_head(lambda d: heads.MixtureGaussian(d, 3)),
    "maf": maf,
    "iaf": iaf,
    "planar": by_head(lambda d: heads.Planar(d, flows=2)),
    "radial": by_head(lambda d: heads.Radial(d, flows=2)),
    "householder": by_head(lambda d: heads.Householder(d, flows=2)),
    "orthogonal_sylvester": by_head(lambda d: heads.OrthogonalSylvester(d, flows=2, columns=1)),
    "householder_sylvester": by_head(lambda d: heads.HouseholderSylvester(d, flows=2, reflections=2)),
    "triangular_sylvester": by_head(lambda d: heads.TriangularSylvester(d, flows=2)),
    "iaf_head": by_head(_iaf_head),
}
"""(inputs, latent dimensions) -> q(z | x) for x ``[B, inputs]``; every one has reparameterised samples."""


def _vamp(name: str, learn_weights: bool = False) -> Callable[[int], nn.Module]:
    return lambda d: priors.VampPrior(POSTERIORS[name](6, d), torch.rand(4, 6), learn_weights=learn_weights)


PRIORS: dict[str, Callable[[int], nn.Module]] = {
    "standard_normal": priors.StandardNormal,
    "diag_normal": priors.DiagNormal,
    "full_normal": priors.FullNormal,
    "gaussian_mixture": lambda d: priors.GaussianMixture(d, 3),
    "vamp_gaussian": _vamp("gaussian", learn_weights=True),
    "vamp_full_gaussian": _vamp("full_gaussian"),
    "vamp_maf": _vamp("maf"),
    "maf": lambda d: zuko.flows.MAF(d, transforms=2, hidden_features=(16,)),
    "learned_planar": lambda d: Learned(heads.Planar(d, flows=2)),
}
"""latent dimensions -> p(z). The VampPriors have a posterior of their own, on inputs of 6 numbers."""


@dataclass(frozen=True)
class Discrete:
    """A small discrete latent whose every value can be listed.

    Attributes:
        posterior: inputs -> q(z | x) for x ``[B, inputs]``; no reparameterised sample.
        prior: p(z).
        states: all values of z, ``[S, *event]``.
    """

    posterior: Callable[[int], Conditional]
    prior: Callable[[], nn.Module]
    states: Callable[[], Tensor]


DISCRETE: dict[str, Discrete] = {
    "bernoulli": Discrete(
        lambda inputs: Conditional(nn.Linear(inputs, 3), heads.Bernoulli(3)),
        lambda: priors.Bernoulli(3),
        lambda: torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3),
    ),
    "one_hot": Discrete(
        lambda inputs: Conditional(nn.Linear(inputs, 6), heads.OneHot((2, 3))),
        lambda: priors.OneHot((2, 3)),
        lambda: torch.eye(3)[torch.cartesian_prod(torch.arange(3), torch.arange(3))],
    ),
}


@dataclass(frozen=True)
class Bound:
    """An objective, and what is known of its bound on the models of `oracles`.

    Attributes:
        make: the objective, for x of 4 numbers in float64.
        tight: with the exact posterior the bound is log p(x) at every draw.
        evidence: with the exact posterior the mean gradient in the model's parameters is that of log p(x).
        elbo: the mean of the bound is the exact ELBO, and the mean gradient that of the exact ELBO.
    """

    make: Callable[[], Objective]
    tight: bool = True
    evidence: bool = True
    elbo: bool = False


OBJECTIVES: dict[str, Bound] = {
    "elbo": Bound(ELBO, tight=False, evidence=False, elbo=True),
    "elbo-5-samples": Bound(lambda: ELBO(5), tight=False, evidence=False, elbo=True),
    "elbo-sampled-kl": Bound(lambda: ELBO(3, closed_form=False), elbo=True),
    "iwae-1": Bound(lambda: IWAE(1), elbo=True),
    "iwae-5": Bound(lambda: IWAE(5)),
    "stl-3": Bound(lambda: STL(3)),
    "dreg-5": Bound(lambda: DReG(5)),
    "reinforce-3": Bound(lambda: REINFORCE(3, baseline=LeaveOneOut())),
    "reinforce-running-mean": Bound(lambda: REINFORCE(baseline=RunningMean())),
    "nvil-2": Bound(lambda: NVIL(nn.Linear(4, 1, dtype=torch.float64), 2)),
    "vimco-5": Bound(lambda: VIMCO(5)),
    "wake-sleep": Bound(WakeSleep),
    "rws-5": Bound(lambda: RWS(5)),
    "rws-5-both-phases": Bound(lambda: RWS(5, sleep_phi=True)),
}


@dataclass(frozen=True)
class Network:
    """A plain network with the shapes of one input and one output."""

    make: Callable[[], nn.Module]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


NETWORKS: dict[str, Network] = {
    "mlp": Network(lambda: mlp((1, 4, 5), [8, Layer(7, activation=nn.Tanh, norm=nn.BatchNorm1d, dropout=0.2)], 3), (1, 4, 5), (3,)),
    "mlp_hidden": Network(lambda: mlp(6, [Layer(5, norm=nn.LayerNorm)]), (6,), (5,)),
    "conv_encoder": Network(lambda: conv_encoder((1, 28, 20), channels=(4, 6), features=5), (1, 28, 20), (5,)),
    "conv_encoder_odd": Network(lambda: conv_encoder((3, 7, 5), channels=(4, 6, 8), features=5), (3, 7, 5), (5,)),
    "conv_decoder": Network(lambda: conv_decoder(5, (1, 28, 20), channels=(6, 4)), (5,), (1, 28, 20)),
    "conv_decoder_odd": Network(lambda: conv_decoder(5, (3, 7, 5), channels=(8, 6, 4), parts=2), (5,), (6, 7, 5)),
    "conv_decoder_8": Network(lambda: conv_decoder(5, (1, 8, 8)), (5,), (1, 8, 8)),
    "resnet_encoder": Network(lambda: resnet_encoder((3, 16, 16), widths=(4, 6, 8), blocks=(1, 2, 1)), (3, 16, 16), (8,)),
    "resnet_decoder": Network(lambda: resnet_decoder(5, (3, 16, 24), widths=(8, 6, 4), blocks=(1, 2, 1), parts=2), (5,), (6, 16, 24)),
}


def two_steps(model: nn.Module, batch: Batch, objective: nn.Module) -> None:
    """Every parameter gets a finite gradient, and the bound stays finite, over two steps."""
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(2):
        optimiser.zero_grad()
        loss = objective(model, batch)
        loss.surrogate.mean().backward()
        assert loss.bound.isfinite().all()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        optimiser.step()
