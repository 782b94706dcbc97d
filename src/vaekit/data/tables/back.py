"""Values as a pandas Series of the dtype that they came in."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vaekit.data.tables.cells import Name, holed, made, unit_of
from vaekit.data.tables.needs import pandas

__all__ = ["series_of"]


def series_of(
    values: npt.NDArray[Any], missing: npt.NDArray[np.bool_], dtype: str, name: Name, categories: Any = (), ordered: bool = False
) -> Any:
    """A pandas Series ``[N]`` called ``name`` of this dtype; where a dtype of numpy has no mark for what is missing, of pandas' nullable
    one.

    ``values`` are as `Cells` has them, of the type of the categories for a categorical, which is ``ordered`` or not.
    """
    pd = pandas("decoding")
    if dtype.startswith("category["):
        index = pd.Index(np.array(categories, dtype=object)).astype(_plain(dtype[len("category[") : -1]))
        codes = pd.Index(np.array(categories, dtype=object)).get_indexer(values.astype(object))
        return pd.Series(pd.Categorical.from_codes(np.where(missing, -1, codes), categories=index, ordered=ordered), name=name)
    if dtype == "object:days":
        return pd.Series(holed(values.astype("datetime64[D]"), missing), dtype=object, name=name)
    if dtype.startswith("object"):
        return pd.Series(holed(values, missing), dtype=object, name=name)
    target = made(dtype)
    if dtype.startswith("datetime64"):
        stamps = values.astype(f"datetime64[{unit_of(dtype)}]")
        stamps[missing] = np.datetime64("NaT")
        series = pd.Series(stamps, name=name)
        return series if isinstance(target, np.dtype) else series.dt.tz_localize("UTC").astype(target)
    if values.dtype.kind == "O" or not isinstance(target, np.dtype):
        return pd.Series(pd.array(holed(values, missing), dtype=target), name=name)
    if missing.any() and target.kind in "biu":
        nullable = "boolean" if target.kind == "b" else str(target).replace("int", "Int").replace("uI", "UI")
        return pd.Series(pd.array(holed(values, missing), dtype=nullable), name=name)
    filled = np.where(missing, np.nan, values) if missing.any() else values
    return pd.Series(filled.astype(target), name=name)


def _plain(dtype: str) -> Any:
    return object if dtype.startswith("object") else made(dtype)
