"""Macro F1."""

from __future__ import annotations

from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.evaluation.metrics.base import Metric, per_class
from tunesmith.evaluation.predictions import Counted, Sample


@register("metrics")
class MacroF1(Metric):
    """Mean over the classes of F1 = 2 TP / (2 TP + FP + FN)."""

    name: ClassVar[str] = "macro-f1"
    of_confusion: ClassVar[bool] = True

    def compute(self, sample: Sample | Counted) -> float:
        """Compute the mean."""
        return per_class(sample, (sample.confusion.sum(0) + sample.confusion.sum(1)) / 2)
