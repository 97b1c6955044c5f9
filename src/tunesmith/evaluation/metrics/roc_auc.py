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
        scores, self.classes = predictions.probabilities, predictions.references
        self.predictions = predictions  # keeps the id valid
        self.order = np.argsort(scores, axis=0, kind="stable")  # (rows, C)
        places = np.empty_like(self.order)
        np.put_along_axis(places, self.order, np.arange(len(scores))[:, None], axis=0)
        self.place = places[np.arange(len(scores)), self.classes]  # (rows,), each row's in its own class
        own = scores[np.arange(len(scores)), self.classes]
        self.left, self.right = np.empty_like(self.place), np.empty_like(self.place)
        for code in np.unique(self.classes):
            rows = self.classes == code
            column = scores[self.order[:, code], code]
            self.left[rows] = np.searchsorted(column, own[rows], "left")
            self.right[rows] = np.searchsorted(column, own[rows], "right")

    def area(self, sample: Sample) -> float:
        negative = sample.weights[self.order]  # (rows, C)
        negative[self.place, self.classes] = 0.0
        below = np.zeros((len(negative) + 1, negative.shape[1]))
        np.cumsum(negative, axis=0, out=below[1:])
        beaten = below[self.left, self.classes] + below[self.right, self.classes]  # (rows,)
        count = {"minlength": negative.shape[1]}
        wins = np.bincount(self.classes, sample.weights * beaten / 2, **count)
        pairs = np.bincount(self.classes, sample.weights, **count) * below[-1]
        defined = pairs > 0
        return float((wins[defined] / pairs[defined]).mean()) if defined.any() else float("nan")
