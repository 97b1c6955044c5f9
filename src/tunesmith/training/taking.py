"""Some rows of a split as a split of their own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tunesmith.training.corpus import Split


def taken(split: Split, rows: np.ndarray[Any, np.dtype[np.int64]]) -> Split:
    """Take some rows of a split.

    Args:
        split: any; facts about it are those of all its rows.
        rows: their numbers; one may stand several times.
    Returns:
        They alone, in that order.
    """
    soft = None if split.soft is None else split.soft[rows]
    weights = None if split.weights is None else split.weights[rows]
    index, labels, tokens = split.index[rows], split.labels[rows], split.tokens.take(rows)
    return replace(split, index=index, labels=labels, tokens=tokens, soft=soft, weights=weights)
