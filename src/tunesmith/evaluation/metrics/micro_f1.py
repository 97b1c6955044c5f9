"""Micro F1."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from tunesmith.core.registry import register
from tunesmith.evaluation.metrics.base import Metric
from tunesmith.evaluation.predictions import Predictions, Sample


@register("metrics")
class MicroF1(Metric):
    """F1 of all decisions together; equal to accuracy when every row has one label."""

    name: ClassVar[str] = "micro-f1"

    def compute(self, sample: Sample) -> float:
        """Compute 2 TP / (2 TP + FP + FN) over the whole confusion matrix."""
        hits = float(sample.confusion.trace())
        return 2 * hits / float(sample.confusion.sum() * 2)

    def right(self, found: Predictions) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return which rows were told right."""
        return found.correct
