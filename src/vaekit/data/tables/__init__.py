"""Data of your own: what is in them, as numbers and back, and whether new data fit.

    from vaekit.data import tables
    found = tables.inspect("people.csv", overrides={"age": "count"}, drop=["id"])
    print(found.describe())                     # each column, its kind and likelihood, and why
    found.data.train, found.schema              # encoded rows with a mask of what is missing, and the way back
    found.schema.check(tables.read_table("more_people.csv"))

Tables need pandas and pyarrow: ``pip install 'vaekit[tables]'``; ``.h5ad`` files anndata: ``pip install 'vaekit[h5ad]'``. Arrays, images
and sparse matrices need neither.
"""

from __future__ import annotations

from vaekit.data.tables.codes import Binary, Categorical, Ordinal
from vaekit.data.tables.columns import Column, Constant
from vaekit.data.tables.context import Context
from vaekit.data.tables.counts import Counts
from vaekit.data.tables.dates import Date
from vaekit.data.tables.fields_back import Fields, fields_of
from vaekit.data.tables.found import Description, Found, described, frame_of, inspect, rows_of, what
from vaekit.data.tables.infer import Kind
from vaekit.data.tables.kinds import KINDS
from vaekit.data.tables.known import Known, sized, with_sizes
from vaekit.data.tables.numbers import Continuous, Count, HeavyTailed, Positive, UnitInterval
from vaekit.data.tables.pixels import Pixels
from vaekit.data.tables.read import read_table
from vaekit.data.tables.schema import Schema

__all__ = [
    "inspect",
    "Found",
    "described",
    "Fields",
    "fields_of",
    "frame_of",
    "rows_of",
    "what",
    "Known",
    "sized",
    "with_sizes",
    "Description",
    "read_table",
    "Schema",
    "Kind",
    "KINDS",
    "Column",
    "Continuous",
    "HeavyTailed",
    "Positive",
    "UnitInterval",
    "Count",
    "Binary",
    "Categorical",
    "Ordinal",
    "Date",
    "Constant",
    "Context",
    "Pixels",
    "Counts",
]
