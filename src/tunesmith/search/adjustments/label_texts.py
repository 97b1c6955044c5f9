"""What labels are called teaches too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.search.adjustments.base import Adjustment
from tunesmith.search.changes import Change
from tunesmith.search.evidence import Evidence


@register("adjustments")
class LabelTexts(Adjustment):
    """Where labels are confused, let their names and descriptions start the class vectors, or train as rows."""

    name: ClassVar[str] = "label-texts"
    order: ClassVar[int] = 3

    least: int = setting(2, "Errors of one label from which on it counts.", unit="count", ge=1)

    def propose(self, evidence: Evidence) -> Sequence[Change]:
        """Start between class means and texts; add the texts as rows."""
        weak = [one for one in evidence.errors.labels if one.wrong >= self.least]
        if not (evidence.headed and evidence.known.texts and weak and evidence.trains):
            return []
        first = weak[0]
        why = (
            f"{len(weak)} labels have {self.least} errors or more, first {first.label} ({first.wrong} of {first.rows})"
        )
        found, task = list[Change](), evidence.task
        if float(evidence.training["label_rows"]) == 0:
            found.append(Change("the labels' texts train as rows", {"training.label_rows": 0.5}, why))
        if task["head_kind"] == "cosine" and task["head_start"] == "prototypes":
            change = {"task.head_start": "prototypes+label-text"}
            found.append(Change("class vectors start at the labels' texts too", change, why))
        return found
