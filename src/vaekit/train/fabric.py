"""One device by torch alone, several processes by Lightning Fabric, without its announcements: the same three calls."""

from __future__ import annotations

import atexit
import logging
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.optim import Optimizer

from vaekit.errors import InputError
from vaekit.objectives.core import Loss
from vaekit.torchrun import Rank, this_rank
from vaekit.train.ranks import in_contact
from vaekit.train.settings import Training
from vaekit.train.sharding import shard
from vaekit.train.step import Step
from vaekit.types import Batch

__all__ = ["OneDevice", "check_processes", "connect"]


class OneDevice:
    """What Fabric does for a single process, with the settings ``training``. It costs nothing to import, where Fabric takes seconds and
    150 MiB."""

    def __init__(self, training: Training, device: torch.device) -> None:
        self.device, self.precision = device, training.precision

    def setup_module(self, module: Step) -> Callable[[Batch, int], Loss]:
        """The module on the device, and its forward pass in the precision that is asked for."""
        module.to(self.device)
        if self.precision == "64-true":
            return self._double(module.double())
        if self.precision == "bf16-mixed":
            return self._mixed(module)
        return module

    def setup_optimizers(self, optimiser: Optimizer) -> Optimizer:
        """The optimiser as it is."""
        return optimiser

    def backward(self, loss: Tensor) -> None:
        """Gradients of a scalar."""
        loss.backward()

    def _mixed(self, module: Step) -> Callable[[Batch, int], Loss]:
        def forward(batch: Batch, step: int) -> Loss:
            with torch.autocast(self.device.type, torch.bfloat16):
                loss: Loss = module(batch, step)
            # an objective of raw network outputs gives bfloat16, which means over a batch would round
            return Loss(_single(loss.surrogate), _single(loss.bound), {name: _single(t) for name, t in loss.logs.items()})

        return forward

    @staticmethod
    def _double(module: Step) -> Callable[[Batch, int], Loss]:
        def forward(batch: Batch, step: int) -> Loss:
            before = torch.get_default_dtype()
            torch.set_default_dtype(torch.float64)  # what a forward pass makes itself
            try:
                loss: Loss = module(batch._replace(x=batch.x.double(), c=None if batch.c is None else batch.c.double()), step)
                return loss
            finally:
                torch.set_default_dtype(before)

        return forward


def _single(t: Any) -> Any:
    return t.float() if isinstance(t, Tensor) and t.dtype == torch.bfloat16 else t


def connect(training: Training, device: torch.device) -> Any:
    """What places modules on the device and runs them in the precision that ``training`` asks for, connected to the other processes."""
    rank = this_rank()
    if training.devices == 1 or rank is None:
        return OneDevice(training, device)
    from lightning.fabric import Fabric  # seconds to import, so only here
    from lightning.fabric.strategies.ddp import DDPStrategy
    from lightning.fabric.strategies.model_parallel import ModelParallelStrategy

    # Fabric announces some things through the logger that Lightning's other half sets up when both are installed
    loggers = [logging.getLogger(name) for name in ("lightning.fabric", "lightning.pytorch")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            precision: Any = training.precision  # one of PRECISIONS, all of which Fabric knows
            strategy: Any
            if training.strategy == "fsdp":
                strategy = ModelParallelStrategy(shard, data_parallel_size=rank.size, tensor_parallel_size=1)
            else:
                strategy = DDPStrategy(find_unused_parameters=True)  # as one process: what a step does not reach is left as it is
            fabric = Fabric(
                accelerator=device.type, devices=rank.here, num_nodes=rank.size // rank.here, strategy=strategy, precision=precision
            )
            with in_contact(rank.number):
                _join(rank, "nccl" if device.type == "cuda" else "gloo")
                fabric.launch()
            return fabric
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _join(rank: Rank, backend: str) -> None:
    """Connect the processes, before Fabric would: torch hands the same store to every attempt of an elastic restart, and in it the new
    processes would look for the addresses of those that have died. So each attempt has keys of its own."""
    if distributed.is_initialized():
        return
    store, number, size = next(rendezvous("env://", rank.number, rank.size))
    own = PrefixStore(f"vaekit/{rank.size}/{rank.attempt}", store)
    distributed.init_process_group(backend, store=own, rank=number, world_size=size)
    atexit.register(_leave)


def _leave() -> None:
    """The group's threads may not outlive the interpreter."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def check_processes(training: Training) -> None:
    """As many processes as are asked for.

    Raises:
        InputError: otherwise.
    """
    rank = this_rank()
    size = 1 if rank is None else rank.size
    if training.devices == size:
        return
    n = training.devices
    if size == 1:
        raise InputError(
            f"devices={n} needs {n} processes and this is one: start a script with torchrun --nproc-per-node {n} SCRIPT.py, "
            f"a recipe with vaekit train RECIPE --devices {n}"
        )
    raise InputError(f"devices={n} in one of the {size} processes that torchrun has started: ask for devices={size}")
