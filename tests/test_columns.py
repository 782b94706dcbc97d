"""Counts, tails and classes against a second arithmetic of 40 digits; rows of tables; what stands before and behind them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import mpmath as mp
import pytest
import torch
from torch import Tensor, nn

from vaekit import ELBO, IWAE, VAE, Batch, Conditional, Training, dist, fit, heads, priors
from vaekit.data.core import Split
from vaekit.errors import InputError
from vaekit.heads import Column, Columns
from vaekit.models import with_mask, with_mask_and_context
from vaekit.nn import ColumnsInput, PassLast, mlp

f64 = torch.float64
mp.mp.dps = 40
quiet: Callable[..., Any] = partial(fit, progress=False)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    yield
    torch._dynamo.reset()


# Single distributions, far out


def compared(make: Callable[..., Any], exact: Callable[..., Any], grid: list[tuple[float, ...]], dtype: torch.dtype) -> float:
    """The largest error of log p(x), relative to 1 + |log p|, over (x, log-parameters...); gradients must be finite."""
    columns = [torch.tensor(column, dtype=dtype) for column in zip(*grid, strict=True)]
    x, parameters = columns[0], [column.requires_grad_() for column in columns[1:]]
    log_p = dist.log_prob_parts(make(*parameters), x)
    for grad in torch.autograd.grad(log_p.sum(), parameters):
        assert grad.isfinite().all()
    worst = mp.mpf(0)
    for n, found in enumerate(log_p.tolist()):
        e = exact(*[mp.mpf(column[n].item()) for column in columns])
        worst = max(worst, abs(found - e) / (1 + abs(e)))
    return float(worst)


def poisson(k: Any, log_rate: Any) -> Any:
    return k * log_rate - mp.exp(log_rate) - mp.loggamma(k + 1)


def negative_binomial(k: Any, log_mean: Any, log_r: Any) -> Any:
    mu, r = mp.exp(log_mean), mp.exp(log_r)
    return mp.loggamma(k + r) - mp.loggamma(r) - mp.loggamma(k + 1) + r * mp.log(r / (r + mu)) + k * mp.log(mu / (r + mu))


def student(x: Any, loc: Any, log_scale: Any, df: Any) -> Any:
    t = (x - loc) / mp.exp(log_scale)
    norm = mp.loggamma((df + 1) / 2) - mp.loggamma(df / 2) - mp.log(mp.pi * df) / 2 - log_scale
    return norm - (df + 1) / 2 * mp.log(1 + t * t / df)


KS, MEANS = (0, 1, 2, 7, 30, 1000, 20_000, 1_000_000), (1e-8, 1e-2, 1.0, 20.0, 999.0, 2e4, 1e6)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 4e-6), (f64, 1e-14)])
def test_counts_of_any_size_keep_their_digits(dtype: torch.dtype, tolerance: float) -> None:
    grid = [(float(k), math.log(mu)) for k, mu in product(KS, MEANS)]
    assert compared(partial(dist.Poisson, event_dim=0), poisson, grid, dtype) < tolerance
    rs = (1e-6, 1e-2, 0.5, 3.0, 30.0, 1e4, 1e8, 1e12)
    full = [(float(k), math.log(mu), math.log(r)) for k, mu, r in product(KS, MEANS, rs)]
    assert compared(partial(dist.NegativeBinomial, event_dim=0), negative_binomial, full, dtype) < tolerance


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-6), (f64, 1e-14)])
def test_tails_of_student_keep_their_digits(dtype: torch.dtype, tolerance: float) -> None:
    grid = [
        (x, 0.0, s, v)
        for x, s, v in product((0.0, 1e-3, 1.0, -99.0, 9e3, 1.1e4, 1e20, -1e30), (-2.0, 0.0, 9.0), (0.3, 1.0, 30.0, 1e4, 1e8))
    ]
    assert compared(partial(dist.StudentT, event_dim=0), student, grid, dtype) < tolerance


@pytest.mark.parametrize("dtype", [torch.float32, f64])
def test_a_students_t_that_overflows_is_scored_by_its_logarithm(dtype: torch.dtype) -> None:
    """|x - loc| / scale is beyond what the numbers hold, or 0 times infinity."""
    most = 1e38 if dtype is torch.float32 else 1e307
    far = [(x, loc, s, v) for x, loc, s, v in product((most, -most, 3.0, 1e-4), (0.0, 2.0), (-20.0, -700.0), (0.3, 30.0, 1e4))]
    at = [(x, x, s, v) for x, s, v in product((0.0, 5.0), (-700.0, 0.0), (0.3, 30.0))]
    assert compared(partial(dist.StudentT, event_dim=0), student, far + at, dtype) < (2e-6 if dtype is torch.float32 else 1e-14)


def test_the_poisson_is_the_negative_binomial_without_dispersion_and_a_point_on_zero_takes_all() -> None:
    log_rate, k = torch.linspace(-3, 8, 40).unsqueeze(1), torch.arange(0.0, 3000.0, 7.0)
    log_rate = log_rate.expand(40, len(k))
    exact = dist.log_prob_parts(dist.Poisson(log_rate), k)
    torch.testing.assert_close(dist.log_prob_parts(dist.NegativeBinomial(log_rate, torch.full_like(log_rate, 30.0)), k), exact)
    zero = dist.ZeroInflated(dist.Poisson(torch.zeros(2)), torch.tensor([60.0, -60.0]))
    torch.testing.assert_close(dist.log_prob_parts(zero, torch.zeros(2)), torch.tensor([0.0, -1.0]))
    torch.testing.assert_close(dist.log_prob_parts(zero, torch.ones(2)), torch.tensor([-61.0, -1.0]))


def test_moments_and_modes_of_counts() -> None:
    torch.manual_seed(0)
    for d in (
        dist.NegativeBinomial(torch.tensor([1.0, 2.0]), torch.tensor([0.3, 2.0])),
        dist.ZeroInflated(dist.NegativeBinomial(torch.tensor([1.0, 2.0]), torch.tensor([0.3, 2.0])), torch.tensor([0.5, -1.0])),
        dist.ZeroInflated(dist.Poisson(torch.tensor([1.0, 2.0])), torch.tensor([-3.0, 1.0])),
        dist.Poisson(torch.tensor([1.0, 2.0])),
    ):
        k = torch.arange(2000.0).unsqueeze(1).expand(2000, 2)
        p = dist.log_prob_parts(d, k).double().exp()
        mean = (p * k).sum(0)
        torch.testing.assert_close(d.mean.double(), mean, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(d.variance.double(), (p * (k - mean).square()).sum(0), rtol=1e-5, atol=1e-5)
        assert torch.equal(d.mode, p.argmax(0).float()), type(d).__name__


def test_moments_of_student_and_log_normal() -> None:
    t = dist.StudentT(torch.zeros(1, dtype=f64), torch.tensor([0.3], dtype=f64), torch.tensor([7.0], dtype=f64))
    x = torch.linspace(-14, 14, 20_001, dtype=f64).sinh().unsqueeze(1)
    w = t.log_prob(x).exp().unsqueeze(1) * torch.linspace(-14, 14, 20_001, dtype=f64).cosh().unsqueeze(1) * 28 / 20_000
    torch.testing.assert_close((w * x.square()).sum(0), t.variance)
    assert dist.StudentT(torch.zeros(1), torch.zeros(1), torch.tensor([1.5])).variance.isinf().all()
    d = dist.LogNormal(torch.tensor([0.4]), torch.tensor([-0.7]))
    theirs = torch.distributions.LogNormal(0.4, math.exp(-0.7))
    for mine, other in ((d.mean, theirs.mean), (d.variance, theirs.variance), (d.mode, theirs.mode)):
        torch.testing.assert_close(mine[0], other)
    torch.testing.assert_close(d.log_prob(torch.tensor([2.0])), theirs.log_prob(torch.tensor(2.0)))


def test_the_gradient_of_a_student_sample_by_its_degrees_of_freedom() -> None:
    """d/dv E[x^2] = d/dv v / (v - 2) = -2 / (v - 2)^2."""
    torch.manual_seed(0)
    v = torch.full((400_000,), 12.0, dtype=f64, requires_grad=True)
    x = dist.StudentT(torch.zeros(400_000, dtype=f64), torch.zeros(400_000, dtype=f64), v, 0).rsample()
    (grad,) = torch.autograd.grad(x.square().sum(), v)
    assert abs(grad.mean() + 0.02) < 4.5 * grad.std() / math.sqrt(400_000) < 1e-3


def test_ordinal_is_the_cumulative_logit() -> None:
    torch.manual_seed(0)
    head = heads.Ordinal((5, 3)).double()
    with torch.no_grad():
        for p in head.parameters():
            p.add_(torch.randn_like(p))
    eta = torch.randn(6, 2, dtype=f64)
    gaps = nn.functional.softplus(head.gaps)
    for column, classes in enumerate(head.classes):
        b = torch.cat([head.first[column : column + 1], head.first[column] + gaps[: classes - 2, column].cumsum(0)])
        at_most = torch.cat([torch.sigmoid(b - eta[:, column : column + 1]), torch.ones(6, 1, dtype=f64)], 1)
        p = at_most.diff(dim=1, prepend=torch.zeros(6, 1, dtype=f64))
        for c in range(classes):
            x = torch.tensor([c, 0], dtype=f64) if column == 0 else torch.tensor([0, c], dtype=f64)
            torch.testing.assert_close(dist.log_prob_parts(head(eta), x)[:, column].exp(), p[:, c])
    far = heads.Ordinal((5,))(torch.tensor([[80.0], [-80.0]], requires_grad=True))
    log_p = far.log_prob(torch.tensor([[0.0], [4.0]]))
    assert log_p.isfinite().all() and (log_p < -70).all()
    start = heads.Ordinal((7,))(torch.zeros(1, 1)).log_prob(torch.arange(7.0).unsqueeze(1)).exp()
    torch.testing.assert_close(start, torch.full((7,), 1 / 7))


def test_classes_of_several_numbers_are_a_softmax_each() -> None:
    torch.manual_seed(0)
    h = torch.randn(5, 9, requires_grad=True)
    d = heads.Classes((2, 4, 3))(h)
    for column, logits in enumerate(h.split([2, 4, 3], -1)):
        for c in range(logits.shape[-1]):
            x = torch.zeros(3)
            x[column] = c
            torch.testing.assert_close(dist.log_prob_parts(d, x)[:, column], logits.log_softmax(-1)[:, c])
    assert (d.sample((500,)).amax((0, 1)) <= torch.tensor([1.0, 3.0, 2.0])).all() and d.entropy().isfinite().all()
    (grad,) = torch.autograd.grad(d.entropy().sum(), h)
    assert grad.isfinite().all()


# Sizes


@pytest.mark.parametrize(
    "make", [heads.Poisson, heads.NegativeBinomial, heads.ZeroInflatedPoisson, heads.ZeroInflatedNegativeBinomial], ids=lambda m: m.__name__
)
def test_a_size_multiplies_the_mean(make: Any) -> None:
    torch.manual_seed(0)
    plain, sized = make((2, 3)), make((2, 3), sized=True)
    h, log_l = torch.randn(4, 5, plain.features), torch.randn(4, 5, 1)
    torch.testing.assert_close(sized(torch.cat([h, log_l], -1)).mean, plain(h).mean * log_l.exp().unsqueeze(-1))
    torch.testing.assert_close(sized(torch.cat([h, 0 * log_l], -1)).log_prob(torch.ones(2, 3)), plain(h).log_prob(torch.ones(2, 3)))


def test_a_size_in_the_context_passes_the_decoder() -> None:
    """The head's mean follows l to the last bit; the network does not see it."""
    torch.manual_seed(0)
    head = heads.NegativeBinomial(6, sized=True)
    likelihood = Conditional(PassLast(mlp(2 + 1, [8], 6)), head)
    q = Conditional(nn.Linear(6 + 2, 4), heads.Gaussian(2))
    model = VAE(priors.StandardNormal(2), q, likelihood, view=lambda b: torch.cat([b.x.log1p(), b.c], 1), context=2)
    z, c = torch.randn(3, 4, 2), torch.randn(4, 2)
    one = model.score(Batch(torch.ones(4, 6), c), z).px.mean
    c[:, 1] += math.log(3.0)
    torch.testing.assert_close(model.score(Batch(torch.ones(4, 6), c), z).px.mean, 3 * one)
    assert model.sample(4, context=c, mean=False).shape == (4, 6)


