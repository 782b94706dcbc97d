"""Vector quantisation, finite scalar quantisation, priors over codes and their objective, against enumeration and hand-written forms."""

from __future__ import annotations

import math
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaekit import dist, heads
from vaekit.conditional import Conditional
from vaekit.data import Split
from vaekit.errors import InputError
from vaekit.evaluate import codes, evaluate, measure
from vaekit.evaluate.measure import Measure
from vaekit.models import VAE, code_model
from vaekit.nn import CausalTransformer, vq_decoder, vq_encoder
from vaekit.objectives import ELBO, IWAE, VQ
from vaekit.priors import StandardNormal
from vaekit.quantise import FSQ, AutoregressiveCodes, Codebook, CodePrior, Quantiser, UniformCodes, nearest
from vaekit.quantise.core import embed_field, field, read_field, rows
from vaekit.train import Training, fit
from vaekit.types import Batch

f64 = torch.float64
GRID = (2, 2)
SHAPE = (1, 8, 8)
QUANTISERS: dict[str, Any] = {
    "ema": lambda: Codebook(7, 3),
    "revive": lambda: Codebook(7, 3, revive=0.1),
    "gradient": lambda: Codebook(7, 3, decay=None),
    "fsq": lambda: FSQ((4, 3, 2)),
}
every_quantiser = pytest.mark.parametrize("name", QUANTISERS)


def model_of(quantiser: Quantiser, prior: CodePrior | None = None, scale: float = 0.3) -> VAE:
    """A small convolutional VQ-VAE on [1, 8, 8] with a 2 x 2 grid."""
    d = quantiser.dimensions
    return VAE(
        UniformCodes(quantiser, GRID) if prior is None else prior,
        Conditional(vq_encoder(SHAPE, dimensions=d, hidden=6, residual=4, blocks=1), heads.Quantised(quantiser, GRID), event_dim=3),
        Conditional(vq_decoder(d, SHAPE, hidden=6, residual=4, blocks=1), heads.GaussianFixed(SHAPE, scale), event_dim=3),
    )


def images(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(seed))


def moved(net: CausalTransformer) -> CausalTransformer:
    """Away from the uniform start."""
    with torch.no_grad():
        for p in net.parameters():
            p += 0.5 * torch.randn_like(p)
    return net


# Quantisers


def test_nearest_against_all_differences() -> None:
    torch.manual_seed(0)
    z, vectors = torch.randn(200, 5), torch.randn(40, 5)
    exact = (z.unsqueeze(1) - vectors).square().sum(-1).argmin(-1)
    assert torch.equal(nearest(z, vectors), exact)
    # Far from the origin a matrix product cannot tell neighbours apart in float32; a vector must still find itself.
    far = 1000 + 1e-2 * torch.randn(3, 5)
    assert torch.equal(nearest(far, far), torch.arange(3))
    twins = torch.zeros(30, 5)
    assert torch.equal(nearest(z, twins), torch.zeros(200, dtype=torch.int64))  # the first of equal ones


def test_field_and_rows_are_inverse_for_any_grid() -> None:
    for grid in ((), (4,), (2, 3), (2, 2, 2)):
        z = torch.randn(5, 6, 3, *grid)
        assert rows(z, len(grid)).shape == (5, 6, *grid, 3)
        assert torch.equal(field(rows(z, len(grid)), len(grid)), z)


@every_quantiser
def test_codes_are_found_again_and_evaluation_changes_nothing(name: str) -> None:
    torch.manual_seed(0)
    quantiser = QUANTISERS[name]()
    for _ in range(3):
        out = quantiser(torch.randn(50, 3))
        assert torch.equal(quantiser.read(out.vectors), out.codes)  # also while the table moves from pass to pass
    everything = torch.arange(quantiser.size)
    assert quantiser.embed(everything).shape == (quantiser.size, 3)
    quantiser.eval()
    kept = {key: b.clone() for key, b in quantiser.state_dict().items()}
    out = quantiser(torch.randn(50, 3))
    assert all(torch.equal(b, kept[key]) for key, b in quantiser.state_dict().items())
    assert torch.equal(quantiser.embed(out.codes), out.vectors)
    if name == "fsq":
        assert torch.equal(quantiser.read(quantiser.embed(everything)), everything)


