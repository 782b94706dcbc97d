r"""Several steps of training as one launch: on a GPU a CUDA graph, elsewhere a call of the same program.

A step of a small network is some hundred kernels of a few microseconds, and a processor that starts them one by one is slower than the GPU
that runs them. Here S whole steps, from the rows' gathering to the optimiser and the average of the weights, are recorded once and then
started together. What differs from launch to launch stands in tensors that stay where they are: the rows ``[S, B]`` and for each step four
numbers, Adam's three (`InGraphAdam.scalars`) and what the weights count for in their average (`EMA.weight`). Noise comes from torch's
generator, whose state a graph reads and moves on.

Not yet run on a GPU. All of it but `captured` is tested on a processor, where the same program is called in place of a graph. So the first
launch of each program is made beside the plain steps from the same state, and where the two disagree, or recording fails, the run goes on
with plain steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from vaekit.train.adam import InGraphAdam
from vaekit.train.keep import plain_values
from vaekit.train.meter import Meter, Sums
from vaekit.train.run import Run
from vaekit.train.settings import Training

__all__ = ["Launches", "NotReplayedError", "captured", "recorder"]

CLOSE = {"32-true": 1e-2, "bf16-mixed": 1e-1}
"""How far what a launch changes may be from what the plain steps change, relative to that; sums of what is logged a tenth of it. On a
processor 32 compiled steps were off by 6e-7 in the weights, and by 3e-4 in the statistics of a batch normalisation that follows a bias."""

FAINT = {"32-true": 1e-5, "bf16-mixed": 1e-2}
"""Root of Adam's average square, relative to the model's largest, below which a gradient may be rounding alone: a bias before a
normalisation has none else, and Adam makes full steps of it. Such weights are not compared, their averages are."""

Program = Callable[[], None]
Step = Callable[[Tensor, Tensor, Tensor, Tensor], Sums]
"""Rows ``[B]``, Adam's scalars ``[3]``, the learning rate and the average's weight -> what is logged; these are all that differs between
steps."""
State = tuple[dict[str, list[Tensor]], dict[str, Tensor]]
"""Tensors that a step changes, by what they are, and the states of the generators."""


class NotReplayedError(Exception):
    """A program that is recorded once would not do what the steps do; the message says why."""


def captured(program: Program, device: torch.device) -> Program:
    """``program`` as a CUDA graph; what it returns starts it. The program runs twice beforehand, and so changes what it changes.

    https://docs.pytorch.org/docs/stable/notes/cuda.html#whole-network-capture

    Raises:
        RuntimeError: it waits for the device, or does something else that no graph can hold.
    """
    side, current = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    side.wait_stream(current)
    before = torch.cuda.get_sync_debug_mode()
    try:
        with torch.cuda.stream(side):
            program()  # workspaces, kernels that are compiled
            torch.cuda.set_sync_debug_mode("error")  # what waits is found here, where nothing breaks by it
            program()
    finally:
        torch.cuda.set_sync_debug_mode(before)
        current.wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, stream=side):
            program()
    except Exception:
        # where a recording breaks off torch leaves its stream current, and the generator in a mode in which it refuses to draw
        torch.cuda.set_stream(current)
        torch.cuda.default_generators[current.device_index].graphsafe_set_state(torch.Generator(device).graphsafe_get_state())
        raise
    return graph.replay


def recorder(device: torch.device) -> Callable[[Program], Program]:
    """What makes a program something that can be started: a CUDA graph on a GPU, itself elsewhere."""
    return partial(captured, device=device) if device.type == "cuda" else lambda program: program


class Launch:
    """S steps on buffers that stay where they are.

    Attributes:
        rows: of each step, ``[S, B]``.
        scalars: of each step, float64 ``[S, 4]``.
        names: of what is logged.
        total: its sums over all steps, float64 ``[n]``.
    """

    names: tuple[str, ...]
    total: Tensor

    def __init__(self, rows: Tensor, step: Step) -> None:
        self.rows = torch.empty_like(rows)
        self.scalars = torch.empty(len(rows), 4, dtype=torch.float64, device=rows.device)
        self.step, self.start = step, self.run

    def run(self) -> None:
        """The steps, one after the other."""
        others = self.scalars[:, 2:]
        if others.is_cuda:
            others = others.float()  # which the fused update there reads
        sums = [self.step(a, b, *c) for a, b, c in zip(self.rows, self.scalars[:, :3], others, strict=True)]
        self.names, self.total = sums[0].names, torch.stack([one.total for one in sums]).sum(0)

    def fill(self, rows: Tensor, scalars: Tensor) -> None:
        """Set the buffers to ``rows`` ``[S, B]`` and ``scalars`` ``[S, 4]``, the latter on the processor; nothing waits."""
        self.rows.copy_(rows)
        self.scalars.copy_(scalars.pin_memory() if self.scalars.is_cuda else scalars, non_blocking=True)


class Launches:
    """Groups of steps, each started as one.

    An epoch's F full batches are divided from its first one on, S to a group and what is left over in one of its own, wherever training
    was resumed; so the end is the same. A group changes the weights before anybody looks at the loss, as a compiled step does.

    Args:
        run: what is trained.
        training: precision, schedule, and S as ``replay``.
        adam: the optimiser.
        full: F.
        begin: the step from which the objective is constant.
        step: a whole step, update and average included.
        plain: (rows ``[S, B]``, first step) -> sums: the steps one by one, as they are.
        note: told once where it is given up.
    """

    def __init__(
        self,
        run: Run,
        training: Training,
        adam: InGraphAdam,
        *,
        full: int,
        begin: int,
        step: Step,
        plain: Callable[[Tensor, int], Sums],
        note: Callable[[str], None],
    ) -> None:
        self.run, self.training, self.adam, self.full, self.begin = run, training, adam, full, max(begin, 1)
        self.step, self.plain, self.note = step, plain, note
        self.failed = False
        self.known: dict[int, Launch] = {}
        self.places: list[int] = []

    def many(self, batch: int, step: int) -> int:
        """How many steps go at once from this batch of the epoch on, the run's step number ``step``."""
        if self.failed or step < self.begin or batch % self.training.replay:
            return 1
        return max(1, min(self.training.replay, self.full - batch))

    def __call__(self, rows: Tensor, step: int) -> Sums:
        """The steps of a group, ``rows`` ``[S, B]``, the first of which is number ``step``; their sums."""
        if self.failed or not self.adam.bound():
            return self.plain(rows, step)
        places = self._places()
        if places != self.places:  # a graph knows tensors by where they lie, and a state that was loaded lies elsewhere
            self.places = places
            self.known.clear()
        launch = self.known.get(len(rows))
        if launch is None:
            return self._first(rows, step)
        self._fill(launch, rows, step)
        return self._start(launch)

    def _fill(self, launch: Launch, rows: Tensor, step: int) -> None:
        numbers, ema = range(step, step + len(rows)), self.run.ema
        rates = [self.run.rates[0] * self.training.schedule(number) for number in numbers]
        weights = torch.tensor([0.0 if ema is None else ema.weight(number) for number in numbers], dtype=torch.float64)
        launch.fill(rows, torch.cat([self.adam.scalars(rates), weights.unsqueeze(1)], 1))

    def _start(self, launch: Launch) -> Sums:
        launch.start()
        self.adam.t += len(launch.rows)
        return Sums(launch.names, launch.total.clone(), launch.rows.numel())

    def _first(self, rows: Tensor, step: int) -> Sums:
        """The first group of so many steps: plain, then recorded and compared."""
        before, values = self._state(), plain_values(self.run.module)
        sums = self.plain(rows, step)
        if not Meter(*sums).finite():
            return sums  # the loop will find out why
        after = self._state()
        try:
            if plain_values(self.run.module) != values:
                raise NotReplayedError("something in the model counts in plain numbers, which a recording would not")
            self._go_to(before)
            launch = Launch(rows, self.step)
            self._fill(launch, rows, step)
            launch.start = recorder(self.run.device)(launch.run)
            self._go_to(before)
            found = self._start(launch)
            if self._places() != self.places:
                raise NotReplayedError("a step puts new tensors in the place of the model's or the optimiser's")
            self._compare(before, after, sums, found)
        except Exception as error:  # whatever it is, the plain steps are there
            self._go_to(after)
            self.failed = True
            self.known.clear()
            reason = " ".join(str(error).strip().partition("\n")[0].split())[:300] or type(error).__name__
            self.note(f"steps are taken one by one and not {self.training.replay} at a time: {reason}")
            return sums
        self.known[len(rows)] = launch
        return found

    def _tensors(self) -> dict[str, list[Tensor]]:
        """What a step changes."""
        run, state = self.run, self.run.optimiser.state
        used = {name: p for name, p in run.module.named_parameters() if p in state}
        found = {kind: [state[p][kind] for p in used.values()] for kind in ("exp_avg", "exp_avg_sq", "step")}
        found |= {"weights": [p.detach() for p in used.values()], "buffers": list(run.module.buffers())}
        return found if run.ema is None else found | {"averages": [run.ema.average[name] for name in used]}

    def _places(self) -> list[int]:
        return [t.data_ptr() for tensors in self._tensors().values() for t in tensors]

    def _state(self) -> State:
        return {kind: [t.clone() for t in tensors] for kind, tensors in self._tensors().items()}, self.run.ranks.noise()

    def _go_to(self, state: State) -> None:
        tensors, noise = state
        for kind, now in self._tensors().items():
            for t, kept in zip(now, tensors[kind], strict=True):
                t.copy_(kept)
        self.run.ranks.restore(noise)
        self.adam.seen = None  # the count of steps is another
        self.adam.bound()

    def _compare(self, before: State, after: State, sums: Sums, found: Sums) -> None:
        """Whether the tensors now are those after the plain steps, and the sums those.

        Raises:
            NotReplayedError: they are not.
        """
        (start, _), (want, noise), (got, drawn) = before, after, self._state()
        if any(not torch.equal(t, drawn[name]) for name, t in noise.items()):
            raise NotReplayedError("a launch has drawn more or less noise than its steps")
        close, faint = CLOSE[self.training.precision], FAINT[self.training.precision]
        for kind in want:
            off = change = 0.0
            loud = _loud(want["exp_avg_sq"], faint) if kind in ("weights", "averages") else None
            for number, (a, b, c) in enumerate(zip(start[kind], want[kind], got[kind], strict=True)):
                chosen = torch.ones_like(b, dtype=torch.bool) if loud is None else loud[number]
                off += float((c.double() - b.double())[chosen].square().sum())
                change += float((b.double() - a.double())[chosen].square().sum())
            if not off <= close**2 * change:
                raise NotReplayedError(
                    f"beside the plain steps its {kind} are off by {(off / max(change, 1e-300)) ** 0.5:.2g} of their change"
                )
        one, other = sums.total / sums.rows, found.total / found.rows
        if sums.names != found.names or not torch.allclose(other, one, rtol=close / 10, atol=close / 10, equal_nan=True):
            raise NotReplayedError("what it logs is not what the plain steps log")


def _loud(squares: Sequence[Tensor], faint: float) -> list[Tensor]:
    """Where the gradient is more than rounding."""
    least = faint**2 * max(float(v.max()) for v in squares)
    return [v > least for v in squares]
