"""Accuracy."""

from __future__ import annotations

from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.evaluation.metrics.base import Metric
from tunesmith.evaluation.predictions import Sample


@register("metrics")
class Accuracy(Metric):
    """Share of rows whose most probable class is the true one."""

    name: ClassVar[str] = "accuracy"
    proportion: ClassVar[bool] = True

    def compute(self, sample: Sample) -> float:
        """Compute the share."""
        return sample.mean(sample.of.correct.astype(float))
