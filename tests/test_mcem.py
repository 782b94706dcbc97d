"""Monte Carlo EM: its gradient against the exact one, its chains against their bookkeeping, and a whole run with its resume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from oracles import PPCA, LinearLadder, batch, given_entries, z_score
from vaekit import Conditional, heads, priors
from vaekit.data.core import DataSet, Split
from vaekit.errors import InputError
from vaekit.infer import HMC, NUTS, Kernel
from vaekit.models import VAE
from vaekit.objectives import MCEM
from vaekit.train import Training, fit
from vaekit.types import Batch

KERNELS: dict[str, Kernel] = {"hmc": HMC(), "nuts": NUTS(depth=4)}


def numbered(x: Tensor) -> Batch:
    return Batch(x, index=torch.arange(len(x)))


def moments(oracle: PPCA | LinearLadder, z: Tensor) -> float:
    """The largest z-score of the mean and the covariance of chains z [S, B, D] against the exact posterior."""
    n = z.shape[-1]
    gain, a, cov = given_entries(*oracle.joint(), range(n), range(0), range(4), n)
    d = z - (oracle.x @ gain.mT + a).detach()
    outer = d.unsqueeze(-1) * d.unsqueeze(-2)
    return max(z_score(d, 0.0).abs().max().item(), z_score(outer, cov.detach()).abs().max().item())


@pytest.mark.parametrize(
    ("name", "oracle"), [("hmc", PPCA()), ("nuts", PPCA()), ("hmc", LinearLadder())], ids=["hmc", "nuts", "hmc-ladder"]
)
def test_gradient_is_that_of_the_evidence(name, oracle):
    """Fisher's identity: grad log p(x) = E_{p(z|x)} grad log p(x, z). One row's chain is one draw: 2,000 of each of 6 examples, after a
    warm-up of 25 transitions from the prior and 3 moves; the chains have the exact moments too."""
    theta = list(oracle.likelihood.parameters()) + (list(oracle.lower.parameters()) if isinstance(oracle, LinearLadder) else [])
    event = 2 if isinstance(oracle, PPCA) else [(2,), (2,)]
    objective = MCEM(12_000, event, kernel=KERNELS[name], updates=1, warmup=25, epsilon=0.3).double()
    many, model = numbered(oracle.x.repeat(2_000, 1)), oracle.model()
    with torch.no_grad():
        for step in range(3):
            loss = objective(model, many, step)
    assert loss.bound is None
    assert moments(oracle, objective.z.view(2_000, 6, -1)) < 4.5
    exact = torch.autograd.grad(oracle.evidence(oracle.x).sum(), theta)
    t = model.score(many, objective.layout.split(objective.z.unsqueeze(0)))
    per_draw = t.log_joint[0].view(2_000, 6).sum(1)
    # gradients of blocks of 40 draws: 50 observations
    draws = [torch.autograd.grad(block.mean(), theta, retain_graph=True) for block in per_draw.split(40)]
    for got, want in zip(zip(*draws, strict=True), exact, strict=True):
        assert z_score(torch.stack(got), want).abs().max() < 4.5
    objective.updates = 100  # no move now: the surrogate is that very log p(x, z)
    objective.moved.fill_(0)
    torch.testing.assert_close(objective(model, many, 1).surrogate, -t.log_joint[0])


def test_the_step_size_goes_to_ninety_percent():
    """On probabilistic PCA: mean acceptance over the last 100 of 200 moves of 60 rows."""
    oracle = PPCA()
    objective, model = MCEM(60, 2, updates=1, warmup=0, epsilon=0.05).double(), oracle.model()
    many = numbered(oracle.x.repeat(10, 1))
    with torch.no_grad():
        accepted = [objective(model, many, step).logs["accept"].mean() for step in range(200)]
    assert torch.stack(accepted[100:]).mean() == pytest.approx(0.9, abs=0.03)
    assert objective.epsilon > 0.1


def test_chains_move_at_every_fifth_step_and_only_the_rows_seen():
    oracle = PPCA()
    model, objective = oracle.model(), MCEM(9, 2).double()
    b = Batch(oracle.x[:3], index=torch.tensor([7, 2, 4]))
    before = objective.z.clone()
    seen = []
    for step in range(10):
        objective(model, b, step)
        seen.append(objective.z[b.index].clone())
    assert all(torch.equal(a, seen[0]) for a in seen[1:5]) and all(torch.equal(a, seen[5]) for a in seen[6:])
    assert not torch.equal(seen[0], seen[5])
    rest = torch.tensor([0, 1, 3, 5, 6, 8])
    assert torch.equal(objective.z[rest], before[rest]) and (objective.moved[rest] == -1).all()
    assert (objective.moved[b.index] == 5).all()
    with pytest.raises(InputError, match=r"step 11 has other rows.*repeat=5"):
        objective(model, Batch(oracle.x[:3], index=torch.tensor([7, 2, 5])), 11)
    other = Batch(oracle.x[3:5], index=torch.tensor([0, 8]))
    objective(model, other, 15)
    with pytest.raises(InputError, match="step 16 has other rows"):  # seen before, but not by this move
        objective(model, b, 16)


def test_evaluation_leaves_the_chains_and_their_step_size():
    oracle = PPCA()
    model, objective = oracle.model(), MCEM(6, 2).double()
    objective(model, numbered(oracle.x), 0)
    kept = {name: b.clone() for name, b in objective.named_buffers()}
    loss = objective.eval()(model, Batch(oracle.x.repeat(3, 1), index=torch.arange(100, 118)), 1)
    assert loss.surrogate.shape == (18,) and loss.surrogate.isfinite().all() and loss.logs["accept"].shape == (18,)
    assert objective(model, batch(oracle), 3).surrogate.shape == (6,)  # without row numbers
    assert all(torch.equal(b, kept[name]) for name, b in objective.named_buffers())


def test_a_decoder_with_dropout_has_one_density_while_chains_move():
    torch.manual_seed(0)
    decoder = Conditional(nn.Sequential(nn.Linear(2, 5), nn.Dropout(0.5)), heads.Bernoulli(5))
    model = VAE(priors.StandardNormal(2), nn.Identity(), decoder).train()
    objective, b = MCEM(4, 2, warmup=0, epsilon=1e-4), numbered(torch.ones(4, 5))
    for step in (0, 5, 10):  # with so small a step nothing but another density could be rejected
        assert (objective(model, b, step).logs["accept"] > 0.999).all()
    assert model.training and decoder.training


def test_chains_from_the_prior_move_no_statistics_of_the_decoder():
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(5)
    decoder = Conditional(nn.Sequential(nn.Linear(2, 5), norm), heads.Bernoulli(5))
    model = VAE(priors.StandardNormal(2), nn.Identity(), decoder).train()
    MCEM(4, 2, warmup=1)(model, numbered(torch.ones(4, 5)), 0)
    assert int(norm.num_batches_tracked) == 1  # the pass that is differentiated, and no other


def run(kind: str) -> tuple[VAE, DataSet, MCEM, Training]:
    torch.manual_seed(0)
    q, px = heads.Gaussian(2), heads.Gaussian(4)
    model = VAE(priors.StandardNormal(2), Conditional(nn.Linear(4, 4), q), Conditional(nn.Linear(2, 8), px))
    oracle = PPCA()
    x = oracle.model().sample(70, mean=False).float()
    data = DataSet("ppca", train=Split(x[:50]), test=Split(x[50:60]), valid=Split(x[60:]))
    objective = MCEM(50, 2, kernel=KERNELS[kind], updates=2, warmup=2)
    return model, data, objective, Training(epochs=4, batch_size=20, repeat=2, device="cpu")


@pytest.mark.parametrize("kind", KERNELS)
def test_fit_learns_without_the_posterior_and_resumes_exactly(kind, tmp_path: Path):
    """The encoder stays as it was; a run in two parts ends with the same weights, chains and history, bit for bit."""
    model, data, objective, training = run(kind)
    start = {name: p.clone() for name, p in model.named_parameters()}
    whole = fit(model, data, objective=objective, training=training, out=tmp_path / "whole", progress=False)
    for name, p in model.named_parameters():
        assert torch.equal(p, start[name]) == name.startswith("posterior"), name
    assert "train/bound" not in whole.history[-1] and "valid/accept" in whole.history[-1]
    first = whole.history[0]["train/log_px"] + whole.history[0]["train/log_pz"]
    assert whole.history[-1]["train/log_px"] + whole.history[-1]["train/log_pz"] > first
    assert (objective.moved >= 0).all()

    model, data, again, training = run(kind)
    fit(model, data, objective=again, training=replace(training, epochs=2), out=tmp_path / "parts", progress=False)
    model, data, again, training = run(kind)
    fit(model, data, objective=again, training=training, out=tmp_path / "parts", resume=True, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(whole.model.state_dict().values(), model.state_dict().values(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(objective.state_dict().values(), again.state_dict().values(), strict=True))
    with pytest.raises(InputError, match="updates=2.*updates=3"):
        model, data, other, training = run(kind)
        other.updates = 3
        fit(model, data, objective=other, training=training, out=tmp_path / "parts", resume=True, progress=False)


def test_fit_says_what_is_wrong_before_it_trains():
    model, data, objective, training = run("hmc")
    with pytest.raises(InputError, match="Training\\(repeat=2\\)"):
        fit(model, data, objective=objective, training=replace(training, repeat=1), progress=False)
    with pytest.raises(InputError, match="MCEM has none: set patience=None"):
        fit(model, data, objective=objective, training=replace(training, patience=2), progress=False)
    with pytest.raises(InputError, match=r"MCEM\(rows=7\) has no chain for row"):
        fit(model, data, objective=MCEM(7, 2, updates=2), training=training, progress=False)
    with pytest.raises(InputError, match=r"latents have shapes \(\(2,\),\) and event says \(\(3,\),\)"):
        fit(model, data, objective=MCEM(50, 3, updates=2), training=training, progress=False)


def test_wrong_requests_say_why():
    b = numbered(torch.ones(2, 5))
    binary = VAE(
        lambda: torch.distributions.Independent(torch.distributions.Bernoulli(torch.full((3,), 0.5)), 1), nn.Identity(), nn.Identity()
    )
    with pytest.raises(InputError, match="is discrete.*RWS or WakeSleep"):
        MCEM(2, 3)(binary, b)
    with pytest.raises(InputError, match="does not number them"):
        MCEM(6, 2).double()(PPCA().model(), batch(PPCA()))
    for make, match in (
        (lambda: MCEM(0, 2), "rows=0"),
        (lambda: MCEM(2.5, 2), r"rows=2.5\): a whole number"),
        (lambda: MCEM(5, 2, updates=0), "updates=0"),
        (lambda: MCEM(5, 2, warmup=-1), "warmup=-1"),
        (lambda: MCEM(5, 2, epsilon=0.0), "epsilon=0.0"),
        (lambda: MCEM(5, 2, target=1.5), "target=1.5"),
    ):
        with pytest.raises(InputError, match=match):
            make()
