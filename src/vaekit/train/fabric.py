"""Lightning Fabric on one device, without its announcements."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import torch

from vaekit.train.settings import Training

__all__ = ["single_device"]


def single_device(training: Training, device: torch.device) -> Any:
    """A Fabric that places modules on the device and runs them in the precision that is asked for."""
    from lightning.fabric import Fabric  # seconds to import, so only here

    # Fabric announces some things through the logger that Lightning's other half sets up when both are installed
    loggers = [logging.getLogger(name) for name in ("lightning.fabric", "lightning.pytorch")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            devices: int | list[int] = 1 if device.index is None else [device.index]
            precision: Any = training.precision  # one of PRECISIONS, all of which Fabric knows
            return Fabric(accelerator=device.type, devices=devices, precision=precision)
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
