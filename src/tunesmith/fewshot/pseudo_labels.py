"""Which unlabelled rows get a pseudo-label: confident ones, no class more than its part."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from tunesmith.core.arrays import Array

Rows = np.ndarray[Any, np.dtype[np.int64]]


def choose(
    probabilities: Array, threshold: float, balance: Literal["none", "count", "prior"], most: int, prior: Array
) -> Rows:
    """Choose the rows whose most probable class is sure enough.

    balance "none" keeps all of them; "count" at most `most` per class, "prior" at most ceil(prior_c n) of class c,
    where n is the number of sure rows; the most confident first, earlier rows first among equals.

    Args:
        probabilities: (rows, C).
        threshold: least probability of the most probable class. [fraction]
        balance: how classes are balanced.
        most: rows per class, for "count". [count]
        prior: (C,), share of each class in the labelled rows, for "prior".
    Returns:
        (chosen,), numbers of rows, rising.
    Example:
        >>> sure = np.array([[0.9, 0.1], [0.8, 0.2], [0.95, 0.05], [0.3, 0.7], [0.5, 0.5]])
        >>> choose(sure, 0.7, "count", 2, np.array([0.5, 0.5])).tolist()
        [0, 2, 3]

    Source: confidence threshold: Lee 2013, "Pseudo-Label", ICML workshop. Balance: Zou et al. 2018, arXiv:1810.07911.
    """
    codes, confidence = probabilities.argmax(1), probabilities.max(1)
    sure = np.flatnonzero(confidence >= threshold)
    if balance == "none" or not len(sure):
        return sure
    classes = probabilities.shape[1]
    room = np.full(classes, most) if balance == "count" else np.ceil(prior * len(sure) - 1e-9).astype(np.int64)
    kept = list[int]()
    for row in sure[np.argsort(-confidence[sure], kind="stable")]:
        if room[codes[row]] > 0:
            room[codes[row]] -= 1
            kept.append(int(row))
    return np.sort(np.array(kept, dtype=np.int64))