@pytest.mark.parametrize(("eps", "tolerance"), [(1e-12, 1e-8), (1e-2, 2e-2)])
def test_ema_is_the_published_recursion(eps: float, tolerance: float) -> None:
    """Appendix A.1 with debiased averages, as Sonnet writes it, over 30 passes in float64.

    The ratio of the averages needs no debiasing. The smoothing does feel it, and weighs more while ours have not filled yet.
    """
    torch.manual_seed(0)
    book = Codebook(12, 3, decay=0.9, eps=eps).double()
    table, size, total = book.vectors.clone(), torch.zeros(12, dtype=f64), torch.zeros(12, 3, dtype=f64)
    for t in range(1, 31):
        z = torch.randn(40, 3, dtype=f64)
        chosen = (z.unsqueeze(1) - table).square().sum(-1).argmin(-1)
        out = book(z)
        if eps < 1e-9:
            assert torch.equal(out.codes, chosen)
            torch.testing.assert_close(out.vectors, table[chosen], atol=tolerance, rtol=0)
        chosen = out.codes
        one_hot = F.one_hot(chosen, 12).to(f64)
        size, total = 0.9 * size + 0.1 * one_hot.sum(0), 0.9 * total + 0.1 * one_hot.mT @ z
        debiased = size / (1 - 0.9**t)
        n = debiased.sum()
        smoothed = (debiased + eps) / (n + 12 * eps) * n
        before, table = table, total / (1 - 0.9**t) / smoothed.unsqueeze(-1)
    assert (before - table).abs().max() > 1e-2
    book(z)
    torch.testing.assert_close(book.vectors, table, atol=tolerance, rtol=0)


def test_ema_finds_the_centres_of_separate_clusters() -> None:
    torch.manual_seed(0)
    centres = torch.tensor([[-5.0, 0.0], [5.0, 0.0], [0.0, 5.0], [0.0, -5.0]])
    book = Codebook(4, 2, decay=0.9, revive=0.5)
    for _ in range(200):
        book(centres[torch.randint(4, (64,))] + 0.1 * torch.randn(64, 2))
    book.eval()
    found = book(centres)
    assert sorted(found.codes.tolist()) == [0, 1, 2, 3]
    assert (found.vectors - centres).abs().max() < 0.1


def test_dead_codes_are_revived_whatever_the_batch_size() -> None:
    """All vectors lie near one point far from the table: without revival one code takes them all."""

    def used(revive: float | None, n: int) -> int:
        torch.manual_seed(0)
        book = Codebook(16, 2, revive=revive)
        for _ in range(5):
            out = book(20 + torch.randn(n, 2))
        return len(out.codes.unique())

    assert used(None, 64) <= 2
    for n in (64, 640):
        assert used(0.1, n) >= 14
    # The threshold is a share of equal use, which is 50 of 100 here: at 0.1 a code with 6 lives and one with 4 is replaced.
    for few, lives in ((6.0, True), (4.0, False)):
        book = Codebook(2, 1, revive=0.1)
        book.usage.copy_(torch.tensor([100 - few, few]))
        book.total.copy_(torch.tensor([[few - 100], [few]]))
        out = book(torch.full((10, 1), -3.0))
        torch.testing.assert_close(book.vectors, torch.tensor([[-1.0], [1.0 if lives else -3.0]]))
        assert (out.codes == (0 if lives else 1)).all()


def test_frozen_codebooks_stay() -> None:
    for name in ("ema", "revive", "gradient"):
        book = QUANTISERS[name]().freeze().train()
        before = book.vectors.clone()
        for _ in range(3):
            book(5 + torch.randn(20, 3))
        assert torch.equal(book.vectors, before) and not any(p.requires_grad for p in book.parameters())


