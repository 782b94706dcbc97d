r"""What codes tell of factors, by mutual information: the gap (MIG) and the modularity.

Codes z ``[N, D]`` are put into bins of equal width, 20 by default, between the least and the greatest value of each; then everything is a
count. With n_ab of N examples in bin a of a code at value b of a factor,

.. math:: I(z_d; f) = \sum_{ab} \frac{n_{ab}}{N} \log \frac{n_{ab} N}{n_{a} n_{b}}, \qquad H(f) = -\sum_b \frac{n_b}{N} \log \frac{n_b}{N}

This plug-in estimate is too large by about (A - 1)(B - 1) / (2 N) nats for A bins and B values: 0.04 for 20 bins, 40 values and 10,000
examples of a code that tells nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vaekit.errors import InputError

__all__ = ["binned", "check_codes", "entropy", "gap", "mig", "modularity", "mutual_information", "one_factor"]


def check_codes(z: Tensor, factors: Tensor) -> None:
    """Codes and factors of the same examples.

    Raises:
        InputError: z is no floating ``[N, D]`` with finite values; factors is no ``[N, F]`` of integers from 0; a factor has one value.
    """
    if z.dim() != 2 or not z.is_floating_point() or not z.numel():
        raise InputError(f"the codes are {str(z.dtype)[6:]} {list(z.shape)}: give floats [N, D]")
    if factors.dim() != 2 or factors.is_floating_point() or len(factors) != len(z) or not factors.numel():
        raise InputError(f"the factors are {str(factors.dtype)[6:]} {list(factors.shape)}: give integers [N, F] of the {len(z)} codes")
    if not bool(z.isfinite().all()):
        raise InputError("the codes hold values that are NaN or infinite: a model that has not trained has nothing to disentangle")
    low, high = factors.aminmax(dim=0)
    if int(low.min()) < 0:
        raise InputError(f"factor values are counted from 0, and one is {int(low.min())}")
    if bool((low == high).any()):
        raise InputError(f"factor {int((low == high).nonzero()[0])} has one value in these examples: leave it out, or take more examples")


def binned(z: Tensor, n: int = 20) -> Tensor:
    """The bin of each value of codes z ``[N, D]`` among ``n`` of equal width from its code's least to its greatest, int64 ``[N, D]``; 0
    where a code is constant.

    Raises:
        InputError: ``n`` below 2.

    >>> binned(torch.tensor([[0.0], [1.0], [2.0], [10.0]]), 5).squeeze(1)
    tensor([0, 0, 1, 4])
    """
    if n < 2:
        raise InputError(f"{n} bins tell nothing apart: take 2 or more")
    low, high = z.double().aminmax(dim=0)
    width = torch.where(high > low, high - low, 1.0)
    return ((z.double() - low) / width * n).long().clamp_(max=n - 1)


def counts(a: Tensor, b: Tensor) -> Tensor:
    """Joint counts of every column of a ``[N, D]`` with every column of b ``[N, F]``, float64 ``[D, F, A, B]``."""
    sizes = int(a.max()) + 1, int(b.max()) + 1
    pair = a.unsqueeze(2) * sizes[1] + b.unsqueeze(1)
    column = torch.arange(pair[0].numel(), device=a.device).view(pair.shape[1:]) * (sizes[0] * sizes[1])
    found = torch.bincount((pair + column).flatten(), minlength=pair[0].numel() * sizes[0] * sizes[1])
    return found.view(*pair.shape[1:], *sizes).double()


def entropy(values: Tensor) -> Tensor:
    """H of each column of values ``[N, F]``, nats, float64 ``[F]``.

    >>> entropy(torch.tensor([[0, 0], [1, 0], [2, 1], [3, 1]]))
    tensor([1.3863, 0.6931], dtype=torch.float64)
    """
    p = counts(values, torch.zeros_like(values[:, :1]))[:, 0, :, 0] / len(values)
    return -torch.xlogy(p, p).sum(-1)


def mutual_information(codes: Tensor, factors: Tensor) -> Tensor:
    """I of each column of codes ``[N, D]`` with each column of factors ``[N, F]``, both of integers; nats, float64 ``[D, F]``.

    >>> bits = torch.cartesian_prod(torch.arange(2), torch.arange(2))
    >>> mutual_information(torch.stack([bits[:, 0], bits[:, 0] ^ bits[:, 1]], 1), bits)
    tensor([[0.6931, 0.0000],
            [0.0000, 0.0000]], dtype=torch.float64)
    """
    p = counts(codes, factors) / len(codes)
    product = p.sum(-1, keepdim=True) * p.sum(-2, keepdim=True)
    return (torch.xlogy(p, p) - torch.xlogy(p, product)).sum((-2, -1)).clamp_(min=0)


def mig(z: Tensor, factors: Tensor, *, bins: int = 20) -> float:
    r"""Mutual information gap: for each factor, what its best code tells more than its second best, as a share of its entropy.

    .. math:: \mathrm{MIG} = \frac1F \sum_f \frac{I(z_{d_1}; f) - I(z_{d_2}; f)}{H(f)}

    1 where each factor is in one code alone and each of its values in bins of its own; 0 where two codes tell the same. The mutual
    information is that of the posterior mean, by bins, as in disentanglement_lib; the paper's is that of samples of q(z | x).

    Chen, Li, Grosse and Duvenaud, "Isolating Sources of Disentanglement in Variational Autoencoders", NeurIPS 2018.

    Args:
        z: codes, ``[N, D]``.
        factors: integers from 0, ``[N, F]``.
        bins: bins of a code; a factor of more values than bins cannot have the full score.

    Raises:
        InputError: codes and factors that do not fit each other; fewer than 2 bins.

    >>> factors = torch.cartesian_prod(torch.arange(4), torch.arange(5))
    >>> mig(factors.flip(1) * torch.tensor([-3.0, 0.1]), factors), mig(factors[:, [0, 0, 1]].float(), factors)
    (1.0, 0.5)
    """
    check_codes(z, factors)
    return gap(mutual_information(binned(z, bins), factors) / entropy(factors))


def gap(score: Tensor) -> float:
    """Mean over factors of the largest of ``[D, F]`` less the second largest, which is 0 where there is one code."""
    best = torch.cat([score, torch.zeros_like(score[:1])]).topk(2, dim=0).values
    return float((best[0] - best[1]).mean())


def modularity(z: Tensor, factors: Tensor, *, bins: int = 20) -> float:
    r"""Whether each code tells of one factor at most.

    .. math:: \frac1D \sum_d \left( 1 - \frac{\sum_{f \ne f_d} I(z_d; f)^2}{(F - 1) I(z_d; f_d)^2} \right), \qquad
              f_d = \arg\max_f I(z_d; f)

    Codes z ``[N, D]``, cut into ``bins``, and factors ``[N, F]``. Two codes of one factor are modular; a code of two is not. Codes that do
    not vary break no rule and are left out (disentanglement_lib counts them 0); NaN where none varies. The plug-in estimate makes a code of
    pure noise look like one that tells a little of all.

    Ridgeway and Mozer, "Learning Deep Disentangled Embeddings With the F-Statistic Loss", NeurIPS 2018.

    Raises:
        InputError: codes and factors that do not fit each other; fewer than 2 bins.

    >>> factors = torch.cartesian_prod(torch.arange(4), torch.arange(5))
    >>> modularity(factors[:, [0, 0, 1]].float(), factors), modularity(factors.sum(1, keepdim=True).float(), factors[:, :1].repeat(1, 2))
    (1.0, 0.0)
    """
    check_codes(z, factors)
    return one_factor(mutual_information(binned(z, bins), factors))


def one_factor(information: Tensor) -> float:
    """`modularity` from mutual informations ``[D, F]``.

    Raises:
        InputError: a single factor, of which every code is.
    """
    if information.shape[1] < 2:
        raise InputError("modularity compares a code's factors, and there is one: give at least 2")
    square = information[information.amax(1) > 1e-12].square()
    best = square.amax(1)
    return float((1 - (square.sum(1) - best) / (best * (square.shape[1] - 1))).mean())
