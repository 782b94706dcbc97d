"""What a person sees while training, on stderr: one bar in a terminal or notebook, plain lines where neither is there."""

from __future__ import annotations

import abc
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from vaekit.train.logs import row_line

__all__ = ["Bar", "Lines", "Progress", "Silent", "progress_for"]


class Clock:
    """Says when an interval has passed; asking costs a tenth of a microsecond."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.last = time.monotonic()

    def due(self) -> bool:
        """Whether ``seconds`` have passed since the last `reset`."""
        return time.monotonic() - self.last >= self.seconds

    def reset(self) -> None:
        """Start the interval again."""
        self.last = time.monotonic()


class Progress(abc.ABC):
    """Implementing a Progress: set ``interval``, the least seconds between two calls of ``refresh``, and write the three methods."""

    interval: float

    @abc.abstractmethod
    def refresh(self, epoch: int, step: int, means: Mapping[str, float]) -> None:
        """Within epoch ``epoch`` (from 1) after ``step`` steps; ``means`` of the epoch so far."""

    @abc.abstractmethod
    def epoch(self, row: Mapping[str, float]) -> None:
        """At an epoch's end."""

    @abc.abstractmethod
    def close(self) -> None:
        """At the end, or on the way out of an error."""


class Silent(Progress):
    """Nothing."""

    interval = float("inf")

    def refresh(self, epoch: int, step: int, means: Mapping[str, float]) -> None: ...

    def epoch(self, row: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class Lines(Progress):
    """A line an epoch, of short epochs the first, the last and about one a second, and within a long epoch one every 30 seconds. A run has
    ``epochs`` epochs, and ``steps`` steps where that is known."""

    interval = 30.0
    least = 1.0
    """Seconds between the lines of two epochs."""

    def __init__(self, epochs: int, steps: int | None) -> None:
        self.epochs = epochs
        self.steps = steps
        self.clock = Clock(-1.0)  # the first epoch's is due
        self.held: Mapping[str, float] | None = None

    def refresh(self, epoch: int, step: int, means: Mapping[str, float]) -> None:
        name = "bound" if "bound" in means else "surrogate"
        self._print(f"epoch {epoch}/{self.epochs}  step {step}/{'?' if self.steps is None else self.steps}  train/{name} {means[name]:.2f}")

    def epoch(self, row: Mapping[str, float]) -> None:
        self.held = row
        if self.clock.due():
            self.close()
            self.clock = Clock(self.least)

    def close(self) -> None:
        if self.held is not None:
            self._print(row_line(self.held, self.epochs))
        self.held = None

    def _print(self, line: str) -> None:
        with suppress(OSError):  # whoever read along has gone; the run goes on, and log.txt has it all
            print(line, file=sys.stderr, flush=True)


class Bar(Progress):
    """One tqdm bar for the run: epoch of ``epochs``, bound, steps a second. Of ``steps`` in all it has ``start`` behind it."""

    interval = 0.5

    def __init__(self, epochs: int, steps: int | None, start: int) -> None:
        from tqdm.auto import tqdm  # the widget in a notebook, text elsewhere

        self.epochs = epochs
        self.bar: Any = tqdm(total=steps, initial=start, unit="step", dynamic_ncols=True, file=sys.stderr, mininterval=0)
        self.valid: dict[str, str] = {}

    def refresh(self, epoch: int, step: int, means: Mapping[str, float]) -> None:
        name = "bound" if "bound" in means else "surrogate"
        self.bar.set_description(f"epoch {epoch}/{self.epochs}", refresh=False)
        self.bar.set_postfix({name: f"{means[name]:.2f}"} | self.valid, refresh=False)
        with suppress(OSError):  # the terminal was closed
            self.bar.update(step - self.bar.n)

    def epoch(self, row: Mapping[str, float]) -> None:
        if "valid/bound" in row:
            self.valid = {"valid": f"{row['valid/bound']:.2f}"}
        means = {name.removeprefix("train/"): value for name, value in row.items() if name.startswith("train/")}
        self.refresh(int(row["epoch"]), int(row["step"]), means)

    def close(self) -> None:
        with suppress(OSError):
            self.bar.close()


def progress_for(*, epochs: int, steps: int | None, start: int, show: bool) -> Progress:
    """The one that fits where stderr goes; none without ``show``. ``epochs`` and ``steps`` are the whole run's, None where nobody
    knows, ``start`` how many a resumed run has behind it."""
    if not show or sys.stderr is None:
        return Silent()
    if "ipykernel" in sys.modules or sys.stderr.isatty():
        return Bar(epochs, steps, start)
    return Lines(epochs, steps)