def test_fsq_levels_gradient_and_limits() -> None:
    fsq = FSQ((8, 5, 2))
    z = torch.linspace(-20, 20, 4001).unsqueeze(-1).expand(-1, 3)
    out = fsq(z)
    expected = (torch.arange(-4, 4) / 4, torch.arange(-2, 3) / 2, torch.tensor([-1.0, 0.0]))
    for d, values in enumerate(expected):
        assert torch.equal(out.vectors[:, d].unique(), values)
        assert (out.vectors[1:, d] >= out.vectors[:-1, d]).all()
    assert torch.equal(out.codes.unique(), out.codes.unique().clamp(0, fsq.size - 1))
    zero = fsq(torch.zeros(1, 3))
    assert torch.equal(zero.vectors, torch.zeros(1, 3)) and zero.encoded.abs().max() < 1e-6
    assert ((out.encoded - out.vectors).abs() <= 0.5 / torch.tensor([4, 2, 1]) + 1e-3).all()
    one = torch.zeros(1, 3, requires_grad=True)
    fsq(one).encoded.sum().backward()
    half = torch.tensor([3.5, 2.0, 0.5]) * 1.001
    slope = half * (1 - (torch.tensor([0.5, 0.0, 0.5]) / half).square()) / torch.tensor([4.0, 2.0, 1.0])
    torch.testing.assert_close(one.grad, slope.unsqueeze(0))
    assert sorted(fsq.read(fsq.embed(torch.arange(80))).tolist()) == list(range(80))


# The point mass on codes


@every_quantiser
def test_straight_through_gradient_and_exact_values(name: str) -> None:
    torch.manual_seed(0)
    quantiser = QUANTISERS[name]()
    h = (3 * torch.randn(5, 3 * 4)).requires_grad_()
    q = heads.Quantised(quantiser, GRID)(h)
    assert q.event_shape == (3, 2, 2) and q.batch_shape == (5,) and q.codes.shape == (5, 2, 2)
    z = q.rsample((2,))
    assert z.shape == (2, 5, 3, 2, 2) and torch.equal(z[0], q.vectors) and torch.equal(z[1], q.vectors)
    assert torch.equal(read_field(quantiser, z, 2)[1], q.codes)
    torch.testing.assert_close(embed_field(quantiser, q.codes, 2), q.vectors.detach())
    weight = torch.randn_like(z)
    (grad,) = torch.autograd.grad((z * weight).sum(), h, retain_graph=True)
    (as_if,) = torch.autograd.grad((q.encoded * weight.sum(0)).sum(), h)
    assert torch.equal(grad, as_if)
    assert torch.equal(q.log_prob(z), torch.zeros(2, 5))
    assert torch.equal(q.log_prob(z + 0.1), torch.full((2, 5), -math.inf))
    assert not q.sample().requires_grad and torch.equal(dist.centre(q), q.vectors)


def test_commitment_moves_the_encoder_and_the_codebook_term_the_codes() -> None:
    """The fault of others: the weight on the wrong term. Gradients of each by hand, and none to the other side."""
    torch.manual_seed(0)
    book = Codebook(7, 3, decay=None)
    h = torch.randn(4, 12, requires_grad=True)
    q = heads.Quantised(book, GRID)(h)
    difference = (q.encoded - q.vectors).detach()
    torch.testing.assert_close(q.commitment, difference.square().sum((1, 2, 3)))
    torch.testing.assert_close(q.codebook, q.commitment)
    (to_h,) = torch.autograd.grad(q.commitment.sum(), h, retain_graph=True)
    torch.testing.assert_close(to_h, 2 * difference.flatten(1))
    assert torch.autograd.grad(q.commitment.sum(), book.vectors, retain_graph=True, allow_unused=True) == (None,)
    assert torch.autograd.grad(q.codebook.sum(), h, retain_graph=True, allow_unused=True) == (None,)
    (to_e,) = torch.autograd.grad(q.codebook.sum(), book.vectors)
    expected = torch.zeros(7, 3).index_add(0, q.codes.flatten(), -2 * rows(difference, 2).reshape(-1, 3))
    torch.testing.assert_close(to_e, expected)
    averaged = heads.Quantised(Codebook(7, 3), GRID)(h)
    assert (averaged.codebook == 0).all() and (averaged.commitment > 0).all()
    rounded = heads.Quantised(FSQ((4, 3, 2)), GRID)(h)
    assert (rounded.commitment == 0).all() and (rounded.codebook == 0).all()


