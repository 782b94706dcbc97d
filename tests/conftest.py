"""What all tests share: one thread, no display, a fixed seed, and the real data sets where they are there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before torch or matplotlib is imported. Two test processes with two threads each are slower than two with one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("AOT_INDUCTOR_COMPILE_WRAPPER_OPT_LEVEL", "O0")  # of what calls the kernels: it compiles in half of the time

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002  scikit-learn draws from the legacy generator


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets that VAEKIT_DATA names (``make test`` sets it to ../shared/data when that exists)."""
    folder = os.environ.get("VAEKIT_DATA", "")
    if not folder:
        pytest.skip("VAEKIT_DATA is not set")
    return Path(folder)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser for the pages of ``vaekit explore``, which have to be built."""
    from browser import browser  # which few tests need
    from vaekit.errors import InputError
    from vaekit.explore.page import assets

    try:
        assets()
    except InputError as error:
        pytest.skip(str(error))
    with browser() as found:
        yield found
