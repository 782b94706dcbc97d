r"""What factors can be predicted from: one code at a time (SAP), or all of them by a sparse additive model (DCI)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from vaekit.errors import InputError
from vaekit.evaluate.disentangle.information import binned, check_codes, counts, gap

__all__ = ["DCI", "completeness_of", "dci", "disentanglement_of", "importance", "predictability", "sap"]

SWEEPS = 200
"""Rounds of block coordinate descent, at most."""


def sap(z: Tensor, factors: Tensor, *, ordered: Sequence[bool] | None = None, bins: int = 20) -> float:
    """Separated attribute predictability: how much better each factor's best code predicts it than the second best, mean over factors.

    A code's score for an ordered factor is the squared correlation (R^2 of a line); for one without order the balanced accuracy of the best
    rule that gives each of ``bins`` intervals of the code a value (the paper's thresholds, between bins). Scores of 1 and of 0 or chance,
    so that perfect codes have 1 for ordered factors, and 1 - 1/V for one of V values without order.

    Kumar, Sattigeri and Balakrishnan, "Variational Inference of Disentangled Latent Concepts from Unlabeled Observations", ICLR 2018.

    Args:
        z: codes, ``[N, D]``.
        factors: integers from 0, ``[N, F]``.
        ordered: which factors have an order; None for all.
        bins: intervals of a code.

    Raises:
        InputError: codes and factors that do not fit each other; ``ordered`` of another length.

    >>> factors = torch.cartesian_prod(torch.arange(4), torch.arange(5))
    >>> sap(factors.float(), factors), sap(factors[:, [0, 0, 1]].float(), factors), sap(factors.float(), factors, ordered=[True, False])
    (1.0, 0.5, 0.9000)
    """
    check_codes(z, factors)
    return gap(predictability(z, factors, _ordered(factors, ordered), bins))


def predictability(z: Tensor, factors: Tensor, ordered: Sequence[bool], bins: int = 20) -> Tensor:
    """The score of each code z ``[N, D]`` for each of ``factors`` ``[N, F]``, ``[D, F]``: the squared correlation with an ordered factor,
    and for the others the accuracy of naming the value from the code cut into ``bins``, averaged over values. 0 for a code that does not
    vary and an ordered factor."""
    a, b = (t.double() - t.double().mean(0) for t in (z, factors))
    spread = a.square().sum(0)[:, None] * b.square().sum(0)
    score = (a.mT @ b).square() / spread.clamp(min=torch.finfo(torch.float64).tiny)
    n = counts(binned(z, bins), factors)
    within = n / n.sum(2, keepdim=True).clamp(min=1)  # p(bin | value)
    values = (n.sum(2) > 0).sum(-1)
    accuracy = within.amax(3).sum(2) / values
    return torch.where(torch.tensor(list(ordered), device=z.device), score, accuracy)


class DCI(NamedTuple):
    """disentanglement: each code is important for one factor (1) or for all alike (0), weighted by importance. completeness: each factor
    needs one code (1) or all alike (0). informativeness: R^2 of the prediction of each factor on held-out rows, mean over factors."""

    disentanglement: float
    completeness: float
    informativeness: float


def dci(z: Tensor, factors: Tensor, *, ordered: Sequence[bool] | None = None, bins: int = 20, seed: int = 0) -> DCI:
    r"""Disentanglement, completeness and informativeness, from the importance P of each code for each factor.

    .. math:: D = \sum_d \frac{P_{d \cdot}}{P_{\cdot \cdot}} \left( 1 - H_F\left( \frac{P_{df}}{P_{d \cdot}} \right) \right), \qquad
              C = \sum_f \frac{P_{\cdot f}}{P_{\cdot \cdot}} \left( 1 - H_D\left( \frac{P_{df}}{P_{\cdot f}} \right) \right)

    with sums where a dot stands and entropies to the base of the number of factors F and of codes D. Eastwood and Williams leave the
    regressor open and use a lasso and a random forest. Here it is the lasso's nonparametric form: a sparse additive model
    f_hat = sum_d g_d(z_d), each g_d constant on ``bins`` intervals of its code, with the group penalty that switches whole codes off
    (`importance`). It sees nonlinear codes, is convex, draws no trees and takes a second; it does not see what two codes tell only
    together, nor what is less than about 7 / sqrt(N) of a factor's standard deviation. Its numbers are not those of disentanglement_lib's
    gradient boosting.

    Three quarters of the rows, at random, are fitted, the rest predicted. A factor without order is predicted as indicators of its values.

    Eastwood and Williams, "A Framework for the Quantitative Evaluation of Disentangled Representations", ICLR 2018; Ravikumar, Lafferty,
    Liu and Wasserman, "Sparse Additive Models", JRSS B 2009.

    Args:
        z: codes, ``[N, D]``.
        factors: integers from 0, ``[N, F]``.
        ordered: which factors have an order; None for all.
        bins: intervals of a code.
        seed: of the rows that are held out.

    Raises:
        InputError: fewer than 8 rows, or a single code or factor, which has nothing to be compared with.

    >>> factors = torch.cartesian_prod(torch.arange(5), torch.arange(6), torch.arange(4)).repeat(5, 1)
    >>> dci(factors.flip(1).float(), factors)
    DCI(disentanglement=1.0, completeness=1.0, informativeness=1.0)
    """
    check_codes(z, factors)
    if len(z) < 8 or min(z.shape[1], factors.shape[1]) < 2:
        raise InputError(f"DCI of codes {list(z.shape)} and factors {list(factors.shape)}: give at least 8 rows, 2 codes and 2 factors")
    order = torch.randperm(len(z), generator=torch.Generator().manual_seed(seed)).to(z.device)
    train, test = order[len(z) // 4 :], order[: len(z) // 4]
    p, r2 = [], []
    features = one_hot(binned(z, bins), bins).double().flatten(1)
    for values, has_order in zip(factors.unbind(1), _ordered(factors, ordered), strict=True):
        target = values[:, None].double() if has_order else one_hot(values).double()
        weights, mean = _fitted(features[train], target[train], z.shape[1])
        p.append(importance(features[train], weights, z.shape[1]))
        left = target[test] - mean - features[test] @ weights
        r2.append(1 - float(left.square().sum() / (target[test] - mean).square().sum().clamp(min=1e-300)))
    table = torch.stack(p, 1)
    return DCI(disentanglement_of(table), completeness_of(table), sum(r2) / len(r2))


def disentanglement_of(table: Tensor) -> float:
    """D of importances ``[D, F]``: 1 less the entropy of each code's factors, weighted; 0 where nothing is of importance.

    >>> disentanglement_of(torch.tensor([[1.0, 0.0], [1.0, 1.0]]))  # a pure code of weight 1/3, a mixed one of weight 2/3
    0.3333
    """
    total = table.sum(1, keepdim=True)
    share = table / total.clamp(min=1e-300)
    purity = 1 + torch.xlogy(share, share).sum(1) / math.log(table.shape[1])
    return float((purity * total[:, 0]).sum() / total.sum().clamp(min=1e-300))


def completeness_of(table: Tensor) -> float:
    """C of importances ``[D, F]``: the same for each factor's codes."""
    return disentanglement_of(table.mT)


def importance(features: Tensor, weights: Tensor, d: int) -> Tensor:
    """Standard deviation over the rows of what each of d codes contributes to a prediction, ``[d]``: from
    ``features`` ``[N, d m]``, m of each code, and ``weights`` ``[d m, targets]``."""
    parts = features.unflatten(1, (d, -1)).mean(0).unsqueeze(-1) * weights.unflatten(0, (d, -1)).square()
    return parts.sum((1, 2)).sqrt()


def _fitted(features: Tensor, target: Tensor, d: int) -> tuple[Tensor, Tensor]:
    """Weights ``[d * bins, V]`` and intercept of the sparse additive model, and then of the unpenalised one of the codes that it chose.

    The columns of a code are indicators, so that its block of the Gram matrix is diagonal and its update a soft threshold of bin means
    (Ravikumar et al., 2009, fig. 1). The bin means of a code that tells nothing have the norm of a chi variable with (bins - 1) degrees of
    freedom over sqrt(N), in standard deviations of the target; the threshold lies 3 over sqrt(N) above its middle, more than 4 sigma.
    """
    n = len(features)
    mean = target.mean(0)
    y = target - mean
    gram, product = features.mT @ features / n, features.mT @ y / n
    share = gram.diagonal().unflatten(0, (d, -1))
    used = (share > 0).sum(1)
    threshold = y.square().sum(1).mean().sqrt() * ((used - 1).sqrt() + 3) / math.sqrt(n)
    weights = _descend(gram, product, threshold)
    chosen = weights.unflatten(0, (d, -1)).abs().sum((1, 2)) > 0
    return _descend(gram, product, torch.where(chosen, 0.0, math.inf), weights), mean


def _descend(gram: Tensor, product: Tensor, threshold: Tensor, start: Tensor | None = None) -> Tensor:
    """min |y - X w|^2 / 2 + sum_d threshold_d sqrt(w_d' G_dd w_d), block by block, from X'X / N and X'y / N."""
    d = len(threshold)
    share = gram.diagonal().unflatten(0, (d, -1)).unsqueeze(-1)
    weights = torch.zeros_like(product) if start is None else start.clone()
    blocks = weights.unflatten(0, (d, -1))  # a view
    size = blocks.shape[1]
    scale = float(product.abs().max())
    for _ in range(SWEEPS):
        moved = 0.0
        for i in range(d):
            rows = slice(i * size, (i + 1) * size)
            left = (product[rows] - gram[rows] @ weights) / share[i].clamp(min=1e-12) + blocks[i]
            left = torch.where(share[i] > 0, left, 0.0)
            left = left - (share[i] * left).sum(0)  # the intercept has the mean
            norm = float((share[i] * left.square()).sum().sqrt())
            new = left * max(0.0, 1 - float(threshold[i]) / norm) if norm > 0 else torch.zeros_like(left)
            moved = max(moved, float((share[i] * (new - blocks[i]).abs()).max()))
            blocks[i] = new
        if moved <= 1e-9 * scale:
            break
    return weights


def _ordered(factors: Tensor, ordered: Sequence[bool] | None) -> Sequence[bool]:
    flags = [True] * factors.shape[1] if ordered is None else list(ordered)
    if len(flags) != factors.shape[1]:
        raise InputError(f"ordered={flags} has {len(flags)} entries and there are {factors.shape[1]} factors: give one for each")
    return flags
