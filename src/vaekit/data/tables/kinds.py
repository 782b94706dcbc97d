"""The kinds of columns by their names."""

from __future__ import annotations

from vaekit.data.tables.codes import Binary, Categorical, Ordinal
from vaekit.data.tables.columns import Column, Constant, Continuous, Count, HeavyTailed, Positive, UnitInterval
from vaekit.data.tables.dates import Date

__all__ = ["KINDS"]

KINDS: dict[str, type[Column]] = {
    kind.kind: kind for kind in (Continuous, HeavyTailed, Positive, UnitInterval, Count, Binary, Categorical, Ordinal, Date, Constant)
}
