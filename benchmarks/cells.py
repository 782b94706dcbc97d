"""What counts of cells are compared with: a model of each gene for itself, and groups of cells by marker genes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import gammaln

Array = npt.NDArray[Any]
GENES_AT_ONCE = 2000
LOWEST, HIGHEST = -8.0, 8.0  # of log r
MARKERS: dict[str, tuple[str, ...]] = {
    "T cells": ("CD3D", "CD3E"),
    "B cells": ("CD79A", "MS4A1"),
    "monocytes": ("LYZ", "CD14"),
    "NK cells": ("NKG7", "GNLY"),
    "platelets": ("PPBP", "PF4"),
}


@dataclass(frozen=True)
class Share:
    """A model without latents: gene g of a cell of total T is a count of mean T share_g, negative binomial of inverse dispersion r_g (or
    Poisson), independent of all others.

    The shares are those of the training counts, half a count added to each; log r has the largest likelihood given them, in [-8, 8].
    """

    share: Array
    log_r: Array

    @staticmethod
    def of(matrix: Any, totals: Array) -> Share:
        """Of a scipy sparse matrix ``[N, G]`` and the totals ``[N]``: golden section, every gene at once."""
        columns = np.asarray(matrix.sum(axis=0), dtype=np.float64).ravel() + 0.5
        share = columns / columns.sum()
        held = matrix.tocsc()
        held.sort_indices()
        parts = []
        for start in range(0, len(share), GENES_AT_ONCE):
            genes = slice(start, min(start + GENES_AT_ONCE, len(share)))
            parts.append(_likeliest(held[:, genes].tocoo(), np.outer(totals, share[genes])))
        return Share(share, np.concatenate(parts))

    def log_prob(self, matrix: Any, totals: Array) -> Array:
        """log p(x | T) of each row by negative binomials, nats ``[N]``."""
        r, x = np.exp(self.log_r), matrix.tocoo()
        none = np.array([-(r * np.log1p(total * self.share / r)).sum() for total in totals])  # all genes 0
        rows, genes, k = x.coords[0], x.coords[1], x.data.astype(np.float64)
        mean = totals[rows] * self.share[genes]
        r_k = r[genes]
        more = gammaln(k + r_k) - gammaln(r_k) - gammaln(k + 1) + k * (np.log(mean) - np.log(r_k + mean))
        return np.asarray(none + np.bincount(rows, more, minlength=len(totals)))

    def poisson(self, matrix: Any, totals: Array) -> Array:
        """log p(x | T) of each row by Poissons, nats ``[N]``."""
        x = matrix.tocoo()
        rows, k = x.coords[0], x.data.astype(np.float64)
        more = k * np.log(totals[rows] * self.share[x.coords[1]]) - gammaln(k + 1)
        return np.asarray(np.bincount(rows, more, minlength=len(totals)) - totals * self.share.sum())


def _likeliest(x: Any, mean: Array) -> Array:
    """log r of each column, given the means ``[N, G]``."""
    genes, k = torch.from_numpy(x.coords[1].astype(np.int64)), torch.from_numpy(x.data.astype(np.float64))
    mu = torch.from_numpy(mean)
    mu_k = mu[torch.from_numpy(x.coords[0].astype(np.int64)), genes]

    def likelihood(log_r: torch.Tensor) -> torch.Tensor:
        r = log_r.exp()
        r_k = r[genes]
        more = torch.lgamma(k + r_k) - torch.lgamma(r_k) - k * (r_k + mu_k).log()
        return (-(r * torch.log1p(mu / r)).sum(0)).index_add_(0, genes, more)

    golden = (math.sqrt(5) - 1) / 2
    low, high = torch.full(mu.shape[1:], LOWEST, dtype=torch.float64), torch.full(mu.shape[1:], HIGHEST, dtype=torch.float64)
    a, b = high - golden * (high - low), low + golden * (high - low)
    at_a, at_b = likelihood(a), likelihood(b)
    for _ in range(18):
        left = at_a > at_b
        low, high = torch.where(left, low, a), torch.where(left, b, high)
        point = torch.where(left, high - golden * (high - low), low + golden * (high - low))
        at = likelihood(point)
        a, b, at_a, at_b = (
            torch.where(left, point, b),
            torch.where(left, a, point),
            torch.where(left, at, at_b),
            torch.where(left, at_a, at),
        )
    return np.asarray((0.5 * (low + high)).numpy())


def normalised(matrix: Any) -> Any:
    """log(1 + 10,000 k / T), sparse as the counts are."""
    totals = np.maximum(np.asarray(matrix.sum(axis=1), dtype=np.float64).ravel(), 1.0)
    found = matrix.tocsr().astype(np.float64)
    found.data = np.log1p(1e4 * found.data / np.repeat(totals, np.diff(found.indptr)))
    return found


def scores(matrix: Any, genes: list[str]) -> Array:
    """How strongly each cell shows the markers of each group, ``[N, groups]``: their mean, each as a part of its largest value."""
    levels = normalised(matrix).tocsc()
    found = []
    for names in MARKERS.values():
        values = [levels[:, [genes.index(name)]].toarray().ravel() for name in names]
        found.append(np.mean([value / value.max() for value in values], axis=0))
    return np.stack(found, axis=1)


def groups(found: Array) -> Array:
    """The group of the highest score, -1 where all are 0."""
    return np.where(found.max(1) > 0, found.argmax(1), -1)


def purity(points: Array, group: Array, *, k: int = 15, of: Array | None = None) -> Array:
    """Of each point, the share of its k nearest neighbours that are of its own group, ``[N]``; only for the points ``of``, if given."""
    from sklearn.neighbors import NearestNeighbors

    which = np.arange(len(points)) if of is None else of
    near = NearestNeighbors(n_neighbors=k + 1).fit(points).kneighbors(points[which], return_distance=False)
    others = np.array([[j for j in row if j != i][:k] for i, row in zip(which, near, strict=True)])
    return np.asarray((group[others] == group[which][:, None]).mean(1))
