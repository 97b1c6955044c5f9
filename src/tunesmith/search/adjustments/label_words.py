"""Prompts: words for labels that are confused."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.search.adjustments.base import Adjustment
from tunesmith.search.changes import Change
from tunesmith.search.evidence import Evidence

_WORD = re.compile(r"[^\W\d_]{3,}")


@register("adjustments")
class LabelWords(Adjustment):
    """Where two labels are confused, add the words to both that tell their training rows apart.

    A word's weight is log (a + 1) / (A + 2) - log (b + 1) / (B + 2), where a of A rows of one label and b of B of the
    other hold it.
    """

    name: ClassVar[str] = "label-words"
    order: ClassVar[int] = 1

    pairs: int = setting(5, "Confused pairs whose labels get words.", unit="count", ge=1)
    words: int = setting(2, "Words for each label.", unit="count", ge=1)

    def propose(self, evidence: Evidence) -> Sequence[Change]:
        """Give the labels of the most confused pairs further words."""
        confused, texts = evidence.errors.confused[: self.pairs], evidence.known.texts
        if evidence.task["name"] != "prompt-classification" or not confused or not texts:
            return []
        words: dict[str, list[str]] = {key: list(own) for key, own in evidence.values["prompt"]["label_words"].items()}
        taken = {word.casefold() for own in words.values() for word in own}
        for pair in confused:
            for label, other in ((pair.true, pair.predicted), (pair.predicted, pair.true)):
                telling = [one for one in self._telling(texts[label], texts[other]) if one not in taken][: self.words]
                if telling:
                    plain = label.replace("_", " ").strip()
                    words.setdefault(label, [plain]).append(f"{plain} ({', '.join(telling)})")
                    taken |= set(telling)
        first = confused[0]
        why = f"{first.true} is taken for {first.predicted} in {first.rows} rows, the first of {len(confused)} pairs"
        return [Change("words for confused labels", {"prompt.label_words": words}, why)]

    def _telling(self, own: Sequence[str], other: Sequence[str]) -> list[str]:
        """Order the words of one label's rows by how well they tell it from the other."""
        mine, theirs = (Counter(word for text in some for word in set(_WORD.findall(text.casefold())))
                        for some in (own, other))  # fmt: skip
        weights = {
            word: np.log((count + 1) / (len(own) + 2)) - np.log((theirs[word] + 1) / (len(other) + 2))
            for word, count in mine.items()
        }
        return [word for word in sorted(weights, key=lambda word: (-weights[word], word)) if weights[word] > 0]
