"""Splits: which rows train, validate and test."""

from __future__ import annotations

from typing import Any

import numpy as np

Index = np.ndarray[Any, np.dtype[np.int64]]


def stratified_share(labels: np.ndarray[Any, Any], share: float, seed: int) -> tuple[Index, Index]:
    """Hold out a share of every class.

    A class of two or more rows keeps at least one for training; the held-out total is the share of all rows,
    as nearly as whole rows allow.

    Args:
        labels: (rows,), a class code per row.
        share: to hold out. [fraction]
        seed: of the draw.
    Returns:
        Row numbers kept and held out, each in rising order.
    Example:
        >>> kept, held = stratified_share(np.array([0, 0, 1, 1]), 0.5, seed=0)
        >>> len(kept), len(held)
        (2, 2)
    """
    draw = np.random.default_rng(seed)
    held: list[Index] = []
    owed = 0.0
    for code in np.unique(labels):
        rows = draw.permutation(np.flatnonzero(labels == code))
        owed += share * len(rows)
        take = min(int(owed + 0.5), len(rows) - 1)
        owed -= take
        held.append(rows[: max(take, 0)])
    out = np.sort(np.concatenate(held))
    return np.setdiff1d(np.arange(len(labels)), out), out
