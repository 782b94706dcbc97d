"""The cells that are trained at once: their loop."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch

from vaekit.data.core import Split
from vaekit.errors import InputError, NonFiniteError
from vaekit.train.checkpoint import Checkpoints, save_weights
from vaekit.train.checks import schedule_values, settled
from vaekit.train.collapse import warn_of_collapse
from vaekit.train.ema import EMA
from vaekit.train.feed import in_order
from vaekit.train.files import DamagedError, read
from vaekit.train.identity import settings
from vaekit.train.keep import channels_last, come_back, forms
from vaekit.train.logs import CSV, TextLog, read_csv
from vaekit.train.loop import Fitted
from vaekit.train.meter import named
from vaekit.train.process import Interrupted, interruptible, locked
from vaekit.train.program import NotTogetherError, Program
from vaekit.train.progress import Clock, progress_for
from vaekit.train.ranks import Alone
from vaekit.train.run import Run, permutation
from vaekit.train.stack import Cell, Member, Stack
from vaekit.train.step import Step
from vaekit.train.validation import validate

__all__ = ["Tile"]

CHECK_EVERY = 256
"""Steps between two looks at whether all is finite."""


class Tile:
    """The cells that are trained at once.

    Args:
        cells: their models, settings and folders.
        program: what trains them.
        local: the splits by their names, on the device.
        identity: the settings that a resumed run has to share.
        lost: of each cell, whether it is given up already.
    """

    def __init__(
        self, cells: Sequence[Cell], program: Program, local: dict[str, Split], identity: dict[str, object], *, lost: Sequence[bool]
    ) -> None:
        self.program, self.local, self.training = program, local, program.training
        self.device, self.rows = local["training"].x.device, len(local["training"])
        self.given = [forms(Step(cell.model, cell.objective)) for cell in cells]
        self.members = []
        for cell, gone in zip(cells, lost, strict=True):
            module = Step(cell.model, cell.objective)
            if self.device.type == "cpu":
                channels_last(module)
            module.to(self.device).train()
            training = replace(cell.training, precision=self.training.precision)
            own = training.identity() | {"rows": self.rows} | settings(module.model, "model") | settings(module.objective, "objective")
            optimiser = training.build([p for p in module.parameters() if p.requires_grad])
            run = Run(module, optimiser, None, self.device, own | identity, Alone(self.device))
            member = Member(replace(cell, training=training), run, None, [])
            member.lost = NonFiniteError("it was lost before") if gone else None
            self.members.append(member)
        self.stack = Stack(self.members, program)
        for member in self.members:
            member.run.ema = EMA(member.run.module, self.training.ema) if self.training.ema else None

    def fit(self, *, resume: bool, progress: bool) -> Iterator[tuple[int, Fitted | NonFiniteError]]:
        """Train to the end, from the newest checkpoints with ``resume``; the number and the end of each. ``progress`` shows a line or
        bar."""
        with ExitStack() as stack:
            for member, given in zip(self.members, self.given, strict=True):
                stack.callback(come_back, member.run.module, given)
            stack.callback(self.stack.release)
            for member in self.live:
                if member.cell.out is not None:
                    stack.enter_context(locked(member.cell.out))
                    member.store = Checkpoints(member.cell.out / "checkpoints", self.training.keep)
                    member.loggers = [CSV(member.cell.out / "metrics.csv"), TextLog(member.cell.out / "log.txt")]
            resumed = self._resume(resume)
            for member in self.live:
                for logger in member.loggers:
                    stack.callback(logger.close)
                    logger.begin(member.run.at.step)
                member.history = [] if member.cell.out is None else read_csv(member.cell.out / "metrics.csv")
                member.note(
                    f"trained with {len(self.members) - 1} others in one program" if len(self.members) > 1 else "by a shared program"
                )
            self._train(stack, resumed=resumed, progress=progress)
            for number, member in enumerate(self.members):
                yield number, member.lost or self._finish(member)

    @property
    def live(self) -> list[Member]:
        """Those that are not lost."""
        return [member for member in self.members if member.lost is None]

    def _train(self, stack: ExitStack, *, resumed: bool, progress: bool) -> None:
        training, at = self.training, self.members[0].run.at
        batches = -(-self.rows // training.batch_size) * training.repeat
        clock = Clock(60 * training.checkpoint_minutes)
        self.started = time.monotonic() - at.seconds
        if not resumed:
            self._save()
        bar = progress_for(epochs=training.epochs, steps=training.epochs * batches, start=at.step, show=progress)
        stack.callback(bar.close)
        bar_clock = Clock(bar.interval)
        stop = stack.enter_context(interruptible())
        while at.epoch < training.epochs and self.live:
            orders = [permutation(self.rows, m.cell.training.seed, at.epoch) for m in self.members]
            visits = [i for i in torch.stack(orders).to(self.device).split(training.batch_size, 1) for _ in range(training.repeat)]
            for index in visits[at.batch :]:
                self.stack.step(index, at.step, training.schedule(at.step))
                for member in self.members:
                    if member.run.ema is not None:
                        member.run.ema.update(at.step)
                for member in self.members:
                    member.run.at.step, member.run.at.batch = member.run.at.step + 1, member.run.at.batch + 1
                last, asked, due = at.batch == batches, stop.asked, clock.due()
                if last or asked or due or at.step % CHECK_EVERY == 0:
                    self._look()
                if bar_clock.due() and self.live:
                    bar.refresh(at.epoch + 1, at.step, self._mean([meter.means() for meter in self.stack.meters()]))
                    bar_clock.reset()
                if asked and not last:
                    raise Interrupted(at.step, self._save())
                if due and not last:  # at an epoch's end the rows come first
                    self._save()
                    clock.reset()
            self._end_epoch()
            if self.live:
                bar.epoch(self._mean([member.history[-1] for member in self.members if member.history]))
            path = self._save()
            clock.reset()
            if stop.asked:
                raise Interrupted(at.step, path)

    def _end_epoch(self) -> None:
        """A row for each member."""
        self.stack.scatter()
        valid, objective = self.local.get("validation"), self.program.module.objective
        for member in self.members:
            run = member.run
            run.at.epoch, run.at.batch = run.at.epoch + 1, 0
            if member.lost is not None:
                continue
            row = {"epoch": run.at.epoch, "step": run.at.step} | named("train", run.meter.means())
            row |= {"train/lr": float(run.optimiser.param_groups[0]["lr"])} | schedule_values(member.cell.objective, run.at.step - 1)
            if valid is not None:
                row |= named(
                    "valid", validate(run, member.forward, in_order(valid, self.device, self.training.batch_size), member.cell.training)
                )
            row["seconds"] = time.monotonic() - self.started
            member.history.append(row)
            for logger in member.loggers:
                logger.log(row)
            with warnings.catch_warnings(record=True) as found:
                warn_of_collapse(member.history, settled(objective))
            for warning in found:  # in a sweep a collapse may be what one looks for
                member.note(str(warning.message))
        self.stack.begin_epoch()

    def _look(self) -> None:
        """Give up those of which something is not finite."""
        for member, finite in zip(self.members, self.stack.finite(), strict=True):
            if not finite and member.lost is None:
                self._lose(member, "the surrogate, the bound or a gradient became NaN or infinite")

    def _lose(self, member: Member, why: str) -> None:
        at = member.run.at
        member.lost = NonFiniteError(f"by step {at.step}, epoch {at.epoch + 1}: {why}; the others go on without it")
        member.note(str(member.lost))

    def _save(self) -> Path | None:
        """A checkpoint of each member; the path of one."""
        self.stack.scatter()
        path = None
        for member, generator in zip(self.members, self.stack.generators, strict=True):
            broken = member.run.broken() if member.lost is None else None
            if broken is not None:
                self._lose(member, broken)
            if member.lost is not None or member.store is None:
                continue
            member.run.at.seconds = time.monotonic() - self.started
            with member.in_its_noise(generator):
                path = member.store.save(member.run.at.step, *member.run.state())
        return path

    def _resume(self, resume: bool) -> bool:
        """Go to the newest checkpoints that all have, if that is asked for and there are any."""
        stores = [(member, member.store) for member in self.live if member.store is not None]
        if not resume:
            for _, store in stores:
                if store.paths():
                    raise InputError(f"{store.folder.parent} holds a run already: resume it (resume=True), or choose another folder")
            return False
        common = set.intersection(*({int(path.stem[5:]) for path in store.paths()} for _, store in stores)) if stores else set()
        for step in sorted(common, reverse=True):
            try:
                states = [read(store.folder / f"step-{step:08d}.safetensors") for _, store in stores]
            except DamagedError as error:
                warnings.warn(f"{error}; the checkpoints before it are used", stacklevel=2)
                continue
            for (member, store), state in zip(stores, states, strict=True):
                member.run.restore(state, str(store.folder))
                member.noise = member.run.ranks.noise()
            at = stores[0][0].run.at
            for member in self.members:
                if member.lost is not None:
                    member.run.at = replace(at, best=None, best_step=None)
            self.stack.gather()
            return True
        if all(store.paths() for _, store in stores) and stores:
            raise NotTogetherError("they have no checkpoint of the same step")
        if any(int(path.stem[5:]) > 0 for _, store in stores for path in store.paths()):
            raise NotTogetherError("some of them have begun and others have not")
        return False  # killed before the first checkpoints stood

    def _finish(self, member: Member) -> Fitted:
        if member.run.ema is not None:
            member.run.ema.apply()
        if member.cell.out is not None:
            save_weights(member.cell.model, member.cell.out / "model.safetensors")
        at = member.run.at
        return Fitted(member.cell.model, member.history, at.step, at.best_step, at.seconds)

    @staticmethod
    def _mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """Over members, for the eye."""
        means = {name: sum(row.get(name, math.nan) for row in rows) / len(rows) for name in rows[0]}
        return means | {name: rows[0][name] for name in ("epoch", "step") if name in means}
