"""The errors a person can cause, and the help that goes with them.

Every message is one line that says what was asked, why it cannot be, and what to do, with the value that was given.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["InputError", "LostRankError", "NonFiniteError", "nearest"]


class InputError(ValueError):
    """What was asked cannot be done. The command line prints the message on one line and exits with status 2."""


class NonFiniteError(RuntimeError):
    """A term of the bound became NaN or infinite; the message names the step, the level, the term and the batch."""


class LostRankError(RuntimeError):
    """Another process of the same training has ended, and this one cannot go on without it."""


def nearest(word: str, words: Iterable[str]) -> str:
    """The hint that ends an "unknown ..." message: the nearest of ``words`` to ``word``, or all of them when none is near.

    >>> nearest("mnist:exmple", ["digits", "mnist:example"])
    'did you mean "mnist:example"?'
    """
    options = sorted(words)
    match = difflib.get_close_matches(word, options, n=1, cutoff=0.5)
    return f'did you mean "{match[0]}"?' if match else f"choose from: {', '.join(options)}"
