"""chrF."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.evaluation.metrics.of_texts import AnswerMetric
from tunesmith.evaluation.written import Written, WrittenSample


@register("metrics")
class Chrf(AnswerMetric):
    """chrF2 of all answers together, as sacrebleu computes it: F2 over runs of one to six characters.

    Source: Popović 2015, chrF; Post 2018, arXiv:1804.08771 (sacrebleu).
    """

    name: ClassVar[str] = "chrf"
    range: ClassVar[tuple[float, float]] = (0.0, 100.0)

    def of(self, sample: WrittenSample) -> float:
        """Add the counts of characters up, then compute."""
        from sacrebleu.metrics.chrf import CHRF

        scorer = CHRF()

        def counts(answer: str, right: Sequence[str]) -> list[float]:
            found: list[float] = scorer._extract_corpus_statistics([answer], [[text] for text in right])[0]
            return found

        found = sample.sums(self.name, counts)
        if found is None:
            return float("nan")
        return min(100.0, float(scorer._compute_f_score([int(value) for value in found])))

    def signature(self, found: Written) -> str:
        """Return sacrebleu's description of how the score was computed.

        Args:
            found: what was scored.
        Returns:
            For example "nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:2.6.0".
        """
        from sacrebleu.metrics.chrf import CHRF

        scorer = CHRF()
        scorer.corpus_score(found.answers, found.streams())  # type: ignore[arg-type]  # None is for no further one
        return str(scorer.get_signature())