# Rows of tables

TABLE = [
    Column("ordinal", size=4),
    Column("gaussian", loc=2.0, scale=3.0, min_scale=0.01),
    Column("categorical", size=3),
    Column("student", loc=-1.0, scale=0.5),
    Column("gaussian", loc=0.3, scale=0.7, log=True, min_scale=0.01),
    Column("bernoulli"),
    Column("negative_binomial"),
    Column("categorical", size=4),
    Column("zero_inflated_poisson"),
    Column("continuous_bernoulli", loc=-1.0, scale=2.0),
    Column("discretised_logistic", size=5),
    Column("categorical", size=40),
]


def table_rows(n: int, generator: torch.Generator) -> Tensor:
    """Rows u of `TABLE` that depend on one another."""
    z = torch.randn(n, generator=generator)
    noise = torch.randn(n, len(TABLE), generator=generator)
    y = z.unsqueeze(1) + 0.5 * noise
    columns = [
        (y[:, 0] + 2).round().clamp(0, 3),
        y[:, 1],
        (y[:, 2] + 1).round().clamp(0, 2),
        y[:, 3],
        y[:, 4],
        (y[:, 5] > 0).float(),
        y[:, 6].exp().round(),
        (y[:, 7] + 2).round().clamp(0, 3),
        (y[:, 8].exp() * (noise[:, 0] > 0)).round(),
        torch.sigmoid(y[:, 9]),
        (torch.sigmoid(y[:, 10]) * 4).round() / 4,
        (y[:, 11] * 5 + 20).round().clamp(0, 39),
    ]
    return torch.stack(columns, 1)


