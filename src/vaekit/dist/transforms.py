r"""The transforms of amortised flows: planar, radial, Householder and Sylvester.

Each takes unconstrained parameters and makes of them what keeps it invertible, so no finite numbers that a network may give break it. Where
a constraint is put on by a shifted softplus, s(x) = softplus(x + log(e - 1)), s(0) = 1, so that zeros mean the identity.

Planar and Sylvester flows have no inverse in closed form. Theirs is found by a safeguarded Newton iteration without gradients; the
implicit function theorem then gives the exact first derivatives.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

from vaekit.dist.flow import Invertible

__all__ = ["Householder", "Planar", "Radial", "Reversal", "Sylvester", "Triangular", "orthonormal"]

LOG_E_MINUS_1 = math.log(math.e - 1)
ITERATIONS = 100  # bisection alone would need about 60


def positive(x: Tensor) -> Tensor:
    """s(x) > 0, s(0) = 1."""
    return softplus(x + LOG_E_MINUS_1)


def product(matrix: Tensor, vector: Tensor) -> Tensor:
    """matrix ``[*batch, n, m]`` times vector ``[*samples, *batch, m]``, written out: mixed precision would round a matrix product."""
    return (matrix * vector.unsqueeze(-2)).sum(-1)


def slope(h: Tensor, one_plus: Tensor) -> Tensor:
    """1 + p (1 - h^2) for h = tanh(.), from 1 + p > 0: a sum of positive terms, which cannot become negative by rounding."""
    return h.square() + one_plus * (1 - h.square())


@torch.no_grad()
def root(t: Tensor, c: Tensor, s: Tensor, b: Tensor) -> Tensor:
    """x with x + c tanh(s x + b) = t, to the precision of the dtype; c s > -1 makes the left side increase.

    Newton's step where it stays inside the bracket and at least halves the last one, bisection elsewhere.
    """
    t, c, s, b = torch.broadcast_tensors(t, c, s, b)
    low, high, x = t - c.abs(), t + c.abs(), t
    last = high - low
    tolerance = 4 * torch.finfo(t.dtype).eps * (1 + t.abs() + c.abs())
    for _ in range(ITERATIONS):
        h = torch.tanh(s * x + b)
        error, rise = x + c * h - t, slope(h, 1 + c * s)
        low, high = torch.where(error <= 0, x, low), torch.where(error >= 0, x, high)
        newton = x - error / rise
        good = (newton >= low) & (newton <= high) & (2 * error.abs() <= last * rise)
        new = torch.where(good, newton, 0.5 * (low + high))
        last = (new - x).abs()
        x = new
        if bool((last <= tolerance).all()):
            break
    return x


class Planar(Invertible):
    r"""y = z + u tanh(w . z + b).

    .. math:: \log|\det| = \log(1 + (w \cdot \hat u) (1 - \tanh^2(w \cdot z + b))), \qquad
              \hat u = u + (m(w \cdot u) - w \cdot u) \, w / |w|^2, \quad m(x) = s(x) - 1

    û has w . û > -1, which makes y invertible; m is the paper's -1 + softplus(x), shifted so that u = 0 is the identity.

    Rezende and Mohamed, "Variational Inference with Normalizing Flows", ICML 2015.

    Args:
        w: ``[*batch, D]``.
        u: ``[*batch, D]``.
        b: ``[*batch]``.

    >>> planar = Planar(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0]), torch.tensor(0.0))
    >>> planar.forward(torch.tensor([1.0, 1.0]))[0]
    tensor([1.0000, 2.5232])
    """

    def __init__(self, w: Tensor, u: Tensor, b: Tensor) -> None:
        wu = (w * u).sum(-1, keepdim=True)
        self._one_plus = positive(wu)
        self.w = w
        self.u = u + (self._one_plus - 1 - wu) * w / w.square().sum(-1, keepdim=True).clamp(min=torch.finfo(w.dtype).tiny)
        self.b = b.unsqueeze(-1)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.tanh((self.w * z).sum(-1, keepdim=True) + self.b)
        return z + self.u * h, slope(h, self._one_plus).log().squeeze(-1)

    def inverse(self, y: Tensor) -> Tensor:
        t, c = (self.w * y).sum(-1, keepdim=True), self._one_plus - 1
        x = root(t, c, torch.ones_like(c), self.b)  # x = w . z
        h = torch.tanh(x + self.b)
        error = x + c * h - t  # 0 up to rounding; only its derivatives matter
        x = x - (error - error.detach()) / slope(h, self._one_plus).detach()
        return y - self.u * torch.tanh(x + self.b)


class Radial(Invertible):
    r"""y = z + beta (z - z_c) / (alpha + r), r = |z - z_c|: contraction or expansion around z_c.

    .. math:: \log|\det| = (D - 1) \log \frac{\alpha + \beta + r}{\alpha + r} + \log \left(1 + \frac{\alpha \beta}{(\alpha + r)^2}\right),
              \qquad \alpha = s(a) > 0, \quad \beta = \alpha (s(g) - 1) > -\alpha

    The inverse is the positive root of a quadratic equation. Rezende and Mohamed (2015).

    Args:
        at: z_c, ``[*batch, D]``.
        a: ``[*batch]``.
        g: ``[*batch]``; 0 is the identity.

    >>> radial = Radial(torch.zeros(2), torch.tensor(0.0), torch.tensor(1.0))
    >>> radial.inverse(radial.forward(torch.tensor([3.0, 4.0]))[0])
    tensor([3.0000, 4.0000])
    """

    def __init__(self, at: Tensor, a: Tensor, g: Tensor) -> None:
        self.at = at
        self.alpha = positive(a).unsqueeze(-1)
        self._alpha_beta = self.alpha * positive(g).unsqueeze(-1)  # alpha + beta

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        offset = z - self.at
        r = torch.linalg.vector_norm(offset, dim=-1, keepdim=True)
        around = (self._alpha_beta + r) / (self.alpha + r)
        along = (self.alpha * self._alpha_beta + 2 * self.alpha * r + r.square()) / (self.alpha + r).square()
        log_det = (z.shape[-1] - 1) * around.log() + along.log()
        return self.at + around * offset, log_det.squeeze(-1)

    def inverse(self, y: Tensor) -> Tensor:
        offset = y - self.at
        big_r = torch.linalg.vector_norm(offset, dim=-1, keepdim=True)  # R = r (alpha + beta + r) / (alpha + r)
        half = 0.5 * (self._alpha_beta - big_r)
        square = (half.square() + self.alpha * big_r).sqrt()
        # r = square - half; where half > 0 the other form of the root, which does not cancel
        r = torch.where(half > 0, self.alpha * big_r / (square + half.clamp(min=0)), square - half)
        return self.at + offset * (self.alpha + r) / (self._alpha_beta + r)


class Householder(Invertible):
    r"""y = (I - 2 v v^T / |v|^2) z: the reflection in the plane orthogonal to v. Volume is preserved; it is its own inverse.

    Tomczak and Welling, "Improving Variational Auto-Encoders using Householder Flow", 2016.

    Args:
        v: ``[*batch, D]``; v = 0 is the identity.

    >>> Householder(torch.tensor([1.0, 1.0])).forward(torch.tensor([3.0, 1.0]))
    (tensor([-1., -3.]), tensor(0.))
    """

    def __init__(self, v: Tensor) -> None:
        self.v = v
        self._twice = 2 * v / v.square().sum(-1, keepdim=True).clamp(min=torch.finfo(v.dtype).tiny)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        y = self.inverse(z)
        return y, y.new_zeros(y.shape[:-1])

    def inverse(self, y: Tensor) -> Tensor:
        return y - self._twice * (self.v * y).sum(-1, keepdim=True)


class Reversal(Invertible):
    """The dimensions in the opposite order, so that the next triangular transform lets each depend on those it did not.

    >>> Reversal().forward(torch.tensor([1.0, 2.0, 3.0]))
    (tensor([3., 2., 1.]), tensor(0.))
    """

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return z.flip(-1), z.new_zeros(z.shape[:-1])

    def inverse(self, y: Tensor) -> Tensor:
        return y.flip(-1)


class Triangular(Invertible):
    r"""y = z + R tanh(R~ z + b) with upper triangular R and R~: the Sylvester flow with Q = I.

    .. math:: \log|\det| = \sum_i \log(1 + r_{ii} \tilde r_{ii} (1 - \tanh^2(\tilde R z + b)_i)), \qquad r_{ii} \tilde r_{ii} > -1

    The diagonals are tanh of what is given, which ensures the condition; R = 0 is the identity. The inverse goes from the last dimension
    up: given those below, each is the root of an increasing function of one number.

    van den Berg, Hasenclever, Tomczak and Welling, "Sylvester Normalizing Flows for Variational Inference", UAI 2018.

    Args:
        r: ``[*batch, M, M]``; only the upper triangle is read.
        r_tilde: ``[*batch, M, M]``, likewise.
        b: ``[*batch, M]``.

    >>> _ = torch.manual_seed(0)
    >>> triangular = Triangular(torch.randn(3, 3), torch.randn(3, 3), torch.randn(3))
    >>> triangular.inverse(triangular.forward(torch.ones(3))[0])
    tensor([1.0000, 1.0000, 1.0000])
    """

    def __init__(self, r: Tensor, r_tilde: Tensor, b: Tensor) -> None:
        first, second = (torch.tanh(m.diagonal(dim1=-2, dim2=-1)) for m in (r, r_tilde))
        self.r = r.triu(1) + torch.diag_embed(first)
        self.r_tilde = r_tilde.triu(1) + torch.diag_embed(second)
        self.b = b
        self._one_plus = 1 + first * second

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.tanh(product(self.r_tilde, z) + self.b)
        return z + product(self.r, h), slope(h, self._one_plus).log().sum(-1)

    def inverse(self, y: Tensor) -> Tensor:
        z = self._solve(y)
        h = torch.tanh(product(self.r_tilde, z) + self.b)
        error = z + product(self.r, h) - y  # 0 up to rounding; only its derivatives matter
        with torch.no_grad(), torch.autocast(y.device.type, enabled=False):
            jacobian = (self.r * (1 - h.square()).unsqueeze(-2)) @ self.r_tilde
            jacobian.diagonal(dim1=-2, dim2=-1).copy_(slope(h, self._one_plus))
        step = torch.linalg.solve_triangular(jacobian, (error - error.detach()).unsqueeze(-1), upper=True)
        return z - step.squeeze(-1)

    @torch.no_grad()
    def _solve(self, y: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(y.shape, self.b.shape, self.r.shape[:-1])
        y, b, r, r_tilde = y.expand(shape), self.b, self.r, self.r_tilde
        z, h = torch.zeros_like(y), torch.zeros_like(y)  # what is not known yet is 0 and adds nothing
        for i in reversed(range(shape[-1])):
            t = y[..., i] - (r[..., i, :] * h).sum(-1)
            shift = b[..., i] + (r_tilde[..., i, :] * z).sum(-1)
            x = root(t, r[..., i, i], r_tilde[..., i, i], shift)
            z[..., i], h[..., i] = x, torch.tanh(r_tilde[..., i, i] * x + shift)
        return z


class Sylvester(Invertible):
    r"""y = z + Q R tanh(R~ Q^T z + b), Q with M <= D orthonormal columns: `Triangular` in the M directions, the others untouched.

    van den Berg et al. (2018). For M = D it is `Triangular` between Q^T and Q.

    Args:
        q: ``[*batch, D, M]``, with orthonormal columns: `orthonormal`.
        inside: the transform of Q^T z.

    >>> q = orthonormal(torch.tensor([[1.0], [2.0]]))
    >>> Sylvester(q, Triangular(torch.ones(1, 1), torch.ones(1, 1), torch.zeros(1))).forward(torch.tensor([2.0, -1.0]))
    (tensor([ 2.0000, -1.0000]), tensor(0.4574))
    """

    def __init__(self, q: Tensor, inside: Triangular) -> None:
        self.q = q
        self.inside = inside

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        v = product(self.q.mT, z)
        moved, log_det = self.inside.forward(v)
        return z + product(self.q, moved - v), log_det

    def inverse(self, y: Tensor) -> Tensor:
        v = product(self.q.mT, y)
        return y + product(self.q, self.inside.inverse(v) - v)


def orthonormal(a: Tensor) -> Tensor:
    """The orthonormal columns that Gram and Schmidt make of those of a ``[*batch, D, M]``, M <= D: unique and smooth for independent ones.

    By a QR decomposition, whose signs, left free by LAPACK and discontinuous in a, are put right.
    """
    q, r = torch.linalg.qr(a)
    return q * torch.where(r.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(q.dtype).unsqueeze(-2)
