"""Predictions beside their references, and weighted samples of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tunesmith.core.arrays import Array, Codes


@dataclass(frozen=True)
class Predictions:
    """Probabilities beside the true classes.

    Args:
        probabilities: (rows, C), each row summing to 1.
        references: (rows,), class codes.
    """

    probabilities: Array
    references: Codes

    @property
    def rows(self) -> int:
        """How many rows. [count]"""
        return len(self.references)

    @property
    def classes(self) -> int:
        """C."""
        return int(self.probabilities.shape[1])

    @cached_property
    def predicted(self) -> Codes:
        """(rows,), the class of the highest probability."""
        return self.probabilities.argmax(1).astype(np.int64)

    @cached_property
    def confidence(self) -> Array:
        """(rows,), the highest probability."""
        highest: Array = self.probabilities.max(1)
        return highest

    @cached_property
    def correct(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """(rows,), whether the prediction is right."""
        return np.equal(self.predicted, self.references)

    @cached_property
    def row_loss(self) -> Array:
        """(rows,), minus the log of the probability of the true class. [nats]"""
        true = self.probabilities[np.arange(self.rows), self.references]
        return -np.log(np.clip(true, np.finfo(np.float64).tiny, 1.0))

    @cached_property
    def cells(self) -> Codes:
        """(rows,), each row's cell in the flattened confusion matrix."""
        return self.references * self.classes + self.predicted

    def sample(self, weights: Array | None = None) -> Sample:
        """Weight the rows, all alike when nothing is given.

        Args:
            weights: (rows,), how often each row counts.
        Returns:
            The sample that metrics read.
        """
        return Sample(self, np.ones(self.rows) if weights is None else weights)


@dataclass(frozen=True)
class Counted:
    """A confusion matrix, for metrics that read nothing else.

    Args:
        confusion: (C, C), weight of rows by true and predicted class.
    """

    confusion: Array

    @property
    def present(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """(C,), whether a class occurs among references or predictions."""
        return (self.confusion.sum(0) + self.confusion.sum(1)) > 0


@dataclass(frozen=True)
class Sample:
    """Predictions with a weight per row: a bootstrap resample counts a row 0, 1, 2, ... times.

    Args:
        of: the predictions.
        weights: (rows,).
    """

    of: Predictions
    weights: Array

    @cached_property
    def confusion(self) -> Array:
        """(C, C), weight of rows by true and predicted class."""
        classes = self.of.classes
        counts = np.bincount(self.of.cells, weights=self.weights, minlength=classes * classes)
        return counts.astype(np.float64).reshape(classes, classes)

    @cached_property
    def present(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """(C,), whether a class occurs among references or predictions."""
        return Counted(self.confusion).present

    def mean(self, values: Array) -> float:
        """Average values over the rows.

        Args:
            values: (rows,).
        Returns:
            The weighted mean.
        """
        return float(values @ self.weights / self.weights.sum())
