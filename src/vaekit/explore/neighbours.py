"""A map that is no plane of latent space: UMAP of the codes (McInnes, Healy and Melville, 2018)."""

from __future__ import annotations

import importlib
import importlib.util

import numpy as np
from torch import Tensor

from vaekit.errors import InputError
from vaekit.explore.pack import Block

__all__ = ["FITTED", "require_umap", "umap_of"]

FITTED = 10_000
"""Codes that the map is fitted to, at most; the others are placed on it afterwards."""
NEIGHBOURS = 15
LEAST = 5


def require_umap() -> None:
    """Refuse where the package is missing.

    Raises:
        InputError: the extra that brings it.
    """
    if importlib.util.find_spec("umap") is None:
        raise InputError("--map umap: it needs the package umap-learn: pip install 'vaekit[umap]', or leave out --map")


def umap_of(z: Tensor, *, seed: int) -> Block:
    """Places ``[N, 2]`` of codes ``z`` ``[N, D]``, the first `FITTED` of which make the map; the same at every run with a seed.

    Raises:
        InputError: the package is missing; fewer than 5 codes.
    """
    require_umap()
    codes = z.float().numpy()
    if len(codes) < LEAST:
        raise InputError(f"--map umap: a map by neighbours needs {LEAST} rows or more, and there are {len(codes)}: leave it out")
    few, rest = codes[:FITTED], codes[FITTED:]
    # one worker: with several its result is not that of the seed
    made = importlib.import_module("umap").UMAP(
        n_components=2, n_neighbors=min(NEIGHBOURS, len(few) - 1), random_state=seed % 2**32, n_jobs=1, init="pca"
    )
    places = [made.fit_transform(few)]
    if len(rest):
        places.append(made.transform(rest))
    found = np.concatenate(places)
    return Block.of((found - found.mean(0)).astype("<f4"))
