"""Bases of metrics of language models: of likelihoods, and of answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from tunesmith.evaluation.metrics.base import Metric
from tunesmith.evaluation.words import f1, grams, words
from tunesmith.evaluation.written import WrittenSample


class TextMetric(Metric):
    """Base of what reads a language model's results."""

    def compute(self, sample: Any) -> float:
        """Compute the metric on what was written."""
        assert isinstance(sample, WrittenSample)
        return self.of(sample)

    def of(self, sample: WrittenSample) -> float:
        """Compute the metric.

        Args:
            sample: what was written, with a weight per row.
        Returns:
            A number within `range`; NaN when no answered row counts.
        """
        raise NotImplementedError


class LikelihoodMetric(TextMetric):
    """Base of metrics of how probable the references are; lower is better."""

    reads: ClassVar[str] = "likelihood"
    higher_is_better: ClassVar[bool] = False


class AnswerMetric(TextMetric):
    """Base of metrics that compare what was written with references."""

    reads: ClassVar[str] = "answers"


class RougeN(AnswerMetric):
    """Base of ROUGE-N; a reference that is too short to have such runs of words counts 0."""

    size: ClassVar[int]

    def of(self, sample: WrittenSample) -> float:
        """Average over the answers."""
        return sample.mean(self.name, self._best)

    def _best(self, answer: str, right: Sequence[str]) -> float:
        mine = grams(words(answer), self.size)
        others = [grams(words(text), self.size) for text in right]
        return max(f1((mine & other).total(), mine.total(), other.total()) if other else 0.0 for other in others)


class Distinct(AnswerMetric):
    """Base of distinct-n."""

    size: ClassVar[int]

    def of(self, sample: WrittenSample) -> float:
        """Count what occurs in the answers that count."""
        found = [
            (grams(words(answer), self.size), weight)
            for answer, weight in zip(sample.of.answers, sample.answer_weights, strict=True)
            if weight
        ]
        total = sum(weight * counted.total() for counted, weight in found)
        return len({gram for counted, _ in found for gram in counted}) / total if total else float("nan")
