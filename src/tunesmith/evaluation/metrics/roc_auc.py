"""Area under the ROC curve, one class against the rest."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from tunesmith.core.registry import register
from tunesmith.evaluation.metrics.base import Metric
from tunesmith.evaluation.predictions import Predictions, Sample


@register("metrics")
class RocAuc(Metric):
    """Mean over the classes of the probability that a row of the class scores above a row of another.

    Ties count half. Classes without rows of both kinds are left out.
    """

    name: ClassVar[str] = "roc-auc"

    def __init__(self) -> None:
        self._sorted: dict[int, _Order] = {}

    def compute(self, sample: Sample) -> float:
        """Compute the mean."""
        key = id(sample.of)
        if key not in self._sorted:
            self._sorted = {key: _Order(sample.of)}
        return self._sorted[key].area(sample)


class _Order:
    """Every class's rows in rising order of score; sorted once, read by every resample."""

    def __init__(self, predictions: Predictions) -> None:
        scores = predictions.probabilities
        self.predictions = predictions  # keeps the id valid
        self.order = np.argsort(scores, axis=0, kind="stable")  # (rows, C)
        ranked = np.take_along_axis(scores, self.order, axis=0)
        self.positive = predictions.references[self.order] == np.arange(predictions.classes)
        self.left = np.stack([np.searchsorted(column, column, "left") for column in ranked.T], axis=1)
        self.right = np.stack([np.searchsorted(column, column, "right") for column in ranked.T], axis=1)

    def area(self, sample: Sample) -> float:
        weights = sample.weights[self.order]  # (rows, C)
        negative = np.where(self.positive, 0.0, weights)
        below = np.zeros((len(weights) + 1, weights.shape[1]))
        np.cumsum(negative, axis=0, out=below[1:])
        beaten = np.take_along_axis(below, self.left, axis=0) + np.take_along_axis(below, self.right, axis=0)
        positives = np.where(self.positive, weights, 0.0)
        wins = (positives * beaten).sum(0) / 2
        pairs = positives.sum(0) * below[-1]
        defined = pairs > 0
        return float((wins[defined] / pairs[defined]).mean()) if defined.any() else float("nan")