# Priors over codes


def small_priors() -> dict[str, CodePrior]:
    torch.manual_seed(0)
    book = Codebook(3, 2).eval()
    learned = AutoregressiveCodes(book, GRID, width=8, layers=2, heads=2)
    moved(learned.net)
    return {"uniform": UniformCodes(book, GRID), "autoregressive": learned}


@pytest.mark.parametrize("name", ["uniform", "autoregressive"])
def test_total_mass_is_one_and_samples_have_it(name: str) -> None:
    """All 81 fields of 2 x 2 codes of 3; 20,000 samples."""
    prior = small_priors()[name].double()
    book = prior.quantiser
    assert isinstance(book, Codebook)
    book.double()
    everything = torch.tensor(list(product(range(3), repeat=4))).reshape(-1, 2, 2)
    p = prior()
    assert p.batch_shape == () and p.event_shape == (2, 2, 2)
    mass = p.log_prob(embed_field(book, everything, 2)).exp().detach()
    assert mass.sum().item() == pytest.approx(1, abs=1e-9)
    assert (mass.std() > 1e-3) == (name == "autoregressive")
    z = p.sample((20_000,))
    number = (read_field(book, z, 2).flatten(1) * torch.tensor([27, 9, 3, 1])).sum(-1)
    frequency = torch.bincount(number, minlength=81) / 20_000
    score = (frequency - mass) / (mass * (1 - mass) / 20_000).sqrt()
    assert score.abs().max() < 4.5
    drawn = -p.log_prob(z)
    entropy = -(mass * mass.log()).sum()
    assert abs(drawn.mean() - entropy) < 4 * drawn.std() / math.sqrt(20_000) + 1e-12


def test_causality_is_exact() -> None:
    """Changing code j changes the logits of the codes after j and of no other, not by a bit."""
    torch.manual_seed(0)
    net = moved(CausalTransformer(5, 9, width=8, layers=3, heads=2))
    x = torch.randint(5, (4, 8))
    base = net(x)
    assert base.shape == (4, 9, 5)
    for j in range(8):
        other = x.clone()
        other[:, j] = (other[:, j] + 1) % 5
        change = (net(other) - base).abs().amax((0, 2))
        assert (change[: j + 1] == 0).all() and (change[j + 1 :] > 0).all()
        torch.testing.assert_close(net(x[:, :j]), base[:, : j + 1], atol=1e-5, rtol=1e-5)  # which sampling relies on


def test_the_autoregressive_prior_learns_a_dependence() -> None:
    """Codes of which the last three copy the first: the entropy is log 3 per field, the uniform prior's 4 log 3."""
    torch.manual_seed(0)
    book = Codebook(3, 2).eval()
    x = torch.randint(3, (512, 1, 1)).expand(-1, 2, 2).to(torch.int32)
    prior = AutoregressiveCodes(book, GRID, width=16, layers=1, heads=2)
    model = code_model(prior)
    start = evaluate(model, Split(x), samples=1).elbo
    assert start == pytest.approx(-4 * math.log(3), abs=1e-5)
    training = Training(epochs=12, batch_size=32, optimiser=partial(torch.optim.Adam, lr=1e-2))
    fit(model, Split(x), training=training, progress=False)
    found = evaluate(model, Split(x), samples=50)
    assert found.samples == 1 and found.nll == pytest.approx(-found.elbo)
    assert found.elbo == pytest.approx(-math.log(3), abs=0.1)
    assert measure(model, Split(x)) is Measure.MASS
    drawn = read_field(book, prior().sample((100,)), 2).flatten(1)
    assert ((drawn == drawn[:, :1]).all(1)).float().mean() > 0.9


# The model


