"""ROUGE-L."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.evaluation.metrics.of_texts import AnswerMetric
from tunesmith.evaluation.words import f1, words
from tunesmith.evaluation.written import WrittenSample


@register("metrics")
class RougeL(AnswerMetric):
    """Mean F1 of the longest common subsequence of words of an answer and its nearest reference; no stemming.

    A reference without words counts 0.

    Source: Lin 2004, ROUGE: a package for automatic evaluation of summaries.
    """

    name: ClassVar[str] = "rouge-l"

    def of(self, sample: WrittenSample) -> float:
        """Average over the answers."""
        return sample.mean(self.name, _best)


def _best(answer: str, right: Sequence[str]) -> float:
    mine, others = words(answer), [words(text) for text in right]
    return max(f1(_common(mine, other), len(mine), len(other)) if other else 0.0 for other in others)


def _common(first: Sequence[str], second: Sequence[str]) -> int:
    row = [0] * (len(second) + 1)
    for word in first:
        before = 0
        for place, other in enumerate(second, 1):
            before, row[place] = row[place], before + 1 if word == other else max(row[place], row[place - 1])
    return row[-1]
