"""What stands before an encoder of table rows, and what lets a number pass by a decoder."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn

from vaekit.errors import InputError

__all__ = ["ColumnsInput", "LogCounts", "PassLast"]


class ColumnsInput(nn.Module):
    r"""Table rows and their masks, as `vaekit.models.with_mask` joins them, as numbers that any network can follow.

    Class numbers become one-hot columns, or learned vectors where a column has many classes; counts become log(1 + k); other columns stay
    as they are. What is missing is 0 everywhere, as is a number that is no class of its column, and the mask follows as it came.

    Args:
        classes: number of classes of each of the D columns, 0 for one that holds no classes.
        counts: numbers of the columns that hold counts.
        extra: columns after values and masks (a context), which stay as they are.
        one_hot: classes up to which a column becomes one-hot; with more it becomes ``width`` learned numbers.
        width: of those.

    Attributes:
        features: the width of what comes out: [plain columns and counts, one-hot columns, learned vectors, masks, extra].

    Raises:
        InputError: no column; counts that are no column, or one of classes; at the call, another width than 2 D + extra.

    >>> layer = ColumnsInput([0, 3, 0], counts=[2])
    >>> row = torch.tensor([[0.5, 2.0, 0.0, 1.0, 1.0, 0.0]])  # three values, the last of them missing
    >>> layer.features, layer(row)
    (8, tensor([[0.5000, 0.0000, 0.0000, 0.0000, 1.0000, 1.0000, 1.0000, 0.0000]]))
    """

    plain: Tensor
    log1p: Tensor
    column: Tensor
    value: Tensor
    large: Tensor
    first: Tensor
    last: Tensor

    def __init__(self, classes: Sequence[int], *, counts: Sequence[int] = (), extra: int = 0, one_hot: int = 32, width: int = 16) -> None:
        super().__init__()
        if not classes:
            raise InputError("ColumnsInput: a table of no columns has nothing to show; give the number of classes of each, 0 for none")
        for c in counts:
            if not 0 <= c < len(classes) or classes[c]:
                raise InputError(f"ColumnsInput(counts={tuple(counts)}): {c} is no column of counts among {len(classes)} columns")
        self.classes, self.counts, self.extra = tuple(classes), tuple(counts), extra
        plain = [d for d, c in enumerate(classes) if c == 0]
        small = [d for d, c in enumerate(classes) if 0 < c <= one_hot]
        large = [d for d, c in enumerate(classes) if c > one_hot]
        sizes = [classes[d] for d in large]
        tables: dict[str, list[int]] = {
            "plain": plain,
            "column": [d for d in small for _ in range(classes[d])],
            "value": [v for d in small for v in range(classes[d])],
            "large": large,
            "first": list(accumulate(sizes, initial=0))[:-1],
            "last": [size - 1 for size in sizes],
        }
        for name, numbers in tables.items():
            if numbers:  # torch.export.save fails at tensors of no elements, so there are none
                self.register_buffer(name, torch.tensor(numbers), persistent=False)
        if plain:
            self.register_buffer("log1p", torch.tensor([d in self.counts for d in plain]), persistent=False)
        self.plains, self.hot = len(plain), len(tables["column"])
        self.vectors = nn.Embedding(sum(sizes), width) if large else None
        self.features = self.plains + self.hot + len(large) * width + len(classes) + extra

    def forward(self, view: Tensor) -> Tensor:
        """``[B, 2 D + extra]`` -> ``[B, features]``."""
        d = len(self.classes)
        if view.shape[-1] != 2 * d + self.extra:
            raise InputError(
                f"ColumnsInput of {d} columns takes [B, {2 * d + self.extra}], values, masks and {self.extra} more, and was given "
                f"{list(view.shape)}: build the model with view=with_mask"
            )
        x, m, extra = view.split([d, d, self.extra], -1)
        found = []
        if self.plains:
            numbers = x.index_select(-1, self.plain)
            found.append(torch.where(self.log1p, torch.log1p(numbers.clamp(min=0)), numbers) if self.counts else numbers)
        if self.hot:
            hot = x.index_select(-1, self.column) == self.value.to(x.dtype)
            found.append(hot.to(x.dtype) * m.index_select(-1, self.column))
        if self.vectors is not None:
            own = x.index_select(-1, self.large)
            fits = own == own.floor().clamp(min=0).minimum(self.last.to(x.dtype))
            vectors = self.vectors(torch.where(fits, own, torch.zeros_like(own)).long() + self.first)
            found.append((vectors.to(x.dtype) * (m.index_select(-1, self.large) * fits).unsqueeze(-1)).flatten(-2))
        return torch.cat([*found, m, extra], -1)


class PassLast(nn.Module):
    """``net`` for all but the last ``n`` columns, which pass by it: ``[N, F] -> [N, features of net + n]``.

    For what a likelihood must have as it is, such as the logarithm of an example's size: the last column of the context reaches the head
    of counts (``sized=True``) unchanged.

    Args:
        net: ``[N, F - n] -> [N, ...]``.
        n: columns that pass.

    >>> PassLast(nn.Linear(2, 5))(torch.tensor([[0.0, 0.0, 7.0]]))[0, -1]
    tensor(7., grad_fn=<SelectBackward0>)
    """

    def __init__(self, net: nn.Module, n: int = 1) -> None:
        super().__init__()
        self.net, self.n = net, n

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.net(x[:, : -self.n]).flatten(1), x[:, -self.n :]], 1)


class LogCounts(nn.Module):
    """log(1 + k) of all but the last ``n`` columns, which stay as they are: counts and their context for an encoder, ``[N, F] -> [N, F]``.

    Args:
        n: columns of context.

    >>> LogCounts()(torch.tensor([[0.0, 1.0, 7.0]]))
    tensor([[0.0000, 0.6931, 7.0000]])
    """

    def __init__(self, n: int = 1) -> None:
        super().__init__()
        self.n = n

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x[:, : -self.n].clamp(min=0).log1p(), x[:, -self.n :]], 1)
