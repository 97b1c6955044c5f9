"""What a metric is: facts, and one call from a weighted sample to a number."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from tunesmith.evaluation.predictions import Sample


class Metric:
    """Base of every metric. A metric's file registers one subclass with `@register("metrics")`."""

    name: ClassVar[str]
    higher_is_better: ClassVar[bool] = True
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def compute(self, sample: Sample) -> float:
        """Compute the metric.

        Args:
            sample: predictions with a weight per row.
        Returns:
            A number within `range`; NaN when it is not defined for the sample.
        """
        raise NotImplementedError


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
