"""The fastest exact float32 matrix product that this processor has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["matching_matmul"]


@contextmanager
def matching_matmul(device: torch.device) -> Iterator[None]:
    """Let oneDNN multiply float32 matrices where that is as exact as the default; the setting is put back.

    ``"medium"`` permits bfloat16 products. On processors without such units oneDNN multiplies in float32 all the same, on AMD's at twice
    the rate of the default library; on the others it would round. So a product is tried first, and the setting kept only where it agrees.
    Nothing is tried where there are matrix units (AMX): oneDNN would take them, and hold some 10 MiB for them ever after.
    """
    before = _precision()
    parts: tuple[Any, ...] = (torch.backends.mkldnn.matmul, torch.backends.cuda.matmul)  # type: ignore[attr-defined]
    newer = [part.fp32_precision for part in parts]
    if device.type != "cpu" or before != "highest" or _has_tiles():
        yield
        return
    try:
        torch.set_float32_matmul_precision("medium")
        if not _agrees():
            torch.set_float32_matmul_precision(before)
        yield
    finally:
        torch.set_float32_matmul_precision(before)  # which also fixes the newer settings, so that they would no longer follow their own
        for part, value in zip(parts, newer, strict=True):
            part.fp32_precision = value


def _precision() -> str | None:
    """None where the program uses torch's newer setting, which must not be mixed with this one."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return None


def _has_tiles() -> bool:
    known = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(known is not None and known())


def _agrees() -> bool:
    """Whether matrix products are exact to float32: bfloat16 would be off by some 1e-3 of their size."""
    a, b = (torch.arange(n * 256, dtype=torch.float32, device="cpu").sin().view(n, 256) for n in (64, 96))
    exact = a.double() @ b.double().mT
    return bool(((a @ b.mT).double() - exact).abs().amax() < 2e-6 * exact.abs().amax())
