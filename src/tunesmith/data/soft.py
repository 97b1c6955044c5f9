"""Soft labels: a probability for every label in place of one label."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from tunesmith.core.errors import DataError, unknown
from tunesmith.data.examples import Examples

_LOOSE = 1e-3  # by which probabilities may miss a sum of 1, for files that round


def soft_labels(examples: Examples, column: str, names: Sequence[str]) -> np.ndarray[Any, Any]:
    """Read a column of JSON objects, each a probability by label; labels left out have none.

    Args:
        examples: with the column.
        column: its name.
        names: labels, in the order of their codes.
    Returns:
        (rows, C), float32, each row summing to 1.
    Raises:
        DataError: what is no such object, with file and line.
    """
    codes = {name: code for code, name in enumerate(names)}
    found = np.zeros((len(examples), len(names)), np.float32)
    for place, values in enumerate(examples.rows()):
        where = f"{examples.path}, {examples.where[place]}: column '{column}'"
        given = _object(values[column], where)
        for label, share in given.items():
            if label not in codes:
                raise DataError(f"{where}: {unknown('label', label, names)}")
            if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
                raise DataError(f"{where}: the probability of '{label}' is {share!r}; a number from 0 to 1 is needed.")
            found[place, codes[label]] = share
        total = float(found[place].sum())
        if abs(total - 1) > _LOOSE:
            raise DataError(f"{where}: the probabilities sum to {total:.3f}; they have to sum to 1.")
        found[place] /= total
    return found


def _object(cell: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):  # no JSON, a number that Python refuses to read, or too deep
        value = None
    if not isinstance(value, dict):
        raise DataError(
            f"{where}: {cell[:60]!r} is no JSON object of labels and probabilities. Write for example "
            '{"bill": 0.9, "delivery": 0.1} as the text of the cell.'
        )
    return value
