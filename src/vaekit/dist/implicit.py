r"""Differentiable samples of a mixture of diagonal Gaussians.

A sample z of a distribution with parameters theta may be moved along with them so that each conditional distribution function

.. math:: F_d(z_d | z_{<d}) = \sum_k w_k(z_{<d}) \, \Phi\left(\frac{z_d - \mu_{kd}}{\sigma_{kd}}\right), \qquad
          w_k(z_{<d}) \propto w_k \prod_{j<d} N(z_j; \mu_{kj}, \sigma_{kj}^2)

stays what it is (its value is uniform whatever theta). Differentiating F(z(theta); theta) = const gives

.. math:: \frac{dz}{d\theta} = -J^{-1} \frac{\partial F}{\partial\theta}, \qquad
          J_{dd} = p(z_d | z_{<d}), \quad J_{dj} = \mathrm{Cov}_w \left( \partial_{z_j} \log N_{kj},\, \Phi_{kd} \right) \ (j < d)

so that E[f(z)] has the gradient E[f'(z) dz/dtheta], for the mixture weights too.

Figurnov, Mohamed and Mnih, "Implicit Reparameterization Gradients", NeurIPS 2018; Graves, "Stochastic Backpropagation through Mixture
Density Distributions", 2016.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vaekit.dist.gaussian import HALF_LOG_2PI

__all__ = ["reparameterised"]


def reparameterised(z: Tensor, log_w: Tensor, loc: Tensor, log_scale: Tensor) -> Tensor:
    """z itself, with the gradient dz/dtheta attached (first derivatives only).

    Args:
        z: samples of the mixture, detached, ``[*n, *batch, D]``.
        log_w: normalised log-weights, ``[*batch, C]``.
        loc: mu, ``[*batch, C, D]``.
        log_scale: log sigma, ``[*batch, C, D]``.
    """
    with torch.autocast(z.device.type, enabled=False):  # mixed precision is for networks
        return _moved(z, log_w, loc, log_scale)


def _moved(z: Tensor, log_w: Tensor, loc: Tensor, log_scale: Tensor) -> Tensor:
    inverse = torch.exp(-log_scale)
    u = (z.unsqueeze(-2) - loc) * inverse  # [*n, *batch, C, D]
    log_n = -0.5 * u.square() - (log_scale + HALF_LOG_2PI)
    log_w = (log_w.unsqueeze(-1) + F.pad(log_n[..., :-1].cumsum(-1), (1, 0))).log_softmax(-2)  # log w_k(z_<d)
    with torch.no_grad():
        # Everything is divided by J_dd = p(z_d | z_<d), in logarithms: both vanish together far from the modes.
        log_joint = log_w + log_n
        log_p = log_joint.logsumexp(-2, keepdim=True)
        r = torch.exp(log_joint - log_p)
        # Phi, or Phi - 1 where that is the smaller: a constant does not change the derivatives, and neither loses its digits in a tail.
        left, right = torch.special.log_ndtr(u), torch.special.log_ndtr(-u)
        upper = (log_w + left).logsumexp(-2, keepdim=True) > (log_w + right).logsumexp(-2, keepdim=True)
        a = torch.exp(log_w + torch.where(upper, right, left) - log_p)
        a = torch.where(upper, -a, a)
        b = a - log_w.exp() * a.sum(-2, keepdim=True)
        jacobian = b.transpose(-1, -2) @ (-u * inverse)  # strictly lower part of J / diag(J); its diagonal is 1
        slope = u * log_scale.exp()
    # d(df) = dF / p: by the weights, and by each component's location and scale.
    df = (a * log_w - r * (loc + slope * log_scale)).sum(-2)
    moved = torch.linalg.solve_triangular(jacobian, (df - df.detach()).unsqueeze(-1), upper=False, unitriangular=True)
    return z - moved.squeeze(-1)
