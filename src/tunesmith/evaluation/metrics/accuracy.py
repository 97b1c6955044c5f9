"""Accuracy."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from tunesmith.core.registry import register
from tunesmith.evaluation.metrics.base import Metric
from tunesmith.evaluation.predictions import Predictions, Sample


@register("metrics")
class Accuracy(Metric):
    """Share of rows whose most probable class is the true one."""

    name: ClassVar[str] = "accuracy"

    def compute(self, sample: Sample) -> float:
        """Compute the share."""
        return sample.mean(sample.of.correct.astype(float))

    def right(self, found: Predictions) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return which rows were told right."""
        return found.correct
