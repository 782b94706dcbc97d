"""Files that are whole or as they were: written beside their place, flushed to the disk, then moved into it."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vaekit.errors import InputError

__all__ = ["explained", "plain", "write_bytes", "write_json"]


def write_bytes(path: Path, data: bytes | Iterable[bytes | memoryview]) -> None:
    """Replace ``path`` by ``data``, given whole or in parts: whoever reads it, and whenever the power fails, sees the old file or the new.

    Raises:
        InputError: no space, no permission, no such folder; the old file is untouched.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with explained(path):
        try:
            with open(scratch, "wb") as file:
                for part in [data] if isinstance(data, bytes) else data:
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            os.replace(scratch, path)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise
        if os.name == "posix":  # elsewhere a folder cannot be opened
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)  # makes the rename durable
            finally:
                os.close(folder)


def plain(value: Any) -> Any:
    """A value as JSON has it: lists for tuples, None for numbers that are not finite, all the way down.

    >>> plain({"a": (1.5, float("nan"))})
    {'a': [1.5, None]}
    """
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, value: object) -> None:
    """``value`` as indented JSON, by `write_bytes`; NaN and infinities are refused, because JSON has none."""
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode())


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the file system's refusals about ``path`` into one line that says what to do.

    Raises:
        InputError: the file system refuses: no space, no permission, another reason.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InputError(f"no space left to write {path}: free some and run again; nothing that was there is lost") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise InputError(f"no permission to write {path}: choose another place with --out") from error
        if error.errno == errno.EEXIST:
            raise InputError(f"{path} was made by another process just now: choose another place") from error
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR):
            raise InputError(f"cannot write {path}: {(error.strerror or str(error)).lower()}") from error
        raise InputError(f"cannot write {path}: {error.strerror}") from error
