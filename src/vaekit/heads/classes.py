r"""Heads for columns of classes that differ in number, without and with an order."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution

from vaekit import dist
from vaekit.heads.core import Head
from vaekit.heads.discrete import at_least

__all__ = ["Classes", "Ordinal"]

NONE = -1e30
"""The logit of a class that a column does not have: its probability is 0, and 0 times it no NaN."""


class Classes(Head):
    """p(x | h) = prod_d Cat(x_d; logits h_d) for a vector whose entries have each their own number of classes.

    h is ``[*batch, sum C_d]``, the logits of an entry lying together. All are one `dist.Categorical` of max C_d classes, so that many
    columns are few operations; columns of very different numbers of classes are better apart (`Columns` does that).

    Args:
        classes: C_d of each entry, at least 2.

    Raises:
        InputError: fewer than 2 classes, or no entry.

    >>> import torch
    >>> Classes((2, 4))(torch.zeros(1, 6)).log_prob(torch.tensor([1.0, 3.0])).exp()
    tensor([0.1250])
    """

    place: Tensor

    def __init__(self, classes: Sequence[int]) -> None:
        self.classes = tuple(at_least("Classes", "classes", c, 2) for c in classes)
        super().__init__(len(self.classes), features=sum(self.classes))
        most = max(self.classes)
        place = torch.full((most, self.size), self.features)  # a column that is put behind the logits
        first = 0
        for entry, c in enumerate(self.classes):
            place[:c, entry] = torch.arange(first, first + c)
            first += c
        self.register_buffer("place", place.flatten(), persistent=False)

    def distribution(self, h: Tensor) -> Distribution:
        if len(set(self.classes)) == 1:
            return dist.Categorical(h.unflatten(-1, (self.size, -1)).movedim(-1, -2))
        padded = torch.cat([h, torch.full_like(h[..., :1], NONE)], -1)
        return dist.Categorical(padded.index_select(-1, self.place).unflatten(-1, (-1, self.size)))


class Ordinal(Head):
    r"""Ordered classes by a cumulative logit: a number eta = h_d per entry, and thresholds that are learned for each entry.

    .. math:: P(x \le c) = \sigma(b_c - \eta), \qquad b_0 < b_1 < \dots < b_{C-2}

    It has a number per entry where `Classes` has C: neighbouring classes share what is learned of them. The thresholds are the parameters
    ``first`` ``[D]`` and ``gaps`` (softplus of them is added), which start where all classes are alike likely. McCullagh, "Regression
    models for ordinal data", 1980.

    Args:
        classes: C_d of each entry, at least 2.

    Raises:
        InputError: fewer than 2 classes, or no entry.

    >>> import torch
    >>> Ordinal((3, 4))(torch.zeros(1, 2)).log_prob(torch.tensor([1.0, 3.0])).exp()
    tensor([0.0833], grad_fn=<ExpBackward0>)
    """

    missing: Tensor

    def __init__(self, classes: Sequence[int]) -> None:
        self.classes = tuple(at_least("Ordinal", "classes", c, 2) for c in classes)
        super().__init__(len(self.classes))
        most = max(self.classes)
        level = torch.arange(1, most, dtype=torch.float64).unsqueeze(1)
        share = (level / torch.tensor(self.classes, dtype=torch.float64)).clamp(max=1 - 1e-3)
        start = torch.logit(share)
        gaps = start.diff(dim=0).clamp(min=0.1)
        self.first = nn.Parameter(start[0].float())
        self.gaps = nn.Parameter(torch.log(torch.expm1(gaps)).float()) if most > 2 else None
        missing = torch.arange(most).unsqueeze(1) >= torch.tensor(self.classes)
        self.register_buffer("missing", missing, persistent=False)

    def distribution(self, h: Tensor) -> Distribution:
        (eta,) = self.split(h, 1)
        first = self.first.to(h.dtype).unsqueeze(0)
        if self.gaps is None:
            return dist.Categorical(torch.stack([F.logsigmoid(first[0] - eta), F.logsigmoid(eta - first[0])], -2), ordered=True)
        gaps = F.softplus(self.gaps.to(h.dtype))
        b = torch.cat([first, first + gaps.cumsum(0)]) - eta.unsqueeze(-2)  # [*, C - 1, D]
        below, above = F.logsigmoid(b), F.logsigmoid(-b)
        inner = below[..., 1:, :] + above[..., :-1, :] + torch.log(-torch.expm1(-gaps))
        log_p = torch.cat([below[..., :1, :], inner, above[..., -1:, :]], -2)
        return dist.Categorical(self._own(log_p, above), ordered=True)

    def _own(self, log_p: Tensor, above: Tensor) -> Tensor:
        """Columns of fewer classes than the most end at their own last threshold."""
        if len(set(self.classes)) == 1:
            return log_p
        last = torch.zeros_like(self.missing)
        last[:-1] = self.missing[1:] & ~self.missing[:-1]  # the last class of a column that has fewer
        ends = torch.cat([above[..., :1, :], above], -2)
        return torch.where(self.missing, torch.full_like(log_p, NONE), torch.where(last, ends, log_p))
