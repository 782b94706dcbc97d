r"""Models of the mask: which values are observed, given all of them, seen and unseen.

.. math:: p(m | x) = \prod_d \mathrm{Bernoulli}(m_d; \sigma(l_d(x)))

=================  =============================  ========================================================================
Model              l_d(x)                         assumes
=================  =============================  ========================================================================
`SelfMasking`      a_d x_d + b_d                  each value is missing or not by itself, monotonously
`MaskNetwork`      any network of the whole row   nothing, so that the data rarely tell it from other explanations
=================  =============================  ========================================================================

Only ``columns`` are modelled; others are missing, if they are, at random. Ipsen, Mattei and Frellsen, ICLR 2021.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

from vaekit.errors import InputError

__all__ = ["MaskModel", "MaskNetwork", "SelfMasking"]

RATE = 10.0
"""Slopes and biases are so many times their parameters. Adam moves each parameter by about its learning rate a step, and a threshold is a
slope of 5 or 10 standard deviations: the decoder would have learned by heart before the mask is known."""


class MaskModel(nn.Module, abc.ABC):
    """log p(m_d | x) of the columns whose missingness is modelled, 0 of the others.

    Implementing a MaskModel:
        ``logits(x)``: ``[*batch, 2 D]``, values (0 where unknown) and whether they are known, -> l ``[*batch, M]``, high where a value is
        observed, for the M ``columns``.

    Args:
        size: D.
        columns: which of them are modelled.

    Raises:
        InputError: no columns, or one that there is not.
    """

    index: Tensor

    def __init__(self, size: int, columns: Sequence[int]) -> None:
        super().__init__()
        if not columns or len(set(columns)) < len(columns) or not all(0 <= d < size for d in columns):
            raise InputError(f"{type(self).__name__}({size}, {tuple(columns)}): give columns from 0 to {size - 1}, at least one, each once")
        self.size, self.columns = size, tuple(columns)
        self.register_buffer("index", torch.tensor(self.columns), persistent=False)

    @abc.abstractmethod
    def logits(self, x: Tensor) -> Tensor:
        """l ``[*batch, M]``, log-odds in nats that m_d = 1, of ``[*batch, 2 D]``."""

    def forward(self, x: Tensor, m: Tensor) -> Tensor:
        """log p(m_d | x), ``[*batch, D]``, of values and whether they are known ``[*batch, 2 D]`` and the mask m, bool ``[*batch, D]``,
        True where observed; nats, ``[*batch, D]``."""
        logits = self.logits(x)
        parts = logsigmoid(torch.where(m.index_select(-1, self.index), logits, -logits))
        return parts.new_zeros(*parts.shape[:-1], self.size).index_copy(-1, self.index, parts)


class SelfMasking(MaskModel):
    r"""logit p(m_d = 1 | x) = a_d x_d + b_d: whether a value is observed depends on that value, rising or falling with it.

    Args:
        size: D.
        columns: which of them are modelled.
        sign: 0 where a_d is free; 1 where larger values are known to be observed more often, -1 where they are missing more often: then
            a_d = sign softplus(\alpha_d).
        observed: shares of values that are observed, one a column, for b_d to begin with.

    Raises:
        InputError: as `MaskModel`; another sign; shares that are none.

    >>> model = SelfMasking(2, [1], sign=-1)
    >>> values, known = torch.tensor([[9.0, 0.0], [9.0, 5.0]]), torch.ones(2, 2)
    >>> model(torch.cat([values, known], 1), torch.ones(2, 2).bool()).exp().detach().round(decimals=3)
    tensor([[1.0000, 0.5000],
            [1.0000, 0.0300]])
    """

    def __init__(self, size: int, columns: Sequence[int], *, sign: int = 0, observed: Sequence[float] | None = None) -> None:
        super().__init__(size, columns)
        if sign not in (-1, 0, 1):
            raise InputError(f"SelfMasking(sign={sign}): -1, 0 (free) or 1")
        share = torch.full((len(columns),), 0.5) if observed is None else torch.tensor(list(observed))
        if len(share) != len(columns) or not bool(((share > 0) & (share < 1)).all()):
            raise InputError(f"SelfMasking(observed={observed}): give a share between 0 and 1 for each of {len(columns)} columns")
        self.sign = sign
        self.scaled = nn.Parameter(torch.stack([torch.zeros(len(columns)), share.logit() / RATE]))

    @property
    def slope(self) -> Tensor:
        """a_d, ``[M]``."""
        a = RATE * self.scaled[0]
        return self.sign * softplus(a) if self.sign else a

    @property
    def bias(self) -> Tensor:
        """b_d, ``[M]``."""
        return RATE * self.scaled[1]

    def logits(self, x: Tensor) -> Tensor:
        return self.slope * x.index_select(-1, self.index) + self.bias


class MaskNetwork(MaskModel):
    """logit p(m_d = 1 | x) by a network that sees the whole row.

    Args:
        size: D.
        columns: which of them are modelled.
        net: ``[N, 2 D] -> [N, M]``, of values (0 where unknown) and whether they are known.

    >>> MaskNetwork(2, [1], nn.Linear(4, 1))(torch.zeros(3, 5, 4), torch.ones(3, 5, 2).bool()).shape
    torch.Size([3, 5, 2])
    """

    def __init__(self, size: int, columns: Sequence[int], net: nn.Module) -> None:
        super().__init__(size, columns)
        self.net = net

    def logits(self, x: Tensor) -> Tensor:
        found: Tensor = self.net(x.flatten(0, -2))
        return found.view(*x.shape[:-1], len(self.columns))
