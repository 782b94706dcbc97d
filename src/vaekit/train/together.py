"""Train several models of the same structure at once: the loop of `vaekit.train.loop`, with a `Stack` in the place of one model.

Each cell has the order of the data, the noise, the rows of metrics and the checkpoints that `fit` would give it alone; its folder is that
of an ordinary run, which `fit(resume=True)` continues.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack

import torch

from vaekit.data.core import DataSet, Split
from vaekit.data.stored import StoredRows
from vaekit.errors import NonFiniteError
from vaekit.matmul import matching_matmul
from vaekit.tensors import seed_noise
from vaekit.train.checks import (
    check_batches,
    check_data,
    check_model,
    check_objective,
    check_warm_up,
    splits_of,
    try_objective,
)
from vaekit.train.engine import worth_compiling
from vaekit.train.grouping import differing_weights
from vaekit.train.identity import checksum
from vaekit.train.loop import Fitted
from vaekit.train.memory import fitting
from vaekit.train.program import NotTogetherError, Program, recorded
from vaekit.train.stack import Cell
from vaekit.train.step import Step
from vaekit.train.tile import Tile

__all__ = ["FEW", "fit_together"]

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
    begin: Callable[[int], None] = lambda size: None,
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
        size: how many at once, in one batched program. None for all that fit into half of the available memory (`vaekit.train.memory`),
            but on a processor one after another, by the same program, where a model is large enough to be bound by arithmetic: that is
            faster there (`FEW`).
        begin: called once, with the size, when nothing speaks against it any more and before anything is written.
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
        reckoning = ""
        if size is None:
            size = len(cells) if device.type == "cuda" or seen.flops < FEW else 1
            room, words = fitting(module, seen, training, device)
            if room is not None and room < size:
                size, reckoning = room, f" (more do not fit into half of the memory: {words})"
        size = min(size, len(cells))
        compiled = worth_compiling(training, module, device, steps * -(-len(cells) // size))
        if size == 1 and not compiled:
            raise NotTogetherError(f"there are too few steps to compile, and stacked they would be slower{reckoning}")
        how = (f"{size} at once" if size > 1 else "one after another") + reckoning
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
                begin(size)
                begun = True
            for i, end in tile.fit(resume=resume, progress=progress):
                if numbers[i] not in finished and numbers[i] not in lost:
                    ends[numbers[i]] = end
                    done(numbers[i], end)
    return ends
