r"""Point masses of a discrete space: one point that is known, and the codes that a quantiser has chosen.

With q(z | x) = 1 on one z of a finite set of code vectors, log q = 0 and the evidence lower bound is one term of the sum over codes:

.. math:: \log p(x) = \log \sum_z p(z) \, p(x | z) \ge \log p(z(x)) + \log p(x | z(x))

van den Oord, Vinyals and Kavukcuoglu, "Neural Discrete Representation Learning", NeurIPS 2017.
"""

from __future__ import annotations

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, constraints

from vaekit.dist.core import SampleShape, describe, draw, sum_event
from vaekit.errors import InputError

__all__ = ["Certain", "Listed", "Quantised"]


class Listed(constraints.Constraint):
    """Points ``[*]`` of a finite list, which the constraint itself does not know: every finite value passes."""

    is_discrete = True

    def check(self, value: Tensor) -> Tensor:
        return value.isfinite()


class Certain(Distribution):
    """All of the probability on one point of a discrete space.

    Args:
        point: ``[*batch, *event]``.
        event_dim: how many trailing dimensions form the event.

    Shapes: ``sample(shape)`` is ``[*shape, *batch, *event]``, copies of the point; ``log_prob`` (nats, a log-mass) ``[*shape, *batch]``
    is 0 at the point, to the last bit, and -inf elsewhere.

    >>> q = Certain(torch.tensor([[1.0, 2.0]]))
    >>> q.log_prob(torch.tensor([[[1.0, 2.0]], [[1.0, 3.0]]]))
    tensor([[0.],
            [-inf]])
    """

    has_rsample = True
    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012

    def __init__(self, point: Tensor, event_dim: int = 1) -> None:
        self.point = point
        n = point.dim() - event_dim
        super().__init__(point.shape[:n], point.shape[n:], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(Listed(), len(self.event_shape))

    @property
    def mean(self) -> Tensor:
        return self.point

    @property
    def mode(self) -> Tensor:
        return self.point

    def rsample(self, sample_shape: SampleShape = ()) -> Tensor:
        return self.point.expand(*sample_shape, *self.point.shape)

    def sample(self, sample_shape: SampleShape = ()) -> Tensor:
        return self.rsample(sample_shape).detach()

    def log_prob(self, value: Tensor) -> Tensor:
        n = len(self.event_shape)
        same = value == self.point
        here = same.flatten(-n).all(-1) if n else same
        zero = torch.zeros(here.shape, dtype=self.point.dtype, device=self.point.device)
        return zero.masked_fill(~here, -torch.inf)


class Quantised(Certain):
    r"""The code vectors z that a quantiser has chosen for an encoder's output z_e, with the straight-through gradient.

    Its sample is the vectors themselves, to the last bit, and hands its gradient to z_e as if it were z_e.

    van den Oord, Vinyals and Kavukcuoglu, "Neural Discrete Representation Learning", NeurIPS 2017.

    Args:
        encoded: z_e, ``[*batch, D, *grid]``.
        vectors: the chosen code vectors e, as ``encoded``.
        codes: their numbers, int64 ``[*batch, *grid]``.
        size: the number of codes there are.
        event_dim: dimensions of one event, 1 + those of the grid.
        commits: the encoder has to be kept near its codes by `commitment`. False where the encoder's output is bounded anyway.
        learned: the code vectors follow the encoder by the gradient of `codebook`. False where they are averages, or fixed.

    Attributes:
        commitment: ``|z_e - sg(e)|^2`` summed over the event, ``[*batch]``: it moves the encoder. 0 without ``commits``.
        codebook: ``|sg(z_e) - e|^2`` summed over the event, ``[*batch]``: it moves the code vectors. 0 without ``learned``.

    >>> z_e = torch.tensor([[0.9, 0.2]], requires_grad=True)
    >>> q = Quantised(z_e, torch.tensor([[1.0, 0.0]]), torch.tensor([3]), size=4)
    >>> q.rsample(), q.commitment
    (tensor([[1., 0.]], grad_fn=<ExpandBackward0>), tensor([0.0500], grad_fn=<SumBackward1>))
    """

    def __init__(
        self,
        encoded: Tensor,
        vectors: Tensor,
        codes: Tensor,
        *,
        size: int,
        event_dim: int = 1,
        commits: bool = True,
        learned: bool = False,
    ) -> None:
        # e + 0 rather than z_e + (e - z_e), which would round: the codes must be found again in z.
        super().__init__(vectors.detach() + (encoded - encoded.detach()), event_dim)
        self.encoded = encoded
        self.vectors = vectors
        self.codes = codes
        self.size = size
        self.commits = commits
        self.learned = learned

    @property
    def commitment(self) -> Tensor:
        return self._distance(self.encoded, self.vectors.detach(), self.commits)

    @property
    def codebook(self) -> Tensor:
        return self._distance(self.encoded.detach(), self.vectors, self.learned)

    def _distance(self, a: Tensor, b: Tensor, counts: bool) -> Tensor:
        if not counts:
            return torch.zeros(self.batch_shape, dtype=a.dtype, device=a.device)
        return sum_event((a - b).square(), len(self.event_shape))


@draw.register
def _(d: Quantised, shape: Size, reparam: bool = True) -> tuple[Tensor, Tensor]:
    if reparam:
        z = d.rsample(shape)
    elif not torch.is_grad_enabled():
        z = d.sample(shape)
    else:
        raise InputError(
            f"{describe(d)} is certain of its codes, so log q(z | x) = 0 has no gradient and this objective would never train the encoder: "
            "use VQ()"
        )
    return z, d.log_prob(z)
