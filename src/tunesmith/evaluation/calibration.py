"""Probabilities that mean what they say: temperature scaling, reliability, thresholds for abstaining."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tunesmith.core.arrays import Array, Codes
from tunesmith.core.errors import DataError
from tunesmith.evaluation.predictions import Predictions
from tunesmith.evaluation.statistics import Estimate, wilson

BINS = 15
_RANGE = (0.05, 20.0)  # of temperatures that are tried
_SMALLEST = np.finfo(np.float32).tiny  # what single precision tells from nothing; keeps logarithms finite


def bin_of(confidence: Array) -> Codes:
    """Find each row's bin of confidence: (k / 15, (k + 1) / 15].

    Args:
        confidence: (rows,).
    Returns:
        (rows,), from 0.
    """
    return np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)


def with_temperature(probabilities: Array, temperature: float) -> Array:
    """Divide the logits by a temperature: p_c^(1 / T) / sum_k p_k^(1 / T).

    Args:
        probabilities: (rows, C).
        temperature: T > 0; above 1 makes them less sure.
    Returns:
        (rows, C); the order of the classes stays, so every row keeps its answer.
    Example:
        >>> with_temperature(np.array([[0.8, 0.2]]), 2.0).round(3).tolist()
        [[0.667, 0.333]]

    Source: Guo et al. 2017, arXiv:1706.04599, eq. 9; a constant added to the logits of a row changes nothing, so the
        logarithms of probabilities stand for them.
    """
    if temperature == 1:
        return probabilities
    scaled = np.log(np.maximum(probabilities, _SMALLEST)) / temperature
    found: Array = np.exp(scaled - scaled.max(1, keepdims=True))
    return found / found.sum(1, keepdims=True)


def temperature_of(found: Predictions) -> float:
    """Choose the temperature under which the true classes are the most probable.

    Args:
        found: on rows that did not train.
    Returns:
        T.
    Raises:
        DataError: every row is right or every row is wrong, so that no temperature is the best.
    """
    from scipy.optimize import minimize_scalar

    if found.correct.all() or not found.correct.any():
        what = "right" if found.correct.all() else "wrong"
        raise DataError(
            f"all {found.rows} rows to calibrate on are told {what}, so no temperature is the best. Give more rows, "
            "and harder ones, with --data FILE."
        )

    def loss(power: float) -> float:
        scaled = with_temperature(found.probabilities, float(np.exp(power)))
        return float(Predictions(scaled, found.references).row_loss.mean())

    best = minimize_scalar(loss, bounds=tuple(np.log(_RANGE)), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(best.x))


@dataclass(frozen=True)
class Bin:
    """Rows of like confidence.

    Args:
        rows: how many. [count]
        confidence: their mean.
        accuracy: share that is right, with Wilson's interval.
    """

    rows: int
    confidence: float
    accuracy: Estimate

    def plain(self) -> dict[str, Any]:
        """Return plain values."""
        return {"rows": self.rows, "confidence": self.confidence, "accuracy": self.accuracy.plain()}


def reliability(found: Predictions, confidence: float) -> list[Bin]:
    """Compare how sure a model is with how often it is right.

    Args:
        found: what it did.
        confidence: of the intervals. [fraction]
    Returns:
        The bins that hold rows, the least sure first.
    """
    bins = bin_of(found.confidence)
    return [
        Bin(int(own.sum()), float(found.confidence[own].mean()), _share(found.correct[own], confidence))
        for own in (bins == number for number in np.unique(bins))
    ]


def _share(marks: np.ndarray[Any, np.dtype[np.bool_]], confidence: float) -> Estimate:
    if not len(marks):
        return Estimate(float("nan"), float("nan"), float("nan"))
    share = float(marks.mean())
    return Estimate(share, *wilson(share, len(marks), confidence))


@dataclass(frozen=True)
class Answered:
    """What a threshold makes of rows.

    Args:
        precision: share of the answered rows that is right, with Wilson's interval; NaN where none is answered.
        coverage: share of the rows that is answered, with Wilson's interval.
        rows: how many. [count]
    """

    precision: Estimate
    coverage: Estimate
    rows: int

    def plain(self) -> dict[str, Any]:
        """Return plain values."""
        return {"precision": self.precision.plain(), "coverage": self.coverage.plain(), "rows": self.rows}


def answered(found: Predictions, threshold: float, confidence: float) -> Answered:
    """Count what a threshold leaves.

    Args:
        found: what a model did.
        threshold: rows whose most probable class has less are not answered.
        confidence: of the intervals. [fraction]
    Returns:
        Precision and coverage.
    """
    kept = found.confidence >= threshold
    return Answered(_share(found.correct[kept], confidence), _share(kept, confidence), found.rows)


def _curve(found: Predictions) -> tuple[Array, Array, Array]:
    """Return thresholds between rows of different confidence, the highest first, with precision and coverage."""
    order = np.argsort(-found.confidence, kind="stable")
    sure = found.confidence[order]
    counts = np.arange(1, found.rows + 1)
    precision = np.cumsum(found.correct[order]) / counts
    following = np.append(sure[1:], 0.0)
    ends = sure > following  # rows of one confidence are answered together
    return ((sure + following) / 2)[ends], precision[ends], (counts / found.rows)[ends]


def threshold_for_precision(found: Predictions, wanted: float) -> float:
    """Choose the threshold that answers the most rows and is right on the wanted share of them.

    Args:
        found: on rows that did not train.
        wanted: share of the answered rows that is to be right. [fraction]
    Returns:
        The threshold, half way between two rows; 0 where all rows are answered.
    Raises:
        DataError: no threshold reaches it.
    """
    thresholds, precision, coverage = _curve(found)
    enough = np.flatnonzero(precision >= wanted)
    if not len(enough):
        best = int(precision.argmax())
        raise DataError(
            f"no threshold reaches a precision of {wanted:g} on the {found.rows} rows to calibrate on: the highest is "
            f"{precision[best]:.3f}, with {100 * coverage[best]:.1f} % of the rows answered. Ask for less."
        )
    return float(thresholds[enough[-1]]) if enough[-1] + 1 < len(thresholds) else 0.0


def threshold_for_coverage(found: Predictions, wanted: float) -> float:
    """Choose the highest threshold that answers the wanted share of the rows.

    Args:
        found: on rows that did not train.
        wanted: share of the rows that is to be answered. [fraction]
    Returns:
        The threshold, half way between two rows; 0 where all rows are answered.
    """
    thresholds, _, coverage = _curve(found)
    place = int(np.flatnonzero(coverage >= wanted - 1e-12)[0])
    return float(thresholds[place]) if place + 1 < len(thresholds) else 0.0


def precision_curve(found: Predictions) -> tuple[list[float], list[float]]:
    """Follow precision while fewer and fewer rows are answered.

    Args:
        found: what a model did.
    Returns:
        Coverage and precision, the surest rows first.
    """
    _, precision, coverage = _curve(found)
    return coverage.tolist(), precision.tolist()
