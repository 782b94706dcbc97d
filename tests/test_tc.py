"""Objectives on the aggregate posterior against exact mixtures, closed forms and three examples by hand.

Statistical tests have fixed seeds and say how many samples they take; a z-score beyond 4.5 fails.
"""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, MultivariateNormal, Normal

from oracles import PPCA, Full, LinearLadder, batch, z_score
from vaekit.dist import DiagGaussian
from vaekit.errors import InputError
from vaekit.models import VAE
from vaekit.nn import mlp
from vaekit.objectives import DIPVAE, ELBO, IMQ, RBF, BetaTC, FactorVAE, InfoVAE, Linear, mmd
from vaekit.objectives.tc import log_marginals, pairwise, permuted
from vaekit.priors import StandardNormal
from vaekit.types import Batch


class Quadratic(nn.Module):
    """logit(z) = z' A z + b' z + c: what the log-ratio of two Gaussians is."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(d, d, dtype=torch.float64))
        self.b = nn.Parameter(torch.zeros(d, dtype=torch.float64))
        self.c = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, z: Tensor) -> Tensor:
        return ((z @ self.a) * z).sum(-1) + z @ self.b + self.c


OBJECTIVES = {
    "beta-tc": lambda: BetaTC(100, 6.0),
    "beta-tc-stratified": lambda: BetaTC(100, 6.0, alpha=0.5, gamma=2.0, stratified=True),
    "factor": lambda: FactorVAE(mlp(2, [8], 1).double(), 10.0),
    "dip-1": lambda: DIPVAE(5.0, 50.0),
    "dip-2": lambda: DIPVAE(5.0, 5.0, second=True),
    "info": lambda: InfoVAE(0.5, 100.0),
    "info-rbf": lambda: InfoVAE(1.0, 10.0, kernel=RBF(1.0)),
}


# --- what holds for all -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_bound_is_the_elbo_whatever_is_minimised(name):
    oracle, objective = PPCA(), OBJECTIVES[name]()
    torch.manual_seed(1)
    loss = objective(oracle.model(), batch(oracle))
    torch.manual_seed(1)
    plain = ELBO()(oracle.model(), batch(oracle))
    torch.testing.assert_close(loss.bound, plain.bound)
    assert not loss.bound.requires_grad and loss.surrogate.shape == (6,)
    for key in ("log_px", "rate_0"):
        torch.testing.assert_close(loss.logs[key], plain.logs[key])
    assert all(value.shape == (6,) and not value.requires_grad for value in loss.logs.values())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_they_run_without_gradients_on_one_example_and_compile(name):
    oracle = PPCA()
    model, objective = oracle.model(), OBJECTIVES[name]()
    with torch.no_grad():
        shut = objective.eval()(model.eval(), batch(oracle))
        alone = objective(model, Batch(oracle.x[:1]))
    assert shut.surrogate.isfinite().all() and alone.surrogate.isfinite().all() and alone.logs.keys() == shut.logs.keys()
    alone = objective.train()(model.train(), Batch(oracle.x[:1]))
    alone.surrogate.mean().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    torch._dynamo.reset()
    torch.manual_seed(4)
    eager = copy.deepcopy(objective)(model, batch(oracle))
    torch.manual_seed(4)
    compiled = torch.compile(objective, fullgraph=True, backend="eager")(model, batch(oracle))
    torch.testing.assert_close(compiled.surrogate, eager.surrogate)
    gradients = [torch.autograd.grad(loss.surrogate.mean(), list(model.parameters())) for loss in (compiled, eager)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_ladder_is_refused(name):
    oracle = LinearLadder()
    with pytest.raises(InputError, match="the model has 2 levels"):
        OBJECTIVES[name]()(oracle.model(), batch(oracle))


# --- beta-TC ----------------------------------------------------------------------------------------------------------------------------


def test_pairwise_densities_are_those_of_torch():
    loc, log_scale, z = torch.randn(3, 4, 2).double()
    got = pairwise(DiagGaussian(loc, log_scale), z)
    torch.testing.assert_close(got, Normal(loc, log_scale.exp()).log_prob(z[:, None]))


def mixture(q: DiagGaussian, z: Tensor) -> Tensor:
    """log (1/N) sum_j N(z; mu_j, Sigma_j) by full-covariance Gaussians."""
    full = MultivariateNormal(q.loc, torch.diag_embed(q.variance))
    return full.log_prob(z.unsqueeze(1)).logsumexp(1) - math.log(len(q.loc))


def traced(oracle: PPCA, objective: BetaTC, seed: int = 2):
    torch.manual_seed(seed)
    loss = objective(oracle.model(), batch(oracle))
    torch.manual_seed(seed)
    return loss, oracle.model().infer(batch(oracle))


def test_a_batch_that_is_the_data_set_gives_the_exact_aggregate_posterior():
    """Stratified: the exact MI, TC and dimension-wise KL at these z. Weighted: less log N in each log q."""
    oracle, n = PPCA(), 6
    for stratified, off in ((True, 0.0), (False, math.log(n))):
        loss, t = traced(oracle, BetaTC(n, 1.0, stratified=stratified))
        q, z = t.levels[0].q, t.z[0][0]
        log_qz = mixture(q, z)
        by_dimension = sum(mixture(DiagGaussian(q.loc[:, [i]], q.log_scale.expand(6, 2)[:, [i]]), z[:, [i]]) for i in range(2))
        torch.testing.assert_close(loss.logs["mi"], (t.log_qz[0] - log_qz + off).detach())
        torch.testing.assert_close(loss.logs["tc"], (log_qz - by_dimension + off).detach())
        torch.testing.assert_close(loss.logs["dim_kl"], (by_dimension - t.log_pz[0] - 2 * off).detach())


@pytest.mark.parametrize("stratified", [False, True])
def test_the_three_terms_add_up_to_the_rate_and_carry_their_weights(stratified):
    oracle = PPCA()
    loss, t = traced(oracle, BetaTC(1000, 1.0, stratified=stratified))
    logs = loss.logs
    torch.testing.assert_close(logs["mi"] + logs["tc"] + logs["dim_kl"], t.rate[0, :, 0].detach())
    torch.testing.assert_close(loss.surrogate, -t.log_w[0])
    loss, _ = traced(oracle, BetaTC(1000, Linear(0, 8, 4), alpha=0.5, gamma=3.0, stratified=stratified))
    torch.testing.assert_close(loss.surrogate, 0.5 * logs["mi"] + 3 * logs["dim_kl"] - logs["log_px"])
    torch.manual_seed(2)
    loss = BetaTC(1000, Linear(0, 8, 4), alpha=0.5, gamma=3.0, stratified=stratified)(oracle.model(), batch(oracle), step=3)
    torch.testing.assert_close(loss.surrogate, 0.5 * logs["mi"] + 6 * logs["tc"] + 3 * logs["dim_kl"] - logs["log_px"])


def test_stratified_weights_are_without_bias_for_every_minibatch():
    """All minibatches of 3 of 6 examples that have x_0: the mean estimate of q(z_0) is q(z_0), and that of equal weights is not."""
    q, z = DiagGaussian(torch.randn(6, 2).double(), torch.randn(6, 2).double()), torch.randn(1, 2).double()
    exact = mixture(q, z).exp()
    means = {}
    for stratified in (True, False):
        w = BetaTC(6, 1.0, stratified=stratified)._log_weights(3, z)[:1]
        found = []
        for others in itertools.combinations(range(1, 6), 2):
            rows = [0, *others]
            found.append(log_marginals(pairwise(DiagGaussian(q.loc[rows], q.log_scale[rows]), z), w)[0].exp())
        means[stratified] = torch.stack(found).mean(0)
    torch.testing.assert_close(means[True], exact)
    assert not torch.allclose(means[False], exact, rtol=0.05)


def test_stratified_weights_are_the_mean_of_the_paper_s_over_orders():
    """Chen et al., with M = B - 1: 1/N for x_i, (N - M) / (N M) for one other and 1/M for the rest."""
    n, b = 50, 5
    m = b - 1
    paper = torch.tensor([[(n - m) / (n * m) if j == last else 1 / m for j in range(m)] for last in range(m)]).mean(0)
    got = BetaTC(n, 1.0, stratified=True)._log_weights(b, torch.zeros(1)).exp()
    torch.testing.assert_close(got.diagonal(), torch.full((b,), 1 / n))
    torch.testing.assert_close(got[0, 1:], paper)
    torch.testing.assert_close(got.sum(1), torch.ones(b))
    torch.testing.assert_close(BetaTC(n, 1.0)._log_weights(b, torch.zeros(1)).exp(), torch.full((b, b), 1 / (n * b)))


def test_total_correlation_of_a_linear_gaussian_encoder():
    """q(z) is Gaussian where x is: -1/2 log |R| of its correlations. 40 data sets of 500 examples, each one batch."""
    oracle = PPCA()
    with torch.no_grad():
        oracle.encoder.weight[1] += oracle.encoder.weight[0]
    mean, cov = (t.detach() for t in oracle.joint())
    x = MultivariateNormal(mean[2:], cov[2:, 2:])
    a = oracle.encoder.weight.detach()
    c = a @ cov[2:, 2:] @ a.mT + oracle.encoder.cov.detach()
    want = 0.5 * float(c.diagonal().log().sum() - torch.logdet(c))
    torch.manual_seed(0)
    with torch.no_grad():
        values = [BetaTC(500, 1.0, stratified=True)(oracle.model(), Batch(x.sample((500,)))).logs["tc"].mean() for _ in range(40)]
    assert want > 0.1 and abs(z_score(torch.stack(values), want)) < 4.5


def test_beta_tc_takes_torch_s_own_gaussian_and_no_other():
    oracle = PPCA()

    class Torchs(nn.Module):
        def forward(self, x: Tensor) -> Independent:
            q = oracle.encoder(x)
            return Independent(Normal(q.loc, q.scale), 1)

    torch.manual_seed(0)
    got = BetaTC(10, 2.0)(oracle.model(Torchs()), batch(oracle)).surrogate
    assert got.isfinite().all()
    with pytest.raises(InputError, match=r"density for each dimension of z, and q\(z \| x\) is MultivariateNormal.*heads.Gaussian"):
        BetaTC(10, 2.0)(oracle.exact(), batch(oracle))


# --- FactorVAE --------------------------------------------------------------------------------------------------------------------------


class Correlated(nn.Module):
    """A posterior that is all but x itself, of which the 2 dimensions are correlated."""

    def forward(self, x: Tensor) -> DiagGaussian:
        return DiagGaussian(x, torch.full_like(x, -20.0))


RHO = 0.7
TC = -0.5 * math.log(1 - RHO**2)


def correlated(n: int, seed: int = 0) -> tuple[VAE, Batch]:
    torch.manual_seed(seed)
    x = MultivariateNormal(torch.zeros(2).double(), torch.tensor([[1.0, RHO], [RHO, 1.0]]).double()).sample((n,))
    return VAE(StandardNormal(2).double(), Correlated(), Gaussian()), Batch(x)


class Gaussian(nn.Module):
    def forward(self, z: Tensor) -> DiagGaussian:
        return DiagGaussian(z, torch.zeros_like(z))


def optimal() -> Quadratic:
    """log N(z; 0, C) - log N(z; 0, I)."""
    net = Quadratic(2)
    with torch.no_grad():
        c = torch.tensor([[1.0, RHO], [RHO, 1.0]]).double()
        net.a.copy_(-0.5 * (torch.linalg.inv(c) - torch.eye(2)))
        net.c.copy_(-0.5 * torch.logdet(c))
    return net


def test_the_optimal_discriminator_gives_the_total_correlation():
    """200,000 codes of correlation 0.7: TC = 0.337 nats."""
    model, rows = correlated(200_000)
    with torch.no_grad():
        loss = FactorVAE(optimal(), 1.0)(model, rows)
    assert abs(z_score(loss.logs["tc"], TC)) < 4.5


def test_the_discriminator_learns_the_total_correlation_by_its_own_loss():
    """Its loss is convex in a quadratic logit: L-BFGS on 40,000 codes ends at the optimum, to 5% of the TC, and no net does better."""
    model, rows = correlated(40_000)
    objective = FactorVAE(Quadratic(2), 1.0)
    solver = torch.optim.LBFGS(objective.parameters(), max_iter=60, line_search_fn="strong_wolfe")

    start = float(objective(model, rows).logs["discriminator"].mean())
    assert start == pytest.approx(math.log(2))

    def own() -> Tensor:
        """The surrogate's gradient; its line search needs the value whose gradient that is, the discriminator's loss alone."""
        torch.manual_seed(3)  # the same permutation
        solver.zero_grad()
        loss = objective(model, rows)
        loss.surrogate.mean().backward()
        return loss.logs["discriminator"].mean()

    solver.step(own)
    loss = objective(model, rows)
    assert float(loss.logs["tc"].mean()) == pytest.approx(TC, rel=0.05)
    torch.testing.assert_close(objective.discriminator.a + objective.discriminator.a.mT, 2 * optimal().a, rtol=0.1, atol=0.03)


def test_each_network_has_its_own_gradient():
    """The discriminator's is that of its loss on fixed codes, the encoder's that of -ELBO + gamma logit with the discriminator fixed."""
    oracle = PPCA()
    model, net = oracle.model(), mlp(2, [8], 1).double()
    torch.manual_seed(5)
    loss = FactorVAE(net, 3.0)(model, batch(oracle))
    theirs, own = list(model.parameters()), list(net.parameters())
    got = torch.autograd.grad(loss.surrogate.mean(), [*theirs, *own])
    torch.manual_seed(5)
    t = model.infer(batch(oracle))
    z = t.z[0][0]
    z_bar = permuted(z.detach())
    told = 0.5 * (nn.functional.softplus(-net(z.detach())) + nn.functional.softplus(net(z_bar))).mean()
    lower = (t.kl.sum(-1) - t.log_px).mean() + 3.0 * net(z).mean()
    want = [*torch.autograd.grad(lower, theirs, retain_graph=True), *torch.autograd.grad(told, own)]
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(loss.logs["discriminator"].mean(), told.detach())


def test_permuted_codes_have_the_marginals_and_no_correlation():
    """10,000 codes: every column has the same values, and the product of two columns the mean of independence."""
    _, rows = correlated(10_000)
    z = permuted(rows.x)
    assert torch.equal(z.sort(0).values, rows.x.sort(0).values)
    assert z_score(z[:, 0] * z[:, 1], z.mean(0).prod()).abs() < 4.5 < z_score(rows.x[:, 0] * rows.x[:, 1], 0.0)
    assert not torch.equal(z[:, 0], rows.x[:, 0]) and not torch.equal(z[:, 0].argsort(), z[:, 1].argsort())


# --- DIP-VAE and InfoVAE ------------------------------------------------------------------------------------------------------------------


class Fixed(nn.Module):
    """q(z | x) = N(x, diag(scale^2))."""

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> DiagGaussian:
        return DiagGaussian(x, self.scale.log().expand_as(x))


def test_dip_penalties_of_three_examples():
    """Means (1, 0), (-1, 3), (0, 0): variances 2/3 and 2, covariance -1; posterior variances 0.25 and 4 on top for the second."""
    rows = Batch(torch.tensor([[1.0, 0.0], [-1.0, 3.0], [0.0, 0.0]]).double())
    diagonal = VAE(StandardNormal(2).double(), Fixed(torch.tensor([0.5, 2.0]).double()), Gaussian())
    eye, covariance = torch.eye(2).double(), torch.tensor([[0.25, 0.1], [0.1, 4.0]]).double()
    full = VAE(StandardNormal(2).double(), Full(eye, torch.zeros(2).double(), covariance), Gaussian())
    first = 3 * 2 * 1 + 7 * ((2 / 3 - 1) ** 2 + (2 - 1) ** 2)
    second = 3 * 2 * 1 + 7 * ((2 / 3 + 0.25 - 1) ** 2 + (2 + 4 - 1) ** 2)
    third = 3 * 2 * 0.9**2 + 7 * ((2 / 3 + 0.25 - 1) ** 2 + (2 + 4 - 1) ** 2)
    for model, flag, want in ((diagonal, False, first), (diagonal, True, second), (full, False, first), (full, True, third)):
        torch.manual_seed(0)
        loss = DIPVAE(3.0, 7.0, second=flag)(model, rows)
        torch.testing.assert_close(loss.logs["penalty"], torch.full((3,), want).double())
        torch.manual_seed(0)
        torch.testing.assert_close(loss.surrogate, ELBO()(model, rows).surrogate + want)


@pytest.mark.parametrize("kernel", [RBF(0.8), IMQ(1.3)])
def test_mmd_is_the_double_sum(kernel):
    a, b = torch.randn(2, 5, 3).double()

    def k(x: Tensor, y: Tensor) -> float:
        square = float((x - y).square().sum())
        return math.exp(-square / (2 * 0.8**2)) if isinstance(kernel, RBF) else 2 * 3 * 1.3**2 / (2 * 3 * 1.3**2 + square)

    pairs = [(i, j) for i in range(5) for j in range(5)]
    want = sum(k(a[i], a[j]) + k(b[i], b[j]) for i, j in pairs if i != j) / 20 - 2 * sum(k(a[i], b[j]) for i, j in pairs) / 25
    assert mmd(a, b, kernel).mean().item() == pytest.approx(want, abs=1e-12)
    assert mmd(a, b, kernel).shape == (5,) and mmd(a[:1], b[:1], kernel).tolist() == [0.0]


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (1.0, 1.0), (0.5, 2.0)])
def test_mmd_of_two_gaussians_with_a_gaussian_kernel(shift, scale):
    """E k = prod_d h / sqrt(h^2 + s_a^2 + s_b^2) exp(-shift^2 / 2 (...)); 400 batches of 20 in 3 dimensions; 0 for equal distributions."""
    h, d = 1.5, 3

    def expected(square: float, variance: float) -> float:
        return (h / math.sqrt(h * h + variance)) ** d * math.exp(-square / (2 * (h * h + variance)))

    want = expected(0, 2 * scale**2) + expected(0, 2) - 2 * expected(d * shift**2, scale**2 + 1)
    values = torch.stack([mmd(shift + scale * torch.randn(20, d), torch.randn(20, d), RBF(h)).mean() for _ in range(400)])
    assert abs(z_score(values, want)) < 4.5
    assert want == pytest.approx(0) if (shift, scale) == (0, 1) else want > 0.03


def test_info_vae_weighs_the_kl_and_the_mmd():
    oracle = PPCA()
    model = oracle.model()
    torch.manual_seed(1)
    plain = ELBO()(model, batch(oracle))
    torch.manual_seed(1)
    torch.testing.assert_close(InfoVAE(0.0, 1.0)(model, batch(oracle)).surrogate, plain.surrogate)
    torch.manual_seed(1)
    loss = InfoVAE(0.25, 10.0)(model, batch(oracle))
    want = 0.75 * plain.logs["rate_0"] - plain.logs["log_px"] + 9.25 * loss.logs["mmd"]
    torch.testing.assert_close(loss.surrogate, want)


def test_mmd_of_an_encoder_that_is_the_prior_is_zero_and_of_one_that_is_not_is_not():
    """400 batches of 16; the prior's samples are new each time, and no gradient reaches a prior."""
    rows = Batch(torch.zeros(16, 2).double())
    for scale, inside in ((1.0, True), (0.3, False)):
        model = VAE(StandardNormal(2).double(), Fixed(torch.full((2,), scale).double()), Gaussian())
        with torch.no_grad():
            values = torch.stack([InfoVAE(1.0, 1.0, kernel=RBF(1.0))(model, rows).logs["mmd"].mean() for _ in range(400)])
        assert (abs(z_score(values, 0.0)) < 4.5) == inside


