"""BLEU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from tunesmith.core.registry import register
from tunesmith.evaluation.metrics.of_texts import AnswerMetric
from tunesmith.evaluation.words import unspaced
from tunesmith.evaluation.written import Written, WrittenSample


@register("metrics")
class Bleu(AnswerMetric):
    """BLEU of all answers together, as sacrebleu computes it; Chinese references are cut by character.

    Source: Papineni et al. 2002; Post 2018, arXiv:1804.08771 (sacrebleu).
    """

    name: ClassVar[str] = "bleu"
    range: ClassVar[tuple[float, float]] = (0.0, 100.0)

    def of(self, sample: WrittenSample) -> float:
        """Add the counts of n-grams up, then compute."""
        scorer = _scorer(sample.of)

        def counts(answer: str, right: Sequence[str]) -> list[float]:
            one = scorer.sentence_score(answer, list(right))
            return [*one.counts, *one.totals, one.sys_len, one.ref_len]

        found = sample.sums(self.name, counts)
        if found is None:
            return float("nan")
        score = scorer.compute_bleu(
            correct=found[:4].tolist(), total=found[4:8].tolist(), sys_len=int(found[8]), ref_len=int(found[9]),
            smooth_method="exp",
        )  # fmt: skip
        return min(100.0, float(score.score))

    def signature(self, found: Written) -> str:
        """Return sacrebleu's description of how the score was computed.

        Args:
            found: what was scored.
        Returns:
            For example "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0".
        """
        scorer = _scorer(found, effective=False)
        scorer.corpus_score(found.answers, found.streams())
        return str(scorer.get_signature())


def _scorer(found: Written, effective: bool = True) -> Any:
    from sacrebleu.metrics.bleu import BLEU

    own = unspaced([right[0] for right in found.right[:200]])
    return BLEU(tokenize="zh" if own else "13a", effective_order=effective)
