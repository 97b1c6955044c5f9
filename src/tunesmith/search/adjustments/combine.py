"""Several changes at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.search.adjustments.base import Adjustment
from tunesmith.search.changes import Change, merged
from tunesmith.search.evidence import Evidence


@register("adjustments")
class Combine(Adjustment):
    """Put changes together that were each a little better, too little to be shown: together they may be."""

    name: ClassVar[str] = "combine"
    order: ClassVar[int] = 0

    most: int = setting(3, "Changes that are put together.", unit="count", ge=2)

    def propose(self, evidence: Evidence) -> Sequence[Change]:
        """Take the best that change different keys: all of them, and the first two."""
        chosen, values = list[Change](), dict[str, Any]()
        for change in evidence.promising:
            if len(chosen) < self.most and not any(_meet(one, other) for one in change.values for other in values):
                chosen.append(change)
                values = merged(values, change.values)
        found = [chosen, chosen[:2]] if len(chosen) > 2 else [chosen] if len(chosen) == 2 else []
        return [self._together(some) for some in found]

    def _together(self, some: Sequence[Change]) -> Change:
        values: dict[str, Any] = {}
        for change in some:
            values = merged(values, change.values)
        return Change(
            "; ".join(change.what for change in some),
            values,
            f"each of these {len(some)} was better in the round before, by too little to be shown",
        )


def _meet(one: str, other: str) -> bool:
    """Say whether two keys are the same, or one stands below the other."""
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")
