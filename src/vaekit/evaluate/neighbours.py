r"""Are samples real, and are they all that is real? From balls around features of real x ``[N, F]`` and of generated y ``[M, F]``.

With B(a) the closed ball around a that just reaches its k-th nearest neighbour within its own set:

.. math::
    \text{precision} &= \frac1M \sum_j 1[\exists i: y_j \in B(x_i)] &\quad
    \text{recall} &= \frac1N \sum_i 1[\exists j: x_i \in B(y_j)] \\
    \text{density} &= \frac1{kM} \sum_j \sum_i 1[y_j \in B(x_i)] &\quad
    \text{coverage} &= \frac1N \sum_i 1[\exists j: y_j \in B(x_i)]

Precision and recall: Kynkaanniemi et al., NeurIPS 2019. Density and coverage: Naeem et al., ICML 2020. Memory is bounded: the ``[N, M]``
distances are never there at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from vaekit.errors import InputError
from vaekit.evaluate.distances import paired, shuffled

__all__ = ["NeighbourScores", "neighbour_scores"]

PAIRS = 2_000_000
"""Distances held at a time: 16 MB, a few times over."""
PARTS = 10
"""Parts of both sets, each of which is left out in turn for the error of the scores by nearest neighbours."""


@dataclass(frozen=True)
class NeighbourScores:
    """What `neighbour_scores` found; ``_se`` is a standard error, NaN for fewer than 10 rows or than k and a tenth of them.

    Attributes:
        precision: share of generated examples within the real ones' balls: are samples real?
        recall: share of real examples within the generated ones' balls: is every real example possible? One stray sample has a large
            ball, and counts for much.
        density: real balls a generated example lies in, over k: as precision, but robust against real outliers; 1 on average for
            samples of the data's own distribution, more for samples that keep to where data are dense.
        coverage: share of real balls with a generated example inside: as recall, but from balls of real examples.
        coverage_expected: what `coverage` is on average for samples of the data's own distribution,
            ``1 - prod_{i=1..k} (N - i) / (N + M - i)``.
    """

    precision: float
    precision_se: float
    recall: float
    recall_se: float
    density: float
    density_se: float
    coverage: float
    coverage_se: float
    coverage_expected: float


def neighbour_scores(real: Tensor, generated: Tensor, *, k: int = 5, seed: int = 0) -> NeighbourScores:
    """Precision, recall, density and coverage by k-th nearest neighbours, which are looked for among the others of the own set.

    The errors are jackknife ones: each tenth of both sets is left out in turn, with its balls and from those of others. They are rather
    too large, by a third or so, up to twice near 1; where a score is 0 or 1 whatever is left out, its error comes out as 0.

    Args:
        real: features of real examples ``[N, F]``.
        generated: features of samples ``[M, F]``.
        k: which neighbour. Kynkaanniemi et al. take 3, Naeem et al. 5.
        seed: of the tenths.

    Raises:
        InputError: no two matrices of equal width and finite numbers; not more than k rows in each.

    >>> x = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    >>> found = neighbour_scores(x, 0.1 * x)  # all samples near the centre: none is wrong, and hardly any variety
    >>> found.precision > 0.99, found.recall < 0.05, found.coverage < 0.5 < found.coverage_expected
    (True, True, True)
    """
    x, y = paired(real, generated)
    if not 1 <= k < min(len(x), len(y)):
        raise InputError(f"k={k}: {len(x)} real and {len(y)} generated examples have 1 to {min(len(x), len(y)) - 1} neighbours each")
    x, y = shuffled(x, y, seed)  # so that tenths are runs of rows
    left, scores = _scores(x, y, k)
    n = min(len(x), len(y))
    enough = n >= PARTS and n - -(-n // PARTS) > k
    se = left.std(0) * ((PARTS - 1) / math.sqrt(PARTS) if enough else math.nan)
    expected = 1 - math.prod((len(x) - i) / (len(x) + len(y) - i) for i in range(1, k + 1))
    (p, p_se), (r, r_se), (d, d_se), (c, c_se) = torch.stack([scores, se], 1).tolist()
    return NeighbourScores(p, p_se, r, r_se, d, d_se, c, c_se, expected)


def _distances(x: Tensor, y: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Which rows of x, and their distances ``[c, M]``. From differences, not products: equal rows are at 0, and no bit depends on c."""
    size = max(1, PAIRS // len(y))
    for start in range(0, len(x), size):
        rows = slice(start, start + size)
        yield rows, torch.cdist(x[rows], y, compute_mode="donot_use_mm_for_euclid_dist")


def _part(n: int, device: torch.device) -> Tensor:
    """Which of the parts each of n rows belongs to, ``[n]``: runs of rows of nearly equal lengths."""
    return torch.cat([torch.full((len(rows),), g) for g, rows in enumerate(torch.arange(n).tensor_split(PARTS))]).to(device)


def _radii(x: Tensor, k: int) -> Tensor:
    """The distance of every row to its k-th nearest among the others, ``[PARTS + 1, N]``: with each part left out, then with all.

    It is the (k + 1)-th when the row is counted itself, at 0. A row that is itself left out has a radius of -1: nothing is within it.
    """
    part = _part(len(x), x.device)
    radii = x.new_empty(PARTS + 1, len(x))  # filled in place: small results kept between large tiles break the heap into pieces
    for rows, d in _distances(x, x):
        near = [run.topk(min(k + 1, run.shape[1]), dim=1, largest=False).values for run in d.tensor_split(PARTS, dim=1)]
        for g in range(PARTS + 1):
            others = torch.cat([values for h, values in enumerate(near) if h != g], 1)
            radii[g, rows] = others.topk(min(k + 1, others.shape[1]), dim=1, largest=False).values[:, -1]
    radii[part, torch.arange(len(x), device=x.device)] = -1
    return radii


def _scores(x: Tensor, y: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Precision, recall, density, coverage, ``[PARTS, 4]`` with each part left out, and ``[4]`` with all. Counts, whatever the chunks."""
    around_x, around_y = _radii(x, k), _radii(y, k)
    part_x, part_y = _part(len(x), x.device), _part(len(y), x.device)
    balls = torch.zeros(PARTS + 1, len(y), dtype=torch.int64, device=x.device)
    covered, recalled = (torch.zeros(PARTS + 1, len(x), dtype=torch.bool, device=x.device) for _ in range(2))
    for rows, d in _distances(x, y):
        for g in range(PARTS + 1):
            inside = d <= around_x[g, rows, None]
            balls[g] += inside.sum(0)
            covered[g, rows] = (inside & (part_y != g)).any(1)
            recalled[g, rows] = (d <= around_y[g]).any(1)
    found = []
    for g in range(PARTS + 1):
        of_x, of_y = part_x != g, part_y != g
        counts = (balls[g, of_y] > 0).sum(), recalled[g, of_x].sum(), balls[g, of_y].double().sum() / k, covered[g, of_x].sum()
        found.append([float(count) / int(of.sum()) for count, of in zip(counts, (of_y, of_x, of_y, of_x), strict=True)])
    scores = torch.tensor(found, dtype=torch.float64)
    return scores[:-1], scores[-1]
