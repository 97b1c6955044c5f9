"""Loss per token."""

from __future__ import annotations

import math
from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.evaluation.metrics.of_texts import LikelihoodMetric
from tunesmith.evaluation.written import WrittenSample


@register("metrics")
class NatsPerToken(LikelihoodMetric):
    """Mean -log p over all learned tokens; it depends on the tokenizer."""

    name: ClassVar[str] = "nats-per-token"
    range: ClassVar[tuple[float, float]] = (0.0, math.inf)

    def of(self, sample: WrittenSample) -> float:
        """Divide by the tokens."""
        return sample.total(sample.of.nats) / sample.total(sample.of.tokens)
