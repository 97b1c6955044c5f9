"""Rare labels count more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.search.adjustments.base import Adjustment
from tunesmith.search.changes import Change
from tunesmith.search.evidence import Evidence


@register("adjustments")
class RareLabels(Adjustment):
    """Where labels with few rows have more than their share of errors, weigh them, or show them more often."""

    name: ClassVar[str] = "rare-labels"
    order: ClassVar[int] = 2

    uneven: float = setting(3.0, "Rows of the most frequent label over those of the rarest, from which on it counts.",
                            gt=1)  # fmt: skip

    def propose(self, evidence: Evidence) -> Sequence[Change]:
        """Weigh classes by the root of their rarity; balance the rows of an epoch."""
        counts, errors, training = np.array(evidence.known.counts), evidence.errors, evidence.training
        if not evidence.trains or not len(counts) or counts.max() < self.uneven * max(1, counts.min()):
            return []
        rare = [one for one in errors.labels if one.trained < np.median(counts)]
        wrong = sum(one.wrong for one in rare)
        share = counts[counts < np.median(counts)].sum() / counts.sum()
        if not errors.wrong or wrong <= share * errors.wrong:
            return []
        of_errors = wrong / errors.wrong
        why = f"labels with fewer rows than the median are {share:.0%} of the rows, {of_errors:.0%} of the errors"
        found = list[Change]()
        if training["class_weights"] is None:
            found.append(Change("rare labels weigh more", {"training.class_weights": "root"}, why))
        if training["balance"] == "none" and training["rows_per_label"] is None:
            found.append(Change("rare labels are shown as often", {"training.balance": "oversample"}, why))
        return found
