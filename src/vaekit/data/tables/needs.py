"""Packages that only tables need, imported when they are asked for."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from vaekit.errors import InputError

__all__ = ["is_frame", "is_series", "needed", "pandas"]


def needed(module: str, what: str, *, package: str, extra: str) -> Any:
    """Import ``module`` of ``package``, which ``what`` needs; InputError that names the extra where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"{what} needs {package}, which is not installed: pip install 'vaekit[{extra}]'") from error


def pandas(what: str = "a table") -> Any:
    """The module pandas."""
    return needed("pandas", what, package="pandas", extra="tables")


def is_frame(data: object) -> bool:
    """Whether this is a pandas DataFrame. Where pandas was never imported, nothing is."""
    return "pandas" in sys.modules and isinstance(data, pandas().DataFrame)


def is_series(data: object) -> bool:
    """Whether this is a pandas Series."""
    return "pandas" in sys.modules and isinstance(data, pandas().Series)