# --- requests that cannot be met ----------------------------------------------------------------------------------------------------------


def test_wrong_requests_say_why():
    oracle = PPCA()
    for pattern, ask in {
        r"BetaTC\(dataset_size=0\): give the number of training examples": lambda: BetaTC(0, 1.0),
        r"BetaTC\(dataset_size=2.5\)": lambda: BetaTC(2.5, 1.0),
        r"BetaTC\(beta=-1.0\): a weight is 0 or more": lambda: BetaTC(10, -1.0),
        r"BetaTC\(alpha=nan\)": lambda: BetaTC(10, 1.0, alpha=math.nan),
        r"BetaTC\(dataset_size=5\): this batch has 6 examples": lambda: BetaTC(5, 1.0)(oracle.model(), batch(oracle)),
        "is no module": lambda: FactorVAE(lambda z: z, 1.0),
        r"FactorVAE\(gamma=-2\)": lambda: FactorVAE(nn.Linear(2, 1), -2),
        r"gives \[6, 2\] for 6 codes": lambda: FactorVAE(nn.Linear(2, 2).double(), 1.0)(oracle.model(), batch(oracle)),
        r"DIPVAE\(diagonal=-1\)": lambda: DIPVAE(1.0, -1),
        r"InfoVAE\(alpha=1.5, lambda_=0\): 1 - alpha weighs": lambda: InfoVAE(1.5, 0),
        r"InfoVAE\(alpha=-1, lambda_=1\)": lambda: InfoVAE(-1, 1),
        r"InfoVAE\(kernel=1\) is no kernel": lambda: InfoVAE(0.0, 1.0, kernel=1),
        r"RBF\(bandwidth=0\)": lambda: RBF(0),
        r"IMQ\(scale=inf\)": lambda: IMQ(math.inf),
    }.items():
        with pytest.raises(InputError, match=pattern) as error:
            ask()
        assert "\n" not in str(error.value)
    with pytest.raises(TypeError):
        BetaTC()
