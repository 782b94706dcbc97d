"""A point-mass posterior: what it can do, what is refused, and that a plain autoencoder works from training to report."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from oracles import PPCA, batch
from vaekit import heads, priors
from vaekit.cli import main
from vaekit.conditional import Conditional
from vaekit.data.core import DataSet, Split
from vaekit.dist import DiagGaussian, Point, centre, closed_form_kl, has_density
from vaekit.errors import InputError
from vaekit.evaluate import evaluate, latents, reconstruction, scorable
from vaekit.models import VAE
from vaekit.objectives import ELBO, IWAE, Objective, Reconstruction
from vaekit.train import Training, fit
from vaekit.types import Batch

X = torch.randn(300, 5, generator=torch.Generator().manual_seed(0)) @ torch.diag(torch.tensor([3.0, 2.0, 0.5, 0.4, 0.3]))


def autoencoder(sigma: float = 0.5, latent: int = 2) -> VAE:
    torch.manual_seed(1)
    return VAE(
        priors.StandardNormal(latent),
        Conditional(nn.Linear(5, latent), heads.Point(latent)),
        Conditional(nn.Linear(latent, 5), heads.GaussianFixed(5, sigma)),
    )


# --- the distribution and its head -----------------------------------------------------------------------------------------------------


def test_a_point_is_its_location_with_the_gradient() -> None:
    h = torch.randn(4, 6, requires_grad=True)
    q = heads.Point((2, 3))(h)
    assert q.batch_shape == (4,) and q.event_shape == (2, 3) and q.has_rsample and not has_density(q)
    z = q.rsample((7,))
    assert torch.equal(z, h.view(4, 2, 3).expand(7, 4, 2, 3)) and torch.equal(centre(q), h.view(4, 2, 3))
    (gradient,) = torch.autograd.grad((z * torch.arange(7.0).view(7, 1, 1, 1)).sum(), h)
    assert torch.equal(gradient, torch.full((4, 6), 21.0))
    assert not q.sample((7,)).requires_grad and torch.equal(q.sample(), z[0].detach()) and not q.variance.any()
    assert q.expand((5, 4)).rsample().shape == (5, 4, 2, 3)
    assert q.support.check(z).all()


def test_a_point_has_no_density_and_no_kl() -> None:
    q, p = Point(torch.zeros(3, 2)), DiagGaussian(torch.zeros(2), torch.zeros(2))
    assert closed_form_kl(q, p) is None and has_density(p)
    with pytest.raises(InputError, match=r"^Point has no density, so it gives no log q\(z\): train it with Reconstruction\(\), or take"):
        q.log_prob(torch.zeros(2))


# --- the objective ---------------------------------------------------------------------------------------------------------------------


def test_reconstruction_is_the_squared_error_of_the_decoded_code() -> None:
    """Value and gradient against |x - x_hat|^2 / (2 sigma^2) + 5/2 log(2 pi sigma^2), written out."""
    model, sigma = autoencoder(0.5).double(), 0.5
    x = X.double()
    loss = Reconstruction()(model, Batch(x))
    x_hat = model.likelihood.net(model.posterior.net(x))
    exact = (x - x_hat).square().sum(-1) / (2 * sigma**2) + 2.5 * torch.log(torch.tensor(2 * torch.pi * sigma**2, dtype=torch.float64))
    torch.testing.assert_close(loss.surrogate, exact)
    torch.testing.assert_close(loss.logs["log_px"], -exact.detach())
    assert loss.bound is None and list(loss.logs) == ["log_px"]
    got = torch.autograd.grad(loss.surrogate.mean(), model.parameters(), retain_graph=True)
    for a, b in zip(got, torch.autograd.grad(exact.mean(), model.parameters()), strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(model.reconstruct(Batch(x)), x_hat.detach())
    torch.testing.assert_close(Reconstruction(k=3)(model, Batch(x)).surrogate, loss.surrogate)


def test_reconstruction_is_the_first_term_of_the_bound_of_any_posterior() -> None:
    """The same noise as the ELBO: -log_px of the ELBO to the bit, and the bound is that minus the rate."""
    torch.manual_seed(0)
    oracle = PPCA()
    torch.manual_seed(2)
    elbo = ELBO(3)(oracle.model(), batch(oracle))
    torch.manual_seed(2)
    alone = Reconstruction(3)(oracle.model(), batch(oracle))
    assert torch.equal(alone.surrogate.detach(), -elbo.logs["log_px"]) and alone.surrogate.requires_grad
    torch.testing.assert_close(elbo.bound, -alone.surrogate.detach() - elbo.logs["rate_0"])


def test_a_linear_autoencoder_finds_the_principal_subspace() -> None:
    """Its error is the sum of the variances left out, the smallest a rank-2 map can have (Baldi and Hornik, 1989)."""
    training = Training(epochs=150, batch_size=100, optimiser=lambda p: torch.optim.Adam(p, 0.02))
    centred = X - X.mean(0)
    fitted = fit(autoencoder(), Split(centred), objective=Reconstruction(), training=training, progress=False)
    assert not any(name.endswith("bound") for name in fitted.history[-1])
    left_out = float(torch.linalg.eigvalsh(centred.mT @ centred / len(X))[:3].sum())
    found = reconstruction(fitted.model, Split(centred))
    assert left_out - 1e-5 < found.squared_error < 1.02 * left_out
    again = reconstruction(fitted.model, Split(centred), batch_size=7)
    assert again.squared_error == pytest.approx(found.squared_error) and found.examples == 300
    error = (centred - fitted.model.reconstruct(Batch(centred))).square().sum(1)
    assert found.squared_error_se == pytest.approx(float(error.std()) / 300**0.5)
    constant = 2.5 * torch.log(torch.tensor(2 * torch.pi * 0.25))
    assert found.log_px == pytest.approx(-found.squared_error / 0.5 - float(constant), rel=1e-5)


def test_reconstruction_error_counts_observed_entries_only() -> None:
    mask = torch.arange(5).expand(300, 5) != 2
    with_gap = Split(torch.where(mask, X, torch.full_like(X, float("nan"))), mask=mask)
    model = autoencoder()
    x_hat = model.reconstruct(Batch(X * mask))
    expected = ((X - x_hat) * mask).square().sum(1).mean()
    assert reconstruction(model, with_gap).squared_error == pytest.approx(float(expected), rel=1e-5)


# --- what is refused -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "objective", [ELBO(), ELBO(closed_form=True), ELBO(closed_form=False), IWAE(3)], ids=["elbo", "closed", "sampled", "iwae"]
)
def test_objectives_that_need_log_q_are_refused_before_the_first_step(objective: Objective) -> None:
    with pytest.raises(InputError, match=r"^q\(z \| x\) = Point has no density, .*: train it with Reconstruction\(\), or take") as caught:
        fit(autoencoder(), Split(X), objective=objective, progress=False)
    assert "\n" not in str(caught.value)


def test_what_needs_a_density_is_refused_and_the_rest_works() -> None:
    model = autoencoder()
    t = model.infer(Batch(X[:4]), 3)
    for name in ("log_qz", "log_w", "rate", "kl"):
        with pytest.raises(InputError, match="Point has no density"):
            getattr(t, name)
    assert t.log_joint.shape == (3, 4) and torch.equal(t.log_px[0], t.log_px[2])
    torch.testing.assert_close(model.score(Batch(X[:4]), t.z).log_joint, t.log_joint)
    assert model.sample(3).shape == (3, 5) and model.embed(Batch(X)).shape == (300, 2) and model.dream(2).z[0].shape == (1, 2, 2)
    assert not model.infer(Batch(X[:4]), reparam=False).z[0].requires_grad
    split = Split(X)
    assert not scorable(model, split) and scorable(PPCA().model(), Split(PPCA().x))
    with pytest.raises(InputError, match=r"^q\(z \| x\) is a point .*vaekit.evaluate.reconstruction"):
        evaluate(model, split, samples=2)
    assert latents(model, split).kl is None
    with pytest.raises(InputError, match="set patience=None"):
        fit(model, DataSet("x", split, split, split), objective=Reconstruction(), training=Training(patience=1), progress=False)


def test_reconstruction_takes_whole_samples() -> None:
    with pytest.raises(InputError, match=r"Reconstruction\(k=0\): at least 1 sample"):
        Reconstruction(0)


# --- the command line ------------------------------------------------------------------------------------------------------------------

MINE = """
from torch import nn
from vaekit import Recipe, Training, VAE, Conditional, data, heads, nn as nets, priors
from vaekit.objectives import Reconstruction

def digits() -> Recipe:
    q, px = heads.Point(2), heads.GaussianFixed((1, 8, 8), 0.2, mean=nn.Sigmoid())
    encoder = Conditional(nets.mlp((1, 8, 8), [32], q.features), q, event_dim=3)
    model = VAE(priors.StandardNormal(2), encoder, Conditional(nets.mlp(2, [32], px.features), px))
    return Recipe(model, data.digits, Reconstruction(), Training(epochs=2))
"""


def test_an_autoencoder_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MINE)
    assert main(["train", "mine.py:digits", "--out", "run"]) == 0
    for command in ("sample", "reconstruct", "embed", "report"):
        assert main([command, "run", "--trust"]) == 0, command
    capsys.readouterr()
    assert main(["evaluate", "run", "--trust"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "is a point and has no density" in error and "vaekit report" in error
    page = re.sub(r"<[^>]*>", " ", Path("run/report.html").read_text())
    for words in ("has no bound and no likelihood", "squared error", "never made to match the prior"):
        assert words in page, words
    assert "evidence lower bound" not in page and "negative log-likelihood" not in page
    assert {path.stem for path in Path("run/figures").glob("*.png")} >= {"reconstructions", "samples", "latents", "manifold", "curves"}
