"""What a metric is: facts, and one call from a weighted sample to a number."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from tunesmith.core.registry import find
from tunesmith.evaluation.predictions import Counted, Sample


class Metric:
    """Base of every metric. A metric's file registers one subclass with `@register("metrics")`."""

    name: ClassVar[str]
    reads: ClassVar[str] = "labels"  # or "likelihood" or "answers" of a language model
    higher_is_better: ClassVar[bool] = True
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    of_rejection: ClassVar[bool] = False  # of rows out of scope, which need task.reject
    of_confusion: ClassVar[bool] = False  # reads nothing of a sample but its confusion matrix and present classes

    def compute(self, sample: Any) -> float:
        """Compute the metric.

        Args:
            sample: what the model did, with a weight per row.
        Returns:
            A number within `range`; NaN when it is not defined for the sample.
        """
        raise NotImplementedError

    def right(self, found: Any) -> np.ndarray[Any, np.dtype[np.bool_]] | None:
        """Say of every row that the metric is about whether it counts, where the metric is the share of those that do.

        Shares have better intervals and tests than the bootstrap's.

        Args:
            found: what the model did.
        Returns:
            One per row, or per answer; None for other metrics.
        """
        return None


def is_share(metric: str) -> bool:
    """Say whether a metric runs from 0 to 1, so that it reads best in percent.

    Args:
        metric: its name.
    Returns:
        Whether it does.
    """
    return bool(find("metrics", metric).range == (0.0, 1.0))


def scale_of(metric: str) -> tuple[int, str]:
    """Say how scores read best.

    Args:
        metric: its name, or "validation loss".
    Returns:
        What they are multiplied by, and the unit behind a name: 100 and ", %" of shares, else 1 and nothing.
    """
    return (100, ", %") if metric != "validation loss" and is_share(metric) else (1, "")


def number(value: float | None, form: str) -> str:
    """Word a number.

    Args:
        value: of it; None, NaN or an infinity where there is none.
        form: how Python writes it, for example "+.3f".
    Returns:
        For example "+0.231"; "-" where there is none.
    """
    return "-" if value is None or not math.isfinite(value) else f"{value:{form}}"


def worded(metric: str, value: float | None, low: float | None, high: float | None) -> str:
    """Word a score with its interval: shares in percent, other metrics as they are.

    Args:
        metric: its name.
        value: of the score.
        low: end of the interval.
        high: end of the interval.
    Returns:
        For example "93.1 % (92.2 – 94.0)" or "0.231 (0.214 – 0.250)".
    """
    scale, unit, form = (100, " %", ".1f") if is_share(metric) else (1, "", ".3f")
    main, *ends = (number(_times(scale, one), form) for one in (value, low, high))
    return "-" if main == "-" else f"{main}{unit} ({' – '.join(ends)})"


def _times(scale: int, value: float | None) -> float | None:
    return None if value is None else scale * value


def worded_gain(metric: str, value: float | None, low: float | None, high: float | None, p_value: float) -> str:
    """Word a gain over the best baseline.

    Args:
        metric: its name.
        value: positive when better, whatever the metric's direction.
        low: end of the interval.
        high: end of the interval.
        p_value: of no difference.
    Returns:
        For example "accuracy: +1.1 points against the best baseline (+0.3 to +1.9, ...)".
    """
    scale, unit, form = (100, " points", "+.1f") if is_share(metric) else (1, "", "+.3f")
    main, *ends = (number(_times(scale, one), form) for one in (value, low, high))
    if main == "-":
        return f"{metric}: the difference to the best baseline is no finite number"
    return f"{metric}: {main}{unit} against the best baseline ({' to '.join(ends)}, paired, p = {p_value:.3f})"


def per_class(sample: Sample | Counted, divide_by: Any) -> float:
    """Average the diagonal of the confusion matrix over something, class by class.

    Classes that occur neither among references nor predictions are left out; 0 / 0 counts as 0.

    Args:
        sample: the sample, or its confusion matrix.
        divide_by: (C,), what each class's hits are divided by.
    Returns:
        The macro average.
    """
    hits = np.diagonal(sample.confusion)
    ratio = np.divide(hits, divide_by, out=np.zeros_like(hits), where=divide_by > 0)
    return float(ratio[sample.present].mean())
