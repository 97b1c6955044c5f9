"""Bits per character."""

from __future__ import annotations

import math
from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.evaluation.metrics.of_texts import LikelihoodMetric
from tunesmith.evaluation.written import WrittenSample


@register("metrics")
class BitsPerCharacter(LikelihoodMetric):
    """-log2 p of all learned tokens over the characters they spell; comparable between tokenizers."""

    name: ClassVar[str] = "bits-per-character"
    range: ClassVar[tuple[float, float]] = (0.0, math.inf)

    def of(self, sample: WrittenSample) -> float:
        """Divide by the characters."""
        return sample.total(sample.of.nats) / math.log(2) / max(1.0, sample.total(sample.of.characters))
