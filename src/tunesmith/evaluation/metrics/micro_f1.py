"""Micro F1."""

from __future__ import annotations

from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.evaluation.metrics.base import Metric
from tunesmith.evaluation.predictions import Sample


@register("metrics")
class MicroF1(Metric):
    """F1 of all decisions together; equal to accuracy when every row has one label."""

    name: ClassVar[str] = "micro-f1"
    proportion: ClassVar[bool] = True

    def compute(self, sample: Sample) -> float:
        """Compute 2 TP / (2 TP + FP + FN) over the whole confusion matrix."""
        hits = float(sample.confusion.trace())
        return 2 * hits / float(sample.confusion.sum() * 2)
