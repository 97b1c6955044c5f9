"""Rows that stand there twice."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.data.audit import text_hashes
from tunesmith.data.cleaning.base import Filter, Rows, Verdict
from tunesmith.data.splitting import Index


@register("cleaning")
class Duplicates(Filter):
    """Drop training rows whose text stood in an earlier row, letter case and spacing aside."""

    name: ClassVar[str] = "duplicates"
    conflicts: Literal["first", "drop"] = setting(
        "first", "Of copies with different labels, keep the first one or drop all of them."
    )

    def judge(self, rows: Rows) -> dict[int, Verdict]:
        """Compare hashes of 64 bits."""
        _, groups = np.unique(text_hashes(rows.texts), return_inverse=True)
        return repeated(groups, rows, self.conflicts == "drop", "repeats")


def repeated(groups: Index, rows: Rows, drop_conflicts: bool, word: str) -> dict[int, Verdict]:
    """Keep the first row of each group.

    Args:
        groups: (rows,), a group number per row.
        rows: with labels.
        drop_conflicts: keep no row of a group whose labels differ.
        word: what a dropped row does to the first one.
    Returns:
        Verdict by row number.
    """
    _, first, numbers = np.unique(groups, return_index=True, return_inverse=True)
    differs = np.zeros(len(first), bool)
    differs[numbers[rows.labels != rows.labels[first[numbers]]]] = True
    found = {}
    for row in np.flatnonzero((first[numbers] != np.arange(len(numbers))) | (differs[numbers] & drop_conflicts)):
        if drop_conflicts and differs[numbers[row]]:
            found[int(row)] = Verdict("copies of it have different labels")
        else:
            found[int(row)] = Verdict(word, other=int(first[numbers[row]]))
    return found
