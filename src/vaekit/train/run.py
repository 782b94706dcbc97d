"""Everything that changes while a model is trained, in one place: what a checkpoint holds, and nothing else does."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from vaekit.errors import InputError
from vaekit.train.checkpoint import Checkpoints, load_state, pack, unpack
from vaekit.train.ema import EMA
from vaekit.train.files import read
from vaekit.train.keep import as_parameters
from vaekit.train.meter import Meter
from vaekit.train.ranks import Ranks
from vaekit.train.sharding import sharded_like, whole
from vaekit.train.step import Step

__all__ = ["Counters", "Run", "State", "go_on", "permutation"]

State = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors by name, and a JSON value."""


@dataclass
class Counters:
    """Where a run stands: epochs done, batches done in the current one, optimiser steps, seconds, and the best validation so far.

    Attributes:
        epoch: epochs done.
        batch: batches done in the current one.
        step: optimiser steps done.
        seconds: spent training.
        best: validation bound, of those after the warm-up; None before the first.
        best_step: the step that it was measured at.
        stale: epochs since.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    seconds: float = 0.0
    best: float | None = None  # validation bound, of those after the warm-up
    best_step: int | None = None
    stale: int = 0  # epochs since the best


@dataclass
class Run:
    """The state of a run. `state` and `restore` are each other's inverse, bit for bit.

    Attributes:
        module: model and objective.
        optimiser: torch's.
        ema: the average of the weights, where there is one.
        device: where the module is.
        identity: the settings that a resumed run has to share.
        ranks: the processes.
        at: where it stands.
        meter: the sums of the epoch so far.
        best: the weights of the best validation so far, by name.
    """

    module: Step
    optimiser: Optimizer
    ema: EMA | None
    device: torch.device
    identity: dict[str, object]
    ranks: Ranks
    at: Counters = field(default_factory=Counters)
    meter: Meter = field(default_factory=Meter)
    best: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        groups = [{k: v for k, v in group.items() if k not in ("params", "fused", "foreach")} for group in self.optimiser.param_groups]
        self.identity = self.identity | {"optimiser": f"{type(self.optimiser).__name__} {groups}"}
        self.rates = [group["lr"] for group in self.optimiser.param_groups]  # before any schedule
        # not those that are meant to hold infinities, as the mask of an attention layer does
        self.finite = {name for name, b in self.module.named_buffers() if b.is_floating_point() and bool(b.isfinite().all())}

    def scale_rates(self, factor: float) -> None:
        """Learning rate = the optimiser's own times the schedule's factor."""
        for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor

    def state(self) -> State:
        """All of it, by reference where the weights are not sharded: clone the tensors to keep them.

        Raises:
            InputError: something in the module that is no tensor.
        """
        tensors = {f"module/{name}": t for name, t in self.module.state_dict().items()}
        if not all(isinstance(t, Tensor) for t in tensors.values()):
            name = next(name for name, t in tensors.items() if not isinstance(t, Tensor))
            raise InputError(f"{name} is a {type(tensors[name]).__name__}: a checkpoint holds tensors only, so keep it in a buffer")
        if self.ema is not None:
            tensors |= {f"ema/{name}": t for name, t in self.ema.average.items()}
        if self.meter.total is not None:
            tensors["sums"] = self.meter.total
        tensors |= {f"best/{name}": t for name, t in self.best.items()}
        tensors |= {f"noise/{name}": t for name, t in self.ranks.noise().items()}
        optimiser = pack(self.optimiser.state_dict(), "optimiser", tensors)
        return {name: whole(t) for name, t in tensors.items()}, {
            "optimiser": optimiser,
            "at": asdict(self.at),
            "names": self.meter.names,
            "count": self.meter.count,
            "identity": self.identity,
        }

    def snapshot(self) -> State:
        """`state`, on this device, with tensors of its own."""
        tensors, value = self.state()
        return {name: t.clone() for name, t in tensors.items()}, value

    def restore(self, state: State, source: str) -> None:
        """Go to a state, which messages say to come from ``source``.

        Raises:
            InputError: it is of another model, or of a run with other settings.
        """
        tensors, value = state
        theirs = value["identity"]
        for name in self.identity | theirs:
            if theirs.get(name) != self.identity.get(name):
                raise InputError(
                    f"{source} was trained with {name} {theirs.get(name)} and is to go on with {self.identity.get(name)}: "
                    "a resumed run is the same run, so keep the setting, or start a new run"
                )
        load_state(self.module, _under("module/", tensors), source)
        # load_state_dict would keep these very tensors, and training would then change the state it was given
        optimiser = unpack(value["optimiser"], {name: t.clone() for name, t in tensors.items()})
        self.optimiser.load_state_dict(sharded_like(optimiser, self.optimiser))
        as_parameters(self.optimiser)
        if self.ema is not None:
            self.ema.load(_under("ema/", tensors))
        self.best = {name: t.to(self.device, copy=True) for name, t in _under("best/", tensors).items()}
        total = tensors["sums"].to(self.device, copy=True) if "sums" in tensors else None
        self.meter = Meter(tuple(value["names"]), total, value["count"])
        self.at = Counters(**value["at"])
        self.ranks.restore(_under("noise/", tensors))

    def broken(self) -> str | None:
        """The first weight or buffer that is NaN or infinite, and why; no checkpoint may hold one."""
        for name, p in self.module.named_parameters():
            if not bool(whole(p).isfinite().all()):
                return f"{name} is NaN or infinite after the update, though its gradient was finite; lower the learning rate"
        for name, b in self.module.named_buffers():
            if name in self.finite and not bool(b.isfinite().all()):
                return f"the buffer {name} is NaN or infinite after the step, though the loss was finite; clean the data"
        return None

    def judge(self, bound: float, keep: bool) -> None:
        """A validation bound: the best so far, or not. ``keep`` the best's weights."""
        if math.isfinite(bound) and (self.at.best is None or bound > self.at.best):
            self.at.best, self.at.best_step, self.at.stale = bound, self.at.step, 0
            self.best = {name: whole(t.detach()).clone() for name, t in self.module.state_dict().items()} if keep else {}
        else:
            self.at.stale += 1


def go_on(run: Run, store: Checkpoints | None, resume: bool) -> bool:
    """Go to the newest checkpoint of ``store``, if ``resume`` asks for it and there is one: what the first process says, for it has the
    folder's lock.

    Raises:
        InputError: ``resume`` without a folder; a folder that holds a run, without ``resume``.
    """
    if resume and store is None:
        raise InputError("resume=True needs the folder of the run: give out=")
    found = None
    if store is not None and run.ranks.first:
        found = store.load() if resume else None
        if not resume and store.paths():
            raise InputError(f"{store.folder.parent} holds a run already: resume it (resume=True), or choose another folder")
    step = run.ranks.tell(-1 if found is None else int(found[0].stem[5:]))
    if step >= 0 and found is None and store is not None:
        found = store.at(step), *read(store.at(step))
    if found is not None:
        path, tensors, value = found
        run.restore((tensors, value), str(path))
    return found is not None


def permutation(n: int, seed: int, epoch: int) -> Tensor:
    """The order of the rows in an epoch, ``[n]``: a function of the seed and the epoch alone, the same on every device."""
    words = np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)
    return torch.randperm(n, generator=torch.Generator().manual_seed(int(words[0])))


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
