"""A higher rank, or more layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.search.adjustments.base import Adjustment
from tunesmith.search.changes import Change
from tunesmith.search.evidence import Evidence


@register("adjustments")
class MoreCapacity(Adjustment):
    """Where rows that trained are not answered well either, give the method more to learn with."""

    name: ClassVar[str] = "more-capacity"
    order: ClassVar[int] = 2

    most_rank: int = setting(64, "Highest rank.", unit="count", ge=1)

    def propose(self, evidence: Evidence) -> Sequence[Change]:
        """Double the rank; adapt all layers."""
        if evidence.learned or not evidence.trains:
            return []
        method, why, found = evidence.method, f"{evidence.scores()}: it does not fit its own rows yet", list[Change]()
        rank = method.get("rank")
        if isinstance(rank, int) and 2 * rank <= self.most_rank:
            found.append(Change(f"rank {2 * rank} instead of {rank}", {"method.rank": 2 * rank}, why))
        if method.get("layers") == "top-half":
            found.append(Change("all linear maps instead of the upper half", {"method.layers": "all-linear"}, why))
        return found
