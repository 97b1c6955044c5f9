"""Losses and heads that compare rows of labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.search.adjustments.base import Adjustment
from tunesmith.search.changes import Change
from tunesmith.search.evidence import Evidence

_CONTRASTIVE = {"name": "supervised-contrastive", "weight": 0.5}


@register("adjustments")
class CompareLabels(Adjustment):
    """Where labels are taken for each other, learn from their rows side by side, or let the rows vote."""

    name: ClassVar[str] = "compare-labels"
    order: ClassVar[int] = 2

    least: int = setting(2, "Rows of one pair of labels from which on they count as confused.", unit="count", ge=1)

    def propose(self, evidence: Evidence) -> Sequence[Change]:
        """Add a contrastive loss; keep the training rows in the head."""
        pairs = [pair for pair in evidence.errors.confused if pair.rows >= self.least]
        if not evidence.headed or not evidence.trains or not pairs:
            return []
        first = pairs[0]
        why = (
            f"{sum(pair.rows for pair in pairs)} of {evidence.errors.wrong} errors are pairs of labels confused more "
            f"than once, first {first.true} taken for {first.predicted} ({first.rows} rows)"
        )
        found, losses, head = list[Change](), list(evidence.task["losses"]), evidence.task["head_kind"]
        if losses == ["cross-entropy"]:
            change: dict[str, Any] = {"task.losses": [*losses, _CONTRASTIVE]}
            found.append(Change("a loss that compares rows of labels", change, why))
        if head != "proxies-and-matching":
            change = {"task.head_kind": "proxies-and-matching", "task.head_scale": 10.0, "task.losses": losses}
            found.append(Change("a head in which training rows vote", change, why))
        return found
