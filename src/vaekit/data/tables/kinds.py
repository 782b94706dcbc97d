"""The kinds of columns by their names."""

from __future__ import annotations

from vaekit.data.tables.codes import Binary, Categorical, Ordinal
from vaekit.data.tables.columns import Column, Constant
from vaekit.data.tables.dates import Date
from vaekit.data.tables.numbers import Continuous, Count, HeavyTailed, Positive, UnitInterval

__all__ = ["KINDS"]

KINDS: dict[str, type[Column]] = {
    kind.kind: kind for kind in (Continuous, HeavyTailed, Positive, UnitInterval, Count, Binary, Categorical, Ordinal, Date, Constant)
}
"""Every kind of column by its name."""