def test_columns_are_their_heads_one_by_one_in_the_units_of_the_table() -> None:
    torch.manual_seed(0)
    head = Columns(TABLE)
    assert head.groups == ((0,), (1, 4), (2, 7), (3,), (5,), (6,), (8,), (9,), (10,), (11,))
    x = table_rows(6, torch.Generator().manual_seed(0))
    h = torch.randn(5, 6, head.features)
    parts = dist.log_prob_parts(head(h), x)
    assert parts.shape == (5, 6, 12)
    torch.testing.assert_close(head(h).log_prob(x), parts.sum(-1))
    own = dict(zip(head.groups, zip(head.heads, h.split(head.widths, -1), strict=True), strict=True))
    volume = {1: -math.log(3.0), 3: -math.log(0.5), 9: -math.log(2.0)}
    for group, (inner, numbers) in own.items():
        alone = dist.log_prob_parts(inner(numbers), x[:, list(group)])
        for n, column in enumerate(group):
            log_x = 0.3 + 0.7 * x[:, column]
            jacobian = -math.log(0.7) - log_x if column == 4 else torch.tensor(volume.get(column, 0.0))
            torch.testing.assert_close(parts[..., column], alone[..., n] + jacobian)


@pytest.mark.parametrize("log", [False, True])
def test_nats_do_not_depend_on_how_a_column_is_scaled(log: bool) -> None:
    """The same density of x, its parameters told in two units; and that of torch."""
    x = torch.tensor([[0.5], [3.0]], dtype=f64)
    mean, sd = 0.4, 0.8
    base = torch.distributions.LogNormal if log else torch.distributions.Normal
    exact = base(torch.tensor(mean, dtype=f64), sd).log_prob(x[:, 0])
    for loc, scale in ((0.0, 1.0), (2.5, 4.0), (-1.0, 0.01)):
        head = Columns([Column("gaussian", loc=loc, scale=scale, log=log)]).double()
        u = ((x.log() if log else x) - loc) / scale
        h = torch.tensor([[(mean - loc) / scale, 2 * math.log(sd / scale)]], dtype=f64)
        torch.testing.assert_close(head(h).log_prob(u), exact)


