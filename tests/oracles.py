"""Models whose every answer is known in closed form, in float64: the evidence, the posterior, the bounds and their gradients.

They are built from plain tensors and `torch.distributions.MultivariateNormal`, not from the package's heads and densities, wherever the
answer is computed; the package's own parts appear only in the models under test.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, MultivariateNormal

from vaekit.dist import DiagGaussian
from vaekit.models import VAE, Ladder, LatentModel, Rung
from vaekit.priors import StandardNormal
from vaekit.types import Batch


class Affine(nn.Module):
    """N(W c + b, exp(log_scale)^2 I): the linear-Gaussian conditional."""

    def __init__(self, n: int, d: int, scale: float, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(d, n, generator=generator, dtype=torch.float64) * 0.8)
        self.bias = nn.Parameter(torch.randn(d, generator=generator, dtype=torch.float64) * 0.5)
        self.log_scale = nn.Parameter(torch.full((d,), scale, dtype=torch.float64).log())

    def forward(self, c: Tensor) -> Distribution:
        return DiagGaussian(c @ self.weight.mT + self.bias, self.log_scale)

    @property
    def cov(self) -> Tensor:
        return torch.diag((2 * self.log_scale).exp())


class Full(nn.Module):
    """N(A c + a, S) with full S, for exact posteriors."""

    def __init__(self, a_matrix: Tensor, a: Tensor, cov: Tensor) -> None:
        super().__init__()
        self.a_matrix, self.a, self.tril = a_matrix, a, torch.linalg.cholesky(cov)

    def forward(self, c: Tensor) -> Distribution:
        return MultivariateNormal(c @ self.a_matrix.mT + self.a, scale_tril=self.tril, validate_args=False)


def imperfect(encoder: Affine, exact: tuple[Tensor, Tensor, Tensor], generator: torch.Generator) -> None:
    """Set a diagonal encoder near the exact conditional (A, a, S), wrong by 0.1 in its weights and by 1.3 in its scales."""
    a_matrix, a, s = exact
    with torch.no_grad():
        encoder.weight.copy_(a_matrix + 0.1 * torch.randn(a_matrix.shape, generator=generator, dtype=torch.float64))
        encoder.bias.copy_(a + 0.1 * torch.randn(a.shape, generator=generator, dtype=torch.float64))
        encoder.log_scale.copy_((1.3 * s.diagonal().sqrt()).log())


def given_entries(
    mean: Tensor, cov: Tensor, z: Sequence[int], above: Sequence[int], entries: Sequence[int], start: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gaussian conditioning of z on (latents above, observed entries of x): E = A v + a with covariance S, v = (above, all of x).

    x begins at row ``start`` of the joint; the columns of A for its unobserved entries are 0.
    """
    on = [*above, *(start + i for i in entries)]
    gain = torch.linalg.solve(cov[on][:, on], cov[on][:, list(z)]).mT
    full = torch.zeros(len(z), len(above) + len(mean) - start, dtype=mean.dtype)
    full[:, [*range(len(above)), *(len(above) + i for i in entries)]] = gain
    return full, mean[list(z)] - gain @ mean[on], cov[list(z)][:, list(z)] - gain @ cov[on][:, list(z)]


class PPCA:
    """Probabilistic PCA: z ~ N(0, I), x | z ~ N(W z + b, diag sigma^2) (Tipping and Bishop, 1999)."""

    levels = 1

    def __init__(self, latent: int = 2, data: int = 4, seed: int = 0) -> None:
        g = torch.Generator().manual_seed(seed)
        self.latent = latent
        self.likelihood = Affine(latent, data, 0.7, g)
        self.encoder = Affine(data, latent, 1.0, g)
        with torch.no_grad():
            mean, cov = self.joint()
            imperfect(self.encoder, given_entries(mean, cov, range(latent), range(0), range(data), latent), g)
            self.x = MultivariateNormal(mean[latent:], cov[latent:, latent:]).sample((6,))

    def joint(self) -> tuple[Tensor, Tensor]:
        """Mean and covariance of (z, x)."""
        w, b, n = self.likelihood.weight, self.likelihood.bias, self.latent
        eye = torch.eye(n, dtype=torch.float64)
        cov = torch.cat([torch.cat([eye, w.mT], 1), torch.cat([w, w @ w.mT + self.likelihood.cov], 1)])
        return torch.cat([torch.zeros(n, dtype=torch.float64), b]), cov

    def evidence(self, x: Tensor, entries: Tensor | None = None) -> Tensor:
        """log p(x), or log p(x[entries]); differentiable in the model's parameters."""
        n = self.likelihood.bias.numel()
        mean, cov = self.joint()
        mean, cov = mean[-n:], cov[-n:, -n:]
        if entries is not None:
            x, mean, cov = x[..., entries], mean[entries], cov[entries][:, entries]
        return MultivariateNormal(mean, cov).log_prob(x)

    def model(self, posterior: nn.Module | None = None) -> LatentModel:
        return VAE(StandardNormal(self.latent).double(), self.encoder if posterior is None else posterior, self.likelihood)

    def exact(self, entries: Sequence[int] = range(4)) -> LatentModel:
        """The same model with the exact posterior given the observed ``entries``; it ignores the others."""
        n = self.latent
        with torch.no_grad():
            mean, cov = self.joint()
            return self.model(Full(*given_entries(mean, cov, range(n), range(0), entries, n)))

    def elbo(self, x: Tensor) -> Tensor:
        """The exact ELBO of ``model()``: log p(x) - KL(q(z|x) || p(z|x)), differentiable in every parameter."""
        n = self.latent
        mean, cov = self.joint()
        gain, a, s = given_entries(mean, cov, range(n), range(0), range(len(mean) - n), n)
        q = MultivariateNormal(x @ self.encoder.weight.mT + self.encoder.bias, self.encoder.cov)
        return self.evidence(x) - torch.distributions.kl_divergence(q, MultivariateNormal(x @ gain.mT + a, s))


