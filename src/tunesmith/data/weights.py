"""Weights of rows: how much each one's loss counts beside the others'."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tunesmith.core.errors import DataError
from tunesmith.data.examples import Examples
from tunesmith.data.splitting import Index


def row_weights(examples: Examples, column: str, index: Index) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Read a column of numbers, one per row; only their proportions count.

    Args:
        examples: with the column.
        column: its name.
        index: (rows,), which rows of the file.
    Returns:
        (rows,), none below 0.
    Raises:
        DataError: what is no such number, with file and line; or all are 0.
    """
    found = np.array([_number(examples, int(row), values[column], column) for row, values in _rows(examples, index)])
    if not found.any():
        raise DataError(f"{examples.path}: every training row has the weight 0 in column '{column}': nothing trains.")
    if found.max() > np.finfo(np.float64).max / len(found):
        raise DataError(
            f"{examples.path}: the weights in column '{column}' are too large to be added up (the largest is "
            f"{found.max():g}). Only their proportions count: divide them all by the same number."
        )
    return found


def _rows(examples: Examples, index: Index) -> Any:
    return zip(index, examples.rows(index), strict=True)


def _number(examples: Examples, row: int, cell: str, column: str) -> float:
    try:
        value = float(cell)
    except (TypeError, ValueError):
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise DataError(
            f"{examples.path}, {examples.where[row]}: column '{column}': {str(cell)[:40]!r} is no weight. A number "
            "from 0 on is needed, for example 0.5."
        )
    return value
