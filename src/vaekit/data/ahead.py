"""Work done in a thread ahead of whoever needs it, where it is slow enough to be worth one."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from queue import SimpleQueue
from time import perf_counter
from typing import Generic, TypeVar

__all__ = ["WORTH", "Ahead", "Pace", "ahead_where_slow"]

WORTH = 1e-3
"""Seconds that a batch takes from which a thread pays: the turns of two threads cost more than reading a faster one ahead could gain."""

T = TypeVar("T")
R = TypeVar("R")


class Ahead(Generic[T, R]):
    """``map(function, items)``, where a thread is up to ``depth`` results ahead. What it raises is raised here, in its place.

    It works in bursts of half of ``depth``: two threads of Python take turns, and each turn has its price. The thread ends with the last
    item, with an error, and with `close`, which waits for it: at most ``PATIENCE`` seconds, as a function of somebody else's may hang.
    Nothing runs before the first result is asked for.

    >>> list(Ahead(str, [1, 2, 3], depth=2))
    ['1', '2', '3']
    """

    PATIENCE = 10.0

    def __init__(self, function: Callable[[T], R], items: Iterable[T], *, depth: int) -> None:
        self._function, self._items = function, items
        self._results: SimpleQueue[tuple[R] | BaseException | None] = SimpleQueue()
        self._room, self._burst, self._given, self._ended = threading.Semaphore(depth), max(1, depth // 2), 0, False
        self._thread = threading.Thread(target=self._run, name="vaekit-ahead", daemon=True)

    def __iter__(self) -> Iterator[R]:
        return self

    def __next__(self) -> R:
        if self._ended:
            raise StopIteration
        if self._thread.ident is None:
            self._thread.start()
        found = self._results.get()
        self._given += 1
        if self._given % self._burst == 0:
            self._room.release(self._burst)
        if isinstance(found, tuple):
            return found[0]
        self._ended = True
        if found is None:
            raise StopIteration
        raise found

    def close(self) -> None:
        """Do no more."""
        self._ended = True
        self._room.release()
        if self._thread.ident is not None:
            self._thread.join(self.PATIENCE)

    def _run(self) -> None:
        try:
            for item in self._items:
                self._room.acquire()
                if self._ended:
                    return
                self._results.put((self._function(item),))
            self._results.put(None)
        except BaseException as error:  # whatever it is, it belongs to whoever waits for the result
            self._results.put(error)


class Pace:
    """How long the last pieces of work took.

    >>> pace = Pace()
    >>> for _ in range(3):
    ...     pace.took(0.1)
    >>> pace.slow
    True
    """

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=3)

    def took(self, seconds: float) -> None:
        """One more."""
        self._recent.append(seconds)

    @property
    def slow(self) -> bool:
        """Whether the last three took longer than `WORTH` each: one alone may have been disturbed."""
        return len(self._recent) == 3 and min(self._recent) > WORTH


def ahead_where_slow(function: Callable[[T], R], items: Iterable[T], *, depth: int) -> Generator[R]:
    """``map(function, items)``, by `Ahead` from where it is slow on, ``depth`` items in advance. To be closed where it is not run to its
    end."""
    rest, pace = iter(items), Pace()
    for item in rest:
        begun = perf_counter()
        found = function(item)
        pace.took(perf_counter() - begun)
        yield found
        if pace.slow:
            break
    with closing(Ahead(function, rest, depth=depth)) as results:
        yield from results