class LinearLadder:
    """z_1 ~ N(0, I), z_2 | z_1 ~ N(A z_1 + a, .), x | z_2 ~ N(W z_2 + b, .); inference q(z_1 | x) q(z_2 | z_1, x)."""

    levels = 2

    def __init__(self, top: int = 2, middle: int = 2, data: int = 4, seed: int = 1) -> None:
        g = torch.Generator().manual_seed(seed)
        self.top, self.middle = top, middle
        self.lower = Affine(top, middle, 0.8, g)
        self.likelihood = Affine(middle, data, 0.7, g)
        self.encoder = nn.ModuleList([Affine(data, top, 1.0, g), Affine(top + data, middle, 1.0, g)])
        with torch.no_grad():
            mean, cov = self.joint()
            n = top + middle
            for encoder, exact in zip(self.encoder, self.posteriors(), strict=True):
                imperfect(encoder, exact, g)
            self.x = MultivariateNormal(mean[n:], cov[n:, n:]).sample((6,))

    def joint(self) -> tuple[Tensor, Tensor]:
        """Mean and covariance of (z_1, z_2, x)."""
        a_matrix, w = self.lower.weight, self.likelihood.weight
        eye = torch.eye(self.top, dtype=torch.float64)
        c22 = a_matrix @ a_matrix.mT + self.lower.cov
        rows = [
            torch.cat([eye, a_matrix.mT, a_matrix.mT @ w.mT], 1),
            torch.cat([a_matrix, c22, c22 @ w.mT], 1),
            torch.cat([w @ a_matrix, w @ c22, w @ c22 @ w.mT + self.likelihood.cov], 1),
        ]
        zero = torch.zeros(self.top, dtype=torch.float64)
        return torch.cat([zero, self.lower.bias, w @ self.lower.bias + self.likelihood.bias]), torch.cat(rows)

    def evidence(self, x: Tensor, entries: Tensor | None = None) -> Tensor:
        n = self.top + self.middle
        mean, cov = self.joint()
        mean, cov = mean[n:], cov[n:, n:]
        if entries is not None:
            x, mean, cov = x[..., entries], mean[entries], cov[entries][:, entries]
        return MultivariateNormal(mean, cov).log_prob(x)

    def model(self, first: nn.Module | None = None, second: nn.Module | None = None) -> LatentModel:
        rungs = [
            Rung(StandardNormal(self.top).double(), self.encoder[0] if first is None else first),
            Rung(self.lower, self.encoder[1] if second is None else second),
        ]
        return Ladder([nn.Identity(), nn.Identity()], rungs, self.likelihood)

    def posteriors(self, entries: Sequence[int] = range(4)) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
        """(A, a, S) of p(z_1 | x) and of p(z_2 | z_1, x)."""
        t, n = self.top, self.top + self.middle
        mean, cov = self.joint()
        first = given_entries(mean, cov, range(t), range(0), entries, n)
        return first, given_entries(mean, cov, range(t, n), range(t), entries, n)

    def exact(self, entries: Sequence[int] = range(4)) -> LatentModel:
        """The same model with the exact posteriors given the observed ``entries``; they ignore the others."""
        with torch.no_grad():
            first, second = self.posteriors(entries)
            return self.model(Full(*first), Full(*second))

    def elbo(self, x: Tensor) -> Tensor:
        """Exact: log p(x) - KL(q(z_1, z_2 | x) || p(z_1, z_2 | x)), both Gaussian."""
        n = self.top + self.middle
        mean, cov = self.joint()
        gain, a, s = given_entries(mean, cov, range(n), range(0), range(len(mean) - n), n)
        e1, e2 = self.encoder[0], self.encoder[1]
        b_matrix, c_matrix = e2.weight[:, : self.top], e2.weight[:, self.top :]
        m1 = x @ e1.weight.mT + e1.bias
        m2 = m1 @ b_matrix.mT + x @ c_matrix.mT + e2.bias
        s1 = e1.cov
        q_cov = torch.cat([torch.cat([s1, s1 @ b_matrix.mT], 1), torch.cat([b_matrix @ s1, b_matrix @ s1 @ b_matrix.mT + e2.cov], 1)])
        q = MultivariateNormal(torch.cat([m1, m2], -1), q_cov)
        return self.evidence(x) - torch.distributions.kl_divergence(q, MultivariateNormal(x @ gain.mT + a, s))


def batch(oracle: PPCA | LinearLadder) -> Batch:
    return Batch(oracle.x)


def z_score(samples: Tensor, expected: Tensor | float) -> Tensor:
    """How many standard errors the mean over dimension 0 lies from ``expected``."""
    se = samples.std(0) / samples.shape[0] ** 0.5
    return (samples.mean(0) - expected) / se
