"""Exact match."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from tunesmith.core.registry import register
from tunesmith.evaluation.metrics.of_texts import AnswerMetric
from tunesmith.evaluation.words import content
from tunesmith.evaluation.written import Written, WrittenSample


@register("metrics")
class ExactMatch(AnswerMetric):
    """Share of answers that equal a reference, letter case, punctuation and articles aside.

    Source: Rajpurkar et al. 2016, arXiv:1606.05250, section 6.1. Differs: articles or signs count where an answer or a
        reference has nothing else.
    """

    name: ClassVar[str] = "exact-match"

    def of(self, sample: WrittenSample) -> float:
        """Average over the answers."""
        return sample.mean(self.name, _equal)

    def right(self, found: Written) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return which answers equal a reference."""
        return np.array([_equal(answer, right) > 0 for answer, right in zip(found.answers, found.right, strict=True)])


def _equal(answer: str, right: Sequence[str]) -> float:
    return float(any(content(answer) == content(text) for text in right))
