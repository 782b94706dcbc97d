"""Names that share a line, "median, low: of the distances", keep it: Sphinx would take all but the last of them for a type."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["setup"]

NAMES = re.compile(r"^    \w+(?:, \w+)+(?=: )")


def _joined(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    for n, line in enumerate(lines):
        lines[n] = NAMES.sub(lambda match: match[0].replace(", ", ","), line)


def setup(app: Any) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", _joined, priority=90)  # before napoleon
    return {"parallel_read_safe": True, "parallel_write_safe": True}
