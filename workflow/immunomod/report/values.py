"""Single values of the tables that the report reads: any of them may be missing, or text where a number belongs."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd


def number(value: object) -> float:
    """``value`` as a number; NaN where it is none."""
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan


def text(value: object) -> str:
    """``value`` as text; empty where it is missing."""
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value)


def numbers(table: pd.DataFrame, name: str) -> pd.Series:
    """A column as numbers; NaN throughout where the table has no such column."""
    if name not in table:
        return pd.Series(np.nan, index=table.index)
    return pd.to_numeric(table[name], errors="coerce").astype(float)
