"""Expected calibration error."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from tunesmith.core.registry import register
from tunesmith.evaluation.calibration import BINS, bin_of
from tunesmith.evaluation.metrics.base import Metric
from tunesmith.evaluation.predictions import Sample


@register("metrics")
class CalibrationError(Metric):
    """Mean gap between confidence and accuracy over 15 equal bins of confidence, weighted by rows.

    Source: Guo et al. 2017, arXiv:1706.04599, eq. 3.
    """

    name: ClassVar[str] = "calibration-error"
    higher_is_better: ClassVar[bool] = False

    def compute(self, sample: Sample) -> float:
        """Compute the mean gap."""
        confidence = sample.of.confidence
        gaps = (sample.of.correct - confidence) * sample.weights
        return float(np.abs(np.bincount(bin_of(confidence), weights=gaps, minlength=BINS)).sum() / sample.weights.sum())