def test_a_hundred_columns_of_a_kind_are_one_head() -> None:
    head = Columns([Column("gaussian", loc=float(n), scale=n + 1.0) for n in range(100)])
    assert len(head.heads) == 1
    h = torch.randn(7, 200)
    d = head(h)
    assert len(d.parts) == 1 and d.order is None
    expected = heads.Gaussian(100)(h).log_prob(torch.ones(100)) - math.lgamma(101)
    torch.testing.assert_close(d.log_prob(torch.ones(100)), expected)


@pytest.mark.parametrize("kind, alone", [("gaussian", heads.Gaussian), ("student", heads.StudentT)])
def test_columns_of_different_floors_are_one_head(kind: str, alone: Any) -> None:
    floors = [0.0, 1e-3, 0.7, 0.0, 2.0]
    head = Columns([Column(kind, min_scale=floor) for floor in floors])
    assert len(head.heads) == 1 and "log_floor" not in "".join(head.state_dict())
    h, x = torch.randn(6, 10, generator=torch.Generator().manual_seed(0)).requires_grad_(), torch.linspace(-2, 2, 5)
    with torch.no_grad():
        h[0, [6, 7, 9]] = -200.0  # no variance but that of the floor
    found = dist.log_prob_parts(head(h), x)
    for d, floor in enumerate(floors):
        expected = dist.log_prob_parts(alone(1, min_scale=floor)(h[:, [d, 5 + d]]), x[d : d + 1])
        torch.testing.assert_close(found[:, d], expected[:, 0])
    (grad,) = torch.autograd.grad(found.sum(), h)
    assert grad.isfinite().all() and head.double()(h.double()).log_prob(x.double()).isfinite().all()


