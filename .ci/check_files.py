"""Fail on a file over 512 KiB, and on text that does not end in exactly one newline. Takes file names; standard library only."""

from __future__ import annotations

import sys
from pathlib import Path

LIMIT = 512 * 1024


def problems(name: str) -> list[str]:
    """What is wrong with one file."""
    path = Path(name)
    if not path.is_file():  # a deleted file or a submodule
        return []
    data = path.read_bytes()
    found = []
    if len(data) > LIMIT:
        found.append(f"{name}: {len(data)} bytes, over {LIMIT}; large files belong in a release or a data cache")
    if data and b"\0" not in data[:8192] and (not data.endswith(b"\n") or data.endswith(b"\n\n")):
        found.append(f"{name}: text must end in exactly one newline")
    return found


if __name__ == "__main__":
    faults = [fault for name in sys.argv[1:] for fault in problems(name)]
    print(*faults, sep="\n", end="\n" if faults else "")
    sys.exit(bool(faults))