def test_the_bound_is_one_term_of_the_evidence_by_enumeration() -> None:
    """log p(x) = log sum over all 3^4 codes of p(z) p(x | z): the bound is below it, and is that sum's term at the encoder's codes."""
    torch.manual_seed(0)
    book = Codebook(3, 2)
    prior = AutoregressiveCodes(book, GRID, width=8, layers=1, heads=2)
    moved(prior.net)
    model = model_of(book, prior).eval()
    batch = Batch(images(6))
    everything = embed_field(book, torch.tensor(list(product(range(3), repeat=4))).reshape(-1, 1, 2, 2), 2).expand(-1, 6, -1, -1, -1)
    joint = model.log_joint(batch, everything)
    loss = VQ()(model, batch)
    assert loss.bound is not None
    evidence = joint.logsumexp(0)
    assert (loss.bound <= evidence).all() and (evidence - loss.bound < 60).all()
    q = model.infer(batch).levels[0].q
    assert isinstance(q, dist.Quantised)
    number = (q.codes.flatten(1) * torch.tensor([27, 9, 3, 1])).sum(-1)
    torch.testing.assert_close(loss.bound, joint[number, torch.arange(6)].detach(), atol=1e-3, rtol=1e-5)
    for objective in (ELBO(), IWAE(k=5)):
        torch.testing.assert_close(objective(model, batch).bound, loss.bound, atol=1e-3, rtol=1e-5)
    t = model.infer(batch, 3)
    torch.testing.assert_close(model.score(batch, t.z).log_w, t.log_w)


@pytest.mark.parametrize("name", ["ema", "gradient"])
def test_gradients_are_those_of_the_published_loss(name: str) -> None:
    """sigma^2 = var / 2: the surrogate's gradient is D times that of  mse / var + vq loss  as Sonnet writes it (means throughout)."""
    torch.manual_seed(0)
    variance, beta = 0.0632, 0.25
    book = QUANTISERS[name]()
    model = model_of(book, scale=math.sqrt(variance / 2)).eval()
    x = images(5)
    parameters = [p for p in model.parameters() if p.requires_grad]
    ours = torch.autograd.grad(VQ(beta)(model, Batch(x)).surrogate.mean(), parameters)

    z_e = model.posterior.net(x)
    flat = rows(z_e, 2).reshape(-1, 3)
    chosen = (flat.unsqueeze(1) - book.vectors).square().sum(-1).argmin(-1)
    e = field(book.vectors[chosen].reshape(5, 2, 2, 3), 2)
    vq = beta * ((e.detach() - z_e) ** 2).mean() + (((e - z_e.detach()) ** 2).mean() if name == "gradient" else 0.0)
    x_hat = model.likelihood.net(z_e + (e - z_e).detach())
    published = ((x_hat - x) ** 2).mean() / variance + vq
    theirs = torch.autograd.grad(published, parameters)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b * x[0].numel(), atol=1e-4, rtol=1e-3)
        assert (b != 0).any()


@every_quantiser
def test_an_example_does_not_feel_its_batch(name: str) -> None:
    """Loss and gradient of 8 examples are the means of those of two halves."""
    torch.manual_seed(0)
    model = model_of(QUANTISERS[name]()).eval()
    x = images(8)
    whole, first, second = (VQ()(model, Batch(part)) for part in (x, x[:3], x[3:]))
    torch.testing.assert_close(whole.surrogate, torch.cat([first.surrogate, second.surrogate]), atol=1e-3, rtol=1e-5)
    assert whole.surrogate.shape == (8,) and all(v.shape == (8,) and not v.requires_grad for v in whole.logs.values())
    parameters = list(model.parameters())
    a = torch.autograd.grad(whole.surrogate.mean(), parameters)
    b = torch.autograd.grad((first.surrogate.sum() + second.surrogate.sum()) / 8, parameters)
    for u, v in zip(a, b, strict=True):
        torch.testing.assert_close(u, v, atol=1e-3, rtol=1e-3)


