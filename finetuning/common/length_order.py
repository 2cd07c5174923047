"""Rows in the order of their length, and what was computed of them back in the order before."""

from typing import Any

import numpy as np


def longest_first(rows: Any) -> tuple[Any, np.ndarray]:
    """Rows in falling order of their column `length`, so that a batch needs little padding and the first one the most
    memory; and their places before, (rows,) int64."""
    order = np.argsort(-np.asarray(rows["length"][:]), kind="stable")
    return rows.select(order), order


def as_before(values: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Undo `longest_first` for an array whose first axis is the rows."""
    result = np.empty_like(values)
    result[order] = values
    return result
