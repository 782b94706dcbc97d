"""remembered(): bytes that are slow to decode are kept in the cache, checked at every read, and made again when damaged."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vaekit.data.fetch import Source, remembered

ARRAY = np.arange(24, dtype=np.uint8).reshape(4, 6)
TOY = Source("toy", urls=(), files={}, content={"rows": f"sha256:{hashlib.sha256(ARRAY.tobytes()).hexdigest()}"})


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VAEKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


class Maker:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        self.calls += 1
        return ARRAY.copy()


def test_decoded_bytes_are_made_once_and_made_again_when_damaged(cache: Path) -> None:
    make = Maker()
    for _ in range(3):
        assert np.array_equal(remembered(TOY, "rows", (4, 6), make), ARRAY)
    assert make.calls == 1
    kept = cache / "toy" / "rows.uint8"
    assert files(cache) == ["toy/rows.uint8"]
    for damage in (b"", ARRAY.tobytes()[:-1], ARRAY.tobytes() + b"\0", ARRAY.tobytes()[::-1]):
        kept.write_bytes(damage)
        made = make.calls
        for _ in range(2):
            assert np.array_equal(remembered(TOY, "rows", (4, 6), make), ARRAY)
        assert make.calls == made + 1
    assert files(cache) == ["toy/rows.uint8"]


def test_a_cache_that_cannot_be_written_only_costs_time(cache: Path) -> None:
    cache.write_bytes(b"a file where the folder should be")
    make = Maker()
    for _ in range(2):
        assert np.array_equal(remembered(TOY, "rows", (4, 6), make), ARRAY)
    assert make.calls == 2


def test_a_full_disk_leaves_no_half_file(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    assert np.array_equal(remembered(TOY, "rows", (4, 6), Maker()), ARRAY)
    assert files(cache) == []