def test_support_of_columns_is_told_entry_by_entry() -> None:
    head = Columns(TABLE)
    x = table_rows(4, torch.Generator().manual_seed(0))
    support = head(torch.zeros(4, head.features)).support
    assert support.check(x).all()
    for column, wrong in ((0, 7.0), (1, math.nan), (2, 0.5), (6, -1.0), (8, 1.5), (9, 1.5), (11, 40.0)):
        broken = x.clone()
        broken[2, column] = wrong
        fine = support.base_constraint.check(broken)
        assert not fine[2, column] and fine.sum() == fine.numel() - 1, column


def test_centre_and_samples_of_columns_lie_in_the_table() -> None:
    torch.manual_seed(0)
    head = Columns(TABLE)
    d = head(torch.randn(50, head.features))
    assert d.support.check(d.sample((20,))).all() and not d.has_rsample
    centre = dist.centre(d)
    assert centre.shape == (50, 12)
    torch.testing.assert_close(centre[:, 1], d.parts[1].loc[:, 0])
    assert torch.equal(centre[:, 7], d.parts[2].mode[:, 1]) and torch.equal(centre[:, 11], d.parts[-1].mode[:, 0])
    assert d.expand((3, 50)).sample().shape == (3, 50, 12)


def masked(n: int, seed: int) -> Split:
    g = torch.Generator().manual_seed(seed)
    x, mask = table_rows(n, g), torch.rand(n, 12, generator=g) < 0.8
    return Split(torch.where(mask, x, math.nan), mask=mask)


def table_model(view: Any = with_mask, extra: int = 0, **settings: Any) -> VAE:
    torch.manual_seed(0)
    head = Columns(TABLE)
    layer = head.input_layer(extra=extra)
    encoder = nn.Sequential(layer, mlp(layer.features, [24], 4))
    decoder = mlp(2 + settings.get("context", 0), [24], head.features)
    return VAE(priors.StandardNormal(2), Conditional(encoder, heads.Gaussian(2)), Conditional(decoder, head), view=view, **settings)


def test_a_mixed_table_with_holes_trains() -> None:
    training = Training(12, 32, optimiser=partial(torch.optim.Adam, lr=1e-2), compile=False)
    fitted = quiet(table_model(), masked(160, 1), objective=IWAE(5), training=training)
    batch = masked(50, 2).batch(torch.arange(50))
    trace = fitted.model.infer(batch, 20)
    parts = dist.log_prob_parts(trace.px, batch.input)
    assert parts.isfinite().all()
    torch.testing.assert_close(trace.log_px, torch.where(batch.mask, parts, torch.zeros_like(parts)).sum(-1))
    assert fitted.history[-1]["train/bound"] > fitted.history[0]["train/bound"] + 2


def test_a_mixed_table_with_a_context() -> None:
    model = table_model(with_mask_and_context, 3, context=3)
    split = masked(20, 1)
    batch = Batch(split.x, torch.randn(20, 3), split.mask)
    ELBO(2)(model, batch).surrogate.mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert model.sample(5, context=torch.zeros(3)).shape == (5, 12)


# The input layer


