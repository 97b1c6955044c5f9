"""Recall of rows that belong to no label."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from tunesmith.core.registry import register
from tunesmith.evaluation.metrics.base import Metric
from tunesmith.evaluation.predictions import Predictions, Sample


@register("metrics")
class OutOfScopeRecall(Metric):
    """Share of the rows out of scope that are rejected; the last class is what is out of scope."""

    name: ClassVar[str] = "out-of-scope-recall"
    of_rejection: ClassVar[bool] = True

    def compute(self, sample: Sample) -> float:
        """Compute the share; NaN where no row is out of scope."""
        outside = sample.confusion[-1]
        return float(outside[-1] / outside.sum()) if outside.any() else float("nan")

    def right(self, found: Predictions) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return which rows out of scope were rejected."""
        return found.correct[found.references == found.classes - 1]
