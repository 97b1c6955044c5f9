"""Rows that are cut, or long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.search.adjustments.base import Adjustment
from tunesmith.search.changes import Change
from tunesmith.search.evidence import Evidence


@register("adjustments")
class LongRows(Adjustment):
    """Where the longest rows are cut and go wrong more often, read more of them."""

    name: ClassVar[str] = "long-rows"
    order: ClassVar[int] = 1

    ratio: float = setting(
        1.2, "Errors of the longest third over those of the shortest, from which on it counts.", gt=1
    )

    def propose(self, evidence: Evidence) -> Sequence[Change]:
        """Double the longest length, as far as the model reads."""
        parts, limit = evidence.errors.lengths, evidence.values["data"]["max_tokens"]
        longer = 0 if limit is None else min(2 * int(limit), evidence.known.limit)
        uneven = len(parts) > 1 and parts[-1].wrong > self.ratio * parts[0].wrong
        if not (evidence.errors.cut and uneven and limit is not None and longer > limit):
            return []
        long, short = parts[-1].wrong, parts[0].wrong
        how = (
            f"the longest third is wrong in {long:.0%}, the shortest in {short:.0%}"
            if evidence.errors.labelled
            else f"the longest third has a mean loss of {long:.2f}, the shortest of {short:.2f}"
        )
        why = f"{evidence.errors.cut} of {evidence.errors.rows} validation rows are cut at {limit} tokens, and {how}"
        return [Change(f"rows of up to {longer} tokens", {"data.max_tokens": longer}, why)]