def test_surrogate_bound_and_logs_agree() -> None:
    torch.manual_seed(0)
    model = model_of(Codebook(7, 3)).eval()
    loss = VQ(0.5)(model, Batch(images(6)))
    logs = loss.logs
    torch.testing.assert_close(loss.bound, logs["log_px"] - logs["rate_0"])
    torch.testing.assert_close(logs["rate_0"], torch.full((6,), 4 * math.log(7)))
    torch.testing.assert_close(loss.surrogate.detach(), logs["commitment"] + logs["rate_0"] - logs["log_px"])
    q = model.infer(Batch(images(6))).levels[0].q
    assert isinstance(q, dist.Quantised)
    torch.testing.assert_close(logs["commitment"], 0.5 * (64 / 12) * q.commitment.detach())
    f = torch.bincount(q.codes.flatten(), minlength=7) / 24
    f = f[f > 0]
    torch.testing.assert_close(logs["perplexity"], (-(f * f.log()).sum()).exp().expand(6))
    assert (logs["codes"] == len(f)).all()


@every_quantiser
def test_it_learns_and_every_parameter_moves(name: str) -> None:
    torch.manual_seed(0)
    model = model_of(QUANTISERS[name](), scale=0.2)
    x = F.interpolate(images(8)[..., ::4, ::4], scale_factor=4)  # one grey level for each code
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        loss = VQ()(model, Batch(x)).surrogate.mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 5
    assert all(not torch.equal(p, before[key]) for key, p in model.named_parameters())


@pytest.mark.parametrize("name", ["revive", "gradient"])
def test_fit_resumes_bit_for_bit(name: str, tmp_path: Path) -> None:
    """With revival, whose draws and averages must be in the checkpoint."""

    def run(folder: str, epochs: int, resume: bool = False) -> VAE:
        torch.manual_seed(0)
        model = model_of(QUANTISERS[name]())
        fit(model, Split(images(24)), objective=VQ(), training=Training(epochs, 8), out=tmp_path / folder, resume=resume, progress=False)
        return model

    whole = run("whole", 4)
    run("parts", 2)
    parts = run("parts", 4, resume=True)
    for (key, a), b in zip(whole.state_dict().items(), parts.state_dict().values(), strict=True):
        assert torch.equal(a, b), key


def test_second_stage_with_everything_else_frozen() -> None:
    """`fit` trains the prior alone; the same prior, trained on codes computed once, gives the same bound."""
    torch.manual_seed(0)
    book = Codebook(7, 3, revive=0.1)
    first = model_of(book)
    data = Split(images(32), label=torch.arange(32))
    fit(first, data, objective=VQ(), training=Training(2, 8), progress=False)
    prior = AutoregressiveCodes(book, GRID, width=8, layers=1, heads=2)
    full = VAE(prior, first.posterior, first.likelihood)
    full.posterior.requires_grad_(False)
    full.likelihood.requires_grad_(False)
    book.freeze()
    kept = {key: v.clone() for key, v in full.state_dict().items() if not key.startswith("prior")}
    assert not any("quantiser" in key or "vectors" in key for key in prior.state_dict())
    fitted = fit(full, data, training=Training(15, 8, optimiser=partial(torch.optim.Adam, lr=1e-2)), progress=False)
    assert all(torch.equal(v, full.state_dict()[key]) for key, v in kept.items())
    assert fitted.history[-1]["train/rate_0"] < 0.9 * 4 * math.log(7)
    found = codes(full, data)
    assert found.x.shape == (32, 2, 2) and found.x.dtype == torch.int32 and torch.equal(found.label, data.label)
    alone, whole = evaluate(code_model(prior), found), evaluate(full, data)
    assert whole.samples == 1 and whole.nll == pytest.approx(-whole.elbo)
    assert whole.rates[0] == pytest.approx(-alone.elbo, rel=1e-5)
    assert full.sample(3).shape == (3, *SHAPE) and full.reconstruct(data.batch(torch.arange(2))).shape == (2, *SHAPE)


