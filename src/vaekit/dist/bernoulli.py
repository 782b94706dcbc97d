r"""Binary data, and grey values scored as if they were binary.

.. math:: \log p(x) = \sum_d x_d l_d - \log(1 + e^{l_d})
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution, constraints, register_kl

from vaekit import noise
from vaekit.compiling import stacked
from vaekit.dist.core import SampleShape, is_discrete, log_prob_parts, sum_event

__all__ = ["Bernoulli"]

FEWEST = 64
"""Entries of an event below which single logarithms are kept: they are exact to a part of themselves, products to a part of 1."""
FACTORS = 112
"""Factors of 2 or of 1/2 at most whose product is still a normal float32."""
BLOCK = 400_000
"""Logits of each thread at a time: 1.6 MB of float32."""


class Bernoulli(Distribution):
    r"""Bernoulli with logits l, independent over the last ``event_dim`` dimensions; P(x_d = 1) = 1 / (1 + exp(-l_d)).

    x may lie anywhere in [0, 1]: a grey value x_d is taken as the probability of a binary pixel b_d, and what is returned is
    E[log p(b)] = x_d log P(1) + (1 - x_d) log P(0), the expected log-mass. This is what "a Bernoulli likelihood on grey MNIST" means in
    the literature. It is no density on [0, 1] (it does not integrate to 1; `ContinuousBernoulli` does), so such values compare with one
    another, but neither with those of a density nor with those of binarised data.

    Args:
        logits: l, ``[*batch, *event]``.
        event_dim: how many trailing dimensions form the event.

    Shapes: ``sample(shape)`` is ``[*shape, *batch, *event]``, zeros and ones in the dtype of the logits; ``log_prob`` (nats)
    ``[*shape, *batch]``.

    >>> p = Bernoulli(torch.zeros(4, 3))
    >>> p.log_prob(torch.tensor([0.0, 0.5, 1.0]))[0]
    tensor(-2.0794)
    """

    has_rsample = False
    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012

    def __init__(self, logits: Tensor, event_dim: int = 1) -> None:
        self.logits = logits
        n = logits.dim() - event_dim
        super().__init__(logits.shape[:n], logits.shape[n:], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.unit_interval, len(self.event_shape))

    @property
    def mean(self) -> Tensor:
        return torch.sigmoid(self.logits)

    @property
    def mode(self) -> Tensor:
        return (self.logits > 0).to(self.logits.dtype)

    @property
    def variance(self) -> Tensor:
        return torch.sigmoid(self.logits) * torch.sigmoid(-self.logits)

    def expand(self, batch_shape: SampleShape, _instance: Distribution | None = None) -> Bernoulli:
        return Bernoulli(self.logits.expand(*batch_shape, *self.event_shape), len(self.event_shape))

    def sample(self, sample_shape: SampleShape = ()) -> Tensor:
        with torch.no_grad():
            p = self.mean
            return (noise.uniform((*sample_shape, *p.shape), p, len(self.event_shape)) < p).to(p.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        n = len(self.event_shape)
        if torch.compiler.is_exporting():  # an exported graph holds for every batch size, so it may not choose by it
            return -sum_event(_nll(self.logits, value), n)
        compiling = torch.compiler.is_compiling()
        if _worth_blocks(self.logits, value, self.event_shape.numel()):
            return (_log_prob_by_products if compiling else _log_prob_in_blocks)(self.logits, value, n)
        if compiling and not stacked and _worth_products(self.logits, value, self.event_shape.numel()):
            products: Tensor = Products.apply(self.logits, value, n)
            return products
        return -sum_event(_nll(self.logits, value), n)

    def entropy(self) -> Tensor:
        return -self.log_prob(self.mean)


def _nll(logits: Tensor, x: Tensor) -> Tensor:
    # Exact for logits of any size, and as fast as a hand-written loss: one fused kernel forwards, one backwards.
    logits, x = torch.broadcast_tensors(logits, x.to(logits.dtype))
    return F.binary_cross_entropy_with_logits(logits, x, reduction="none")


def _worth_blocks(logits: Tensor, x: Tensor, entries: int) -> bool:
    """Many large events, on a processor, and nothing to differentiate: there eager torch is bound by memory and logarithms."""
    return (
        entries >= FEWEST
        and logits.numel() >= BLOCK
        and x.numel() > 0
        and logits.device.type == "cpu"
        and logits.dtype in (torch.float32, torch.float64)
        and not (torch.is_grad_enabled() and (logits.requires_grad or x.requires_grad))
    )


def _log_prob_by_products(logits: Tensor, x: Tensor, event_dim: int) -> Tensor:
    r"""``-sum_event(_nll(logits, x))`` in a program, with fewer logarithms; NaN where a logit is infinite.

    .. math:: \sum_d x_d l_d - \log(1 + e^{l_d}) = \sum_d (x_d l_d - \max(l_d, 0)) - \log \prod_d (1 + e^{-|l_d|})

    Each factor lies in [1, 2], so a product of up to `FACTORS` cannot overflow and one logarithm serves them all. Rounding is below 1e-7
    per entry in float32, as that of the sum is. Sum and product run over the same factors of rows, so that a program takes both in one pass.
    """
    rows, batch, x = _rows(logits, x, event_dim)
    factors = max(n for n in range(1, FACTORS + 1) if rows.shape[1] % n == 0)
    linear = (x * rows - rows.clamp(min=0)).unflatten(1, (-1, factors)).sum(-1)
    found = linear - (1 + (-rows.abs()).exp()).unflatten(1, (-1, factors)).prod(-1).log()
    return found.sum(-1).reshape(batch)


def _rows(logits: Tensor, x: Tensor, event_dim: int) -> tuple[Tensor, tuple[int, ...], Tensor]:
    """Logits ``[R, D]``, one row for each event, the batch shape of the R rows, and x ``[R, D]``. In a program nothing is copied."""
    logits, x = torch.broadcast_tensors(logits, x.to(logits.dtype))
    batch = logits.shape[: logits.dim() - event_dim]
    entries = logits.shape[len(batch) :].numel()
    return logits.reshape(-1, entries), batch, x.reshape(-1, entries)


class Products(torch.autograd.Function):
    """`_log_prob_by_products` with its gradient, x - sigmoid(l): in a program, half of the time of what torch's own loss becomes."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, x: Tensor, event_dim: int) -> Tensor:
        ctx.save_for_backward(logits, x)
        ctx.event_dim = event_dim
        return _log_prob_by_products(logits, x, event_dim)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        logits, x = ctx.saved_tensors
        return grads[0].reshape(*grads[0].shape, *[1] * ctx.event_dim) * (x - logits.sigmoid()), None, None


