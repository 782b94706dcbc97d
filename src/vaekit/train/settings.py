"""How to train, as a value."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass, is_dataclass, replace
from functools import partial

import torch
from torch import nn
from torch.optim import Optimizer

from vaekit.errors import InputError, nearest
from vaekit.objectives.schedules import Constant, Schedule
from vaekit.torchrun import this_rank

__all__ = ["PRECISIONS", "STRATEGIES", "Training"]

PRECISIONS = ("32-true", "64-true", "bf16-mixed", "auto")
"""What a run may ask for, by Fabric's names. float16 is not among them: its loss scaler skips steps with infinite gradients, which could
then no longer be told from a model that has gone wrong; nor is pure bfloat16, which would round the data that the likelihood scores. "auto"
is "bf16-mixed" where the device multiplies bfloat16 in hardware and "32-true" elsewhere."""

STRATEGIES = ("ddp", "fsdp")

FUSED = (torch.optim.Adam, torch.optim.AdamW)
ADAM = partial(torch.optim.Adam, lr=1e-3)
ALWAYS = Constant(1.0)


@dataclass(frozen=True)
class Training:
    """How `vaekit.fit` trains.

    Attributes:
        epochs: passes over the training split.
        batch_size: examples a step, on all devices together; the last batch of an epoch may be smaller.
        optimiser: parameters -> a torch optimiser; default ``functools.partial(torch.optim.Adam, lr=1e-3)``.
        schedule: multiplies the optimiser's learning rate, a function of the step.
        clip: largest global gradient norm, None for no clipping.
        ema: decay d of an exponential moving average of the weights, theta_t = sum_{s<=t} (1 - d) d^(t-s) theta_s / (1 - d^t), which is
            then what is validated and returned; None for none. The division removes the weight of the start, as in Adam.
        patience: stop after this many epochs without a better validation bound, and return the best epoch's weights; None for never.
            Epochs before the penalty's schedules have settled are neither counted nor taken for the best.
        seed: of the order of the data and of all noise.
        device: "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:1".
        precision: "32-true", "64-true", "bf16-mixed", or "auto" for bf16-mixed where the device has it in hardware. Bfloat16 keeps 8 bits
            of what the networks pass on; weights, heads, densities and evaluation stay float32. Fine for binary data, too coarse for a
            Gaussian likelihood of small variance. Training in "64-true" has float64 checkpoints; the model comes back as it came.
        compile: make one program of each step (`torch.compile`), which changes the numbers by rounding alone; None for: on a processor,
            where the run has at least 2000 steps and the model no batch normalisation of images. Objectives and penalties that do not
            promise it (`Objective.compiles`) and "64-true" are never compiled.
        checkpoint_minutes: a checkpoint every so often, 0 for one after every step; besides those at the end of training, at the end of
            an epoch, when five seconds have passed since the last one or the weights are the best so far (``patience``), and when a
            signal ends the run. What was done since is lost to a kill, and done again when the run is resumed, to the same bits.
        keep: how many checkpoints to keep.
        repeat: steps in a row on each batch, with new noise each time; an epoch has that many times more steps. More than 1 pays where
            an objective prepares a batch at a cost (`objectives.MCEM`).
        devices: processes that train together, a device each, started by ``torchrun`` or ``vaekit train --devices``. Each takes its part
            of every batch, and the steps are those of one process up to rounding, batch normalisation (torch's own) included; never
            compiled. What no density draws (dropout, zuko's flows, mixtures) differs from one process, by its noise alone. Objectives
            that compare the examples of a batch are refused (`Objective.per_example`), and so are codebooks that follow averages.
        strategy: "ddp", every process has the whole model; "fsdp", each keeps a part of the weights, averages and gradients, put
            together for each pass (torch's ``fully_shard``). Weights and checkpoints are whole in both, and any number of processes can
            resume.
        replay: full batches whose steps start as one once the objective's schedules have settled: on a GPU as a CUDA graph, recorded
            once, so that nothing in them waits for Python; not yet run on one. Rows in memory, torch's fused Adam or AdamW, an objective
            that promises it (`Objective.compiles`), one process, no "64-true"; else, or where a recording fails or does not do what the
            plain steps do, the steps are taken one by one and the log says why. Checkpoints and interruptions wait for a group's end.
            The numbers change by rounding at most. On a processor the same steps are called one after the other, which gains nothing.

    Raises:
        InputError: a value out of range.

    >>> Training(epochs=0)
    Traceback (most recent call last):
    vaekit.errors.InputError: epochs=0: at least 1 is needed
    """

    epochs: int = 10
    batch_size: int = 128
    _: KW_ONLY
    optimiser: Callable[[Iterable[nn.Parameter]], Optimizer] = ADAM
    schedule: Schedule = ALWAYS
    clip: float | None = None
    ema: float | None = None
    patience: int | None = None
    seed: int = 0
    device: str = "auto"
    precision: str = "32-true"
    checkpoint_minutes: float = 1.0
    keep: int = 3
    repeat: int = 1
    compile: bool | None = None
    devices: int = 1
    strategy: str = "ddp"
    replay: int = 1

    def __post_init__(self) -> None:
        for name, least in (
            ("epochs", 1),
            ("batch_size", 1),
            ("patience", 1),
            ("keep", 1),
            ("repeat", 1),
            ("seed", 0),
            ("devices", 1),
            ("replay", 1),
        ):
            value = getattr(self, name)
            if value is None and name == "patience":
                continue
            if not isinstance(value, int) or isinstance(value, bool):
                raise InputError(f"{name}={value!r} is no whole number; at least {least} is needed")
            if value < least:
                raise InputError(f"{name}={value}: at least {least} is needed")
        if self.ema is not None and not 0 < self.ema < 1:
            raise InputError(f"ema={self.ema}: the decay lies between 0 and 1, as 0.999; None for no average")
        if self.clip is not None and not self.clip > 0:
            raise InputError(f"clip={self.clip}: the largest gradient norm is positive; None for no clipping")
        if not self.checkpoint_minutes >= 0:
            raise InputError(f"checkpoint_minutes={self.checkpoint_minutes}: minutes between checkpoints cannot be negative")
        if not isinstance(self.schedule, Schedule):
            raise InputError(f"schedule={self.schedule!r} is no Schedule; use vaekit.objectives.Cosine(1, 0, steps) or another of them")
        given: object = self.optimiser
        if isinstance(given, Optimizer):
            kind = type(given).__name__
            raise InputError(
                f"optimiser is an {kind} that is built already: give what builds it, functools.partial(torch.optim.{kind}, lr=1e-3)"
            )
        if not callable(self.optimiser):
            raise InputError(f"optimiser={self.optimiser!r} is no function; use functools.partial(torch.optim.Adam, lr=1e-3)")
        if self.precision not in PRECISIONS:
            raise InputError(f'unknown precision "{self.precision}"; {nearest(self.precision, PRECISIONS)}')
        if self.strategy not in STRATEGIES:
            raise InputError(f'unknown strategy "{self.strategy}"; {nearest(self.strategy, STRATEGIES)}')
        if self.strategy != "ddp" and self.devices == 1:
            raise InputError(f'strategy "{self.strategy}" divides a model over several processes and devices=1: ask for more devices')
        if self.devices > self.batch_size:
            raise InputError(f"batch_size={self.batch_size} cannot be divided over devices={self.devices}: each needs at least one example")
        if self.devices > 1 and self.device.startswith("cuda:"):
            raise InputError(f'device "{self.device}" is one and devices={self.devices}: use "cuda", and each process has its own')
        if re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device) is None:
            raise InputError(f'unknown device "{self.device}"; choose from: auto, cpu, cuda, cuda:0, cuda:1 and so on')

    def torch_device(self) -> torch.device:
        """The device that is meant, with its index.

        Raises:
            InputError: it is not there.
        """
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if self.device == "cpu" or (self.device == "auto" and count == 0):
            return torch.device("cpu")
        index, rank = torch.device("cuda" if self.device == "auto" else self.device).index or 0, this_rank()
        if self.devices > 1 and rank is not None:
            index = rank.local
            if index >= count:
                raise InputError(f'{rank.here} processes on this machine and {count} CUDA device(s): start as many, or use device="cpu"')
        if index >= count:
            seen = f"{count} CUDA device(s)" if count else "no CUDA device"
            raise InputError(f'device "{self.device}" was asked for and torch sees {seen}; use "auto" or "cpu"')
        return torch.device("cuda", index)

    def resolved(self) -> Training:
        """These settings with the precision that "auto" means on their device.

        Raises:
            InputError: the device is not there.
        """
        if self.precision != "auto":
            return self
        return replace(self, precision="bf16-mixed" if _bfloat16(self.torch_device()) else "32-true")

    def build(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """The optimiser.

        Raises:
            InputError: it is none, or one that evaluates the loss more than once a step.
        """
        optimiser = self.optimiser(parameters)
        if not isinstance(optimiser, Optimizer):
            raise InputError(f"optimiser(parameters) gave a {type(optimiser).__name__} and no torch.optim.Optimizer")
        if type(optimiser) in FUSED and all(_dense(p) for group in optimiser.param_groups for p in group["params"]):
            for group in optimiser.param_groups:
                if group.get("fused", False) is None and group.get("foreach") is None and not group.get("differentiable"):
                    # one pass over memory for all of an update, where nobody asked for another way; it walks raw memory, so averages must
                    # be stored as their parameters are (`keep.as_parameters`)
                    group["fused"] = True
        if isinstance(optimiser, torch.optim.LBFGS):
            raise InputError("LBFGS evaluates the loss several times a step, which noise and minibatches do not allow: use Adam or SGD")
        return optimiser

    def identity(self) -> dict[str, object]:
        """The settings that determine the numbers of a run, for JSON: resuming must not change them. The optimiser is compared itself."""
        # A schedule that is no dataclass would print its address, which is another in every process.
        schedule = repr(self.schedule) if is_dataclass(self.schedule) else type(self.schedule).__name__
        return {
            "batch_size": self.batch_size,
            "repeat": self.repeat,
            "schedule": schedule,
            "clip": self.clip,
            "ema": self.ema,
            "seed": self.seed,
            "precision": self.precision,
        }


def _dense(p: nn.Parameter) -> bool:
    return p.is_contiguous() or (p.dim() == 4 and p.is_contiguous(memory_format=torch.channels_last))


def _bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return any(getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
