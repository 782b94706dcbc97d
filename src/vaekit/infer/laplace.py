r"""The Laplace approximation: the Gaussian with a density's mode and its curvature there.

.. math:: z_0 = \arg\max_z \log p(z), \qquad A = -\nabla\nabla \log p(z_0), \qquad q(z) = N(z; z_0, A^{-1}), \qquad
          \log \int p \approx \log p(z_0) + \tfrac D2 \log 2\pi - \tfrac12 \log |A|

It looks at one point: what it says of the mass elsewhere is a guess, and it minimises no divergence.

MacKay, "Information Theory, Inference, and Learning Algorithms", 2003, chapter 27; Bishop, "Pattern Recognition and Machine Learning",
2006, section 4.4.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from vaekit.errors import InputError

__all__ = ["laplace"]

STEPS = 200
HALVINGS = 40
GAIN = 1e-16
"""A step that would raise log p by less than this is the last: it starts within 1e-8 standard deviations of the mode, and squares that."""


def laplace(log_density: Callable[[Tensor], Tensor], start: Tensor) -> MultivariateNormal:
    r"""q(z) = N(z; mode, A^{-1}) by Newton's method in float64, for every row of ``start`` by itself.

    Where -log p is not convex the step follows the absolute values of the curvatures, so that it leads uphill, away from saddle points
    too; steps are halved until log p rises. The end is checked: the gradient is zero to working precision and the curvature positive.
    log of the integral of p, as the approximation has it, is ``log_density(q.mean) - q.log_prob(q.mean)``.

    Args:
        log_density: z of the shape of ``start`` in float64 -> log p(z) up to a constant, its shape without the last dimension (nats);
            twice differentiable, and each row's value that of this row alone.
        start: where to begin, ``[*batch, D]``.

    Returns:
        batch shape ``[*batch]``, event shape ``[D]``, float64, without gradients.

    Raises:
        InputError: a start without a dimension or where log p is not finite; a log-density of another shape or type; no maximum found
            (log p rises without end, or is not smooth); a stationary point that is no maximum, with its eigenvalues.

    >>> q = laplace(lambda z: -0.5 * (z**2).sum(-1) + z[..., 0], torch.zeros(2))
    >>> q.mean, q.covariance_matrix
    (tensor([1., 0.], dtype=torch.float64), tensor([[1., 0.], [0., 1.]], dtype=torch.float64))
    """
    if start.dim() == 0 or start.shape[-1] == 0 or start.is_complex():
        raise InputError(f"laplace: start has shape {list(start.shape)}: give [*batch, D], for one number [1]")
    z = start.detach().double()
    value, gradient, a = _derivatives(log_density, z)
    if not value.isfinite().all():
        raise InputError("laplace: log p is NaN or infinite at the start: begin where the density is positive")
    for _ in range(STEPS):
        _require_finite(gradient, a)
        curvature, v = torch.linalg.eigh(a)
        floor = 1e-12 * curvature.abs().amax(-1, keepdim=True).clamp(min=1e-12)
        step = (v @ ((v.mT @ gradient.unsqueeze(-1)).squeeze(-1) / curvature.abs().clamp(min=floor)).unsqueeze(-1)).squeeze(-1)
        settled = bool((0.5 * (gradient * step).sum(-1) <= GAIN * (1 + value.abs())).all())
        z = _uphill(log_density, z, value, step)
        value, gradient, a = _derivatives(log_density, z)
        if settled:
            break
    else:
        slope = float(gradient.abs().max())
        raise InputError(
            f"laplace: no maximum after {STEPS} Newton steps, the largest slope is still {slope:.3g} at |z| = {float(z.norm()):.3g}: "
            "log p has no maximum, or is not smooth there; begin elsewhere"
        )
    curvature = torch.linalg.eigvalsh(a)
    if not (curvature > 1e-10 * curvature.abs().amax(-1, keepdim=True)).all():
        row = curvature.reshape(-1, z.shape[-1])[curvature.amin(-1).argmin()]
        raise InputError(
            f"laplace: the slope vanishes where there is no maximum: -log p has the curvatures {', '.join(f'{c + 0.0:.3g}' for c in row)}, "
            "which must all be positive; begin elsewhere, or leave out the flat directions"
        )
    return MultivariateNormal(z, precision_matrix=a, validate_args=False)


def _derivatives(log_density: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log p ``[*batch]``, its gradient ``[*batch, D]`` and A = minus its Hessian ``[*batch, D, D]``."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        value = log_density(z)
        if value.shape != z.shape[:-1] or value.dtype != torch.float64:
            raise InputError(
                f"laplace: log_density gave {str(value.dtype)[6:]} {list(value.shape)} for z float64 {list(z.shape)}: it must give "
                f"float64 {list(z.shape[:-1])} (a model in double precision)"
            )
        if value.grad_fn is None:
            raise InputError("laplace: log_density(z) does not depend on z through differentiable operations")
        (gradient,) = torch.autograd.grad(value.sum(), z, create_graph=True)
        columns = [
            torch.autograd.grad(gradient[..., i].sum(), z, retain_graph=True)[0] if gradient.grad_fn is not None else torch.zeros_like(z)
            for i in range(z.shape[-1])
        ]
    hessian = torch.stack(columns, -1)
    return value.detach(), gradient.detach(), -0.5 * (hessian + hessian.mT)


def _uphill(log_density: Callable[[Tensor], Tensor], z: Tensor, value: Tensor, step: Tensor) -> Tensor:
    """z + step, the step halved for each row until log p does not fall there."""
    slack = 8 * torch.finfo(torch.float64).eps * (1 + value.abs())  # near the mode differences are rounding errors
    scale = torch.ones_like(value)
    with torch.no_grad():
        for _ in range(HALVINGS):
            new = z + scale.unsqueeze(-1) * step
            good = log_density(new) >= value - slack
            if good.all():
                return new
            scale = torch.where(good, scale, scale / 2)
        return torch.where(good.unsqueeze(-1), new, z)


def _require_finite(gradient: Tensor, a: Tensor) -> None:
    if not (gradient.isfinite().all() and a.isfinite().all()):
        raise InputError(
            "laplace: the gradient or the Hessian of log p is NaN or infinite on the way: log p is not smooth there; begin elsewhere"
        )