def _worth_products(logits: Tensor, x: Tensor, entries: int) -> bool:
    """Large events on a processor, to differentiate by the logits alone, once for each row of them."""
    return (
        entries >= FEWEST
        and logits.device.type == "cpu"
        and logits.dtype in (torch.float32, torch.float64)
        and not x.requires_grad
        and torch.broadcast_shapes(logits.shape, x.shape) == logits.shape
    )


def _log_prob_in_blocks(logits: Tensor, x: Tensor, event_dim: int) -> Tensor:
    """`_log_prob_by_products` in blocks of rows that stay in the cache from one operation to the next, and right for infinite logits."""
    logits, x = torch.broadcast_tensors(logits, x.to(logits.dtype))
    batch = logits.shape[: logits.dim() - event_dim]
    logits, x = (t.flatten(-event_dim) if batch else t.reshape(1, -1) for t in (logits, x))
    while logits.dim() > 2 and logits.shape[0] == 1:
        logits, x = logits[0], x[0]
    factors = max(n for n in range(1, FACTORS + 1) if logits.shape[-1] % n == 0)
    rows = max(1, BLOCK * torch.get_num_threads() // logits[0].numel())
    found = []
    for block, value in zip(logits.split(rows), x.split(rows), strict=True):
        linear = -torch.addcmul(block.clamp(min=0), block, value, value=-1).sum(-1)
        found.append(linear + block.abs().sigmoid_().unflatten(-1, (-1, factors)).prod(-1).log_().sum(-1))
    log_p = torch.cat(found)
    lost = log_p.isnan()
    if bool(lost.any()):  # an infinite logit leaves 0 * inf where the plain formula does not
        log_p[lost] = -_nll(logits[lost], x[lost]).sum(-1)
    return log_p.reshape(batch)


@log_prob_parts.register
def _(d: Bernoulli, x: Tensor) -> Tensor:
    return -_nll(d.logits, x)


@register_kl(Bernoulli, Bernoulli)
def _kl_bernoulli(q: Bernoulli, p: Bernoulli) -> Tensor:
    return sum_event(q.mean * (q.logits - p.logits) + F.softplus(p.logits) - F.softplus(q.logits), len(q.event_shape))


@is_discrete.register
def _(d: Bernoulli) -> bool:
    return True  # though it scores grey values too, by their expected log-mass
