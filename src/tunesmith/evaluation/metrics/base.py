"""What a metric is: facts, and one call from a weighted sample to a number."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from tunesmith.core.registry import find
from tunesmith.evaluation.predictions import Sample


class Metric:
    """Base of every metric. A metric's file registers one subclass with `@register("metrics")`."""

    name: ClassVar[str]
    reads: ClassVar[str] = "labels"  # or "likelihood" or "answers" of a language model
    higher_is_better: ClassVar[bool] = True
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    proportion: ClassVar[bool] = False  # a share of rows: an interval exists also when no row, or every row, counts

    def compute(self, sample: Any) -> float:
        """Compute the metric.

        Args:
            sample: what the model did, with a weight per row.
        Returns:
            A number within `range`; NaN when it is not defined for the sample.
        """
        raise NotImplementedError


def is_share(metric: str) -> bool:
    """Say whether a metric runs from 0 to 1, so that it reads best in percent.

    Args:
        metric: its name.
    Returns:
        Whether it does.
    """
    return bool(find("metrics", metric).range == (0.0, 1.0))


def worded(metric: str, value: float, low: float, high: float) -> str:
    """Word a score with its interval: shares in percent, other metrics as they are.

    Args:
        metric: its name.
        value: of the score.
        low: end of the interval.
        high: end of the interval.
    Returns:
        For example "93.1 % (92.2 – 94.0)" or "0.231 (0.214 – 0.250)".
    """
    if is_share(metric):
        return f"{100 * value:.1f} % ({100 * low:.1f} – {100 * high:.1f})"
    return f"{value:.3f} ({low:.3f} – {high:.3f})"


def worded_gain(metric: str, value: float, low: float, high: float, p_value: float) -> str:
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
    scale, unit, places = (100, " points", 1) if is_share(metric) else (1, "", 3)
    ends = f"{scale * low:+.{places}f} to {scale * high:+.{places}f}"
    return (
        f"{metric}: {scale * value:+.{places}f}{unit} against the best baseline ({ends}, paired bootstrap, "
        f"p = {p_value:.3f})"
    )


def per_class(sample: Sample, divide_by: Any) -> float:
    """Average the diagonal of the confusion matrix over something, class by class.

    Classes that occur neither among references nor predictions are left out; 0 / 0 counts as 0.

    Args:
        sample: the sample.
        divide_by: (C,), what each class's hits are divided by.
    Returns:
        The macro average.
    """
    hits = np.diagonal(sample.confusion)
    ratio = np.divide(hits, divide_by, out=np.zeros_like(hits), where=divide_by > 0)
    return float(ratio[sample.present].mean())
