"""Rows that nearly stand there twice."""

from __future__ import annotations

from typing import ClassVar, Literal

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.data.cleaning.base import Filter, Rows, Verdict
from tunesmith.data.cleaning.duplicates import repeated
from tunesmith.data.near import text_groups


@register("cleaning")
class NearDuplicates(Filter):
    """Drop training rows that are near copies of an earlier one, directly or through others."""

    name: ClassVar[str] = "near-duplicates"
    paper: ClassVar[str] = "Broder 1997; Leskovec, Rajaraman, Ullman, ch. 3"
    threshold: float = setting(0.9, "Least Jaccard similarity of character trigrams.", unit="fraction", gt=0, le=1)
    conflicts: Literal["first", "drop"] = setting(
        "first", "Of near copies with different labels, keep the first one or drop all of them."
    )

    def judge(self, rows: Rows) -> dict[int, Verdict]:
        """Find groups of near copies."""
        groups = text_groups(list(rows.texts), self.threshold, rows.seed)
        return repeated(groups, rows, self.conflicts == "drop", "is nearly")
