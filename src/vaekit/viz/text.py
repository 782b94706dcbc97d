"""Text that came from outside (names, labels, paths), made safe to look at."""

from __future__ import annotations

import unicodedata

__all__ = ["visible"]

# Controls (newline, escape), formats (right-to-left marks, zero-width joiners), lone surrogates, private use, line and paragraph
# separators: each can hide text, reorder it, or break the line it stands in.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})


def visible(text: str) -> str:
    r"""``text`` with every invisible or reordering character written as its escape.

    >>> visible("cat\n\u202etxt.exe")
    'cat\\n\\u202etxt.exe'
    """
    return "".join(ch.encode("unicode_escape").decode("ascii") if unicodedata.category(ch) in _HIDDEN else ch for ch in text)
