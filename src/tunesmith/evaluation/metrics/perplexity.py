"""Perplexity."""

from __future__ import annotations

import math
from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.evaluation.metrics.of_texts import LikelihoodMetric
from tunesmith.evaluation.written import WrittenSample


@register("metrics")
class Perplexity(LikelihoodMetric):
    """exp of the mean -log p over all learned tokens; it depends on the tokenizer."""

    name: ClassVar[str] = "perplexity"
    range: ClassVar[tuple[float, float]] = (1.0, math.inf)

    def of(self, sample: WrittenSample) -> float:
        """Raise e to the mean loss."""
        mean = sample.total(sample.of.nats) / sample.total(sample.of.tokens)
        return math.exp(mean) if mean < 700 else math.inf