def test_mixed_precision_keeps_distances_in_float32() -> None:
    torch.manual_seed(0)
    model = model_of(Codebook(7, 3))
    with torch.autocast("cpu", torch.bfloat16):
        t = model.infer(Batch(images(4)))
        q = t.levels[0].q
        assert isinstance(q, dist.Quantised)
        assert t.log_px.dtype == q.encoded.dtype == q.vectors.dtype == torch.float32
        assert torch.equal(read_field(model.prior.quantiser, t.z[0][0], 2), q.codes)
    exact = (rows(q.encoded, 2).unsqueeze(-2) - model.prior.quantiser.vectors).square().sum(-1).argmin(-1)
    assert torch.equal(exact, q.codes)


def test_compiles_without_graph_breaks() -> None:
    torch.manual_seed(0)
    for name in ("ema", "fsq"):
        model, batch = model_of(QUANTISERS[name]()).eval(), Batch(images(3))
        torch._dynamo.reset()
        compiled = torch.compile(lambda b, m=model: VQ()(m, b).surrogate, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(batch), VQ()(model, batch).surrogate)


BAD: dict[str, tuple[Any, str]] = {
    "one code": (lambda: Codebook(1, 2), "at least 2 codes"),
    "decay": (lambda: Codebook(4, 2, decay=1.0), "between 0 and 1"),
    "eps": (lambda: Codebook(4, 2, eps=0.0), "positive"),
    "revive": (lambda: Codebook(4, 2, revive=1.0), "share of equal use"),
    "revive without averages": (lambda: Codebook(4, 2, revive=0.1, decay=None), "give a decay"),
    "one level": (lambda: FSQ((8, 1)), "at least 2 levels"),
    "no grid": (lambda: UniformCodes(FSQ((3,)), (0, 2)), "empty dimension"),
    "heads": (lambda: CausalTransformer(3, 4, width=6, layers=1, heads=4), "heads divide"),
    "too long": (lambda: CausalTransformer(3, 4, width=4, layers=1, heads=1)(torch.zeros(1, 4).long()), "at most one fewer"),
    "odd image": (lambda: vq_encoder((1, 10, 8), dimensions=2), "multiples of 4"),
    "weight": (lambda: VQ(-1.0), "0 or more"),
    "another posterior": (
        lambda: VQ()(
            VAE(
                StandardNormal(2),
                Conditional(nn.Linear(4, 4), heads.Gaussian(2)),
                Conditional(nn.Linear(2, 4), heads.GaussianFixed(4, 1.0)),
            ),
            Batch(torch.zeros(3, 4)),
        ),
        "VQ needs codes and .* is DiagGaussian",
    ),
    "another quantiser": (
        lambda: fit(model_of(Codebook(7, 3), UniformCodes(Codebook(7, 3), GRID)), Split(images(8)), objective=VQ(), progress=False),
        "quantiser that is no part of the model",
    ),
    "another grid": (
        lambda: model_of(FSQ((3, 3)), UniformCodes(FSQ((3, 3)), (4, 4))).infer(Batch(images(2))),
        "give both one size",
    ),
    "no centre": (lambda: dist.centre(UniformCodes(FSQ((3, 3)), (2, 2))()), "draw samples instead"),
    "no temperature": (lambda: model_of(FSQ((3, 3))).sample(2, temperature=0.5), "no scale"),
}


@pytest.mark.parametrize("case", BAD)
def test_mistakes_are_refused_in_one_line(case: str) -> None:
    make, message = BAD[case]
    with pytest.raises(InputError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_published_network() -> None:
    """The layer sizes of Sonnet's example, counted by hand."""
    encoder, decoder = vq_encoder((3, 32, 32), dimensions=64), vq_decoder(64, (3, 32, 32))
    block = 128 * 32 * 9 + 32 + 32 * 128 + 128
    in_encoder = (3 * 64 * 16 + 64) + (64 * 128 * 16 + 128) + (128 * 128 * 9 + 128) + 2 * block + (128 * 64 + 64)
    in_decoder = (64 * 128 * 9 + 128) + 2 * block + (128 * 64 * 16 + 64) + (64 * 3 * 16 + 3)
    assert sum(p.numel() for p in encoder.parameters()) == in_encoder
    assert sum(p.numel() for p in decoder.parameters()) == in_decoder
