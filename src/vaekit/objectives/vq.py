r"""The objective of vector-quantised autoencoders.

.. math:: L = -\log p(x | z) - \log p(z) + \frac{D}{M} \left( \beta \, |z_e - \mathrm{sg}(e)|^2 + |\mathrm{sg}(z_e) - e|^2 \right),
          \qquad z = e + z_e - \mathrm{sg}(z_e)

with D entries of x and M entries of z_e. The last term is there where the code vectors are learned by gradient.

The published loss (van den Oord, Vinyals and Kavukcuoglu, NeurIPS 2017; Sonnet's example) divides by the variance of the data and takes
means, over entries of x and of z_e:

.. math:: L_{pub} = \frac{|x - \hat x|^2}{D \, \mathrm{var}} + \beta \frac{|z_e - \mathrm{sg}(e)|^2}{M}

With the likelihood N(x; \hat x, sigma^2 I) and sigma^2 = var / 2, -log p(x | z) = |x - \hat x|^2 / var + const, so L = D L_pub + const:
the same beta, the same gradient times D.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vaekit.dist import Quantised, describe
from vaekit.errors import InputError
from vaekit.models.core import LatentModel, Trace
from vaekit.objectives.core import Loss, Objective, terms
from vaekit.types import Batch

__all__ = ["VQ"]


class VQ(Objective):
    r"""surrogate = -bound + (D / M) (commitment |z_e - sg(e)|^2 + |sg(z_e) - e|^2), sums over the entries of each example, nats.

    ``bound`` = log p(x | z) + log p(z) is one term of log sum_z p(z) p(x | z): a lower bound on log p(x), in which the codes are paid
    for. The prior is trained too where it can learn.

    ``logs`` add the weighted ``commitment`` (nats, as in the surrogate), and of the batch, the same for each of its examples, the
    ``perplexity`` exp(-sum_c f_c log f_c) of the frequencies f of its codes, and the number of ``codes`` in it; with several
    levels one of each a level, ``commitment_0`` and so on.

    van den Oord, Vinyals and Kavukcuoglu, "Neural Discrete Representation Learning", NeurIPS 2017.

    Args:
        commitment: beta, the published weight: see the module for the correspondence.

    Raises:
        InputError: a negative or infinite weight; a level of the model whose posterior is not quantised (at the first step).

    >>> from vaekit import Conditional, VAE, heads
    >>> from vaekit.quantise import Codebook, UniformCodes
    >>> _ = torch.manual_seed(0)
    >>> codes = Codebook(8, 2)
    >>> q, px = heads.Quantised(codes, (3,)), heads.GaussianFixed(6, 0.2)
    >>> likelihood = Conditional(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(6, 6)), px, event_dim=2)
    >>> model = VAE(UniformCodes(codes, (3,)), Conditional(torch.nn.Linear(6, 6), q), likelihood)
    >>> sorted(VQ()(model, Batch(torch.rand(5, 6))).logs)
    ['codes', 'commitment', 'log_px', 'perplexity', 'rate_0']
    """

    compiles = True

    def __init__(self, commitment: float = 0.25) -> None:
        super().__init__()
        if not 0 <= commitment < math.inf:
            raise InputError(f"VQ(commitment={commitment}): the weight of the commitment must be 0 or more and finite, as 0.25")
        self.commitment = commitment

    def forward(self, model: LatentModel, batch: Batch, step: int = 0) -> Loss:
        t = model.infer(batch)
        log_px, rate = t.log_px, t.rate
        bound = (log_px - rate.sum(-1))[0]
        surrogate = -bound
        logs = terms(log_px, rate)
        posteriors = quantised(t)
        for n, q in enumerate(posteriors):
            weight = batch.x[0].numel() / q.event_shape.numel()
            commitment = weight * self.commitment * q.commitment.reshape(batch.size)
            surrogate = surrogate + commitment + weight * q.codebook.reshape(batch.size)
            at = f"_{n}" if len(posteriors) > 1 else ""
            logs |= {f"commitment{at}": commitment.detach()} | {f"{name}{at}": v.expand(batch.size) for name, v in usage(q).items()}
        return Loss(surrogate, bound.detach(), logs)


def quantised(t: Trace) -> list[Quantised]:
    """The posteriors of a pass, all of them quantised.

    Raises:
        InputError: one is not.
    """
    found = []
    for n, level in enumerate(t.levels):
        if not isinstance(level.q, Quantised):
            what = "no posterior" if level.q is None else describe(level.q)
            raise InputError(f"level {n}: VQ needs codes and q(z | x) is {what}: give its posterior the head Quantised(...), or use ELBO()")
        found.append(level.q)
    return found


def usage(q: Quantised) -> dict[str, Tensor]:
    """``perplexity`` and number of ``codes`` of a batch, float32 scalars."""
    chosen = q.codes.flatten()
    count = torch.zeros(q.size, device=chosen.device).scatter_add_(0, chosen, torch.ones_like(chosen, dtype=torch.float32))
    return {"perplexity": torch.special.entr(count / len(chosen)).sum().exp(), "codes": (count > 0).sum().float()}
