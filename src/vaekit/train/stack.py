"""Several runs whose models are one: their parameters, buffers and averages live in tensors with the runs along the first axis, of which
each model's own are views. What a `Run` reads, saves and restores is therefore what the stack has changed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from vaekit.errors import NonFiniteError
from vaekit.models.core import LatentModel
from vaekit.objectives.core import Loss, Objective
from vaekit.train.adam import InGraphAdam, Moments
from vaekit.train.checkpoint import Checkpoints
from vaekit.train.logs import Logger
from vaekit.train.meter import Meter
from vaekit.train.program import NotTogetherError, Program, Recorded, Request, autocast, recorded
from vaekit.train.ranks import restore_noise
from vaekit.train.run import Run
from vaekit.train.settings import Training
from vaekit.types import Batch

__all__ = ["Cell", "Member", "Stack"]


@dataclass(frozen=True)
class Cell:
    """What `fit` is given for one model: model, objective, settings (``training``) and the folder of its run (None keeps all in memory)."""

    model: LatentModel
    objective: Objective
    training: Training
    out: Path | None = None


@dataclass
class Member:
    """A cell while it is trained. ``lost`` is set once something of it was not finite; from then on nobody looks at it.

    Attributes:
        cell: what was asked for.
        run: its state.
        store: its checkpoints, where it has a folder.
        loggers: what its rows go to.
        noise: states of its generators, by name.
        history: its rows so far.
        lost: what was not finite.
    """

    cell: Cell
    run: Run
    store: Checkpoints | None
    loggers: list[Logger]
    noise: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    lost: NonFiniteError | None = None

    def forward(self, batch: Batch, step: int) -> Loss:
        """The model's own step, in the precision of its training."""
        with autocast(self.cell.training, self.run.device):
            return self.run.module(batch, step)

    def note(self, text: str) -> None:
        """Into its log."""
        for logger in self.loggers:
            logger.note(text)

    @contextmanager
    def in_its_noise(self, generator: torch.Generator) -> Iterator[None]:
        """torch's generators are where this run alone would have them; where they are afterwards is kept."""
        restore_noise(self.noise | {generator.device.type: generator.get_state()}, self.run.device)
        yield
        self.noise = self.run.ranks.noise()
        generator.set_state(self.noise[generator.device.type])


