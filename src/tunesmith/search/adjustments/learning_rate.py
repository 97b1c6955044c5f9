"""A higher or lower learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.search.adjustments.base import Adjustment
from tunesmith.search.changes import Change
from tunesmith.search.evidence import Evidence


@register("adjustments")
class LearningRate(Adjustment):
    """Raise the rate where rows that trained are not learned, lower it where they are learned by heart."""

    name: ClassVar[str] = "learning-rate"
    order: ClassVar[int] = 3

    factor: float = setting(2.0, "Between neighbouring rates.", gt=1)

    def propose(self, evidence: Evidence) -> Sequence[Change]:
        """Put the likelier direction first; the other one comes in a later round."""
        if not evidence.trains:
            return []
        rate = float(evidence.training["learning_rate"])
        higher, lower = min(rate * self.factor, 10.0), rate / self.factor
        return [
            Change(
                f"learning rate {other:.2g} instead of {rate:.2g}", {"training.learning_rate": other}, evidence.scores()
            )
            for other in ((lower, higher) if evidence.learned else (higher, lower))
        ]
