"""How many models fit into memory at once."""

from __future__ import annotations

from pathlib import Path

import torch

from vaekit.train.program import Recorded
from vaekit.train.settings import Training
from vaekit.train.step import Step

__all__ = ["available", "fitting", "needed"]

SHARE = 0.5
"""Part of the available memory that models trained at once may take: the rest is for what the estimate leaves out (what a compiler keeps
beside its program, a checkpoint that is written, other processes)."""


def fitting(module: Step, seen: Recorded, training: Training, device: torch.device) -> tuple[int | None, str]:
    """How many models like ``module`` may be trained at once, by what was ``seen`` of a step and the settings ``training``, at least 1
    (None: nobody knows the memory), and the reckoning in a clause."""
    free, each = available(device), needed(module, seen, training)
    if free is None:
        return None, ""
    return max(1, int(SHARE * free / each)), f"about {each / 2**20:.3g} MiB each, {free / 2**30:.3g} GiB available"


def needed(module: Step, seen: Recorded, training: Training) -> int:
    """Bytes that the training of one model ``module`` takes, by what was ``seen`` of a step: weights, gradients, Adam's two averages and
    its update, the average of the weights where there is one, buffers, and what the forward pass keeps for the backward pass."""
    trained = sum(p.nbytes for p in module.parameters() if p.requires_grad)
    held = sum(p.nbytes for p in module.parameters() if not p.requires_grad) + sum(b.nbytes for b in module.buffers())
    copies = 5 + (training.ema is not None)
    return copies * trained + held * (1 + (training.ema is not None)) + seen.kept


def available(device: torch.device) -> int | None:
    """Bytes that can still be had: of a GPU its free memory, of a Linux machine what the system and the container have left; else None."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0]) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    found = [left for left in (_of_the_system(Path("/proc/meminfo")), _of_the_container(Path("/sys/fs/cgroup"))) if left is not None]
    return min(found, default=None)


def _of_the_system(file: Path) -> int | None:
    try:
        lines = dict(line.split(":", 1) for line in file.read_text().splitlines())
        return 1024 * int(lines["MemAvailable"].split()[0])
    except (OSError, ValueError, KeyError, IndexError):  # not Linux
        return None


def _of_the_container(folder: Path) -> int | None:
    """Its limit less what it uses, but for files that the system keeps in memory and would give up."""
    try:
        limit, used = ((folder / f"memory.{name}").read_text().strip() for name in ("max", "current"))
        files = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return max(0, int(limit) - int(used) + int(files["inactive_file"]))
    except (OSError, ValueError, KeyError):  # no limit ("max"), or no such container
        return None
