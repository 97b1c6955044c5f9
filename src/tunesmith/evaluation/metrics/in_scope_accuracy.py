"""Accuracy on rows that belong to a label."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from tunesmith.core.registry import register
from tunesmith.evaluation.metrics.base import Metric
from tunesmith.evaluation.predictions import Predictions, Sample


@register("metrics")
class InScopeAccuracy(Metric):
    """Share of the rows in scope whose label is right; the last class is what is out of scope."""

    name: ClassVar[str] = "in-scope-accuracy"
    of_rejection: ClassVar[bool] = True

    def compute(self, sample: Sample) -> float:
        """Compute the share; NaN where no row is in scope."""
        inside = sample.confusion[:-1]
        return float(np.trace(inside) / inside.sum()) if inside.any() else float("nan")

    def right(self, found: Predictions) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return which rows in scope were told right."""
        return found.correct[found.references < found.classes - 1]
