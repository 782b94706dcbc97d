r"""A table of code vectors and the nearest of them.

.. math:: c = \arg\min_j |z_e - e_j|^2

The table follows the encoder by exponential moving averages (van den Oord et al., 2017, appendix A.1), over passes t with n_j vectors at
code j:

.. math:: N_j \leftarrow \gamma N_j + (1 - \gamma) \, n_j, \qquad m_j \leftarrow \gamma m_j + (1 - \gamma) \sum_{i : c_i = j} z_{e,i},
          \qquad e_j = m_j / N_j

or by the gradient of ``|sg(z_e) - e|^2``, which the objective `VQ` adds.

van den Oord, Vinyals and Kavukcuoglu, "Neural Discrete Representation Learning", NeurIPS 2017; Roy, Vaswani, Neelakantan and Parmar,
"Theory and Experiments on Vector Quantized Autoencoders", 2018.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaekit.errors import InputError
from vaekit.quantise.core import Quantisation, nearest
from vaekit.tensors import indicator

__all__ = ["Codebook"]


class Codebook(nn.Module):
    r"""C vectors of D numbers; each z_e becomes the nearest (vector quantisation).

    The averages start at 0 and are used in the ratio of `N` and `m`, so that no starting value has weight in them. A code that nothing
    has chosen yet has m = N = 0 and lies at the origin, as in Sonnet's ``VectorQuantizerEMA``. Averages move in training mode only, once
    per pass, and what a pass adds takes effect at the next one: within a pass, and in evaluation after it, there is one table.

    ``revive`` re-initialises codes that are hardly used, at the start of a pass, from vectors of that pass chosen at random: those with
    N_j at or below ``revive`` times the N of equally used codes, sum(N) / C. At the first pass these are all: the table starts from
    the data. The share does not depend on the batch size; with decay 0.99 a new code that finds no use falls to a share of 0.1
    in 230 passes.

    van den Oord, Vinyals and Kavukcuoglu, "Neural Discrete Representation Learning", NeurIPS 2017.

    Args:
        codes: C.
        dimensions: D.
        decay: gamma of the averages; None learns the table by gradient instead.
        eps: Laplace smoothing of N, so that a code without use has a value at all.
        revive: share of equal use at or below which a code is re-initialised; None for never.

    Raises:
        InputError: fewer than 2 codes, no dimension, ``decay`` outside (0, 1), ``revive`` outside [0, 1) or without ``decay``.

    >>> _ = torch.manual_seed(0)
    >>> book = Codebook(8, 2, revive=0.1)
    >>> out = book(torch.randn(16, 2))
    >>> out.vectors.shape, torch.equal(book.read(out.vectors), out.codes)
    (torch.Size([16, 2]), True)
    """

    vectors: Tensor
    usage: Tensor
    total: Tensor

    def __init__(
        self, codes: int = 512, dimensions: int = 64, *, decay: float | None = 0.99, eps: float = 1e-5, revive: float | None = None
    ) -> None:
        super().__init__()
        if codes < 2 or dimensions < 1:
            raise InputError(f"Codebook(codes={codes}, dimensions={dimensions}): at least 2 codes of at least 1 dimension are needed")
        if decay is not None and not 0 < decay < 1:
            raise InputError(f"Codebook(decay={decay}): the decay lies between 0 and 1, as 0.99; None learns the codes by gradient")
        if not eps > 0:
            raise InputError(f"Codebook(eps={eps}): a positive number is needed, as 1e-5, for a code without use divides by it")
        if revive is not None and not 0 <= revive < 1:
            raise InputError(f"Codebook(revive={revive}): a share of equal use from 0 to below 1 is needed, as 0.1; None never revives")
        if revive is not None and decay is None:
            raise InputError(f"Codebook(revive={revive}, decay=None): reviving needs the averages of use, so give a decay, as 0.99")
        self.size = codes
        self.dimensions = dimensions
        self.decay = decay
        self.eps = eps
        self.revive = revive
        self.frozen = False
        limit = math.sqrt(3 / dimensions)
        vectors = torch.empty(codes, dimensions).uniform_(-limit, limit)
        if decay is None:
            self.vectors = nn.Parameter(vectors)
        else:
            self.register_buffer("vectors", vectors)
            self.register_buffer("usage", torch.zeros(codes))
            self.register_buffer("total", torch.zeros(codes, dimensions))

    def forward(self, z_e: Tensor) -> Quantisation:
        """z_e ``[N, D]``, float32 or float64."""
        decay = None if self.frozen or not self.training else self.decay
        with torch.autocast(z_e.device.type, enabled=False):  # mixed precision is for networks
            if decay is not None:
                self._renew(z_e.detach())
            codes = self.read(z_e)
            if decay is not None:
                self._count(z_e.detach(), codes, decay)
            vectors = F.embedding(codes, self.vectors).to(z_e.dtype)
        return Quantisation(z_e, vectors, codes, commits=True, learned=self.decay is None)

    def embed(self, codes: Tensor) -> Tensor:
        """``[*] -> [*, D]``."""
        return F.embedding(codes, self.vectors)

    def read(self, z: Tensor) -> Tensor:
        """The nearest code of each of ``z [*, D]``, int64 ``[*]``."""
        return nearest(z, self.vectors)

    def freeze(self) -> Codebook:
        """Learn no more, in training mode either: for what is trained on codes that must not change."""
        self.frozen = True
        return self.requires_grad_(False)

    @torch.no_grad()
    def _renew(self, z_e: Tensor) -> None:
        """Table = m / N of the passes before this one, and vectors of this one where a code is dead."""
        n = self.usage.sum()
        smoothed = (self.usage + self.eps) / (n + self.size * self.eps) * n
        self.vectors.copy_(torch.where(n > 0, self.total / smoothed.unsqueeze(-1), self.vectors))
        if self.revive is None:
            return
        dead = self.usage <= self.revive * n / self.size
        order = torch.randperm(len(z_e), device=z_e.device)
        taken = z_e[order[torch.arange(self.size, device=z_e.device) % len(z_e)]].to(self.vectors.dtype)
        fair = len(z_e) / self.size
        self.usage.masked_fill_(dead, fair)
        self.vectors.copy_(torch.where(dead.unsqueeze(-1), taken, self.vectors))
        self.total.copy_(torch.where(dead.unsqueeze(-1), taken * fair, self.total))

    @torch.no_grad()
    def _count(self, z_e: Tensor, codes: Tensor, decay: float) -> None:
        # A product with the one-hot codes rather than index_add, whose order of summation changes from run to run on a GPU.
        chosen = indicator(codes, self.size, self.total.dtype)
        self.usage.lerp_(chosen.sum(0), 1 - decay)
        self.total.lerp_(chosen.mT @ z_e.to(self.total.dtype), 1 - decay)

    def extra_repr(self) -> str:
        return f"codes={self.size}, dimensions={self.dimensions}, decay={self.decay}, revive={self.revive}"
