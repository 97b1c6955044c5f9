"""Less learned by heart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.search.adjustments.base import Adjustment
from tunesmith.search.changes import Change
from tunesmith.search.evidence import Evidence


@register("adjustments")
class Regularise(Adjustment):
    """Where rows that trained do much better than others, hide tokens, smooth labels, lower the rank, decay weights."""

    name: ClassVar[str] = "regularise"
    order: ClassVar[int] = 1

    gap: float = setting(0.05, "Difference of shares above which rows count as learned by heart.", gt=0)
    ratio: float = setting(0.2, "The same of other metrics, relative to the score.", gt=0)

    def propose(self, evidence: Evidence) -> Sequence[Change]:
        """Try one way after the other."""
        limit = self.gap if evidence.known.share else self.ratio * abs(evidence.errors.score)
        if not evidence.trains or evidence.gap <= limit:
            return []
        training, why, found = evidence.training, f"{evidence.scores()}: much is learned by heart", list[Change]()
        hidden = float(training["token_dropout"])
        if evidence.known.texts and evidence.headed and hidden < 0.3:
            more = 0.1 if hidden == 0 else min(0.3, 2 * hidden)
            found.append(Change(f"{more:.0%} of the tokens hidden", {"training.token_dropout": more}, why))
        if evidence.known.labels and float(training["label_smoothing"]) == 0:
            found.append(Change("labels smoothed by 0.1", {"training.label_smoothing": 0.1}, why))
        rank = evidence.method.get("rank")
        if isinstance(rank, int) and rank >= 4:
            found.append(Change(f"rank {rank // 2} instead of {rank}", {"method.rank": rank // 2}, why))
        if float(training["weight_decay"]) < 0.1:
            found.append(Change("weight decay 0.1", {"training.weight_decay": 0.1}, why))
        return found
