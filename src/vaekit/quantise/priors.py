r"""Priors over a grid of codes: modules that return a distribution of batch shape (), over the code vectors that stand for the codes.

.. math:: p(z) = \prod_i p(c_i | c_{<i}), \qquad z_i = e_{c_i}

Every log-density is that of the codes, in nats: z is read as the codes whose vectors are nearest.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Sequence

import torch
from torch import Size, Tensor, nn
from torch.distributions import Distribution, constraints

from vaekit.dist.core import SampleShape, centre
from vaekit.dist.quantised import Listed
from vaekit.errors import InputError
from vaekit.nn.masked import CausalTransformer
from vaekit.quantise.core import Quantiser, embed_field, read_field

__all__ = ["AutoregressiveCodes", "CodePrior", "UniformCodes"]


class OverCodes(Distribution):
    """A distribution over codes, carried by their vectors.

    Args:
        quantiser: between the two.
        grid: shape of the codes.
        log_mass: codes ``[n, N]``, N the size of the grid, row by row -> log p ``[n]``.
        draw: n -> codes ``[n, N]``.
    """

    has_rsample = False
    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012

    def __init__(
        self, quantiser: Quantiser, grid: tuple[int, ...], log_mass: Callable[[Tensor], Tensor], draw: Callable[[int], Tensor]
    ) -> None:
        super().__init__(Size(), Size((quantiser.dimensions, *grid)), validate_args=False)
        self.quantiser = quantiser
        self.grid = grid
        self.log_mass = log_mass
        self.draw = draw

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(Listed(), len(self.event_shape))

    def sample(self, sample_shape: SampleShape = ()) -> Tensor:
        with torch.no_grad():
            codes = self.draw(math.prod(sample_shape)).reshape(*sample_shape, *self.grid)
            return embed_field(self.quantiser, codes, len(self.grid))

    def log_prob(self, value: Tensor) -> Tensor:
        batch = value.shape[: value.dim() - len(self.event_shape)]
        codes = read_field(self.quantiser, value, len(self.grid)).reshape(math.prod(batch), math.prod(self.grid))
        return self.log_mass(codes).reshape(batch)


@centre.register
def _(d: OverCodes) -> Tensor:
    raise InputError(
        f"a prior over {d.quantiser.size} codes has no mean and no one field of codes that stands for it: draw samples instead"
    )


class CodePrior(nn.Module, abc.ABC):
    """A prior over the codes of a quantiser on a grid.

    The quantiser is used, not owned: the model that has it in its posterior moves, trains and saves it.

    Args:
        quantiser: the posterior's own.
        grid: shape of the codes, (8, 8).

    Raises:
        InputError: an empty dimension.

    Implementing a CodePrior:
        1. Write ``forward()``, which returns ``self.over(log_mass, draw)``.
    """

    def __init__(self, quantiser: Quantiser, grid: Sequence[int]) -> None:
        super().__init__()
        if any(n < 1 for n in grid):
            raise InputError(f"{type(self).__name__}: a grid {tuple(grid)} has an empty dimension")
        # In a tuple, so that torch does not register it: its vectors would be saved twice, and under the prior's name.
        self._quantiser = (quantiser,)
        self.grid = tuple(grid)

    @abc.abstractmethod
    def forward(self) -> Distribution:
        """p(z), batch shape (), event shape ``[D, *grid]``."""

    @property
    def quantiser(self) -> Quantiser:
        """The quantiser that is used; `vaekit.fit` refuses one that is not the model's own."""
        return self._quantiser[0]

    @property
    def length(self) -> int:
        """Number of codes."""
        return math.prod(self.grid)

    def over(self, log_mass: Callable[[Tensor], Tensor], draw: Callable[[int], Tensor]) -> Distribution:
        """The distribution with that log-mass of codes ``[n, N]`` and these draws, n -> ``[n, N]``."""
        return OverCodes(self.quantiser, self.grid, log_mass, draw)

    def extra_repr(self) -> str:
        return f"grid={self.grid}, codes={self.quantiser.size}"


class UniformCodes(CodePrior):
    """All codes alike and independent: log p = -N log C, the prior under which a VQ-VAE is first trained.

    Args:
        quantiser: the posterior's own.
        grid: shape of the codes.

    >>> from vaekit.quantise import Codebook
    >>> UniformCodes(Codebook(512, 64), (8, 8))().log_prob(torch.zeros(64, 8, 8))
    tensor(-399.2528)
    """

    like: Tensor

    def __init__(self, quantiser: Quantiser, grid: Sequence[int]) -> None:
        super().__init__(quantiser, grid)
        self.register_buffer("like", torch.zeros(()), persistent=False)  # where the model is, and in which precision

    def forward(self) -> Distribution:
        return self.over(self._log_mass, self._draw)

    def _log_mass(self, codes: Tensor) -> Tensor:
        return self.like.new_full((len(codes),), -self.length * math.log(self.quantiser.size))

    def _draw(self, n: int) -> Tensor:
        return torch.randint(self.quantiser.size, (n, self.length), device=self.like.device)


class AutoregressiveCodes(CodePrior):
    r"""log p = sum_i log p(c_i | c_<i), row by row, by a causal transformer (`nn.CausalTransformer`); it starts uniform.

    Exact in one pass; a sample takes a pass per code. van den Oord, Vinyals and Kavukcuoglu, "Neural Discrete Representation Learning",
    NeurIPS 2017, fit such a prior over the codes after training, theirs a PixelCNN.

    Args:
        quantiser: the posterior's own.
        grid: shape of the codes.
        width: of the transformer.
        layers: of the transformer.
        heads: of attention; they divide ``width``.

    Raises:
        InputError: an empty grid, a size below 1, or heads that do not divide the width.

    >>> from vaekit.quantise import Codebook
    >>> _ = torch.manual_seed(0)
    >>> p = AutoregressiveCodes(Codebook(512, 64), (8, 8), width=16, layers=1, heads=2)()
    >>> p.log_prob(p.sample((3,)))
    tensor([-399.2527, -399.2527, -399.2527], grad_fn=<ViewBackward0>)
    """

    def __init__(self, quantiser: Quantiser, grid: Sequence[int], *, width: int = 128, layers: int = 4, heads: int = 4) -> None:
        super().__init__(quantiser, grid)
        self.net = CausalTransformer(quantiser.size, self.length, width=width, layers=layers, heads=heads)

    def forward(self) -> Distribution:
        return self.over(self._log_mass, self._draw)

    def _log_mass(self, codes: Tensor) -> Tensor:
        logits = self.net(codes[:, :-1])
        log_p = (logits if logits.dtype == torch.float64 else logits.float()).log_softmax(-1)
        return log_p.gather(-1, codes.unsqueeze(-1)).squeeze(-1).sum(-1)

    def _draw(self, n: int) -> Tensor:
        codes = torch.empty(n, 0, dtype=torch.int64, device=self.net.start.device)
        for _ in range(self.length):
            p = self.net(codes)[:, -1].float().softmax(-1)
            codes = torch.cat([codes, torch.multinomial(p, 1)], -1)
        return codes
