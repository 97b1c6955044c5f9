"""Log loss."""

from __future__ import annotations

from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.evaluation.metrics.base import Metric
from tunesmith.evaluation.predictions import Sample


@register("metrics")
class LogLoss(Metric):
    """Mean of minus the log probability of the true class. [nats]"""

    name: ClassVar[str] = "log-loss"
    higher_is_better: ClassVar[bool] = False
    range: ClassVar[tuple[float, float]] = (0.0, float("inf"))

    def compute(self, sample: Sample) -> float:
        """Compute the mean."""
        return sample.mean(sample.of.row_loss)
