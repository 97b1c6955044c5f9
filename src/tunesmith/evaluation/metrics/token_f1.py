"""Token F1."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.evaluation.metrics.of_texts import AnswerMetric
from tunesmith.evaluation.words import content, f1
from tunesmith.evaluation.written import WrittenSample


@register("metrics")
class TokenF1(AnswerMetric):
    """Mean F1 of the words of an answer against its nearest reference.

    Source: Rajpurkar et al. 2016, arXiv:1606.05250, section 6.1. Differs: Chinese and Japanese count by character;
        articles or signs count where an answer or a reference has nothing else.
    """

    name: ClassVar[str] = "token-f1"

    def of(self, sample: WrittenSample) -> float:
        """Average over the answers."""
        return sample.mean(self.name, _best)


def _best(answer: str, right: Sequence[str]) -> float:
    return max(_overlap(content(answer), content(text)) for text in right)


def _overlap(answer: Sequence[str], right: Sequence[str]) -> float:
    return f1((Counter(answer) & Counter(right)).total(), len(answer), len(right))
