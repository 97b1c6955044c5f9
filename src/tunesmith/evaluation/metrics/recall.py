"""Macro recall."""

from __future__ import annotations

from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.evaluation.metrics.base import Metric, per_class
from tunesmith.evaluation.predictions import Sample


@register("metrics")
class Recall(Metric):
    """Mean over the classes of TP / (TP + FN)."""

    name: ClassVar[str] = "recall"

    def compute(self, sample: Sample) -> float:
        """Compute the mean."""
        return per_class(sample, sample.confusion.sum(1))