class Stack:
    """M members and the `Program` of their steps.

    Args:
        members: as many as the program's size, alike but for weights, seeds, learning rates and the program's constants.
        program: of one of them.

    Raises:
        NotTogetherError: stacked they would not compute what they compute alone.
    """

    def __init__(self, members: Sequence[Member], program: Program) -> None:
        self.members, self.program, self.device = members, program, members[0].run.device
        self.rates = [member.run.rates[0] for member in members]
        modules = [member.run.module for member in members]
        self.index = torch.arange(min(len(program.split), program.training.batch_size), device=self.device)
        alone = [recorded(m, program.split, member.cell.training, self.index, 0) for m, member in zip(modules, members, strict=True)]
        self.requests: dict[int, list[Request]] = {len(self.index): alone[0].requests}
        self.names, self.count, self.total = alone[0].names, 0, torch.zeros(0)
        parameters, tensors = ([dict(getattr(m, f"named_{kind}")()) for m in modules] for kind in ("parameters", "buffers"))
        both = [p | b for p, b in zip(parameters, tensors, strict=True)]
        constants = {f"{path}.given_{name}": (path, name) for path, name in program.constants}
        self.leaves = [_stacked([p[name].detach() for p in parameters]).requires_grad_() for name in program.trained]
        self.held = []
        for name in program.held:
            if name in constants:
                path, attribute = constants[name]
                weights = [float(getattr(m.get_submodule(path), attribute).value) for m in modules]
                self.held.append(torch.tensor(weights, dtype=torch.float32, device=self.device))
            else:
                self.held.append(_stacked([own[name].detach() for own in both]))
        self._try(alone)
        for i, own in enumerate(both):
            for name, stacked in zip([*program.trained, *program.held], [*self.leaves, *self.held], strict=True):
                if name in own:
                    own[name].data = stacked.detach()[i]
        self.adam = InGraphAdam(members[0].run.optimiser, self.leaves)
        self.trained = [[p[name] for name, used in zip(program.trained, alone[0].used, strict=True) if used] for p in parameters]
        used = [leaf.detach() for leaf, used in zip(self.leaves, alone[0].used, strict=True) if used]
        self.first, self.second = ([torch.zeros_like(leaf) for leaf in used] for _ in range(2))
        self.generators = [torch.Generator(self.device).manual_seed(member.cell.training.seed) for member in members]
        for member, generator in zip(members, self.generators, strict=True):
            member.noise = member.run.ranks.noise() | {generator.device.type: generator.get_state()}
        self.gather()

    def step(self, indices: Tensor, step: int, factor: float) -> None:
        """Train each model on its batch.

        Args:
            indices: rows ``[M, B]``.
            step: number of the step.
            factor: of the learning rates.
        """
        one, two = self.adam.betas
        rates, t = [rate * factor for rate in self.rates], step + 1
        scalars = [[rate / (1 - one**t) for rate in rates], [math.sqrt(1 - two**t)] * len(rates), rates]
        moments = Moments(torch.tensor(scalars, dtype=torch.float32).to(self.device), self.first, self.second)
        size = indices.shape[1]
        if size not in self.requests:
            module = self.members[0].run.module.train()
            self.requests[size] = recorded(module, self.program.split, self.program.training, indices[0], step).requests
        sums = self.program(self.adam, self.held, moments, indices, self._drawn(self.requests[size]), step)
        self.total = sums if self.count == 0 else self.total + sums
        self.count += size

    def finite(self) -> list[bool]:
        """Of each member: whether surrogate, gradient norm and bound have been finite since the epoch began. Waits for the device."""
        if self.count == 0:
            return [True] * len(self.members)
        kept = [i for i, name in enumerate(self.names) if name in ("surrogate", "grad_norm", "bound")]
        found: list[bool] = self.total[:, kept].isfinite().all(1).tolist()
        return found

    def meters(self) -> list[Meter]:
        """Each member's sums of the epoch so far."""
        return [Meter(self.names, self.total[i], self.count) if self.count else Meter() for i in range(len(self.members))]

    def begin_epoch(self) -> None:
        """Start the sums anew."""
        self.count = 0

    def scatter(self) -> None:
        """Put into each member's `Run` what it does not see through its views: sums, counts of steps."""
        for member, meter, parameters in zip(self.members, self.meters(), self.trained, strict=True):
            member.run.meter = meter
            if member.run.at.step > 0:
                member.run.scale_rates(self.program.training.schedule(member.run.at.step - 1))
            for p in parameters:
                member.run.optimiser.state[p]["step"].fill_(float(member.run.at.step))

    def gather(self) -> None:
        """Take over what the members' `Run` hold: after a checkpoint was loaded, and at the start."""
        for i, (member, generator, parameters) in enumerate(zip(self.members, self.generators, self.trained, strict=True)):
            state, (group,) = member.run.optimiser.state, member.run.optimiser.param_groups
            for p, first, second in zip(parameters, self.first, self.second, strict=True):
                own = state[p]
                if own:
                    first[i].copy_(own["exp_avg"])
                    second[i].copy_(own["exp_avg_sq"])
                count = torch.zeros((), device=p.device if group["fused"] or group["capturable"] else "cpu")
                state[p] = {"step": count, "exp_avg": first[i], "exp_avg_sq": second[i]}
            generator.set_state(member.noise[generator.device.type])
        meters = [member.run.meter for member in self.members]
        totals = [meter.total for meter in meters if meter.total is not None]
        self.count = meters[0].count
        if totals:
            self.total = torch.stack([total.to(self.device) for total in totals])

    def release(self) -> None:
        """Give each model tensors of its own: a view would keep all of them in memory."""
        for member in self.members:
            module = member.run.module
            for t in [*module.parameters(), *module.buffers()]:
                t.data = t.data.clone()

    def _drawn(self, requests: list[Request]) -> list[Tensor]:
        rows = [[request.draw(generator) for request in requests] for generator in self.generators]
        return [torch.stack(drawn) for drawn in zip(*rows, strict=True)]

    def _try(self, alone: list[Recorded]) -> None:
        """One forward pass of the stack beside those of each model alone."""
        if not all(
            (a.requests, a.prepared, a.names, a.used) == (alone[0].requests, alone[0].prepared, alone[0].names, alone[0].used)
            for a in alone
        ):
            raise NotTogetherError("their steps do not ask for the same noise or do not log the same terms")
        generators = [torch.Generator(self.device).manual_seed(member.cell.training.seed) for member in self.members]
        rows = [[request.draw(generator) for request in alone[0].requests] for generator in generators]
        drawn = [torch.stack(one) for one in zip(*rows, strict=True)]
        index = self.index.expand(len(self.members), -1)
        try:
            surrogate, _ = self.program.forward(self.leaves, [t.clone() for t in self.held], index, drawn, 0)
        except (RuntimeError, ValueError, TypeError) as error:
            reason = " ".join(str(error).partition("\n")[0].split())[:200]
            raise NotTogetherError(f"stacked, they cannot be computed: {reason}") from error
        want, got = torch.tensor([a.surrogate for a in alone]), surrogate.detach().float().mean(1).cpu()
        tolerance = 1e-2 if self.program.training.precision == "bf16-mixed" else 1e-4
        if not torch.allclose(got, want, rtol=tolerance, atol=tolerance, equal_nan=True):
            raise NotTogetherError(
                f"stacked, their surrogates differ from those that they have alone by {float((got - want).abs().max()):.3g}"
            )


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    """``[M, ...]``, each row stored as its tensor is: the weights of convolutions keep their channels innermost."""
    like = tensors[0]
    dense = like.is_contiguous() or (like.dim() == 4 and like.is_contiguous(memory_format=torch.channels_last))
    strides = like.stride() if dense else torch.empty(like.shape, device="meta").stride()
    found = torch.empty_strided((len(tensors), *like.shape), (like.numel(), *strides), dtype=like.dtype, device=like.device)
    for row, t in zip(found, tensors, strict=True):
        row.copy_(t)
    return found
