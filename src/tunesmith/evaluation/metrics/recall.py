"""Macro recall."""

from __future__ import annotations

from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.evaluation.metrics.base import Metric, per_class
from tunesmith.evaluation.predictions import Counted, Sample


@register("metrics")
class Recall(Metric):
    """Mean over the classes of TP / (TP + FN)."""

    name: ClassVar[str] = "recall"
    of_confusion: ClassVar[bool] = True

    def compute(self, sample: Sample | Counted) -> float:
        """Compute the mean."""
        return per_class(sample, sample.confusion.sum(1))
