"""A model of codes alone, to train a prior over them without an encoder and a decoder."""

from __future__ import annotations

from torch import Tensor, nn
from torch.distributions import Distribution

from vaekit.dist import Certain
from vaekit.models.vae import VAE
from vaekit.quantise.core import Quantiser, embed_field, read_field
from vaekit.quantise.priors import CodePrior

__all__ = ["code_model"]


def code_model(prior: CodePrior) -> VAE:
    """p(x) for x = codes ``[B, *grid]``: z is the codes' vectors, and p(x | z) and q(z | x) are certain, so the bound is log p(x) itself.

    The prior in it is the one that was given: train this with ``ELBO()`` on codes that were computed once (`vaekit.evaluate.codes`), and
    use the prior in the model that they came from, ``VAE(prior, model.posterior, model.likelihood)``. The quantiser learns nothing here.

    >>> import torch
    >>> from vaekit import Batch
    >>> from vaekit.quantise import FSQ, UniformCodes
    >>> model = code_model(UniformCodes(FSQ((5, 5)), (2, 2)))
    >>> model.infer(Batch(torch.zeros(3, 2, 2))).log_w
    tensor([[-12.8755, -12.8755, -12.8755]])
    """
    return VAE(prior, Vectors(prior.quantiser, len(prior.grid)), Numbers(prior.quantiser, len(prior.grid)))


class Vectors(nn.Module):
    """Codes ``[*batch, *grid]`` -> their vectors, for certain."""

    def __init__(self, quantiser: Quantiser, grid: int) -> None:
        super().__init__()
        self.quantiser = quantiser
        self.grid = grid

    def forward(self, x: Tensor) -> Distribution:
        return Certain(embed_field(self.quantiser, x.long(), self.grid), self.grid + 1)


class Numbers(nn.Module):
    """Vectors ``[*batch, D, *grid]`` -> their codes, for certain."""

    def __init__(self, quantiser: Quantiser, grid: int) -> None:
        super().__init__()
        self.quantiser = quantiser
        self.grid = grid

    def forward(self, z: Tensor) -> Distribution:
        return Certain(read_field(self.quantiser, z, self.grid).to(z.dtype), self.grid)
