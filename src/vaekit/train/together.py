"""Train several models of the same structure at once: the loop of `vaekit.train.loop`, with a `Stack` in the place of one model.

Each cell has the order of the data, the noise, the rows of metrics and the checkpoints that `fit` would give it alone; its folder is that
of an ordinary run, which `fit(resume=True)` continues.
"""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch

from vaekit.data.core import DataSet, Split
from vaekit.data.stored import StoredRows
from vaekit.errors import InputError, NonFiniteError
from vaekit.matmul import matching_matmul
from vaekit.tensors import seed_noise
from vaekit.train.checkpoint import Checkpoints, save_weights
from vaekit.train.checks import (
    check_batches,
    check_data,
    check_model,
    check_objective,
    check_warm_up,
    schedule_values,
    settled,
    splits_of,
    try_objective,
)
from vaekit.train.collapse import warn_of_collapse
from vaekit.train.ema import EMA
from vaekit.train.engine import worth_compiling
from vaekit.train.feed import in_order
from vaekit.train.files import DamagedError, read
from vaekit.train.grouping import differing_weights
from vaekit.train.identity import checksum, settings
from vaekit.train.keep import channels_last, come_back, forms
from vaekit.train.logs import CSV, TextLog, read_csv
from vaekit.train.loop import Fitted, _validate
from vaekit.train.meter import named
from vaekit.train.process import Interrupted, interruptible, locked
from vaekit.train.program import NotTogetherError, Program, recorded
from vaekit.train.progress import Clock, progress_for
from vaekit.train.ranks import Alone
from vaekit.train.run import Run, permutation
from vaekit.train.stack import Cell, Member, Stack
from vaekit.train.step import Step

__all__ = ["FEW", "fit_together"]

CHECK_EVERY = 256
"""Steps between two looks at whether all is finite."""

FEW = 5_000_000
"""Multiply-adds, counted twice, of one model's forward pass below which a step on a processor is bound by what surrounds its arithmetic:
stacked, networks 64-32-4 and 64-100-8 took 0.4 and 0.5 of the time of one program that takes the models in turn at batch 128; 784-32-8 and
larger ones 1.7 to 2.2 of it, because what goes with the batched products walks through strided memory."""


def fit_together(
    cells: Sequence[Cell],
    data: DataSet | Split,
    *,
    resume: bool = False,
    finished: Collection[int] = (),
    lost: Collection[int] = (),
    size: int | None = None,
    begin: Callable[[], None] = lambda: None,
    done: Callable[[int, Fitted | NonFiniteError], None] = lambda number, result: None,
    note: Callable[[str], None] = lambda text: None,
    progress: bool = True,
) -> dict[int, Fitted | NonFiniteError]:
    """Train cells that are alike (`partners`), each as `fit` would train it alone, to float error.

    Args:
        cells: alike but for initial weights, seeds, learning rates and constant weights of the objective's penalty.
        data: for all of them.
        resume: go on from the newest checkpoints that all have; the end is the same, bit for bit, as without the interruption.
        finished, lost: numbers of the cells that have ended already, when resuming.
        size: how many at once, in one batched program. None for all, but on a processor one after another, by the same program, where a
            model is large enough to be bound by arithmetic: that is faster there (`FEW`).
        begin: called once, when nothing speaks against it any more and before anything is written.
        done: told the number and the end of each cell: a `Fitted`, or why it was given up. One that is lost does not disturb the others.
        note: told how they are trained.
        progress: as in `fit`.

    Returns:
        The end of each cell that was trained, by its number.

    Raises:
        NotTogetherError: they do not stack; nothing has been written for those that have not ended.
        InputError: as `fit`.
        Interrupted: Ctrl-C or SIGTERM; checkpoints were written.
    """
    constants = differing_weights(cells)
    first, splits = cells[0], splits_of(data)
    if any(isinstance(rows, StoredRows) for split in splits.values() for rows in (split.x, split.mask)):
        raise NotTogetherError("their rows stay in a file")
    training = first.training.resolved()
    device, rows = training.torch_device(), len(splits["training"])
    steps = training.epochs * -(-rows // training.batch_size) * training.repeat
    for cell in cells:
        check_objective(cell.objective)
        check_model(cell.model, training.precision)
        check_warm_up(cell.objective, steps)
    check_batches(first.model, rows, training.batch_size)
    ends: dict[int, Fitted | NonFiniteError] = {}
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng([device] if device.type == "cuda" else []))
        stack.enter_context(matching_matmul(device))
        seed_noise(training.seed, device)
        check_data(first.model.eval(), splits)
        try_objective(first.model, first.objective, splits["training"])
        local = {name: split.to(device) for name, split in splits.items() if name != "test"}
        module = copy.deepcopy(Step(first.model, first.objective)).to(device).train()
        index = torch.arange(min(rows, training.batch_size), device=device)
        seen = recorded(module, local["training"], training, index, 0)
        if size is None:
            size = len(cells) if device.type == "cuda" or seen.flops < FEW else 1
        compiled = worth_compiling(training, module, device, steps * -(-len(cells) // size))
        if size == 1 and not compiled:
            raise NotTogetherError("there are too few steps to compile, and stacked they would be slower")
        how = f"{size} at once" if size > 1 else "one after another"
        note(f"{len(cells)} cells by one program, {how}; {training.precision} on {device}, {'compiled' if compiled else 'not compiled'}")
        identity: dict[str, object] = {f"{name} data": checksum(split) for name, split in splits.items() if name != "test"}
        programs: dict[int, Program] = {}
        begun = False
        for start in range(0, len(cells), size):
            numbers = range(start, min(start + size, len(cells)))
            if all(number in finished or number in lost for number in numbers):
                continue
            if len(numbers) not in programs:
                programs[len(numbers)] = Program(
                    module,
                    constants,
                    local["training"],
                    training,
                    size=len(numbers),
                    prepared=seen.prepared,
                    compiled=compiled,
                    note=note,
                )
            tile = Tile([cells[i] for i in numbers], programs[len(numbers)], local, identity, lost=[i in lost for i in numbers])
            if not begun:
                begin()
                begun = True
            for i, end in tile.fit(resume=resume, progress=progress):
                if numbers[i] not in finished and numbers[i] not in lost:
                    ends[numbers[i]] = end
                    done(numbers[i], end)
    return ends


class Tile:
    """The cells that are trained at once."""

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
        """Train to the end; the number and the end of each."""
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
                    "valid", _validate(run, member.forward, in_order(valid, self.device, self.training.batch_size), member.cell.training)
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