def test_the_input_layer_shows_classes_counts_and_masks() -> None:
    torch.manual_seed(0)
    layer = ColumnsInput([0, 3, 0, 50, 2], counts=[2], extra=1, one_hot=8, width=4)
    x, m = torch.tensor([[0.5, 2.0, 9.0, 49.0, 1.0]]), torch.ones(1, 5)
    out = layer(torch.cat([x, m, torch.tensor([[7.0]])], 1))
    vector = layer.vectors.weight[49]
    expected = torch.cat([torch.tensor([0.5, math.log(10.0), 0, 0, 1, 0, 1]), vector, torch.tensor([1.0] * 5), torch.tensor([7.0])])
    torch.testing.assert_close(out[0], expected)
    assert out.shape == (1, layer.features) and layer.vectors.weight.shape == (50, 4)
    nothing = layer(torch.zeros(1, 11))
    assert torch.equal(nothing, torch.zeros(1, layer.features))  # a class that is missing is not class 0


@pytest.mark.parametrize("classes", [(0, 0), (3, 2), (50,), (0, 3, 50)])
def test_the_input_layer_has_no_tensors_of_nothing_and_keeps_its_weights_names(classes: tuple[int, ...]) -> None:
    layer = ColumnsInput(classes)
    assert all(buffer.numel() for buffer in layer.buffers())  # torch.export.save fails at them
    assert list(layer.state_dict()) == ["vectors.weight"] * (50 in classes)
    assert layer(torch.ones(2, 2 * len(classes))).shape == (2, layer.features)


def test_a_missing_class_is_not_the_first_class() -> None:
    layer = ColumnsInput([3, 50], one_hot=8, width=4)
    first, missing = torch.tensor([[0.0, 0, 1, 1]]), torch.zeros(1, 4)
    assert layer(first)[0, :3].tolist() == [1, 0, 0] and layer(missing).abs().sum() == 0 and layer(first)[0, 3:7].abs().sum() > 0


@pytest.mark.parametrize("wrong", [-1.0, 40.0, 0.5, 1e9, math.nan])
def test_a_number_that_is_no_class_reads_no_others_vector(wrong: float) -> None:
    layer = ColumnsInput([40, 50], one_hot=8, width=4)
    out = layer(torch.tensor([[wrong, 49.0, 1, 1], [39.0, 0.0, 1, 1]]))
    assert out[0, :4].eq(0).all() and torch.equal(out[0, 4:8], layer.vectors.weight[89])
    assert torch.equal(out[1, :8], layer.vectors.weight[39:41].flatten())


MISTAKES: dict[str, tuple[Callable[[], object], str]] = {
    "an unknown kind": (lambda: Column("gausian"), r'Column\(kind="gausian"\): no such kind; did you mean "gaussian"'),
    "no scale": (lambda: Column("gaussian", scale=0.0), r"scale positive"),
    "a scaled count": (lambda: Column("poisson", scale=2.0), r"not scaled"),
    "the logarithm of a class": (lambda: Column("bernoulli", log=True), r"only a gaussian or student"),
    "no classes": (lambda: Column("categorical"), r"give size.*2 or more"),
    "one class": (lambda: Column("ordinal", size=1), r"give size.*2 or more"),
    "a size for none": (lambda: Column("gaussian", size=3), r"no size"),
    "a floor for none": (lambda: Column("poisson", min_scale=0.1), r"min_scale"),
    "a floor that is none": (lambda: Column("gaussian", min_scale=math.nan), r"min_scale must be finite"),
    "a floor without end": (lambda: Column("student", min_scale=math.inf), r"min_scale must be finite"),
    "too few floors": (lambda: heads.Gaussian(3, min_scale=[0.1, 0.2]), r"2 floors.*\(3,\)"),
    "no columns": (lambda: Columns([]), r"no columns"),
    "sizes without counts": (lambda: Columns([Column("gaussian")], sized=True), r"no column holds counts"),
    "degrees of freedom": (lambda: heads.StudentT(2, df=1.0), r"StudentT\(df=1.0\)"),
    "dispersion": (lambda: heads.NegativeBinomial(2, r=0.0), r"NegativeBinomial\(r=0.0\)"),
    "no columns to show": (lambda: ColumnsInput([]), r"no columns"),
    "counts that are classes": (lambda: ColumnsInput([3], counts=[0]), r"no column of counts"),
    "no mask in view": (lambda: ColumnsInput([0, 0])(torch.zeros(1, 2)), r"takes \[B, 4\].*\[1, 2\].*with_mask"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_told(name: str) -> None:
    make, message = MISTAKES[name]
    with pytest.raises(InputError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
