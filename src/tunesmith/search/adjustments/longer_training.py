"""More epochs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.search.adjustments.base import Adjustment
from tunesmith.search.changes import Change
from tunesmith.search.evidence import Evidence


@register("adjustments")
class LongerTraining(Adjustment):
    """Where the last epoch was the best, or rows that trained are not learned yet, train longer."""

    name: ClassVar[str] = "longer-training"
    order: ClassVar[int] = 1

    most: int = setting(60, "Most epochs.", unit="count", ge=1)

    def propose(self, evidence: Evidence) -> Sequence[Change]:
        """Double the epochs."""
        errors, epochs = evidence.errors, int(evidence.training["epochs"])
        rising = errors.best_epoch == errors.epochs
        if not evidence.trains or 2 * epochs > self.most or not (rising or not evidence.learned):
            return []
        why = f"the last of {errors.epochs} epochs is the best" if rising else evidence.scores()
        return [Change(f"{2 * epochs} epochs instead of {epochs}", {"training.epochs": 2 * epochs}, why)]
